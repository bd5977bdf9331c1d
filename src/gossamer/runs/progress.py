"""What a person sees of long work: a bar on a terminal, plain lines elsewhere. It reads records, never a run."""

import contextlib
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Status(NamedTuple):
    """Where a run stands after a chunk of rounds.

    The mean return is unknown where no episode ended, the time left while only compiling was timed.
    """

    round: int
    rounds: int
    env_steps_per_second: float
    mean_return: float | None
    consensus_distance: float
    seconds_left: float | None

    @classmethod
    def of(
        cls, rows: Sequence[Mapping[str, Any]], rounds: int, seconds_left: float | None = None
    ) -> "Status":
        """What lines of metrics say of a run: one of each seed, or one of each agent that is a process.

        Where agents are at different rounds, the least is shown.

        Example:
            >>> time, row = {"env_steps_per_second": 10.0}, {"episodes": 2, "consensus_distance": 0.5}
            >>> rows = [{**row, "round": number, "episodic_return": 7.0, "time": time} for number in (4, 3)]
            >>> Status.of(rows, rounds=8)
            Status(round=3, rounds=8, env_steps_per_second=20.0, mean_return=7.0, consensus_distance=0.5, ...)
        """
        episodes = sum(row["episodes"] for row in rows)
        returns = sum(row["episodes"] * row["episodic_return"] for row in rows if row["episodes"])
        return cls(
            round=min(row["round"] for row in rows),
            rounds=rounds,
            env_steps_per_second=sum(row["time"]["env_steps_per_second"] for row in rows),
            mean_return=returns / episodes if episodes else None,
            consensus_distance=sum(row["consensus_distance"] for row in rows) / len(rows),
            seconds_left=seconds_left,
        )


@runtime_checkable
class Reporter(Protocol):
    """Shows a run's progress; a context manager around the run."""

    def __enter__(self) -> "Reporter": ...

    def __exit__(self, *_: object) -> None: ...

    def say(self, sentence: str) -> None:
        """Tell what is worth knowing before the first round."""
        ...

    def begin(self, phase: str) -> None:
        """Show a phase without rounds, compiling for example, until the next phase or ``show``."""
        ...

    def show(self, status: Status) -> None:
        """Show where the run stands."""
        ...


class Silent:
    """Shows nothing."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def say(self, sentence: str) -> None:
        """Say nothing."""

    def begin(self, phase: str) -> None:
        """Show nothing."""

    def show(self, status: Status) -> None:
        """Show nothing."""


class Lines:
    """Plain lines, at most one every ``seconds``, and one for the last round.

    Args:
        label: Starts every line.
        seconds: Between lines about rounds.
        phase_seconds: Between lines about a phase, of which a short one has none.
    """

    def __init__(self, label: str, seconds: float = 5.0, phase_seconds: float = 10.0):
        self._label, self._seconds, self._next = label, seconds, 0.0
        self._phase_seconds, self._phase_ended = phase_seconds, threading.Event()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self._phase_ended.set()

    def say(self, sentence: str) -> None:
        """Print it after the label."""
        # A reader that is gone (``| head``) must not end the run.
        with contextlib.suppress(BrokenPipeError):
            print(f"{self._label}  {sentence}", flush=True)

    def begin(self, phase: str) -> None:
        """Print the phase and its seconds every ``phase_seconds``."""
        self._phase_ended.set()
        self._phase_ended = threading.Event()
        threading.Thread(target=self._watch, args=(phase, self._phase_ended), daemon=True).start()

    def show(self, status: Status) -> None:
        """Print the line if its time has come."""
        self._phase_ended.set()
        now = time.monotonic()
        if now >= self._next or status.round == status.rounds:
            self._next = now + self._seconds
            line = f"round {status.round}/{status.rounds}  {describe(status)}"
            self.say(line + _time_left(status.seconds_left))

    def _watch(self, phase: str, ended: threading.Event) -> None:
        started = time.monotonic()
        while not ended.wait(self._phase_seconds):
            self.say(f"{phase}, {time.monotonic() - started:.0f} s")


class Bar:
    """A bar with rounds, env-steps/s, mean return, consensus distance and time left.

    During a phase it is a spinner with the phase and its seconds. Rich redraws from a thread of its own, which XLA's
    compiler does not hold up.
    """

    def __init__(self, label: str, console: Console):
        self._label, self._progress = label, Progress(console=console)
        self._phase = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        # All of it must fit 80 columns: rich cuts what does not, from the right.
        self._rounds = (
            BarColumn(bar_width=8),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        )

    def __enter__(self) -> "Bar":
        self._progress.console.print(f"{self._label}  (distance: consensus distance)")
        self._progress.columns = self._phase
        self._task = self._progress.add_task("starting", total=None, text="")
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        self._progress.remove_task(self._task)  # the next seed has a bar of its own

    def begin(self, phase: str) -> None:
        """Show a spinner, the phase and the seconds since it began."""
        self._progress.columns = self._phase
        self._progress.reset(self._task, total=None, description=phase)

    def say(self, sentence: str) -> None:
        """Print it above the bar."""
        self._progress.console.print(sentence)

    def show(self, status: Status) -> None:
        """Move the bar."""
        if self._progress.columns is not self._rounds:
            self._progress.columns = self._rounds
            # Rounds that a resumed run had behind it are no measure of its speed.
            self._progress.reset(self._task, total=status.rounds, completed=status.round)
        self._progress.update(self._task, completed=status.round, text=_short(status))


def describe(status: Status) -> str:
    """What a status says of the run's speed and success.

    Example:
        >>> describe(Status(5, 10, 29000.0, 180.04, 0.5, 75.0))
        '29.0k env-steps/s  return 180.04  consensus distance 0.500'
    """
    return (
        f"{status.env_steps_per_second / 1000:.1f}k env-steps/s  return {_return(status, 2)}  "
        f"consensus distance {status.consensus_distance:.3f}"
    )


def _short(status: Status) -> str:
    return (
        f"{status.env_steps_per_second / 1000:.1f}k env-steps/s  return {_return(status, 1)}  "
        f"distance {status.consensus_distance:.3f}"
    )


def _return(status: Status, digits: int) -> str:
    return "–" if status.mean_return is None else f"{status.mean_return:.{digits}f}"


def _time_left(seconds: float | None) -> str:
    if seconds is None:
        return "  compiled"
    minutes, seconds = divmod(round(seconds), 60)
    return f"  {minutes}:{seconds:02d} left"


def reporter(label: str) -> Reporter:
    """A bar if standard output is a terminal, plain lines otherwise."""
    console = Console()
    return Bar(label, console) if sys.stdout.isatty() else Lines(label)
