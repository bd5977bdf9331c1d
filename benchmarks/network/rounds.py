"""What gossip adds to the rounds of two agents: time that the loop is held up, and processor time of other threads."""

import math
import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.network.station import Place, Station, parameters
from benchmarks.network.together import Start
from gossamer.runtimes.clock import MonotonicClock
from gossamer.runtimes.inbox import Envelope, Held, Inbox
from gossamer.runtimes.peer import Neighbourhood, Peer, Transport, Update
from gossamer.schedules import Links
from gossamer.types import Message

WIDTH = 256  # of the matrices that keep an agent busy
COME_SECONDS = 60.0


@dataclass(frozen=True)
class Agent:
    """One agent of two, whose rounds are counted."""

    place: Place
    steps: int
    """Of arithmetic in a round."""
    rounds: int
    """That are measured."""
    warm_up: int
    """Rounds before those, at least 1, and as many afterwards: one of two ends before the other."""
    alone: bool
    """Without any network."""


class Row(NamedTuple):
    """One round: seconds of the loop's thread by the clock, and those that end in busy by the processor."""

    whole: float
    adapting: float
    adapting_busy: float
    sending: float
    taking: float
    network_busy: float  # while sending and taking
    combining: float
    age: int  # of the message that was combined, in updates; -1: none was there


class Threads(NamedTuple):
    """Processor seconds of this process since it began, by who uses them, and how long its loop waited for the core."""

    loop: float
    python: float  # threads of ours beside the loop
    zenoh: float  # all others
    loop_waited: float


class Lived(NamedTuple):
    """What an agent tells at its end; what is counted is of the rounds that are measured."""

    rows: list[Row]
    sent: int
    received: int
    threads: Threads | None
    refused: dict[str, Any]


def live(agent: Agent, start: Start) -> Lived:
    """Be one agent from its beginning to its end."""
    if agent.alone:
        number = agent.place.number
        links = Links.of((np.eye(len(agent.place.fleet.names)),))
        return _run(agent, Neighbourhood.of(links, number), Meters(), NoTransport(), start)
    meters = Meters()
    neighbourhood = Neighbourhood.of(agent.place.links, agent.place.number)
    station = Station(agent.place, inbox := MeteredInbox(neighbourhood.senders, meters))
    try:
        station.wait_for_all(COME_SECONDS)
        lived = _run(agent, neighbourhood, meters, station.transport, start, inbox)
    finally:
        station.close()
    return lived._replace(refused=station.refusals.counts())


def calibrate(seconds: float, start: Start) -> int:
    """How many steps of arithmetic keep a core busy for so long, while nobody talks."""
    work, each = Work(10), []
    start()
    for _ in range(CALIBRATIONS):
        began = time.thread_time()
        work.do()
        each.append((time.thread_time() - began) / 10)
    return max(1, round(seconds / statistics.median(each)))


class Work:
    """Arithmetic without end, some steps at a time; NumPy lets other threads run meanwhile, as jitted functions do."""

    def __init__(self, steps: int):
        self._steps = steps
        random = np.random.default_rng(0)
        self._matrix = random.standard_normal((WIDTH, WIDTH), np.float32) / np.float32(np.sqrt(WIDTH))
        self._state = random.standard_normal((WIDTH, WIDTH), np.float32)
        self._product = np.empty_like(self._state)

    def do(self) -> None:
        for _ in range(self._steps):
            np.matmul(self._state, self._matrix, out=self._product)
            np.tanh(self._product, out=self._state)


class Meter:
    """Adds up the time that one thread spends in some code, by the clock and by the processor."""

    def __init__(self) -> None:
        self._seconds = self._busy = 0.0

    def __enter__(self) -> None:
        self._began, self._began_busy = time.perf_counter(), time.thread_time()

    def __exit__(self, *_: object) -> None:
        self._busy += time.thread_time() - self._began_busy
        self._seconds += time.perf_counter() - self._began

    def read(self) -> tuple[float, float]:
        """Seconds by the clock and by the processor since it was last read."""
        read = self._seconds, self._busy
        self._seconds = self._busy = 0.0
        return read


class Meters:
    """Of all that an agent's loop does."""

    def __init__(self) -> None:
        self.adapting, self.sending, self.taking, self.combining = Meter(), Meter(), Meter(), Meter()


class BusyPart:
    """A part that works for a while, moves its parameters, and averages them."""

    def __init__(self, work: Work, meters: Meters):
        self._work, self._meters = work, meters

    def adapt(self, learner: Any, done: int) -> tuple[Any, None]:
        with self._meters.adapting:
            self._work.do()
            return {name: leaf * np.float32(0.999) for name, leaf in learner.items()}, None

    def message(self, learner: Any) -> Message:
        return learner

    def combine(self, learner: Any, messages: Sequence[Message], weights: np.ndarray) -> Any:
        with self._meters.combining:
            return {
                name: sum(
                    np.float32(weight) * message[name]
                    for weight, message in zip(weights, messages, strict=True)
                )
                for name in learner
            }


