"""Runs an experiment to its end: chunks of rounds, records, checkpoints, progress, resume.

It drives a runtime and writes run folders. What is learned, and how agents talk, is decided below it; how a
run is shown to a person is the reporter's.
"""

import hashlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gossamer import checkpoints
from gossamer.checkpoints import Checkpoint
from gossamer.errors import InputError
from gossamer.experiment import Experiment, Parts, build, population_shape
from gossamer.mixing import RULES
from gossamer.progress import Reporter, Silent, Status
from gossamer.records import (
    EventLog,
    MetricsLog,
    create_run,
    provenance,
    read_config,
    read_metrics,
    replace_config,
    summarise,
)
from gossamer.runtimes.vectorised import Population, RoundRecord, initialise, run_chunk
from gossamer.serialization import from_data, to_data
from gossamer.topologies import NAMES

_CAPACITY = 64
_SECONDS_PER_CHUNK = 1.0


class Interrupted(Exception):
    """The run was asked to stop (Ctrl-C) and saved itself; the message says how to go on."""


class NonFiniteParameters(ArithmeticError):
    """An agent's parameters left the numbers; the message names the agent, the round and what is kept."""


def train(experiment: Experiment, out: Path, reporter: Reporter | None = None) -> Path:
    """Run an experiment in a new folder.

    With one seed, ``out`` is the run's folder; with several, it holds one run folder ``seed-K`` for each.

    Args:
        experiment: what to run.
        out: a folder that is new or empty.
        reporter: shows progress; nothing is shown by default.

    Returns:
        ``out``.

    Raises:
        InputError: the experiment or the folder does not do; nothing is written then.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was saved.
        NonFiniteParameters: learning diverged; the last checkpoint is kept.

    Example:
        >>> import tempfile
        >>> from gossamer.recipes import cartpole_balance
        >>> small = replace(cartpole_balance(), rounds=2, agents=5, topology="ring")
        >>> small = replace(small, algorithm=replace(small.algorithm, hidden=(8, 8)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sorted(path.name for path in train(small, Path(folder) / "run").iterdir())[:2]
        ['checkpoints', 'config.json']
    """
    experiment = _with_absolute_paths(experiment)
    parts = build(experiment)
    with _stop_requests() as stop:
        create_run(out, _config(experiment, parts))
        _start(experiment, parts, out, reporter or Silent(), stop)
    return out


def resume(run: Path, rounds: int | None = None, reporter: Reporter | None = None) -> Path:
    """Go on with a run from its newest checkpoint that can be read, exactly as if it had never stopped.

    Args:
        run: a folder that ``train`` made.
        rounds: a new total number of rounds; by default what the run was started with.
        reporter: shows progress.

    Returns:
        ``run``.

    Raises:
        InputError: the folder holds no run, or cannot be continued; nothing is written then.
        Interrupted, NonFiniteParameters: as ``train``.
    """
    experiment = load_experiment(run)
    if rounds is not None:
        experiment = replace(experiment, rounds=rounds)
    parts = build(experiment)
    _require_same_streams(run, parts)
    folders = run_folders(run)
    with _stop_requests() as stop:
        if not _has_begun(folders):
            _start(experiment, parts, run, reporter or Silent(), stop)
            return run
        restored = _restore(experiment, parts, folders)
        if experiment.rounds < restored.done:
            raise InputError(
                f"rounds is {experiment.rounds}; {run} has already run {restored.done}, which is the least"
            )
        with _open_all(folders, restored.totals, restored.offsets) as logs:
            if rounds is not None:
                _extend({run, *folders}, rounds)
            _drive(experiment, parts, restored.population, logs, run, reporter or Silent(), stop)
    return run


def load_experiment(run: Path) -> Experiment:
    """The experiment of a run folder.

    Raises:
        InputError: the folder holds no run, or one that this version cannot read.
    """
    try:
        experiment = from_data(read_config(run).get("experiment"))
    except (AttributeError, TypeError) as error:
        raise InputError(
            f"{run / 'config.json'} was changed and cannot be read ({error}); restore it"
        ) from error
    if not isinstance(experiment, Experiment):
        raise InputError(
            f"{run / 'config.json'} describes no experiment; it must be the file that a run wrote"
        )
    return experiment


def run_folders(run: Path) -> list[Path]:
    """The run folders of one training: the folder itself, or its ``seed-K`` folders in order of K.

    Raises:
        InputError: the folder holds no run.
    """
    experiment = load_experiment(run)
    if experiment.seeds == 1:
        return [run]
    return [_seed_folder(run, seed) for seed in _seeds(experiment)]


