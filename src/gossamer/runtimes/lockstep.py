"""A population that moves together: the device alone, or the host's simulators and the device in turn.

It brings together the parts of an experiment, the vectorised runtime and a simulated schedule.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from gossamer.algorithms.protocol import initial_carry
from gossamer.experience.device import Steps
from gossamer.experience.host import HostSteps, streams_of
from gossamer.experiment import Experiment
from gossamer.runtimes.build import Parts, initial_population
from gossamer.runtimes.mailbox import Delivery
from gossamer.runtimes.protocol import Report, Resume, Traffic, stretches
from gossamer.runtimes.vectorised import (
    Population,
    act_for_all,
    learn_for_all,
    run_chunk,
)
from gossamer.schedules import Cycle, Simulation, Wave

MOST_ROUNDS = 256  # in one call; their deliveries lie in memory together
_RECORDS = 64


class VectorisedRuntime:
    """Whole chunks of rounds on the device."""

    def __init__(self, experiment: Experiment, parts: Parts):
        self._experiment, self._parts = experiment, parts
        self._events = _Events(parts)

    @property
    def resumes(self) -> Resume:
        """All that happens is in the population and the schedule."""
        return "exact"

    def start(self) -> Population:
        """The population before its first round."""
        parts = self._parts
        return initial_population(parts.algorithm, self._experiment, parts.mailbox, parts.tasks)

    def most_rounds(self, every: int) -> int:
        """As many as there is room for, in records and deliveries."""
        return min(_RECORDS * every, MOST_ROUNDS)

    def advance(self, population: Population, rounds: int, every: int) -> tuple[Population, list[Report]]:
        """One program for all rounds."""
        parts, done = self._parts, int(population.round)
        lengths = stretches(done, rounds, every)
        deliveries, traffic = self._events.next(lengths, capacity=self.most_rounds(every))
        population, record = run_chunk(
            population,
            parts.algorithm,
            parts.mixer if parts.mailbox is None else parts.mailbox,
            parts.tasks,
            parts.seeds,
            jax.device_put(np.int32(rounds)),
            jax.device_put(np.int32(every)),
            deliveries,
            environment=parts.environment,
            experience=parts.experience,
            capacity=_RECORDS + 1,
            block=parts.block,
        )
        self._events.look_ahead(rounds)
        rows = jax.device_get(record)
        return population, [
            Report(length, jax.tree.map(lambda leaf, i=i: leaf[i], rows), traffic[i])
            for i, length in enumerate(lengths)
        ]

    def saved(self, population: Population) -> Population:
        """The population is all there is."""
        return population

    def restore(self, population: Population) -> Population:
        """The schedule's events are brought to the same round."""
        self._events.skip(int(population.round))
        return population

    def close(self) -> None:
        """Nothing is held."""


class HostRuntime:
    """Round by round: simulators of all agents on the host, acting, adapting and mixing on the device."""

    def __init__(self, experiment: Experiment, parts: Parts):
        self._experiment, self._parts = experiment, parts
        self._events = _Events(parts)
        assert isinstance(parts.experience, Steps)  # ``build`` refuses whole episodes on the host
        agents, environments = jax.tree.leaves(parts.tasks)[0].shape
        streams = streams_of(np.asarray(parts.seeds), np.arange(agents), environments)
        carry = initial_carry(parts.algorithm)
        self._host = HostSteps(parts.environment, parts.experience.steps, parts.tasks, streams, carry)

    @property
    def resumes(self) -> Resume:
        """Exactly where simulators can tell their state."""
        return "exact" if self._host.remembers else "learner-exact"

    def start(self) -> Population:
        """The population before its first round; every simulator starts an episode."""
        self._host.start()
        parts = self._parts
        return initial_population(parts.algorithm, self._experiment, parts.mailbox, parts.tasks)

    def most_rounds(self, every: int) -> int:
        """As many as the schedule's events are asked for at once."""
        return MOST_ROUNDS

    def advance(self, population: Population, rounds: int, every: int) -> tuple[Population, list[Report]]:
        """Collect, learn and mix, one round after the other."""
        parts, reports = self._parts, []
        for length in stretches(int(population.round), rounds, every):
            deliveries, (traffic,) = self._events.next([length], capacity=length)
            for index in range(length):
                now = jax.tree.map(lambda leaf, i=index: leaf[i], deliveries)
                act = partial(act_for_all, parts.algorithm, population.learner, parts.seeds, population.round)
                collected = self._host.collect(act, None if now is None else now.adapts)
                population, record = learn_for_all(
                    population,
                    parts.algorithm,
                    parts.mixer if parts.mailbox is None else parts.mailbox,
                    collected,
                    parts.seeds,
                    now,
                )
                report = Report(1, jax.device_get(record), traffic)
                reports.append(report) if index == 0 else reports.append(
                    reports.pop().and_then(report._replace(traffic=Traffic.none(len(parts.seeds))))
                )
        return population, reports

    def saved(self, population: Population) -> Population:
        """With the simulators' state, where they can tell it."""
        return population._replace(environments=self._host.state())

    def restore(self, population: Population) -> Population:
        """Simulators that cannot be restored start new episodes: the learner is exact, its experience is not."""
        self._events.skip(int(population.round))
        self._host.restore(population.environments)
        return population._replace(environments=())

    def close(self) -> None:
        """Close the simulators."""
        self._host.close()


