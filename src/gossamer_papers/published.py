"""What the papers show: their figures, tables and theorems in their order, with the numbers that they print.

The facts are in ``published.toml``, once; figures and tables that compare with them read them here.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple, TypeAlias

Value: TypeAlias = tuple[float, ...]


class Paper(NamedTuple):
    """Who wrote what."""

    title: str
    source: str


class Entry(NamedTuple):
    """A figure, a table, or the theorems of one paper.

    ``about`` chooses among the claims of a reproduction that serves both papers: those that begin with it or, after
    a minus, that do not. A value is a number, or a number with the ends of its published interval; ``ours`` is where a
    reproduction's data has ours: keys with slashes between, ``{row}`` and ``{column}`` for the value's.
    """

    paper: str
    name: str
    reproduction: str
    shows: str
    claims: tuple[str, ...]
    about: str
    note: str
    values: Mapping[str, Mapping[str, Value]]
    ours: str

    def is_about(self, claim: str) -> bool:
        """Whether a claim of the reproduction belongs to this entry.

        Example:
            >>> [entry.name for entry in entries() if entry.is_about("GALA, proposition 3") and entry.about]
            ['Propositions']
        """
        if self.about.startswith("-"):
            return not claim.startswith(self.about[1:])
        return claim.startswith(self.about)


def papers() -> dict[str, Paper]:
    """The papers by the names that entries use, in the report's order.

    Example:
        >>> list(papers())
        ['diffdac', 'gala']
    """
    return {name: Paper(**paper) for name, paper in _data()["papers"].items()}


def entries() -> tuple[Entry, ...]:
    """All figures, tables and theorems, in the order of the papers.

    Example:
        >>> [entry.name for entry in entries() if entry.paper == "gala"]
        ['Figure 1', 'Figure 2', 'Figure 3', 'Table 1', 'Propositions', 'Figure 4 (appendix)']
    """
    return tuple(_entry(each) for each in _data()["entries"])


def published_values(reproduction: str) -> dict[str, dict[str, float]]:
    """Numbers of a published table, by row and column, without their intervals.

    Example:
        >>> published_values("diffdac-table3")["diffusion"]
        {'train': -33.2, 'easy': 31.3, 'hard': 25.1}
    """
    (entry,) = (each for each in entries() if each.reproduction == reproduction)
    return {
        row: {column: value[0] for column, value in columns.items()} for row, columns in entry.values.items()
    }


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(files("gossamer_papers").joinpath("published.toml").read_text("utf-8"))


def _entry(data: Mapping[str, Any]) -> Entry:
    values = {
        row: {column: tuple(value) if isinstance(value, list) else (value,) for column, value in of.items()}
        for row, of in data.get("values", {}).items()
    }
    return Entry(
        paper=data["paper"],
        name=data["name"],
        reproduction=data["reproduction"],
        shows=data["shows"],
        claims=tuple(data["claims"]),
        about=data.get("about", ""),
        note=data.get("note", ""),
        values=values,
        ours=data.get("ours", ""),
    )
