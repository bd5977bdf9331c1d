"""The runtime of one agent that is a process: a ``Peer`` whose messages travel over the network."""

import json
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from gossamer.diagnostics.consensus_distance import consensus_distance
from gossamer.experiment import Experiment
from gossamer.network.answer import read_answer
from gossamer.network.membership import Membership
from gossamer.network.receiver import Receiver
from gossamer.network.refusals import Refusals
from gossamer.network.send_queue import NetworkTransport, SenderIdentity, SendQueue
from gossamer.network.session import Session
from gossamer.network.wire import Expected
from gossamer.runtimes.build import Parts, initial_population
from gossamer.runtimes.clock import MonotonicClock
from gossamer.runtimes.inbox import Inbox
from gossamer.runtimes.peer import Neighbourhood, Peer, Update
from gossamer.runtimes.protocol import Report, Resume
from gossamer.runtimes.rounds import is_finite
from gossamer.runtimes.tally import Place, Tally
from gossamer.runtimes.vectorised import Population
from gossamer.runtimes.workers import Worker
from gossamer.system.signals import Stop, Unfinished
from gossamer.types import Learner

_log = logging.getLogger(__name__)


class Replaced(Unfinished):
    """Another process speaks for the agent now; this one has ended and wrote no checkpoint since."""


