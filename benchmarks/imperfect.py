"""What imperfect networks cost: rounds of Acrobot under schedules, beside the plain synchronous round.

    python -m benchmarks.imperfect [--quick] [--out benchmarks/results/imperfect.json]

25 agents on a ring, networks 2×64. All populations are in one process and take turns; each figure is the median of
nine turns, and ratios are to the plain rounds of the same turn. A round of a schedule is a wave, in which some agents
may rest: costs are given per round, and per env-step, those of resting agents not being counted. The events of a
schedule are simulated on the host before the rounds; that is also measured alone.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.control import machine, show
from gossamer.experience import Steps
from gossamer.recipes import acrobot
from gossamer.recipes.a2c import PUBLISHED_ASYNCHRONY
from gossamer.runtimes.build import build, tree_bytes
from gossamer.runtimes.choice import runtime_of
from gossamer.runtimes.mailbox import Delivery
from gossamer.schedules import Schedule, Simulation

REPEATS = 9
ENV_STEPS = 300_000  # of each population in each turn, if nobody rests
EVENTS = 256  # waves that are simulated by themselves in each turn
HORIZONS = (60, 5)  # steps for an update: of Diff-A2C as published, and of A2C elsewhere
TARGET = 1.25  # times what the plain round costs
PLAIN = "plain synchronous"
SCHEDULES = {
    PLAIN: Schedule(),
    "half of links fail, whatever_arrived": Schedule(link_failure=0.5),
    "asynchronous, most_recent": PUBLISHED_ASYNCHRONY,
    "asynchronous, half of links fail": replace(PUBLISHED_ASYNCHRONY, link_failure=0.5),
    "half of links fail one-sidedly, push_sum": Schedule(
        rule="push_sum", link_failure=0.5, failures="one_sided"
    ),
}
Case: TypeAlias = tuple[str, int]
"""A schedule's name and a horizon."""


@dataclass(frozen=True)
class Turn:
    """What a population did in its turn, and how long it took (s)."""

    rounds: int
    env_steps: int
    seconds: float
    host_seconds_per_round: float

    @property
    def seconds_per_round(self) -> float:
        """Everything: events, rounds, records."""
        return self.seconds / self.rounds

    @property
    def seconds_per_env_step(self) -> float:
        """What was computed in vain for agents at rest included."""
        return self.seconds / self.env_steps


class Trainer:
    """A population under a schedule that can be run for a number of rounds at a time."""

    def __init__(self, schedule: Schedule, horizon: int):
        experiment = replace(acrobot(), schedule=schedule, experience=Steps(horizon))
        self.parts = build(experiment)
        self._every = experiment.record_every
        self._engine = runtime_of(experiment, self.parts)
        self._simulation = Simulation(schedule, self.parts.links, seed=0)
        self._population = self._engine.start()
        self.turn(1)

    def turn(self, rounds: int) -> Turn:
        """So many rounds as ``train`` makes them, and some events by themselves."""
        env_steps, left, started = 0, rounds, time.perf_counter()
        while left:
            length = min(left, self._engine.most_rounds(self._every))
            self._population, reports = self._engine.advance(self._population, length, self._every)
            env_steps += sum(int(report.record.agents.env_steps.sum()) for report in reports)
            left -= length
        seconds = time.perf_counter() - started
        return Turn(rounds, env_steps, seconds, self._simulate() / EVENTS)

    def mail_bytes(self) -> int:
        """Messages in flight and in inboxes."""
        return tree_bytes(self._population.mail)

    def _simulate(self) -> float:
        """Seconds of the host's part; lockstep has none."""
        if self.parts.mailbox is None:
            return 0.0
        started = time.perf_counter()
        for _ in range(EVENTS):
            Delivery.of(self._simulation.wave())
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three turns of a fifth of the length")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "imperfect.json")
    arguments = parser.parse_args()
    repeats, env_steps = (3, ENV_STEPS // 5) if arguments.quick else (REPEATS, ENV_STEPS)
    trainers: dict[Case, Trainer] = {
        (name, horizon): Trainer(SCHEDULES[name], horizon) for name, horizon in product(SCHEDULES, HORIZONS)
    }
    turns = take_turns(trainers, repeats, env_steps)
    rows = [row(case, trainer.mail_bytes(), turns) for case, trainer in trainers.items()]
    result = {
        "command": "python -m benchmarks.imperfect" + (" --quick" if arguments.quick else ""),
        "machine": machine(),
        "target": TARGET,
        "cost": rows,
    }
    show("machine", [result["machine"]])
    print_table(rows)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1, default=float) + "\n")
    print(f"\n{arguments.out}")


def take_turns(trainers: Mapping[Case, Trainer], repeats: int, env_steps: int) -> dict[Case, list[Turn]]:
    """One turn of each, then the next of each, so that noise hits all alike."""
    turns: dict[Case, list[Turn]] = {case: [] for case in trainers}
    for _, (case, trainer) in product(range(repeats), trainers.items()):
        agents, horizon = trainer.parts.topology.agents, case[1]
        turns[case].append(trainer.turn(env_steps // (agents * horizon)))
    return turns


def row(case: Case, mail_bytes: int, turns: Mapping[Case, Sequence[Turn]]) -> dict[str, Any]:
    """Medians of one case, and of its ratios to the plain rounds beside it."""
    name, horizon = case
    own, plain = turns[case], turns[PLAIN, horizon]

    def median(measure: Callable[[Turn], float]) -> float:
        return statistics.median(map(measure, own))

    def ratio(measure: Callable[[Turn], float]) -> float:
        return statistics.median(measure(a) / measure(b) for a, b in zip(own, plain, strict=True))

    host = median(lambda turn: turn.host_seconds_per_round)
    per_env_step = ratio(lambda turn: turn.seconds_per_env_step)
    return {
        "schedule": name,
        "horizon": horizon,
        "seconds_per_round": median(lambda turn: turn.seconds_per_round),
        "seconds_per_env_step": median(lambda turn: turn.seconds_per_env_step),
        "agents_that_adapt": statistics.fmean(
            a.env_steps / b.env_steps for a, b in zip(own, plain, strict=True)
        ),
        "round_relative_to_plain": ratio(lambda turn: turn.seconds_per_round),
        "env_step_relative_to_plain": per_env_step,
        "within_target": per_env_step <= TARGET,
        "host_seconds_per_round": host,
        "simulated_waves_per_second": 1 / host if host else None,
        "mail_bytes": mail_bytes,
    }


def print_table(rows: Iterable[dict[str, Any]]) -> None:
    heads = (
        "",
        "horizon",
        "ms/round",
        "× plain",
        "µs/env-step",
        "× plain",
        "adapt",
        "host ms",
        "waves/s",
        "MiB",
    )
    print("\n" + "{:42}{:>8}{:>10}{:>9}{:>13}{:>9}{:>7}{:>9}{:>9}{:>7}".format(*heads))
    for row in rows:
        print(
            f"{row['schedule']:42}{row['horizon']:8}"
            f"{1e3 * row['seconds_per_round']:10.3f}{row['round_relative_to_plain']:9.2f}"
            f"{1e6 * row['seconds_per_env_step']:13.3f}{row['env_step_relative_to_plain']:9.2f}"
            f"{row['agents_that_adapt']:7.0%}{1e3 * row['host_seconds_per_round']:9.3f}"
            f"{row['simulated_waves_per_second'] or 0:9,.0f}{row['mail_bytes'] / 2**20:7.1f}"
        )


if __name__ == "__main__":
    main()
