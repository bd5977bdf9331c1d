"""Runs an experiment to its end: chunks of rounds, records, checkpoints, progress, resume.

It drives a runtime and writes run folders. What is learned, and how agents talk, is decided below it; how a
run is shown to a person is the reporter's.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gossamer.diagnostics.energy import EnergyMeter, PowerReading
from gossamer.errors import InputError
from gossamer.evaluation.rollouts import play_own_tasks
from gossamer.experiment import Experiment
from gossamer.runs import checkpoints
from gossamer.runs.description import load_experiment
from gossamer.runs.folder import (
    create_run,
    provenance,
    read_config,
    replace_config,
    require_recorded,
)
from gossamer.runs.lock import claimed
from gossamer.runs.log import (
    NonFiniteParameters,
    RunLog,
    Timed,
    Totals,
    UnwritableRun,
    record_rows,
)
from gossamer.runs.progress import Reporter, Silent, Status
from gossamer.runs.restore import have_begun, restore, run_folders, seed_folder, seeds_of
from gossamer.runs.serialization import to_data
from gossamer.runtimes.build import (
    Parts,
    build,
    population_shape,
    tree_bytes,
    with_absolute_paths,
)
from gossamer.runtimes.choice import runtime_of
from gossamer.runtimes.protocol import Report, Runtime
from gossamer.runtimes.rounds import agent_key
from gossamer.runtimes.vectorised import Population
from gossamer.system.compilation_cache import persistent_cache
from gossamer.system.signals import Interrupted, Stop, stop_requests

_SECONDS_PER_CHUNK = 1.0
_TESTER = 2**31 - 1  # the number of no agent


def train(experiment: Experiment, out: Path | str, reporter: Reporter | None = None) -> Path:
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
        NonFiniteParameters: learning diverged, of one seed at least, which ends them all; the last checkpoint is kept,
            and each other seed goes on alone with ``resume`` of its own folder.
        UnwritableRun: the disk is full, say; the last checkpoint is kept.

    Example:
        >>> import tempfile
        >>> from gossamer.recipes import cartpole_balance
        >>> small = replace(cartpole_balance(), rounds=2, agents=5, topology="ring")
        >>> small = replace(small, algorithm=replace(small.algorithm, hidden=(8, 8)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sorted(path.name for path in train(small, Path(folder) / "run").iterdir())[:2]
        ['checkpoints', 'config.json']
    """
    _refuse_network(experiment)
    out, experiment = Path(out), with_absolute_paths(experiment)
    parts = build(experiment)
    if _seed_by_seed(experiment):
        _make_runs(experiment, out)
        with claimed(out), persistent_cache():
            return _resume_seeds(experiment, out, reporter)
    with persistent_cache(), stop_requests() as stop, closing(runtime_of(experiment, parts)) as runtime:
        create_run(out, _config(experiment, parts, runtime))
        with claimed(out):
            _start(experiment, parts, runtime, out, reporter or Silent(), stop)
    return out


def resume(run: Path | str, rounds: int | None = None, reporter: Reporter | None = None) -> Path:
    """Go on with a run from its newest checkpoint that can be read, exactly as if it had never stopped.

    Args:
        run: a folder that ``train`` made.
        rounds: a new total number of rounds; by default what the run was started with.
        reporter: shows progress.

    Returns:
        ``run``.

    Raises:
        InputError: the folder holds no run, cannot be continued, or another process writes to it; nothing is written
            then.
        Interrupted, NonFiniteParameters, UnwritableRun: as ``train``.
    """
    run = Path(run)
    experiment = load_experiment(run)
    _refuse_network(experiment)
    if rounds is not None:
        experiment = replace(experiment, rounds=rounds)
    with claimed(run), persistent_cache():
        if _seed_by_seed(experiment):
            if rounds is not None:
                _extend_seeds(experiment, run)
            return _resume_seeds(experiment, run, reporter)
        with stop_requests() as stop:
            _resume_one(run, reporter, stop, rounds)
    return run


def _config(experiment: Experiment, parts: Parts, runtime: Runtime) -> dict[str, Any]:
    return {
        "experiment": to_data(experiment),
        "resume": runtime.resumes,
        "weights_digest": _digest(parts),
        "provenance": {**provenance(), "power": _sensors()},
    }


