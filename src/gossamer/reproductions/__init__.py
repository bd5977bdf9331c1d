"""Published figures and tables, each with its trainings, its picture, and a verdict on every claim."""

from collections.abc import Mapping

from gossamer.reproductions import diffdac, gala, siac, theory
from gossamer.reproductions.protocol import Claim, Findings, Reproduction
from gossamer.reproductions.report import write_report
from gossamer.reproductions.run import reproduce, verdict_table
from gossamer.reproductions.series import reproduce_all

REPRODUCTIONS: Mapping[str, Reproduction] = dict(
    sorted(pair for part in (siac, diffdac, gala, theory) for pair in part.REPRODUCTIONS.items())
)

__all__ = [
    "REPRODUCTIONS",
    "Claim",
    "Findings",
    "Reproduction",
    "reproduce",
    "reproduce_all",
    "verdict_table",
    "write_report",
]
