"""The whole population as one XLA program: chunks of rounds, seeds and agents as batch axes.

Rounds are synchronous, or waves of a schedule: then some agents rest and messages may be late or lost. It writes
nothing and knows no concrete algorithm, environment or topology; it returns records.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Real

from gossamer.algorithms.protocol import Algorithm, Averaging, Cyclic, acting, initial_carry
from gossamer.diagnostics.consensus_distance import consensus_distance
from gossamer.mixing import Mixer, mix
from gossamer.runtimes.cycle import CycleMailbox
from gossamer.runtimes.mailbox import Delivery, Mailbox, PushSumMailbox
from gossamer.runtimes.rounds import AgentRound, Experience, act_and_adapt, agent_key, is_finite, learn_from
from gossamer.system.compilation import computed_once, jit
from gossamer.types import Collected, InitialParameters, Learner, Message

AnyMailbox: TypeAlias = Mailbox | PushSumMailbox | CycleMailbox


class Population(NamedTuple):
    """The state of a run between two rounds: leaves ``[seed, ...]``, and how many rounds are finished.

    ``environments`` is where every agent's environments stand (empty where each round starts anew), ``mail`` what
    is under way between agents (empty in lockstep).
    """

    learner: Learner
    environments: Any
    mail: Any
    round: Int[Array, ""]


class RoundRecord(NamedTuple):
    """What is reported of some successive rounds; ``run_chunk`` stacks several on a leading ``record`` axis.

    ``agents`` are sums over the rounds. ``consensus_distance`` is the root mean square distance of the agents'
    parameters (those they are to agree on) to their mean after the last combination, √(1/N Σ_k ‖x_k − x̄‖²).
    ``finite`` says of each agent whether all it was about to send, or made of what it heard in a cycle, was, in
    every round.
    """

    agents: AgentRound
    consensus_distance: Float[Any, " seed"]
    finite: Bool[Any, "seed agent"]


@partial(
    jax.jit, static_argnames=("agents", "initial_parameters", "environment", "experience", "block", "of")
)
def initialise(
    algorithm: Algorithm,
    seeds: Int[Array, " seed"],
    tasks: Any = None,
    mailbox: AnyMailbox | None = None,
    *,
    agents: int,
    initial_parameters: InitialParameters = "independent",
    environment: Any = None,
    experience: Experience | None = None,
    block: int | None = None,
    first: Int[Array, ""] | int = 0,
    of: int | None = None,
) -> Population:
    """A population, or a part of one, before its first round.

    Args:
        algorithm: what every agent learns with.
        seeds: one run each.
        tasks: task parameters with leaves ``[agent, env]``.
        mailbox: how messages travel; by default all at once.
        agents: how many there are.
        initial_parameters: each agent's own (Diff-DAC's Algorithm 1), agent 0's for all (GALA), or for all the mean
            of as many as there are environments.
        environment: the dynamics; none where environments are on the host.
        experience: how each agent collects.
        block: how many agents are made at once; all by default.
        first: number of the first of them, where they are a part.
        of: how many agents the whole population has; by default no others.
    """
    zero = jnp.zeros((), jnp.int32)

    def one(seed: Array, place: Array, _: Any, task: Any) -> tuple[Learner, Any]:
        agent = place + first
        source = agent if initial_parameters == "independent" else jnp.zeros_like(agent)
        learner = algorithm.init(agent_key(seed, source, zero))
        if experience is None:
            return learner, ()
        # Environments start apart also where parameters do not, and from a key that no round uses.
        start_key = jax.random.fold_in(agent_key(seed, agent, zero), 1)
        return learner, experience.init(environment, start_key, task, initial_carry(algorithm))

    learners, environments = _for_all(one, seeds, agents, block or agents * len(seeds), (), tasks)
    if initial_parameters == "averaged":
        assert isinstance(algorithm, Averaging)  # ``build`` refuses any other
        count = jax.tree.leaves(tasks)[0].size * (of or agents) // agents
        means = jax.vmap(partial(_mean_of_initial_messages, algorithm, count))(seeds)
        learners = jax.vmap(jax.vmap(algorithm.absorb, in_axes=(0, None)))(learners, means)
    mail = ()
    if mailbox is not None:
        mail = jax.vmap(mailbox.init)(jax.vmap(jax.vmap(algorithm.message))(learners))
    return Population(learners, environments, mail, zero)


def _mean_of_initial_messages(algorithm: Averaging, count: int, seed: Array) -> Message:
    """Those that ``count`` agents of their own would start with, one after the other: they need not fit together."""

    def message(source: Array) -> Message:
        return algorithm.message(algorithm.init(agent_key(seed, source, jnp.zeros((), jnp.int32))))

    def add(source: Array, total: Message) -> Message:
        return jax.tree.map(lambda so_far, one: so_far + one / count, total, message(source))

    first = jax.tree.map(lambda one: one / count, message(jnp.zeros((), jnp.int32)))
    return jax.lax.fori_loop(1, count, add, first)


def run_chunk(
    population: Population,
    algorithm: Algorithm,
    mixer: Mixer | AnyMailbox,
    tasks: Any,
    seeds: Int[Array, " seed"],
    rounds: Int[Array, ""],
    every: Int[Array, ""] | int = 1,
    deliveries: Delivery | None = None,
    *,
    environment: Any,
    experience: Any,
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
        mixer: how messages are combined: weights in lockstep, a mailbox under a schedule.
        tasks: task parameters with leaves ``[agent, env]``.
        seeds: one run each.
        rounds: how many rounds to run.
        every: rounds that share a record; the boundaries are its multiples.
        deliveries: what the schedule says of each round, with leaves ``[round, seed, ...]``; none in lockstep.
        environment: the dynamics.
        experience: how each agent collects.
        capacity: room for records.
        block: how many agents (of all seeds together) act and adapt at once; the rest wait their turn.

    Returns:
        The state after the chunk, and records with a leading axis of ``capacity``, of which those are filled that the
        rounds fall into.
    """
    return chunk_program(
        population, algorithm, mixer, tasks, seeds, rounds, every, deliveries,
        environment=environment, experience=experience, capacity=capacity, block=block,
    )  # fmt: skip


