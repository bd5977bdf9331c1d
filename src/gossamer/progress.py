"""What a person sees of long work: a bar on a terminal, plain lines elsewhere. It reads records, never a run."""

import contextlib
import sys
import time
from typing import NamedTuple, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


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


@runtime_checkable
class Reporter(Protocol):
    """Shows a run's progress; a context manager around the run."""

    def __enter__(self) -> "Reporter": ...

    def __exit__(self, *_: object) -> None: ...

    def say(self, sentence: str) -> None:
        """Tell what is worth knowing before the first round."""
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

    def show(self, status: Status) -> None:
        """Show nothing."""


class Lines:
    """Plain lines, at most one every ``seconds``, and one for the last round."""

    def __init__(self, label: str, seconds: float = 5.0):
        self._label, self._seconds, self._next = label, seconds, 0.0

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def say(self, sentence: str) -> None:
        """Print it after the label."""
        with contextlib.suppress(BrokenPipeError):
            print(f"{self._label}  {sentence}", flush=True)

    def show(self, status: Status) -> None:
        """Print the line if its time has come."""
        now = time.monotonic()
        if now >= self._next or status.round == status.rounds:
            self._next = now + self._seconds
            line = f"{self._label}  round {status.round}/{status.rounds}  {describe(status)}"
            # Nobody reading any more (``| head``) is no reason to lose a run.
            with contextlib.suppress(BrokenPipeError):
                print(line + _time_left(status.seconds_left), flush=True)


class Bar:
    """A bar with rounds, env-steps/s, mean return, consensus distance and time left."""

    def __init__(self, label: str, console: Console):
        # All of it must fit 80 columns: rich cuts what does not, from the right.
        columns = (
            BarColumn(bar_width=8),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        )
        self._label, self._progress = label, Progress(*columns, console=console)

    def __enter__(self) -> "Bar":
        self._progress.console.print(f"{self._label}  (distance: consensus distance)")
        self._progress.start()
        self._task = self._progress.add_task(self._label, total=None, text="compiling")
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        self._progress.remove_task(self._task)  # the next seed has a bar of its own

    def say(self, sentence: str) -> None:
        """Print it above the bar."""
        self._progress.console.print(sentence)

    def show(self, status: Status) -> None:
        """Move the bar."""
        if self._progress.tasks[0].total is None:
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