def _sensors() -> str:
    """Whether the machine's use of power can be recorded, and if not, why."""
    with EnergyMeter() as meter:
        reading = meter.read()
    return "recorded" if reading.why_not is None else f"not available: {reading.why_not}"


def _digest(parts: Parts) -> str:
    """What tells whether a graph or a weight file has changed since a run began."""
    digest = hashlib.sha256()
    for phase in parts.weights:
        for array in (phase.indptr, phase.indices, phase.data.round(12)):
            digest.update(np.ascontiguousarray(array.astype(np.float64)).tobytes())
    return digest.hexdigest()


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


def _start(
    experiment: Experiment, parts: Parts, runtime: Runtime, out: Path, reporter: Reporter, stop: Stop
) -> None:
    """From the initial population, which is the first checkpoint."""
    folders = _make_seed_folders(experiment, _config(experiment, parts, runtime), out)
    if parts.mailbox is not None:
        mail = tree_bytes(population_shape(parts.algorithm, experiment, parts.mailbox, parts.tasks).mail)
        if mail >= 2**20:
            reporter.say(f"messages in flight and inboxes take {mail / 2**20:.1f} MiB")
    nothing = [Totals()] * len(folders)
    with reporter, _open_all(folders, nothing, [0] * len(folders), experiment.keep_best, out) as logs:
        reporter.begin(f"making {experiment.agents} agent{'s' * (experiment.agents > 1)}")
        population = runtime.start()
        _save_all(logs, runtime.saved(population), 0)
        _drive(experiment, parts, runtime, population, logs, out, reporter, stop)


def _resume_one(run: Path, reporter: Reporter | None, stop: Stop, rounds: int | None = None) -> None:
    """Go on with the run of a folder; seeds of one program go on together."""
    reporter = reporter or Silent()
    experiment = load_experiment(run)
    if rounds is not None:
        experiment = replace(experiment, rounds=rounds)
    parts = build(experiment)
    _require_same_streams(run, parts)
    folders = run_folders(run)
    with closing(runtime_of(experiment, parts)) as runtime:
        if not have_begun(folders):
            if rounds is not None:
                _extend({run, *(each for each in folders if (each / "config.json").exists())}, rounds)
            _start(experiment, parts, runtime, run, reporter, stop)
            return
        restored = restore(experiment, parts, folders)
        if experiment.rounds < restored.done:
            raise InputError(
                f"rounds is {experiment.rounds}; {run} has run {restored.done} already: give as many or more"
            )
        with _open_all(folders, restored.totals, restored.offsets, experiment.keep_best, run) as logs:
            if rounds is not None:
                _extend({run, *folders}, rounds)
            if restored.done == experiment.rounds:
                reporter.say(f"{run} has run all {restored.done} rounds; give more to go on")
                return
            if runtime.resumes == "learner-exact":
                reporter.say("learners resume exactly; simulators start new episodes")
            with reporter:
                population = runtime.restore(restored.population)
                _drive(experiment, parts, runtime, population, logs, run, reporter, stop)


def _refuse_network(experiment: Experiment) -> None:
    if experiment.runtime == "network":
        raise InputError(
            "runtime is 'network', where every agent is a process; gossamer launch, and launch --resume, run it"
        )


def _seed_by_seed(experiment: Experiment) -> bool:
    """Whether seeds are trained one after the other: threads have no axis for them."""
    return experiment.runtime != "vectorised" and experiment.seeds > 1


def _make_runs(experiment: Experiment, out: Path) -> None:
    """The folders of seeds that are trained one after the other, each a run that has not begun."""
    single = replace(experiment, seeds=1)
    parts = build(single)
    with closing(runtime_of(single, parts)) as runtime:
        config = _config(experiment, parts, runtime)
    create_run(out, config)
    _make_seed_folders(experiment, config, out)


def _resume_seeds(experiment: Experiment, out: Path, reporter: Reporter | None) -> Path:
    """Seed after seed; one that is finished already is left as it is."""
    _make_seed_folders(experiment, read_config(out), out)
    with stop_requests() as stop:
        for folder in run_folders(out):
            if stop:
                raise Interrupted(f"stopped before {folder.name}, everything saved; {_again(out)}")
            try:
                with claimed(folder):
                    _resume_one(folder, reporter, stop)
            except (Interrupted, UnwritableRun) as end:
                raise type(end)(str(end).replace(_again(folder), _again(out))) from end.__cause__
    return out


