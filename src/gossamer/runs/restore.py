"""Reads back what a run has saved: its population for evaluation, or its whole state to resume."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gossamer.errors import InputError
from gossamer.experiment import Experiment, on_host
from gossamer.runs import checkpoints
from gossamer.runs.description import load_experiment
from gossamer.runs.log import BEST, has_begun
from gossamer.runs.metrics import Totals
from gossamer.runtimes.build import Parts, build, population_shape, require_memory
from gossamer.runtimes.choice import runtime_of
from gossamer.runtimes.vectorised import Population


def run_folders(run: Path) -> list[Path]:
    """The run folders of one training: the folder itself, or its ``seed-K`` folders in order of K.

    Raises:
        InputError: the folder holds no run.
    """
    experiment = load_experiment(run)
    if experiment.seeds == 1:
        return [run]
    return [seed_folder(run, seed) for seed in seeds_of(experiment)]


def restore_population(run: Path, best: bool = False) -> tuple[Experiment, Parts, Population]:
    """A run's experiment, its parts, and its population ``[seed, agent, ...]`` at the newest checkpoint.

    Args:
        run: a folder that ``train`` made.
        best: take each seed's best checkpoint, wherever in training it was.

    Raises:
        InputError: there is no run, or no such checkpoint.
    """
    experiment = load_experiment(run)
    parts = build(experiment)
    require_memory(experiment, parts)  # also where agents were processes, each on a machine of its own
    folders = run_folders(run)
    if not have_begun(folders):
        raise InputError(f"{run} holds no checkpoint yet; wait until its first one is written")
    if best:
        return experiment, parts, _restore_best(experiment, parts, folders)
    return experiment, parts, restore(saved_shape(experiment, parts), folders).population


class Restored(NamedTuple):
    """Where a run stands on disk: its state, and for each seed what it has used and how long its metrics were."""

    population: Population
    totals: list[Totals]
    offsets: list[int]

    @property
    def done(self) -> int:
        """Rounds done."""
        return int(self.population.round)


def restore(like: Any, folders: list[Path]) -> Restored:
    """The newest state that every seed has.

    Args:
        like: shapes and dtypes of a checkpoint, from ``saved_shape`` or ``shape_of``.
        folders: of each seed.
    """
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
    state = jax.tree.map(_stacked, *(each.state for each in saved))
    totals = [Totals(each.metadata["env_steps"], each.metadata["seconds"]) for each in saved]
    offsets = [each.metadata["metrics_offset"] for each in saved]
    return Restored(Population(*state, round=jnp.asarray(common, jnp.int32)), totals, offsets)


def seeds_of(experiment: Experiment) -> range:
    """All seeds of an experiment."""
    return range(experiment.seed, experiment.seed + experiment.seeds)


def seed_folder(out: Path, seed: int) -> Path:
    """The run folder of one of several seeds."""
    return out / f"seed-{seed}"


def have_begun(folders: list[Path]) -> bool:
    """Whether every one of these run folders has something to resume from."""
    return all(has_begun(folder) for folder in folders)


def _restore_best(experiment: Experiment, parts: Parts, folders: list[Path]) -> Population:
    missing = [folder for folder in folders if not checkpoints.rounds(folder / BEST)]
    if missing:
        raise InputError(
            f"{missing[0]} holds no best checkpoint: it was trained without keep_best (--keep-best), or no "
            "episode has ended yet"
        )
    like = saved_shape(experiment, parts)
    saved = [checkpoints.restore_newest(folder / BEST, like) for folder in folders]
    state = jax.tree.map(_stacked, *(each.state for each in saved))
    return Population(*state, round=jnp.asarray(max(each.round for each in saved), jnp.int32))


def _stacked(*leaves: Any) -> Any:
    if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
        return jnp.stack(leaves)
    stacked = np.stack(
        [np.asarray(leaf) for leaf in leaves]
    )  # by numpy: ``jnp`` compiles a program for each shape
    return stacked if isinstance(leaves[0], np.ndarray) else jax.device_put(stacked, may_alias=False)


def saved_shape(experiment: Experiment, parts: Parts) -> Any:
    """Shapes and dtypes of a checkpoint of one seed: learners, environments and mail."""
    population = population_shape(parts.algorithm, experiment, parts.mailbox, parts.tasks)
    if on_host(parts.environment) or experiment.runtime != "vectorised":
        single = parts._replace(seeds=parts.seeds[:1])
        with closing(runtime_of(replace(experiment, seeds=1), single)) as runtime:
            population = runtime.saved(runtime.start())
    return shape_of(population)


def shape_of(population: Population) -> Any:
    """Shapes and dtypes of a checkpoint of one of a population's seeds.

    What lives on the host is an array of the host, whose double precision a device would lose.
    """

    def shape(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            return np.empty(leaf.shape[1:], leaf.dtype)
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)

    return jax.tree.map(shape, tuple(population)[:-1])
