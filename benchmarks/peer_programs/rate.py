"""How fast a training goes: measured after a warm-up, printed as one line of JSON.

It needs the standard library alone, so that it runs in every contender's own virtual environment.
"""

import argparse
import json
import time
from collections.abc import Callable
from importlib.metadata import version

Advance = Callable[[int], int]
"""Trains for about so many env-steps and returns how many there were."""


def arguments(**choices: tuple[str, ...]) -> argparse.Namespace:
    """The command line of a program: what it may be asked to measure, and for how long."""
    parser = argparse.ArgumentParser()
    for name, accepted in choices.items():
        parser.add_argument(name, choices=accepted)
    parser.add_argument("--horizon", type=int, default=5, help="steps in each environment for an update")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long to measure (s)")
    return parser.parse_args()


def print_rate(advance: Advance, seconds: float, packages: tuple[str, ...]) -> None:
    """Warm up, measure for about so many seconds, and print env-steps/s.

    ``ready`` is when the first update was over, by the clock that all processes share, compilation included. Steps
    per second of processor time do not count the time of other programs; that of child processes is not seen.
    """
    advance(1)
    ready = time.time()
    steps, elapsed = 1, 0.0
    # The pace of the first steps is not that of many.
    while elapsed < seconds / 10:
        steps, elapsed, _ = _timed(advance, 4 * steps)
    steps, elapsed, busy = _timed(advance, round(steps * seconds / elapsed))
    rate = {
        "env_steps_per_second": steps / elapsed,
        "env_steps_per_processor_second": steps / busy,
        "ready": ready,
        "versions": {package: version(package) for package in packages},
    }
    print(json.dumps(rate))


def _timed(advance: Advance, steps: int) -> tuple[int, float, float]:
    """How many steps it were, and their seconds of the clock and of processors."""
    started, busy = time.perf_counter(), time.process_time()
    steps = advance(steps)
    return steps, time.perf_counter() - started, time.process_time() - busy
