"""How much to believe whom: from who hears whom to weights, by a rule that has a name."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from scipy.sparse import coo_array, csr_array, diags_array, eye_array

from gossamer.catalogue import WEIGHT_RULES
from gossamer.errors import InputError
from gossamer.mixing.matrices import agents_of, row_sums
from gossamer.mixing.properties import is_doubly_stochastic
from gossamer.specs import parse_spec
from gossamer.topologies import Topology

Rule: TypeAlias = Callable[[csr_array], csr_array]  # from a phase's adjacency to its weights


def weigh(topology: Topology, rule: Rule) -> tuple[csr_array, ...]:
    """The weights that ``rule`` gives in every phase of ``topology``.

    Example:
        >>> from gossamer import topologies
        >>> weigh(topologies.line(3), metropolis_hastings)[0].toarray().round(2).tolist()
        [[0.67, 0.33, 0.0], [0.33, 0.33, 0.33], [0.0, 0.33, 0.67]]
    """
    return tuple(rule(topology.adjacency(phase)) for phase in range(topology.period))


def metropolis_hastings(adjacency: csr_array) -> csr_array:
    """W_ij = 1 / (1 + max(d_i, d_j)) on every edge, the rest to oneself.

    Doubly stochastic on every symmetric graph. d_i is how many others agent i hears.

    Raises:
        InputError: the graph is directed and the result not doubly stochastic.

    Example:
        >>> from gossamer import topologies
        >>> metropolis_hastings(topologies.star(3).adjacency()).toarray()[0].round(2).tolist()
        [0.33, 0.33, 0.33]
    """
    degree, edges = row_sums(adjacency), coo_array(adjacency)
    weight = 1 / (1 + np.maximum(degree[edges.row], degree[edges.col]))
    others = csr_array((weight, (edges.row, edges.col)), shape=adjacency.shape)
    W = csr_array(others + diags_array(1 - row_sums(others)))
    if not is_doubly_stochastic(W):
        raise InputError(
            "metropolis_hastings does not keep the mean on this directed graph: its columns do not sum to"
            " one; use uniform, whose rows do, or a graph in which everybody is heard as often as it hears"
        )
    return W


def uniform(adjacency: csr_array) -> csr_array:
    """W_ij = 1 / (1 + d_i) for oneself and everybody heard: doubly stochastic where all degrees are equal.

    Example:
        >>> from gossamer import topologies
        >>> uniform(topologies.line(3).adjacency()).toarray().round(2).tolist()
        [[0.5, 0.5, 0.0], [0.33, 0.33, 0.33], [0.0, 0.5, 0.5]]
    """
    neighbourhood = csr_array(adjacency + eye_array(agents_of(adjacency)))
    return csr_array(diags_array(1 / row_sums(neighbourhood)) @ neighbourhood)


def laplacian(adjacency: csr_array, epsilon: float | None = None) -> csr_array:
    """W = I - ε L with L = D - A: doubly stochastic where everybody is heard as often as it hears.

    ``epsilon`` is 1 / (d_max + 1) unless given.

    Raises:
        InputError: ``epsilon`` outside (0, 1 / d_max].

    Example:
        >>> from gossamer import topologies
        >>> laplacian(topologies.line(3).adjacency(), epsilon=0.5).toarray().tolist()
        [[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]
    """
    degree = row_sums(adjacency)
    largest = max(degree.max(), 1)
    epsilon = 1 / (degree.max() + 1) if epsilon is None else epsilon
    if not 0 < epsilon * largest <= 1:
        raise InputError(
            f"laplacian: epsilon is {epsilon:g}; it must be above 0 and at most 1 / d_max,"
            f" here {1 / largest:.4g}"
        )
    return csr_array(diags_array(1 - epsilon * degree) + epsilon * adjacency)


def lazy(adjacency: csr_array) -> csr_array:
    """(I + M) / 2 with Metropolis–Hastings weights M: no eigenvalue is negative.

    Example:
        >>> from gossamer import topologies
        >>> lazy(topologies.ring(2).adjacency()).toarray().tolist()
        [[0.75, 0.25], [0.25, 0.75]]
    """
    return csr_array((eye_array(agents_of(adjacency)) + metropolis_hastings(adjacency)) / 2)


RULES: Mapping[str, Rule] = MappingProxyType({name: globals()[name] for name in WEIGHT_RULES})


def named_rule(spec: str) -> Rule:
    """The rule that a name or a name with parameters, stands for.

    Raises:
        InputError: unknown name (with the nearest ones), unknown or ill-typed parameter.

    Example:
        >>> named_rule("laplacian:epsilon=0.2").keywords
        {'epsilon': 0.2}
        >>> named_rule("metropolis")
        Traceback (most recent call last):
        gossamer.errors.InputError: 'metropolis' is not a weight rule, nor ...; did you mean metropolis_hastings? ...
    """
    rule, arguments = parse_spec(spec, RULES, "weight rule, nor the path of a matrix file")
    return functools.partial(rule, **arguments)
