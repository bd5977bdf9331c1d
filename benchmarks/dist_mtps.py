"""Tunes Dist-MTPS on cart-pole balance, on seeds that no figure uses.

    python -m benchmarks.dist_mtps [--grid-rounds 60] [--rounds 200] [--seeds 3] [--grid-of FILE]

First every combination of some hyper-parameters, in short trainings. Then, in trainings as long as figure 3's at the
paper's scale, a pattern search from the best of them: each hyper-parameter one step up or down, beyond the grid's edge
too, as long as that is better. Each choice is scored by the greedy return over the 25 tasks at the end, mean over
seeds; beside it stands the training return, mean over all rounds. Prints the best and writes all to
``benchmarks/results/dist_mtps.json``; with --grid-of the grid is taken from such a file.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.control import machine
from gossamer.algorithms.dist_mtps import Search
from gossamer.evaluation.rollouts import play_own_tasks
from gossamer.experiment import Experiment
from gossamer.recipes import cartpole_balance, dist_mtps
from gossamer.runs.folder import write_json
from gossamer.runtimes.build import build
from gossamer.runtimes.lockstep import VectorisedRuntime

FIRST_SEED = 1000
STEP = 10**0.5  # between two values of a hyper-parameter; the number of columns changes by one
MOST = 60  # choices that a pattern search tries
SHOWN = 8
SHARED: dict[str, tuple[Any, ...]] = {
    "latent": (1, 2, 3),
    "penalty": (0.01, 0.1, 1.0),
    "coefficient_regulariser": (0.001, 0.1),
}
GRIDS: dict[Search, dict[str, tuple[Any, ...]]] = {
    "reinforce": SHARED | {"step_size": (3.0, 10.0, 30.0), "exploration": (1.0, 3.0, 6.0)},
    "power": SHARED | {"exploration": (3.0, 10.0, 30.0), "ridge": (0.001, 0.1)},
}


def combinations(search: Search) -> Iterator[dict[str, Any]]:
    """Of the values of a search's grid."""
    grid = GRIDS[search]
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def neighbours(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One hyper-parameter a step up or down."""
    for name, value in choice.items():
        if name == "latent":
            steps = [value + 1, max(value - 1, 1)]
        else:
            steps = [float(f"{changed:.2g}") for changed in (value * STEP, value / STEP)]
        yield from ({**choice, name: changed} for changed in steps)


def pattern_search(
    start: dict[str, Any], of: Callable[[dict[str, Any]], dict[str, Any]]
) -> list[dict[str, Any]]:
    """From a choice to better ones next to it, until none of them is better; all that were tried, the best first."""
    tried = {json.dumps(start): {**start, **of(start)}}
    best = start
    while len(tried) < MOST:
        for near in neighbours(best):
            key = json.dumps(near)
            if key not in tried:
                tried[key] = {**near, **of(near)}
                print(f"  {near} {tried[key]['greedy']:g}", flush=True)
        top = max(tried.values(), key=lambda row: row["greedy"])
        found = {name: top[name] for name in start}
        if found == best:
            break
        best = found
    return sorted(tried.values(), key=lambda row: -row["greedy"])


def score(experiment: Experiment) -> dict[str, Any]:
    """Greedy return at the end of each seed, and mean return in training."""
    parts = build(experiment)
    runtime = VectorisedRuntime(experiment, parts)
    population, reports = runtime.advance(runtime.start(), experiment.rounds, experiment.rounds)
    (report,) = reports
    finished = report.record.agents.finished
    greedy = play_own_tasks(
        parts.algorithm,
        population.learner.params,
        parts.tasks,
        jax.random.split(jax.random.key(0), experiment.seeds),
        parts.environment,
        10,
        True,
    )
    each = np.asarray(greedy).mean((1, 2, 3))
    training = finished.returns.sum(-1).mean(-1) / finished.episodes.sum(-1).mean(-1)
    return {
        "greedy": float(each.mean()),
        "greedy_per_seed": each.tolist(),
        "greedy_worst_task": float(np.asarray(greedy).mean((0, 2, 3)).min()),
        "training": float(training.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grid-rounds", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--grid-of", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/dist_mtps.json"))
    arguments = parser.parse_args()
    known = {} if arguments.grid_of is None else json.loads(arguments.grid_of.read_text())["grids"]
    grids: dict[str, list[dict[str, Any]]] = {}
    searches: dict[str, list[dict[str, Any]]] = {}
    for search in GRIDS:
        base = replace(dist_mtps(cartpole_balance(), search), seed=FIRST_SEED, seeds=arguments.seeds)

        def of(choice: dict[str, Any], rounds: int = arguments.rounds, base: Experiment = base) -> Any:
            return score(replace(base, rounds=rounds, algorithm=replace(base.algorithm, **choice)))

        grids[search] = known.get(search) or sorted(
            ({**choice, **of(choice, arguments.grid_rounds)} for choice in combinations(search)),
            key=lambda row: -row["greedy"],
        )
        show(f"{search}: the best {SHOWN} of the grid", GRIDS[search], grids[search])
        searches[search] = pattern_search({name: grids[search][0][name] for name in GRIDS[search]}, of)
        show(f"{search}: the best {SHOWN} of the search from there", GRIDS[search], searches[search])
    command = (
        f"python -m benchmarks.dist_mtps --grid-rounds {arguments.grid_rounds} --rounds {arguments.rounds} "
        f"--seeds {arguments.seeds}"
    )
    results = {"command": command, "machine": machine(), "grids": grids, "searches": searches}
    write_json(arguments.out, results)


def show(title: str, names: Iterable[str], rows: Sequence[dict[str, Any]]) -> None:
    """Print the best choices."""
    print(title)
    for row in rows[:SHOWN]:
        print(
            "  " + "  ".join(f"{name} {row[name]:g}" for name in [*names, "greedy", "training"]), flush=True
        )


if __name__ == "__main__":
    main()