class MeteredInbox(Inbox):
    """Times the calls that only the loop makes, and counts what others put."""

    def __init__(self, senders: Sequence[int], meters: Meters):
        super().__init__(senders, MonotonicClock())
        self._meters = meters
        self.received = 0

    def put(self, envelope: Envelope) -> bool:
        kept = super().put(envelope)
        self.received += kept
        return kept

    def wait_for(self, ready: Callable[[Held], bool], until: float, upto: float = math.inf) -> Held:
        with self._meters.taking:
            return super().wait_for(ready, until, upto)

    def take(self, choose: Callable[[Held], Any], upto: float = math.inf) -> tuple[Held, list[Message]]:
        with self._meters.taking:
            return super().take(choose, upto)


class MeteredTransport:
    """Times another transport."""

    def __init__(self, transport: Transport, meters: Meters):
        self._transport, self._meters = transport, meters
        self.sent = 0

    def send(self, envelope: Envelope) -> tuple[int, int]:
        with self._meters.sending:
            sent, lost = self._transport.send(envelope)
        self.sent += sent
        return sent, lost

    def leave(self, agent: int) -> None:
        self._transport.leave(agent)


class NoTransport:
    """That of an agent without peers."""

    def send(self, envelope: Envelope) -> tuple[int, int]:
        return 0, 0

    def leave(self, agent: int) -> None:
        return None


class Open:
    """A gate that nobody closes."""

    def enter(self, done: int) -> bool:
        return True

    def hurries(self) -> bool:
        return False


def _run(
    agent: Agent,
    neighbourhood: Neighbourhood,
    meters: Meters,
    transport: Transport,
    start: Start,
    inbox: MeteredInbox | None = None,
) -> Lived:
    inbox = inbox or MeteredInbox((), meters)
    metered, part = MeteredTransport(transport, meters), BusyPart(Work(agent.steps), meters)
    diary = _Diary(agent, meters, metered, inbox)
    peer = Peer(
        neighbourhood,
        part,
        inbox,
        metered,
        MonotonicClock(),
        agent.place.schedule,
        None,
        agent.place.schedule.in_step,
    )
    start()
    rounds = agent.rounds + 2 * agent.warm_up
    for update, _ in peer.rounds(parameters(agent.place.size, neighbourhood.agent), 0, rounds, Open()):
        diary.note(update)
    return diary.lived()


class _Diary:
    """Notes every round once it is warm."""

    def __init__(self, agent: Agent, meters: Meters, transport: MeteredTransport, inbox: MeteredInbox):
        self._agent, self._meters, self._transport, self._inbox = agent, meters, transport, inbox
        self._rows: list[Row] = []

    def note(self, update: Update) -> None:
        now, meters = time.perf_counter(), self._meters
        (adapting, adapting_busy), (sending, sending_busy) = meters.adapting.read(), meters.sending.read()
        (taking, taking_busy), (combining, _) = meters.taking.read(), meters.combining.read()
        first, last = self._agent.warm_up, self._agent.warm_up + self._agent.rounds
        if first < update.version <= last:
            self._rows.append(
                Row(
                    now - self._last,
                    adapting,
                    adapting_busy,
                    sending,
                    taking,
                    sending_busy + taking_busy,
                    combining,
                    int(update.ages.max(initial=-1)),
                )
            )
        if update.version == first:
            self._first = self._counted()
        if update.version == last:
            self._end = self._counted()
        self._last = time.perf_counter()

    def lived(self) -> Lived:
        (sent, received, threads), (first_sent, first_received, first_threads) = self._end, self._first
        used = None
        if threads and first_threads:
            used = Threads(*(now - then for now, then in zip(threads, first_threads, strict=True)))
        return Lived(self._rows, sent - first_sent, received - first_received, used, {})

    def _counted(self) -> tuple[int, int, Threads | None]:
        return self._transport.sent, self._inbox.received, threads_used()


def threads_used() -> Threads | None:
    """Where Linux tells."""
    tasks, loop = Path("/proc/self/task"), threading.get_native_id()
    ours = {each.native_id for each in threading.enumerate()} - {loop}
    if not (tasks / str(loop) / "schedstat").exists():
        return None
    used, waited = {"loop": 0.0, "python": 0.0, "zenoh": 0.0}, 0.0
    for name in os.listdir(tasks):
        ran, waits, _ = (tasks / name / "schedstat").read_text().split()
        used["loop" if int(name) == loop else "python" if int(name) in ours else "zenoh"] += int(ran) / 1e9
        waited = int(waits) / 1e9 if int(name) == loop else waited
    return Threads(**used, loop_waited=waited)


CALIBRATIONS = 50
