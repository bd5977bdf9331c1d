"""How fast our A2C trains beside Stable-Baselines3's, skrl's and rejax's on this machine, and beside MuJoCo alone.

    python -m benchmarks.peers [--quick] [--install] [--out benchmarks/results/peers.json]

Every figure is the median of three processes, each of which warms up and then measures some seconds; contenders take
turns, so that what else the machine does hits all alike. Each runs on one core and on all: networks as small as these
can be slower on two. Start-up is from the process's start to the end of the first update. Peers are installed into
virtual environments of their own in ``runs/peers``, as ``benchmarks/peer_programs/requirements-*.txt`` pin them;
``--install`` does that and no more. Ratios to peers and shares of bare physics are to the faster of what these reach on
one core or on all; ratios at equal horizons, and to Stable-Baselines3's default of 5 steps for an update, at which
Diff-A2C is published with 60.

Everybody has 25 simulators. Where a contender's name ends in "our simulators" it steps our 25 tasks through
``gossamer_gymnasium``'s vector environment, which is a compiled program; elsewhere Stable-Baselines3 has Gymnasium's
Acrobot-v1, CartPole-v1 and Hopper-v5, one after the other or in processes, and rejax gymnax's Acrobot-v1 and
CartPole-v1. skrl brings no simulators and has ours. Cart-pole is balance: ours has a continuous force and 25 tasks,
CartPole-v1 two actions and one. Pong is ``benchmarks.pong``'s. There are ratios to Stable-Baselines3 with Gymnasium's
simulators, and with ours. Finally the tables in README.md and docs/ are written.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.control import machine, show
from benchmarks.tables import RESULTS, publish

PROGRAMS = Path(__file__).parent / "peer_programs"
ROOT = Path(__file__).parents[1]
CACHE = ROOT / "runs" / "peers"
DEFAULT_HORIZON = 5  # of Stable-Baselines3's A2C
STABLE_BASELINES3 = ("stable-baselines3", "stable-baselines3, subprocesses")  # with Gymnasium's simulators
REPEATS, SECONDS, LONGEST = 3, 4.0, 300.0


@dataclass(frozen=True)
class Contender:
    """A program and what to ask of it; ``venv`` is that of a peer, or ours."""

    environment: str
    name: str
    program: str
    arguments: tuple[str, ...] = ()
    horizon: int = 5
    venv: str | None = None
    slow_to_start: bool = False


@dataclass(frozen=True)
class Measurement:
    """What one process reached on some cores."""

    contender: Contender
    cores: int
    env_steps_per_second: float
    env_steps_per_processor_second: float
    start_seconds: float
    versions: dict[str, str]


@dataclass(frozen=True)
class Target:
    """A figure that must not lie below a bound; the best of a contender on one core or on all counts."""

    contender: str
    environment: str
    horizon: int
    figure: str
    least: float


CONTENDERS = (
    Contender("acrobot", "gossamer, 25 agents", "gossamer_a2c", ("diffusion",)),
    Contender("acrobot", "gossamer, centralised", "gossamer_a2c", ("centralised",)),
    Contender("acrobot", "stable-baselines3", "sb3_a2c", ("dummy",), venv="sb3"),
    Contender("acrobot", "rejax, PPO as A2C", "rejax_ppo", venv="rejax"),
    Contender("acrobot", "gossamer, 25 agents", "gossamer_a2c", ("diffusion",), horizon=60),
    Contender("acrobot", "stable-baselines3", "sb3_a2c", ("dummy",), horizon=60, venv="sb3"),
    Contender("acrobot", "stable-baselines3, our simulators", "sb3_a2c", ("ours",), horizon=60, venv="sb3"),
    Contender("acrobot", "skrl, our simulators", "skrl_a2c", horizon=60, venv="skrl"),
    Contender("acrobot", "rejax, PPO as A2C", "rejax_ppo", horizon=60, venv="rejax"),
    Contender("cartpole", "gossamer, 25 agents", "gossamer_a2c", ("diffusion",), horizon=60),
    Contender("cartpole", "stable-baselines3", "sb3_a2c", ("dummy",), horizon=60, venv="sb3"),
    Contender("cartpole", "stable-baselines3, our simulators", "sb3_a2c", ("ours",), horizon=60, venv="sb3"),
    Contender("cartpole", "skrl, our simulators", "skrl_a2c", horizon=60, venv="skrl"),
    Contender("cartpole", "rejax, PPO as A2C", "rejax_ppo", horizon=60, venv="rejax"),
    Contender("hopper", "gossamer, 25 agents", "gossamer_a2c", ("asynchronous",), horizon=60),
    Contender("hopper", "gossamer, 25 agents in lockstep", "gossamer_a2c", ("diffusion",), horizon=60),
    Contender("hopper", "stable-baselines3", "sb3_a2c", ("dummy",), horizon=60, venv="sb3"),
    Contender(
        "hopper",
        "stable-baselines3, subprocesses",
        "sb3_a2c",
        ("subprocesses",),
        horizon=60,
        venv="sb3",
        slow_to_start=True,
    ),
    Contender("hopper", "bare physics", "bare_physics", horizon=60),
)
TARGETS = (
    Target("gossamer, 25 agents", "acrobot", 60, "env_steps_per_second", 330_000),
    Target("gossamer, 25 agents", "acrobot", 60, "ratio_to_stable_baselines3_default", 25),
    Target("gossamer, 25 agents", "acrobot", 60, "ratio_to_stable_baselines3", 20),
    Target("gossamer, 25 agents", "acrobot", 60, "ratio_to_stable_baselines3", 25),
    Target("gossamer, 25 agents", "acrobot", 60, "ratio_to_stable_baselines3_with_ours", 20),
    Target("gossamer, 25 agents", "acrobot", 60, "ratio_to_rejax", 1.0),
    Target("gossamer, 25 agents", "acrobot", 5, "ratio_to_rejax", 1.0),
    Target("gossamer, 25 agents", "hopper", 60, "ratio_to_stable_baselines3", 2),
    Target("gossamer, 25 agents", "hopper", 60, "share_of_bare_physics", 0.75),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="one process each, and none that is slow to start"
    )
    parser.add_argument("--install", action="store_true", help="install the peers and stop")
    parser.add_argument("--out", type=Path, default=RESULTS / "peers.json")
    arguments = parser.parse_args()
    if arguments.install:
        for venv in sorted({each.venv for each in CONTENDERS if each.venv is not None}):
            print(python_of(venv))
        return
    contenders = [each for each in CONTENDERS if not (arguments.quick and each.slow_to_start)]
    measurements = measure_all(
        contenders, repeats=1 if arguments.quick else REPEATS, seconds=1.0 if arguments.quick else SECONDS
    )
    rows = compare(measurements)
    result = {
        "command": "python -m benchmarks.peers" + (" --quick" if arguments.quick else ""),
        "machine": machine() | {"cores_available": len(available_cores()), "peers": versions(measurements)},
        "speed": rows,
        "targets": [judge(target, rows) for target in TARGETS],
    }
    show("machine", [result["machine"]])
    print_table(rows)
    show("targets (the Hopper's are alternatives)", result["targets"])
    publish(result, arguments.out)


def measure_all(contenders: Sequence[Contender], repeats: int, seconds: float) -> list[Measurement]:
    """One process after the other, all contenders in turn."""
    pythons = {venv: python_of(venv) for venv in {each.venv for each in contenders}}
    measurements = []
    for repeat in range(repeats):
        for contender in contenders:
            for cores in placements():
                print(f"{repeat + 1}/{repeats}: {contender.environment}, {contender.name}", file=sys.stderr)
                measurements.append(measure(contender, pythons[contender.venv], cores, seconds))
    return measurements


def measure(contender: Contender, python: Path, cores: Sequence[int], seconds: float) -> Measurement:
    """What a new process reaches on these cores."""
    choices = (*contender.arguments, "--horizon", str(contender.horizon), "--seconds", str(seconds))
    started = time.time()
    told = ask(python, contender.program, (contender.environment, *choices), cores, LONGEST)
    return Measurement(contender, len(cores), start_seconds=told.pop("ready") - started, **told)


def ask(
    python: Path, program: str, arguments: Iterable[str], cores: Sequence[int], longest: float
) -> dict[str, Any]:
    """What a program in a process of its own on these cores says in its last line, after at most so many seconds."""
    pinned = ("taskset", "-c", ",".join(map(str, cores))) if shutil.which("taskset") else ()
    command = [*pinned, str(python), str(PROGRAMS / f"{program}.py"), *arguments]
    # Peers that step our simulators find them there.
    surroundings = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    finished = subprocess.run(command, capture_output=True, text=True, timeout=longest, env=surroundings)
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{finished.stderr[-2000:]}")
    return json.loads(finished.stdout.splitlines()[-1])


def placements() -> list[list[int]]:
    """Cores to run on: one, and all there are."""
    cores = available_cores()
    return [cores] if len(cores) == 1 or not shutil.which("taskset") else [cores[-1:], cores]


def available_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def python_of(venv: str | None) -> Path:
    """The Python that has a peer, which is installed unless it was; or ours."""
    if venv is None:
        return Path(sys.executable)
    folder, requirements = CACHE / f"venv-{venv}", PROGRAMS / f"requirements-{venv}.txt"
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    if not installed.exists() or installed.read_text() != requirements.read_text():
        print(f"installing {requirements} into {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True)
        shutil.copy(requirements, installed)
    return python


def compare(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Medians of every contender on one core and on all, and their ratios to peers."""
    groups: dict[tuple[Contender, int], list[Measurement]] = {}
    for each in measurements:
        groups.setdefault((each.contender, each.cores), []).append(each)
    rows = [summarise(contender, cores, group) for (contender, cores), group in groups.items()]
    return [row | ratios(row, rows) for row in rows]


