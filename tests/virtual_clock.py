"""A clock for threads in tests: time passes only while all of them wait, so that deadlocks are seen at once."""

import threading
from collections.abc import Callable


class Deadlock(AssertionError):
    """Every thread waits, and for nothing that will ever come."""


class VirtualClock:
    """Time that passes only while all threads wait: to the earliest moment for which one of them does.

    Args:
        threads: how many there are; each calls ``finish`` at its end.
    """

    def __init__(self, threads: int):
        self._changed = threading.Condition()
        self._now, self._running = 0.0, threads
        self._waiters: list[_Waiter] = []
        self._dead = False

    def now(self) -> float:
        """Virtual seconds since the start."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let so much virtual time pass."""
        with self._changed:
            self.wait_for(lambda: False, self._now + seconds)

    def changes(self) -> "_Changes":
        """All of them share one lock, without which nobody could tell that all threads wait."""
        return _Changes(self, self._changed)

    def wait_for(self, ready: Callable[[], bool], until: float) -> bool:
        """As ``Changes.wait_for``; holds the lock."""
        waiter = _Waiter(ready, until)
        self._waiters.append(waiter)
        self._running -= 1
        try:
            while not (waiter.ready() or self._now >= waiter.until):
                if not self._advance():
                    self._changed.wait()
                if self._dead:
                    raise Deadlock(f"at {self._now:.1f} s")
        finally:
            self._waiters.remove(waiter)
            self._running += 1
        return waiter.ready()

    def finish(self) -> None:
        """A thread has ended."""
        with self._changed:
            self._running -= 1
            self._advance()
            self._changed.notify_all()

    def _advance(self) -> bool:
        """Whether time has passed, because nobody could do anything before."""
        if self._running or any(each.ready() or self._now >= each.until for each in self._waiters):
            return False
        earliest = min((each.until for each in self._waiters), default=self._now)
        self._dead = earliest == float("inf")
        self._now = self._now if self._dead else earliest
        self._changed.notify_all()
        return True


class _Waiter:
    def __init__(self, ready: Callable[[], bool], until: float):
        self.ready, self.until = ready, until


class _Changes:
    def __init__(self, clock: VirtualClock, changed: threading.Condition):
        self._clock, self._changed = clock, changed

    def __enter__(self) -> "_Changes":
        self._changed.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._changed.release()

    def wait_for(self, ready: Callable[[], bool], until: float) -> bool:
        return self._clock.wait_for(ready, until)

    def announce(self) -> None:
        self._changed.notify_all()
