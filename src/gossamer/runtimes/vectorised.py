"""The whole population as one XLA program: chunks of synchronous rounds, seeds and agents as batch axes.

It writes nothing and knows no concrete algorithm, environment or topology; it returns records.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gossamer.algorithms.protocol import Algorithm
from gossamer.mixing import Mixer, mix
from gossamer.rounds import AgentRound, Experience, act_and_adapt
from gossamer.types import Key, Learner, Message

InitialParameters: TypeAlias = Literal["independent", "shared"]


class Population(NamedTuple):
    """The state of a run between two rounds: learners with leaves ``[seed, agent, ...]``, rounds finished."""

    learner: Learner
    round: Int[Array, ""]


class RoundRecord(NamedTuple):
    """What is reported of a round; ``run_chunk`` stacks them on a leading ``round`` axis.

    ``consensus_distance`` is the root mean square distance of the agents' parameters to their mean after the
    combination, √(1/N Σ_k ‖x_k − x̄‖²). ``finite`` says of each agent whether all it was about to send was.
    """

    agents: AgentRound
    consensus_distance: Float[Array, " seed"]
    finite: Bool[Array, "seed agent"]


def agent_key(seed: Int[Array, ""], agent: Int[Array, ""], round: Int[Array, ""]) -> Key:
    """The key of one agent in one round: fold_in(fold_in(key(seed), agent), round).

    Nothing depends on how many agents there are, so that adding, sharding or restarting agents changes no
    stream. Round 0 is the initialisation.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), agent), round)


@partial(jax.jit, static_argnames=("agents", "initial_parameters"))
def initialise(
    algorithm: Algorithm,
    seeds: Int[Array, " seed"],
    *,
    agents: int,
    initial_parameters: InitialParameters = "independent",
) -> Population:
    """A population before its first round.

    Args:
        algorithm: what every agent learns with.
        seeds: one run each.
        agents: how many there are.
        initial_parameters: each agent's own (Diff-DAC's Algorithm 1), or agent 0's for all (GALA).
    """

    def one(seed: Array, agent: Array) -> Learner:
        source = agent if initial_parameters == "independent" else jnp.zeros_like(agent)
        return algorithm.init(agent_key(seed, source, jnp.zeros((), jnp.int32)))

    over_agents = jax.vmap(one, in_axes=(None, 0))
    learners = jax.vmap(over_agents, in_axes=(0, None))(seeds, jnp.arange(agents))
    return Population(learners, jnp.zeros((), jnp.int32))


@partial(
    jax.jit, static_argnames=("environment", "experience", "capacity", "block"), donate_argnames="population"
)
def run_chunk(
    population: Population,
    algorithm: Algorithm,
    mixer: Mixer,
    tasks: Any,
    seeds: Int[Array, " seed"],
    rounds: Int[Array, ""],
    *,
    environment: Any,
    experience: Experience,
    capacity: int,
    block: int,
) -> tuple[Population, RoundRecord]:
    """Several rounds of the whole population without a return to the host.

    Everything that is an array, and every leaf of ``algorithm`` and ``mixer``, is traced: only shapes and the
    keyword arguments compile anew. The number of rounds is traced too, so that one program serves chunks of
    every length, and where chunks begin and end changes no bit of the result.

    Args:
        population: the state; its buffers are donated.
        algorithm: what every agent learns with.
        mixer: how messages are combined.
        tasks: task parameters with leaves ``[agent, env]``.
        seeds: one run each.
        rounds: how many rounds to run, at most ``capacity``.
        environment: the dynamics.
        experience: how each agent collects.
        capacity: room for records, in rounds.
        block: how many agents (of all seeds together) act and adapt at once; the rest wait their turn.

    Returns:
        The state after the chunk, and records with a leading axis of ``capacity``, the first ``rounds`` filled.
    """

    def one_round(before: Population) -> tuple[Population, RoundRecord]:
        number = before.round + 1
        adapted, report = _act_and_adapt_all(
            algorithm, experience, environment, before.learner, tasks, seeds, number, block
        )
        messages = jax.vmap(jax.vmap(algorithm.message))(adapted)
        mixed = jax.vmap(lambda message: mix(mixer, message, before.round))(messages)
        combined = jax.vmap(jax.vmap(algorithm.absorb))(adapted, mixed)
        record = RoundRecord(report, jax.vmap(consensus_distance)(mixed), _all_finite(messages))
        return Population(combined, number), record

    def write(index: Array, carry: tuple[Population, RoundRecord]) -> tuple[Population, RoundRecord]:
        after, record = one_round(carry[0])
        return after, jax.tree.map(lambda rows, row: rows.at[index].set(row), carry[1], record)

    _, record = jax.eval_shape(one_round, population)
    rows = jax.tree.map(lambda row: jnp.zeros((capacity, *row.shape), row.dtype), record)
    return jax.lax.fori_loop(0, rounds, write, (population, rows))


