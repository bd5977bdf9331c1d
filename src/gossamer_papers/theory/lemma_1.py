"""Diff-DAC's lemma 1, ‖P^dis C‖ < 1: as stated, as its proof goes, and as it is true; no agent moves here.

The norm is ‖C − J‖₂, ``mixing.consensus_rate``.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from gossamer.errors import InputError, require_at_least
from gossamer.mixing import (
    RULES,
    consensus_rate,
    is_doubly_stochastic,
    is_primitive,
    is_strongly_connected,
    metropolis_hastings,
    weigh,
)
from gossamer.topologies import NAMES, Topology, isolated, named, one_peer_exponential

COUNTEREXAMPLE = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0]])
"""Primitive, doubly stochastic, trace above 0, and ‖C − J‖₂ = 1: agents 0 and 2 hear the same, 1 and 2 swap."""

_NOT_CONNECTED = ("isolated", "edge_list")  # an edge list may be anything
_ROUNDOFF = 1e-9  # of a singular value


class Case(NamedTuple):
    """Weights, what lemma 1 assumes of them, what it needs besides, and the norm.

    ``premise``: doubly stochastic and primitive, all that the lemma asks. ``repaired``: doubly stochastic, connected,
    and every agent keeps some of its own; of several phases, their product.
    """

    name: str
    premise: bool
    repaired: bool
    rate: float

    @property
    def contracts(self) -> bool:
        """Whether the norm is below one."""
        return self.rate < 1 - _ROUNDOFF

    @property
    def stalls(self) -> bool:
        """Whether the norm is one, but for rounding: some disagreement stays as it was."""
        return abs(self.rate - 1) <= _ROUNDOFF


def case(name: str, phases: Sequence[csr_array] | Float[np.ndarray, "agent agent"]) -> Case:
    """The lemma for a static matrix, or for the product of all phases of a period.

    Example:
        >>> found = case("counterexample", COUNTEREXAMPLE)
        >>> found.premise, found.repaired, found.contracts
        (True, False, False)
        >>> found = case("its lazy form", (COUNTEREXAMPLE + np.eye(3)) / 2)
        >>> found.premise, found.repaired, found.contracts
        (True, True, True)
    """
    matrices = [csr_array(phases)] if isinstance(phases, np.ndarray) else list(phases)
    product = functools.reduce(lambda product, W: csr_array(W @ product), matrices)
    doubly = is_doubly_stochastic(product)
    return Case(
        name,
        premise=doubly and is_primitive(product),
        repaired=doubly and is_strongly_connected(product) and bool((product.diagonal() > 0).all()),
        rate=consensus_rate(matrices),
    )


def named_cases() -> tuple[Case, ...]:
    """The counterexample and its lazy form; agents without out-neighbours; a round whose graph is in two parts.

    The norm of a time-varying topology's single round is 1 where that round's graph is not connected.
    """
    one_round = weigh(one_peer_exponential(8), metropolis_hastings)[1]
    return (
        case("counterexample", COUNTEREXAMPLE),
        case("counterexample, lazy: (I + C)/2", (COUNTEREXAMPLE + np.eye(3)) / 2),
        case("isolated, 8 agents", weigh(isolated(8), metropolis_hastings)),
        case("second round of one-peer exponential, 8 agents", [one_round]),
    )


def topology_cases(agents: int = 16) -> tuple[Case, ...]:
    """Every connected topology of the library with every weight rule that is doubly stochastic on it.

    A time-varying one by the product over a period.

    Raises:
        InputError: a number of agents for which some topology is undefined, a hypercube's at 6, say; powers of two
            from 8 on work for all.

    Example:
        >>> cases = topology_cases(8)
        >>> all(each.contracts for each in cases if each.repaired)
        True
    """
    found = [_case_of(graph, name) for graph in _connected_graphs(agents) for name in RULES]
    return tuple(each for each in found if each is not None)


def one_norm(C: Float[np.ndarray, "agent agent"]) -> float:
    """‖C − J‖₁, which the lemma's proof bounds by ‖C‖₁ = 1; it may be nearly 2.

    Example:
        >>> from gossamer.topologies import ring
        >>> round(one_norm(weigh(ring(25), metropolis_hastings)[0].toarray()), 2)
        1.76
    """
    return float(np.linalg.norm(C - 1 / len(C), 1))


def _connected_graphs(agents: int) -> list[Topology]:
    """All at once, so that what is refused names numbers that none refuses."""
    require_at_least("agents", agents, 1)
    graphs, refused = [], []
    for name in NAMES:
        if name in _NOT_CONNECTED:
            continue
        try:
            graphs.append(named(name, agents))
        except InputError:
            refused.append(name)
    if refused:
        are = "is" if len(refused) == 1 else "are"
        raise InputError(
            f"{' and '.join(refused)} {are} not defined for {agents} agents; numbers that work for all"
            " topologies are 8, 16, 32, …"
        )
    return graphs


def _case_of(graph: Topology, rule: str) -> Case | None:
    """None where the rule's weights are not doubly stochastic in some phase."""
    try:
        phases = weigh(graph, RULES[rule])
    except InputError:
        return None
    if not all(is_doubly_stochastic(phase) for phase in phases):
        return None
    return case(f"{graph.name}, {rule}", phases)
