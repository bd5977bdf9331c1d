"""What was earned from each step on: discounted returns of one sequence, with episode ends inside.

Functions take ``[time]``; ``vmap`` adds axes. Trajectories need not align with episode boundaries. Advantages
that need a critic are the algorithms' own.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def discounted_returns(
    reward: Float[Array, " time"],
    discount: Float[Array, " time"],
    bootstrap: Float[Array, " time"],
) -> Float[Array, " time"]:
    """Discounted sum of the rewards from each step to the end of the sequence.

        G_t = r_{t+1} + γ_{t+1} G_{t+1} + b_{t+1}

    Diff-DAC's (40) without its baseline is ``discount = γ`` inside an episode, 0 at its last step, and
    ``bootstrap = 0``; γ v(s_{t+1}) as ``bootstrap`` at a time limit treats the limit as a truncation.

    Args:
        reward: r_{t+1}, what step t earned.
        discount: γ_{t+1} in [0, 1]: weight of what follows step t within the sequence; 0 ends an episode.
        bootstrap: b_{t+1}: value of what follows step t outside the sequence, already discounted.

    Returns:
        G_t, in the units of the reward.

    Example:
        >>> discounted_returns(jnp.ones(3), jnp.array([0.5, 0.5, 0.0]), jnp.zeros(3)).tolist()
        [1.75, 1.5, 1.0]
    """

    def step_back(following: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        earned, weight, beyond = now
        total = earned + weight * following + beyond
        return total, total

    _, returns = jax.lax.scan(
        step_back, jnp.zeros_like(reward[0]), (reward, discount, bootstrap), reverse=True
    )
    return returns


def episode_discounts(
    terminated: Bool[Array, "*batch"], truncated: Bool[Array, "*batch"], discount: float | Float[Array, ""]
) -> Float[Array, "*batch"]:
    """The weight of what follows each step within its own episode: γ inside, 0 at the last step.

    Example:
        >>> no = jnp.array([False, False, False])
        >>> episode_discounts(no, jnp.array([False, True, False]), 0.5).tolist()
        [0.5, 0.0, 0.5]
    """
    return jnp.where(terminated | truncated, 0.0, discount)
