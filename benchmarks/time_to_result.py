"""How many seconds until 25 tasks are learned: ours beside Stable-Baselines3's and skrl's learners on the same tasks.

    python -m benchmarks.time_to_result [--environment cartpole|acrobot] [--seeds 3] [--limit 300]

A contender has reached the result once greedy episodes, 10 of each task, return 190 on cart-pole balance (200 is all
there is), or -100 on Extreme Acrobot, in the mean over the tasks. Of our 25 agents each is tested in its own task, of
one centralised learner, ours or a peer's, the one policy in all. Seconds are counted in a process of its own from the
end of its imports: making learner and simulators, compiling, collecting and learning. Evaluations, every 10,000
env-steps on cart-pole and every 30,000 on Acrobot, are counted apart and left out for all alike, and so is the time
until imports are over. Who has not reached it after ``--limit`` seconds gives up; a median over seeds is none if most
gave up. Contenders take turns, on all cores.

All have networks of 2×64 and 25 simulators, which are our compiled ones for everybody: peers step all tasks at once
through ``gossamer_gymnasium``. What each learns with stands in ``benchmarks/peer_programs/*_until.py``: peers have
their defaults; of ours on cart-pole widths and the actor's learning rate were chosen for speed.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.control import machine, show
from benchmarks.peers import ask, available_cores, python_of
from benchmarks.tables import RESULTS, publish

AROUND = 1000.0  # seconds at most for imports and evaluations
OURS = "gossamer, 25 agents"


@dataclass(frozen=True)
class Goal:
    """The return to reach, env-steps between evaluations, and the seconds in which ours should be there, if any."""

    mean_return: float
    every: int
    most_seconds: float | None = None


@dataclass(frozen=True)
class Contender:
    """A program and what to ask of it; ``venv`` is that of a peer, or ours."""

    name: str
    program: str
    arguments: tuple[str, ...] = ()
    venv: str | None = None


@dataclass(frozen=True)
class Attempt:
    """What one process told: seconds until the goal, None if it gave up, and the curve up to there."""

    environment: str
    contender: Contender
    seed: int
    told: dict[str, Any]


GOALS = {"cartpole": Goal(190.0, 10_000, most_seconds=60.0), "acrobot": Goal(-100.0, 30_000)}
CONTENDERS = (
    Contender(OURS, "gossamer_until", ("diffusion",)),
    Contender("gossamer, centralised", "gossamer_until", ("centralised",)),
    Contender("stable-baselines3, A2C", "sb3_until", ("a2c",), "sb3"),
    Contender("stable-baselines3, PPO", "sb3_until", ("ppo",), "sb3"),
    Contender("skrl, A2C", "skrl_until", (), "skrl"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--environment", choices=GOALS, help="one only; both by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--limit", type=float, default=300.0, help="seconds of training; then a contender gives up"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "time_to_result.json")
    arguments = parser.parse_args()
    environments = [arguments.environment] if arguments.environment else list(GOALS)
    attempts = try_all(environments, arguments.seeds, arguments.limit)
    rows = compare(attempts)
    chosen = f" --environment {arguments.environment}" if arguments.environment else ""
    result = {
        "command": f"python -m benchmarks.time_to_result{chosen} --seeds {arguments.seeds} --limit {arguments.limit:g}",
        "machine": machine() | {"cores_available": len(available_cores()), "peers": versions(attempts)},
        "limit_seconds": arguments.limit,
        "results": rows,
        "targets": [judge(row, GOALS[row["environment"]]) for row in rows if is_judged(row)],
        "attempts": [
            {
                "environment": each.environment,
                "contender": each.contender.name,
                "seed": each.seed,
                **each.told,
            }
            for each in attempts
        ],
    }
    show("machine", [result["machine"]])
    show("seconds until the goal", rows)
    show("targets", result["targets"])
    publish(result, arguments.out)


def try_all(environments: Sequence[str], seeds: int, limit: float) -> list[Attempt]:
    """One process after the other, all contenders in turn."""
    pythons = {venv: python_of(venv) for venv in {each.venv for each in CONTENDERS}}
    attempts = []
    for environment in environments:
        for seed in range(seeds):
            for contender in CONTENDERS:
                print(f"{environment}, seed {seed}: {contender.name}", file=sys.stderr)
                attempts.append(attempt(environment, contender, pythons[contender.venv], seed, limit))
    return attempts


def attempt(environment: str, contender: Contender, python: Path, seed: int, limit: float) -> Attempt:
    """One training from nothing, on all cores."""
    goal = GOALS[environment]
    choices = {"--seed": seed, "--target": goal.mean_return, "--every": goal.every, "--limit": limit}
    named = (str(part) for pair in choices.items() for part in pair)
    started = time.time()
    asked = (environment, *contender.arguments, *named)
    told = ask(python, contender.program, asked, available_cores(), limit + AROUND)
    told["import_seconds"] = told.pop("began") - started
    return Attempt(environment, contender, seed, told)


def compare(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Medians over seeds, all values, and ratios of medians to ours."""
    groups: dict[tuple[str, str], list[Attempt]] = {}
    for each in attempts:
        groups.setdefault((each.environment, each.contender.name), []).append(each)
    medians = {key: median_seconds(group) for key, group in groups.items()}
    return [
        {
            "environment": environment,
            "contender": name,
            "seconds": _or_none(medians[environment, name]),
            "reached": f"{sum(each.told['seconds'] is not None for each in group)} of {len(group)}",
            "seconds_each": [each.told["seconds"] for each in group],
            "env_steps_each": [each.told["env_steps"] for each in group],
            "best_return_each": [each.told["best_return"] for each in group],
            "ratio_to_ours": ratio(medians[environment, name], medians.get((environment, OURS), math.inf)),
        }
        for (environment, name), group in groups.items()
    ]


def median_seconds(group: Iterable[Attempt]) -> float:
    """Infinite if most gave up."""
    each = (attempt.told["seconds"] for attempt in group)
    return statistics.median(math.inf if seconds is None else seconds for seconds in each)


def ratio(seconds: float, ours: float) -> float | None:
    """How many times as long as ours; None where either never got there."""
    return seconds / ours if math.isfinite(seconds) and math.isfinite(ours) else None


def is_judged(row: dict[str, Any]) -> bool:
    return row["contender"] == OURS and GOALS[row["environment"]].most_seconds is not None


def judge(row: dict[str, Any], goal: Goal) -> dict[str, Any]:
    """Whether ours was there in time."""
    seconds = row["seconds"]
    return {
        "environment": row["environment"],
        "contender": row["contender"],
        "reached": seconds,
        "target": goal.most_seconds,
        "holds": seconds is not None and seconds <= (goal.most_seconds or math.inf),
    }


def versions(attempts: Iterable[Attempt]) -> dict[str, dict[str, str]]:
    """Of the packages in each virtual environment."""
    told = {each.contender.venv: each.told["versions"] for each in attempts}
    return {venv: packages for venv, packages in told.items() if venv is not None}


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    main()
