"""Tunes Dist-MTPS on cart-pole balance: every combination of some hyper-parameters, on seeds that no figure uses.

    python -m benchmarks.dist_mtps [--rounds 100] [--seeds 3]

Each search is scored by the greedy return over the 25 tasks at the end, mean over seeds; beside it stands the training
return, mean over all rounds. Prints the best and writes all to ``benchmarks/results/dist_mtps.json``.
"""

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.control import machine
from gossamer.algorithms.dist_mtps import Search
from gossamer.engines.lockstep import DeviceEngine
from gossamer.experiment import Experiment, build
from gossamer.play import play_own_tasks
from gossamer.recipes import cartpole_balance, dist_mtps
from gossamer.records import write_json

FIRST_SEED = 1000
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


def score(experiment: Experiment) -> dict[str, Any]:
    """Greedy return at the end of each seed, and mean return in training."""
    parts = build(experiment)
    engine = DeviceEngine(experiment, parts)
    population, reports = engine.advance(engine.start(), experiment.rounds, experiment.rounds)
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
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/dist_mtps.json"))
    arguments = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {}
    for search in GRIDS:
        base = dist_mtps(cartpole_balance(), search)
        base = replace(base, rounds=arguments.rounds, seed=FIRST_SEED, seeds=arguments.seeds)
        rows = [
            {**choice, **score(replace(base, algorithm=replace(base.algorithm, **choice)))}
            for choice in combinations(search)
        ]
        results[search] = sorted(rows, key=lambda row: -row["greedy"])
        print(f"{search}: the best {SHOWN} of {len(rows)}")
        for row in results[search][:SHOWN]:
            print(
                "  " + "  ".join(f"{name} {row[name]:g}" for name in [*GRIDS[search], "greedy", "training"])
            )
    command = f"python -m benchmarks.dist_mtps --rounds {arguments.rounds} --seeds {arguments.seeds}"
    write_json(arguments.out, {"command": command, "machine": machine(), "searches": results})


if __name__ == "__main__":
    main()