def _again(run: Path) -> str:
    """What a run that has ended early says last."""
    return f"go on with: gossamer train --resume {run}"


def _extend_seeds(experiment: Experiment, out: Path) -> None:
    """Give every seed the new number of rounds before any of them goes on, or none if one has run more already."""
    folders = run_folders(out)
    for folder in folders:
        done = max(checkpoints.rounds(folder / "checkpoints"), default=0)
        if experiment.rounds < done:
            raise InputError(
                f"rounds is {experiment.rounds}; {folder} has run {done} already: give as many or more"
            )
    _extend({out, *folders}, experiment.rounds)


def _make_seed_folders(experiment: Experiment, config: dict[str, Any], out: Path) -> list[Path]:
    """The folders of the seeds; those that an interrupted call made already are left as they are."""
    if experiment.seeds == 1:
        return [out]
    for seed in seeds_of(experiment):
        single = to_data(replace(experiment, seed=seed, seeds=1))
        if not (seed_folder(out, seed) / "config.json").exists():
            create_run(seed_folder(out, seed), {**config, "experiment": single})
    return [seed_folder(out, seed) for seed in seeds_of(experiment)]


def _extend(folders: set[Path], rounds: int) -> None:
    for folder in folders:
        config = read_config(folder)
        config["experiment"] = to_data(replace(load_experiment(folder), rounds=rounds))
        replace_config(folder, config)


@contextmanager
def _open_all(
    folders: list[Path], totals: list[Totals], offsets: list[int], keep_best: bool, run: Path
) -> Iterator[list[RunLog]]:
    for folder, offset in zip(folders, offsets, strict=True):
        require_recorded(folder / "metrics.jsonl", offset)
    with ExitStack() as stack:
        logs = []
        for folder in folders if len(folders) > 1 else ():  # seeds may also be resumed by their own folders
            stack.enter_context(claimed(folder))
        for folder, total, offset in zip(folders, totals, offsets, strict=True):
            logs.append(RunLog(folder, total, offset, keep_best, _again(run)))
            stack.callback(logs[-1].close)
        yield logs


def _drive(
    experiment: Experiment,
    parts: Parts,
    runtime: Runtime,
    population: Population,
    logs: list[RunLog],
    out: Path,
    reporter: Reporter,
    stop: Stop,
) -> None:
    """The loop: some rounds, their rows to the logs, a checkpoint where one is due."""
    done, every = int(population.round), experiment.record_every
    pace, pending, started = _Pace(), None, time.perf_counter()
    reporter.begin("compiling the round")
    with EnergyMeter() as meter:
        while done < experiment.rounds:
            length = min(pace.rounds, runtime.most_rounds(every), _to_boundary(done, experiment))
            if stop:
                length = min(length, every - done % every)
            if experiment.runtime == "vectorised":
                started = time.perf_counter()  # in threads work goes on while lines are written
            population, reports = runtime.advance(population, length, every)
            elapsed = time.perf_counter() - started
            started += elapsed
            done += length
            complete, pending = _merge(pending, _timed(reports, elapsed, _used(meter.read())), every)
            tests = _tests(experiment, parts, population, done)
            _write_rows(parts, logs, complete, done - (pending.report.rounds if pending else 0), tests)
            _require_finite(reports, parts, done - length, logs)
            pace.learn(length, elapsed)
            reporter.show(_status(experiment, reports, done, elapsed, pace))
            # A row that is half written would be another one after a resume.
            stopping = bool(stop) and pending is None
            if done == experiment.rounds or done % experiment.checkpoint_every == 0 or stopping:
                _save_all(logs, runtime.saved(population), done)
            if stopping and done < experiment.rounds:
                raise Interrupted(
                    f"stopped after round {done} of {experiment.rounds}, everything saved; {_again(out)}"
                )


def _timed(reports: list[Report], elapsed: float, power: dict[str, float] | None) -> list[Timed]:
    rounds = sum(report.rounds for report in reports)
    return [Timed(report, elapsed * report.rounds / rounds, power) for report in reports]


def _used(reading: PowerReading) -> dict[str, float] | None:
    """What the machine's sensors say since this process took the run up; nothing where there are none."""
    known = {name: value for name, value in reading._asdict().items() if isinstance(value, float)}
    return known if len(known) > 1 else None  # time alone is no power