def ratios(row: dict[str, Any], rows: Iterable[dict[str, Any]]) -> dict[str, float | None]:
    """Of a row's rate to the best of the peers in its environment, on one core or on all."""

    def to(names: tuple[str, ...], horizon: int) -> float | None:
        rates = [
            other["env_steps_per_second"]
            for other in rows
            if (other["environment"], other["horizon"]) == (row["environment"], horizon)
            and other["contender"] in names
        ]
        return row["env_steps_per_second"] / max(rates) if rates else None

    return {
        "ratio_to_stable_baselines3": to(STABLE_BASELINES3, row["horizon"]),
        "ratio_to_stable_baselines3_default": to(STABLE_BASELINES3, DEFAULT_HORIZON),
        "ratio_to_stable_baselines3_with_ours": to(("stable-baselines3, our simulators",), row["horizon"]),
        "ratio_to_rejax": to(("rejax, PPO as A2C",), row["horizon"]),
        "ratio_to_skrl": to(("skrl, our simulators",), row["horizon"]),
        "share_of_bare_physics": to(("bare physics",), row["horizon"]),
    }


def summarise(contender: Contender, cores: int, group: Sequence[Measurement]) -> dict[str, Any]:
    def median(values: Iterable[float]) -> float:
        return statistics.median(values)

    return {
        "environment": contender.environment,
        "contender": contender.name,
        "horizon": contender.horizon,
        "cores": cores,
        "env_steps_per_second": median(each.env_steps_per_second for each in group),
        "env_steps_per_second_each": [each.env_steps_per_second for each in group],
        "env_steps_per_processor_second": median(each.env_steps_per_processor_second for each in group),
        "start_seconds": median(each.start_seconds for each in group),
    }


