"""Published figures and tables, each with its trainings, its picture, and a verdict on every claim."""

from collections.abc import Mapping

from gossamer_papers import diffdac, gala, siac, theory_figures
from gossamer_papers.protocol import Claim, Findings, Reproduction
from gossamer_papers.report import write_report
from gossamer_papers.run import reproduce, verdict_table
from gossamer_papers.series import reproduce_all

REPRODUCTIONS: Mapping[str, Reproduction] = dict(
    sorted(pair for part in (siac, diffdac, gala, theory_figures) for pair in part.REPRODUCTIONS.items())
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
