"""What counts how much in the gradient of a batch. It knows no loss."""

from typing import Literal, TypeAlias

import jax
from jaxtyping import Array, Float

from gossamer.types import Trajectory

Weighting: TypeAlias = Literal["transitions", "tasks"]


def transition_weights(trajectory: Trajectory, weighting: Weighting) -> Float[Array, "time env"]:
    """The weight of each transition in a batch mean: zero where padded, summing to one.

    ``transitions`` weighs all alike, 1/Σ_k T_k as in (41)-(42), so that tasks with short episodes count little;
    ``tasks`` gives transition t of task k 1/(K T_k), which is the mean of the K tasks' own gradients (43)-(44).

    Example:
        >>> import jax.numpy as jnp
        >>> trajectory = Trajectory.padding(time=2, env=2)._replace(mask=jnp.array([[True, True], [False, True]]))
        >>> transition_weights(trajectory, "tasks").tolist()
        [[0.5, 0.25], [0.0, 0.25]]
    """
    real = trajectory.mask.astype(trajectory.reward.dtype)
    if weighting == "transitions":
        return real / real.sum()
    environments = trajectory.task.shape[0]
    per_task = jax.ops.segment_sum(real.sum(0), trajectory.task, num_segments=environments)
    tasks = (per_task > 0).astype(real.dtype).sum()
    return real / (per_task[trajectory.task] * tasks)[None]