def consensus_distance(messages: Message) -> Float[Array, ""]:
    """Root mean square distance of the agents to their mean, √(1/N Σ_k ‖x_k − x̄‖²).

    Args:
        messages: a pytree with leaves ``[agent, ...]``.

    Example:
        >>> float(consensus_distance({"w": jnp.array([[0.0], [2.0]])}))
        1.0
    """

    def squared(leaf: Array) -> Array:
        # A product with a vector and not ``mean``: XLA reduces a leading axis far more slowly on a CPU.
        mean = jnp.tensordot(jnp.full(leaf.shape[0], 1 / leaf.shape[0], leaf.dtype), leaf, axes=1)
        return jnp.sum((leaf - mean[None]) ** 2) / leaf.shape[0]

    return jnp.sqrt(sum(map(squared, jax.tree.leaves(messages)), start=jnp.zeros(())))


def _act_and_adapt_all(
    algorithm: Algorithm,
    experience: Experience,
    environment: Any,
    learners: Learner,
    tasks: Any,
    seeds: Array,
    number: Array,
    block: int,
) -> tuple[Learner, AgentRound]:
    """Every agent of every seed up to its message, ``block`` of them at a time."""
    agents = jax.tree.leaves(tasks)[0].shape[0]

    def one(seed: Array, agent: Array, learner: Learner, task: Any) -> tuple[Learner, AgentRound]:
        key = agent_key(seed, agent, number)
        return act_and_adapt(algorithm, experience, environment, learner, task, key)

    every_seed = jnp.repeat(seeds, agents)
    every_agent = jnp.tile(jnp.arange(agents), len(seeds))
    every_task = jax.tree.map(lambda leaf: jnp.tile(leaf, (len(seeds), 1)), tasks)
    every_learner = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), learners)
    after = in_blocks(one, block)(every_seed, every_agent, every_learner, every_task)
    return jax.tree.map(lambda leaf: leaf.reshape(len(seeds), agents, *leaf.shape[1:]), after)


def in_blocks(function: Callable[..., Any], block: int) -> Callable[..., Any]:
    """``vmap`` that works through its batch ``block`` elements at a time, so that a block stays in cache.

    Example:
        >>> in_blocks(lambda x: 2 * x, block=2)(jnp.arange(5)).tolist()
        [0, 2, 4, 6, 8]
    """

    def blocked(*arguments: Any) -> Any:
        size = jax.tree.leaves(arguments)[0].shape[0]
        if block >= size:
            return jax.vmap(function)(*arguments)
        batch_size = None if block == 1 else block
        return jax.lax.map(lambda element: function(*element), arguments, batch_size=batch_size)

    return blocked


def _all_finite(messages: Message) -> Bool[Array, "seed agent"]:
    """Whether all of an agent's numbers are finite: 0 · x is 0 just where x is."""

    def vanishes(leaf: Array) -> Array:
        return jnp.sum(leaf * 0, axis=tuple(range(2, leaf.ndim))) == 0

    return jnp.stack([vanishes(leaf) for leaf in jax.tree.leaves(messages)]).all(0)
