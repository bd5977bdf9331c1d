"""Frames per second, use of the device and energy of GALA and what it is compared with, and how soon each plays Pong.

    python -m benchmarks.gala [--quick] [--simulators 64] [--seconds 60] [--repeats 3] [--threads N]
        [--precision float32|bfloat16] [--methods a2c gala-4 ...] [--out benchmarks/results/gala.json]
    python -m benchmarks.gala --pong-to 18 [--limit 3600] [--methods a2c-4 gala-4] [...]

All methods divide the same number of simulators of Pong, on whatever device JAX has. A frame is one of the game's:
an env-step is an action, which is held for 4. Each figure is the median over processes, of which only one runs at any
moment, all methods in turn; a process compiles and warms up, and then trains for a fixed time, records included.
Energy is that of the whole device and of all processor packages, whoever uses them.

With ``--pong-to`` methods are trained instead, until the mean return of the last 100 episodes reaches a score or the
training its limit (s); runs lie in ``runs/gala``, and Ctrl-C or a new call with a higher limit goes on with them.

Results of a CPU and of an accelerator are kept side by side: a call replaces the tables of its own kind only.
"""

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.control import machine
from gossamer import resume, train
from gossamer.diagnostics.energy import EnergyMeter, PowerReading
from gossamer.environments import Atari
from gossamer.errors import InputError
from gossamer.experiment import Experiment
from gossamer.recipes import a3c, all_reduce_a2c, gala_a2c, gala_impala, impala
from gossamer.runs.description import load_experiment
from gossamer.runs.folder import read_metrics
from gossamer.runs.progress import Lines, Reporter, Status
from gossamer.runtimes.build import build
from gossamer.runtimes.choice import runtime_of
from gossamer.runtimes.protocol import Report, Runtime
from gossamer.runtimes.vectorised import Population
from gossamer.system.compilation import keep_memory_mapped
from gossamer.train import Interrupted

REPEATS, SECONDS, WARM_UP = 3, 60.0, 10.0
FRAMES_PER_STEP, EPISODES = 4, 100
LONGEST_START = 900.0  # seconds for a process to import, compile and warm up
ROOT = Path(__file__).parents[1]
NOT_RUN = "not run"


