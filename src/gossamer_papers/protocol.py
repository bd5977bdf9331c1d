"""What a reproduction is: trainings, and what they say of published claims. Nothing here runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from matplotlib.figure import Figure

from gossamer.analysis.statistics import difference_interval
from gossamer.catalogue import REPRODUCTIONS
from gossamer.recipes.diffdac import Scale, Trainings

Verdict: TypeAlias = Literal["holds", "does not hold", "not decided", "not run"]
"""``not decided``: it was run, and its seeds show neither the claim nor its opposite."""
Runs: TypeAlias = Mapping[str, Path]


class Claim(NamedTuple):
    """A statement, whether it holds in our runs, and the figures that say so."""

    text: str
    verdict: Verdict
    evidence: str
    unpublished: bool = False
    """Whether neither paper makes the statement; its text says so with "(ours)"."""


class Training(NamedTuple):
    """What was trained, how large and for how long, in words; ``environments`` are those of each agent."""

    name: str
    agents: int
    environments: int
    length: str
    seeds: int


class Findings(NamedTuple):
    """What runs say: plain data, a verdict on every claim, and a picture."""

    data: dict[str, Any]
    claims: tuple[Claim, ...]
    picture: Figure | None


@dataclass(frozen=True)
class Reproduction:
    """A published figure or table."""

    name: str
    trainings: Callable[[Scale, int], Trainings]
    conclude: Callable[[Runs], Findings]
    published_seeds: int = 8

    @property
    def title(self) -> str:
        """The line about it in the catalogue, or its name where the catalogue has none."""
        return REPRODUCTIONS.get(self.name, self.name)


def unpublished(claim: Claim) -> Claim:
    """Mark a claim that neither paper makes."""
    return claim._replace(unpublished=True)


def higher(text: str, first: np.ndarray, second: np.ndarray, unit: str = "") -> Claim:
    """A claim that the first mean over seeds is the higher: it holds if the difference's 95 % interval is above 0.

    It does not hold if the interval is below, and is not decided if 0 lies in it.

    Example:
        >>> higher("a beats b", np.array([5.0, 6.0, 5.5]), np.array([1.0, 2.0, 1.5])).verdict
        'holds'
    """
    if min(len(first), len(second)) < 2:
        return _too_few(text, first, second, unit)
    difference, low, high = difference_interval(first, second)
    evidence = _evidence(first, second, difference, low, high, unit)
    if low > 0:
        return Claim(text, "holds", evidence)
    if high < 0:
        return Claim(text, "does not hold", f"{evidence}; it is the other way round")
    return Claim(text, "not decided", f"{evidence}; these seeds show no difference")


def alike(text: str, first: np.ndarray, second: np.ndarray, margin: float, unit: str = "") -> Claim:
    """A claim that two means over seeds differ by less than ``margin``: holds if the 95 % interval lies within ±margin.

    It does not hold if the interval lies beyond the margin, and is not decided if it contains one of its ends.

    Example:
        >>> alike("a equals b", np.array([5.0, 5.1]), np.array([5.0, 4.9]), margin=1.0).verdict
        'holds'
    """
    if min(len(first), len(second)) < 2:
        return _too_few(text, first, second, unit)
    difference, low, high = difference_interval(first, second)
    evidence = f"{_evidence(first, second, difference, low, high, unit)}; alike means within ±{margin:.3g}"
    if -margin < low and high < margin:
        return Claim(text, "holds", evidence)
    return Claim(text, "does not hold" if high < -margin or low > margin else "not decided", evidence)


def similar(text: str, first: np.ndarray, second: np.ndarray, share: float = 0.05) -> Claim:
    """``alike`` with a margin of a share of the larger mean.

    Example:
        >>> similar("a equals b", np.array([100.0, 101.0]), np.array([99.0, 100.0])).verdict
        'holds'
    """
    return alike(text, first, second, margin=share * max(abs(first.mean()), abs(second.mean())))


def _too_few(text: str, first: np.ndarray, second: np.ndarray, unit: str) -> Claim:
    return Claim(
        text,
        "not run",
        f"{first.mean():.2f}{unit} against {second.mean():.2f}{unit}; an interval needs two seeds of each",
    )


def _evidence(
    first: np.ndarray, second: np.ndarray, difference: float, low: float, high: float, unit: str
) -> str:
    return (
        f"{first.mean():.2f}{unit} against {second.mean():.2f}{unit} over {len(first)} and {len(second)} seeds, "
        f"difference {difference:.2f} (95 % interval {low:.2f} to {high:.2f})"
    )
