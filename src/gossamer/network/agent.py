"""One agent of a population as a process: it learns, talks to its neighbours, writes its own folder, and resumes.

Nobody else is needed: what others do is known only from their messages.
"""

import json
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gossamer.errors import InputError
from gossamer.experiment import Experiment
from gossamer.network.access import Access, Credentials, zenoh_config
from gossamer.network.answer import read_answer
from gossamer.network.credentials import check
from gossamer.network.membership import Membership
from gossamer.network.receiver import Receiver
from gossamer.network.refusals import Refusals
from gossamer.network.schema import Schema
from gossamer.network.send_queue import NetworkTransport, SenderIdentity, SendQueue
from gossamer.network.session import Session
from gossamer.network.wire import Expected, message_bytes
from gossamer.runs import checkpoints
from gossamer.runs.description import load_experiment
from gossamer.runs.folder import (
    create_run,
    provenance,
    read_config,
    replace_config,
    require_recorded,
    write_json,
)
from gossamer.runs.lock import claimed
from gossamer.runs.log import NonFiniteParameters, RunLog, Timed, Totals, has_begun, record_rows
from gossamer.runs.progress import Reporter, Silent, Status
from gossamer.runs.serialization import to_data
from gossamer.runtimes.agent_step import squared_distance_to_mean
from gossamer.runtimes.build import Parts, build, initial_population, require_memory_of_one
from gossamer.runtimes.clock import MonotonicClock
from gossamer.runtimes.inbox import Inbox
from gossamer.runtimes.peer import Neighbourhood, Peer, Update
from gossamer.runtimes.tally import Place, Tally
from gossamer.runtimes.workers import Worker
from gossamer.schedules.adaptive_timeout import AdaptiveTimeout
from gossamer.system.compilation_cache import persistent_cache
from gossamer.system.signals import Interrupted, Stop, Unfinished
from gossamer.types import Learner, Message

_log = logging.getLogger(__name__)


class Replaced(Unfinished):
    """Another process speaks for the agent now; this one has ended and written nothing more."""


class State(NamedTuple):
    """What a checkpoint of one agent holds."""

    learner: Learner
    environments: Any
    uncounted: Any  # of updates that no line of the metrics has yet


def run_member(
    experiment: Experiment,
    membership: Membership,
    folder: Path,
    stop: Stop,
    reporter: Reporter | None = None,
) -> Path:
    """Be one agent, from joining to leaving; goes on where the folder's newest checkpoint stands.

    Args:
        experiment: that of the whole population, the same for all agents.
        membership: which agent this is, and how it is reached.
        folder: where its metrics and checkpoints are, or will be.
        stop: asks it to save itself and leave.
        reporter: shows progress; nothing is shown by default.

    Returns:
        ``folder``.

    Raises:
        InputError: the experiment, the membership, the certificates or the folder do not do, or the network cannot be
            entered; nothing is written then.
        Interrupted: it was asked to stop, and has saved itself; in step, it is at the last regular checkpoint.
        Replaced: another process speaks for the agent.
        NonFiniteParameters: learning diverged; the last checkpoint is kept.
    """
    parts = build(experiment)
    membership.fleet.require_agents(experiment.agents)
    require_memory_of_one(experiment, parts, membership.number)
    line = _line_of(parts, membership)
    refusals, reporter = Refusals(membership.name), reporter or Silent()
    with (
        persistent_cache(),
        _Agent(experiment, parts, membership, line, folder, stop, reporter, refusals) as agent,
    ):
        agent.run()
    return folder


def load_membership(folder: Path) -> tuple[Experiment, Membership]:
    """The experiment of an agent's folder, and its place in the fleet when it began.

    Raises:
        InputError: it is no folder of an agent.
    """
    config = read_config(folder)
    experiment, agent = load_experiment(folder), config.get("agent")
    if not isinstance(agent, dict):
        raise InputError(f"{folder} holds no agent of a fleet; give a folder that gossamer agent wrote")
    return experiment, Membership.of_data(agent)


