"""The incoming half of an agent's transport: checks messages, fills the inbox, and tracks which neighbours are present.

Zenoh calls from threads of its own, so everything here is thread-safe.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gossamer.network.refusals import Refusals
from gossamer.network.topics import Topics
from gossamer.network.wire import Expected, Header, Kind, Reason, Refused, decode
from gossamer.runtimes.inbox import Envelope, Inbox
from gossamer.schedules import Schedule
from gossamer.schedules.draws import link_fails

_log = logging.getLogger(__name__)


class Heard(NamedTuple):
    """The newest message of an in-peer: its version, and when it arrived (seconds since 1970)."""

    version: int
    at: float


class Receiver:
    """Accepts or refuses each message, and tracks the presence of each neighbour.

    A name belongs to the process with the highest incarnation seen so far; messages of older processes are refused. A
    version that is not newer than the last is refused too, as a replay.

    Args:
        agent: number of the receiving agent.
        inbox: that agent's.
        expected: what a message must be.
        topics: those of the run.
        numbers: the neighbours by name: in-peers and out-peers.
        heard: numbers of the in-peers.
        schedule: how often links fail.
        seed: determines which messages the links lose.
        refusals: counts refused messages.
    """

    def __init__(
        self,
        agent: int,
        inbox: Inbox,
        expected: Expected,
        topics: Topics,
        numbers: Mapping[str, int],
        heard: frozenset[int],
        schedule: Schedule,
        seed: int,
        refusals: Refusals,
    ):
        self._agent, self._inbox, self._expected, self._topics = agent, inbox, expected, topics
        self._numbers, self._in_peers = dict(numbers), heard
        self._schedule, self._seed, self._refusals = schedule, seed, refusals
        self._changed = threading.Condition()
        self._incarnation = dict.fromkeys(self._numbers.values(), -1)  # the highest seen
        self._version: dict[int, int] = {}  # the newest received
        self._asked: dict[int, int] = {}  # versions received as answers, which may be published as well
        self._present: set[int] = set()
        self._last: dict[int, Heard] = {}
        for number in heard:
            inbox.leave(number)  # absent until a token or a message says otherwise

    def receive(self, key: str, data: bytes) -> None:
        """Accept a published message into the inbox, or refuse it."""
        self._take(key, data, asked=False)

    def receive_answer(self, key: str, data: bytes, last: int) -> None:
        """Accept a neighbour's newest message, which was asked for and may have been received before.

        Args:
            key: topic of the answer.
            data: the message.
            last: the final round. A later version is refused: an agent that took it over would have nothing to do.
        """
        self._take(key, data, asked=True, last=last)

    def appeared(self, key: str) -> None:
        """Handle the token of a neighbour's process."""
        name, incarnation = self._topics.said_by(key)
        number = self._numbers.get(name)
        if number is None:
            return
        with self._changed:
            if not self._is_current(number, incarnation):
                return
            self._present.add(number)
            if number in self._in_peers:
                self._inbox.join(number)
            self._changed.notify_all()

    def gone(self, key: str) -> None:
        """Handle the end of a neighbour's token: its process has ended, or cannot be reached."""
        name, incarnation = self._topics.said_by(key)
        number = self._numbers.get(name)
        if number is not None:
            self._remove(number, incarnation)

    def present(self) -> frozenset[int]:
        """Neighbours whose tokens are visible."""
        with self._changed:
            return frozenset(self._present)

    def wait_for_all(self, until: float, given_up: Callable[[], bool]) -> frozenset[int]:
        """Wait until every neighbour is present; return those that are still missing.

        Args:
            until: deadline on the monotonic clock.
            given_up: whether to stop waiting; evaluated at every change and at ``wake``.
        """
        every = set(self._numbers.values())
        with self._changed:
            self._changed.wait_for(
                lambda: self._present >= every or given_up(), max(until - time.monotonic(), 0.0)
            )
            return frozenset(every - self._present)

    def wake(self) -> None:
        """Make ``wait_for_all`` evaluate ``given_up`` again."""
        with self._changed:
            self._changed.notify_all()

    def last(self) -> dict[int, Heard]:
        """The newest message of each in-peer from which one was received."""
        with self._changed:
            return dict(self._last)

    def incarnations(self) -> dict[int, int]:
        """Incarnation of each neighbour from which a token or message was received."""
        with self._changed:
            return {number: known for number, known in self._incarnation.items() if known >= 0}

    def _take(self, key: str, data: bytes, asked: bool, last: float = math.inf) -> None:
        name = key.split("/")[3]
        try:
            header, leaves = decode(data, self._expected)
            number = self._numbers.get(name, -1)
            if header.sender != number:
                raise Refused(
                    Reason.sender,
                    f"the sender is number {header.sender}; it came from {name}, number {number}",
                )
            if header.version > last:
                raise Refused(
                    Reason.not_ours,
                    f"the parameters' version is {header.version}; the last round is {last}",
                )
            if number not in self._in_peers:
                return  # on a directed graph, out-peers answer too; their parameters are not used
            self._keep(header, leaves, asked)
        except Refused as refused:
            self._refusals.refuse(refused.reason, name, refused.detail)

    def _keep(self, header: Header, leaves: Sequence[np.ndarray], asked: bool) -> None:
        """Act on a valid message, unless it was received before.

        Raises:
            Refused: If it is stale.
        """
        number = header.sender
        # Under one lock: if a newer process appears meanwhile, this message must not be attributed to it.
        with self._changed:
            if not self._is_news(header, asked):
                return
            if header.kind is Kind.farewell:
                self._remove(number, header.incarnation)
                return
            receiver = np.array([self._agent], np.int64)
            if bool(link_fails(self._schedule, self._seed, number, receiver, header.version)[0]):
                return  # the sender draws the same failure and counts it
            message = self._expected.schema.tree(leaves)
            self._inbox.put(Envelope(number, header.version, header.sent_at, message))
            if number not in self._present:
                self._inbox.leave(number)  # it arrived after its sender's end: only tokens decide presence

    def _is_news(self, header: Header, asked: bool) -> bool:
        """Whether a valid message was not received before; records its version.

        Raises:
            Refused: If its process was replaced, or it is a replay.
        """
        number = header.sender
        with self._changed:
            if not self._is_current(number, header.incarnation):
                raise Refused(
                    Reason.stale,
                    f"the incarnation is {header.incarnation}; {self._incarnation[number]} has replaced it",
                )
            newest = self._version.get(number, 0)
            if header.kind is Kind.farewell:
                return True
            if header.version <= newest:
                if asked or self._asked.get(number) == header.version:
                    return False
                raise Refused(
                    Reason.stale,
                    f"the parameters' version is {header.version}; {newest} was received before",
                )
            self._version[number] = header.version
            self._last[number] = Heard(header.version, time.time())
            if asked:
                self._asked[number] = header.version
            return True

    def _is_current(self, number: int, incarnation: int) -> bool:
        """Whether no newer process of this agent is known. Forgets what an older one sent. Requires the lock."""
        if incarnation < self._incarnation[number]:
            return False
        if incarnation > self._incarnation[number]:
            if self._version.pop(number, None) is not None and number in self._in_peers:
                self._inbox.forget(number)
            self._asked.pop(number, None)
            self._incarnation[number] = incarnation
        return True

    def _remove(self, number: int, incarnation: int) -> None:
        with self._changed:
            if incarnation != self._incarnation[number]:
                return
            self._present.discard(number)
            if number in self._in_peers:
                self._inbox.leave(number)
            self._changed.notify_all()