def _chunk(
    population: Population,
    algorithm: Algorithm,
    mixer: Mixer | AnyMailbox,
    tasks: Any,
    seeds: Array,
    rounds: Array,
    every: Array | int,
    deliveries: Delivery | None,
    *,
    environment: Any,
    experience: Experience,
    capacity: int,
    block: int,
) -> tuple[Population, RoundRecord]:
    first = population.round // every

    def one_round(before: Population, now: Delivery | None) -> tuple[Population, RoundRecord]:
        return _one_round(
            before, algorithm, mixer, tasks, seeds, now,
            environment=environment, experience=experience, block=block,
        )  # fmt: skip

    def write(index: Array, carry: tuple[Population, RoundRecord]) -> tuple[Population, RoundRecord]:
        now = jax.tree.map(lambda leaf: leaf[index], deliveries)
        slot = carry[0].round // every - first
        after, record = one_round(carry[0], now)
        return after, add_record(carry[1], record, slot)

    _, record = jax.eval_shape(one_round, population, jax.tree.map(lambda leaf: leaf[0], deliveries))
    return jax.lax.fori_loop(0, rounds, write, (population, no_records(record, capacity)))


# A round is mostly the same few kernels for every array of parameters, which compile in half the time so.
chunk_program = jit(
    _chunk,
    fast="fusions",
    static_argnames=("environment", "experience", "capacity", "block"),
    donate_argnames="population",
)


