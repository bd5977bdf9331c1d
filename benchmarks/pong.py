"""How fast our A2C trains on Pong beside Stable-Baselines3's on this machine, and beside its own parts.

    python -m benchmarks.pong [--quick] [--out benchmarks/results/pong.json]

Every figure is the median of three processes, each of which warms up and then measures some seconds; contenders take
turns, so that what else the machine does hits all alike, and a ratio is the median of those within a turn. An env-step
is an action, 4 frames of the game. All have 5 steps for an update, the same network and RMSProp. Stable-Baselines3 has
16 simulators, stepped in series or in processes of their own, and 1 or 2 threads of PyTorch; ratios are to the fastest
of these. It is installed into a virtual environment of its own, as ``benchmarks/peers.py`` does.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.control import machine, show
from benchmarks.peers import Contender, Measurement, available_cores, measure, python_of

REPEATS, SECONDS = 3, 10.0
PEER = "stable-baselines3"
FRAMES_PER_STEP = 4


@dataclass(frozen=True)
class Target:
    """How many times as fast as another a contender must be; that is the fastest whose name begins so."""

    contender: str
    other: str
    least: float | None


TARGETS = (
    Target("gossamer, 1 learner × 16", PEER, 2.5),
    Target("gossamer, 4 learners × 4", PEER, 2.5),
    Target("gossamer, 4 learners × 16", "gossamer, 1 learner × 64", 1.0),
    Target("gossamer, 1 learner × 16", "emulation alone, ours", None),
    Target("gossamer, 1 learner × 16", "acting and learning alone", None),
    Target("emulation alone, ours", "emulation alone, AtariVectorEnv", None),
)


def contenders() -> list[Contender]:
    """Those with processes of their own for simulators are slow to start."""
    peers = [
        Contender(
            "pong",
            f"{PEER}, {kind}, {threads} torch thread{'s' * (threads > 1)}",
            "sb3_pong",
            (kind, str(threads)),
            venv="sb3",
            slow_to_start=kind == "subprocesses",
        )
        for kind, threads in product(("dummy", "subprocesses"), (1, 2))
    ]
    ours = [
        Contender(
            "pong",
            f"gossamer, {learners} learner{'s' * (learners > 1)} × {simulators}",
            "gossamer_pong",
            (str(learners), str(simulators)),
        )
        for learners, simulators in ((1, 16), (4, 4), (1, 64), (4, 16))
    ]
    parts = [
        Contender("pong", name, "bare_pong", (part,))
        for name, part in (
            ("emulation alone, ours", "simulators"),
            ("emulation alone, AtariVectorEnv", "vectorised"),
            ("acting and learning alone", "network"),
        )
    ]
    return [*peers, *ours, *parts]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="one process of 2 s each, and none that is slow to start"
    )
    parser.add_argument("--repeats", type=int, default=None, help="processes each")
    parser.add_argument("--seconds", type=float, default=None, help="how long each process measures (s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pong.json")
    arguments = parser.parse_args()
    repeats = arguments.repeats or (1 if arguments.quick else REPEATS)
    seconds = arguments.seconds or (2.0 if arguments.quick else SECONDS)
    chosen = [each for each in contenders() if not (arguments.quick and each.slow_to_start)]
    turns = take_turns(chosen, repeats, seconds)
    rows = [summarise(name, measurements) for name, measurements in turns.items()]
    rates = {row["contender"]: row["env_steps_per_second_each"] for row in rows}
    result = {
        "command": "python -m benchmarks.pong" + (" --quick" if arguments.quick else ""),
        "machine": machine()
        | {
            "cores_available": len(available_cores()),
            "load_average_at_end": os.getloadavg()[1],
            "peer": turns[chosen[0].name][0].versions,
        },
        "processes_each": repeats,
        "seconds_each": seconds,
        "speed": rows,
        "ratios": [judge(target, rates) for target in TARGETS],
    }
    show("machine", [result["machine"]])
    print_table(rows)
    show("ratios", result["ratios"])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1, default=float) + "\n")
    print(f"\n{arguments.out}")


def take_turns(chosen: Sequence[Contender], repeats: int, seconds: float) -> dict[str, list[Measurement]]:
    """One process after the other, all contenders in turn, each on all cores."""
    pythons = {venv: python_of(venv) for venv in {each.venv for each in chosen}}
    turns: dict[str, list[Measurement]] = {each.name: [] for each in chosen}
    for turn, contender in product(range(repeats), chosen):
        print(f"{turn + 1}/{repeats}: {contender.name}", file=sys.stderr)
        python = pythons[contender.venv]
        turns[contender.name].append(measure(contender, python, available_cores(), seconds))
    return turns


def summarise(name: str, measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Medians of one contender's processes."""

    def median(figure: str) -> float:
        return statistics.median(getattr(each, figure) for each in measurements)

    return {
        "contender": name,
        "env_steps_per_second": median("env_steps_per_second"),
        "frames_per_second": FRAMES_PER_STEP * median("env_steps_per_second"),
        "env_steps_per_second_each": [each.env_steps_per_second for each in measurements],
        # That of child processes, as of simulators in subprocesses, is not seen.
        "env_steps_per_processor_second": median("env_steps_per_processor_second"),
        "start_seconds": median("start_seconds"),
    }


def judge(target: Target, rates: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The median over turns of a contender's rate to the other's, the fastest of several by its median."""
    others = [name for name in rates if name.startswith(target.other)]
    other = max(others, key=lambda name: statistics.median(rates[name]))
    each = [a / b for a, b in zip(rates[target.contender], rates[other], strict=True)]
    ratio = statistics.median(each)
    row = {"contender": target.contender, "to": other, "ratio": ratio, "ratio_each": each}
    return row if target.least is None else {**row, "target": target.least, "holds": ratio >= target.least}


def print_table(rows: Iterable[Mapping[str, Any]]) -> None:
    heads = ("", "env-steps/s", "frames/s", "env-steps per cpu-s", "start (s)")
    print("\n" + "{:48}{:>12}{:>12}{:>21}{:>11}".format(*heads))
    for row in rows:
        print(
            f"{row['contender']:48}{row['env_steps_per_second']:12,.0f}{row['frames_per_second']:12,.0f}"
            f"{row['env_steps_per_processor_second']:21,.0f}{row['start_seconds']:11.1f}"
        )


if __name__ == "__main__":
    main()
