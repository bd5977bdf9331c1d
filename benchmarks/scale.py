"""What does an agent cost, and how far apart do agents drift, where there are 100, 1,000 or 10,000 of them?

    python -m benchmarks.scale [--agents 100 1000 10000] [--seed 0] [--quick] [--out benchmarks/results/scale.json]

No network is used and nothing is trained. Measured here: how long one agent's round of three recipes takes, and how
large its message is. Taken from others, whose addresses stand in the result: latencies and uplinks of four settings.
From these the events of a population are simulated: rounds and bytes of an agent, and the age of messages. Then agents
walk at random, by a step of length η in each update, and combine as the events say: how far they are from their mean
is what a graph and its delays leave of their disagreement, whatever is learned. What simulates and combines is what
trains, ``Simulation`` and ``Mailbox``, and its own cost is timed.

A message takes latency + bytes × out-degree / uplink, since out-neighbours share it; downlinks are wider and left out.
In lockstep an agent waits for all messages of its own round. One that never waits combines the newest it has, and
hands a message over once the one before it is on its way, so that no queue grows: a round then takes the longer of
computing and uploading.

Progress is how far a step that all agents take alike brings their mean. It is 1 in lockstep. Where messages are a
rounds old, it is 1 / (1 + (1 - W_ii) a): whoever averages with the past goes back some way. Push-sum keeps it.
"""

import argparse
import math
import os
import statistics
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from benchmarks.control import machine
from gossamer.analysis.pictures import colours, save_picture
from gossamer.diagnostics.consensus_distance import consensus_distance
from gossamer.environments import Acrobot
from gossamer.experiment import Experiment
from gossamer.mixing import uniform, weigh
from gossamer.recipes import cartpole_balance, gala_a2c, gala_pong
from gossamer.runs.folder import provenance, write_json
from gossamer.runtimes.build import build, initial_population
from gossamer.runtimes.mailbox import Delivery, Mailbox, PushSumMailbox
from gossamer.runtimes.workers import Worker
from gossamer.schedules import Links, Rule, Schedule, Simulation, Wave
from gossamer.topologies import named

Waiting: TypeAlias = Literal["lockstep", "never"]
WAITING: tuple[Waiting, ...] = ("lockstep", "never")

HOUR = 3600.0
DIMENSIONS = 16  # of a walk; distances in η do not depend on it
STRETCHES, STRETCH = 50, 10  # rounds that are timed, of each recipe
# Rounds of an agent before and while its pace is measured. In lockstep a round has hundreds of waves where latencies
# differ by more than computing takes, and the pace settles within a few rounds (to 0.2 %).
LENGTHS: Mapping[Waiting, tuple[int, int]] = {"lockstep": (4, 6), "never": (10, 30)}
SLOW_LENGTHS = (100, 30)  # a slow agent holds back its neighbours' neighbours a round later
SLOW_SHARE, SLOWNESS = 100, 10.0  # one agent in so many takes so many times as long
FOREVER = 1e9  # seconds: in lockstep nobody gives up waiting
SHOWN = "home internet"
GROWS = 1.03  # from one quarter of a walk to the next: it is not at its end


@dataclass(frozen=True)
class Setting:
    """Where agents are: seconds of a message's way, least and most, and bits per second that an agent can send."""

    name: str
    latency: tuple[float, float]
    uplink: float
    sources: tuple[str, ...]


