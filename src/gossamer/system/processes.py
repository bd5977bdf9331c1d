"""Processes that one process begins: each on a core of its own, and none left behind when it ends.

The caller supplies the work.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait


def available_cores() -> list[int]:
    """Those this process may use; only some systems tell."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def become_worker(core: int | None = None) -> None:
    """What a process does first whose parent will tell it when to stop.

    In a session of its own it does not hear the terminal's Ctrl-C: the parent tells it to stop, once. A parent that
    was killed cannot say so, so the child watches for that end, and is then asked by SIGTERM as well.

    Args:
        core: the one it keeps to: small networks run faster on one than on two, and others are not disturbed.
    """
    os.setsid()
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    threading.Thread(target=_when_orphaned, args=(_ask_to_stop,), daemon=True).start()


@contextmanager
def environment_variables(**variables: str) -> Iterator[None]:
    """Variables of the environment for a while, for what begins meanwhile; then they are what they were.

    Example:
        >>> with environment_variables(GOSSAMER_EXAMPLE="1"):
        ...     os.environ["GOSSAMER_EXAMPLE"]
        '1'
        >>> "GOSSAMER_EXAMPLE" in os.environ
        False
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def is_orphan() -> bool:
    """Whether the process that began this one has ended, however it did."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _when_orphaned(act: Callable[[], None]) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a process that another has begun has a parent"
    wait([parent.sentinel])
    act()


def _ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