def state_like(experiment: Experiment, parts: Parts) -> State:
    """What a checkpoint of an agent looks like, the same for all."""
    with closing(_worker_of(parts, 0)) as worker:
        return _beginning(experiment, parts, 0, worker)


class _Agent:
    """Everything that one agent is made of, while it lives."""

    def __init__(
        self,
        experiment: Experiment,
        parts: Parts,
        membership: Membership,
        line: "_Line",
        folder: Path,
        stop: Stop,
        reporter: Reporter,
        refusals: Refusals,
    ):
        self._experiment, self._parts, self._membership = experiment, parts, membership
        self._folder, self._stop, self._reporter = folder, stop, reporter
        self._number, self._space = membership.number, membership.fleet.space
        self._refusals, self._replaced = refusals, False
        self._one = parts._replace(task_index=parts.task_index[self._number : self._number + 1])
        self._tally, self._ended = _tally(parts), threading.Event()
        self._withdraw: Callable[[], None] = lambda: None  # nothing is shown yet
        self._began = time.monotonic()
        with ExitStack() as stack:
            self._enter(line, stack)
            self._connect(line, stack)
            self._leaving = stack.pop_all()
        self._counted = time.monotonic()

    def __enter__(self) -> "_Agent":
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.close()

    def _enter(self, line: "_Line", stack: ExitStack) -> None:
        """Take up its folder, with a place on the network; nothing is written before all of it is known to do."""
        folder, new = self._folder, not (self._folder / "config.json").exists()
        if not new:
            # First: whoever has the folder may have the agent's port too, and then this is what is to be said.
            stack.enter_context(claimed(folder))
            _require_own(folder, self._experiment, self._membership)
        self._worker = stack.enter_context(closing(_worker_of(self._parts, self._number)))
        self._learner, self._done, totals, offset = self._restore()
        self._session = stack.enter_context(closing(Session(line.config)))
        if new:
            _create(folder, self._experiment, self._membership)
            stack.enter_context(claimed(folder))
        else:
            # Addresses may be others than when it began.
            replace_config(folder, {**read_config(folder), "agent": self._membership.data()})
        store = folder / "checkpoints"
        checkpoints.remove_left_overs(store)  # of a process that was killed while it saved itself
        self._log = stack.enter_context(closing(RunLog(folder, totals, offset, self._experiment.keep_best)))
        self._saved = self._done
        if not checkpoints.rounds(store):
            self._save(self._learner, self._done)
        self._incarnation = max(time.time_ns(), _last_incarnation(folder) + 1)
        # Last of all that it opens: whoever copies the folder counts on files that only grow from here on.
        write_json(folder / PROCESS, {"incarnation": self._incarnation, "pid": os.getpid()})

    def run(self) -> None:
        """All rounds, then leave."""
        self._begin()
        learner, done = self._learner, self._done
        with self._reporter:
            self._reporter.begin("compiling, then waiting for the first messages")
            learner, done = self._peer.run(learner, done, self._experiment.rounds, self, self._report)
        if self._replaced:
            raise Replaced(f"another process speaks for {self._membership.name}; this one has ended")
        # In step, agents go on from a round at which all have saved themselves, so that what follows is the same again.
        if done != self._saved and not (self._parts.schedule.in_step and done < self._experiment.rounds):
            self._save(learner, done)
        if done < self._experiment.rounds:
            raise Interrupted(
                f"{self._membership.name} stopped after round {done} of {self._experiment.rounds} and is saved as of "
                f"round {self._saved}; the same command goes on"
            )

    def enter(self, done: int) -> bool:
        """Whether the next round may begin."""
        return not self._stop

    def hurries(self) -> bool:
        """Whether nobody should wait for messages any more."""
        return bool(self._stop)

    def _connect(self, line: "_Line", stack: ExitStack) -> None:
        """The way in and out, declared but not shown yet."""
        neighbourhood = Neighbourhood.of(self._parts.links, self._number)
        names = self._membership.fleet.neighbours(self._parts.links, self._membership.name)
        clock, in_step = MonotonicClock(), self._parts.schedule.in_step
        # In step, a neighbour may be ahead: its next message must not overwrite the one that is due.
        self._inbox = Inbox(neighbourhood.senders, clock, None if in_step else 1)
        self._intake = self._intake_of(line.expected, names, frozenset(neighbourhood.senders))
        self._outbox = self._outbox_of(line.expected)
        stack.callback(self._outbox.silence)
        self._peer = Peer(
            neighbourhood,
            self._worker,
            self._inbox,
            self._post(),
            clock,
            self._parts.schedule,
            _patience(self._experiment.patience, in_step),
            in_step,
        )
        self._listen(names)
        # A signal sets a flag; whoever waits for messages is told of it from here.
        watcher = threading.Thread(target=self._watch, daemon=True, name="watches")
        watcher.start()
        stack.callback(watcher.join)
        stack.callback(self._ended.set)

    def _intake_of(self, expected: Expected, names: tuple[str, ...], heard: frozenset[int]) -> Receiver:
        numbers = {name: self._membership.fleet.number(name) for name in names}
        schedule, seed = self._parts.schedule, int(self._parts.seeds[0])
        return Receiver(
            self._number, self._inbox, expected, self._space, numbers, heard, schedule, seed, self._refusals
        )

    def _outbox_of(self, expected: Expected) -> SendQueue:
        compression, in_step = self._membership.compression, self._parts.schedule.in_step
        voice = SenderIdentity(self._number, expected.run, self._incarnation, expected.schema, compression)
        phases = range(self._parts.links.period)
        keys = [self._space.message(self._membership.name, phase) for phase in phases]
        return SendQueue(voice, [self._session.publisher(key, lossless=in_step) for key in keys], in_step)

    def _post(self) -> NetworkTransport:
        return NetworkTransport(
            self._outbox,
            self._parts.links,
            self._number,
            self._parts.schedule,
            int(self._parts.seeds[0]),
            self._intake.present,
            self._join,
            self._leave,
        )

    def _listen(self, names: tuple[str, ...]) -> None:
        session, space, links = self._session, self._space, self._parts.links
        for name in names:
            sender = self._membership.fleet.number(name)
            edge = (links.receiver == self._number) & (links.sender == sender)
            for phase in range(links.period):
                if links.weight[phase, edge].any():
                    session.subscribe(
                        space.message(name, phase), self._intake.receive, self._parts.schedule.in_step
                    )
            session.watch_tokens(space.alive(name), self._intake.appeared, self._intake.gone)
        session.answer(space.newest(self._membership.name), self._outbox.newest)
        session.answer(space.status(self._membership.name), lambda: json.dumps(self.status()).encode())

    def _join(self) -> None:
        """Show that the agent is there; in step, all neighbours must be there before the first message goes out."""
        self._withdraw = self._session.declare_token(
            self._space.alive(self._membership.name, self._incarnation)
        )
        if self._parts.schedule.in_step:
            missing = self._intake.wait_for_all(
                time.monotonic() + self._experiment.patience.first, lambda: bool(self._stop)
            )
            if missing and not self._stop:
                names = ", ".join(self._membership.fleet.names[number] for number in sorted(missing))
                _log.warning("%s begins without %s, who did not come", self._membership.name, names)

    def _leave(self) -> None:
        """Show it no more; in step only when the session ends: it would overtake messages that are still to be read."""
        if not self._parts.schedule.in_step:
            self._withdraw()

    def _begin(self) -> None:
        """Learn what neighbours have, and take it over where the choice is so."""
        begins_with = self._membership.begins_with
        if begins_with == "own":
            return
        for key, data in self._answers().items():
            self._intake.receive_answer(key, data, self._experiment.rounds)
        held = self._inbox.look()
        furthest = int(held.version.max(initial=0))
        if furthest > self._done or (begins_with == "neighbours" and furthest):
            self._learner, self._done = self._peer.take_over(self._learner, self._done)
            _log.info("%s begins with a neighbour's parameters of update %d", self._membership.name, furthest)

    def _answers(self) -> dict[str, bytes]:
        """What neighbours have. Connections may not stand yet, so that silence is believed after a while only."""
        until = time.monotonic() + _JOIN_SECONDS
        while True:
            answers = self._session.ask(self._space.newest(), _ASK_SECONDS)
            if answers or self._stop or time.monotonic() >= until:
                return answers
            time.sleep(_LOOK_AGAIN)

    def _report(self, update: Update, learner: Learner) -> None:
        """After each round: count it, and write what is due."""
        self._tally.add(update._replace(agent=0))
        self._learner, self._done = learner, update.version
        # In rounds of which all agents write lines, however each came to its round; the last one is such a round.
        if update.version % self._experiment.record_every == 0:
            self._write(learner, update.version)
        if update.version % self._experiment.checkpoint_every == 0 and not self._replaced:
            self._save(learner, update.version)

    def _write(self, learner: Learner, done: int) -> None:
        rounds, now = self._tally.count, time.monotonic()
        message = self._finite_message(learner, done)
        # On the host: neighbours come and go, and for each number of them it would be compiled.
        distance = math.sqrt(squared_distance_to_mean([message, *self._inbox.newest().values()]))
        report = self._tally.report(rounds, distance, np.array([True]))
        seconds, self._counted = now - self._counted, now
        self._log.append(record_rows(self._one, [Timed(report, seconds)], 0, done - rounds, self._log.totals))
        self._reporter.show(_progress(self._experiment, report, done, distance, seconds))

    def _save(self, learner: Learner, done: int) -> None:
        self._finite_message(learner, done)
        self._log.save(done, tuple(State(learner, self._worker.state(), self._tally.state())))
        self._saved = done

    def _finite_message(self, learner: Learner, done: int) -> Message:
        """What peers may see, on the host.

        Raises:
            NonFiniteParameters: learning diverged.
        """
        message = jax.device_get(self._parts.algorithm.message(learner))
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(message)):
            raise NonFiniteParameters(
                f"{self._membership.name} has parameters that are not finite in round {done}; it stopped, and its "
                f"checkpoint of round {self._saved} in {self._folder} is kept (a lower learning rate may help)"
            )
        return message

    def _restore(self) -> tuple[Learner, int, Totals, int]:
        """Learner, updates, what was used, and the length of the metrics, at the newest checkpoint or the beginning."""
        like = _beginning(self._experiment, self._parts, self._number, self._worker)
        if not has_begun(self._folder):
            return like.learner, 0, Totals(), 0
        saved = checkpoints.restore_newest(self._folder / "checkpoints", tuple(like))
        require_recorded(self._folder / "metrics.jsonl", saved.metadata["metrics_offset"])
        state = State(*saved.state)
        self._worker.restore(state.environments)
        self._tally.restore(state.uncounted)
        totals = Totals(saved.metadata["env_steps"], saved.metadata["seconds"])
        return state.learner, saved.round, totals, saved.metadata["metrics_offset"]

    def status(self) -> dict[str, Any]:
        """How the agent is, as plain data: for whoever asks."""
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
                for sender in Neighbourhood.of(self._parts.links, self._number).senders
            },
            "knows": {fleet.names[number]: known for number, known in self._intake.incarnations().items()},
            "refused": self._refusals.counts(),
            "unsent": self._outbox.failed,
        }

    def _watch(self) -> None:
        """Until the end: tell whoever waits of a stop, and find out whether another process speaks for the agent."""
        following = time.monotonic() + _ASK_EVERY
        while not self._ended.wait(_LOOK_AGAIN):
            if self._stop:
                self._inbox.wake()
                self._intake.wake()
            elif time.monotonic() >= following:
                self._find_out_whether_replaced()
                following = time.monotonic() + _ASK_EVERY

    def _find_out_whether_replaced(self) -> None:
        """Neighbours refuse what an old process says, and know who has replaced it."""
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


