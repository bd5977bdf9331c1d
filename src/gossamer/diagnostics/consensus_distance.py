"""The consensus distance: how far the parameters of a population's agents are from their mean."""

from functools import reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np
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
        >>> float(consensus_distance({"w": np.zeros((1, 1))}, {"w": np.full((1, 1), 2.0)}))
        1.0
    """
    flat = [
        [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(without_statistics(group))]
        for group in groups
    ]
    squared = 0.0
    for leaves in zip(*flat, strict=True):
        agents = sum(map(len, leaves))
        # A product with a vector and not ``mean``: XLA reduces a leading axis far more slowly on a CPU.
        mean = reduce(add, (np.full(len(leaf), 1 / agents, leaf.dtype) @ leaf for leaf in leaves))[None]
        squared += sum(((leaf - mean) ** 2).sum() for leaf in leaves) / agents
    return jnp.sqrt(squared)