# Published latencies of homes are round trips to a server near by. The way of a message from home to home is half a
# round trip of either, so one in all. Within a data centre it is from half the least round trip to a whole usual one.
SETTINGS = (
    Setting(
        "data centre",
        (0.0001, 0.0005),
        25e9,
        (
            "round trips within a zone from 0.2 ms: "
            "https://orensol.com/2009/05/24/network-latency-inside-and-across-amazon-ec2-availability-zones/",
            "80th percentile of round trips within a zone about 0.5 ms: "
            "https://www.evanjones.ca/network-latencies-2021.html",
            "up to 25 Gbit/s between two instances: "
            "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-network-bandwidth",
        ),
    ),
    Setting(
        "home internet",
        (0.020, 0.060),
        17e6,
        (
            "FCC: fibre 24, cable 32, DSL 49 ms, tiers from 18 to 58 ms: "
            "https://blog.josephscott.org/tag/webperf/page/7/",
            "two thirds of the connections between ten homes within 30 ms: "
            "https://ar5iv.labs.arxiv.org/html/2112.02163",
            "median upload of fixed broadband in the US 17.18 Mbit/s, second quarter of 2021: "
            "https://www.ookla.com/articles/starlink-hughesnet-viasat-performance-q2-2021",
        ),
    ),
    Setting(
        "satellite, low orbit",
        (0.038, 0.060),
        14e6,
        (
            "lowest median latencies of US states 38 to 39 ms, median upload 14.84 Mbit/s, first quarter of 2025: "
            "https://www.rcrwireless.com/?p=419987",
            "median latency 60 ms, third quarter of 2023: "
            "https://world-wire.com/starlink-excels-in-urban-areas-q3s-stellar-performance",
            "median upload 13.89 Mbit/s: "
            "https://www.ookla.com/articles/starlink-hughesnet-viasat-performance-q2-2021",
        ),
    ),
    Setting(
        "satellite, geostationary",
        (0.630, 0.725),
        3e6,
        (
            "median latencies 630 and 724 ms: https://rcrwireless.com/20210804/carriers/"
            "nice-link-if-you-can-get-it-starlink-outpaces-other-satellite-providers-and-sometimes-even-fixed-broadband",
            "median uploads 3.38 and 2.43 Mbit/s: "
            "https://www.ookla.com/articles/starlink-hughesnet-viasat-performance-q2-2021",
        ),
    ),
)


@dataclass(frozen=True)
class Net:
    """A topology and the rule by which what it brings is combined."""

    name: str
    topology: str
    rule: Rule = "most_recent"
    rounds: int = 400  # of a walk

    def links(self, agents: int) -> Links:
        """Every agent believes itself and each in-neighbour alike."""
        return Links.of(weigh(named(self.topology, agents), uniform))


RING, TORUS = Net("ring", "ring"), Net("torus", "torus")
NETS = (
    RING,
    TORUS,
    Net("random 4-regular", "random_regular"),
    Net("random 4-regular, push-sum", "random_regular", "push_sum", rounds=150),
    # These have more edges, and forget within some tens of rounds.
    Net("exponential", "exponential", rounds=150),
    Net("one-peer exponential", "one_peer_exponential", rounds=300),
)


@dataclass(frozen=True)
class Work:
    """One agent's round of a recipe on this machine: seconds, their spread (σ of the logarithm), and the message."""

    recipe: str
    seconds: float
    spread: float
    message_bytes: int
    seconds_each: tuple[float, ...] = ()  # median of every stretch


def recipes() -> dict[str, Experiment]:
    """By name; the second is no recipe of the command line."""
    return {
        "cartpole-balance": cartpole_balance(),
        "gala-acrobot": gala_a2c(Acrobot()),
        "gala-pong": gala_pong(),
    }


STUDIED = "gala-acrobot"  # of the smallest message, whose latency is the most rounds: no other's are as old


def measure(recipe: str, experiment: Experiment, stretches: int = STRETCHES) -> Work:
    """Time rounds of one agent, alone, by the functions of a thread.

    Other programs only ever add time: of several stretches of rounds that with the least upper quartile counts.
    """
    parts = build(experiment)
    population = initial_population(parts.algorithm, experiment, parts.mailbox, parts.tasks)
    learner, playing = jax.tree.map(lambda leaf: leaf[0, 0], (population.learner, population.environments))
    worker = Worker(parts, 0, jax.tree.map(lambda leaf: leaf[0], parts.tasks))
    worker.start(playing)
    seconds: list[float] = []
    for done in range(2 + stretches * STRETCH):  # the first two compile
        started = time.perf_counter()
        learner, _ = worker.adapt(learner, done)
        seconds.append(time.perf_counter() - started)
    worker.close()
    quartiles = np.percentile(np.reshape(seconds[2:], (stretches, STRETCH)), [25, 50, 75], axis=1)
    low, median, high = quartiles[:, quartiles[2].argmin()]
    spread = float(np.log(high / low) / 1.349)  # a normal distribution's quartiles are 1.349 σ apart
    return Work(recipe, float(median), spread, parts.message_bytes, tuple(quartiles[1].tolist()))


