"""The parts that an experiment is made of, derived from its choices and checked against each other and the machine."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import numpy as np
from jaxtyping import Array, Int
from scipy.sparse import csr_array

from gossamer.algorithms.protocol import ActionKind, Cyclic, GradientAlgorithm, Needs, optimiser_steps
from gossamer.environments import TaskSet, spaces_of
from gossamer.environments.soundness import require_sound
from gossamer.errors import InputError
from gossamer.experience import Episodes, Steps, Unrolls
from gossamer.experiment import AnyExperience, Experiment, RuntimeName, on_host
from gossamer.mixing import RULES, Mixer, is_strongly_connected, named_rule, plan, read_matrix, weigh
from gossamer.runtimes.cycle import CycleMailbox, most_neighbours
from gossamer.runtimes.mailbox import Mailbox, PushSumMailbox
from gossamer.runtimes.vectorised import AnyMailbox, Population, initialise
from gossamer.schedules import Cycle, Links, Rule, Schedule, Simulation
from gossamer.schedules.adaptive_timeout import AdaptiveTimeout
from gossamer.system.memory import usable_memory
from gossamer.topologies import Topology, named, require_connected, with_absolute_path
from gossamer.types import Box, Discrete, NeighbourMessage


class Parts(NamedTuple):
    """What an experiment is made of once everything is derived: the arguments of the runtime."""

    environment: Any
    experience: AnyExperience
    algorithm: Any
    topology: Topology
    weights: tuple[csr_array, ...]
    mixer: Mixer
    links: Links
    schedule: Schedule
    mailbox: AnyMailbox | None
    message_bytes: int
    task_set: TaskSet
    tasks: Any
    task_index: np.ndarray
    seeds: Int[Array, " seed"]
    block: int


def build(experiment: Experiment) -> Parts:
    """Everything an experiment needs to run, checked.

    Raises:
        InputError: if the environment's methods do not fit together, tasks do not fit the agents, the topology is
            unknown, undefined at this number of agents or not connected, the weights do not fit it, or the state would
            not fit in memory. Of agents that are processes the latter is not known here, but where they are.

    Example:
        >>> from gossamer.recipes import pendulum
        >>> parts = build(replace(pendulum(), agents=5, topology="ring"))
        >>> parts.tasks.mass.shape
        (5, 5)
    """
    environment = experiment.environment
    task_set = environment.task_set(experiment.tasks)
    tasks = task_set.deal(experiment.agents, experiment.copies)
    if not on_host(environment):
        require_sound(environment, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((), leaf.dtype), tasks))
    topology = named(experiment.topology, experiment.agents)
    require_connected(topology)
    weights = weigh_by(experiment.weights, topology)
    _require_mixing(topology, weights)
    links = Links.of(weights)
    algorithm = _fitted(experiment, links)
    _require_rule(algorithm, experiment)
    _require_runtime(experiment, tasks)
    _require_gradients(algorithm, experiment)
    mailbox = _mailbox(experiment.schedule, links) if experiment.runtime == "vectorised" else None
    parts = Parts(
        environment=environment,
        experience=experiment.experience,
        algorithm=algorithm,
        topology=topology,
        weights=weights,
        mixer=plan(weights),
        links=links,
        schedule=experiment.schedule,
        mailbox=mailbox,
        message_bytes=_message_bytes(algorithm, experiment.schedule),
        task_set=task_set,
        tasks=tasks,
        task_index=np.asarray(task_set.index(experiment.agents, experiment.copies)),
        seeds=_seeds(experiment),
        block=experiment.block or _suitable_block(algorithm, experiment),
    )
    if experiment.runtime != "network":
        require_memory(experiment, parts)
    return parts


def require_memory(experiment: Experiment, parts: Parts) -> None:
    """Refuse a population that this machine cannot hold whole.

    Raises:
        InputError: it cannot.

    Example:
        >>> from gossamer.recipes import pendulum
        >>> require_memory(pendulum(), build(pendulum()))
    """
    together = experiment if experiment.runtime == "vectorised" else replace(experiment, seeds=1)
    population = population_shape(parts.algorithm, together, parts.mailbox, parts.tasks)
    mail = tree_bytes(population.mail)
    remedy = "fewer agents or seeds, or smaller hidden layers, would fit"
    if mail > tree_bytes(population) / 2:
        remedy = (
            f"{2 * mail / 2**30:.1f} GiB of it for messages in flight and inboxes: a smaller in_flight than "
            f"{experiment.schedule.in_flight}, a graph with fewer links, or fewer agents would fit"
        )
    _require_twice("the population", tree_bytes(population), remedy)


def require_memory_of_one(experiment: Experiment, parts: Parts, number: int) -> None:
    """Refuse to be an agent that this machine cannot hold with a message of each agent that it hears.

    Args:
        experiment: that of the whole population.
        parts: what was built of it.
        number: of the agent.

    Raises:
        InputError: it cannot.

    Example:
        >>> from gossamer.recipes import pendulum
        >>> require_memory_of_one(pendulum(), build(pendulum()), number=3)
    """
    alone = population_shape(parts.algorithm, experiment, None, parts.tasks, only=number)
    heard = int(np.sum(parts.links.receiver == number))
    _require_twice(
        f"agent {number} with a message of each of {heard} others",
        tree_bytes(alone) + heard * parts.message_bytes,
        "smaller hidden layers or a graph with fewer links would fit",
    )


def weigh_by(spec: str, topology: Topology) -> tuple[csr_array, ...]:
    """The weights that a rule's name, or the path of a matrix file, gives a topology; one matrix per phase.

    Raises:
        InputError: unknown rule, a matrix that is not stochastic, or one that does not fit the topology.

    Example:
        >>> weigh_by("uniform", named("ring", agents=3))[0].toarray().round(2).tolist()
        [[0.33, 0.33, 0.33], [0.33, 0.33, 0.33], [0.33, 0.33, 0.33]]
    """
    if spec.partition(":")[0] not in RULES and os.path.isfile(spec):
        return read_matrix(spec, topology)
    return weigh(topology, named_rule(spec))


def with_absolute_paths(experiment: Experiment) -> Experiment:
    """The same, whose files are found from any directory: it may be resumed in another one, and actors have their own.

    Example:
        >>> from gossamer.recipes import cartpole_balance
        >>> with_absolute_paths(cartpole_balance()) == cartpole_balance()
        True
    """
    weights = experiment.weights
    if weights.partition(":")[0] not in RULES and os.path.isfile(weights):
        weights = str(Path(weights).absolute())
    return replace(experiment, topology=with_absolute_path(experiment.topology), weights=weights)


def initial_population(
    algorithm: Any,
    experiment: Experiment,
    mailbox: AnyMailbox | None,
    tasks: Any,
    only: int | None = None,
    shape_only: bool = False,
) -> Population:
    """The population before its first round; host environments are not part of it.

    Args:
        algorithm: what every agent learns with, fitted to the environment.
        experiment: the choices.
        mailbox: how messages travel.
        tasks: of all agents, leaves ``[agent, env]``.
        only: the number of the one agent that is made; all by default.
        shape_only: return shapes and dtypes, and make nothing.
    """
    if only is not None:
        tasks = jax.tree.map(lambda leaf: leaf[only : only + 1], tasks)
    device, experience = not on_host(experiment.environment), experiment.experience
    if isinstance(experience, Unrolls):
        experience = Steps(experience.steps)
    make = initialise.eval_shape if shape_only else initialise
    return make(
        algorithm,
        _seeds(experiment),
        tasks,
        mailbox,
        agents=experiment.agents if only is None else 1,
        first=only or 0,
        of=experiment.agents,
        initial_parameters=experiment.initial_parameters,
        environment=experiment.environment if device else None,
        experience=experience if device else None,
    )


def population_shape(
    algorithm: Any,
    experiment: Experiment,
    mailbox: AnyMailbox | None = None,
    tasks: Any = None,
    only: int | None = None,
) -> Population:
    """What ``initial_population`` would make, as shapes and dtypes, without making it."""
    if tasks is None:
        tasks = experiment.environment.task_set(experiment.tasks).deal(experiment.agents, experiment.copies)
    return initial_population(algorithm, experiment, mailbox, tasks, only, shape_only=True)


def _seeds(experiment: Experiment) -> Int[Array, " seed"]:
    # Made by numpy: ``jnp.arange`` would compile a program.
    return jax.device_put(np.arange(experiment.seed, experiment.seed + experiment.seeds, dtype=np.int32))


def tree_bytes(tree: Any) -> int:
    """Bytes that the leaves of a tree of arrays or shapes take."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _require_mixing(topology: Topology, weights: tuple[csr_array, ...]) -> None:
    """Refuse weights under which news of some agent never reaches another, unless the topology is ``separate``."""
    if not topology.separate and not is_strongly_connected(sum(weights)):
        raise InputError(
            f"the weights leave the {topology.agents} agents of {topology.name} in parts that never hear each "
            "other; give weights above 0 along a path between any two, or choose the topology isolated"
        )


