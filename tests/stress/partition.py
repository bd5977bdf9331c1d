"""Does a ring of agents live through slow, lossy links, and through a time in which it is two? Processes on loopback.

    python -m tests.stress.partition [--agents 8] [--seconds 120] [--apart 30] [--cut stall|close] [--most-ms 1000]
        [--lost 0.3] [--seed 0] [--out benchmarks/results/partition.json]

Every link runs through a TCP proxy of the tests, which delays each chunk of bytes by U(0, 1000) ms in order; 30 % of
all messages are lost besides, where they are handed over. Nobody waits for anybody: an agent combines the newest it has
of each neighbour, however old. In the middle of the time the two links between one half of the ring and the other are
cut, so that bytes stand still in them (or, with ``--cut close``, connections are reset), and then healed. About once a
second an observer asks all agents, each at its own address, for their parameters.

Tasks lie on a grid over the dynamics, so that halves learn from different ones: where they do not talk they drift
apart. ``consensus_distance`` is the root mean square distance of all agents' newest messages to their mean. A pause is
the time between the ends of two rounds of an agent. Whatever is on its way to a neighbour that is not known to be gone
counts as sent, also into a link that stands still.

That a link stands still is noticed by its lease, of 10 s: until then agents go on combining the last that they heard of
the other half, which holds them together. Only then do halves drift apart. A reset connection is noticed at once.
"""

import argparse
import math
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from benchmarks.control import machine
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tests.proxy import Cut, Pair, Proxy

from gossamer.analysis.pictures import colours, save_picture
from gossamer.experiment import Experiment
from gossamer.network.launcher import OBSERVER, Launch, Supervisor, agent_folder, local_addresses
from gossamer.network.membership import Fleet, default_names
from gossamer.network.status import FleetStatus, ask
from gossamer.recipes import cartpole_balance
from gossamer.runs.folder import provenance, read_metrics, write_json
from gossamer.schedules import Schedule

PHASES = ("before", "apart", "after")
LONGEST_START = 600.0  # seconds for all to import, compile, find each other and warm up
WARM_UP = (
    1500  # rounds; parameters move fast at first, and agents are as far apart as a partition would take them
)
LONGEST_PAUSE = 5.0  # seconds between two rounds of an agent that goes on, on a processor that it shares
RISES = 1.5  # times the distance before
LAST = 5  # samples at the end of a phase over which the median distance is taken
AT_ONCE = 2.0  # seconds by which an observer may be late who says when the last message came


@dataclass(frozen=True)
class Setting:
    """What is done to whom; times in seconds."""

    agents: int = 8
    seconds: float = 120.0
    apart: float = 30.0
    cut: Cut = "stall"
    most_ms: float = 1000.0
    lost: float = 0.3
    seed: int = 0

    @property
    def borders(self) -> tuple[float, float]:
        """When the ring comes apart, and when it is healed."""
        before = (self.seconds - self.apart) / 2
        return before, before + self.apart


def population(setting: Setting) -> Experiment:
    """Cart-pole balance with 2×32 units, a task for each agent, and no limit to the age of messages."""
    recipe = cartpole_balance()
    algorithm = replace(recipe.algorithm, hidden=(32, 32), critic_learning_rate=0.003)
    return replace(
        recipe,
        algorithm=algorithm,
        runtime="network",
        agents=setting.agents,
        tasks=setting.agents,
        topology="ring",
        initial_parameters="shared",
        schedule=Schedule("most_recent", link_failure=setting.lost),
        rounds=10**9,
        checkpoint_every=10**9,
        seed=setting.seed,
    )


class Sample(NamedTuple):
    """What the observer saw."""

    asked: (
        float  # seconds when the question was put; it is answered soon, or after 10 s where a session waits
    )
    second: float  # when all was known
    consensus_distance: float | None
    rounds: dict[str, int]
    silent: tuple[str, ...]
    # Of the links that are cut at some time: seconds since a message came, and directed edges whose sender is not there
    # as far as their receiver knows.
    across_heard: float | None
    across_gone: int


