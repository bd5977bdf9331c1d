"""Functions that run at the same time, each in a process of its own on a core of its own."""

import contextlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from gossamer.system.processes import available_cores, become_worker, environment_variables

Start: TypeAlias = Callable[[], object]
"""Waits until all that run together have called it as often."""


class Outcome(NamedTuple):
    """What came back, in order of the choices, and what share of the cores other programs had meanwhile."""

    returned: list[Any]
    others: float | None  # only some systems tell


def together(
    live: Callable[[Any, Start], Any], choices: Sequence[Any], seconds: float, priority: int = 0
) -> Outcome:
    """What ``live(choice, start)`` returns for each choice.

    Args:
        live: a function of a module. It calls ``start()`` when it is ready, and again wherever all wait for each other.
        choices: one for each process.
        seconds: how long all of it may take.
        priority: nice of the processes; below 0 needs the right to it.

    Raises:
        RuntimeError: one of them failed, or they took too long.
    """
    context = multiprocessing.get_context("spawn")
    barrier, cores = context.Barrier(len(choices)), available_cores()
    pipes: list[Connection] = []
    processes = []
    try:
        with environment_variables(**_ONE_THREAD):
            for place, choice in enumerate(choices):
                ours, theirs = context.Pipe(duplex=False)
                core = cores[place % len(cores)]
                process = context.Process(target=_run, args=(live, choice, barrier, theirs, core, priority))
                process.start()
                theirs.close()
                pipes.append(ours)
                processes.append(process)
        told = _all_of(pipes, time.monotonic() + seconds)
        for process in processes:
            process.join(_END_SECONDS)
    finally:
        for process in processes:
            process.kill()
            process.join()
    others = [share for _, share in told if share is not None]
    return Outcome([value for value, _ in told], sum(others) / len(others) if others else None)


def _run(
    live: Callable[[Any, Start], Any], choice: Any, barrier: Any, pipe: Connection, core: int, priority: int
) -> None:
    """The life of one process."""
    become_worker(core)
    _take_priority(priority)
    watch = _Watch(core)

    def start() -> None:
        barrier.wait()
        watch.start()

    try:
        value = live(choice, start)
        pipe.send((True, (value, watch.others())))
    except BaseException:
        pipe.send((False, traceback.format_exc()))


def _all_of(pipes: Sequence[Connection], until: float) -> list[Any]:
    told: dict[Connection, Any] = {}
    while missing := [each for each in pipes if each not in told]:
        ready = wait(missing, timeout=max(until - time.monotonic(), 0.0))
        if not ready:
            raise RuntimeError(f"{len(missing)} of {len(pipes)} processes did not end in time")
        for pipe in ready:
            assert isinstance(pipe, Connection)
            try:
                good, value = pipe.recv()
            except EOFError:
                raise RuntimeError("a process ended without a word") from None
            if not good:
                raise RuntimeError(f"a process failed:\n{value}")
            told[pipe] = value
    return [told[pipe] for pipe in pipes]


class _Watch:
    """How much of a core others use."""

    def __init__(self, core: int):
        self._core = core
        self._began: tuple[float, float, float] | None = None

    def start(self) -> None:
        """Begin, unless it has begun."""
        self._began = self._began or self._read()

    def others(self) -> float | None:
        if self._began is None or self._began[2] < 0:
            return None
        elapsed, own, busy = (now - then for now, then in zip(self._read(), self._began, strict=True))
        return max(busy - own, 0.0) / elapsed

    def _read(self) -> tuple[float, float, float]:
        return time.monotonic(), time.process_time(), _busy_seconds(self._core)


def _busy_seconds(core: int) -> float:
    """Of a core since the system began, interrupts left out; below 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/stat").read_text().splitlines():
            name, *ticks = line.split()
            if name == f"cpu{core}":
                return sum(map(int, ticks[:3])) / os.sysconf("SC_CLK_TCK")
    return -1.0


def _take_priority(priority: int) -> None:
    if priority == 0:
        return
    os.nice(priority)
    # Where Linux schedules sessions as groups, nice counts within the session only.
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/self/autogroup").write_text(str(priority))


_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_END_SECONDS = 30.0
