"""What one agent does with arrays, compiled once, for runtimes in which every agent has a thread or a machine.

The vectorised runtime has the same steps with axes for seeds and agents; keys are the same, and so are results.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Real

from gossamer.algorithms.protocol import Algorithm, Averaging, GradientAlgorithm, acting, combine
from gossamer.diagnostics.consensus_distance import consensus_distance
from gossamer.running_statistics import without_statistics
from gossamer.runtimes.rounds import (
    AgentRound,
    Experience,
    act_and_adapt,
    agent_key,
    collect,
    is_finite,
    learn_from,
    report_of,
)
from gossamer.system.compilation import jit
from gossamer.types import Collected, Key, Learner, Message, Params


class Turn(NamedTuple):
    """Whose round it is: the run's seed, the agent's number, and how many rounds it has made before."""

    seed: Int[Array, ""] | int
    agent: Int[Array, ""] | int
    done: Int[Array, ""] | int

    @property
    def key(self) -> Key:
        """That of the round, the same as in the vectorised runtime."""
        return agent_key(jnp.asarray(self.seed), jnp.asarray(self.agent), jnp.asarray(self.done) + 1)

    def keys(self) -> tuple[Key, Key]:
        """Of what is collected, and of what is adapted with."""
        collect_key, adapt_key = jax.random.split(self.key)
        return collect_key, adapt_key


@partial(jit, static_argnames=("environment", "experience"))
def act_and_adapt_alone(
    algorithm: Algorithm,
    learner: Learner,
    state: Any,
    tasks: Any,
    turn: Turn,
    *,
    environment: Any,
    experience: Experience,
) -> tuple[Learner, Any, AgentRound]:
    """A round of an agent whose environments run on the device, up to its message."""
    return act_and_adapt(algorithm, experience, environment, learner, state, tasks, turn.key)


@partial(jit, static_argnames=("environment", "experience"))
def collect_alone(
    algorithm: Algorithm,
    learner: Learner,
    state: Any,
    tasks: Any,
    turn: Turn,
    *,
    environment: Any,
    experience: Experience,
) -> Collected:
    """The experience of a round, where it is not adapted to at once."""
    collect_key, _ = turn.keys()
    return collect(algorithm, experience, environment, learner, state, tasks, collect_key)


@jit
def act_alone(
    algorithm: Algorithm,
    params: Params,
    turn: Turn,
    step: Int[Array, ""] | int,
    observation: Real[Array, "env observation"],
    carry: Any = (),
) -> tuple[Array, Array, Any]:
    """Actions, log-probabilities and next carries for what one agent sees on the host in one step of a round."""
    collect_key, _ = turn.keys()
    keys = jax.random.split(jax.random.fold_in(collect_key, step), len(observation))
    return jax.vmap(acting(algorithm, params))(keys, observation, carry)


@jit
def learn_alone(
    algorithm: Algorithm, learner: Learner, collected: Collected, turn: Turn
) -> tuple[Learner, AgentRound]:
    """The rest of a round once its experience is there."""
    _, adapt_key = turn.keys()
    return learn_from(algorithm, learner, collected, adapt_key)


@jit
def gradient_alone(
    algorithm: GradientAlgorithm, learner: Learner, collected: Collected, turn: Turn
) -> tuple[Any, AgentRound]:
    """The gradient of a round, which ``apply_alone`` applies: together they are ``learn_alone``."""
    _, adapt_key = turn.keys()
    gradient, info = algorithm.gradient(learner, collected.trajectory, adapt_key)
    return gradient, report_of(collected, info)


@jit
def apply_alone(algorithm: GradientAlgorithm, learner: Learner, gradient: Any) -> Learner:
    """The learner after one optimiser step along a gradient."""
    return algorithm.apply(learner, gradient)


@jit
def combine_alone(
    algorithm: Averaging, learner: Learner, messages: tuple[Message, ...], weights: Float[Array, " peer"]
) -> Learner:
    """One agent's combination with what arrived; slot 0 is its own message."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *messages)
    return combine(algorithm, learner, stacked, weights)


@jit
def mean_alone(trees: tuple[Any, ...]) -> Any:
    """The plain mean of some trees: of gradients in an all-reduce."""
    return jax.tree.map(lambda *leaves: sum(leaves[1:], start=leaves[0]) / len(leaves), *trees)


@jit
def change_alone(before: Message, after: Message) -> Float[Array, ""]:
    """Euclidean norm of what an adaptation changed in a message, running statistics left out."""
    squares = jax.tree.map(
        lambda x, y: jnp.sum((x - y) ** 2), without_statistics(before), without_statistics(after)
    )
    return jnp.sqrt(sum(jax.tree.leaves(squares), start=jnp.zeros(())))


@jit
def norm_alone(message: Message) -> Float[Array, ""]:
    """Euclidean norm of a message, running statistics left out."""
    squares = [jnp.sum(leaf**2) for leaf in jax.tree.leaves(without_statistics(message))]
    return jnp.sqrt(sum(squares, start=jnp.zeros(())))


@jit
def spread_alone(messages: tuple[Message, ...]) -> tuple[Float[Array, ""], Bool[Array, " agent"]]:
    """Consensus distance of some agents, by their messages, and which of the messages are finite."""
    groups = [jax.tree.map(lambda leaf: leaf[None], message) for message in messages]
    return consensus_distance(*groups), jnp.stack([is_finite(message) for message in messages])