def schedule_of(
    work: Work, setting: Setting, links: Links, waiting: Waiting, rule: Rule = "most_recent"
) -> Schedule:
    """What happens when, in seconds."""
    upload = 8 * message_bytes(work, rule) * mean_out_degree(links) / setting.uplink
    low, high = (upload + latency for latency in setting.latency)
    seconds = work.seconds
    if waiting == "never":  # an uplink bounds the mean of rounds, which lies above the median
        seconds = max(seconds, upload * math.exp(-(work.spread**2) / 2))
    schedule = Schedule(
        rule=rule,
        deadline=FOREVER,
        compute_time=f"lognormal:median={seconds!r},sigma={work.spread!r}",
        latency=f"uniform:low={low!r},high={high!r}",
        in_flight=math.ceil(high / seconds) + 2,  # rounds may be shorter than their median
    )
    # On a directed graph a sender may be some rounds ahead of its receiver. In a graph that changes, messages of one
    # edge are a period apart, and one that is overtaken would be waited for in vain.
    return replace(schedule, staleness=0, in_flight=1 + links.period) if waiting == "lockstep" else schedule


LOCKSTEP = Schedule(rule="most_recent", in_flight=0)  # in rounds; how long they take changes no distance


def message_bytes(work: Work, rule: Rule) -> int:
    """Of one message; push-sum's holds a mass too, and two numbers for each."""
    return 2 * (work.message_bytes + 4) if rule == "push_sum" else work.message_bytes


def mean_out_degree(links: Links) -> float:
    """How many messages an agent sends after a round, over agents and phases."""
    return float((links.weight > 0).sum() / (links.period * links.agents))


class Pace(NamedTuple):
    """What happens to an agent on average; ages are of messages that are combined."""

    rounds_per_hour: float
    messages_per_round: float
    age_rounds: float  # as records have it: the receiver's updates less the message's version, at least 0
    age_seconds: float  # since the sender adapted
    age_seconds_95: float  # 95th percentile
    progress: float  # on paper


def pace_of(schedule: Schedule, links: Links, seed: int, warm_up: int, rounds: int) -> Pace:
    """Simulate until agents have made so many rounds on average, counted from the end of the warm-up on."""
    simulation, post = Simulation(schedule, links, seed), _Post(links, schedule.in_flight + 1)
    updates, sent = 0, 0
    first: tuple[int, float] | None = None  # updates and time where counting begins
    ages: list[np.ndarray] = []
    seconds: list[np.ndarray] = []
    while True:
        wave = simulation.wave()
        age_seconds = post.deliver(wave)
        if updates >= (warm_up + rounds) * links.agents:
            break
        if updates >= warm_up * links.agents:
            first = first or (updates, wave.time)
            sent += int(wave.sent.sum())
            ages.append(wave.age[wave.age >= 0])
            seconds.append(age_seconds)
        updates += int(wave.adapts.sum())
    assert first is not None
    counted, elapsed = updates - first[0], wave.time - first[1]
    age, age_seconds = np.concatenate(ages), np.concatenate(seconds)
    rounds_per_second = counted / links.agents / elapsed
    return Pace(
        rounds_per_hour=HOUR * rounds_per_second,
        messages_per_round=sent / counted,
        age_rounds=float(age.mean()),
        age_seconds=float(age_seconds.mean()),
        age_seconds_95=float(np.percentile(age_seconds, 95)),
        progress=progress_of(schedule, links, float(age_seconds.mean()) * rounds_per_second),
    )


def progress_of(schedule: Schedule, links: Links, age: float) -> float:
    """On paper, with messages so many rounds old.

    If all step by 1 in a round and come v farther, v t = W_ii (v (t - 1) + 1) + (1 - W_ii) (v (t - 1 - age) + 1).
    The age is in time: versions of different agents drift apart, which makes no message older.
    """
    if schedule.rule == "push_sum" or schedule.staleness == 0:
        return 1.0
    return float(1 / (1 + (1 - links.own.mean()) * age))


class _Post:
    """When the messages in rings and inboxes were sent."""

    def __init__(self, links: Links, slots: int):
        self._links = links
        self._ring, self._inbox = np.zeros((slots, links.agents)), np.zeros(links.edges)

    def deliver(self, wave: Wave) -> np.ndarray:
        """Seconds since each message was sent that the wave combines."""
        agent, edge = np.flatnonzero(wave.adapts), np.flatnonzero(wave.take >= 0)
        self._ring[wave.slot[agent], agent] = wave.adapted_at[agent]
        self._inbox[edge] = self._ring[wave.take[edge], self._links.sender[edge]]
        used = wave.age >= 0
        return wave.combined_at[self._links.receiver[used]] - self._inbox[used]


