"""All results beside what the papers claim: one Markdown page, and one HTML page that needs nothing else."""

from gossamer_papers.report.write import write_report

__all__ = ["write_report"]
