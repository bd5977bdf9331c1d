"""All that one agent does before it talks: collect experience, then adapt. No peers, no runtime."""

from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gossamer.algorithms.protocol import Algorithm, acting, initial_carry
from gossamer.types import Act, Collected, Finished, Info, Key, Learner, Message


@runtime_checkable
class Experience(Protocol):
    """How an agent collects what it learns from."""

    def init(self, environment: Any, key: Key, tasks: Any, carry: Any = ()) -> Any:
        """Where the agent's environments stand before its first round; ``carry`` is that of an episode's start."""
        ...

    def collect(
        self, environment: Any, act: Act, key: Key, tasks: Any, state: Any, carry: Any = ()
    ) -> Collected:
        """One update's worth of transitions; ``carry`` is that of an episode's start."""
        ...


def agent_key(seed: Int[Array, ""], agent: Int[Array, ""], round: Int[Array, ""]) -> Key:
    """The key of one agent in one round: fold_in(fold_in(key(seed), agent), round).

    Nothing depends on how many agents there are, so that adding, sharding or restarting agents changes no
    stream. Round 0 is the initialisation.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), agent), round)


class AgentRound(NamedTuple):
    """What one agent reports of one round, as sums: reports of several rounds add up to one of them together.

    Steps are real transitions; padding is none. ``info`` holds the algorithm's scalars, ``updates`` how many
    adaptations they are sums over. On the host they are arrays of numpy.
    """

    env_steps: Int[Any, ""]
    finished: Finished
    updates: Float[Any, ""]
    info: Info


def act_and_adapt(
    algorithm: Algorithm,
    experience: Experience,
    environment: Any,
    learner: Learner,
    state: Any,
    tasks: Any,
    key: Key,
) -> tuple[Learner, Any, AgentRound]:
    """One agent's round up to its message: lines 4-17 of Diff-DAC's Algorithm 1, without the combinations.

    Args:
        algorithm: what the agent learns with.
        experience: how it collects.
        environment: the dynamics of its environments.
        learner: its state.
        state: where its environments stand.
        tasks: task parameters with leaves ``[env]``.
        key: this agent's key of this round.

    Returns:
        The adapted learner, where the environments stand now, and what happened.
    """
    collect_key, adapt_key = jax.random.split(key)
    collected = collect(algorithm, experience, environment, learner, state, tasks, collect_key)
    adapted, report = learn_from(algorithm, learner, collected, adapt_key)
    return adapted, collected.state, report


def collect(
    algorithm: Algorithm,
    experience: Experience,
    environment: Any,
    learner: Learner,
    state: Any,
    tasks: Any,
    key: Key,
) -> Collected:
    """The first half of a round, for one agent: what it collects with its own policy."""
    act = acting(algorithm, learner.params)
    return experience.collect(environment, act, key, tasks, state, initial_carry(algorithm))


def learn_from(
    algorithm: Algorithm, learner: Learner, collected: Collected, key: Key
) -> tuple[Learner, AgentRound]:
    """The second half of a round, for one agent whose experience was collected already."""
    adapted, info = algorithm.adapt(learner, collected.trajectory, key)
    return adapted, report_of(collected, info)


def report_of(collected: Collected, info: Info) -> AgentRound:
    """What an agent reports of one update."""
    steps = collected.trajectory.mask.sum(dtype=jnp.int32)
    return AgentRound(steps, collected.finished, jnp.ones(()), info)


@partial(jax.jit, inline=True)
def is_finite(message: Message) -> Bool[Array, ""]:
    """Whether every number of one agent's message is finite.

    Example:
        >>> bool(is_finite({"w": jnp.array([0.0, jnp.inf])}))
        False
    """
    # 0 · x is 0 just where x is finite. XLA sums numbers about a third faster on a CPU than it reduces truth values.
    return jnp.stack([jnp.sum(leaf * 0) == 0 for leaf in jax.tree.leaves(message)]).all()
