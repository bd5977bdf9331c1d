"""How many seconds until 25 tasks are learned: ours beside Stable-Baselines3's and skrl's learners on the same tasks.

    python -m benchmarks.time_to_result [--environment cartpole|acrobot] [--only NAME ...] [--seeds 3] [--limit 300]

A contender has reached the result once greedy episodes, 10 of each task, return 190 on cart-pole balance (200 is all
there is), or -100 on Extreme Acrobot, in the mean over the tasks. Of our 25 agents each is tested in its own task, of
one centralised learner, ours or a peer's, the one policy in all. Seconds are counted in a process of its own from the
end of its imports: making learner and simulators, compiling, collecting and learning. Evaluations, every 10,000
env-steps on cart-pole and every 30,000 on Acrobot, are counted apart and left out for all alike, and so is the time
until imports are over. Who has not reached it after ``--limit`` seconds gives up; a median over seeds is none if most
gave up. Contenders take turns, on all cores. Ours keep compiled programs as the command line does: a cold contender
starts with an empty cache, a warm one with what the cold one left.

All have networks of 2×64 and 25 simulators, which are our compiled ones for everybody: peers step all tasks at once
through ``gossamer_gymnasium``. What each learns with stands in ``benchmarks/peer_programs/*_until.py``: peers have
their defaults; of ours on cart-pole widths and the actor's learning rate were chosen for speed.
"""

import argparse
import math
import os
import shlex
import shutil
import statistics
import sys
import tempfile
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
COLD = f"{OURS}, first run"
PEER = "stable-baselines3, A2C"
LEAST_RATIOS = {OURS: 3.0, COLD: 1.5}  # of the peer's seconds to ours


@dataclass(frozen=True)
class Goal:
    """The return to reach, and env-steps between evaluations."""

    mean_return: float
    every: int


@dataclass(frozen=True)
class Contender:
    """A program and what to ask of it; ``venv`` is None for ours, which starts with an empty cache if ``is_cold``."""

    name: str
    program: str
    arguments: tuple[str, ...] = ()
    venv: str | None = None
    is_cold: bool = False


@dataclass(frozen=True)
class Attempt:
    """What one process told: seconds until the goal, None if it gave up, and the curve up to there."""

    environment: str
    contender: Contender
    seed: int
    told: dict[str, Any]


GOALS = {"cartpole": Goal(190.0, 10_000), "acrobot": Goal(-100.0, 30_000)}
CONTENDERS = (
    Contender(COLD, "gossamer_until", ("diffusion",), is_cold=True),
    Contender(OURS, "gossamer_until", ("diffusion",)),
    Contender("gossamer, centralised", "gossamer_until", ("centralised",)),
    Contender(PEER, "sb3_until", ("a2c",), "sb3"),
    Contender("stable-baselines3, PPO", "sb3_until", ("ppo",), "sb3"),
    Contender("skrl, A2C", "skrl_until", (), "skrl"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--environment", choices=GOALS, help="one only; both by default")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=[each.name for each in CONTENDERS], help="contenders"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--limit", type=float, default=300.0, help="seconds of training; then a contender gives up"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "time_to_result.json")
    arguments = parser.parse_args()
    environments = [arguments.environment] if arguments.environment else list(GOALS)
    contenders = [each for each in CONTENDERS if arguments.only is None or each.name in arguments.only]
    attempts = try_all(environments, contenders, arguments.seeds, arguments.limit)
    rows = compare(attempts)
    result = {
        "command": shlex.join(["python", "-m", "benchmarks.time_to_result", *sys.argv[1:]]),
        "machine": machine() | {"cores_available": len(available_cores()), "peers": versions(attempts)},
        "limit_seconds": arguments.limit,
        "results": rows,
        "targets": judge(rows),
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


def try_all(
    environments: Sequence[str], contenders: Sequence[Contender], seeds: int, limit: float
) -> list[Attempt]:
    """One process after the other, all contenders in turn."""
    pythons = {venv: python_of(venv) for venv in {each.venv for each in contenders}}
    attempts = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        for environment in environments:
            for seed in range(seeds):
                for contender in contenders:
                    print(f"{environment}, seed {seed}: {contender.name}", file=sys.stderr)
                    if contender.is_cold:
                        shutil.rmtree(Path(cache) / "gossamer", ignore_errors=True)
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


def judge(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whether ours were as much faster than the peer as they should be."""
    seconds = {(row["environment"], row["contender"]): row["seconds"] or math.inf for row in rows}
    return [
        {
            "environment": environment,
            "contender": name,
            "reached": (reached := ratio(seconds.get((environment, PEER), math.inf), ours)),
            "target": LEAST_RATIOS[name],
            "holds": reached is not None and reached >= LEAST_RATIOS[name],
        }
        for (environment, name), ours in seconds.items()
        if name in LEAST_RATIOS
    ]


def versions(attempts: Iterable[Attempt]) -> dict[str, dict[str, str]]:
    """Of the packages in each virtual environment."""
    told = {each.contender.venv: each.told["versions"] for each in attempts}
    return {venv: packages for venv, packages in told.items() if venv is not None}


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    main()
