"""Does gossip end, whatever happens? Agents in real threads with real inboxes, in virtual time.

    python -m tests.stress.never_hangs [--seeds 16] [--out benchmarks/results/never_hangs.json]

Five agents with a trivial learner run on three graphs under seven ways of waiting, and in each case something goes
wrong. Time passes only while every thread waits, so that a deadline of seconds costs none, and a run in which nobody
can go on any more is seen at once and not by a timeout. At the end, in real time: what a slow agent costs the others.
"""

import argparse
import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tests.virtual_clock import VirtualClock

from gossamer.mixing import uniform, weigh
from gossamer.runtimes.clock import Clock, MonotonicClock
from gossamer.runtimes.inbox import Inbox
from gossamer.runtimes.peer import Neighbourhood, Peer, Update
from gossamer.runtimes.thread_group import SharedMemoryTransport
from gossamer.schedules import Links, Schedule
from gossamer.schedules.adaptive_timeout import AdaptiveTimeout
from gossamer.topologies import named

AGENTS, ROUNDS = 5, 12
PACE_ROUNDS = 300
ODD = 2  # the agent that dies, is slow, or joins late
TOPOLOGIES = ("ring", "directed_ring", "complete")
TROUBLES = ("finish_apart", "one_dies", "one_slow", "one_late", "lossy")
PATIENCE = AdaptiveTimeout(deviations=10.0, least=0.5, first=8.0)
WAITING: dict[str, tuple[Schedule, bool]] = {
    "lockstep": (Schedule("most_recent", staleness=0), True),
    "staleness_0": (Schedule("most_recent", staleness=0), False),
    "staleness_1": (Schedule("most_recent", staleness=1), False),
    "staleness_5": (Schedule("most_recent", staleness=5), False),
    "most_recent": (Schedule("most_recent"), False),
    "all_in_peers": (Schedule("all_in_peers"), False),
    "whatever_arrived": (Schedule("whatever_arrived"), False),
}


class Died(Exception):
    """What the agent that dies ends with."""


class Walk:
    """A trivial part: every round takes about a second, and moves one number by a little."""

    def __init__(
        self, agent: int, clock: VirtualClock, seed: int, slowness: float = 1.0, dies: int | None = None
    ):
        self._clock, self._slowness, self._dies = clock, slowness, dies
        self._random = np.random.default_rng([seed, agent])

    def adapt(self, learner: Any, done: int) -> tuple[Any, None]:
        if done == self._dies:
            raise Died
        self._clock.sleep(self._slowness * self._random.uniform(0.5, 1.5))
        return learner + self._random.normal(), None

    def message(self, learner: Any) -> Any:
        return learner

    def combine(self, learner: Any, messages: Sequence[Any], weights: np.ndarray) -> Any:
        assert abs(weights.sum() - 1) < 1e-9
        return float(weights @ np.array(messages))


class Idle:
    """A part whose rounds take some time, in which the processor is free."""

    def __init__(self, clock: Clock, seconds: float):
        self._clock, self._seconds = clock, seconds

    def adapt(self, learner: Any, done: int) -> tuple[Any, None]:
        self._clock.sleep(self._seconds)
        return learner, None

    def message(self, learner: Any) -> Any:
        return learner

    def combine(self, learner: Any, messages: Sequence[Any], weights: np.ndarray) -> Any:
        return float(weights @ np.array(messages))


class AlwaysOpen:
    """A gate that nobody closes."""

    def enter(self, done: int) -> bool:
        return True

    def hurries(self) -> bool:
        return False


class SilentDeath:
    """A post in which one agent goes without a word."""

    def __init__(self, post: SharedMemoryTransport, agent: int):
        self._post, self._agent, self.send = post, agent, post.send

    def leave(self, agent: int) -> None:
        if agent != self._agent:
            self._post.leave(agent)


@dataclass(frozen=True)
class Case:
    """One run: who talks to whom, who waits for what, and what goes wrong."""

    topology: str
    waiting: str
    trouble: str
    seed: int


class Outcome(NamedTuple):
    """What became of the agents: updates, combinations and the virtual time of each one's end."""

    updates: list[int]
    combines: list[int]
    ended: list[float]


