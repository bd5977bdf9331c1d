"""What was earned from each step on: returns and advantages of one sequence, with episode ends inside.

Functions take ``[time]``; ``vmap`` adds axes. Trajectories need not align with episode boundaries. Values are given;
who computes them is not said here.
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


def generalised_advantages(
    reward: Float[Array, " time"],
    value: Float[Array, " time"],
    next_value: Float[Array, " time"],
    terminated: Bool[Array, " time"],
    truncated: Bool[Array, " time"],
    discount: float | Float[Array, ""],
    trace_decay: float | Float[Array, ""] = 1.0,
) -> Float[Array, " time"]:
    """Generalised advantage estimates (Schulman et al. 2016) of one sequence that may hold several episodes.

        δ_t = r_{t+1} + γ v(s_{t+1}) − v(s_t),    Â_t = δ_t + γ λ Â_{t+1}

    No value follows a terminated step, and nothing of the next episode follows a terminated or truncated one.
    ``trace_decay`` λ = 1 gives the n-step advantage of Diff-DAC's (45), as it is meant: the text prints γ^T and
    v(s_{k,j}) for γ^{T−t} and v(s_t),

        Â_t = Σ_{j=t}^{T−1} γ^{j−t} r_{j+1} + γ^{T−t} v(s_T) − v(s_t);

    λ = 0 gives δ_t.

    Args:
        reward: r_{t+1}, what step t earned.
        value: v(s_t).
        next_value: v(s_{t+1}), of the final observation where an episode ends.
        terminated: whether the task ended the episode at step t.
        truncated: whether the time limit did.
        discount: γ in [0, 1].
        trace_decay: λ in [0, 1].

    Returns:
        Â_t, in the units of the reward.

    Example:
        >>> no = jnp.array([False, False])
        >>> generalised_advantages(jnp.ones(2), jnp.zeros(2), jnp.full(2, 4.0), no, no, 0.5).tolist()
        [4.5, 3.0]
    """
    surprise = reward + discount * jnp.where(terminated, 0.0, next_value) - value
    carried = episode_discounts(terminated, truncated, discount * trace_decay)
    return discounted_returns(surprise, carried, jnp.zeros_like(surprise))


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
