"""The report as one HTML page that needs nothing else: its style and its pictures are inside, and it has no script."""

import base64
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from gossamer.errors import InputError
from gossamer_papers.report.contents import VERDICTS, Contents, Section
from gossamer_papers.report.results import Learning
from gossamer_papers.report.words import (
    COMMAND,
    INTRODUCTION,
    LEARNING,
    TITLE,
    counted,
    facts,
    number,
    reasons,
)

_WIDEST = 1400  # pixels of a picture
_COLOURS = 96  # in its palette

_STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --faint: #5a6068; --paper: #ffffff; --card: #f4f6f8;
  --line: #d7dce2; --holds: #00694a; --not: #a63c00; --link: #005a92; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8eb; --faint: #a3aab3; --paper: #15181c; --card: #20252b;
  --line: #3a424c; --holds: #4fd3a4; --not: #ff9a5c; --link: #79bdf2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; background: var(--paper); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.2; }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
h3 { margin-top: 2.5rem; }
a { color: var(--link); }
code { overflow-wrap: anywhere; background: var(--card); padding: .1em .3em; border-radius: .2em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .5rem; text-align: left; vertical-align: top; }
.verdict { font-weight: 600; white-space: nowrap; }
.holds { color: var(--holds); } .does-not-hold { color: var(--not); } .not-run, .not-decided { color: var(--faint); }
img { display: block; max-width: 100%; height: auto; margin: 1rem 0; background: #fff; border-radius: .3rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .9rem; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
nav ul { columns: 16rem; padding-left: 1.2rem; }
"""


def page(contents: Contents, folder: Path) -> str:
    """The whole page; links are relative to the folder in which it will lie.

    Raises:
        InputError: a picture cannot be read.
    """
    body = [f"<h1>{escape(TITLE)}</h1>", f"<p>{escape(INTRODUCTION)}</p>"]
    body += [f"<p>Written by <code>{COMMAND}</code> from the folders of results.</p>", *_summary(contents)]
    body += _navigation(contents)
    for name, paper in contents.papers.items():
        body += [f"<h2>{escape(paper.title)}</h2>", f"<p>{escape(paper.source)}.</p>"]
        body += [line for section in contents.of(name) for line in _section(section)]
    body += ["<h2>Not run, and why</h2>", _table(("what", "why"), reasons(contents))]
    if contents.learning:
        body += [f"<h2>{escape(LEARNING)}</h2>", "<ul>"]
        body += [*(_learning(each, folder) for each in contents.learning), "</ul>"]
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(TITLE)}</title>",
        f"<style>{_STYLE}</style>",
    ]
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        *head,
        "</head>",
        "<body>",
        *body,
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def _summary(contents: Contents) -> list[str]:
    rows = [
        [paper.title, whose, *map(str, counts)]
        for name, paper in contents.papers.items()
        for whose, counts in counted(contents.tally(name))
    ]
    shown, every = len(contents.sections) - len(contents.missing), len(contents.sections)
    return [
        _table(("paper", "claims", *VERDICTS), rows),
        f"<p>{shown} of {every} figures, tables and groups of theorems have results.</p>",
    ]


def _navigation(contents: Contents) -> list[str]:
    """Links to all sections, each with how many of its claims hold."""
    lines = ["<nav>"]
    for name, paper in contents.papers.items():
        lines += [f"<p>{escape(paper.title)}</p>", "<ul>"]
        for section in contents.of(name):
            holding = [claim.verdict for claim in section.claims].count("holds")
            said = f"{holding} of {len(section.claims)} hold" if section.result else "not run"
            link = f'<a href="#{section.anchor}">{escape(section.entry.name)}</a>'
            lines.append(f"<li>{link}: {said}</li>")
        lines.append("</ul>")
    return [*lines, "</nav>"]


def _section(section: Section) -> list[str]:
    entry, result = section.entry, section.result
    lines = [
        f'<h3 id="{section.anchor}">{escape(entry.name)}</h3>',
        f"<p>{escape(entry.shows)} The paper:</p>",
    ]
    lines += ["<ul>", *(f"<li>{escape(claim)}</li>" for claim in entry.claims), "</ul>"]
    if section.cells:
        rows = [(cell.row, cell.column, number(cell.published), number(cell.ours)) for cell in section.cells]
        lines.append(_table(("", "", "published", "ours"), rows))
    if entry.note:
        lines.append(f"<p>{escape(entry.note)}</p>")
    if result is None:
        why = f"No folder {escape(entry.reproduction)} is among the results"
        said = f"{why}; <code>{escape(section.command)}</code> makes it."
        return [*lines, f'<p><span class="verdict not-run">Not run.</span> {said}</p>']
    lines.append(_judged(section))
    if result.picture is not None:
        lines.append(_picture(result.picture, f"{entry.name}, ours"))
    lines.append(f"<p><code>{escape(section.command)}</code></p>")
    known = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts(section)]
    lines += ["<dl>", *known, "</dl>"]
    if result.trainings:
        head = ("training", "agents", "environments of each", "length", "seeds")
        lines += [
            f"<details><summary>{len(result.trainings)} trainings</summary>",
            _table(head, result.trainings),
        ]
        lines.append("</details>")
    return lines


def _judged(section: Section) -> str:
    """The claims, whose verdicts have a colour beside their words."""
    rows = [
        f'<tr><td class="verdict {claim.verdict.replace(" ", "-")}">{claim.verdict}</td>'
        f"<td>{escape(claim.text)}</td><td>{escape(claim.evidence)}</td></tr>"
        for claim in section.claims
    ]
    return _framed(("verdict", "claim", "in our runs"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    return _framed(
        head, [f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows]
    )


def _framed(head: Sequence[str], rows: Sequence[str]) -> str:
    titles = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = ['<div class="wide"><table>', f"<thead><tr>{titles}</tr></thead>", "<tbody>", *rows, "</tbody>"]
    return "\n".join([*lines, "</table></div>"])


def _picture(path: Path, text: str) -> str:
    """Smaller than the file that it shows, of which it says the digest."""
    try:
        whole = path.read_bytes()
        with Image.open(io.BytesIO(whole)) as opened:
            image = opened.convert("RGB")
    except OSError as error:
        raise InputError(f"{path} is no readable picture; draw it again with gossamer reproduce") from error
    width = min(image.width, _WIDEST)
    image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    small = io.BytesIO()
    image.quantize(_COLOURS).save(small, "png", optimize=True)
    data = base64.b64encode(small.getvalue()).decode()
    digest = hashlib.sha256(whole).hexdigest()
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img alt="{escape(text)}" {size} data-sha256="{digest}" src="data:image/png;base64,{data}">'


def _learning(learning: Learning, folder: Path) -> str:
    ends = "; ".join(
        f"{escape(name)} {value:.1f} at the end of {rounds:,} rounds"
        for name, (rounds, value) in learning.returns.items()
    )
    link = escape(Path(os.path.relpath(learning.folder / "summary.json", folder)).as_posix())
    origin = f"<code>{escape(learning.command)}</code>, {escape(learning.date)}, {escape(learning.machine)}"
    return f'<li><a href="{link}">{escape(learning.folder.name)}</a>: mean return {ends}. {origin}.</li>'