def measure(setting: Setting, folder: Path) -> dict[str, Any]:
    """Let a population live through it, and tell what happened.

    Args:
        setting: what is done.
        folder: where agents write; made if it is missing.
    """
    names = default_names(setting.agents)
    fleet = Fleet.named(f"partition {setting.seed}", names, addresses=local_addresses(names, tls=False))
    supervisor = Supervisor(population(setting), fleet, Launch(), folder)
    pairs = [(name, other) for name in names for other in supervisor.connects_to(name)]
    crossing = [pair for pair in pairs if crosses(pair, names)]
    look = partial(ask, supervisor.experiment, fleet, "none", None, OBSERVER)
    targets = {pair: _host_and_port(fleet.addresses[pair[1]]) for pair in pairs}
    folder.mkdir(parents=True, exist_ok=True)
    processes: list[BaseProcess] = []
    with Proxy(targets, setting.most_ms, setting.seed) as proxy, ExitStack() as stack:
        supervisor.through = {pair: f"tcp/127.0.0.1:{proxy.port(pair)}" for pair in pairs}
        stack.callback(_end, processes)
        for name in names:
            processes.append(supervisor.begin(name, "own"))
        _wait_for_all(look, processes)
        samples, borders = _watch(setting, proxy, crossing, look)
        refused = {name: answer["refused"] for name, answer in sorted(look().answers.items())}
        links = {" to ".join(pair): proxy.traffic(pair) for pair in pairs}
    rows = {name: read_metrics(agent_folder(folder, name) / "metrics.jsonl") for name in names}
    return {
        "cut": {"seconds": borders, "links": [" to ".join(pair) for pair in crossing]},
        "distance": distances(samples, borders),
        "noticed": noticed(samples, borders, 2 * len(crossing)),
        "agents": {name: life(rows[name], name, samples, borders) for name in names},
        "refused": refused,
        "exit_status": {process.name: process.exitcode for process in processes},
        "links": links,
        "rounds_per_second": paces(rows, samples),
        "samples": [sample._asdict() for sample in samples],
    }