def _require_runtime(experiment: Experiment, tasks: Any) -> None:
    """Refuse what only a simulated schedule can do, and workers that do not fit."""
    runtime, schedule = experiment.runtime, experiment.schedule
    if experiment.test_every is not None and (runtime != "vectorised" or on_host(experiment.environment)):
        raise InputError(
            f"test_every is {experiment.test_every}; tests in training need the runtime vectorised and an environment "
            "on the device, others are evaluated afterwards"
        )
    if runtime in ("vectorised", "threads", "network") and experiment.workers != 1:
        raise InputError(
            f"workers is {experiment.workers}; the runtime {runtime} takes 1, all_reduce and a3c take more"
        )
    if experiment.certify and runtime != "threads":
        raise InputError(f"certify is True; the runtime {runtime} certifies nothing, threads does")
    if experiment.correlate and runtime in ("vectorised", "network"):
        raise InputError(f"correlate is True; the runtime {runtime} keeps no gradients, the others do")
    if experiment.patience != AdaptiveTimeout() and runtime not in ("threads", "network"):
        raise InputError(
            f"patience is {experiment.patience}; in the runtime {runtime} nobody waits by the clock, in threads and "
            "network agents do"
        )
    if experiment.block is not None and runtime != "vectorised":
        raise InputError(
            f"block is {experiment.block}; only the runtime vectorised computes agents in blocks"
        )
    _require_actors(experiment, jax.tree.leaves(tasks)[0].shape[1])
    if runtime == "vectorised":
        return
    simulated = [
        name
        for name in ("wake_probability", "compute_time", "latency", "absences", "deadline", "in_flight")
        if getattr(schedule, name) != getattr(Schedule(), name)
    ]
    if simulated:
        raise InputError(
            f"{simulated[0]} is {getattr(schedule, simulated[0])!r}, which only the runtime vectorised simulates; "
            f"in {runtime} things take as long as they take"
        )
    if runtime in ("threads", "network"):
        _require_own_time(runtime, schedule)
        return
    environments = jax.tree.leaves(tasks)[0].shape[1]
    if experiment.agents != 1:
        raise InputError(
            f"agents is {experiment.agents}; the runtime {runtime} has 1, and workers that share it"
        )
    if schedule != Schedule():
        raise InputError(
            f"the schedule is {schedule}; the runtime {runtime} has no peers and takes the default"
        )
    if environments % experiment.workers:
        raise InputError(
            f"workers is {experiment.workers}; it must divide the agent's {environments} environments"
        )


