"""What gossip over Zenoh costs: time of a round that it holds up, messages a second, and bytes of an agent.

    python -m benchmarks.network [--quick] [--repeats 5] [--priority 0] [--out benchmarks/results/network.json]

Everything runs on the loopback interface of this machine, by mutual TLS with certificates of
``gossamer.network.credentials`` unless plaintext is said. Repeats are outermost, so that contenders take turns; a
figure is the median over repeats, with all of them beside it.

Rounds: two agents, a process and a core each, run the loop of ``gossamer.runtimes.peer`` with arithmetic that takes
50 ms of processor time. Blocked is the time that the loop spends in sending and in taking what has come, waits for the
interpreter's lock included, as a share of the round. Between is what is left of a round besides that, adapting and
combining: the loop's own bookkeeping, and what other threads do on its core meanwhile. The slow-down is that of the
median round against agents without any network. An agent's network threads have no core but that of its loop here, so
that all they do slows it down; this is more than they cost where a core is idle.

Throughput: as many messages as possible from one process to another, a core each. A socket is plain Python with large
buffers, or Python's ssl. Zenoh is its own put and recv, configured as ours, without our code.

Traffic: what the sockets of agents on a ring have sent in a round, TLS included, by the kernel's count. What the kernel
sends again counts apart, since it says how busy the machine is. With headers, and on the interface less what others
send, are two more ways to count the same.

On a shared machine all times scatter. ``others`` is the share of the cores that other programs had meanwhile;
``--priority -20`` leaves them little, as long as it runs.
"""

import argparse
import os
import platform
import secrets
import ssl
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.control import machine
from benchmarks.network import rounds, streams, traffic
from benchmarks.network.station import IN_STEP, NEVER_WAITS, Place
from benchmarks.network.together import Outcome, together
from gossamer.network.credentials import create_authority, issue
from gossamer.network.launcher import local_addresses
from gossamer.network.membership import Fleet, default_names
from gossamer.runs.folder import provenance, write_json
from gossamer.schedules import Schedule

LIMIT = 300.0  # seconds of one turn
BUSY_SECONDS = 0.05
MOST_OF_TRAFFIC = 3  # repeats: what is counted hardly differs
MOST_BLOCKED, LEAST_OF_SOCKET, MOST_GROWTH = 0.03, 0.5, 1.01


@dataclass(frozen=True)
class Plan:
    """What is measured, and how long."""

    sizes: tuple[int, ...] = (650_000, 2_700_000)
    """Of the numbers in a message, in bytes."""
    repeats: int = 5
    rounds: int = 100
    warm_up: int = 10
    streamed: int = 500_000_000
    """Bytes of a stream."""
    agents: tuple[int, ...] = (4, 8, 16, 32)
    """Of rings, from the smallest to the largest."""
    ring_rounds: int = 20
    quiet_seconds: float = 2.0
    priority: int = 0
    """Nice of the processes that are measured."""


QUICK = Plan(repeats=1, rounds=20, streamed=100_000_000, agents=(4, 8), ring_rounds=5, quiet_seconds=0.5)


def main() -> None:
    plan, out = parse()
    result = measure(plan)
    print_tables(result)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, result)
    print(f"\n{out}")


def parse() -> tuple[Plan, Path]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="once, short, and rings of 4 and 8 only")
    parser.add_argument("--repeats", type=int, default=None)
    parser.add_argument("--priority", type=int, default=0, help="nice of what is measured; below 0 as root")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "network.json")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else Plan()
    repeats = arguments.repeats or plan.repeats
    return Plan(**{**vars(plan), "repeats": repeats, "priority": arguments.priority}), arguments.out


def measure(plan: Plan) -> dict[str, Any]:
    """All three measurements."""
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        population = Population(Path(folder) / "keys", max(plan.agents))
        of_rounds = measure_rounds(plan, population)
        throughput = measure_throughput(plan, population)
        of_traffic = measure_traffic(plan, population)
    return {
        "command": " ".join(["python -m benchmarks.network", *sys.argv[1:]]),
        "machine": {
            **machine(),
            "kernel": platform.release(),
            **{name: version(name) for name in ("eclipse-zenoh", "numpy")},
            "openssl": ssl.OPENSSL_VERSION,
            "load_average_before": load,
            "load_average_after": os.getloadavg(),
            "priority": plan.priority,
        },
        "git_revision": provenance()["git_revision"],
        "rounds": of_rounds,
        "throughput": throughput,
        "traffic": of_traffic,
        "targets": judge(of_rounds, throughput, of_traffic),
    }


