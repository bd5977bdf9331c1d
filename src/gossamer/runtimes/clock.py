"""What time it is, and waiting for something to change, so that tests can put virtual time in the place of ours.

It knows nothing of agents or messages.
"""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable


@runtime_checkable
class Changes(AbstractContextManager["Changes"], Protocol):
    """A lock, and a way to wait for changes of what it protects; a context manager that holds the lock."""

    def wait_for(self, ready: Callable[[], bool], until: float) -> bool:
        """Whether ``ready()`` became true by the time ``until``; asked again at every change. Holds the lock."""
        ...

    def announce(self) -> None:
        """Something has changed. Holds the lock."""
        ...


@runtime_checkable
class Clock(Protocol):
    """Time in seconds since some moment; never goes back."""

    def now(self) -> float:
        """The time."""
        ...

    def sleep(self, seconds: float) -> None:
        """Be idle for a while."""
        ...

    def changes(self) -> Changes:
        """A new lock whose changes can be waited for in this clock's time."""
        ...


class MonotonicClock:
    """The machine's own time."""

    def now(self) -> float:
        """Seconds, monotonic."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Leave the processor to others."""
        time.sleep(seconds)

    def changes(self) -> Changes:
        """On a condition variable of ``threading``."""
        return _Condition()


class _Condition:
    def __init__(self) -> None:
        self._condition = threading.Condition()

    def __enter__(self) -> "_Condition":
        self._condition.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._condition.release()

    def wait_for(self, ready: Callable[[], bool], until: float) -> bool:
        # An infinite timeout overflows; none at all cannot be interrupted by signals on some platforms.
        timeout = min(max(until - time.monotonic(), 0.0), threading.TIMEOUT_MAX)
        return self._condition.wait_for(ready, timeout)

    def announce(self) -> None:
        self._condition.notify_all()