def _require_gradients(algorithm: Any, experiment: Experiment) -> None:
    """Refuse to exchange or compare gradients of an algorithm that does not adapt by one gradient a round."""
    if experiment.runtime in ("all_reduce", "a3c"):
        asked = f"runtime is {experiment.runtime!r}, which exchanges gradients"
    elif experiment.correlate:
        asked = "correlate is True, which compares gradients"
    else:
        return
    name, steps = type(algorithm).__name__, optimiser_steps(algorithm)
    if not isinstance(algorithm, GradientAlgorithm):
        raise InputError(f"{asked}; {name} lacks the methods gradient and apply of GradientAlgorithm")
    if steps != 1:
        raise InputError(f"{asked}, one for each round; {name} takes {steps} optimiser steps in a round")


def _require_actors(experiment: Experiment, environments: int) -> None:
    experience = experiment.experience
    if not isinstance(experience, Unrolls):
        return
    if experiment.runtime not in ("threads", "network"):
        raise InputError(
            f"experience is Unrolls, whose actors are threads; the runtime is {experiment.runtime}"
        )
    if environments % experience.actors:
        raise InputError(
            f"actors is {experience.actors}; it must divide an agent's {environments} environments"
        )


def _require_own_time(runtime: RuntimeName, schedule: Schedule) -> None:
    """Refuse what agents that move in their own time cannot do."""
    if schedule.rule in ("push_sum", "cycle"):
        raise InputError(
            f"rule is {schedule.rule!r}, which only the runtime vectorised has; give another rule"
        )
    faster = [agent for agent, factor in schedule.slow_agents if factor < 1]
    if faster:
        raise InputError(
            f"slow_agents makes agent {faster[0]} faster; in {runtime} a factor must be at least 1"
        )


def _fitted(experiment: Experiment, links: Links) -> Any:
    """The algorithm, bound to the environment's spaces and, if it is cyclic, to the graph."""
    environment, algorithm = experiment.environment, experiment.algorithm
    spaces = spaces_of(environment)
    name = type(algorithm).__name__
    needs: Needs = getattr(algorithm, "needs", Needs())
    if _kind(spaces.action) not in needs.actions:
        raise InputError(
            f"{name} needs {' or '.join(needs.actions)} actions and the environment has {spaces.action}; use A2C"
        )
    if needs.whole_episodes and not isinstance(experiment.experience, Episodes):
        raise InputError(
            f"{name} learns from whole episodes and experience is {experiment.experience}; use Episodes"
        )
    if isinstance(experiment.experience, Episodes) and on_host(environment):
        raise InputError(
            f"{type(environment).__name__} runs on the host, where experience is a number of steps; use Steps"
        )
    if isinstance(algorithm, Cyclic):
        return algorithm.bind(spaces, most_neighbours(links))
    return algorithm.bind(spaces)