class _Events:
    """The schedules of all seeds, wave by wave; in lockstep only their traffic."""

    def __init__(self, parts: Parts):
        self._parts = parts
        self._lockstep = parts.mailbox is None
        self._done = 0
        self._ahead: deque[list[Wave]] = deque()
        self._simulations = [] if self._lockstep else [_simulation(parts, int(seed)) for seed in parts.seeds]

    def skip(self, rounds: int) -> None:
        """Come to where ``rounds`` rounds are over."""
        self._done = rounds
        for simulation in self._simulations:
            simulation.skip(rounds)

    def look_ahead(self, rounds: int) -> None:
        """Simulate the next rounds now, while the device is busy with those before."""
        if not self._lockstep:
            self._ahead.extend(self._simulated() for _ in range(rounds - len(self._ahead)))

    def next(self, lengths: list[int], capacity: int) -> tuple[Delivery | None, list[Traffic]]:
        """Deliveries of the coming rounds, with room for ``capacity``, and the traffic of each stretch of them."""
        if self._lockstep:
            return None, [self._plain(length) for length in lengths]
        deliveries: list[Delivery] = []
        traffic = []
        for length in lengths:
            waves = [self._ahead.popleft() if self._ahead else self._simulated() for _ in range(length)]
            deliveries += [_stacked([Delivery.of(wave) for wave in row]) for row in waves]
            traffic.append(_traffic(waves))
        deliveries += [deliveries[-1]] * (capacity - len(deliveries))
        return _stacked(deliveries), traffic

    def _simulated(self) -> list[Wave]:
        return [simulation.wave() for simulation in self._simulations]

    def _plain(self, length: int) -> Traffic:
        """Everybody's message on every link of the phase, at once."""
        links, parts = self._parts.links, self._parts
        phases = (np.arange(self._done, self._done + length)) % links.period
        self._done += length
        sent = int((links.weight[phases] > 0).sum())
        seeds, fresh = len(parts.seeds), np.zeros(sent, np.int64)
        return Traffic.of(np.full(seeds, sent), np.zeros(seeds, np.int64), [fresh] * seeds)


def _simulation(parts: Parts, seed: int) -> Simulation | Cycle:
    schedule, links = parts.schedule, parts.links
    return Cycle(schedule, links) if schedule.rule == "cycle" else Simulation(schedule, links, seed)


def _stacked(deliveries: list[Delivery]) -> Delivery:
    return Delivery(*(np.stack(leaves) for leaves in zip(*deliveries, strict=True)))


def _traffic(waves: list[list[Wave]]) -> Traffic:
    def of(measure: Callable[[Wave], Any]) -> Int[np.ndarray, " seed"]:
        return np.array([sum(measure(wave) for wave in seed) for seed in zip(*waves, strict=True)])

    return Traffic.of(
        sent=of(lambda wave: wave.sent.sum()),
        lost=of(lambda wave: wave.lost.sum() + wave.overtaken.sum()),
        ages=[
            np.concatenate([wave.age[wave.age >= 0] for wave in seed]) for seed in zip(*waves, strict=True)
        ],
    )