# A function of its own under ``jit``, with nothing captured, so that JAX traces it once for both uses above.
@partial(jax.jit, static_argnames=("environment", "experience", "block"), inline=True)
def _one_round(
    before: Population,
    algorithm: Algorithm,
    mixer: Mixer | AnyMailbox,
    tasks: Any,
    seeds: Array,
    now: Delivery | None,
    *,
    environment: Any,
    experience: Experience,
    block: int,
) -> tuple[Population, RoundRecord]:
    learner, environments, report = _act_and_adapt_all(
        algorithm, experience, environment, before, tasks, seeds, block
    )
    adapted = before._replace(learner=learner, environments=environments)
    return communicate(algorithm, mixer, before, adapted, report, now)


@jax.jit
def act_for_all(
    algorithm: Algorithm,
    learners: Learner,
    seeds: Int[Array, " seed"],
    done: Int[Array, ""],
    step: Int[Array, ""] | int,
    observations: Real[Array, "seed agent env observation"],
    carries: Any = (),
) -> tuple[Array, Array, Any]:
    """Actions, log-probabilities and next carries for what all agents see on the host in one step of a round."""

    def one(seed: Array, agent: Array, learner: Learner, seen: Array, carry: Any) -> tuple[Array, Array, Any]:
        collect_key, _ = jax.random.split(agent_key(seed, agent, done + 1))
        keys = jax.random.split(jax.random.fold_in(collect_key, step), len(seen))
        return jax.vmap(acting(algorithm, learner.params))(keys, seen, carry)

    over_agents = jax.vmap(one, in_axes=(None, 0, 0, 0, 0))
    agents = jnp.arange(observations.shape[1])
    return jax.vmap(over_agents, in_axes=(0, None, 0, 0, 0))(seeds, agents, learners, observations, carries)


@partial(jax.jit, donate_argnames="population")
def learn_for_all(
    population: Population,
    algorithm: Algorithm,
    mixer: Mixer | AnyMailbox,
    collected: Collected,
    seeds: Int[Array, " seed"],
    now: Delivery | None,
) -> tuple[Population, RoundRecord]:
    """The rest of a round whose experience, with leaves ``[seed, agent, ...]``, was collected on the host."""

    def one(seed: Array, agent: Array, learner: Learner, part: Collected) -> tuple[Learner, AgentRound]:
        _, adapt_key = jax.random.split(agent_key(seed, agent, population.round + 1))
        return learn_from(algorithm, learner, part, adapt_key)

    over_agents = jax.vmap(one, in_axes=(None, 0, 0, 0))
    agents = jnp.arange(collected.trajectory.reward.shape[1])
    learner, report = jax.vmap(over_agents, in_axes=(0, None, 0, 0))(
        seeds, agents, population.learner, collected
    )
    adapted = population._replace(learner=learner)
    return communicate(algorithm, mixer, population, adapted, report, now)


def communicate(
    algorithm: Algorithm,
    mixer: Any,
    before: Population,
    adapted: Population,
    report: AgentRound,
    now: Delivery | None,
) -> tuple[Population, RoundRecord]:
    """The rest of a round once everybody has adapted: who rests stays as it was, messages travel and are combined."""
    if now is not None:
        adapted = adapted._replace(
            learner=_where(now.adapts, adapted.learner, before.learner),
            environments=_where(now.adapts, adapted.environments, before.environments),
        )
        report = jax.tree.map(lambda leaf: jnp.where(_like(now.adapts, leaf), leaf, 0), report)
    # Or XLA would fuse the optimiser's step into one's own share, every neighbour's and the consensus distance: rounds
    # of 25 agents with 2×64 units and 5 steps take about half the time so.
    learner = computed_once(adapted.learner._replace(memory=()), before.round >= 0)
    adapted = adapted._replace(learner=learner._replace(memory=adapted.learner.memory))  # which it would copy
    messages = jax.vmap(jax.vmap(algorithm.message))(adapted.learner)
    mail, combined, shared = _combine(algorithm, mixer, before, adapted.learner, messages, now)
    # Of a mean of finite messages nothing is lost; what a cycle computes from them may be anything.
    seen = (adapted.learner.params, combined.params) if isinstance(algorithm, Cyclic) else messages
    record = RoundRecord(report, jax.vmap(consensus_distance)(shared), jax.vmap(jax.vmap(is_finite))(seen))
    return Population(combined, adapted.environments, mail, before.round + 1), record