class AgentRuntime:
    """One agent of a population, in a process of its own.

    What it saves has no axis for agents: checkpoints hold its learner, where its environments stand, and the sums of
    updates that no line of the metrics counts yet. ``connect`` comes before ``advance``.

    Args:
        experiment: that of the whole population.
        parts: what was built of it.
        number: of the agent.
    """

    def __init__(self, experiment: Experiment, parts: Parts, number: int):
        self._experiment, self._parts, self._number = experiment, parts, number
        self._neighbourhood = Neighbourhood.of(parts.links, number)
        tasks = jax.tree.map(lambda leaf: leaf[number], parts.tasks)
        self._worker = Worker(parts, number, tasks)
        self._tally = Tally([Place(0, slice(None))], 1, len(jax.tree.leaves(tasks)[0]))
        self._learner: Learner | None = None
        self._done = 0
        self._stop, self._ended, self._replaced = Stop(), threading.Event(), False
        self._withdraw: Callable[[], None] = lambda: None  # nothing is shown yet
        self._rounds: Generator[tuple[Update, Learner], None, None] | None = None
        self._began = time.monotonic()
        self._leaving = ExitStack()
        self._leaving.enter_context(closing(self._worker))

    @property
    def resumes(self) -> Resume:
        """Messages that are under way are not saved."""
        return "learner-exact"

    def start(self) -> Population:
        """The agent before its first round; its worker begins episodes."""
        parts = self._parts
        population = initial_population(
            parts.algorithm, self._experiment, None, parts.tasks, only=self._number
        )
        self._learner, environments = jax.tree.map(
            lambda leaf: leaf[0, 0], (population.learner, population.environments)
        )
        self._worker.start(environments)
        return _at_round(0)

    def restore(self, population: Population) -> Population:
        """Resume from what ``saved`` returned."""
        learner, environments, uncounted = jax.tree.map(
            lambda leaf: leaf[0], (population.learner, population.environments, population.mail)
        )
        self._learner, self._done = jax.device_put(learner), int(population.round)
        self._worker.restore(environments)
        self._tally.restore(uncounted)
        return _at_round(self._done)

    def connect(
        self,
        membership: Membership,
        config: dict[str, str],
        expected: Expected,
        incarnation: int,
        stop: Stop,
        refusals: Refusals,
    ) -> None:
        """Enter the network, without announcing the agent yet.

        Args:
            membership: its place in the fleet.
            config: of Zenoh.
            expected: what its messages must be.
            incarnation: number of this process among those of the agent.
            stop: ends the agent between two rounds.
            refusals: counts refused messages.

        Raises:
            InputError: the network cannot be entered.
        """
        self._membership, self._space, self._incarnation = membership, membership.fleet.space, incarnation
        self._stop, self._refusals = stop, refusals
        parts, in_step, seed = self._parts, self._parts.schedule.in_step, int(self._parts.seeds[0])
        senders, clock = self._neighbourhood.senders, MonotonicClock()
        names = membership.fleet.neighbours(parts.links, membership.name)
        numbers = {name: membership.fleet.number(name) for name in names}
        self._session = self._leaving.enter_context(closing(Session(config)))
        # In step, a neighbour may be ahead: its next message must not overwrite the one that is due.
        self._inbox = Inbox(senders, clock, None if in_step else 1)
        self._intake = Receiver(
            self._number,
            self._inbox,
            expected,
            self._space,
            numbers,
            frozenset(senders),
            parts.schedule,
            seed,
            refusals,
        )
        keys = [self._space.message(membership.name, phase) for phase in range(parts.links.period)]
        self._outbox = SendQueue(
            SenderIdentity(self._number, expected.run, incarnation, expected.schema, membership.compression),
            [self._session.publisher(key, lossless=in_step) for key in keys],
            in_step,
        )
        self._leaving.callback(self._outbox.silence)
        transport = NetworkTransport(
            self._outbox,
            parts.links,
            self._number,
            parts.schedule,
            seed,
            self._intake.present,
            self._announce,
            # In step only when the session ends: it would overtake messages that are still to be read.
            lambda: None if in_step else self._withdraw(),
        )
        patience = self._experiment.patience
        if in_step:
            # The initial timeout for every wait, so that machine load cannot change results. The network itself tells
            # of agents that die.
            patience = replace(patience, least=max(patience.least, patience.first))
        self._peer = Peer(
            self._neighbourhood,
            self._worker,
            self._inbox,
            transport,
            clock,
            parts.schedule,
            patience,
            in_step,
        )
        self._listen(numbers)
        # A signal sets a flag; whatever waits for messages is woken from here.
        watcher = threading.Thread(target=self._watch, daemon=True, name="watches")
        watcher.start()
        self._leaving.callback(watcher.join)
        self._leaving.callback(self._ended.set)

    def _listen(self, numbers: dict[str, int]) -> None:
        session, space, links = self._session, self._space, self._parts.links
        for name, sender in numbers.items():
            edge = (links.receiver == self._number) & (links.sender == sender)
            for phase in range(links.period):
                if links.weight[phase, edge].any():
                    session.subscribe(
                        space.message(name, phase), self._intake.receive, self._parts.schedule.in_step
                    )
            session.watch_tokens(space.alive(name), self._intake.appeared, self._intake.gone)
        session.answer(space.newest(self._membership.name), self._outbox.newest)
        session.answer(space.status(self._membership.name), lambda: json.dumps(self.status()).encode())

    def join(self) -> Population:
        """Ask the neighbours for their parameters, and take them over where ``begins_with`` says so."""
        begins_with, name = self._membership.begins_with, self._membership.name
        if begins_with != "own":
            for key, data in self._answers().items():
                self._intake.receive_answer(key, data, self._experiment.rounds)
            furthest = int(self._inbox.look().version.max(initial=0))
            if furthest > self._done or (begins_with == "neighbours" and furthest):
                self._learner, self._done = self._peer.take_over(self._learner, self._done)
                _log.info("%s begins with a neighbour's parameters of update %d", name, furthest)
        return _at_round(self._done)

    def _answers(self) -> dict[str, bytes]:
        """The neighbours' newest messages. Connections may not stand yet, so silence is believed only after a while."""
        until = time.monotonic() + _JOIN_SECONDS
        while True:
            answers = self._session.ask(self._space.newest(), _ASK_SECONDS)
            if answers or self._stop or time.monotonic() >= until:
                return answers
            time.sleep(_LOOK_AGAIN)

    def most_rounds(self, every: int) -> int:
        """All, since updates are added up at once."""
        return self._experiment.rounds

    def advance(self, population: Population, rounds: int, every: int) -> tuple[Population, list[Report]]:
        """Make some rounds, fewer if stopped, with a report at each multiple of ``every``.

        If it is stopped between two of them, the last report is of the rounds since the former. They stay uncounted,
        and are reported again after a resume.

        Raises:
            Replaced: another process speaks for the agent.
        """
        reports, end = [], self._done + rounds
        if self._rounds is None:
            self._rounds = self._peer.rounds(self._learner, self._done, self._experiment.rounds, self)
            self._leaving.callback(self._rounds.close)
        while self._done < end and (made := next(self._rounds, None)) is not None:
            update, self._learner = made
            self._done = update.version
            self._tally.add(update._replace(agent=0))
            if self._done % every == 0:
                reports.append(self._report())
        self._require_current()
        if self._done < end and self._tally.count:
            uncounted = self._tally.state()
            reports.append(self._report())
            self._tally.restore(uncounted)
        return _at_round(self._done), reports

    def _report(self) -> Report:
        message = jax.device_get(self._parts.algorithm.message(self._learner))
        # In step, a neighbour that is ahead must not change what is reported of this round.
        heard = self._inbox.newest(self._done if self._parts.schedule.in_step else math.inf)
        # By numpy: neighbours come and go, and for each number of them a program would be compiled.
        groups = [jax.tree.map(lambda leaf: leaf[None], each) for each in (message, *heard.values())]
        distance = float(consensus_distance(*groups))
        return self._tally.report(self._tally.count, distance, np.array([bool(is_finite(message))]))

    def saved(self, population: Population) -> Population:
        """Learner, environments and uncounted updates, with an axis for the seed and none for agents.

        Raises:
            Replaced: another process speaks for the agent.
        """
        self._require_current()
        state = jax.device_get((self._learner, self._worker.state(), self._tally.state()))
        return Population(*jax.tree.map(lambda leaf: leaf[None], state), round=population.round)

    def close(self) -> None:
        """Leave the neighbours and the network, and let go of simulators."""
        self._leaving.close()

    def enter(self, done: int) -> bool:
        """Whether the next round may begin."""
        return not self._stop

    def hurries(self) -> bool:
        """Whether to stop waiting for messages."""
        return bool(self._stop)

    def status(self) -> dict[str, Any]:
        """How the agent is, as plain data for ``gossamer status`` and its neighbours."""
        held, now = self._intake.last(), time.time()
        fleet, present = self._membership.fleet, self._intake.present()
        return {
            "name": self._membership.name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "incarnation": self._incarnation,
            "round": self._done,
            "rounds": self._experiment.rounds,
            "seconds": time.monotonic() - self._began,
            "hears": {
                fleet.names[sender]: {
                    "present": sender in present,
                    "round": held[sender].version if sender in held else None,
                    "age_seconds": now - held[sender].at if sender in held else None,
                }
                for sender in self._neighbourhood.senders
            },
            "knows": {fleet.names[number]: known for number, known in self._intake.incarnations().items()},
            "refused": self._refusals.counts(),
            "unsent": self._outbox.failed,
        }

    def _announce(self) -> None:
        """Show that the agent is there; in step, wait for all neighbours before the first message goes out."""
        name = self._membership.name
        self._withdraw = self._session.declare_token(self._space.alive(name, self._incarnation))
        if self._parts.schedule.in_step:
            missing = self._intake.wait_for_all(
                time.monotonic() + self._experiment.patience.first, lambda: bool(self._stop)
            )
            if missing and not self._stop:
                names = ", ".join(self._membership.fleet.names[number] for number in sorted(missing))
                _log.warning("%s begins without %s, who did not come", name, names)

    def _watch(self) -> None:
        """Until the end: wake what waits when a stop is asked for, and look for a process that replaced this one."""
        following = time.monotonic() + _ASK_EVERY
        while not self._ended.wait(_LOOK_AGAIN):
            if self._stop:
                self._inbox.wake()
                self._intake.wake()
            elif time.monotonic() >= following:
                self._find_out_whether_replaced()
                following = time.monotonic() + _ASK_EVERY

    def _find_out_whether_replaced(self) -> None:
        """Neighbours refuse messages of an old process, and know which one has replaced it."""
        name = self._membership.name
        answers = self._session.ask(self._space.status(), _ASK_SECONDS).values()
        known = [read for answer in answers if (read := read_answer(answer)) is not None]
        newest = max((read["knows"].get(name, 0) for read in known), default=0)
        if newest > self._incarnation and not self._ended.is_set():
            _log.warning("another process speaks for %s (incarnation %d); this one ends", name, newest)
            self._replaced = True
            self._outbox.silence()
            self._stop.requested = True
            self._inbox.wake()
            self._intake.wake()

    def _require_current(self) -> None:
        if self._replaced:
            raise Replaced(f"another process speaks for {self._membership.name}; this one has ended")


def _at_round(done: int) -> Population:
    """A population without the agent's state, which the runtime holds."""
    number = jax.device_put(np.int32(done))
    return Population(Learner((), (), number), (), (), number)


_ASK_SECONDS = 2.0
_JOIN_SECONDS = 5.0  # how long to look for neighbours that have parameters to begin with
_ASK_EVERY = 5.0  # seconds between questions whether another process speaks for the agent
_LOOK_AGAIN = 0.2  # seconds between looks at whether a stop was asked for
