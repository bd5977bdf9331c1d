"""One thread for each worker in one process that shares its device, and messages that are handed over by reference.

Arrays of JAX never change, so that sending copies nothing and needs no lock around parameters. What the workers do is
not said here: agents among peers (``peers``) or workers around one learner (``central``).
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gossamer.runtimes.inbox import Envelope, Inbox
from gossamer.runtimes.peer import Gate, MessageMonitor, Update
from gossamer.schedules import Links, Schedule
from gossamer.schedules.draws import link_fails

Work: TypeAlias = Callable[[Gate], Iterator[tuple[Update, Any]]]  # all rounds of a worker


class SharedMemoryTransport:
    """Puts messages into the inboxes of out-peers in the same process; links lose them as the schedule says.

    Args:
        links: who hears whom.
        inboxes: of all agents.
        schedule: how often links fail.
        seed: of which messages they lose.
        witness: is told what comes to an inbox; none by default.
    """

    def __init__(
        self,
        links: Links,
        inboxes: Sequence[Inbox],
        schedule: Schedule,
        seed: int,
        witness: MessageMonitor | None = None,
    ):
        self._witness = witness
        self._links, self._inboxes, self._schedule, self._seed = links, inboxes, schedule, seed
        self._edges = [np.flatnonzero(links.sender == agent) for agent in range(links.agents)]
        self._gone: set[int] = set()

    def send(self, envelope: Envelope) -> tuple[int, int]:
        """To all out-peers of the sender's present phase that are still there; how many, and how many lost it."""
        sender, version = envelope.sender, envelope.version
        edges = self._edges[sender]
        edges = edges[self._links.weight[(version - 1) % self._links.period, edges] > 0]
        receivers = [each for each in self._links.receiver[edges].tolist() if each not in self._gone]
        fails = np.asarray(
            link_fails(self._schedule, self._seed, sender, np.array(receivers, np.int64), version)
        )
        for receiver, lost in zip(receivers, fails.tolist(), strict=True):
            if not lost and self._inboxes[receiver].put(envelope) and self._witness:
                self._witness.received(receiver, sender, version)
        return len(receivers), int(fails.sum())

    def leave(self, agent: int) -> None:
        """Tell all out-peers of all phases."""
        self._gone.add(agent)
        for receiver in self._links.receiver[self._edges[agent]].tolist():
            self._inboxes[receiver].leave(agent)


class CompletedUpdate(NamedTuple):
    """An update, and its agent's learner after it."""

    update: Update
    learner: Any


class AgentThreads:
    """Threads that work until they are done, can be made to stand still, and whose failures come to light.

    Args:
        work: all rounds of each worker: it asks the gate before each, and yields an update and the learner after it.
        wake: called when workers that wait for something should look at the gate again.
        release: called when they should end.

    Example:
        >>> def count(gate):
        ...     done = 0
        ...     while done < 3 and gate.enter(done):
        ...         done += 1
        ...         yield Update(0, done, None, 0, 0, np.array([], int), 0, 0.0), None
        >>> with AgentThreads([count], wake=lambda: None, release=lambda: None) as crew:
        ...     crew.open(limit=3)
        ...     [happened.update.version for happened in crew.gather(3)]
        [1, 2, 3]
    """

    def __init__(self, work: Sequence[Work], wake: Callable[[], None], release: Callable[[], None]):
        self._happened: queue.SimpleQueue[CompletedUpdate | _Ended] = queue.SimpleQueue()
        self._gate = _Gate(lambda: self._happened.qsize() < _MOST_AHEAD * len(work))
        self._wake, self._release = wake, release
        self._working = len(work)
        self._threads = [
            threading.Thread(target=self._run, args=(each,), name=f"worker-{number}", daemon=True)
            for number, each in enumerate(work)
        ]
        self._started = False

    def __enter__(self) -> "AgentThreads":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, limit: int) -> None:
        """Let workers begin rounds until they have made ``limit`` of them."""
        self._gate.open(limit)
        if not self._started:
            self._started = True
            for thread in self._threads:
                thread.start()

    def gather(self, count: int) -> Iterator[CompletedUpdate]:
        """The next ``count`` updates of all workers together, as they come; fewer where all have ended.

        Keep none of them for long: each holds a learner.

        Raises:
            Exception: what a worker failed with; all others are stopped then.
        """
        while count > 0 and (self._working or not self._happened.empty()):
            gathered: list[CompletedUpdate] = []
            self._sort(self._happened.get(), gathered)
            yield from gathered
            count -= len(gathered)

    def stand_still(self) -> list[CompletedUpdate]:
        """Wait until every worker stands between two rounds or has ended; return the updates not gathered yet."""
        gathered: list[CompletedUpdate] = []
        if not self._started:
            return gathered
        self._gate.close()
        self._wake()
        while self._gate.standing() < self._working or not self._happened.empty():
            try:
                self._sort(self._happened.get(timeout=_LOOK_AGAIN), gathered)
            except queue.Empty:
                self._wake()
        return gathered

    def close(self) -> None:
        """End all workers and wait for them."""
        self._gate.stop()
        self._release()
        if self._started:
            for thread in self._threads:
                while thread.is_alive():
                    thread.join(_LOOK_AGAIN)
                    self._release()

    def _sort(self, item: "CompletedUpdate | _Ended", gathered: list[CompletedUpdate]) -> None:
        self._gate.look_again()
        if isinstance(item, CompletedUpdate):
            gathered.append(item)
            return
        self._working -= 1
        if item.error is not None:
            self.close()
            raise item.error

    def _run(self, work: Work) -> None:
        error = None
        try:
            for update, learner in work(self._gate):
                self._happened.put(CompletedUpdate(update, learner))
        except BaseException as caught:  # whatever it is, it must not die with its thread
            error = caught
        self._happened.put(_Ended(error))


class _Ended(NamedTuple):
    error: BaseException | None


class _Gate:
    """Open until a number of rounds, closed while all stand still, or shut for good.

    Args:
        room: whether one more update may come before those that wait to be gathered; each holds a learner.
    """

    def __init__(self, room: Callable[[], bool]) -> None:
        self._changed, self._room = threading.Condition(), room
        self._limit, self._last = 0, 0
        self._closed, self._stopped = True, False
        self._waiting = 0

    def enter(self, done: int) -> bool:
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(
                lambda: self._stopped or (not self._closed and done < self._limit and self._room())
            )
            self._waiting -= 1
            return not self._stopped

    def hurries(self) -> bool:
        return self._closed or self._stopped

    def open(self, limit: int) -> None:
        with self._changed:
            self._closed, self._limit = False, limit
            self._changed.notify_all()

    def look_again(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def standing(self) -> int:
        with self._changed:
            return self._waiting


_MOST_AHEAD = 4  # updates of each worker that may wait to be gathered
_LOOK_AGAIN = 0.05  # seconds: who waits for all to stand still is not told when they do