class Population:
    """Names and certificates of some agents.

    Args:
        folder: of the certificates; it is made.
        agents: how many there are at most.
    """

    def __init__(self, folder: Path, agents: int):
        self._run, self._folder, self._names = secrets.token_hex(16), folder, default_names(max(agents, 2))
        create_authority(folder, "benchmark")
        for name in self._names:
            issue(folder, name)

    def places(self, agents: int, topology: str, schedule: Schedule, size: int, tls: bool) -> list[Place]:
        """Some of them, at ports that are free now."""
        names = self._names[:agents]
        fleet = Fleet(self._run, names, addresses=local_addresses(names, tls))
        keys = str(self._folder) if tls else None
        return [Place(fleet, name, topology, schedule, size, keys) for name in names]


# --- Rounds -----------------------------------------------------------------------------------------------------------


def measure_rounds(plan: Plan, population: Population) -> list[dict[str, Any]]:
    """For each size: what a round loses, and to what."""
    steps = together(rounds.calibrate, [BUSY_SECONDS], LIMIT, plan.priority).returned[0]
    pairs: dict[int, list[tuple[Outcome, Outcome]]] = {size: [] for size in plan.sizes}
    for turn in range(plan.repeats):
        for size in plan.sizes:
            say(turn, plan.repeats, f"rounds, {size:,} bytes")
            alone, gossiping = (
                together(
                    rounds.live,
                    [
                        rounds.Agent(place, steps, plan.rounds, plan.warm_up, alone)
                        for place in population.places(2, "complete", NEVER_WAITS, size, tls=True)
                    ],
                    LIMIT,
                    plan.priority,
                )
                for alone in (True, False)
            )
            pairs[size].append((alone, gossiping))
    message = {size: population.places(2, "complete", NEVER_WAITS, size, tls=True)[0] for size in plan.sizes}
    return [
        {
            "size": size,
            "message_bytes": message[size].message_bytes,
            "rounds": plan.rounds,
            "rule": message[size].schedule.rule,
            **over_repeats([rounds_of(alone, gossiping) for alone, gossiping in each]),
        }
        for size, each in pairs.items()
    ]


def rounds_of(alone: Outcome, gossiping: Outcome) -> dict[str, float | None]:
    """One turn: means over both agents."""
    quiet, loud = (_mean([_round(lived) for lived in turn.returned]) for turn in (alone, gossiping))

    def slow_down(name: str) -> float | None:
        with_network, without = loud[name], quiet[name]
        return with_network / without - 1 if with_network and without else None

    return {
        **loud,
        **{f"{name}_alone": quiet[name] for name in ("blocked_share", "round_ms", "waited_for_core_ms")},
        "slow_down": slow_down("round_ms"),
        "slow_down_without_combining": slow_down("round_without_combining_ms"),
        "others": gossiping.others,
        "others_alone": alone.others,
    }