def _combine(
    algorithm: Algorithm, mixer: Any, before: Population, adapted: Learner, messages: Message, now: Any
) -> tuple[Any, Learner, Message]:
    """What is under way then, the learners, and that of their messages which they are to agree on."""
    if isinstance(algorithm, Cyclic):
        combined = jax.vmap(partial(mixer.combine, algorithm))(adapted, now)
        return (), combined, jax.vmap(jax.vmap(algorithm.message))(combined).to_all
    assert isinstance(algorithm, Averaging)  # ``build`` refuses any other
    if now is None:
        mail, mixed = (), jax.vmap(lambda message: mix(mixer, message, before.round))(messages)
    else:
        earlier = jax.vmap(jax.vmap(algorithm.message))(before.learner)
        mail, mixed = jax.vmap(mixer.exchange)(before.mail, earlier, messages, now)
    return mail, jax.vmap(jax.vmap(algorithm.absorb))(adapted, mixed), mixed


def no_records(record: RoundRecord, capacity: int) -> RoundRecord:
    """Room for records of the shape of one."""
    rows = jax.tree.map(lambda row: jnp.zeros((capacity, *row.shape), row.dtype), record)
    return rows._replace(finite=jnp.ones_like(rows.finite))


def add_record(rows: RoundRecord, record: RoundRecord, slot: Int[Array, ""] | int) -> RoundRecord:
    """The rows with one round more in row ``slot``."""
    return RoundRecord(
        agents=jax.tree.map(lambda total, row: total.at[slot].add(row), rows.agents, record.agents),
        consensus_distance=rows.consensus_distance.at[slot].set(record.consensus_distance),
        finite=rows.finite.at[slot].min(record.finite),
    )


def _act_and_adapt_all(
    algorithm: Algorithm,
    experience: Experience,
    environment: Any,
    population: Population,
    tasks: Any,
    seeds: Array,
    block: int,
) -> tuple[Learner, Any, AgentRound]:
    """Every agent of every seed up to its message, ``block`` of them at a time."""
    number = population.round + 1

    def one(seed: Array, agent: Array, state: Any, task: Any) -> tuple[Learner, Any, AgentRound]:
        key = agent_key(seed, agent, number)
        learner, environments = state
        return act_and_adapt(algorithm, experience, environment, learner, environments, task, key)

    agents = jax.tree.leaves(tasks)[0].shape[0]
    state = (population.learner, population.environments)
    return _for_all(one, seeds, agents, block, state, tasks)


def _for_all(
    function: Callable[..., Any], seeds: Array, agents: int, block: int, state: Any, tasks: Any
) -> Any:
    """``function(seed, agent, state, task)`` for every agent of every seed, with states ``[seed, agent, ...]``."""
    every_seed = jnp.repeat(seeds, agents)
    every_agent = jnp.tile(jnp.arange(agents), len(seeds))
    every_state = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), state)
    every_task = jax.tree.map(lambda leaf: jnp.tile(leaf, (len(seeds), 1)), tasks)
    result = in_blocks(function, block)(every_seed, every_agent, every_state, every_task)
    return jax.tree.map(lambda leaf: leaf.reshape(len(seeds), agents, *leaf.shape[1:]), result)


def _where(chosen: Bool[Array, "seed agent"], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(_like(chosen, x), x, y), new, old)


def _like(chosen: Bool[Array, "seed agent"], leaf: Array) -> Array:
    return chosen.reshape(chosen.shape + (1,) * (leaf.ndim - 2))


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
