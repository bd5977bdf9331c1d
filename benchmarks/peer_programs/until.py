"""How long a training takes until a greedy evaluation reaches a return; printed as one line of JSON.

The clock starts after all imports and stands still while policies are evaluated: it counts making the learner and the
simulators, compiling, collecting and learning. It needs the standard library alone, so that it runs in every
contender's own virtual environment.
"""

import argparse
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

EPISODES = 10  # of each task in an evaluation


class Training(NamedTuple):
    """A learner with its simulators.

    ``advance`` trains for at least so many env-steps and returns how many there were; ``evaluate`` is the mean over the
    tasks of the returns of greedy episodes, which are not trained on.
    """

    advance: Callable[[int], int]
    evaluate: Callable[[], float]


def arguments(**choices: tuple[str, ...]) -> argparse.Namespace:
    """The command line of a program: what it is to learn, how far, and when it gives up."""
    parser = argparse.ArgumentParser()
    for name, accepted in choices.items():
        parser.add_argument(name, choices=accepted)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=float, required=True, help="mean return over the tasks")
    parser.add_argument("--every", type=int, required=True, help="env-steps between evaluations, at least")
    parser.add_argument(
        "--limit", type=float, required=True, help="seconds of training after which to give up"
    )
    return parser.parse_args()


def print_until(make: Callable[[], Training], chosen: argparse.Namespace, packages: tuple[str, ...]) -> None:
    """Train and evaluate in turn. ``began`` is when the clock started, by the clock that all processes share."""
    began, started = time.time(), time.perf_counter()
    training = make()
    seconds, env_steps, evaluating, curve = time.perf_counter() - started, 0, 0.0, []
    mean = float("-inf")
    while mean < chosen.target and seconds < chosen.limit:
        started = time.perf_counter()
        env_steps += training.advance(chosen.every)
        trained = time.perf_counter()
        seconds += trained - started
        mean = training.evaluate()
        evaluating += time.perf_counter() - trained
        curve.append((env_steps, round(seconds, 3), round(mean, 3)))
    result = {
        "seconds": seconds if mean >= chosen.target else None,
        "seconds_spent": seconds,
        "env_steps": env_steps,
        "evaluation_seconds": evaluating,
        "best_return": max((value for _, _, value in curve), default=None),
        "curve": curve,
        "began": began,
        "versions": {package: version(package) for package in packages},
    }
    print(json.dumps(result))
