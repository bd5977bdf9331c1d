"""What populations learn: trains the variants of an experiment, exports their curves and draws them.

    python -m benchmarks.learning balance [--seeds 5] [--rounds 300]
    python -m benchmarks.learning pendulum --seeds 1
    python -m benchmarks.learning swingup --seeds 1
    python -m benchmarks.learning pong --seeds 1

On the pendulum and on swing-up, what the paper leaves open is tried: how many episodes for an update, one averaged
update or one for each transition, what the actor's softplus output is, the scale of rewards, and initial parameters.
All variants have as many episodes, except that with an update for each transition, which has a fiftieth of them and
four times the updates.

Runs lie in ``runs/learning`` and are resumed where an earlier call was interrupted; ``--as-it-is`` summarises how far
they have come. What is worth keeping goes to ``results/EXPERIMENT``: a CSV file per variant with every seed's rounds,
``summary.json`` and ``curves.png``.
"""

import argparse
import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.control import machine
from benchmarks.successive import SuccessiveSiAC
from gossamer import evaluate, plot, resume, train
from gossamer.analysis import bootstrap_interval
from gossamer.experience import Episodes
from gossamer.experiment import Experiment
from gossamer.recipes import cartpole_balance, cartpole_swingup, centralised, gala_pong, pendulum
from gossamer.runs.description import load_experiment
from gossamer.runs.folder import read_metrics, write_json
from gossamer.runs.progress import Lines
from gossamer.runs.restore import run_folders

LAST = 20
COLUMNS = ("round", "env_steps", "episodic_return", "consensus_distance")
RECIPES: dict[str, Callable[[], Experiment]] = {
    "balance": cartpole_balance,
    "pendulum": pendulum,
    "swingup": cartpole_swingup,
    "pong": gala_pong,
}


def variants(name: str) -> dict[str, Experiment]:
    """The trainings that are compared, by label."""
    diffusion = RECIPES[name]()
    if name == "pong":
        # 4 simulators for each learner and not 16, with the learning rate of 16 in all and RMSProp's usual ε: what
        # two cores can play in an hour or two
        a2c = replace(diffusion.algorithm, learning_rate=7e-4, epsilon=1e-5)
        few = replace(
            diffusion, algorithm=a2c, copies=4, rounds=60_000, record_every=50, checkpoint_every=500
        )
        return {"gala-a2c, 4 learners with 4 simulators": few}
    both = {"diffusion": diffusion, "centralised": centralised(diffusion)}
    deviation = replace(diffusion.algorithm, spread="standard_deviation")
    both |= {
        "diffusion, shared initial parameters": replace(diffusion, initial_parameters="shared"),
        "diffusion, softplus is the deviation": replace(diffusion, algorithm=deviation),
    }
    if name == "balance":
        by_task = replace(diffusion.algorithm, weighting="tasks")
        return both | {"centralised, task-mean gradients": replace(centralised(diffusion), algorithm=by_task)}
    tenth = replace(diffusion.algorithm, reward_scale=0.1)
    averaged = {
        f"{kind}, mean of 25 networks": replace(each, initial_parameters="averaged")
        for kind, each in (("diffusion", diffusion), ("centralised", centralised(diffusion)))
    }
    successive = SuccessiveSiAC()
    return (
        both
        | averaged
        | {
            "diffusion, a tenth of rewards": replace(diffusion, algorithm=tenth),
            "diffusion, updates after every fifth episode": replace(diffusion, experience=Episodes(5)),
            "diffusion, an update for each transition": replace(diffusion, algorithm=successive),
        }
    )


