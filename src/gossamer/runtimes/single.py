"""What one agent does with arrays, compiled once, for runtimes in which every agent has a thread or a machine.

The vectorised runtime has the same steps with axes for seeds and agents; keys are the same, and so are results.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Real

from gossamer.algorithms.protocol import Algorithm, combine
from gossamer.compilation import jit
from gossamer.normalisation import without_statistics
from gossamer.rounds import AgentRound, Experience, act_and_adapt, agent_key, learn_from
from gossamer.types import Collected, Info, Key, Learner, Message, Params


@partial(jit, static_argnames=("environment", "experience"))
def act_and_adapt_alone(
    algorithm: Algorithm,
    learner: Learner,
    state: Any,
    tasks: Any,
    seed: Int[Array, ""] | int,
    agent: Int[Array, ""] | int,
    done: Int[Array, ""] | int,
    *,
    environment: Any,
    experience: Experience,
) -> tuple[Learner, Any, AgentRound]:
    """Round ``done`` + 1 of an agent whose environments run on the device, up to its message."""
    key = agent_key(jnp.asarray(seed), jnp.asarray(agent), jnp.asarray(done) + 1)
    return act_and_adapt(algorithm, experience, environment, learner, state, tasks, key)


@partial(jit, static_argnames=("environment", "experience"))
def collect_alone(
    algorithm: Algorithm,
    learner: Learner,
    state: Any,
    tasks: Any,
    seed: Int[Array, ""] | int,
    agent: Int[Array, ""] | int,
    done: Int[Array, ""] | int,
    *,
    environment: Any,
    experience: Experience,
) -> Collected:
    """The experience of round ``done`` + 1, where it is not adapted to at once."""
    key = agent_key(jnp.asarray(seed), jnp.asarray(agent), jnp.asarray(done) + 1)
    collect_key, _ = jax.random.split(key)

    def act(act_key: Key, observation: Array) -> tuple[Array, Array]:
        return algorithm.act(learner.params, act_key, observation)

    return experience.collect(environment, act, collect_key, tasks, state)


@jit
def act_alone(
    algorithm: Algorithm,
    params: Params,
    seed: Int[Array, ""] | int,
    agent: Int[Array, ""] | int,
    done: Int[Array, ""] | int,
    step: Int[Array, ""] | int,
    observation: Real[Array, "env observation"],
) -> tuple[Array, Array]:
    """Actions and log-probabilities for what one agent sees on the host in one step of round ``done`` + 1."""
    key = agent_key(jnp.asarray(seed), jnp.asarray(agent), jnp.asarray(done) + 1)
    collect_key, _ = jax.random.split(key)
    keys = jax.random.split(jax.random.fold_in(collect_key, step), len(observation))
    return jax.vmap(algorithm.act, in_axes=(None, 0, 0))(params, keys, observation)


@jit
def learn_alone(
    algorithm: Algorithm,
    learner: Learner,
    collected: Collected,
    seed: Int[Array, ""] | int,
    agent: Int[Array, ""] | int,
    done: Int[Array, ""] | int,
) -> tuple[Learner, AgentRound]:
    """The rest of round ``done`` + 1 once its experience is there."""
    return learn_from(algorithm, learner, collected, _adapt_key(seed, agent, done))


@jit
def gradient_alone(
    algorithm: Algorithm,
    learner: Learner,
    collected: Collected,
    seed: Int[Array, ""] | int,
    agent: Int[Array, ""] | int,
    done: Int[Array, ""] | int,
) -> tuple[Any, AgentRound]:
    """Half of ``learn_alone``: the gradient, for whoever applies it."""
    gradient, info = algorithm.gradient(learner, collected.trajectory, _adapt_key(seed, agent, done))
    return gradient, _reported(collected, info)


@jit
def apply_alone(algorithm: Algorithm, learner: Learner, gradient: Any) -> Learner:
    """The other half."""
    return algorithm.apply(learner, gradient)


@jit
def combine_alone(
    algorithm: Algorithm, learner: Learner, messages: tuple[Message, ...], weights: Float[Array, " peer"]
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
    """Root mean square distance of some agents' messages to their mean, and whose are finite.

    One agent at a time and not stacked: large networks of many agents would be copied.
    """
    flat = [jax.tree.leaves(without_statistics(message)) for message in messages]
    squared = jnp.zeros(())
    for leaves in zip(*flat, strict=True):
        mean = sum(leaves[1:], start=leaves[0]) / len(leaves)
        squared += sum((jnp.sum((leaf - mean) ** 2) for leaf in leaves), start=jnp.zeros(())) / len(leaves)
    finite = [
        jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(message)]).all()
        for message in messages
    ]
    return jnp.sqrt(squared), jnp.stack(finite)


def _adapt_key(seed: Any, agent: Any, done: Any) -> Any:
    return jax.random.split(agent_key(jnp.asarray(seed), jnp.asarray(agent), jnp.asarray(done) + 1))[1]


def _reported(collected: Collected, info: Info) -> AgentRound:
    steps = collected.trajectory.mask.sum(dtype=jnp.int32)
    return AgentRound(steps, collected.finished, jnp.ones(()), info)
