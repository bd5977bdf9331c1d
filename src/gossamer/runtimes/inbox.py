"""The receive buffer of one agent: one slot for each in-peer, where a newer message overwrites the older.

Who may be combined with whom, and what that weighs, is decided elsewhere; how a message came here too.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Int

from gossamer.errors import require_at_least
from gossamer.runtimes.clock import Changes, Clock
from gossamer.schedules.adaptive_timeout import AdaptiveTimeout
from gossamer.types import Message

Places: TypeAlias = Bool[np.ndarray, " edge"]


class Envelope(NamedTuple):
    """A message on its way: whose it is, how many updates its sender had made, and when it was sent (seconds)."""

    sender: int
    version: int
    sent_at: float
    message: Message


class Held(NamedTuple):
    """What an inbox holds of each in-peer."""

    received: Places  # there is a message
    unread: Places  # and it was not combined yet
    version: Int[np.ndarray, " edge"]  # its version; 0 where there is none
    present: Places  # the peer has not left, or what it sent before was not combined yet; nor is it given up
    left: Places  # the peer has left: nothing more will come


class Inbox:
    """Messages from some in-peers to one agent, safe for any number of threads.

    A message older than one that came before it is dropped. A peer that leaves is no longer waited for; one that
    did not keep a deadline neither, until it is heard of again.

    Args:
        senders: the in-peers; a message is addressed by its sender's place among them.
        clock: of arrivals and deadlines.
        keep: how many messages of a peer are kept; None for all that may still be read, which lockstep needs.

    Raises:
        InputError: ``keep`` below 1.

    Example:
        >>> from gossamer.runtimes.clock import MonotonicClock
        >>> inbox = Inbox([7], MonotonicClock())
        >>> inbox.put(Envelope(sender=7, version=2, sent_at=0.0, message="new"))
        True
        >>> inbox.put(Envelope(sender=7, version=1, sent_at=0.0, message="overtaken on its way"))
        False
        >>> inbox.take(lambda held: held.received)[1]
        ['new']
        >>> inbox.look().unread.tolist(), inbox.look().received.tolist()
        ([False], [True])
    """

    def __init__(self, senders: Sequence[int], clock: Clock, keep: int | None = 1):
        if keep is not None:
            require_at_least("keep", keep, 1)
        self._place = {sender: place for place, sender in enumerate(senders)}
        self._clock = clock
        self._changes: Changes = clock.changes()
        self._messages: list[deque[Envelope]] = [deque(maxlen=keep) for _ in senders]
        self._newest = np.zeros(len(senders), np.int64)  # version of the newest message that came
        self._read = np.full(len(senders), -1)  # version of the newest that was combined
        self._left = np.zeros(len(senders), bool)
        self._given_up = np.zeros(len(senders), bool)
        self._arrival = np.full(len(senders), clock.now())
        self._heard = np.zeros(len(senders), bool)
        self._gaps: list[deque[float]] = [deque(maxlen=_GAPS) for _ in senders]

    def put(self, envelope: Envelope) -> bool:
        """Keep a message; False if a newer one of the same sender is there already."""
        place = self._place[envelope.sender]
        with self._changes:
            if envelope.version <= self._newest[place]:
                return False
            self._newest[place] = envelope.version
            self._messages[place].append(envelope)
            self._left[place] = self._given_up[place] = False
            self._note_arrival(place)
            self._changes.announce()
            return True

    def leave(self, sender: int) -> None:
        """The peer has finished or failed: it is no longer waited for or averaged with."""
        with self._changes:
            self._left[self._place[sender]] = True
            self._changes.announce()

    def join(self, sender: int) -> None:
        """The peer is there: wait for it, and average with it, again."""
        with self._changes:
            place = self._place[sender]
            self._left[place] = self._given_up[place] = False
            self._arrival[place], self._heard[place] = self._clock.now(), False
            self._changes.announce()

    def forget(self, sender: int) -> None:
        """What a peer has sent counts no more: another process speaks for it now, and counts its updates anew."""
        with self._changes:
            place = self._place[sender]
            self._messages[place].clear()
            self._newest[place], self._read[place] = 0, -1
            self._changes.announce()

    def newest(self, upto: float = math.inf) -> dict[int, Message]:
        """The newest message of each peer, combined or not, leaving out versions after ``upto``."""
        with self._changes:
            seen = {sender: self._visible(place, upto) for sender, place in self._place.items()}
        return {sender: envelope.message for sender, envelope in seen.items() if envelope is not None}

    def give_up(self, places: Places) -> None:
        """Wait no more for these peers until they are heard of again."""
        with self._changes:
            self._given_up[places] = True

    def wake(self) -> None:
        """Wake all waiting threads to check their conditions again."""
        with self._changes:
            self._changes.announce()

    def go_on(self) -> None:
        """Everybody stood still until now: that says nothing of how often messages come."""
        with self._changes:
            self._arrival[:], self._heard[:] = self._clock.now(), False

    def look(self, upto: float = math.inf) -> Held:
        """What is held; messages of later versions than ``upto`` are left out."""
        with self._changes:
            return self._look(upto)

    def wait_for(self, ready: Callable[[Held], bool], until: float, upto: float = math.inf) -> Held:
        """Wait until ``ready(held)``, or until a time; what is held then."""
        with self._changes:
            self._changes.wait_for(lambda: ready(self._look(upto)), until)
            return self._look(upto)

    def take(self, choose: Callable[[Held], Places], upto: float = math.inf) -> tuple[Held, list[Message]]:
        """The messages of the peers where ``choose(held)`` is true, which count as combined from now on.

        Returns:
            What was held at that moment, and those messages, in order of place.
        """
        with self._changes:
            held = self._look(upto)
            return held, [self._read_at(place, upto) for place in np.flatnonzero(choose(held)).tolist()]

    def deadline(self, patience: AdaptiveTimeout, places: Places) -> float:
        """The time until which messages of some in-peers are waited for, if the wait begins now."""
        with self._changes:
            waits = [patience.deadline(self._gaps[place]) for place in np.flatnonzero(places).tolist()]
        return self._clock.now() + max(waits, default=0.0)

    def overdue(self, patience: AdaptiveTimeout) -> Places:
        """Which in-peers have sent nothing for longer than their deadline."""
        with self._changes:
            waits = np.array([patience.deadline(gaps) for gaps in self._gaps])
            return self._clock.now() - self._arrival > waits

    def _look(self, upto: float) -> Held:
        seen = [self._visible(place, upto) for place in range(len(self._messages))]
        received = np.array([envelope is not None for envelope in seen], bool)
        version = np.array([0 if envelope is None else envelope.version for envelope in seen], np.int64)
        unread = received & (version > self._read)
        # What a peer sent before it left still counts, once.
        present = ~self._given_up & (~self._left | unread)
        return Held(received, unread, version, present, self._left.copy())

    def _visible(self, place: int, upto: float) -> Envelope | None:
        """The newest message that may be seen, or nothing."""
        return next((each for each in reversed(self._messages[place]) if each.version <= upto), None)

    def _read_at(self, place: int, upto: float) -> Message:
        envelope = self._visible(place, upto)
        assert envelope is not None, "only what is held is chosen"
        self._read[place] = envelope.version
        while self._messages[place][0].version < envelope.version:
            self._messages[place].popleft()
        return envelope.message

    def _note_arrival(self, place: int) -> None:
        now = self._clock.now()
        if self._heard[place]:
            self._gaps[place].append(now - self._arrival[place])
        self._heard[place], self._arrival[place] = True, now


_GAPS = 32