def restore_population(run: Path) -> tuple[Experiment, Parts, Population]:
    """A run's experiment, its parts, and its population ``[seed, agent, ...]`` at the newest checkpoint."""
    experiment = load_experiment(run)
    parts = build(experiment)
    folders = run_folders(run)
    if not _has_begun(folders):
        raise InputError(f"{run} holds no checkpoint yet; wait until its first one is written")
    return experiment, parts, _restore(experiment, parts, folders).population


class Totals(NamedTuple):
    """What a run has used so far."""

    env_steps: int = 0
    seconds: float = 0.0


class _Restored(NamedTuple):
    """Where a run stands on disk: its state, and for each seed what it has used and how long its metrics were."""

    population: Population
    totals: list[Totals]
    offsets: list[int]

    @property
    def done(self) -> int:
        return int(self.population.round)


class _Logs:
    """One seed's folder while it is written to."""

    def __init__(self, folder: Path, totals: Totals, offset: int):
        self.folder, self.totals = folder, totals
        self._events = EventLog(folder, purge_step=totals.env_steps + 1 if offset else None)
        self.metrics = MetricsLog(folder / "metrics.jsonl")
        self.metrics.truncate(offset)

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        if not rows:
            return
        self.metrics.append(rows)
        for row in rows:
            self._events.write(row["env_steps"], _scalars(row))
        self._events.flush()
        self.totals = Totals(rows[-1]["env_steps"], rows[-1]["time"]["seconds"])

    def save(self, number: int, state: Any) -> None:
        self.metrics.sync()
        metadata = {"metrics_offset": self.metrics.offset, **self.totals._asdict()}
        checkpoints.save(self.folder / "checkpoints", Checkpoint(number, state, metadata))

    def close(self) -> None:
        self.metrics.close()
        self._events.close()


def _seeds(experiment: Experiment) -> range:
    return range(experiment.seed, experiment.seed + experiment.seeds)


def _seed_folder(out: Path, seed: int) -> Path:
    return out / f"seed-{seed}"


def _config(experiment: Experiment, parts: Parts) -> dict[str, Any]:
    return {"experiment": to_data(experiment), "weights_digest": _digest(parts), "provenance": provenance()}


def _digest(parts: Parts) -> str:
    """What tells whether a graph or a weight file has changed since a run began."""
    digest = hashlib.sha256()
    for phase in parts.weights:
        for array in (phase.indptr, phase.indices, phase.data.round(12)):
            digest.update(np.ascontiguousarray(array.astype(np.float64)).tobytes())
    return digest.hexdigest()


def _with_absolute_paths(experiment: Experiment) -> Experiment:
    """So that a run can be resumed from another directory."""
    files = {
        name: str(Path(getattr(experiment, name)).absolute())
        for name in ("topology", "weights")
        if Path(getattr(experiment, name)).is_file() and getattr(experiment, name) not in (*NAMES, *RULES)
    }
    return replace(experiment, **files)


def _require_same_streams(run: Path, parts: Parts) -> None:
    """Refuse to go on with other weights or another generator of random numbers than the run began with."""
    config = read_config(run)
    if config.get("weights_digest") != _digest(parts):
        raise InputError(
            f"the weights are not those that {run} began with; restore the file they were read from"
        )
    began, now = config.get("provenance", {}).get("prng"), provenance()["prng"]
    if began != now:
        raise InputError(
            f"the random numbers are {now}; {run} began with {began}, set JAX_DEFAULT_PRNG_IMPL so"
        )


def _has_begun(folders: list[Path]) -> bool:
    """Whether there is anything to go on from; a run killed while it was set up has no round and no checkpoint."""
    for folder in folders:
        metrics = folder / "metrics.jsonl"
        if checkpoints.rounds(folder / "checkpoints"):
            continue
        if metrics.exists() and read_metrics(metrics):
            raise InputError(
                f"{folder} has metrics and no checkpoint; restore its checkpoints or start a new run"
            )
        return False
    return True


def _start(experiment: Experiment, parts: Parts, out: Path, reporter: Reporter, stop: "_Stop") -> None:
    """From the initial population, which is the first checkpoint."""
    folders = _make_seed_folders(experiment, parts, out)
    population = initialise(
        parts.algorithm,
        parts.seeds,
        agents=experiment.agents,
        initial_parameters=experiment.initial_parameters,
    )
    with _open_all(folders, [Totals()] * len(folders), [0] * len(folders)) as logs:
        _save_all(logs, population, 0)
        _drive(experiment, parts, population, logs, out, reporter, stop)


