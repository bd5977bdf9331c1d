"""Published figures and tables, each with its trainings, its picture, and a verdict on every claim."""

from gossamer.reproductions.diffdac import REPRODUCTIONS
from gossamer.reproductions.protocol import Claim, Findings, Reproduction
from gossamer.reproductions.run import reproduce, verdict_table

__all__ = ["REPRODUCTIONS", "Claim", "Findings", "Reproduction", "reproduce", "verdict_table"]
