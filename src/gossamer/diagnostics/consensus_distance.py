"""The consensus distance: how far the parameters of a population's agents are from their mean."""

from functools import reduce
from operator import add

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gossamer.running_statistics import without_statistics
from gossamer.types import Message


def consensus_distance(*groups: Message) -> Float[Array, ""]:
    """Root mean square distance of the agents to their mean, √(1/N Σ_k ‖x_k − x̄‖²).

    Running statistics are left out: their units differ, and they grow with time.

    Args:
        *groups: messages with leaves ``[agent, ...]``: one group of all agents, or several, so that large messages need
            not be copied into one array. Arrays of numpy are reduced by numpy, without compiling.

    Example:
        >>> float(consensus_distance({"w": jnp.array([[0.0], [2.0]])}))
        1.0
        >>> float(consensus_distance({"w": jnp.zeros((1, 1))}, {"w": jnp.full((1, 1), 2.0)}))
        1.0
    """
    squared = 0.0
    for leaves in zip(*(jax.tree.leaves(without_statistics(group)) for group in groups), strict=True):
        agents, numpy = sum(map(len, leaves)), leaves[0].__array_namespace__()
        # A product with a vector and not ``mean``: XLA reduces a leading axis far more slowly on a CPU.
        shares = (numpy.full(len(leaf), 1 / agents, dtype=leaf.dtype) for leaf in leaves)
        mean = reduce(add, (numpy.tensordot(*each, axes=1) for each in zip(shares, leaves, strict=True)))
        squared += sum(((leaf - mean[None]) ** 2).sum() for leaf in leaves) / agents
    return jnp.sqrt(squared)