def crosses(pair: Pair, names: Sequence[str]) -> bool:
    """Whether one is of one half of the ring, and one of the other."""
    first = set(names[: len(names) // 2])
    return (pair[0] in first) != (pair[1] in first)


def _host_and_port(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.partition("/")[2].rpartition(":")
    return host, int(port)


def _wait_for_all(look: Callable[[], FleetStatus], processes: Sequence[BaseProcess]) -> None:
    """Until every agent has warmed up and has heard all its neighbours."""
    until = time.monotonic() + LONGEST_START
    while time.monotonic() < until and all(process.is_alive() for process in processes):
        status = look()
        answers = status.answers.values()
        heard = [edge["round"] is not None for answer in answers for edge in answer["hears"].values()]
        if not status.silent and all(heard) and all(answer["round"] >= WARM_UP for answer in answers):
            return
        time.sleep(1.0)
    raise SystemExit(f"an agent has ended, or not all have begun within {LONGEST_START:g} s")


def _watch(
    setting: Setting, proxy: Proxy, crossing: Sequence[Pair], look: Callable[[], FleetStatus]
) -> tuple[list[Sample], list[float]]:
    """About one sample a second; and when the links were cut and healed, by the same clock."""
    began, borders = time.monotonic(), []

    def change(what: str, do: Callable[[], None]) -> None:
        do()
        borders.append(time.monotonic() - began)
        print(f"{borders[-1]:6.1f} s: {what}", flush=True)

    apart, healed = setting.borders
    cut = partial(proxy.cut, crossing, setting.cut)
    # On time, although to look takes a while.
    timers = [
        threading.Timer(apart, change, ("the ring is two", cut)),
        threading.Timer(healed, change, ("healed", proxy.heal)),
    ]
    samples = []
    try:
        for timer in timers:
            timer.start()
        while (second := time.monotonic() - began) < setting.seconds:
            status = look()
            samples.append(_sample(second, time.monotonic() - began, status, crossing))
            time.sleep(max(0.0, 1.0 - (time.monotonic() - began - second)))
    finally:
        for timer in timers:
            timer.cancel()
    return samples, borders


def _sample(asked: float, second: float, status: FleetStatus, crossing: Sequence[Pair]) -> Sample:
    edges = [
        status.answers[one]["hears"][other]
        for pair in crossing
        for one, other in (pair, pair[::-1])
        if one in status.answers
    ]
    ages = [edge["age_seconds"] for edge in edges if edge["age_seconds"] is not None]
    return Sample(
        asked,
        second,
        status.consensus_distance,
        {name: answer["round"] for name, answer in sorted(status.answers.items())},
        status.silent,
        min(ages, default=None),
        sum(not edge["present"] for edge in edges),
    )


def _end(processes: Sequence[BaseProcess]) -> None:
    """Ask all to save themselves, and wait until they have."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(60.0)
        if process.is_alive():
            process.kill()
            process.join()


def phase_of(second: float, borders: Sequence[float]) -> str:
    """before, apart or after."""
    return PHASES[sum(second >= border for border in borders)]


def distances(samples: Sequence[Sample], borders: Sequence[float]) -> dict[str, float]:
    """Median consensus distance of the last samples of each phase that have one; NaN where none has."""
    known: dict[str, list[float]] = {phase: [] for phase in PHASES}
    for sample in samples:
        if sample.consensus_distance is not None:
            known[phase_of(sample.second, borders)].append(sample.consensus_distance)
    return {phase: statistics.median(each[-LAST:]) if each else math.nan for phase, each in known.items()}


def noticed(samples: Sequence[Sample], borders: Sequence[float], edges: int) -> dict[str, float | None]:
    """Seconds from the cut to the last message across, and to when all knew; from healing to the first, and to that.

    An observer looks about once a second, for some tenths of one, and says when it was done.

    Args:
        samples: of all phases.
        borders: when links were cut and healed.
        edges: directed edges over the cut.
    """
    cut, healed = borders
    apart = [sample for sample in samples if cut <= sample.second < healed]
    after = [sample for sample in samples if sample.second >= healed]
    gone = [sample.second - cut for sample in (*apart, *after) if sample.across_gone == edges]
    back = [sample.second - healed for sample in after if not sample.across_gone]
    came = [_came(sample) - healed for sample in after]
    return {
        "last_message_across": max((_came(sample) - cut for sample in apart), default=-math.inf),
        "all_told_gone": min(gone, default=None),
        "first_message_back": min((each for each in came if each > 0), default=None),
        "all_told_back": min(back, default=None),
    }


def _came(sample: Sample) -> float:
    """When the last message came over the links that are cut at some time, or somewhat before."""
    return -math.inf if sample.across_heard is None else sample.asked - sample.across_heard


def life(
    rows: Sequence[Mapping[str, Any]], name: str, samples: Sequence[Sample], borders: Sequence[float]
) -> dict[str, Any]:
    """What one agent did in each phase; pauses that go on in the next phase belong to that."""
    until = samples[-1].second
    ends = [
        (second, row["messages"])
        for second, row in zip(_clock(rows, name, samples).tolist(), rows, strict=True)
        if 0 <= second <= until  # before all were there they compile, and afterwards they are asked to end
    ]
    times = np.array([0.0, *(second for second, _ in ends), until])
    pauses = list(zip(times[1:].tolist(), np.diff(times).tolist(), strict=True))
    return {phase: _in_phase(phase, ends, pauses, borders) for phase in PHASES}


def _in_phase(
    phase: str,
    ends: Sequence[tuple[float, Mapping[str, Any]]],
    pauses: Sequence[tuple[float, float]],
    borders: Sequence[float],
) -> dict[str, Any]:
    messages = [each for second, each in ends if phase_of(second, borders) == phase]
    return {
        "rounds": len(messages),
        "longest_pause": max(
            (pause for second, pause in pauses if phase_of(second, borders) == phase), default=0.0
        ),
        **{what: sum(each[what] for each in messages) for what in ("sent", "lost", "combined")},
    }


def _clock(rows: Sequence[Mapping[str, Any]], name: str, samples: Sequence[Sample]) -> np.ndarray:
    """When each round of an agent ended, by the observer's clock, to a fraction of a second.

    A round that was seen had ended by then; of all that were seen one had ended just before.
    """
    seconds = np.array([row["time"]["seconds"] for row in rows])
    place = {row["round"]: number for number, row in enumerate(rows)}
    seen = [
        sample.second - seconds[place[sample.rounds[name]]]
        for sample in samples
        if sample.rounds.get(name) in place
    ]
    return seconds + min(seen)


def paces(rows: Mapping[str, Sequence[Mapping[str, Any]]], samples: Sequence[Sample]) -> dict[str, list[int]]:
    """Rounds of every agent in each second."""
    edges = np.arange(0, int(samples[-1].second) + 1)
    return {name: np.histogram(_clock(each, name, samples), edges)[0].tolist() for name, each in rows.items()}


def verdicts(found: Mapping[str, Any], setting: Setting) -> dict[str, bool]:
    """What must hold."""
    distance, lives = found["distance"], found["agents"].values()
    halfway = (distance["before"] + distance["apart"]) / 2
    share = [
        sum(each[phase]["lost"] for each in lives) / max(sum(each[phase]["sent"] for each in lives), 1)
        for phase in PHASES
    ]
    return {
        "the consensus distance rises while the ring is two": distance["apart"] >= RISES * distance["before"],
        "it falls after healing, by more than half of that": distance["after"] < halfway,
        "no message passes the cut": found["noticed"]["last_message_across"] <= AT_ONCE,
        "all agents go on all the time": longest_pause(found) <= LONGEST_PAUSE
        and all(each[phase]["rounds"] > 0 for each in lives for phase in PHASES),
        "as many messages are lost as said": all(abs(each - setting.lost) < 0.05 for each in share),
        "nothing is refused": not any(found["refused"].values()),
        "all save themselves when asked": set(found["exit_status"].values()) == {130},
    }


def longest_pause(found: Mapping[str, Any]) -> float:
    """Of all agents in all phases, in seconds."""
    return max(each[phase]["longest_pause"] for each in found["agents"].values() for phase in PHASES)


def picture(found: Mapping[str, Any]) -> Figure:
    """Distance above, rounds per second below, over time; the partition is shaded."""
    distance, pace = colours(["diffusion", "isolated"])
    figure = Figure(figsize=(9, 6.6), dpi=130, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    samples, (cut, healed) = found["samples"], found["cut"]["seconds"]
    seconds = [sample["second"] for sample in samples]
    values = [sample["consensus_distance"] for sample in samples]
    above.plot(seconds, values, "-o", color=distance, markersize=3)
    highest = max(value for value in values if value is not None)
    above.set(ylabel="consensus distance\n(norm of parameters)", ylim=(0, 1.25 * highest))
    by_agent = np.array(list(found["rounds_per_second"].values()))
    middle = np.arange(by_agent.shape[1]) + 0.5
    below.fill_between(
        middle, by_agent.min(0), by_agent.max(0), color=pace, alpha=0.25, label="slowest to fastest"
    )
    below.plot(middle, by_agent.mean(0), color=pace, label="mean of agents")
    below.set(xlabel="time since all agents were there (s)", ylabel="rounds of an agent\nper second")
    below.set_ylim(0, 1.3 * by_agent.max())
    below.legend(loc="upper left", ncols=2, frameon=False)
    for axis in (above, below):
        axis.axvspan(cut, healed, color="0.85", zorder=0)
        axis.grid(alpha=0.25)
    _mark(above, found["noticed"], cut, healed)
    return figure


def _mark(axis: Axes, seen: Mapping[str, float | None], cut: float, healed: float) -> None:
    """When the ring was cut and healed on the left of a line, when all knew of it on its right."""
    told = seen["all_told_gone"], seen["all_told_back"]
    marks = [(cut, 0.98, "cut in two ", "right", "-"), (healed, 0.98, "healed ", "right", "-")]
    if told[0] is not None:
        marks.append((cut + told[0], 0.92, " neighbours across\n are known to be gone", "left", ":"))
    if told[1] is not None:
        marks.append((healed + told[1], 0.92, " and to be back", "left", ":"))
    for second, height, text, side, style in marks:
        axis.axvline(second, color="0.3", linestyle=style, linewidth=1)
        place = axis.get_xaxis_transform()
        axis.text(second, height, text, transform=place, ha=side, va="top", fontsize=9, color="0.2")


def main() -> None:
    setting, out = parse()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(setting, Path(folder))
    holds = verdicts(found, setting)
    result = {
        "command": " ".join(["python -m tests.stress.partition", *sys.argv[1:]]),
        "machine": machine() | {"load_average": os.getloadavg()[0]},
        "provenance": provenance(),
        "setting": asdict(setting),
        "verdicts": holds,
        "longest_pause": longest_pause(found),
        **found,
    }
    write_json(out, result)
    save_picture(picture(result), out.with_suffix(".png"))
    print_tables(found, holds)
    print(out)


def parse() -> tuple[Setting, Path]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=120.0, help="of all phases together")
    parser.add_argument("--apart", type=float, default=30.0, help="seconds for which the ring is two")
    parser.add_argument("--cut", choices=get_args(Cut), default="stall")
    parser.add_argument("--most-ms", type=float, default=1000.0, help="longest delay of a chunk of bytes")
    parser.add_argument("--lost", type=float, default=0.3, help="share of messages that links lose")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "partition.json")
    given = vars(parser.parse_args())
    out = given.pop("out")
    return Setting(**given), out


def print_tables(found: Mapping[str, Any], holds: Mapping[str, bool]) -> None:
    print(f"\n{'':10}" + "".join(f"{phase:>34}" for phase in PHASES))
    print(f"{'agent':10}" + f"{'rounds':>10}{'pause (s)':>11}{'combined':>13}" * len(PHASES))
    for name, each in found["agents"].items():
        cells = (
            f"{each[phase]['rounds']:>10}{each[phase]['longest_pause']:>11.2f}{each[phase]['combined']:>13}"
            for phase in PHASES
        )
        print(f"{name:10}" + "".join(cells))
    print("consensus distance at the end of each phase:", found["distance"])
    print("seconds after cut and healing:", found["noticed"])
    for claim, verdict in holds.items():
        print(f"{'holds' if verdict else 'does not hold':<14} {claim}")


if __name__ == "__main__":
    main()