def rounds_of(experiment: Experiment, rounds: int) -> int:
    """As many as have the episodes of ``rounds`` with one each; a fiftieth where each transition is an update."""
    if isinstance(experiment.algorithm, SuccessiveSiAC):
        return max(rounds // 50, 1)
    if isinstance(experiment.experience, Episodes):
        return max(rounds // experiment.experience.episodes_per_environment, 1)
    return rounds


def complete(label: str, experiment: Experiment, run: Path) -> Path:
    """Train a variant, or go on where an earlier call stopped."""
    if not (run / "config.json").exists():
        return train(experiment, run, Lines(label, seconds=20))
    begun = load_experiment(run)
    if replace(begun, rounds=experiment.rounds) != experiment:
        raise SystemExit(f"{run} was begun with other choices; move it away, or choose another --runs")
    return resume(run, max(experiment.rounds, begun.rounds), Lines(label, seconds=20))


def export(run: Path, path: Path) -> None:
    """Every seed's rounds as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("seed", *COLUMNS))
        for folder in run_folders(run):
            seed = load_experiment(folder).seed
            writer.writerows(
                (seed, *("" if row[column] is None else f"{row[column]:.6g}" for column in COLUMNS))
                for row in read_metrics(folder / "metrics.jsonl")
            )


def mean_return(rows: list[dict[str, Any]]) -> float:
    """Over all episodes that ended in some lines of the metrics."""
    ended = [row for row in rows if row["episodes"]]
    total = sum(row["episodes"] * row["episodic_return"] for row in ended)
    return total / sum(row["episodes"] for row in ended)


def summarise(run: Path) -> dict[str, Any]:
    """Training return of the last rounds of every seed, its mean and interval, and a greedy evaluation."""
    rows = [read_metrics(folder / "metrics.jsonl") for folder in run_folders(run)]
    some = max(min(LAST, len(rows[0]) // 10), 1)
    last = [mean_return(seed[-some:]) for seed in rows]
    first = [mean_return(seed[:some]) for seed in rows]
    low, high = bootstrap_interval(np.array(last)[:, None])
    greedy = evaluate(run)
    return {
        "rounds": rows[0][-1]["round"],
        "first_and_last_lines": some,
        "env_steps": rows[0][-1]["env_steps"],
        "return_first_rounds_per_seed": first,
        "return_last_rounds_per_seed": last,
        "return_last_rounds_mean": float(np.mean(last)),
        "return_last_rounds_interval_95": [float(low[0]), float(high[0])],
        "greedy_mean_per_seed": greedy.returns.mean((1, 2, 3)).tolist(),
        "greedy_worst_task_mean": float(greedy.all.min()),
        "greedy_per_task": greedy.all.tolist(),
        "seconds": float(sum(seed[-1]["time"]["seconds"] for seed in rows) / len(rows)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=RECIPES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, help="by default the recipe's")
    parser.add_argument("--as-it-is", action="store_true", help="train no further")
    parser.add_argument("--runs", type=Path, default=Path("runs/learning"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    results = arguments.results / arguments.experiment
    results.mkdir(parents=True, exist_ok=True)
    runs, summaries = {}, {}
    trainings = variants(arguments.experiment)
    rounds = arguments.rounds or next(iter(trainings.values())).rounds
    for label, experiment in trainings.items():
        stem = label.replace(", ", "-").replace(" ", "-")
        experiment = replace(experiment, rounds=rounds_of(experiment, rounds), seeds=arguments.seeds)
        runs[label] = arguments.runs / arguments.experiment / stem
        if not arguments.as_it_is:
            complete(label, experiment, runs[label])
        export(runs[label], results / f"{stem}.csv")
        summaries[label] = summarise(runs[label])
        print(json.dumps({label: summaries[label]["return_last_rounds_per_seed"]}), flush=True)
        command = f"python -m benchmarks.learning {arguments.experiment}"
        command += f" --seeds {arguments.seeds} --rounds {rounds}"
        command += " --as-it-is" * arguments.as_it_is
        write_json(
            results / "summary.json",
            {"command": command, "machine": machine(), "last_rounds": LAST, "variants": summaries},
        )
    # Variants of the pendulum and of swing-up have as many episodes, not as many rounds.
    abscissa = "env_steps" if arguments.experiment in ("pendulum", "swingup") else "rounds"
    title = "Pong" if arguments.experiment == "pong" else f"{arguments.experiment}, 25 tasks"
    print(plot(list(runs.values()), results / "curves.png", list(runs), abscissa=abscissa, title=title))


if __name__ == "__main__":
    main()
