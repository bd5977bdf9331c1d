"""The outgoing half of an agent's transport: a thread encodes and publishes, so that learning never waits.

Which agents subscribe, and what they do with a message, is not known here.
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
    """Publishes under one topic."""

    def put(self, data: bytes) -> None:
        """Hand a message to the network; it may block or drop it."""
        ...


@dataclass(frozen=True)
class SenderIdentity:
    """What the headers of an agent's messages have in common, and how the messages are encoded."""

    agent: int
    run: bytes
    """Identifier of the run, 16 bytes."""
    incarnation: int
    """Number of this process among those of the agent."""
    schema: Schema
    compression: Compression


class SendQueue:
    """Encodes and publishes messages one after another, in a thread of its own.

    Args:
        identity: the sender.
        publishers: one for each phase of the graph.
        lockstep: whether every message is sent, and a farewell at the end. Otherwise a newer message replaces one that
            waits, and no farewell is sent, since it would replace the last message.
    """

    def __init__(self, identity: SenderIdentity, publishers: Sequence[Publisher], lockstep: bool):
        self._identity, self._publishers, self._lockstep = identity, publishers, lockstep
        self._compressor = Compressor(identity.compression, identity.schema)
        self._changed = threading.Condition()
        self._waiting: deque[Envelope] = deque(maxlen=None if lockstep else 1)
        self._busy, self._closed = False, False
        self._version, self._newest = 0, None
        self._failed = 0
        self.busy_seconds = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True, name="send queue")
        self._thread.start()

    def put(self, envelope: Envelope) -> bool:
        """Enqueue a message; False if it replaced one that had not been sent, or the queue is closed."""
        with self._changed:
            if self._closed:
                return False
            room = self._waiting.maxlen is None or not self._waiting
            self._waiting.append(envelope)
            self._changed.notify_all()
            return room

    @property
    def waiting(self) -> int:
        """Number of messages that the thread has not taken yet."""
        with self._changed:
            return len(self._waiting)

    @property
    def failed(self) -> int:
        """Number of messages so far that could not be encoded or published."""
        with self._changed:
            return self._failed

    def newest(self) -> bytes | None:
        """The last message that was sent, encoded."""
        with self._changed:
            return self._newest

    def close(self, seconds: float) -> None:
        """Send what waits, then in lockstep a farewell.

        Args:
            seconds: timeout for what waits.
        """
        with self._changed:
            if self._closed:
                return
            sent = self._changed.wait_for(lambda: not self._waiting and not self._busy, seconds)
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        if not sent:
            _log.warning(
                "agent %d could not send its last messages within %g s", self._identity.agent, seconds
            )
            return
        self._thread.join()
        if self._lockstep:
            header = self._header(Kind.farewell, self._version)
            farewell = encode(header, self._identity.schema, self._identity.compression)
            for publisher in self._publishers:
                publisher.put(farewell)

    def silence(self) -> None:
        """Drop what waits and send nothing more, not even a farewell: another process has the agent's name."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        while (envelope := self._next()) is not None:
            try:
                self._publish(envelope)
            except Exception as error:  # a message that cannot be sent must not stop the later ones
                self._count_failure(envelope, error)

    def _count_failure(self, envelope: Envelope, error: Exception) -> None:
        """Count a failure; log the first, second, fourth, eighth, ..."""
        with self._changed:
            self._failed += 1
            times = self._failed
        if times & (times - 1) == 0:
            _log.warning(
                "update %d of agent %d was not sent (%d so far were not): %s",
                envelope.version,
                self._identity.agent,
                times,
                error,
                exc_info=not isinstance(error, InputError),  # whose message suffices
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
        identity = self._identity
        parts = self._compressor.compress(identity.schema.leaves(envelope.message))
        header = self._header(Kind.parameters, envelope.version)
        data = encode(header, identity.schema, identity.compression, parts)
        self._publishers[(envelope.version - 1) % len(self._publishers)].put(data)
        with self._changed:
            self._version, self._newest = envelope.version, data
        self.busy_seconds += time.thread_time() - began

    def _header(self, kind: Kind, version: int) -> Header:
        identity = self._identity
        return Header(kind, identity.run, identity.agent, identity.incarnation, version, time.time())


class NetworkTransport:
    """Sends an agent's messages to those of its out-peers that are present.

    Args:
        send_queue: that of the agent.
        links: the graph.
        agent: number of the sending agent.
        schedule: how often links fail.
        seed: determines which messages the links lose.
        present: returns the neighbours that are present.
        join: announces the agent, in lockstep waiting for its neighbours; called before the first message.
        leave: withdraws the announcement.
    """

    def __init__(
        self,
        send_queue: SendQueue,
        links: Links,
        agent: int,
        schedule: Schedule,
        seed: int,
        present: Callable[[], frozenset[int]],
        join: Callable[[], None],
        leave: Callable[[], None],
    ):
        self._send_queue, self._agent = send_queue, agent
        edges = np.flatnonzero(links.sender == agent)
        # Computed once for each phase, not in every round.
        self._receivers = [
            sorted(set(links.receiver[edges[weight > 0]].tolist())) for weight in links.weight[:, edges]
        ]
        self._schedule, self._seed, self._present = schedule, seed, present
        self._join, self._leave = join, leave
        self._joined = False
        self._failures = 0  # of the send queue, as far as reported

    def send(self, envelope: Envelope) -> tuple[int, int]:
        """Enqueue a message; return its number of receivers, and how many of them lose it.

        An earlier message that could not be sent is known only now, and is counted as a loss of this one.
        """
        if not self._joined:
            self._joined = True
            self._join()
        present = self._present()
        out_peers = self._receivers[(envelope.version - 1) % len(self._receivers)]
        receivers = [each for each in out_peers if each in present]
        fails = link_fails(
            self._schedule, self._seed, self._agent, np.array(receivers, np.int64), envelope.version
        )
        lost = int(np.sum(fails))
        # Last, because the queue's thread competes for the interpreter's lock from here on.
        kept = self._send_queue.put(envelope)
        failed = self._send_queue.failed > self._failures
        self._failures += failed
        # If this message replaced an unsent one, that one's loss is counted here.
        return len(receivers), lost if kept and not failed else len(receivers)

    def leave(self, agent: int) -> None:
        """Send what waits, in lockstep a farewell too, and withdraw the announcement."""
        del agent  # the protocol is for many agents; here there is one
        self._send_queue.close(_LEAVING_SECONDS)
        self._leave()


_LEAVING_SECONDS = 5.0
