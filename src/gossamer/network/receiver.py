"""What comes for one agent from the network: checked, refused or put into its inbox; and who is there.

Zenoh calls in from threads of its own, so that all of it is safe for any number of them.
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
    """The last that was heard of an in-peer: updates it had made, and when it came (seconds since 1970)."""

    version: int
    at: float


class Receiver:
    """Decides of every message whether it is what it must be, and of every neighbour whether it is there.

    A name is spoken for by the process with the highest incarnation that was heard of; what an older one says is
    refused. A version that is not newer than the last is refused as well: it was heard before.

    Args:
        agent: who hears.
        inbox: of that agent.
        expected: what its messages must be.
        space: the keys of the run.
        numbers: of the neighbours, by name: of those that are heard, and of those that only hear.
        heard: which of them are heard.
        schedule: how often links fail.
        seed: of which messages they lose.
        refusals: counts what is refused.
    """

    def __init__(
        self,
        agent: int,
        inbox: Inbox,
        expected: Expected,
        space: Topics,
        numbers: Mapping[str, int],
        heard: frozenset[int],
        schedule: Schedule,
        seed: int,
        refusals: Refusals,
    ):
        self._agent, self._inbox, self._expected, self._space = agent, inbox, expected, space
        self._numbers, self._hears = dict(numbers), heard
        self._schedule, self._seed, self._refusals = schedule, seed, refusals
        self._changed = threading.Condition()
        self._incarnation = dict.fromkeys(self._numbers.values(), -1)  # the highest heard of
        self._version: dict[int, int] = {}  # the newest received
        self._asked: dict[int, int] = {}  # versions that were asked for, and may come once more by themselves
        self._present: set[int] = set()
        self._last: dict[int, Heard] = {}
        for number in heard:
            inbox.leave(number)  # nobody is there until something says so

    def receive(self, key: str, data: bytes) -> None:
        """A message that came under a key; refused, or put into the inbox."""
        self._take(key, data, asked=False)

    def receive_answer(self, key: str, data: bytes, last: int) -> None:
        """A neighbour's newest message, which was asked for: it may be one that came before.

        Args:
            key: what it answers under.
            data: the message.
            last: the last version that is of any use: who takes over a later one would have nothing left to do.
        """
        self._take(key, data, asked=True, last=last)

    def appeared(self, key: str) -> None:
        """A neighbour's process has shown its token."""
        name, incarnation = self._space.said_by(key)
        number = self._numbers.get(name)
        if number is None:
            return
        with self._changed:
            if not self._speaks(number, incarnation):
                return
            self._present.add(number)
            if number in self._hears:
                self._inbox.join(number)
            self._changed.notify_all()

    def gone(self, key: str) -> None:
        """A neighbour's process has ended, or cannot be reached."""
        name, incarnation = self._space.said_by(key)
        number = self._numbers.get(name)
        if number is not None:
            self._part(number, incarnation)

    def present(self) -> frozenset[int]:
        """The neighbours that are there."""
        with self._changed:
            return frozenset(self._present)

    def wait_for_all(self, until: float, given_up: Callable[[], bool]) -> frozenset[int]:
        """Wait until every neighbour is there; who is missing then.

        Args:
            until: a time on the monotonic clock after which it does not wait.
            given_up: asked at every change, and at ``wake``, whether to wait no more.
        """
        every = set(self._numbers.values())
        with self._changed:
            self._changed.wait_for(
                lambda: self._present >= every or given_up(), max(until - time.monotonic(), 0.0)
            )
            return frozenset(every - self._present)

    def wake(self) -> None:
        """Let whoever waits look again at whether to."""
        with self._changed:
            self._changed.notify_all()

    def last(self) -> dict[int, Heard]:
        """What was heard last of each in-peer that anything was heard of."""
        with self._changed:
            return dict(self._last)

    def incarnations(self) -> dict[int, int]:
        """The process that speaks for each neighbour; those that nothing was heard of are missing."""
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
                    Reason.out_of_range, f"the version is {header.version}; the last round is {last}"
                )
            if number not in self._hears:
                return  # on a directed graph who only hears this agent answers too
            self._keep(header, leaves, asked)
        except Refused as refused:
            self._refusals.refuse(refused.reason, name, refused.detail)

    def _keep(self, header: Header, leaves: Sequence[np.ndarray], asked: bool) -> None:
        """Act on a sound message, unless it is no news.

        Raises:
            Refused: it is from a process that was replaced, or not newer than what was heard.
        """
        number = header.sender
        # All of it at once: meanwhile another process may appear, for which this message must not count.
        with self._changed:
            if not self._accept(header, asked):
                return
            if header.kind is Kind.farewell:
                self._part(number, header.incarnation)
                return
            receiver = np.array([self._agent], np.int64)
            if bool(link_fails(self._schedule, self._seed, number, receiver, header.version)[0]):
                return  # the sender knows which messages a failing link loses, and counts them
            message = self._expected.schema.tree(leaves)
            self._inbox.put(Envelope(number, header.version, header.sent_at, message))
            if number not in self._present:
                self._inbox.leave(number)  # it came after its sender's end; tokens alone say who is there

    def _accept(self, header: Header, asked: bool) -> bool:
        """Whether a sound message is news.

        Raises:
            Refused: it is from a process that was replaced, or not newer than what was heard.
        """
        number = header.sender
        with self._changed:
            if not self._speaks(number, header.incarnation):
                raise Refused(
                    Reason.incarnation,
                    f"the incarnation is {header.incarnation}; {self._incarnation[number]} has replaced it",
                )
            newest = self._version.get(number, 0)
            if header.kind is Kind.farewell:
                return True
            if header.version <= newest:
                if asked or self._asked.get(number) == header.version:
                    return False
                raise Refused(Reason.replayed, f"the version is {header.version}; {newest} was heard before")
            self._version[number] = header.version
            self._last[number] = Heard(header.version, time.time())
            if asked:
                self._asked[number] = header.version
            return True

    def _speaks(self, number: int, incarnation: int) -> bool:
        """Whether a process is the newest of its name; what older ones sent is forgotten. Holds the lock."""
        if incarnation < self._incarnation[number]:
            return False
        if incarnation > self._incarnation[number]:
            if self._version.pop(number, None) is not None and number in self._hears:
                self._inbox.forget(number)
            self._asked.pop(number, None)
            self._incarnation[number] = incarnation
        return True

    def _part(self, number: int, incarnation: int) -> None:
        with self._changed:
            if incarnation != self._incarnation[number]:
                return
            self._present.discard(number)
            if number in self._hears:
                self._inbox.leave(number)
            self._changed.notify_all()