def _patience(patience: AdaptiveTimeout, in_step: bool) -> AdaptiveTimeout:
    """In step a busy machine must not change results: there the first deadline, long enough to compile, is for all.

    Who dies is not waited for that long: it is told by the network.
    """
    return replace(patience, least=max(patience.least, patience.first)) if in_step else patience


class _Line(NamedTuple):
    """How an agent is connected, all of it checked."""

    expected: Expected
    config: dict[str, Any]


def _line_of(parts: Parts, membership: Membership) -> _Line:
    """What an agent accepts, and what Zenoh is told.

    Raises:
        InputError: certificates or endpoints that do not do.
    """
    fleet, learner = membership.fleet, jax.eval_shape(parts.algorithm.init, jax.random.key(0))
    schema = Schema.of(jax.eval_shape(parts.algorithm.message, learner))
    limit = message_bytes(schema, membership.compression)
    credentials = access = None
    if membership.keys is not None:
        credentials = Credentials.of(check(Path(membership.keys), membership.name))
        names = (membership.name, *fleet.neighbours(parts.links, membership.name))
        access = Access(fleet.run, membership.name, names, fleet.observers)
    config = zenoh_config(
        membership.listen,
        membership.connect,
        credentials,
        access,
        insecure=membership.insecure,
        largest_message=max(limit, _LEAST_LIMIT),
    )
    return _Line(Expected(bytes.fromhex(fleet.run), schema, membership.compression, limit), config)


