"""What a run's folder says of it while it goes on: lines of metrics, events for TensorBoard, checkpoints.

What happened is told by runtimes or agents; here it becomes rows and files.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gossamer.diagnostics.consensus_bound import Verdict
from gossamer.errors import InputError
from gossamer.runs import checkpoints
from gossamer.runs.checkpoints import Checkpoint
from gossamer.runs.folder import (
    EventLog,
    MetricsLog,
    read_metrics,
    require_recorded,
    summarise,
    write_atomically,
)
from gossamer.runtimes.build import Parts
from gossamer.runtimes.protocol import Report, Traffic
from gossamer.system.signals import Unfinished
from gossamer.types import Finished

BEST = "best"


class NonFiniteParameters(Unfinished, ArithmeticError):
    """An agent's parameters left the numbers; the message names the agent, the round and what is kept."""


class UnwritableRun(Unfinished):
    """A run's folder cannot be written any more, as on a full disk; the message names it and says how to go on."""


class Totals(NamedTuple):
    """What a run has used so far."""

    env_steps: int = 0
    seconds: float = 0.0


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
        offset: bytes of the metrics that are kept; what is behind them was not saved and comes again.
        keep_best: whether the best checkpoint so far is kept beside the newest ones.
        again: how to go on once the folder can be written again.

    Raises:
        UnwritableRun: a file cannot be written, now or in any method.
    """

    def __init__(
        self,
        folder: Path,
        totals: Totals,
        offset: int,
        keep_best: bool,
        again: str = "begin the same again",
    ):
        require_recorded(folder / "metrics.jsonl", offset)
        self.folder, self.totals, self._again = folder, totals, again
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
                f"{self.folder} cannot be written ({error.strerror or error}); the run stopped and what it saved is "
                f"kept; when that is mended, {self._again}"
            ) from error


def has_begun(folder: Path) -> bool:
    """Whether there is anything to go on from; who was killed while it was set up has no round and no checkpoint.

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


class Timed(NamedTuple):
    """A report, the seconds that its rounds took, and what the machine had used by then."""

    report: Report
    seconds: float
    power: dict[str, float] | None = None


def record_rows(
    parts: Parts, reports: Sequence[Timed], seed: int, done: int, totals: Totals
) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` for some reports of one seed, up to one in which something was not finite.

    Args:
        parts: what the run is made of.
        reports: what happened, and how long it took.
        seed: which of the run's seeds, by its place.
        done: rounds before the first report.
        totals: what the run had used before.
    """
    rows = []
    for report, seconds, power in reports:
        record = _at(report.record, seed)
        if not record.finite.all():
            break
        done += report.rounds
        totals = Totals(totals.env_steps + int(record.agents.env_steps.sum()), totals.seconds + seconds)
        row = _row(parts, report._replace(record=record), seed, done, totals, seconds)
        rows.append({**row, "time": {**row["time"], **({"power": power} if power else {})}})
    return rows


def _at(record: Any, index: Any) -> Any:
    """One element of every array of a record."""
    return jax.tree.map(lambda rows: rows[index], record)


def _row(
    parts: Parts, report: Report, seed: int, number: int, totals: Totals, seconds: float
) -> dict[str, Any]:
    """One line of ``metrics.jsonl``: one seed's rounds. Everything that a clock measured is under ``time``.

    A return is the mean over the episodes that ended, null where none did; that of the population is the mean
    over tasks, so that a task with short episodes counts no more than others.
    """
    agents, finished = report.record.agents, report.record.agents.finished
    per_task = _per_task(parts.task_index, finished)
    updates = np.maximum(agents.updates.sum(), 1)
    return {
        "round": number,
        "env_steps": totals.env_steps,
        "episodes": int(finished.episodes.sum()),
        "episodic_return": _mean(per_task.returns),
        "episodic_length": _mean(per_task.lengths),
        "consensus_distance": float(report.record.consensus_distance),
        "losses": {name: float(values.sum() / updates) for name, values in agents.info.items()},
        "messages": _messages(parts, report.traffic, seed),
        **_certificate(report.certificate),
        **_correlation(report.correlation),
        "agent_return": summarise(_per_episode(Finished(*(each.sum(-1) for each in finished))).returns),
        "task_return": summarise(per_task.returns),
        "time": {
            "seconds": totals.seconds,
            "env_steps_per_second": int(agents.env_steps.sum()) / seconds,
            **({"waiting": report.waiting._asdict()} if report.waiting else {}),
        },
    }


def _per_task(index: np.ndarray, finished: Finished) -> Finished:
    """Mean return and length of each task's episodes, over the agents and environments it was dealt to."""
    return _per_episode(
        Finished(*(np.bincount(index.ravel(), weights=np.ravel(total)) for total in finished))
    )


def _per_episode(total: Finished) -> Finished:
    """Sums divided by numbers of episodes; NaN where there was none."""
    with np.errstate(invalid="ignore"):
        return Finished(total.episodes, total.returns / total.episodes, total.lengths / total.episodes)


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _messages(parts: Parts, traffic: Traffic, seed: int) -> dict[str, Any]:
    """What was exchanged: counts, bytes handed to links, and ages (updates) of what was combined.

    ``ages[a]`` counts messages of age a; from 16 on they are counted together.
    """
    sent, lost, combined, total_age, oldest = (int(each[seed]) for each in traffic[:5])
    ages = traffic.ages[seed].tolist()
    return {
        "sent": sent,
        "lost": lost,
        "combined": combined,
        "bytes": sent * parts.message_bytes,
        "links_down": lost / sent if sent else 0.0,
        "mean_age": total_age / combined if combined else None,
        "oldest": oldest,
        "ages": ages[: max((age for age, count in enumerate(ages) if count), default=-1) + 1],
    }


def _certificate(verdict: Verdict | None) -> dict[str, Any]:
    """How far apart agents were, and the bound that the events since the beginning put on it."""
    if verdict is None:
        return {}
    return {
        "certificate": {
            "distance": verdict.distance,
            "bound": verdict.bound,
            "printed_bound": verdict.printed,
            "holds": verdict.holds,
        }
    }


def _correlation(matrix: np.ndarray | None) -> dict[str, Any]:
    """Pearson's correlation of the agents' last gradients; null where one had no direction."""
    if matrix is None:
        return {}
    return {"gradient_correlation": [[_mean(np.array([value])) for value in row] for row in matrix]}


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
