"""Being asked to stop: the first request is for what is in hand to be saved, the second for the end at once."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(Exception):
    """The run was asked to stop (Ctrl-C) and has been saved; the message says how to resume it."""


class Unfinished(Exception):
    """A run ended before its last round for a reason that is no defect; the message says which, and what is kept."""


class Stop:
    """Whether the run was asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def __bool__(self) -> bool:
        return self.requested


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """The first SIGINT or SIGTERM asks for a stop after the chunk in hand; a second one acts at once."""
    stop, previous = Stop(), {}

    def request(number: int, _frame: object) -> None:
        stop.requested = True
        signal.signal(number, previous[number])
        print("stopping after the rounds in hand; once more stops at once, unsaved", file=sys.stderr)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, request)
    except ValueError:
        # Only the main thread may set handlers; elsewhere stopping is the caller's business.
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