def _tally(parts: Parts) -> Tally:
    environments = jax.tree.leaves(parts.tasks)[0].shape[1]
    return Tally([Place(0, slice(None))], 1, environments)


def _worker_of(parts: Parts, number: int) -> Worker:
    return Worker(parts, number, jax.tree.map(lambda leaf: leaf[number], parts.tasks))


def _beginning(experiment: Experiment, parts: Parts, number: int, worker: Worker) -> State:
    """An agent before its first round; its worker begins episodes."""
    population = initial_population(parts.algorithm, experiment, None, parts.tasks, only=number)
    learner, environments = jax.tree.map(
        lambda leaf: leaf[0, 0], (population.learner, population.environments)
    )
    worker.start(environments)
    return State(learner, worker.state(), _tally(parts).state())


def _create(folder: Path, experiment: Experiment, membership: Membership) -> None:
    create_run(
        folder,
        {
            "experiment": to_data(experiment),
            "agent": membership.data(),
            "resume": "learner-exact",
            "provenance": provenance(),
        },
    )


def _require_own(folder: Path, experiment: Experiment, membership: Membership) -> None:
    """Refuse a folder that is not of just this agent of just this run."""
    held, begun = load_membership(folder)
    if (begun.fleet.run, begun.name) != (membership.fleet.run, membership.name) or _without_length(
        held
    ) != _without_length(experiment):
        raise InputError(
            f"{folder} holds {begun.name} of another run; give another folder, or the same name and experiment"
        )


def _without_length(experiment: Experiment) -> Any:
    return {name: value for name, value in to_data(experiment).items() if name != "rounds"}


def _last_incarnation(folder: Path) -> int:
    path = folder / PROCESS
    return json.loads(path.read_text())["incarnation"] if path.exists() else 0


def _progress(experiment: Experiment, report: Any, done: int, distance: float, seconds: float) -> Status:
    finished = report.record.agents.finished
    episodes = finished.episodes.sum()
    return Status(
        round=done,
        rounds=experiment.rounds,
        env_steps_per_second=float(report.record.agents.env_steps.sum()) / max(seconds, 1e-9),
        mean_return=float(finished.returns.sum() / episodes) if episodes else None,
        consensus_distance=distance,
        seconds_left=(experiment.rounds - done) * seconds / max(report.rounds, 1),
    )


PROCESS = "process.json"
_ASK_SECONDS = 2.0
_JOIN_SECONDS = 5.0  # how long neighbours are looked for that have parameters to begin with
_ASK_EVERY = 5.0  # seconds between questions whether another process speaks for the agent
_LOOK_AGAIN = 0.2  # seconds between looks at whether a stop was asked for
_LEAST_LIMIT = 65536  # bytes: answers about an agent's status must pass too