class Moment(NamedTuple):
    """After a wave, on average over agents."""

    rounds: float
    time: float  # virtual; in rounds where the schedule is in lockstep
    distance: float  # root mean square, from the mean, in η
    mean: float  # how far a step of length 1 in each update, the same for all, has brought the mean
    events_seconds: float  # what simulating the wave took
    mixing_seconds: float  # and what carrying and combining messages took


def walk(schedule: Schedule, links: Links, rounds: float, seed: int) -> Iterator[Moment]:
    """Agents that begin at one place, step by length η = 1 in each update, and combine as the schedule says."""
    simulation, mailbox = Simulation(schedule, links, seed), Mailbox.of(links, schedule.in_flight)
    box = PushSumMailbox(mailbox) if schedule.rule == "push_sum" else mailbox
    place = jnp.zeros((links.agents, DIMENSIONS + 1))
    mail, updates, waves = box.init(place), 0, 0
    while updates < rounds * links.agents:
        started = time.perf_counter()
        wave = simulation.wave()
        simulated = time.perf_counter()
        step = steps(seed, waves, links.agents)
        drawn = time.perf_counter()
        mail, place, distance, mean = _advance(box, mail, place, step, Delivery.of(wave))
        distance, mean = float(distance), float(mean)
        mixed = time.perf_counter()
        updates, waves = updates + int(wave.adapts.sum()), waves + 1
        yield Moment(updates / links.agents, wave.time, distance, mean, simulated - started, mixed - drawn)


def steps(seed: int, wave: int, agents: int) -> Float[np.ndarray, "agent dimension"]:
    """A direction for every agent, all equally likely, and behind it a 1, the step that all take alike."""
    normal = np.random.default_rng([seed, wave]).standard_normal((agents, DIMENSIONS), np.float32)
    direction = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return np.concatenate([direction, np.ones((agents, 1), np.float32)], axis=1)


@jax.jit
def _advance(
    box: Any, mail: Any, place: Array, step: Any, now: Delivery
) -> tuple[Any, Array, Float[Array, ""], Float[Array, ""]]:
    adapted = place + jnp.where(now.adapts[:, None], step, 0)
    mail, place = box.exchange(mail, place, adapted, now)
    return mail, place, consensus_distance(place[:, :-1]), place[:, -1].mean()


class Limit(NamedTuple):
    """What lockstep ends at: the distance in η, and after how many rounds 95 % of it is there."""

    distance: float
    rounds: int


