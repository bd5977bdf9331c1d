"""Writes the report: reads the folders of results, sets them beside the papers, and saves both pages."""

from pathlib import Path

from gossamer.errors import InputError
from gossamer_papers.report.contents import contents
from gossamer_papers.report.markdown import markdown
from gossamer_papers.report.page import page
from gossamer_papers.report.results import read_results


def write_report(results: Path, out: Path, html: Path) -> tuple[Path, Path]:
    """Write what the papers claim and what results say, as Markdown and as one self-contained HTML page.

    Every figure, table and theorem of both papers is there; one without results is "not run". The same results give
    the same pages, but for how pictures are compressed.

    Args:
        results: the folder with a folder for each figure or table, as ``reproduce`` writes them.
        out: the Markdown page; its pictures are links into ``results``.
        html: the HTML page, whose pictures are inside.

    Returns:
        ``out`` and ``html``.

    Raises:
        InputError: there are no results, one of them is damaged, or a page cannot be written.

    Example:
        >>> write_report(Path("nowhere"), Path("report.md"), Path("report.html"))
        Traceback (most recent call last):
        gossamer.errors.InputError: nowhere is no folder of results; give one that gossamer reproduce has written to
    """
    found = contents(read_results(results))
    for path, text in ((out, markdown(found, out.parent)), (html, page(found, html.parent))):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}); choose another path") from error
    return out, html