def _mean(agents: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for name in agents[0]:
        values = [value for each in agents if (value := each[name]) is not None]
        means[name] = statistics.fmean(values) if len(values) == len(agents) else None
    return means


def _round(lived: rounds.Lived) -> dict[str, float | None]:
    """What the rounds of one agent were like."""
    columns = dict(zip(rounds.Row._fields, np.array(lived.rows, float).T, strict=True))
    whole, adapting, combining = columns["whole"], columns["adapting"], columns["combining"]
    blocked = columns["sending"] + columns["taking"]
    between = whole - adapting - combining - blocked
    threads, count = lived.threads, len(whole)

    def share(part: np.ndarray) -> float:
        return float(part.sum() / whole.sum())

    def milliseconds(part: np.ndarray, percentile: float = 50) -> float:
        return float(1e3 * np.percentile(part, percentile))

    return {
        "blocked_share": share(blocked),
        "blocked_ms": milliseconds(blocked),
        "blocked_ms_95": milliseconds(blocked, 95),
        "blocked_processor_ms": milliseconds(columns["network_busy"]),
        "between_share": share(between),
        "between_ms": milliseconds(between),
        "combining_share": share(combining),
        "combining_ms": milliseconds(combining),
        "adapting_ms": milliseconds(adapting),
        "adapting_processor_ms": milliseconds(columns["adapting_busy"]),
        "round_ms": milliseconds(whole),
        "round_without_combining_ms": milliseconds(whole - combining),
        "python_threads_ms": 1e3 * threads.python / count if threads else None,
        "zenoh_threads_ms": 1e3 * threads.zenoh / count if threads else None,
        "waited_for_core_ms": 1e3 * threads.loop_waited / count if threads else None,
        "received_for_each_round": lived.received / count,
        "mean_age": float(columns["age"].mean()),
    }


# --- Throughput -------------------------------------------------------------------------------------------------------


def measure_throughput(plan: Plan, population: Population) -> list[dict[str, Any]]:
    """For each size and contender: megabytes a second, and as a share of a plain socket's."""
    told: dict[tuple[int, str], list[dict[str, float | None]]] = {
        (size, name): [] for size in plan.sizes for name in streams.CONTENDERS
    }
    for turn in range(plan.repeats):
        for size, name in told:
            say(turn, plan.repeats, f"throughput, {name}, {size:,} bytes")
            contender = streams.CONTENDERS[name]
            ends = [
                streams.End(name, place, max(plan.streamed // size, 1), plan.warm_up)
                for place in population.places(2, "complete", IN_STEP, size, contender.tls)
            ]
            outcome = together(streams.live, ends, LIMIT, plan.priority)
            sender, receiver = outcome.returned
            rate = ends[0].place.message_bytes / receiver.seconds / 1e6
            of_turn: dict[str, float | None] = {
                "megabytes_per_second": rate,
                "share_of_socket": rate / (told[size, "socket"][turn]["megabytes_per_second"] or rate)
                if name != "socket"
                else 1.0,
                "sender_processor_ms": 1e3 * sender.busy,
                "receiver_processor_ms": 1e3 * receiver.busy,
                "others": outcome.others,
            }
            told[size, name].append(of_turn)
    return [{"size": size, "contender": name, **over_repeats(each)} for (size, name), each in told.items()]


# --- Traffic ----------------------------------------------------------------------------------------------------------


def measure_traffic(plan: Plan, population: Population) -> list[dict[str, Any]]:
    """For each ring: bytes of an agent in a round."""
    size, processes, repeats = plan.sizes[0], 2, min(plan.repeats, MOST_OF_TRAFFIC)
    rows = []
    for agents in plan.agents:
        turns = []
        for turn in range(repeats):
            say(turn, repeats, f"traffic, a ring of {agents}")
            places = population.places(agents, "ring", IN_STEP, size, tls=True)
            shares = [
                traffic.Share(tuple(places[first::processes]), plan.ring_rounds, 2, plan.quiet_seconds)
                for first in range(processes)
            ]
            turns.append(traffic_of(shares, together(traffic.live, shares, LIMIT, plan.priority)))
        place = population.places(agents, "ring", IN_STEP, size, tls=True)[0]
        rows.append(
            {
                "agents": agents,
                "message_bytes": place.message_bytes,
                "messages_for_each_round": len(place.neighbours),
                "rounds": plan.ring_rounds,
                **over_repeats(turns),
            }
        )
    return rows


def traffic_of(shares: Sequence[traffic.Share], outcome: Outcome) -> dict[str, float | None]:
    """One turn: bytes of an agent in a round."""
    told: list[traffic.Counted] = outcome.returned
    agent_rounds = sum(len(share.places) for share in shares) * shares[0].rounds
    messages, first = sum(counted.messages for counted in told), told[0]
    figures: dict[str, float | None] = {
        "received_messages": messages / agent_rounds,
        "sent_bytes": None,
        "sent_bytes_for_each_message": None,
        "sent_again_bytes": None,
        "with_headers_bytes": None,
        "on_loopback_bytes": None,
        "background_bytes_per_second": first.background,
        "others": outcome.others,
    }
    each = [counted.sent for counted in told if counted.sent]
    if each:
        sent = reduce(traffic.Sent.plus, each)
        figures |= {
            "sent_bytes": sent.bytes / agent_rounds,
            "sent_bytes_for_each_message": sent.bytes / messages,
            "sent_again_bytes": sent.again / agent_rounds,
            "with_headers_bytes": (sent.bytes + sent.again + traffic.HEADERS * sent.segments) / agent_rounds,
        }
    if first.loopback is not None and first.background is not None:
        ours = first.loopback - first.background * first.seconds
        figures["on_loopback_bytes"] = ours / agent_rounds
    return figures


# --- Verdicts and tables ----------------------------------------------------------------------------------------------


def over_repeats(turns: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """Every figure with its median over turns; None where the system does not tell.

    Example:
        >>> over_repeats([{"ms": 3.0, "cores": None}, {"ms": 1.0, "cores": None}, {"ms": 2.0, "cores": None}])
        {'ms': {'median': 2.0, 'each': [3.0, 1.0, 2.0]}, 'cores': None}
    """
    rows: dict[str, Any] = {}
    for name in turns[0]:
        values = [float(value) for turn in turns if (value := turn[name]) is not None]
        complete = len(values) == len(turns)
        rows[name] = {"median": statistics.median(values), "each": values} if complete else None
    return rows


def judge(
    of_rounds: Sequence[Mapping[str, Any]],
    throughput: Sequence[Mapping[str, Any]],
    of_traffic: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """What was to be reached, and whether it was."""
    targets = [
        _target("blocked share of a round", row["size"], row["blocked_share"]["median"], most=MOST_BLOCKED)
        for row in of_rounds
    ]
    targets += [
        _target(
            f"{row['contender']}: share of a socket's throughput",
            row["size"],
            row["share_of_socket"]["median"],
            least=LEAST_OF_SOCKET,
        )
        for row in throughput
        if row["contender"].startswith("gossamer")
    ]
    small, large = of_traffic[0], of_traffic[-1]
    if small["sent_bytes"] and large["sent_bytes"]:
        growth = large["sent_bytes"]["median"] / small["sent_bytes"]["median"]
        name = f"bytes of an agent among {large['agents']} to those among {small['agents']}"
        targets.append(_target(name, small["message_bytes"], growth, most=MOST_GROWTH))
    return targets


def _target(
    name: str, size: int, reached: float, least: float | None = None, most: float | None = None
) -> dict[str, Any]:
    holds = (least is None or reached >= least) and (most is None or reached <= most)
    return {"target": name, "size": size, "reached": reached, "least": least, "most": most, "holds": holds}


def print_tables(result: Mapping[str, Any]) -> None:
    print(f"\n{result['machine']['processor']}, {result['machine']['cores']} cores; medians [least to most]")
    print("\nrounds of two agents, mutual TLS")
    for row in result["rounds"]:
        print(f"  {row['size']:,} bytes")
        for title, name, scale, unit in _ROUND_LINES:
            print(f"    {title:58}{_cell(row[name], scale, unit)}")
    print("\nthroughput, and processor time of a message")
    for row in result["throughput"]:
        print(
            f"  {row['size']:>9,}  {row['contender']:15}"
            f"{_cell(row['megabytes_per_second'], 1, ' MB/s', 0):32}{_cell(row['share_of_socket'], 100, ' %', 0):28}"
            f"{_median(row['sender_processor_ms']):6.2f} + {_median(row['receiver_processor_ms']):.2f} ms"
        )
    print("\ntraffic of an agent on a ring in a round")
    for row in result["traffic"]:
        due = row["message_bytes"] * row["messages_for_each_round"]
        print(f"  {row['agents']:>3} agents: {due:,} bytes of messages")
        for title, name in _TRAFFIC_LINES:
            print(f"    {title:58}{_cell(row[name], 1, ' bytes', 0)}")
    print("\ntargets")
    for row in result["targets"]:
        bound = f"at least {row['least']}" if row["most"] is None else f"at most {row['most']}"
        holds = "holds" if row["holds"] else "DOES NOT HOLD"
        print(f"  {row['target']}, {row['size']:,} bytes: {row['reached']:.4f}, {bound}: {holds}")


def _cell(figure: Mapping[str, Any] | None, scale: float, unit: str, digits: int = 2) -> str:
    if figure is None:
        return "–"
    low, middle, high = (
        f"{scale * value:,.{digits}f}"
        for value in (min(figure["each"]), figure["median"], max(figure["each"]))
    )
    return f"{middle}{unit} [{low} to {high}]"


def _median(figure: Mapping[str, Any]) -> float:
    return figure["median"]


def say(turn: int, turns: int, what: str) -> None:
    print(f"{turn + 1}/{turns}: {what}", file=sys.stderr, flush=True)


_ROUND_LINES = (
    ("blocked in sending and taking", "blocked_share", 100, " %"),
    ("  the same calls without a network", "blocked_share_alone", 100, " %"),
    ("  of a round (median)", "blocked_ms", 1, " ms"),
    ("  95th percentile", "blocked_ms_95", 1, " ms"),
    ("between: bookkeeping, and other threads meanwhile", "between_share", 100, " %"),
    ("combining", "combining_share", 100, " %"),
    ("round", "round_ms", 1, " ms"),
    ("  without a network", "round_ms_alone", 1, " ms"),
    ("slow-down", "slow_down", 100, " %"),
    ("  combining left out", "slow_down_without_combining", 100, " %"),
    ("processor time of our other threads, a round", "python_threads_ms", 1, " ms"),
    ("processor time of Zenoh's threads, a round", "zenoh_threads_ms", 1, " ms"),
    ("loop ready, and its core busy otherwise, a round", "waited_for_core_ms", 1, " ms"),
    ("  without a network", "waited_for_core_ms_alone", 1, " ms"),
    ("messages received for each round", "received_for_each_round", 1, ""),
    ("age of messages in updates", "mean_age", 1, ""),
    ("cores that other programs had", "others", 100, " %"),
)
_TRAFFIC_LINES = (
    ("sent by its sockets, TLS included", "sent_bytes"),
    ("sent once more by the kernel", "sent_again_bytes"),
    ("all of it with headers of TCP and IP", "with_headers_bytes"),
    ("carried by the loopback interface, less the background", "on_loopback_bytes"),
)


if __name__ == "__main__":
    main()
