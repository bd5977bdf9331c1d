"""What stands in the report, whatever it is written as: the papers' entries with our results, counted."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gossamer_papers.protocol import Claim, Verdict
from gossamer_papers.published import Entry, Paper, Value, entries, papers
from gossamer_papers.report.results import Learning, Result, Results

VERDICTS: tuple[Verdict, ...] = ("holds", "does not hold", "not decided", "not run")


class Cell(NamedTuple):
    """A published value, and ours in its place; None where we have none."""

    row: str
    column: str
    published: Value
    ours: Value | None


class Section(NamedTuple):
    """A figure, a table, or the theorems of a paper; without a result it was not run."""

    entry: Entry
    result: Result | None
    claims: tuple[Claim, ...]
    cells: tuple[Cell, ...]

    @property
    def anchor(self) -> str:
        """A name for links, as a heading's."""
        words = "".join(
            each if each.isalnum() else " " for each in f"{self.entry.paper} {self.entry.name}".lower()
        )
        return "-".join(words.split())

    @property
    def command(self) -> str:
        """What makes it, or would."""
        return self.result.command if self.result else f"gossamer reproduce {self.entry.reproduction}"

    @property
    def why_not_run(self) -> str:
        """For one without a result."""
        return f"No folder {self.entry.reproduction} is among the results; `{self.command}` makes it."


class Count(NamedTuple):
    """How many claims have each verdict: of the papers, and of ours beside them."""

    published: Mapping[Verdict, int]
    ours: Mapping[Verdict, int]


class Contents(NamedTuple):
    """The whole report."""

    papers: Mapping[str, Paper]
    sections: tuple[Section, ...]
    learning: tuple[Learning, ...]

    def of(self, paper: str) -> list[Section]:
        """The sections of one paper."""
        return [section for section in self.sections if section.entry.paper == paper]

    def tally(self, paper: str) -> Count:
        """Claims of one paper. The statements of an entry without results count as not run."""
        judged = [claim for section in self.of(paper) for claim in section.claims]
        missing = sum(len(section.entry.claims) for section in self.of(paper) if section.result is None)
        published = _count(claim for claim in judged if not claim.unpublished)
        published["not run"] += missing
        return Count(published, _count(claim for claim in judged if claim.unpublished))

    @property
    def missing(self) -> list[Section]:
        """Sections without a result."""
        return [section for section in self.sections if section.result is None]

    @property
    def unjudged(self) -> list[tuple[Section, Claim]]:
        """Claims of results that were not run, whose evidence says why."""
        return [
            (section, claim)
            for section in self.sections
            for claim in section.claims
            if claim.verdict == "not run"
        ]


def contents(results: Results) -> Contents:
    """The report of all results: every entry of both papers, in their order.

    Example:
        >>> nothing = contents(Results({}, ()))
        >>> len(nothing.missing) == len(nothing.sections) > 15
        True
    """
    sections = tuple(_section(entry, results.reproductions.get(entry.reproduction)) for entry in entries())
    return Contents(papers(), sections, results.learning)


def _section(entry: Entry, result: Result | None) -> Section:
    claims = tuple(claim for claim in result.claims if entry.is_about(claim.text)) if result else ()
    cells = tuple(
        Cell(row, column, value, _ours(entry, result, row, column))
        for row, columns in entry.values.items()
        for column, value in columns.items()
    )
    return Section(entry, result, claims, cells)


def _ours(entry: Entry, result: Result | None, row: str, column: str) -> Value | None:
    """Where the entry says that our data has the value; None if it is not there."""
    if result is None or not entry.ours:
        return None
    found: Any = result.data
    for key in entry.ours.format(row=row, column=column).split("/"):
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return None
    numbers = [found.get("mean", found.get("percent")), found.get("low"), found.get("high")]
    known = tuple(float(each) for each in numbers if each is not None)
    return known if len(known) == len(numbers) else None


def _count(claims: Iterable[Claim]) -> dict[Verdict, int]:
    verdicts = [claim.verdict for claim in claims]
    return {verdict: verdicts.count(verdict) for verdict in VERDICTS}
