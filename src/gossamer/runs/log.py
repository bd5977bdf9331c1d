"""One run folder while it is written to: lines of metrics, events for TensorBoard, checkpoints."""

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gossamer.errors import InputError
from gossamer.runs import checkpoints
from gossamer.runs.checkpoints import Checkpoint
from gossamer.runs.folder import (
    EventLog,
    MetricsLog,
    read_metrics,
    require_recorded,
    write_atomically,
)
from gossamer.runs.metrics import Totals
from gossamer.system.signals import Unfinished

BEST = "best"


class NonFiniteParameters(Unfinished, ArithmeticError):
    """An agent's parameters became NaN or infinite; the message names the agent, the round and the last checkpoint."""


class UnwritableRun(Unfinished):
    """A run's folder cannot be written any more, as on a full disk; the message names it and says how to resume."""


class Recent(NamedTuple):
    """Returns since the last checkpoint."""

    episodes: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float | None:
        """Over episodes; None where none has ended."""
        return self.total / self.episodes if self.episodes else None

    def and_then(self, rows: Sequence[dict[str, Any]]) -> "Recent":
        """With those of some rows of the metrics more."""
        ended = [row for row in rows if row["episodes"]]
        total = sum(row["episodes"] * row["episodic_return"] for row in ended)
        return Recent(self.episodes + sum(row["episodes"] for row in ended), self.total + total)


class Best:
    """The checkpoint before which returns were highest, and ``best.json``, which says how high."""

    def __init__(self, folder: Path):
        self._folder, self._file = folder, folder / "best.json"
        self._mean = (
            json.loads(self._file.read_text())["episodic_return"] if self._file.exists() else -math.inf
        )

    def consider(self, checkpoint: Checkpoint, mean: float | None) -> None:
        """Keep a checkpoint if the mean return before it is the best so far."""
        if mean is not None and mean > self._mean:
            checkpoints.save(self._folder / BEST, checkpoint, keep=1)
            best = {"round": checkpoint.round, "episodic_return": mean}
            write_atomically(self._file, json.dumps(best, indent=1) + "\n")
            self._mean = mean


class RunLog:
    """One run folder while it is written to: metrics, events and checkpoints.

    Args:
        folder: the run's.
        totals: what the run had used before.
        offset: bytes of the metrics to keep; later lines belong to rounds after the checkpoint, which are run again.
        keep_best: whether the best checkpoint so far is kept beside the newest ones.
        resume_with: the command that resumes the run, for messages.

    Raises:
        UnwritableRun: a file cannot be written, now or in any method.
    """

    def __init__(self, folder: Path, totals: Totals, offset: int, keep_best: bool, resume_with: str):
        require_recorded(folder / "metrics.jsonl", offset)
        self.folder, self.totals, self.resume_with = folder, totals, resume_with
        self._best, self._since = (Best(folder) if keep_best else None), Recent()
        with self._writing():
            self._events = EventLog(folder, purge_step=totals.env_steps + 1 if offset else None)
            self.metrics = MetricsLog(folder / "metrics.jsonl")
            self.metrics.truncate(offset)

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write lines of ``record_rows``."""
        if not rows:
            return
        with self._writing():
            self.metrics.append(rows)
            for row in rows:
                self._events.write(row["env_steps"], _scalars(row))
            self._events.flush()
        self._since = self._since.and_then(rows)
        self.totals = Totals(rows[-1]["env_steps"], rows[-1]["time"]["seconds"])

    def save(self, number: int, state: Any) -> None:
        """A checkpoint of round ``number``, with where the metrics stand."""
        with self._writing():
            self.metrics.sync()
            metadata = {"metrics_offset": self.metrics.offset, **self.totals._asdict()}
            checkpoint = Checkpoint(number, state, metadata)
            checkpoints.save(self.folder / "checkpoints", checkpoint)
            if self._best is not None:
                self._best.consider(checkpoint, self._since.mean)
        self._since = Recent()

    def close(self) -> None:
        """Close the files."""
        for each in (self.metrics, self._events):
            # What cannot be written was said to be so when it was appended; closing tries once more.
            with contextlib.suppress(OSError):
                each.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnwritableRun(
                f"cannot write to {self.folder} ({error.strerror or error}); the run stopped and its last checkpoint "
                f"is kept; resume with: {self.resume_with}"
            ) from error


def has_begun(folder: Path) -> bool:
    """Whether there is anything to resume from; a run killed during its set-up has neither rounds nor checkpoints.

    Raises:
        InputError: there are metrics and no checkpoint, which must not be written over.

    Example:
        >>> has_begun(Path("no/such/run"))
        False
    """
    metrics = folder / "metrics.jsonl"
    if checkpoints.rounds(folder / "checkpoints"):
        return True
    if metrics.exists() and read_metrics(metrics):
        raise InputError(
            f"{folder} has metrics and no checkpoint; restore its checkpoints or start a new run"
        )
    return False


def _scalars(row: dict[str, Any]) -> dict[str, float]:
    """A row under the names that TensorBoard users expect."""
    return {
        "charts/SPS": row["time"]["env_steps_per_second"],
        "gossip/consensus_distance": row["consensus_distance"],
        "gossip/bytes": row["messages"]["bytes"],
        "gossip/links_down": row["messages"]["links_down"],
        "gossip/oldest_message": row["messages"]["oldest"],
        **_known({f"charts/{name}": row[name] for name in ("episodic_return", "episodic_length")}),
        **_known({"charts/test_return": row["test"]["episodic_return"]} if "test" in row else {}),
        **_known({"gossip/mean_age": row["messages"]["mean_age"]}),
        **{f"losses/{name}": value for name, value in row["losses"].items()},
    }


def _known(scalars: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in scalars.items() if value is not None}
