"""All that one agent does before it talks: collect experience, then adapt. No peers, no runtime."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gossamer.algorithms.protocol import Algorithm, adapt
from gossamer.types import Info, Key, Learner, Trajectory


@runtime_checkable
class Experience(Protocol):
    """How an agent collects what it learns from."""

    def collect(self, environment: Any, act: Any, key: Key, tasks: Any) -> Trajectory:
        """One update's worth of transitions."""
        ...


class AgentRound(NamedTuple):
    """What one agent reports of one round. Steps are real transitions; padding is none."""

    env_steps: Int[Array, ""]
    episodic_return: Float[Array, " env"]
    episode_length: Float[Array, " env"]
    info: Info


def act_and_adapt(
    algorithm: Algorithm, experience: Experience, environment: Any, learner: Learner, tasks: Any, key: Key
) -> tuple[Learner, AgentRound]:
    """One agent's round up to its message: lines 4-17 of Diff-DAC's Algorithm 1, without the combinations.

    Args:
        algorithm: what the agent learns with.
        experience: how it collects.
        environment: the dynamics of its environments.
        learner: its state.
        tasks: task parameters with leaves ``[env]``.
        key: this agent's key of this round.

    Returns:
        The adapted learner, and what happened: undiscounted returns and lengths (steps) of the episodes, the
        mean per environment.
    """
    collect_key, adapt_key = jax.random.split(key)

    def act(act_key: Key, observation: Array) -> tuple[Array, Array]:
        return algorithm.act(learner.params, act_key, observation)

    trajectory = experience.collect(environment, act, collect_key, tasks)
    adapted, info = adapt(algorithm, learner, trajectory, adapt_key)
    environments = jax.tree.leaves(tasks)[0].shape[0]
    return adapted, _report(trajectory, environments, info)


def _report(trajectory: Trajectory, environments: int, info: Info) -> AgentRound:
    real = trajectory.mask
    ended = (trajectory.terminated | trajectory.truncated).sum(0).astype(trajectory.reward.dtype)

    def per_environment(column: Array) -> Array:
        return jax.ops.segment_sum(column, trajectory.task, num_segments=environments)

    episodes = per_environment(ended)
    earned = per_environment(jnp.where(real, trajectory.reward, 0.0).sum(0))
    lasted = per_environment(real.sum(0).astype(trajectory.reward.dtype))
    return AgentRound(real.sum(dtype=jnp.int32), earned / episodes, lasted / episodes, info)
