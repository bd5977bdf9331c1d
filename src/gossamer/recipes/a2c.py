"""A2C's families of Diff-DAC (section VI-C): 25 tasks of Acrobot and of Hopper, and any Gymnasium environment.

Diff-A2C, centralised and specialised A2C are one program with other shapes; learning rates and horizons are
appendix A.3's, which tuned them apart.
"""

from dataclasses import replace

from gossamer.algorithms.a2c import A2C
from gossamer.environments import (
    Acrobot,
    Environment,
    GymnasiumEnvironment,
    HopperMass,
    HopperWind,
    HostEnvironment,
)
from gossamer.experience.device import Steps
from gossamer.experiment import Experiment
from gossamer.schedules import Schedule

PUBLISHED_ASYNCHRONY = Schedule(
    rule="most_recent",
    staleness=5,
    compute_time="uniform:low=0.9,high=1.1",
    latency="uniform:low=0,high=0.5",
    in_flight=3,
)
"""Diff-A2C as published (appendix D): newest messages, at most 5 updates old, agents of nearly one speed.

The paper gives the limit only; how fast its processes and their messages were is our choice.
"""


def acrobot() -> Experiment:
    """Diff-A2C on 25 tasks of Extreme Acrobot, on a ring, asynchronous as published."""
    return diffusion(Acrobot())


def acrobot_centralised() -> Experiment:
    """Centralised A2C on Extreme Acrobot: one agent with an environment of each of the 25 tasks."""
    return centralised_a2c(acrobot())


def acrobot_specialised() -> Experiment:
    """Specialised A2C on Extreme Acrobot: 25 isolated agents, each with 25 copies of its own task."""
    return specialised_a2c(acrobot())


def hopper_mass() -> Experiment:
    """Diff-A2C on Hopper with 25 masses, on a ring, asynchronous as published."""
    return diffusion(HopperMass())


def hopper_mass_centralised() -> Experiment:
    """Centralised A2C on Hopper with 25 masses."""
    return centralised_a2c(hopper_mass())


def hopper_wind() -> Experiment:
    """Diff-A2C on Hopper with 25 winds, on a ring, asynchronous as published."""
    return diffusion(HopperWind())


def hopper_wind_centralised() -> Experiment:
    """Centralised A2C on Hopper with 25 winds."""
    return centralised_a2c(hopper_wind())


def a2c() -> Experiment:
    """Diff-A2C on any Gymnasium environment (--env-id): 4 agents on a ring, each with 4 copies of it, in lockstep.

    Example:
        >>> a2c().agents, a2c().copies, a2c().environment.env_id
        (4, 4, 'CartPole-v1')
    """
    return replace(
        diffusion(GymnasiumEnvironment("CartPole-v1")),
        tasks=1,
        agents=4,
        copies=4,
        experience=Steps(16),
        schedule=Schedule(),
        rounds=1000,
        record_every=10,
        checkpoint_every=100,
    )


def diffusion(environment: Environment | HostEnvironment, steps: int = 600_000) -> Experiment:
    """Diff-A2C on 25 tasks of an environment: a ring of 25 agents, 60 steps an update, learning rate 0.0007.

    Args:
        environment: the family of tasks.
        steps: in each environment; rounded to whole records of 20 updates.
    """
    horizon, every = 60, 20
    rounds = max(steps // (horizon * every), 1) * every
    return Experiment(
        environment=environment,
        algorithm=A2C(),
        experience=Steps(horizon),
        topology="ring",
        schedule=PUBLISHED_ASYNCHRONY,
        rounds=rounds,
        record_every=every,
        checkpoint_every=100 * every,
    )


def centralised_a2c(experiment: Experiment) -> Experiment:
    """The same steps in the same environments by one agent: 5 steps an update, learning rate 0.002.

    Example:
        >>> experiment = centralised_a2c(acrobot())
        >>> experiment.agents, experiment.topology, experiment.experience.steps
        (1, 'isolated', 5)
    """
    return replace(_often(experiment), agents=1)


def specialised_a2c(experiment: Experiment, learning_rate: float = 0.002) -> Experiment:
    """One isolated agent for each task with as many copies of it as there are tasks, trained as the centralised one.

    The paper is silent on the learning rate of specialised agents; on Acrobot's hard tasks the centralised one's is
    too large for them (docs/decisions/reproductions.md).

    Example:
        >>> experiment = specialised_a2c(acrobot())
        >>> experiment.agents, experiment.copies, experiment.topology
        (25, 25, 'isolated')
    """
    often = _often(experiment, learning_rate=learning_rate)
    return replace(often, agents=experiment.tasks, copies=experiment.tasks)


def _often(experiment: Experiment, horizon: int = 5, learning_rate: float = 0.002) -> Experiment:
    """Shorter horizon, larger steps, no neighbours; records and checkpoints after as many steps as before."""
    assert isinstance(experiment.experience, Steps)
    longer = experiment.experience.steps // horizon
    return replace(
        experiment,
        algorithm=replace(experiment.algorithm, learning_rate=learning_rate),
        experience=Steps(horizon),
        topology="isolated",
        schedule=Schedule(),
        rounds=experiment.rounds * longer,
        record_every=experiment.record_every * longer,
        checkpoint_every=experiment.checkpoint_every * longer,
    )