def _make_seed_folders(experiment: Experiment, parts: Parts, out: Path) -> list[Path]:
    """The folders of the seeds; those that an interrupted call made already are left as they are."""
    if experiment.seeds == 1:
        return [out]
    config = _config(experiment, parts)
    for seed in _seeds(experiment):
        single = to_data(replace(experiment, seed=seed, seeds=1))
        if not (_seed_folder(out, seed) / "config.json").exists():
            create_run(_seed_folder(out, seed), {**config, "experiment": single})
    return [_seed_folder(out, seed) for seed in _seeds(experiment)]


def _extend(folders: set[Path], rounds: int) -> None:
    for folder in folders:
        config = read_config(folder)
        config["experiment"] = to_data(replace(load_experiment(folder), rounds=rounds))
        replace_config(folder, config)


@contextmanager
def _open_all(folders: list[Path], totals: list[Totals], offsets: list[int]) -> Iterator[list[_Logs]]:
    with ExitStack() as stack:
        logs = []
        for folder, total, offset in zip(folders, totals, offsets, strict=True):
            logs.append(_Logs(folder, total, offset))
            stack.callback(logs[-1].close)
        yield logs


def _restore(experiment: Experiment, parts: Parts, folders: list[Path]) -> _Restored:
    """The newest state that every seed has."""
    shape = population_shape(parts.algorithm, experiment)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), shape.learner)
    stores = [folder / "checkpoints" for folder in folders]
    saved = [checkpoints.restore_newest(store, like) for store in stores]
    # A kill between two seeds' saves leaves some of them one checkpoint ahead.
    common = min(each.round for each in saved)
    if any(common not in checkpoints.rounds(store) for store in stores):
        raise InputError(
            f"the seeds in {folders[0].parent} stand at rounds {', '.join(str(each.round) for each in saved)} and "
            "share no checkpoint; resume those that are behind, each by its own folder"
        )
    saved = [
        each if each.round == common else checkpoints.restore(store, common, like)
        for each, store in zip(saved, stores, strict=True)
    ]
    learner = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(each.state for each in saved))
    totals = [Totals(each.metadata["env_steps"], each.metadata["seconds"]) for each in saved]
    offsets = [each.metadata["metrics_offset"] for each in saved]
    return _Restored(Population(learner, jnp.asarray(common, jnp.int32)), totals, offsets)


def _drive(
    experiment: Experiment,
    parts: Parts,
    population: Population,
    logs: list[_Logs],
    out: Path,
    reporter: Reporter,
    stop: "_Stop",
) -> None:
    """The loop: a chunk on the device, its rows to the logs, a checkpoint where one is due."""
    done, pace = int(population.round), _Pace()
    with reporter:
        while done < experiment.rounds:
            length = min(pace.rounds, _to_boundary(done, experiment))
            started = time.perf_counter()
            population, record = _run(parts, population, length)
            elapsed = time.perf_counter() - started
            _write_rows(parts, logs, record, done, elapsed)
            _require_finite(record, parts, done, logs)
            done += length
            pace.learn(length, elapsed)
            reporter.show(_status(experiment, record, done, elapsed, pace))
            stopping = bool(stop)
            if done == experiment.rounds or done % experiment.checkpoint_every == 0 or stopping:
                _save_all(logs, population, done)
            if stopping and done < experiment.rounds:
                raise Interrupted(
                    f"stopped after round {done} of {experiment.rounds}, everything saved; "
                    f"go on with: gossamer train --resume {out}"
                )


class _Pace:
    """Chunks of about a second, so that progress is seen and Ctrl-C answered; their length changes no result."""

    def __init__(self) -> None:
        self.rounds = 1
        self._seconds_per_round: float | None = None
        self._compiled = False

    def learn(self, rounds: int, seconds: float) -> None:
        """Take note of a chunk; the first one compiles, and tells nothing of the others."""
        if self._compiled:
            self._seconds_per_round = seconds / rounds
            self.rounds = max(1, min(_CAPACITY, int(rounds * _SECONDS_PER_CHUNK / seconds)))
        self._compiled = True

    def seconds_left(self, rounds: int) -> float | None:
        """How long some rounds will take, as far as is known."""
        return None if self._seconds_per_round is None else rounds * self._seconds_per_round


def _to_boundary(done: int, experiment: Experiment) -> int:
    """Rounds until the next checkpoint or the end."""
    return min(experiment.checkpoint_every - done % experiment.checkpoint_every, experiment.rounds - done)


