"""GALA (Assran et al. 2019) and what it is compared with: A2C learners, many simulators, one machine.

Hyper-parameters are GALA's table 2. Steps are agent steps, 4 frames of Atari each, of all simulators together.
"""

import math
from dataclasses import replace
from typing import Any

from gossamer.algorithms import A2C, Impala
from gossamer.environments import Atari, Environment, HostEnvironment, Pixels
from gossamer.experience import Episodes, Steps, Unrolls
from gossamer.experiment import Experiment
from gossamer.schedules import Schedule

GOSSIP = Schedule(rule="all_in_peers")
"""GALA's algorithm 1: a learner combines once a message of every in-peer is there, and never waits."""

_HORIZON = 5
_RECORDS, _CHECKPOINTS = 1000, 50  # of a training, about


def gala_pong() -> Experiment:
    """GALA-A2C on Pong: 4 learners on a directed ring, each with 16 simulators.

    Example:
        >>> experiment = gala_pong()
        >>> experiment.agents, experiment.copies, experiment.topology, experiment.initial_parameters
        (4, 16, 'directed_ring', 'shared')
    """
    return gala_a2c(Atari("pong"))


def pong_a2c() -> Experiment:
    """Synchronous A2C on Pong: one learner, and 4 workers with 16 simulators each whose gradients are averaged."""
    return all_reduce_a2c(Atari("pong"))


def pong_a3c() -> Experiment:
    """Large-batch A3C on Pong: one learner, and 4 workers with 16 simulators each, applied as they come."""
    return a3c(Atari("pong"))


def pong_impala() -> Experiment:
    """IMPALA on Pong: one learner, and 4 actors with 16 simulators each that run ahead of it."""
    return impala(Atari("pong"))


def gala_a2c(
    environment: Environment | HostEnvironment,
    learners: int = 4,
    simulators: int = 16,
    steps: int = 10_000_000,
    peers: int = 1,
) -> Experiment:
    """GALA-A2C: learners on a directed ring that gossip their parameters without waiting.

    Args:
        environment: a game, or another single task.
        learners: how many there are; the learning rate is 0.0007 · √learners.
        simulators: of each learner.
        steps: of all simulators together.
        peers: how many others each learner hears.
    """
    experiment = Experiment(
        environment=environment,
        algorithm=table_2(environment, learners),
        experience=Steps(_HORIZON),
        tasks=1,
        agents=learners,
        copies=simulators,
        topology=_ring(learners, peers),
        weights="uniform",
        schedule=GOSSIP,
        runtime="threads",
        initial_parameters="shared",
        keep_best=True,
    )
    return _of_length(experiment, steps)


def all_reduce_a2c(
    environment: Environment | HostEnvironment,
    learners: int = 4,
    simulators: int = 16,
    steps: int = 10_000_000,
) -> Experiment:
    """Synchronous A2C: as many learners and simulators, one set of parameters, the mean of all gradients.

    Example:
        >>> from gossamer.environments import Acrobot
        >>> experiment = all_reduce_a2c(Acrobot())
        >>> experiment.agents, experiment.copies, experiment.workers
        (1, 64, 4)
    """
    gossip = gala_a2c(environment, learners, simulators, steps)
    return replace(
        gossip,
        agents=1,
        copies=learners * simulators,
        workers=learners,
        topology="isolated",
        schedule=Schedule(),
        runtime="all_reduce",
    )


def a3c(
    environment: Environment | HostEnvironment,
    workers: int = 4,
    simulators: int = 16,
    steps: int = 10_000_000,
) -> Experiment:
    """A3C: workers that apply their gradients to shared parameters as they come; the learning rate is not scaled.

    With several simulators a worker that is the large-batch form, with one the original.

    Example:
        >>> from gossamer.environments import Acrobot
        >>> a3c(Acrobot(), workers=16, simulators=1).algorithm.learning_rate
        0.0007
    """
    synchronous = all_reduce_a2c(environment, workers, simulators, steps)
    return replace(synchronous, runtime="a3c", algorithm=table_2(environment, learners=1))


def impala(
    environment: Environment | HostEnvironment,
    actors: int = 4,
    simulators: int = 16,
    steps: int = 10_000_000,
) -> Experiment:
    """IMPALA: one learner, and actors that run ahead of it; unrolls of 20 steps, an update for each round of actors.

    Its hyper-parameters are table G.1's; the network is GALA's (appendix C.2).

    Example:
        >>> from gossamer.environments import Acrobot
        >>> impala(Acrobot()).experience
        Unrolls(steps=20, actors=4, batch=4, ahead=4)
    """
    unrolls = Unrolls(20, actors, batch=actors, ahead=actors)
    return _with_impala(gala_a2c(environment, 1, actors * simulators), unrolls, steps)


def gala_impala(
    environment: Environment | HostEnvironment,
    learners: int = 4,
    simulators: int = 16,
    steps: int = 10_000_000,
) -> Experiment:
    """Learners of IMPALA that gossip, each with one actor and its simulators.

    Example:
        >>> from gossamer.environments import Acrobot
        >>> gala_impala(Acrobot()).agents, gala_impala(Acrobot()).experience.actors
        (4, 1)
    """
    unrolls = Unrolls(20, actors=1, batch=1, ahead=1)
    return _with_impala(gala_a2c(environment, learners, simulators), unrolls, steps)


def table_2(environment: Environment | HostEnvironment, learners: int) -> A2C:
    """GALA's hyper-parameters: the CNN for images, for other observations two hidden layers that are shared.

    ε = 0.01 dominates the root in RMSProp's denominator; the published program has 1e-5 instead.
    """
    return A2C(
        learning_rate=7e-4 * math.sqrt(learners),
        epsilon=0.01,
        reward_clip=1.0,
        **_network(environment),
    )


def _with_impala(experiment: Experiment, unrolls: Unrolls, steps: int) -> Experiment:
    environment = experiment.environment
    algorithm = Impala(**_network(environment))
    return _of_length(replace(experiment, algorithm=algorithm, experience=unrolls), steps)


def _network(environment: Environment | HostEnvironment) -> dict[str, Any]:
    if isinstance(environment, Pixels):
        return {"network": "nature", "hidden": (512,), "activation": "relu"}
    return {"network": "shared", "hidden": (64, 64)}


def _ring(learners: int, peers: int) -> str:
    if learners == 1:
        return "isolated"
    return "directed_ring" if peers == 1 else f"directed_ring:peers={peers}"


def _of_length(experiment: Experiment, steps: int) -> Experiment:
    """With rounds of so many steps in all, about a thousand records and fifty checkpoints."""
    assert not isinstance(experiment.experience, Episodes)
    simulators, horizon = experiment.agents * experiment.copies, experiment.experience.steps
    rounds = max(steps // (simulators * horizon), 1)
    every = max(rounds // _RECORDS, 1)
    return replace(
        experiment,
        rounds=max(rounds // every, 1) * every,
        record_every=every,
        checkpoint_every=every * max(_RECORDS // _CHECKPOINTS, 1),
    )
