"""How much agents of a ring really send: what their sockets have sent, and what the loopback interface has carried."""

import os
import socket
import stat
import struct
import threading
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.network.station import Place, Station, parameters
from benchmarks.network.together import Start
from gossamer.runtimes.clock import MonotonicClock
from gossamer.runtimes.inbox import Envelope, Inbox
from gossamer.runtimes.peer import Neighbourhood, Peer
from gossamer.schedules.adaptive_timeout import AdaptiveTimeout
from gossamer.types import Message

COME_SECONDS = 120.0
SETTLE_SECONDS = 0.3  # in which what is on its way arrives
HEADERS = 52  # bytes of a segment: IPv4 20, TCP 20, its timestamps 12


@dataclass(frozen=True)
class Share:
    """The agents of one process, which move in step with all others."""

    places: tuple[Place, ...]
    rounds: int
    """That are measured."""
    warm_up: int
    """Rounds before those."""
    quiet_seconds: float
    """For which others are watched, before and afterwards."""


class Sent(NamedTuple):
    """What the sockets of a process have sent."""

    bytes: int  # once, without headers of TCP and IP
    again: int  # bytes that the kernel has sent once more, as no answer came in time
    segments: int

    def plus(self, other: "Sent") -> "Sent":
        return Sent(self.bytes + other.bytes, self.again + other.again, self.segments + other.segments)

    def less(self, other: "Sent") -> "Sent":
        return Sent(self.bytes - other.bytes, self.again - other.again, self.segments - other.segments)


class Counted(NamedTuple):
    """What one process tells of the rounds that are measured."""

    sent: Sent | None  # only Linux tells
    messages: int  # that came
    loopback: int | None  # bytes of all processes of the machine, headers included
    background: float | None  # of that, bytes a second while our agents said nothing
    seconds: float
    refused: list[dict[str, Any]]


def live(share: Share, start: Start) -> Counted:
    """Be all agents of a share."""
    agents = len(share.places)
    with ExitStack() as stack:
        inboxes = [_CountingInbox(place) for place in share.places]
        stations = [
            stack.enter_context(closing(Station(place, inbox)))
            for place, inbox in zip(share.places, inboxes, strict=True)
        ]
        for station in stations:
            station.wait_for_all(COME_SECONDS)
        start()
        stops = _Stops(agents, share.warm_up, share.warm_up + share.rounds)
        threads = [
            threading.Thread(target=_be_agent, args=each, daemon=True)
            for each in zip(share.places, stations, inboxes, [stops] * agents, strict=True)
        ]
        for thread in threads:
            thread.start()
        stops.arrive()
        quiet = _Quiet(start, share.quiet_seconds)
        before, sent, loopback, began = quiet.look(), sent_by_sockets(), loopback_bytes(), time.monotonic()
        came = sum(inbox.count for inbox in inboxes)
        start()
        stops.go_on()
        stops.arrive()
        start()
        time.sleep(SETTLE_SECONDS)
        seconds, came = time.monotonic() - began, sum(inbox.count for inbox in inboxes) - came
        sent_then, loopback_then = sent_by_sockets(), loopback_bytes()
        after = quiet.look()
        stops.go_on()
        for thread in threads:
            thread.join(COME_SECONDS)
        start()  # nobody leaves while others wait for it
    return Counted(
        sent=sent_then.less(sent) if sent and sent_then else None,
        messages=came,
        loopback=None if loopback is None or loopback_then is None else loopback_then - loopback,
        background=None if before is None or after is None else (before + after) / 2,
        seconds=seconds,
        refused=[counts for each in stations if (counts := each.refusals.counts())],
    )


def sent_by_sockets() -> Sent | None:
    """What all open TCP sockets of this process have sent since each was opened."""
    if not hasattr(socket, "TCP_INFO") or not _DESCRIPTORS.exists():
        return None
    total = Sent(0, 0, 0)
    for name in os.listdir(_DESCRIPTORS):
        # Others may close theirs meanwhile.
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                total = total.plus(_sent_by(int(name)))
    return total


