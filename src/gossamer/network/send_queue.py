"""How one agent's messages leave it: handed to a thread, so that learning never waits for the network.

Who hears them, and what becomes of them there, is not known here.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from gossamer.errors import InputError
from gossamer.network.compression import Compression, Compressor
from gossamer.network.schema import Schema
from gossamer.network.wire import Header, Kind, encode
from gossamer.runtimes.inbox import Envelope
from gossamer.schedules import Links, Schedule
from gossamer.schedules.draws import link_fails

_log = logging.getLogger(__name__)


@runtime_checkable
class Publisher(Protocol):
    """Where bytes go out."""

    def put(self, data: bytes) -> None:
        """Hand them over; it may wait, or lose them."""
        ...


@dataclass(frozen=True)
class SenderIdentity:
    """Whose messages these are, and how they are written."""

    agent: int
    run: bytes
    """Whose population, 16 bytes."""
    incarnation: int
    """Number of this process among those that have spoken for the agent."""
    schema: Schema
    compression: Compression


class SendQueue:
    """Writes and publishes messages one after the other, in a thread of its own.

    Args:
        voice: whose they are.
        publishers: one for each phase of the graph.
        in_step: whether every message goes out, and a farewell at the end; else a newer one takes the place of one that
            waits, and of a farewell there is none, which would take the place of the last message.
    """

    def __init__(self, voice: SenderIdentity, publishers: Sequence[Publisher], in_step: bool):
        self._voice, self._publishers, self._in_step = voice, publishers, in_step
        self._compressor = Compressor(voice.compression, voice.schema)
        self._changed = threading.Condition()
        self._waiting: deque[Envelope] = deque(maxlen=None if in_step else 1)
        self._busy, self._closed = False, False
        self._version, self._newest = 0, None
        self._failed = 0
        self.busy_seconds = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True, name="outbox")
        self._thread.start()

    def put(self, envelope: Envelope) -> bool:
        """Leave a message to be sent; False if it took the place of one that had not gone out."""
        with self._changed:
            if self._closed:
                return False
            room = self._waiting.maxlen is None or not self._waiting
            self._waiting.append(envelope)
            self._changed.notify_all()
            return room

    @property
    def waiting(self) -> int:
        """Messages that have not been taken up yet."""
        with self._changed:
            return len(self._waiting)

    @property
    def failed(self) -> int:
        """Messages so far that could not be written or handed over, and that nobody hears."""
        with self._changed:
            return self._failed

    def newest(self) -> bytes | None:
        """The message that was sent last, as it was sent."""
        with self._changed:
            return self._newest

    def close(self, seconds: float) -> None:
        """Send what waits, then say farewell if in step.

        Args:
            seconds: how long that may take.
        """
        with self._changed:
            if self._closed:
                return
            sent = self._changed.wait_for(lambda: not self._waiting and not self._busy, seconds)
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        if not sent:
            _log.warning("the last messages of agent %d did not go out in %g s", self._voice.agent, seconds)
            return
        self._thread.join()
        if self._in_step:
            self._say_farewell()

    def silence(self) -> None:
        """Send nothing more, no farewell either: another process speaks for the agent."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _say_farewell(self) -> None:
        header = self._header(Kind.farewell, self._version)
        farewell = encode(header, self._voice.schema, self._voice.compression)
        for publisher in self._publishers:
            publisher.put(farewell)

    def _run(self) -> None:
        while (envelope := self._next()) is not None:
            try:
                self._publish(envelope)
            except Exception as error:  # a message that cannot be sent must not end those after it
                self._count_failure(envelope, error)

    def _count_failure(self, envelope: Envelope, error: Exception) -> None:
        """One more; the first, second, fourth, eighth, ... is said."""
        with self._changed:
            self._failed += 1
            times = self._failed
        if times & (times - 1) == 0:
            _log.warning(
                "update %d of agent %d was not sent (%d so far were not): %s",
                envelope.version,
                self._voice.agent,
                times,
                error,
                exc_info=not isinstance(error, InputError),  # whose sentence says all
            )

    def _next(self) -> Envelope | None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            self._busy = True
            return self._waiting.popleft()

    def _publish(self, envelope: Envelope) -> None:
        began = time.thread_time()
        voice = self._voice
        parts = self._compressor.compress(voice.schema.leaves(envelope.message))
        header = self._header(Kind.parameters, envelope.version)
        data = encode(header, voice.schema, voice.compression, parts)
        self._publishers[(envelope.version - 1) % len(self._publishers)].put(data)
        with self._changed:
            self._version, self._newest = envelope.version, data
        self.busy_seconds += time.thread_time() - began

    def _header(self, kind: Kind, version: int) -> Header:
        voice = self._voice
        return Header(kind, voice.run, voice.agent, voice.incarnation, version, time.time())


class NetworkTransport:
    """Sends an agent's messages to those of its out-peers that are there.

    Args:
        outbox: of the agent.
        links: who hears whom.
        agent: whose messages they are.
        schedule: how often links fail.
        seed: of which messages they lose.
        present: the neighbours that are there.
        join: shows that the agent is there, and waits for others where it must; called before the first message.
        leave: withdraws that.
    """

    def __init__(
        self,
        outbox: SendQueue,
        links: Links,
        agent: int,
        schedule: Schedule,
        seed: int,
        present: Callable[[], frozenset[int]],
        join: Callable[[], None],
        leave: Callable[[], None],
    ):
        self._outbox, self._agent = outbox, agent
        edges = np.flatnonzero(links.sender == agent)
        # Of each phase, once for all: a round must not pay for it.
        self._receivers = [
            sorted(set(links.receiver[edges[weight > 0]].tolist())) for weight in links.weight[:, edges]
        ]
        self._schedule, self._seed, self._present = schedule, seed, present
        self._join, self._leave = join, leave
        self._joined = False
        self._failures = 0  # of the outbox that have been reported

    def send(self, envelope: Envelope) -> tuple[int, int]:
        """Leave a message to be sent: how many hear it, and how many of them it is lost to.

        An earlier one that could not be sent is known of only now, and counts as this one's loss.
        """
        if not self._joined:
            self._joined = True
            self._join()
        present = self._present()
        hearing = self._receivers[(envelope.version - 1) % len(self._receivers)]
        receivers = [each for each in hearing if each in present]
        fails = link_fails(
            self._schedule, self._seed, self._agent, np.array(receivers, np.int64), envelope.version
        )
        lost = int(np.sum(fails))
        # Last: from here on the outbox's thread wants the interpreter's lock, and has it as soon as this one lets go.
        kept = self._outbox.put(envelope)
        failed = self._outbox.failed > self._failures
        self._failures += failed
        # A message that is overtaken before it goes out is lost to everybody.
        return len(receivers), lost if kept and not failed else len(receivers)

    def leave(self, agent: int) -> None:
        """Send what waits, in step a farewell too, and be there no more."""
        del agent  # there is only one
        self._outbox.close(_LEAVING_SECONDS)
        self._leave()


_LEAVING_SECONDS = 5.0
