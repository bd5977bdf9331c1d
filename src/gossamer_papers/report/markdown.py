"""The report as Markdown, whose pictures are links."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

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

_SPECIAL = re.compile(r"([\\`*_\[\]<>|])")


def markdown(contents: Contents, folder: Path) -> str:
    """The whole page; links are relative to the folder in which it will lie."""
    parts = [
        f"# {TITLE}",
        INTRODUCTION,
        f"Written by `{COMMAND}` from the folders of results.",
        _summary(contents),
    ]
    for name, paper in contents.papers.items():
        parts += [f"## {paper.title}", f"{paper.source}."]
        parts += [part for section in contents.of(name) for part in _section(section, folder)]
    parts += ["## Not run, and why", _table(("what", "why"), reasons(contents))]
    if contents.learning:
        parts += [f"## {LEARNING}", *(_learning(each, folder) for each in contents.learning)]
    return "\n\n".join(parts) + "\n"


def _summary(contents: Contents) -> str:
    rows = [
        [paper.title, whose, *map(str, counts)]
        for name, paper in contents.papers.items()
        for whose, counts in counted(contents.tally(name))
    ]
    shown = len(contents.sections) - len(contents.missing)
    table = _table(("paper", "claims", *VERDICTS), rows)
    return (
        f"{table}\n\n{shown} of {len(contents.sections)} figures, tables and groups of theorems have results."
    )


def _section(section: Section, folder: Path) -> list[str]:
    entry, result = section.entry, section.result
    parts = [f"### {entry.name}", _escaped(entry.shows), "The paper:"]
    parts.append("\n".join(f"- {_escaped(claim)}" for claim in entry.claims))
    if section.cells:
        parts.append(_values(section))
    if entry.note:
        parts.append(_escaped(entry.note))
    if result is None:
        return [*parts, f"**Not run.** {section.why_not_run}"]
    parts.append(_table(("verdict", "claim", "in our runs"), section.claims and _judged(section)))
    if result.picture is not None:
        parts.append(f"![{_escaped(entry.name)}, ours]({_link(result.picture, folder)})")
    parts.append(f"`{section.command}`")
    parts.append("\n".join(f"- {name}: {_escaped(value)}" for name, value in facts(section)))
    if result.trainings:
        parts.append(
            _table(("training", "agents", "environments of each", "length", "seeds"), result.trainings)
        )
    return parts


def _judged(section: Section) -> list[tuple[str, str, str]]:
    return [(claim.verdict, claim.text, claim.evidence) for claim in section.claims]


def _values(section: Section) -> str:
    rows = [(cell.row, cell.column, number(cell.published), number(cell.ours)) for cell in section.cells]
    return _table(("", "", "published", "ours"), rows)


def _learning(learning: Learning, folder: Path) -> str:
    ends = "; ".join(
        f"{_escaped(name)} {value:.1f} at the end of {rounds:,} rounds"
        for name, (rounds, value) in learning.returns.items()
    )
    link = _link(learning.folder / "summary.json", folder)
    origin = f"`{learning.command}`, {learning.date}, {_escaped(learning.machine)}"
    return f"- [{_escaped(learning.folder.name)}]({link}): mean return {ends}. {origin}."


def _table(head: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    lines = [head, ["---"] * len(head), *([_escaped(str(cell)) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _escaped(text: str) -> str:
    return " ".join(_SPECIAL.sub(r"\\\1", text).split())


def _link(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