def run(case: Case) -> Outcome:
    """Run a case to its end.

    Raises:
        Deadlock: it has none.
    """
    clock = VirtualClock(AGENTS)
    schedule, lockstep = WAITING[case.waiting]
    if case.trouble == "lossy":
        schedule = replace(schedule, link_failure=0.3, failures="one_sided")
    links = Links.of(weigh(named(case.topology, AGENTS), uniform))
    neighbourhoods = [Neighbourhood.of(links, agent) for agent in range(AGENTS)]
    inboxes = [Inbox(each.senders, clock, None if lockstep else 1) for each in neighbourhoods]
    post: Any = SharedMemoryTransport(links, inboxes, schedule, case.seed)
    if case.trouble == "one_dies":
        post = SilentDeath(post, ODD)
    happened: list[list[Update]] = [[] for _ in range(AGENTS)]
    outcome = Outcome([0] * AGENTS, [0] * AGENTS, [0.0] * AGENTS)
    failures: list[BaseException] = []

    def live(agent: int) -> None:
        part = Walk(
            agent,
            clock,
            case.seed,
            slowness=10.0 if (case.trouble, agent) == ("one_slow", ODD) else 1.0,
            dies=ROUNDS // 2 if (case.trouble, agent) == ("one_dies", ODD) else None,
        )
        peer = Peer(neighbourhoods[agent], part, inboxes[agent], post, clock, schedule, PATIENCE, lockstep)
        rounds = ROUNDS + (3 * agent if case.trouble == "finish_apart" else 0)
        learner, done = float(agent), 0
        try:
            if (case.trouble, agent) == ("one_late", ODD):
                clock.sleep(5.5)
                learner, done = peer.take_over(learner, done)
            for update, _ in peer.rounds(learner, done, rounds, AlwaysOpen()):
                happened[agent].append(update)
        except Died:
            pass
        except BaseException as error:
            failures.append(error)
        finally:
            outcome.ended[agent] = clock.now()
            clock.finish()

    threads = [threading.Thread(target=live, args=(agent,), daemon=True) for agent in range(AGENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    for agent, updates in enumerate(happened):
        outcome.updates[agent] = len(updates)
        outcome.combines[agent] = sum(len(update.ages) > 0 for update in updates)
    return outcome


def pace(waiting: str, slow: bool) -> float:
    """Rounds per second of everybody but one, in real time; that one is ten times as slow, idly, or is not.

    Only one agent's round is slow, and nobody computes: what is left is what agents cost each other.
    """
    clock, (schedule, lockstep) = MonotonicClock(), WAITING[waiting]
    schedule = replace(schedule, slow_agents=((ODD, 10.0),)) if slow else schedule
    links = Links.of(weigh(named("directed_ring", AGENTS), uniform))
    neighbourhoods = [Neighbourhood.of(links, agent) for agent in range(AGENTS)]
    inboxes = [Inbox(each.senders, clock, None if lockstep else 1) for each in neighbourhoods]
    post = SharedMemoryTransport(links, inboxes, schedule, seed=0)
    seconds: dict[int, float] = {}

    def live(agent: int) -> None:
        part = Idle(clock, 0.01)
        peer = Peer(neighbourhoods[agent], part, inboxes[agent], post, clock, schedule, PATIENCE, lockstep)
        began, rounds = clock.now(), PACE_ROUNDS // 10 if agent == ODD and slow else PACE_ROUNDS
        for _ in peer.rounds(0.0, 0, rounds, AlwaysOpen()):
            pass
        seconds[agent] = clock.now() - began

    threads = [threading.Thread(target=live, args=(agent,), daemon=True) for agent in range(AGENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return float(np.median([PACE_ROUNDS / seconds[agent] for agent in range(AGENTS) if agent != ODD]))


def cells() -> list[tuple[str, str, str]]:
    """Every graph with every way of waiting and every trouble."""
    return [(graph, waiting, trouble) for graph in TOPOLOGIES for waiting in WAITING for trouble in TROUBLES]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/never_hangs.json"))
    options = parser.parse_args()
    logging.getLogger("gossamer").setLevel(logging.ERROR)  # a missing message is what is made to happen here
    rows = []
    print(
        f"{'graph':<14}{'waiting':<18}{'trouble':<14}{'combines of each agent, mean over seeds':<44}longest"
    )
    for graph, waiting, trouble in cells():
        outcomes = [run(Case(graph, waiting, trouble, seed)) for seed in range(options.seeds)]
        combines = np.mean([outcome.combines for outcome in outcomes], axis=0).round(1).tolist()
        longest = round(max(max(outcome.ended) for outcome in outcomes), 1)
        rows.append(
            {
                "graph": graph,
                "waiting": waiting,
                "trouble": trouble,
                "runs": options.seeds,
                "updates": np.mean([outcome.updates for outcome in outcomes], axis=0).tolist(),
                "combines": combines,
                "longest_virtual_seconds": longest,
            }
        )
        print(f"{graph:<14}{waiting:<18}{trouble:<14}{combines!s:<44}{longest:.1f} s", flush=True)
    total = len(rows) * options.seeds
    print(f"{total} runs, all of which ended")
    paces = []
    for waiting in ("most_recent", "all_in_peers", "whatever_arrived"):
        without, beside = pace(waiting, slow=False), pace(waiting, slow=True)
        paces.append(
            {"waiting": waiting, "alone": without, "beside_a_slow_one": beside, "ratio": beside / without}
        )
        print(f"{waiting:<18} {without:.1f} rounds/s, {beside:.1f} beside one that is ten times as slow")
    data = {"agents": AGENTS, "rounds": ROUNDS, "runs": total, "ended": total, "pace": paces, "cells": rows}
    options.out.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
