"""GALA's propositions 1 and 2 on random records of asynchronous gossip; the bounds are those of ``analysis``."""

from typing import NamedTuple

import numpy as np

from gossamer.analysis.consensus_bounds import (
    Gossip,
    are_ergodic,
    contraction_norms,
    distances,
    exact_bounds,
    printed_bounds,
    random_gossip,
    strong_connectivity,
)
from gossamer.errors import InputError, require_at_least

ROUNDOFF = 1e-9
"""Of float64, in sums of some hundred products."""


class Study(NamedTuple):
    """Over several records: iterations beyond each bound, and how products over τ + B iterations contract.

    ``ratio`` and ``printed_ratio`` are medians of distance over bound; ``length`` is the largest τ + B, ``ergodic`` the
    share of products over τ + B that are ergodic, ``norm`` their largest norm, and ``contracting_length`` how long
    products must be for all norms to be below one, in the record that takes longest, of up to ``examined`` iterations;
    None if some record is too short.
    """

    moments: int
    beyond_exact: int
    beyond_printed: int
    ratio: float
    printed_ratio: float
    length: int
    ergodic: float
    norm: float
    contracting_length: int | None
    examined: int


def study(agents: int, iterations: int, records: int, delay: int, seed: int = 0) -> Study:
    """Random records on a directed ring, of seeds that count up from ``seed``; see ``random_gossip``.

    Raises:
        InputError: a number is too small, or a record too short for every agent to be heard.

    Example:
        >>> found = study(agents=4, iterations=60, records=2, delay=1)
        >>> found.beyond_exact, found.ergodic, found.norm > 1
        (0, 1.0, True)
    """
    require_at_least("records", records, 1)
    gossips = [random_gossip(agents, iterations, delay, seed + index) for index in range(records)]
    distance = np.concatenate([distances(gossip) for gossip in gossips])
    exact = np.concatenate([exact_bounds(gossip) for gossip in gossips])
    printed = np.concatenate([printed_bounds(gossip) for gossip in gossips])
    lengths = [_window(gossip) for gossip in gossips]
    pairs = list(zip(gossips, lengths, strict=True))
    contracting = [contracting_length(gossip) for gossip in gossips]
    return Study(
        moments=len(distance),
        beyond_exact=int((distance > exact * (1 + ROUNDOFF)).sum()),
        beyond_printed=int((distance > printed * (1 + ROUNDOFF)).sum()),
        ratio=float(np.median(distance / exact)),
        printed_ratio=float(np.median(distance / printed)),
        length=max(lengths),
        ergodic=float(np.concatenate([are_ergodic(*pair) for pair in pairs]).mean()),
        norm=float(max(contraction_norms(*pair).max() for pair in pairs)),
        contracting_length=None if None in contracting else max(each or 0 for each in contracting),
        examined=_longest(gossips[0]),
    )


def contracting_length(gossip: Gossip) -> int | None:
    """The smallest L from which on products over all windows have norms below one, up to half of the record's length.

    None if those over half of the record have not.

    Example:
        >>> contracting_length(random_gossip(agents=2, iterations=30, delay=0, seed=0))
        4
    """
    lengths = range(1, _longest(gossip) + 1)
    expanding = [length for length in lengths if contraction_norms(gossip, length).max() >= 1]
    first = max(expanding, default=0) + 1
    return first if first in lengths else None


def _longest(gossip: Gossip) -> int:
    """Half of a record: of longer products there are few."""
    return len(gossip.weights) // 2


def _window(gossip: Gossip) -> int:
    """τ + B of proposition 2."""
    connected = strong_connectivity(gossip.weights)
    length = gossip.delay + connected if connected is not None else None
    if length is None or length > len(gossip.weights):
        raise InputError(f"iterations is {len(gossip.weights)}; not every agent was heard, it must be more")
    return length