def _merge(pending: Timed | None, new: list[Timed], every: int) -> tuple[list[Timed], Timed | None]:
    """Reports of ``every`` rounds each, and the last one if more of its rounds are to come."""
    if pending is not None:
        first, *new = new
        both = pending.report.and_then(first.report)
        new = [Timed(both, pending.seconds + first.seconds, first.power), *new]
    if new[-1].report.rounds < every:
        return new[:-1], new[-1]
    return new, None


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
            # At most twice as many: one chunk that went fast says little of the next.
            self.rounds = max(1, min(2 * rounds, int(rounds * _SECONDS_PER_CHUNK / seconds)))
        self._compiled = True

    def seconds_left(self, rounds: int) -> float | None:
        """How long some rounds will take, as far as is known."""
        return None if self._seconds_per_round is None else rounds * self._seconds_per_round


def _to_boundary(done: int, experiment: Experiment) -> int:
    """Rounds until the next checkpoint, the next test or the end."""
    regular = (experiment.checkpoint_every, experiment.test_every)
    return min(experiment.rounds - done, *(each - done % each for each in regular if each is not None))


def _tests(experiment: Experiment, parts: Parts, population: Any, done: int) -> list[dict[str, Any]]:
    """What each seed's next line says of a test, where one is due: greedy episodes of all agents in their own tasks.

    Initial states are drawn from the run's seed and the round, as those of an agent that there is not, so that an
    interruption changes none and no training has them.
    """
    if experiment.test_every is None or done % experiment.test_every:
        return []
    returns = play_own_tasks(
        parts.algorithm,
        population.learner.params,
        parts.tasks,
        jax.vmap(agent_key, in_axes=(0, None, None))(parts.seeds, jnp.asarray(_TESTER), jnp.asarray(done)),
        parts.environment,
        experiment.test_episodes,
        greedy=True,
    )
    index = parts.task_index.ravel()
    each = [np.asarray(seed).mean(-1).ravel() for seed in returns]
    by_task = [np.bincount(index, weights=of) / np.bincount(index) for of in each]
    return [{"test": {"episodic_return": float(of.mean()), "task_return": of.tolist()}} for of in by_task]


def _write_rows(
    parts: Parts, logs: list[RunLog], reports: list[Timed], done: int, tests: list[dict[str, Any]]
) -> None:
    first = done - sum(each.report.rounds for each in reports)
    for index, log in enumerate(logs):
        rows = record_rows(parts, reports, index, first, log.totals)
        if tests and len(rows) == len(reports):
            rows[-1] |= tests[index]
        log.append(rows)


def _require_finite(reports: list[Report], parts: Parts, done: int, logs: list[RunLog]) -> None:
    for report in reports:
        bad = np.argwhere(~report.record.finite)
        if len(bad):
            seed, agent = bad[0]
            folder = logs[seed].folder
            kept = checkpoints.rounds(folder / "checkpoints")[-1]
            last = done + report.rounds
            when = f"round {last}" if report.rounds == 1 else f"rounds {done + 1} to {last}"
            raise NonFiniteParameters(
                f"agent {agent} of seed {int(parts.seeds[seed])} has parameters that are not finite in {when}; "
                f"the run stopped and the checkpoint of round {kept} in {folder} is kept "
                "(a lower learning rate may help)"
            )
        done += report.rounds


def _status(experiment: Experiment, reports: list[Report], done: int, elapsed: float, pace: _Pace) -> Status:
    steps = sum(report.record.agents.env_steps.sum() for report in reports)
    finished = [report.record.agents.finished for report in reports]
    episodes = sum(each.episodes.sum() for each in finished)
    return Status(
        round=done,
        rounds=experiment.rounds,
        env_steps_per_second=float(steps) / elapsed,
        mean_return=float(sum(each.returns.sum() for each in finished) / episodes) if episodes else None,
        consensus_distance=float(reports[-1].record.consensus_distance.mean()),
        seconds_left=pace.seconds_left(experiment.rounds - done),
    )


def _save_all(logs: list[RunLog], population: Population, done: int) -> None:
    state = jax.device_get(
        tuple(population)[:-1]
    )  # indexed on the host: on the device each shape is a program
    for index, log in enumerate(logs):
        log.save(done, jax.tree.map(lambda leaf, i=index: leaf[i], state))
