"""Trains an experiment in a new run folder, or resumes one: makes the folders, and hands runtimes to the driver."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gossamer.diagnostics.energy import EnergyMeter
from gossamer.errors import InputError
from gossamer.evaluation.rollouts import play_own_tasks
from gossamer.experiment import Experiment
from gossamer.runs import checkpoints
from gossamer.runs.description import load_experiment
from gossamer.runs.driver import drive, save
from gossamer.runs.folder import (
    create_run,
    provenance,
    read_config,
    replace_config,
    require_recorded,
)
from gossamer.runs.lock import claimed
from gossamer.runs.log import RunLog
from gossamer.runs.metrics import Totals
from gossamer.runs.progress import Reporter, Silent
from gossamer.runs.restore import have_begun, restore, run_folders, saved_shape, seed_folder, seeds_of
from gossamer.runs.serialization import to_data
from gossamer.runtimes.build import (
    Parts,
    build,
    population_shape,
    tree_bytes,
    with_absolute_paths,
)
from gossamer.runtimes.choice import runtime_of
from gossamer.runtimes.protocol import Runtime
from gossamer.runtimes.rounds import agent_key
from gossamer.system.compilation_cache import persistent_cache
from gossamer.system.signals import Interrupted, Stop, stop_requests

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
        InputError: The experiment is invalid, or ``out`` is not an empty directory. Nothing is written.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was saved.
        NonFiniteParameters: learning diverged, of one seed at least, which ends them all; the last checkpoint is kept,
            and each other seed can be resumed by its own folder.
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
            _start(experiment, parts, runtime, out, reporter or Silent(), stop, out)
    return out


def resume(run: Path | str, rounds: int | None = None, reporter: Reporter | None = None) -> Path:
    """Resume a run from its newest readable checkpoint, exactly as if it had never stopped.

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
    """Refuse to resume with other weights or another random number generator than the run began with."""
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
    experiment: Experiment,
    parts: Parts,
    runtime: Runtime,
    out: Path,
    reporter: Reporter,
    stop: Stop,
    resumed_by: Path,
) -> None:
    """Run from the initial population, which is the first checkpoint."""
    folders = _make_seed_folders(experiment, _config(experiment, parts, runtime), out)
    if parts.mailbox is not None:
        mail = tree_bytes(population_shape(parts.algorithm, experiment, parts.mailbox, parts.tasks).mail)
        if mail >= 2**20:
            reporter.say(f"messages in flight and inboxes take {mail / 2**20:.1f} MiB")
    nothing = [Totals()] * len(folders)
    with reporter, _open_all(folders, nothing, [0] * len(folders), experiment.keep_best, resumed_by) as logs:
        reporter.begin(f"making {experiment.agents} agent{'s' * (experiment.agents > 1)}")
        population = runtime.start()
        save(logs, runtime.saved(population))
        reporter.begin("compiling the round")
        test = partial(_tests, experiment, parts)
        drive(experiment, parts, runtime, population, logs, reporter, stop, test=test)


def _resume_one(
    run: Path,
    reporter: Reporter | None,
    stop: Stop,
    rounds: int | None = None,
    resumed_by: Path | None = None,
) -> None:
    """Resume the run of a folder; seeds of one program resume together.

    ``resumed_by`` is the folder to give to ``resume`` after an interruption, where it is not ``run``.
    """
    reporter, resumed_by = reporter or Silent(), resumed_by or run
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
            _start(experiment, parts, runtime, run, reporter, stop, resumed_by)
            return
        restored = restore(saved_shape(experiment, parts), folders)
        if experiment.rounds < restored.done:
            raise InputError(
                f"rounds is {experiment.rounds}; {run} has run {restored.done} already: give as many or more"
            )
        with _open_all(folders, restored.totals, restored.offsets, experiment.keep_best, resumed_by) as logs:
            if rounds is not None:
                _extend({run, *folders}, rounds)
            if restored.done == experiment.rounds:
                reporter.say(f"{run} has run all {restored.done} rounds; give more to go on")
                return
            if runtime.resumes == "learner-exact":
                reporter.say("learners resume exactly; simulators start new episodes")
            with reporter:
                population = runtime.restore(restored.population)
                reporter.begin("compiling the round")
                test = partial(_tests, experiment, parts)
                drive(experiment, parts, runtime, population, logs, reporter, stop, test=test)


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
                raise Interrupted(f"stopped before {folder.name}; resume with: {_resume_command(out)}")
            with claimed(folder):
                _resume_one(folder, reporter, stop, resumed_by=out)
    return out


def _resume_command(run: Path) -> str:
    return f"gossamer train --resume {run}"


def _extend_seeds(experiment: Experiment, out: Path) -> None:
    """Give every seed the new number of rounds before any is resumed, or none if one has run more already."""
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
    folders: list[Path], totals: list[Totals], offsets: list[int], keep_best: bool, resumed_by: Path
) -> Iterator[list[RunLog]]:
    for folder, offset in zip(folders, offsets, strict=True):
        require_recorded(folder / "metrics.jsonl", offset)
    with ExitStack() as stack:
        logs = []
        for folder in folders if len(folders) > 1 else ():  # seeds may also be resumed by their own folders
            stack.enter_context(claimed(folder))
        for folder, total, offset in zip(folders, totals, offsets, strict=True):
            logs.append(RunLog(folder, total, offset, keep_best, _resume_command(resumed_by)))
            stack.callback(logs[-1].close)
        yield logs


def _tests(experiment: Experiment, parts: Parts, population: Any, done: int) -> list[dict[str, Any]]:
    """Results of a test of each seed, if one is due: greedy episodes of all agents in their own tasks.

    Initial states are drawn from the run's seed and the round with the number of no agent, so that an interruption
    changes none and no training has them.
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
