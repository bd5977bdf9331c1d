"""What was earned from each step on: returns and advantages of one sequence, with episode ends inside.

Functions take ``[time]``, and ``vmap`` adds axes; those of whole episodes take ``[time, env]``. Trajectories need not
align with episode boundaries elsewhere. Values are given; who computes them is not said here.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Real

from gossamer.types import Trajectory


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


def returns_to_go(
    trajectory: Trajectory,
    discount: float | Float[Array, ""],
    reward_scale: float | Float[Array, ""] = 1.0,
    beyond: float | Float[Array, "time env"] = 0.0,
) -> Float[Array, "time env"]:
    """Discounted return from each transition to the end of its episode, as in Diff-DAC's (40); 0 at padding.

    Args:
        trajectory: columns hold one or more episodes, one after the other; the last may be cut off.
        discount: γ in [0, 1].
        reward_scale: factor of the rewards.
        beyond: what follows a transition that the time limit cut off, discounted already; nothing by default.

    Example:
        >>> trajectory = Trajectory.padding(time=3, env=1)._replace(
        ...     reward=jnp.ones((3, 1)), mask=jnp.array([[True], [True], [False]])
        ... )
        >>> ended = trajectory._replace(terminated=jnp.array([[False], [True], [False]]))
        >>> returns_to_go(ended, discount=0.5)[:, 0].tolist()
        [1.5, 1.0, 0.0]
    """
    discounts = episode_discounts(trajectory.terminated, trajectory.truncated, discount)
    bootstrap = jnp.where(trajectory.truncated, beyond, jnp.zeros_like(trajectory.reward))
    over_env = jax.vmap(discounted_returns, in_axes=1, out_axes=1)
    return jnp.where(trajectory.mask, over_env(reward_scale * trajectory.reward, discounts, bootstrap), 0.0)


def leave_one_out(returns: Float[Array, "time env"]) -> Float[Array, "time env"]:
    """The mean of the other episodes' returns to go at the same step; 0 where there is one episode only.

    As a baseline it does not depend on the action it is compared with, so that policy gradients stay unbiased. An
    episode that is over counts with 0: a mean of those still running would not see who falls early.

    Example:
        >>> leave_one_out(jnp.array([[3.0, 1.0, 2.0]])).tolist(), leave_one_out(jnp.ones((1, 1))).tolist()
        ([[1.5, 2.5, 2.0]], [[0.0]])
    """
    others = returns.sum(axis=1, keepdims=True) - returns
    return others / max(returns.shape[1] - 1, 1)


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


class VTrace(NamedTuple):
    """What V-trace says of one sequence: what the critic should say, and how much better than it each action was."""

    target: Float[Array, " time"]
    advantage: Float[Array, " time"]


def vtrace(
    reward: Float[Array, " time"],
    value: Float[Array, " time"],
    next_value: Float[Array, " time"],
    terminated: Bool[Array, " time"],
    truncated: Bool[Array, " time"],
    log_ratio: Float[Array, " time"],
    discount: float | Float[Array, ""],
    rho_bar: float | Float[Array, ""] = 1.0,
    c_bar: float | Float[Array, ""] = 1.0,
) -> VTrace:
    """V-trace targets and advantages (Espeholt et al. 2018, equation 1) of one sequence that may hold several episodes.

        δ_t = ρ_t (r_t + γ V(x_{t+1}) − V(x_t)),    ρ_t = min(ρ̄, π(a_t|x_t) / μ(a_t|x_t)),    c_t = min(c̄, π/μ)
        v_s = V(x_s) + Σ_{t≥s} γ^{t−s} (Π_{i=s}^{t−1} c_i) δ_t
        advantage_s = ρ_s (r_s + γ v_{s+1} − V(x_s))

    μ collected the sequence and π learns from it. ρ̄ decides whose value is learned: π's where it is infinite, that of
    a policy between μ and π otherwise; c̄ decides how fast. As in ``generalised_advantages``, no value follows a
    terminated step, and nothing of the next episode follows a terminated or truncated one; v_{s+1} is ``next_value``
    at the last step of an unfinished episode and of the sequence.

    On policy, ``log_ratio = 0`` with ρ̄, c̄ >= 1, the advantages are the n-step ones, ``generalised_advantages`` with
    λ = 1, and the targets are n-step returns.

    Args:
        reward: r_t, what step t earned.
        value: V(x_t).
        next_value: V(x_{t+1}), of the final observation where an episode ends, and the next step's V(x_t) elsewhere.
        terminated: whether the task ended the episode at step t.
        truncated: whether the time limit did.
        log_ratio: ln π(a_t|x_t) − ln μ(a_t|x_t).
        discount: γ in [0, 1].
        rho_bar: ρ̄ > 0.
        c_bar: c̄ > 0; the paper supposes c̄ <= ρ̄.

    Returns:
        v_s and the advantages, in the units of the reward.

    Example:
        >>> no = jnp.array([False, False])
        >>> ratio = jnp.log(jnp.array([0.5, 2.0]))
        >>> estimate = vtrace(jnp.ones(2), jnp.zeros(2), jnp.full(2, 4.0), no, no, ratio, 0.5)
        >>> estimate.target.tolist(), estimate.advantage.tolist()
        ([2.25, 3.0], [2.25, 3.0])
    """
    ratio = jnp.exp(log_ratio)
    rho, c = jnp.minimum(rho_bar, ratio), jnp.minimum(c_bar, ratio)
    surprise = reward + discount * jnp.where(terminated, 0.0, next_value) - value
    carried = episode_discounts(terminated, truncated, discount)
    # v_s − V(x_s) is itself a discounted sum, of corrected surprises.
    correction = discounted_returns(rho * surprise, carried * c, jnp.zeros_like(surprise))
    following = jnp.append(correction[1:], 0.0)
    return VTrace(value + correction, rho * (surprise + carried * following))


def following_values(
    value_of: Callable[[Real[Array, " observation"]], Float[Array, ""]],
    value: Float[Array, " time"],
    next_observation: Real[Array, "time observation"],
    truncated: Bool[Array, " time"],
) -> Float[Array, " time"]:
    """v(s_{t+1}) of one sequence, from v(s_t) wherever what follows step t is what step t + 1 saw.

    It is not so at the last step and at truncated ones, where another episode begins. ``value_of`` is evaluated for
    these alone: as often as there are, and under ``vmap`` as often as in the sequence that has most. What stands at a
    terminated step means nothing.

    Args:
        value_of: v, of a single observation.
        value: v(s_t).
        next_observation: s_{t+1}, the final observation where an episode ends.
        truncated: whether the time limit ended the episode at step t.

    Returns:
        v(s_{t+1}), in the units of ``value``.

    Example:
        >>> seen, then = jnp.array([[1.0], [2.0], [7.0]]), jnp.array([[2.0], [3.0], [8.0]])
        >>> value_of = lambda observation: 10 * observation[0]
        >>> following_values(value_of, 10 * seen[:, 0], then, jnp.array([False, True, False])).tolist()
        [20.0, 30.0, 80.0]
    """

    # A loop and no conditional: under vmap a conditional evaluates both of its branches always, while a loop
    # ends as soon as no sequence has rows left.
    def evaluate_next(state: tuple[Array, Array]) -> tuple[Array, Array]:
        left, following = state
        step = jnp.argmax(left)
        return left.at[step].set(False), following.at[step].set(value_of(next_observation[step]))

    start = (truncated.at[-1].set(True), jnp.roll(value, -1))
    _, following = jax.lax.while_loop(lambda state: state[0].any(), evaluate_next, start)
    return following


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
