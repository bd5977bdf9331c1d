"""Adds up what workers report one by one, so that they read like the rounds of a population that moves together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gossamer.runtimes.peer import Update
from gossamer.runtimes.protocol import Report, Traffic, Waiting
from gossamer.runtimes.rounds import AgentRound
from gossamer.runtimes.vectorised import RoundRecord
from gossamer.types import Finished


class Place(NamedTuple):
    """Where in the records of a population a worker's numbers belong."""

    agent: int
    environments: slice


class Tally:
    """Sums over some updates, of one seed.

    Args:
        places: of every worker.
        agents: how many there are.
        environments: of each of them.
    """

    def __init__(self, places: Sequence[Place], agents: int, environments: int):
        self._places, self._agents, self._environments = places, agents, environments
        self._reset()

    @property
    def count(self) -> int:
        """Updates since the last report."""
        return int(self._updates.sum() + self._lossless.sum())

    def add(self, update: Update) -> None:
        """One update more."""
        place, report = self._places[update.agent], jax.device_get(update.report)
        self._env_steps[0, place.agent] += report.env_steps
        self._updates[0, place.agent] += report.updates
        for total, part in zip(self._finished, report.finished, strict=True):
            total[0, place.agent, place.environments] += part
        for name, value in report.info.items():
            total = self._info.setdefault(name, np.zeros((1, self._agents), np.float32))
            total[0, place.agent] += value
        self._traffic = self._traffic.and_then(_traffic_of(update))
        self._waiting = Waiting(update.waited, update.waited, update.expired).and_before(self._waiting)

    def report(self, rounds: int, consensus_distance: float, finite: Any) -> Report:
        """The sums as a report of some rounds; counting begins anew."""
        record = RoundRecord(
            agents=self._sums(),
            consensus_distance=np.array([consensus_distance], np.float32),
            finite=np.asarray(finite)[None],
        )
        report = Report(rounds, record, self._traffic, waiting=self._waiting)
        self._reset()
        return report

    def state(self) -> Any:
        """What a checkpoint keeps of the updates since the last report: counts, but no losses."""
        return self._sums()._replace(updates=self._updates + self._lossless, info={}), self._traffic

    def restore(self, state: Any) -> None:
        """Resume from what ``state`` returned."""
        sums, traffic = jax.tree.map(np.array, state)
        self._env_steps, self._finished, self._lossless = sums.env_steps, sums.finished, sums.updates
        self._traffic = Traffic(*traffic)

    def _reset(self) -> None:
        shape = (1, self._agents)
        self._env_steps, self._updates = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        self._lossless = np.zeros(shape, np.float32)  # updates whose losses a checkpoint did not keep
        self._finished = Finished(
            *(np.zeros((*shape, self._environments), np.float32) for _ in Finished._fields)
        )
        self._info: dict[str, np.ndarray] = {}
        self._traffic = Traffic.none(1)
        self._waiting = Waiting()

    def _sums(self) -> AgentRound:
        return AgentRound(self._env_steps, self._finished, self._updates, self._info)


def _traffic_of(update: Update) -> Traffic:
    sent, lost = np.array([update.sent], np.int64), np.array([update.lost], np.int64)
    return Traffic.of(sent, lost, [update.ages])