def limit_of(net: Net, agents: int) -> Limit | None:
    """On paper, for weights that look alike from every agent: eigenvectors of all phases are then Fourier's modes.

    A round in a phase p, in which a mode has the eigenvalue λ_p, makes its variance v ← |λ_p|² (v + η²). The distance
    is √(1/N Σ v), over all modes but the mean. None for a graph that is drawn at random.
    """
    shape = {
        "torus": (most_square(agents), agents // most_square(agents)),
        **dict.fromkeys(("ring", "exponential", "one_peer_exponential"), (agents,)),
    }.get(net.topology)
    if shape is None:
        return None
    columns = [W[:, [0]].toarray().reshape(shape) for W in weigh(named(net.topology, agents), uniform)]
    shrinks = [np.abs(np.fft.fftn(column).ravel()[1:]) ** 2 for column in columns]
    variance, left = np.zeros(agents - 1), np.ones(agents - 1)
    for shrink in shrinks:
        variance, left = shrink * (variance + 1), left * shrink
    variance /= 1 - left  # where a period leaves it as it was
    after = [variance := shrink * (variance + 1) for shrink in shrinks]

    def reached(periods: int) -> bool:
        return bool((variance * left**periods).sum() <= (1 - 0.95**2) * variance.sum())

    most = next(2**k for k in range(64) if reached(2**k))
    periods = bisect_left(range(most), True, key=reached)
    return Limit(math.sqrt(np.mean([each.sum() for each in after]) / agents), periods * len(shrinks))


def most_square(agents: int) -> int:
    """Rows of the torus of so many agents."""
    return next(rows for rows in range(math.isqrt(agents), 0, -1) if agents % rows == 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="a fifth of the rounds that are timed and walked, no Pong"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scale.json")
    arguments = parser.parse_args()
    sizes, seed, shorter = arguments.agents, arguments.seed, 5 if arguments.quick else 1
    chosen = {name: each for name, each in recipes().items() if not (arguments.quick and name == "gala-pong")}
    works = [
        measure(name, each, STRETCHES // shorter) for name, each in with_progress("timing", chosen.items())
    ]
    studied = next(work for work in works if work.recipe == STUDIED)
    walks = walk_table(studied, NETS, sizes, seed, shorter)
    result = {
        "command": " ".join(["python -m benchmarks.scale", *sys.argv[1:]]),
        "machine": machine() | {"load_average": os.getloadavg()[2]},
        "provenance": provenance(),
        "seed": seed,
        "settings": [asdict(setting) for setting in SETTINGS],
        "work": [asdict(work) for work in works],
        "pace": pace_table([(work, RING) for work in works], sizes, seed)
        + pace_table([(studied, net) for net in NETS if net not in (RING, TORUS)], sizes, seed),
        "beside_slow_agents": slow_table(studied, sizes, seed),
        "walks": walks,
        "simulation_cost": cost_table(walks),
    }
    print_tables(result)
    write_json(arguments.out, result)
    save_picture(picture(result), arguments.out.with_suffix(".png"))
    print(f"\n{arguments.out}")


def pace_table(cases: Sequence[tuple[Work, Net]], sizes: Sequence[int], seed: int) -> list[dict[str, Any]]:
    """Paces in all settings."""
    rows = []
    for (work, net), agents in with_progress("pace", product(cases, sizes)):
        links = net.links(agents)
        for setting, waiting in product(SETTINGS, WAITING):
            if (waiting, net.rule) == ("lockstep", "push_sum"):
                continue
            schedule = schedule_of(work, setting, links, waiting, net.rule)
            pace = pace_of(schedule, links, seed, *LENGTHS[waiting])
            sent = pace.messages_per_round * message_bytes(work, net.rule)
            rows.append(
                {
                    "recipe": work.recipe,
                    "net": net.name,
                    "setting": setting.name,
                    "waiting": waiting,
                    "agents": agents,
                    **pace._asdict(),
                    "progress_per_hour": pace.progress * pace.rounds_per_hour,
                    "bytes_per_round": sent,
                    "bytes_per_hour": sent * pace.rounds_per_hour,
                }
            )
    return rows


def slow_table(work: Work, sizes: Sequence[int], seed: int) -> list[dict[str, Any]]:
    """Mean pace on a ring in a data centre, where one agent in a hundred always takes ten times as long."""
    rows = []
    for agents, waiting in with_progress("slow agents", product(sizes, WAITING)):
        links = RING.links(agents)
        equal = schedule_of(work, SETTINGS[0], links, waiting)
        slow = replace(equal, slow_agents=tuple((each, SLOWNESS) for each in range(0, agents, SLOW_SHARE)))
        alone, beside = (pace_of(each, links, seed, *SLOW_LENGTHS).rounds_per_hour for each in (equal, slow))
        rows.append({"waiting": waiting, "agents": agents, "rounds_per_hour": beside, "kept": beside / alone})
    return rows


def walk_table(
    work: Work, nets: Sequence[Net], sizes: Sequence[int], seed: int, shorter: int = 1
) -> list[dict[str, Any]]:
    """Walks in lockstep, and without waiting in every setting."""
    rows = []
    for net, agents, setting in with_progress("walks", product(nets, sizes, (None, *SETTINGS))):
        links = net.links(agents)
        if setting is not None:
            schedule = schedule_of(work, setting, links, "never", net.rule)
        elif net.rule == "push_sum":
            continue
        else:
            schedule = LOCKSTEP
        limit = limit_of(net, agents)
        moments = list(walk(schedule, links, net.rounds // shorter, seed))
        summary = summarise(moments)
        # Delays slow down what makes agents agree as they slow down progress.
        enough = limit is None or moments[-1].rounds * summary["progress"] >= limit.rounds
        rows.append(
            {
                "net": net.name,
                "setting": "lockstep" if setting is None else setting.name,
                "agents": agents,
                "rounds": moments[-1].rounds,
                **summary,
                "steady": enough and summary["growth"] < GROWS,
                "limit_on_paper": limit.distance if limit and setting is None else None,
                "rounds_to_95_percent_on_paper": limit.rounds if limit and setting is None else None,
                "events_microseconds": 1e6
                / agents
                * statistics.median(each.events_seconds for each in moments),
                "mixing_microseconds": 1e6
                / agents
                * statistics.median(each.mixing_seconds for each in moments),
                "over_time": {
                    name: [float(f"{getattr(each, name):.5g}") for each in spaced(moments)]
                    for name in ("rounds", "time", "distance")
                },
            }
        )
    return rows


def summarise(moments: Sequence[Moment]) -> dict[str, float]:
    """Distance over the last quarter of a walk, how much it has grown since the one before, and progress.

    Example:
        >>> moments = [Moment(float(k), float(k), 1.0, 0.5 * k, 0.0, 0.0) for k in range(8)]
        >>> summarise(moments)
        {'distance': 1.0, 'growth': 1.0, 'progress': 0.5}
    """
    squares, quarter = np.square([each.distance for each in moments]), len(moments) // 4
    last, third = (math.sqrt(part.mean()) for part in (squares[-quarter:], squares[-2 * quarter : -quarter]))
    end, middle = moments[-1], moments[len(moments) // 2]
    progress = (end.mean - middle.mean) / (end.rounds - middle.rounds)
    return {"distance": last, "growth": last / third, "progress": progress}


def cost_table(walks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What our own simulation costs per agent and wave (µs), medians over settings."""
    rows = []
    for net, agents in dict.fromkeys((row["net"], row["agents"]) for row in walks):
        those = [row for row in walks if (row["net"], row["agents"]) == (net, agents)]
        medians = {
            name: statistics.median(row[f"{name}_microseconds"] for row in those)
            for name in ("events", "mixing")
        }
        rows.append({"net": net, "agents": agents, **medians})
    return rows


def spaced(moments: Sequence[Moment], points: int = 24) -> list[Moment]:
    """Some of them, ever farther apart."""
    places = np.unique(np.geomspace(1, len(moments), points).round().astype(int)) - 1
    return [moments[place] for place in places]


def with_progress(title: str, cases: Iterable[Any]) -> Iterator[Any]:
    """The cases, and a line on stderr after each."""
    cases, started = list(cases), time.perf_counter()
    for number, case in enumerate(cases, 1):
        yield case
        seconds = time.perf_counter() - started
        print(f"{title} {number}/{len(cases)}, {seconds:.0f} s", file=sys.stderr, flush=True)


def print_tables(result: Mapping[str, Any]) -> None:
    """For people; the file holds more."""
    print("\none agent's round on this machine")
    for work in result["work"]:
        print(
            f"  {work['recipe']:18}{1e3 * work['seconds']:9.2f} ms, σ {work['spread']:.2f}, "
            f"message {work['message_bytes']:,} B"
        )
    shown = (RING.name, SHOWN)  # all that is on a ring, and all that is in one setting
    pace = [row for row in result["pace"] if row["net"] in shown or row["setting"] in shown]
    names = ("recipe", "net", "setting", "waiting")
    print_table("rounds per agent and hour", pace, names, lambda row: f"{row['rounds_per_hour']:,.0f}")
    print_table(
        "progress per hour: rounds in lockstep that would bring the mean as far",
        pace,
        names,
        lambda row: f"{row['progress_per_hour']:,.0f}",
    )
    print_table(
        "sent by an agent: kB per round, MB per hour",
        pace,
        names,
        lambda row: f"{row['bytes_per_round'] / 1e3:,.0f}, {row['bytes_per_hour'] / 1e6:,.0f}",
    )
    print_table(
        "age of messages: rounds, seconds",
        pace,
        names,
        lambda row: f"{row['age_rounds']:.2f}, {row['age_seconds']:.2g}",
    )
    print_table(
        "pace that is kept if one agent in a hundred takes ten times as long",
        result["beside_slow_agents"],
        ("waiting",),
        lambda row: f"{row['kept']:.0%}",
    )
    walks, names = result["walks"], ("net", "setting")
    print_table(
        "distance from the mean in η, progress of a round; … not at its end",
        walks,
        names,
        lambda row: f"{row['distance']:.2f}{'' if row['steady'] else ' …'}, {row['progress']:.2f}",
    )
    print_table(
        "on paper, in lockstep: distance in the end, rounds until 95 % of it",
        [row for row in walks if row["limit_on_paper"] is not None],
        names,
        lambda row: f"{row['limit_on_paper']:.2f}, {row['rounds_to_95_percent_on_paper']:,}",
    )
    print_table(
        "our simulation, µs per agent and wave: events, mixing",
        result["simulation_cost"],
        ("net",),
        lambda row: f"{row['events']:.2f}, {row['mixing']:.2f}",
    )


def print_table(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    cell: Callable[[Mapping[str, Any]], str],
) -> None:
    """A line for all rows of the same names, and a column for every number of agents."""
    sizes = list(dict.fromkeys(row["agents"] for row in rows))
    print(f"\n{title:76}" + "".join(f"{f'{agents:,} agents':>18}" for agents in sizes))
    for label in dict.fromkeys(tuple(row[name] for name in names) for row in rows):
        those = [row for row in rows if tuple(row[name] for name in names) == label]
        print(f"  {', '.join(label):74}" + "".join(f"{cell(row):>18}" for row in those))


def picture(result: Mapping[str, Any]) -> Figure:
    """Pace of every recipe above, distances on every topology below, against the number of agents."""
    names = [setting["name"] for setting in result["settings"]]
    palette = dict(zip(names, colours(names), strict=True)) | {"lockstep": "0.55"}
    figure = Figure(figsize=(14, 8.4), dpi=130, layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    on_ring = [row for row in result["pace"] if row["net"] == RING.name]
    draw_panels(above, on_ring, "recipe", "per agent and hour, on a ring", partial(draw_pace, palette))
    draw_panels(
        below,
        result["walks"],
        "net",
        "distance from the mean\n(in η, one agent's step)",
        partial(draw_walks, palette),
    )
    handles = [Line2D([], [], color=palette[name], label=name) for name in names]
    handles += [
        Line2D([], [], color="0.2", marker="o", label="rounds where nobody waits"),
        Line2D([], [], color="0.2", linestyle=":", label="and their progress, in rounds of lockstep"),
        Line2D([], [], color="0.2", linestyle="--", marker="s", label="rounds in lockstep"),
        Line2D([], [], color=palette["lockstep"], linestyle="--", marker="s", label="in lockstep, anywhere"),
        Line2D([], [], color=palette["lockstep"], linestyle=":", label="and in the end, on paper"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    return figure


def draw_panels(
    figure: SubFigure,
    rows: Sequence[Mapping[str, Any]],
    name: str,
    label: str,
    draw: Callable[[Axes, Sequence[Mapping[str, Any]]], None],
) -> None:
    """A panel for each value that a column has, with a common ordinate."""
    values = list(dict.fromkeys(row[name] for row in rows))
    axes = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for axis, value in zip(axes, values, strict=True):
        draw(axis, [row for row in rows if row[name] == value])
        axis.set(title=value.replace(", ", ",\n"), xlabel="agents", xscale="log", yscale="log")
        axis.grid(alpha=0.25)
    axes[0].set_ylabel(label)


def draw_pace(palette: Mapping[str, str], axis: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """One recipe."""
    for (setting, colour), waiting in product(palette.items(), WAITING):
        line = [row for row in rows if (row["setting"], row["waiting"]) == (setting, waiting)]
        agents = [row["agents"] for row in line]
        style = "--s" if waiting == "lockstep" else "-o"
        axis.plot(agents, [row["rounds_per_hour"] for row in line], style, color=colour, markersize=4)
        if waiting == "never":
            axis.plot(agents, [row["progress_per_hour"] for row in line], ":", color=colour)


def draw_walks(palette: Mapping[str, str], axis: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """One topology."""
    for setting, colour in palette.items():
        line = [row for row in rows if row["setting"] == setting]
        agents = [row["agents"] for row in line]
        style = "--s" if setting == "lockstep" else "-o"
        axis.plot(agents, [row["distance"] for row in line], style, color=colour, markersize=4)
        if line and line[0]["limit_on_paper"] is not None:
            axis.plot(agents, [row["limit_on_paper"] for row in line], ":", color=colour)


if __name__ == "__main__":
    main()