def _kind(action: Box | Discrete) -> ActionKind:
    if isinstance(action, Discrete):
        return "discrete"
    return "bounded" if np.isfinite(action.bound) else "unbounded"


def _require_rule(algorithm: Any, experiment: Experiment) -> None:
    """Refuse a rule by which the algorithm cannot combine, and a mean of what it does not average."""
    schedule, initial_parameters = experiment.schedule, experiment.initial_parameters
    if isinstance(algorithm, Cyclic) and experiment.runtime != "vectorised":
        raise InputError(
            f"runtime is {experiment.runtime!r}; {type(algorithm).__name__} runs in vectorised only"
        )
    if isinstance(algorithm, Cyclic) != (schedule.rule == "cycle"):
        others = ", ".join(rule for rule in get_args(Rule) if rule != "cycle")
        takes = "cycle" if isinstance(algorithm, Cyclic) else f"one of {others}"
        raise InputError(f"rule is {schedule.rule!r}; {type(algorithm).__name__} takes {takes}")
    if schedule.rule == "cycle" and experiment.weights != Experiment.weights:
        raise InputError(
            f"weights is {experiment.weights!r}; a cycle averages nothing, so that it has no weights: leave it out"
        )
    if isinstance(algorithm, Cyclic) and initial_parameters == "averaged":
        raise InputError(
            f"initial_parameters is 'averaged'; {type(algorithm).__name__} averages nothing and takes another"
        )


def _mailbox(schedule: Schedule, links: Links) -> AnyMailbox | None:
    """What carries messages where not all agents hear each other at once; nothing in lockstep."""
    if schedule.rule == "cycle":
        Cycle(schedule, links)  # refuses what is no cycle
        return CycleMailbox.of(links)
    Simulation(schedule, links, seed=0)  # refuses agents that do not exist
    if schedule.synchronous and schedule.rule != "push_sum":
        return None
    mailbox = Mailbox.of(links, schedule.in_flight)
    return PushSumMailbox(mailbox) if schedule.rule == "push_sum" else mailbox


def _message_bytes(algorithm: Any, schedule: Schedule) -> int:
    """Bytes of one message over one link.

    That of push-sum holds a mass beside the parameters, and all of it as two numbers each.
    """
    learner = jax.eval_shape(algorithm.init, jax.random.key(0))
    message = jax.eval_shape(algorithm.message, learner)
    if isinstance(message, NeighbourMessage):
        places = max(len(leaf) for leaf in jax.tree.leaves(message.to_each))
        return tree_bytes(message.to_all) + tree_bytes(message.to_each) // max(places, 1)
    plain = tree_bytes(message)
    return 2 * (plain + 4) if schedule.rule == "push_sum" else plain


def _require_twice(what: str, size: int, remedy: str) -> None:
    """Refuse a state that cannot be held twice: old and new stand side by side while messages are mixed."""
    needed, usable = 2 * size, usable_memory()
    if jax.default_backend() == "cpu" and needed > usable:
        raise InputError(
            f"{what} would need {needed / 2**30:.1f} GiB and this process may use {usable / 2**30:.1f} GiB; {remedy}"
        )


def _suitable_block(algorithm: Any, experiment: Experiment) -> int:
    """How many agents act and adapt at once; docs/decisions/blocks.md holds the measurements.

    On a CPU agents with large networks take turns, so that the weights of one stay in a core's cache for all its steps.
    Otherwise as many act at once as have parameters that fit into a shared cache.
    """
    agents = experiment.agents * experiment.seeds
    learner = jax.eval_shape(algorithm.init, jax.random.key(0))
    one_agent = tree_bytes(learner.params)
    if one_agent > _LARGE_NETWORK and jax.default_backend() == "cpu":
        return 1
    most = max(1, min(agents, _CACHE // one_agent, _LARGEST_BLOCK))
    # A last, smaller block would be the whole round compiled a second time.
    return next((block for block in range(most, most // 2, -1) if agents % block == 0), most)


_CACHE = 8 * 2**20  # bytes of parameters that may be in use together
_LARGEST_BLOCK = 256  # agents; the trajectories of more leave the cache however small the networks are
_LARGE_NETWORK = 2**18  # bytes; two networks of 2×256 are about twice as large