@dataclass(frozen=True)
class Method:
    """A recipe, and how many learners, workers or actors divide the simulators."""

    title: str
    recipe: Callable[..., Experiment]
    parts: int

    def experiment(self, simulators: int, threads: int | None, precision: str) -> Experiment:
        """On Pong; by default the processors are divided among those who step simulators."""
        pong = Atari("pong", threads=threads or max(1, (os.cpu_count() or 1) // self.parts))
        experiment = self.recipe(pong, self.parts, simulators // self.parts)
        return replace(experiment, algorithm=replace(experiment.algorithm, precision=precision))


METHODS = {
    "a2c": Method("A2C", all_reduce_a2c, 1),
    "a2c-4": Method("A2C, 4 workers", all_reduce_a2c, 4),
    **{
        f"gala-{learners}": Method(f"GALA-A2C, {learners} learner{'s' * (learners > 1)}", gala_a2c, learners)
        for learners in (1, 2, 4, 8)
    },
    "a3c": Method("A3C, 4 workers", a3c, 4),
    "impala": Method("IMPALA, 4 actors", impala, 4),
    "gala-impala": Method("GALA-IMPALA, 4 learners", gala_impala, 4),
}
LEARNING = ("a2c-4", "gala-4")  # of one learning rate, 0.0007 · √4


@dataclass(frozen=True)
class Training:
    """What a method did in the time that was measured."""

    env_steps: np.ndarray  # [learner]
    updates: np.ndarray  # [learner]
    seconds: float
    processor_seconds: float
    mean_age: float | None

    @classmethod
    def of(cls, reports: Sequence[Report], seconds: float, processor_seconds: float) -> "Training":
        """The sums of some reports of one seed."""
        agents = [report.record.agents for report in reports]
        combined = sum(int(report.traffic.combined.sum()) for report in reports)
        ages = sum(int(report.traffic.total_age.sum()) for report in reports)
        return cls(
            np.sum([each.env_steps[0] for each in agents], axis=0),
            np.sum([each.updates[0] for each in agents], axis=0),
            seconds,
            processor_seconds,
            ages / combined if combined else None,
        )


def main() -> None:
    arguments = parse()
    try:
        if arguments.method:
            print(json.dumps(measure(METHODS[arguments.method], arguments)))
            return
        make = speed_table if arguments.pong_to is None else learning_table
        table = make(arguments)
    except InputError as error:  # such as of ale-py that is not installed
        raise SystemExit(str(error)) from None
    store(arguments.out, table)
    print(f"\n{arguments.out}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one process each, which measures 3 s")
    parser.add_argument("--simulators", type=int, default=64, help="of all learners together")
    parser.add_argument("--seconds", type=float, default=None, help=f"to measure, by default {SECONDS:g}")
    parser.add_argument("--repeats", type=int, default=None, help=f"processes each, by default {REPEATS}")
    parser.add_argument(
        "--threads",
        type=int,
        default=None,
        help="simulators that run at once for each learner, worker or actor",
    )
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=None)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gala.json")
    parser.add_argument("--pong-to", type=float, default=None, metavar="SCORE", help="train until this score")
    parser.add_argument("--limit", type=float, default=3600.0, help="of each training with --pong-to (s)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "gala", help="folder of trainings")
    parser.add_argument("--method", choices=METHODS, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--warm-up", type=float, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.seconds = arguments.seconds or (3.0 if arguments.quick else SECONDS)
    arguments.repeats = arguments.repeats or (1 if arguments.quick else REPEATS)
    arguments.warm_up = arguments.warm_up or (2.0 if arguments.quick else WARM_UP)
    arguments.methods = arguments.methods or list(METHODS if arguments.pong_to is None else LEARNING)
    uneven = [name for name in arguments.methods if arguments.simulators % METHODS[name].parts]
    if uneven:
        parser.error(
            f"--simulators is {arguments.simulators}; {METHODS[uneven[0]].title} needs a multiple of "
            f"{METHODS[uneven[0]].parts}"
        )
    return arguments


def speed_table(arguments: argparse.Namespace) -> dict[str, Any]:
    """All methods in turn, a process each."""
    Atari("pong")  # refuses where there are no games, before any process starts
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in arguments.methods}
    for turn in range(arguments.repeats):
        for name in arguments.methods:
            print(f"{turn + 1}/{arguments.repeats}: {METHODS[name].title}", file=sys.stderr, flush=True)
            told[name].append(in_new_process(name, arguments))
    rows = [{"method": METHODS[name].title, **summarise(each)} for name, each in told.items()]
    print_speed(rows)
    return {
        "kind": told[arguments.methods[0]][0]["kind"],
        "name": "frames_per_second",
        "command": command(),
        "machine": told[arguments.methods[0]][0]["machine"] | {"load_average_at_end": os.getloadavg()[1]},
        **{name: getattr(arguments, name) for name in ("simulators", "seconds", "repeats", "precision")},
        "rows": rows,
    }


def in_new_process(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a method reaches. This process must not touch the device: it would take most of a GPU's memory."""
    program = [sys.executable, "-m", "benchmarks.gala", "--method", name]
    for option in ("simulators", "seconds", "warm_up", "precision", "threads"):
        if (value := getattr(arguments, option)) is not None:
            program += [f"--{option.replace('_', '-')}", str(value)]
    limit = LONGEST_START + 2 * (arguments.warm_up + arguments.seconds)
    finished = subprocess.run(program, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=limit)
    if finished.returncode:
        raise SystemExit(f"{' '.join(program)} failed, see above")
    return json.loads(finished.stdout.splitlines()[-1])


def measure(method: Method, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a method reaches in this process, once all is compiled and under way."""
    keep_memory_mapped()  # as the command line does
    experiment = method.experiment(arguments.simulators, arguments.threads, arguments.precision)
    every = experiment.record_every
    with closing(runtime_of(experiment, build(experiment))) as runtime:
        population, _ = advance_for(runtime, runtime.start(), every, 0.0)  # compiles
        population, _ = advance_for(runtime, population, every, arguments.warm_up)
        with EnergyMeter() as meter:
            started, busy = time.perf_counter(), time.process_time()
            _, reports = advance_for(runtime, population, every, arguments.seconds)
            elapsed, busy = time.perf_counter() - started, time.process_time() - busy
            reading = meter.read()
    return {
        **figures(Training.of(reports, elapsed, busy), reading),
        "simulator_threads": experiment.environment.threads,
        "peak_memory_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "kind": kind(),
        "machine": here(),
    }


def advance_for(
    runtime: Runtime, population: Population, every: int, seconds: float
) -> tuple[Population, list[Report]]:
    """Rounds until so many seconds are over, one at least, in chunks of a second at most, like ``train``."""
    reports: list[Report] = []
    started, rounds = time.perf_counter(), 1
    while True:
        chunk = time.perf_counter()
        population, more = runtime.advance(population, min(rounds, runtime.most_rounds(every)), every)
        reports += more
        now = time.perf_counter()
        left = seconds - (now - started)
        if left <= 0:
            return population, reports
        # No more than twice as many: updates that were made while this thread compiled are gathered in no time.
        rounds = max(1, min(2 * rounds, int(rounds * min(1.0, left) / (now - chunk))))


def figures(training: Training, reading: PowerReading) -> dict[str, Any]:
    """What is told of a training; what no sensor knows is None, and why is said."""
    steps, seconds = int(training.env_steps.sum()), training.seconds
    frames = FRAMES_PER_STEP * steps

    def per_frame(joules: float | None) -> float | None:
        return None if joules is None else joules / frames

    return {
        "env_steps_per_second": steps / seconds,
        "frames_per_second": frames / seconds,
        "updates_per_second": float(training.updates.sum()) / seconds,
        "frames_per_second_per_learner": (FRAMES_PER_STEP * training.env_steps / seconds).tolist(),
        "updates_per_second_per_learner": (training.updates / seconds).tolist(),
        "mean_age_of_messages": training.mean_age,  # updates; of gradients where those are what is sent
        "processors_busy": training.processor_seconds / seconds,
        "device_utilisation_percent": reading.gpu_utilisation,
        "device_watts": reading.gpu_watts,
        "device_joules_per_frame": per_frame(reading.gpu_joules),
        "processor_joules_per_frame": per_frame(reading.cpu_joules),
        "not_available": reading.why_not,
    }


def summarise(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians over processes of every number, and all rates beside them.

    Example:
        >>> told = [{"frames_per_second": rate, "each": [rate, 1.0], "watts": None} for rate in (3.0, 1.0, 2.0)]
        >>> summarise(told)
        {'frames_per_second': 2.0, 'each': [2.0, 1.0], 'watts': None, 'frames_per_second_each': [3.0, 1.0, 2.0]}
    """
    row: dict[str, Any] = {}
    for name, first in told[0].items():
        values = [each[name] for each in told]
        if isinstance(first, list):
            row[name] = [statistics.median(column) for column in zip(*values, strict=True)]
        elif isinstance(first, int | float) and None not in values:
            row[name] = statistics.median(values)
        elif name not in ("kind", "machine"):
            row[name] = next((value for value in values if isinstance(value, str)), None)
    return {**row, "frames_per_second_each": [each["frames_per_second"] for each in told]}


def learning_table(arguments: argparse.Namespace) -> dict[str, Any]:
    """All methods one after the other, each until it plays well enough or its time is over."""
    keep_memory_mapped()  # as the command line does
    rows = []
    for name in arguments.methods:
        experiment = METHODS[name].experiment(arguments.simulators, arguments.threads, arguments.precision)
        run = arguments.runs / f"{name}-{arguments.simulators}-{arguments.precision}"
        train_to(arguments.pong_to, experiment, run, arguments.limit)
        row = outcome(read_metrics(run / "metrics.jsonl"), arguments.pong_to)
        rows.append({"method": METHODS[name].title, **row})
    print_learning(rows, arguments.pong_to)
    return {
        "kind": kind(),
        "name": "pong_to",
        "command": command(),
        "machine": here(),
        "score": arguments.pong_to,
        "limit_seconds": arguments.limit,
        "rows": rows,
    }


def train_to(score: float, experiment: Experiment, run: Path, limit: float) -> None:
    """Train, or go on with a run, until it is good enough or its time is over; one that is so is left as it is."""
    begun = (run / "config.json").exists()
    if begun and load_experiment(run) != experiment:
        raise SystemExit(f"{run} was begun with other choices; move it away, or choose another --runs")
    if begun and is_over(run, score, limit):
        return
    watch = StopWhen(lambda: is_over(run, score, limit), Lines(run.name, seconds=20))
    try:
        if begun:
            resume(run, reporter=watch)
        else:
            train(experiment, run, watch)
    except Interrupted:
        if not watch.asked:
            raise SystemExit(f"{run} is saved; the same command goes on with it") from None


class StopWhen:
    """A reporter that asks a training to stop, with a checkpoint, as Ctrl-C does."""

    def __init__(self, over: Callable[[], bool], inner: Reporter):
        self._over, self._inner = over, inner
        self.asked = False

    def __enter__(self) -> "StopWhen":
        self._inner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._inner.__exit__(*error)

    def say(self, sentence: str) -> None:
        self._inner.say(sentence)

    def begin(self, phase: str) -> None:
        self._inner.begin(phase)

    def show(self, status: Status) -> None:
        self._inner.show(status)
        # Once: a second request would end it at once, unsaved.
        if not self.asked and self._over():
            self.asked = True
            signal.raise_signal(signal.SIGINT)


def is_over(run: Path, score: float, limit: float) -> bool:
    """Whether a run has reached a score or a limit of its time (s)."""
    rows = read_metrics(run / "metrics.jsonl") if (run / "metrics.jsonl").exists() else []
    return bool(rows) and (reached(rows, score) is not None or rows[-1]["time"]["seconds"] >= limit)


def reached(rows: Sequence[Mapping[str, Any]], score: float) -> int | None:
    """After how many rows the mean return of the last 100 episodes was no less than a score for the first time."""
    return next((end for end in range(1, len(rows) + 1) if recent_return(rows[:end]) >= score), None)


def recent_return(rows: Sequence[Mapping[str, Any]], episodes: int = EPISODES) -> float:
    """Mean return of the last episodes, in whole rows; minus infinity while there are too few.

    Example:
        >>> rows = [{"episodes": count, "episodic_return": mean} for count, mean in ((9, 1.0), (0, None), (2, 4.0))]
        >>> recent_return(rows, episodes=2), recent_return(rows, episodes=10), recent_return(rows, episodes=12)
        (4.0, 1.5454545454545454, -inf)
    """
    count, total = 0, 0.0
    for row in reversed(rows):
        if row["episodes"]:
            count, total = count + row["episodes"], total + row["episodes"] * row["episodic_return"]
        if count >= episodes:
            return total / count
    return -np.inf


def outcome(rows: Sequence[Mapping[str, Any]], score: float) -> dict[str, Any]:
    """When a run reached a score, or how far it came."""
    upto = reached(rows, score)
    seen = rows[:upto] if upto else rows
    last, recent = seen[-1], recent_return(seen)
    return {
        "reached": upto is not None,
        "env_steps": last["env_steps"],
        "frames": FRAMES_PER_STEP * last["env_steps"],
        "seconds": last["time"]["seconds"],
        "return_of_last_100_episodes": recent if np.isfinite(recent) else None,
    }


def kind() -> str:
    """Which of the result's two parts this machine fills."""
    return "cpu" if jax.default_backend() == "cpu" else "device"


def here() -> dict[str, Any]:
    return machine() | {name: _version(name) for name in ("ale-py", "flax", "optax", "numpy")}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def command() -> str:
    return " ".join(["python -m benchmarks.gala", *sys.argv[1:]])


def store(path: Path, table: dict[str, Any]) -> None:
    """Replace one table of a result; those of a kind of device that none was measured on are told apart."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    result = {each: part if isinstance(part := kept.get(each), dict) else {} for each in ("cpu", "device")}
    which, name = table.pop("kind"), table.pop("name")
    result[which][name] = table
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({each: part or NOT_RUN for each, part in result.items()}, indent=1) + "\n")


def print_speed(rows: Sequence[Mapping[str, Any]]) -> None:
    heads = (
        "frames/s",
        "env-steps/s",
        "updates/s",
        "age",
        "cores",
        "device",
        "watts",
        "J/frame",
        "cpu J/frame",
    )
    print(
        "\nPong; a frame is one of the game's, an env-step is 4 of them; joules of device and of processors"
    )
    print("{:24}{:>10}{:>13}{:>11}{:>6}{:>7}{:>8}{:>7}{:>9}{:>13}".format("", *heads))
    for row in rows:
        print(
            f"{row['method']:24}{row['frames_per_second']:10,.0f}{row['env_steps_per_second']:13,.0f}"
            f"{row['updates_per_second']:11,.1f}{_cell(row['mean_age_of_messages'], '.1f'):>6}"
            f"{row['processors_busy']:7.2f}{_cell(row['device_utilisation_percent'], '.0f', '%'):>8}"
            f"{_cell(row['device_watts'], '.0f'):>7}{_cell(row['device_joules_per_frame'], '.4f'):>9}"
            f"{_cell(row['processor_joules_per_frame'], '.4f'):>13}"
        )
    for reason in {row["not_available"] for row in rows} - {None}:
        print(f"not available: {reason}")


def print_learning(rows: Sequence[Mapping[str, Any]], score: float) -> None:
    print(f"\nPong, until the mean return of the last {EPISODES} episodes is {score:g}")
    print(
        "{:24}{:>8}{:>10}{:>13}{:>13}{:>14}".format(
            "", "reached", "seconds", "env-steps", "frames", "return then"
        )
    )
    for row in rows:
        print(
            f"{row['method']:24}{'yes' if row['reached'] else 'no':>8}{row['seconds']:10,.0f}"
            f"{row['env_steps']:13,}{row['frames']:13,}{_cell(row['return_of_last_100_episodes'], '.2f'):>14}"
        )


def _cell(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else format(value, form) + unit


if __name__ == "__main__":
    main()