def _sent_by(descriptor: int) -> Sent:
    with socket.socket(fileno=os.dup(descriptor)) as each:
        if each.family not in (socket.AF_INET, socket.AF_INET6) or each.type != socket.SOCK_STREAM:
            return Sent(0, 0, 0)
        info = each.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if len(info) < _AGAIN + 8:
        raise OSError("this kernel does not count what sockets send")
    sent, again = struct.unpack_from("=QQ", info, _BYTES_SENT)
    (segments,) = struct.unpack_from("=I", info, _SEGMENTS)
    return Sent(sent - again, again, segments)


def loopback_bytes() -> int | None:
    """What the loopback interface has carried since the system began, where Linux tells."""
    with suppress(OSError):
        for line in Path("/proc/net/dev").read_text().splitlines():
            name, _, counts = line.partition(":")
            if name.strip() == "lo":
                return int(counts.split()[_SENT_BYTES])
    return None


class _Quiet:
    """Watches the loopback interface while no agent says anything."""

    def __init__(self, start: Start, seconds: float):
        self._start, self._seconds = start, seconds

    def look(self) -> float | None:
        """Bytes a second, of others."""
        self._start()
        time.sleep(SETTLE_SECONDS)
        before, began = loopback_bytes(), time.monotonic()
        time.sleep(self._seconds)
        after, elapsed = loopback_bytes(), time.monotonic() - began
        self._start()
        return None if before is None or after is None else (after - before) / elapsed


class _CountingInbox(Inbox):
    """As agents have it that move in step; counts what is put."""

    def __init__(self, place: Place):
        super().__init__(Neighbourhood.of(place.links, place.number).senders, MonotonicClock(), keep=None)
        self.count = 0

    def put(self, envelope: Envelope) -> bool:
        kept = super().put(envelope)
        self.count += kept  # a thread for each neighbour; all hold the lock of the interpreter here
        return kept


class _Still:
    """A part that learns nothing."""

    def adapt(self, learner: Any, done: int) -> tuple[Any, None]:
        return learner, None

    def message(self, learner: Any) -> Message:
        return learner

    def combine(self, learner: Any, messages: Any, weights: Any) -> Any:
        return learner


class _Stops:
    """A gate at which all agents of a process stand still after some rounds, and end after others."""

    def __init__(self, agents: int, pause: int, end: int):
        self._pause, self._end = pause, end
        self._barrier = threading.Barrier(agents + 1, timeout=COME_SECONDS)

    def enter(self, done: int) -> bool:
        if done in (self._pause, self._end):
            self._barrier.wait()
            self._barrier.wait()
        return done < self._end

    def hurries(self) -> bool:
        return False

    def arrive(self) -> None:
        """Wait until all stand still."""
        self._barrier.wait()

    def go_on(self) -> None:
        """Let all go on."""
        self._barrier.wait()

    def fail(self) -> None:
        """An agent has failed: nobody waits for it."""
        self._barrier.abort()


def _be_agent(place: Place, station: Station, inbox: Inbox, stops: _Stops) -> None:
    neighbourhood = Neighbourhood.of(place.links, place.number)
    clock, schedule = MonotonicClock(), place.schedule
    peer = Peer(
        neighbourhood,
        _Still(),
        inbox,
        station.transport,
        clock,
        schedule,
        AdaptiveTimeout(),
        lockstep=schedule.in_step,
    )
    try:
        for _ in peer.rounds(parameters(place.size), 0, _FOREVER, stops):
            pass
    except BaseException:
        stops.fail()
        raise


_FOREVER = 10**9
_DESCRIPTORS = Path("/proc/self/fd")
_SENT_BYTES = 8  # a column of /proc/net/dev
# Of Linux's struct tcp_info.
_INFO_BYTES, _SEGMENTS, _BYTES_SENT, _AGAIN = 256, 136, 200, 208