def versions(measurements: Iterable[Measurement]) -> dict[str, dict[str, str]]:
    """Of the packages in each virtual environment."""
    return {each.contender.venv: each.versions for each in measurements if each.contender.venv is not None}


def judge(target: Target, rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    key = (target.environment, target.contender, target.horizon)
    reached = max(
        row[target.figure] for row in rows if (row["environment"], row["contender"], row["horizon"]) == key
    )
    return {
        "environment": target.environment,
        "horizon": target.horizon,
        "figure": target.figure,
        "reached": reached,
        "target": target.least,
        "holds": reached >= target.least,
    }


def print_table(rows: Iterable[dict[str, Any]]) -> None:
    heads = (
        "",
        "horizon",
        "cores",
        "env-steps/s",
        "per cpu-s",
        "start (s)",
        "× SB3",
        "× rejax",
        "of physics",
    )
    print("\n" + "{:44}{:>8}{:>6}{:>13}{:>12}{:>10}{:>8}{:>8}{:>11}".format(*heads))
    columns = ("ratio_to_stable_baselines3", "ratio_to_rejax", "share_of_bare_physics")
    for row in rows:
        ratio, rejax, share = (row[name] for name in columns)
        print(
            f"{row['environment'] + ', ' + row['contender']:44}{row['horizon']:8}{row['cores']:6}"
            f"{row['env_steps_per_second']:13,.0f}{row['env_steps_per_processor_second']:12,.0f}"
            f"{row['start_seconds']:10.1f}"
            + (" " * 8 if ratio is None else f"{ratio:8.2f}")
            + (" " * 8 if rejax is None else f"{rejax:8.2f}")
            + ("" if share is None else f"{share:11.0%}")
        )


if __name__ == "__main__":
    main()