def _run(parts: Parts, population: Population, length: int) -> tuple[Population, RoundRecord]:
    population, record = run_chunk(
        population,
        parts.algorithm,
        parts.mixer,
        parts.tasks,
        parts.seeds,
        jnp.asarray(length, jnp.int32),
        environment=parts.environment,
        experience=parts.experience,
        capacity=_CAPACITY,
        block=parts.block,
    )
    record = _at(jax.device_get(record), slice(length))
    return population, record


def _write_rows(parts: Parts, logs: list[_Logs], record: RoundRecord, done: int, elapsed: float) -> None:
    for index, log in enumerate(logs):
        log.append(record_rows(parts, _at(record, (slice(None), index)), done, log.totals, elapsed))


def record_rows(
    parts: Parts, record: RoundRecord, done: int, totals: Totals, elapsed: float
) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` for a chunk of one seed, up to a round in which something was not finite.

    Args:
        parts: what the run is made of.
        record: the seed's records, with a leading ``round`` axis.
        done: rounds before the chunk.
        totals: what the run had used before the chunk.
        elapsed: seconds that the chunk took.
    """
    length = len(record.finite)
    good = int(np.argmin(np.append(record.finite.all(-1), False)))
    rows = []
    for index in range(good):
        one = _at(record, index)
        totals = Totals(totals.env_steps + int(one.agents.env_steps.sum()), totals.seconds + elapsed / length)
        rows.append(_row(parts, one, done + index + 1, totals, length / elapsed))
    return rows


def _at(record: Any, index: Any) -> Any:
    """One element of every array of a record."""
    return jax.tree.map(lambda rows: rows[index], record)


def _row(
    parts: Parts, record: RoundRecord, number: int, totals: Totals, rounds_per_second: float
) -> dict[str, Any]:
    """One line of ``metrics.jsonl``: one seed's round. Everything that a clock measured is under ``time``."""
    agents, returns = record.agents, np.asarray(record.agents.episodic_return)
    steps = int(agents.env_steps.sum())
    return {
        "round": number,
        "env_steps": totals.env_steps,
        "episodic_return": float(agents.episodic_return.mean()),
        "episodic_length": float(agents.episode_length.mean()),
        "consensus_distance": float(record.consensus_distance),
        "losses": {name: float(values.mean()) for name, values in agents.info.items()},
        "agent_return": summarise(returns.mean(-1)),
        "task_return": summarise(_per_task(parts.task_index, returns)),
        "time": {"seconds": totals.seconds, "env_steps_per_second": steps * rounds_per_second},
    }


def _per_task(index: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Mean return of each task over the agents and environments it was dealt to."""
    total = np.bincount(index.ravel(), weights=returns.ravel())
    return total / np.bincount(index.ravel())


def _scalars(row: dict[str, Any]) -> dict[str, float]:
    """A row under the names that TensorBoard users expect."""
    return {
        "charts/episodic_return": row["episodic_return"],
        "charts/episodic_length": row["episodic_length"],
        "charts/SPS": row["time"]["env_steps_per_second"],
        "gossip/consensus_distance": row["consensus_distance"],
        **{f"losses/{name}": value for name, value in row["losses"].items()},
    }


def _require_finite(record: RoundRecord, parts: Parts, done: int, logs: list[_Logs]) -> None:
    bad = np.argwhere(~record.finite)
    if len(bad):
        number, seed, agent = bad[0]
        folder = logs[seed].folder
        kept = checkpoints.rounds(folder / "checkpoints")[-1]
        raise NonFiniteParameters(
            f"agent {agent} of seed {int(parts.seeds[seed])} has parameters that are not finite in round "
            f"{done + number + 1}; the run stopped and the checkpoint of round {kept} in {folder} is kept "
            "(a lower learning rate may help)"
        )


def _status(experiment: Experiment, record: RoundRecord, done: int, elapsed: float, pace: _Pace) -> Status:
    return Status(
        round=done,
        rounds=experiment.rounds,
        env_steps_per_second=float(record.agents.env_steps.sum()) / elapsed,
        mean_return=float(record.agents.episodic_return[-1].mean()),
        consensus_distance=float(record.consensus_distance[-1].mean()),
        seconds_left=pace.seconds_left(experiment.rounds - done),
    )


def _save_all(logs: list[_Logs], population: Population, done: int) -> None:
    for index, log in enumerate(logs):
        log.save(done, _at(population.learner, index))


class _Stop:
    """Whether the run was asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def __bool__(self) -> bool:
        return self.requested


@contextmanager
def _stop_requests() -> Iterator[_Stop]:
    """The first SIGINT or SIGTERM asks for a stop after the chunk in hand; a second one acts at once."""
    stop, previous = _Stop(), {}

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
