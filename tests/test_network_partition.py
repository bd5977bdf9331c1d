"""A ring that comes apart and is healed: sessions on loopback through a proxy that delays and cuts."""

import threading
import time
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("zenoh", reason="the network needs the extra gossamer[network]")

from tests.stress import partition

from gossamer.mixing import uniform, weigh
from gossamer.network.access import zenoh_config
from gossamer.network.launcher import local_addresses
from gossamer.network.receiver import Receiver
from gossamer.network.refusals import Refusals
from gossamer.network.schema import Schema
from gossamer.network.send_queue import NetworkTransport, SenderIdentity, SendQueue
from gossamer.network.session import Session
from gossamer.network.topics import Topics
from gossamer.network.wire import Expected, message_bytes
from gossamer.runtimes.clock import MonotonicClock
from gossamer.runtimes.inbox import Inbox
from gossamer.runtimes.peer import Neighbourhood, Peer
from gossamer.schedules import Links, Schedule
from gossamer.topologies import named
from proxy import Proxy

DEADLINE = 40.0  # seconds; reached only where something is broken
LEASE = 2.0  # seconds; Zenoh's own is 10
LONGEST_PAUSE = 5.0  # seconds; a round takes some hundredths, on processors that others use too
PACE = 0.02  # seconds between two rounds
RUN = "0f" * 16
TOPICS = Topics(RUN)
SCHEMA = Schema.of({"w": np.zeros(2, np.float32)})
EXPECTED = Expected(bytes.fromhex(RUN), SCHEMA, "none", message_bytes(SCHEMA, "none"))
NAMES = ("ada", "bob", "cleo", "dan")
FIRST_HALF = (0, 1)
LINKS = Links.of(weigh(named("ring", len(NAMES)), uniform))
SCHEDULE = Schedule("most_recent", link_failure=0.3)


def wait_for(condition, what):
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def address_of(endpoint):
    host, _, port = endpoint.partition("/")[2].rpartition(":")
    return host, int(port)


def session_of(listen, connect, lease):
    config = zenoh_config((listen,) if listen else (), connect, None, None)
    return Session({**config, "transport/link/tx/lease": int(1000 * lease)})


# --- A ring -------------------------------------------------------------------------------------------------------


class Drift:
    """A part that goes its half's way: nothing but others holds it."""

    def __init__(self, number):
        self.step = np.float32(0.01 if number in FIRST_HALF else -0.01) * np.ones(2, np.float32)

    def adapt(self, learner, done):
        return learner + self.step, None

    def message(self, learner):
        return {"w": learner}

    def combine(self, learner, messages, weights):
        assert abs(weights.sum() - 1) < 1e-6
        return sum(np.float32(weight) * each["w"] for weight, each in zip(weights, messages, strict=True))


class Agent:
    """An agent in a thread, with all that it would have in a process but the algorithm."""

    def __init__(self, number, listen, connect):
        self.number, self.name, self.stop = number, NAMES[number], threading.Event()
        neighbourhood, clock = Neighbourhood.of(LINKS, number), MonotonicClock()
        self.near = neighbourhood.senders
        numbers = {NAMES[each]: each for each in self.near}
        self.inbox, self.refusals = Inbox(self.near, clock), Refusals(self.name)
        self.session = session_of(listen, connect, LEASE)
        self.receiver = Receiver(
            number, self.inbox, EXPECTED, TOPICS, numbers, frozenset(self.near), SCHEDULE, 0, self.refusals
        )
        for name in numbers:
            self.session.subscribe(TOPICS.message(name, 0), self.receiver.receive, lossless=False)
            self.session.watch_tokens(TOPICS.alive(name), self.receiver.appeared, self.receiver.gone)
        key = TOPICS.message(self.name, 0)
        send_queue = SendQueue(
            SenderIdentity(number, bytes.fromhex(RUN), 1, SCHEMA, "none"),
            [self.session.publisher(key, lossless=False)],
            lockstep=False,
        )
        transport = NetworkTransport(
            send_queue, LINKS, number, SCHEDULE, 0, self.receiver.present, self.join, lambda: self.withdraw()
        )
        self.peer = Peer(neighbourhood, Drift(number), self.inbox, transport, clock, SCHEDULE, None)
        self.place, self.ended = np.zeros(2, np.float32), []
        self.thread = threading.Thread(target=self.live, daemon=True)

    def join(self):
        self.withdraw = self.session.declare_token(TOPICS.alive(self.name, 1))

    def live(self):
        for _, place in self.peer.rounds(self.place, 0, 10**9, self):
            self.place = place
            self.ended.append(time.monotonic())

    def enter(self, done):
        return not self.stop.wait(PACE)

    def hurries(self):
        return False

    def close(self):
        self.stop.set()
        if self.thread.ident is not None:
            self.thread.join()
        self.session.close()


@pytest.fixture
def ring():
    """Four agents in a ring; the later of two connects. Halves are 0, 1 and 2, 3."""
    addresses = local_addresses(NAMES, tls=False)
    pairs = [
        (NAMES[number], NAMES[other])
        for number in range(len(NAMES))
        for other in Neighbourhood.of(LINKS, number).senders
        if other < number
    ]
    targets = {pair: address_of(addresses[pair[1]]) for pair in pairs}
    agents = []
    with Proxy(targets, most_ms=50.0, seed=0) as proxy:
        try:
            for number, name in enumerate(NAMES):
                connect = [f"tcp/127.0.0.1:{proxy.port(pair)}" for pair in pairs if pair[0] == name]
                agents.append(Agent(number, addresses[name], connect))
            yield proxy, [pair for pair in pairs if partition.crosses(pair, NAMES)], agents
        finally:
            for agent in agents:
                agent.close()


def distance_of(agents):
    places = np.stack([agent.place for agent in agents])
    return float(np.sqrt(((places - places.mean(0)) ** 2).sum(1).mean()))


def across(agent):
    """Neighbours in the other half."""
    return {each for each in agent.near if (each in FIRST_HALF) != (agent.number in FIRST_HALF)}


def rounds_more(agents, rounds, what):
    made = [len(agent.ended) for agent in agents]
    wait_for(
        lambda: all(len(agent.ended) >= had + rounds for agent, had in zip(agents, made, strict=True)), what
    )


def test_halves_drift_apart_and_meet_again_and_nobody_stops(ring):
    proxy, crossing, agents = ring
    assert crossing == [("cleo", "bob"), ("dan", "ada")]
    for agent in agents:
        agent.thread.start()
    wait_for(
        lambda: all(agent.receiver.last().keys() == set(agent.near) for agent in agents), "not all are heard"
    )
    rounds_more(agents, 100, "agents do not go on")
    before = distance_of(agents)

    proxy.cut(crossing, "stall")
    cut_at = time.monotonic()
    wait_for(
        lambda: all(agent.receiver.present() == set(agent.near) - across(agent) for agent in agents),
        "neighbours across are not known to be gone, or others are",
    )
    assert time.monotonic() - cut_at > LEASE / 2  # by the lease, as nothing was closed
    wait_for(lambda: distance_of(agents) > 5 * before, "halves do not drift apart")
    rounds_more(agents, 20, "agents do not go on alone")
    apart = distance_of(agents)
    versions = {
        (agent, each): agent.receiver.last()[each].version for agent in agents for each in across(agent)
    }

    proxy.heal()
    wait_for(
        lambda: all(agent.receiver.present() == set(agent.near) for agent in agents), "not all come back"
    )
    wait_for(lambda: distance_of(agents) < apart / 3, "halves do not meet again")
    rounds_more(agents, 20, "agents do not go on together")
    for (agent, each), version in versions.items():
        assert agent.receiver.last()[each].version > version
    longest = max(late - early for agent in agents for early, late in pairwise(agent.ended))
    assert longest < LONGEST_PAUSE
    assert [agent.refusals.counts() for agent in agents] == [{}] * len(agents)


# --- A neighbour --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "lease", "least", "most"), [("stall", 2.0, 1.0, 20.0), ("close", 60.0, 0.0, 20.0)]
)
def test_a_neighbour_is_gone_by_the_lease_or_at_once_and_joins_again(how, lease, least, most):
    """It shows its token and says nothing, so that nothing but the token brings it back."""
    endpoint = local_addresses(("ada",), tls=False)["ada"]
    inbox = Inbox([1], MonotonicClock())
    numbers = {"bob": 1}
    receiver = Receiver(0, inbox, EXPECTED, TOPICS, numbers, frozenset([1]), SCHEDULE, 0, Refusals("ada"))
    with Proxy({("bob", "ada"): address_of(endpoint)}) as proxy:
        ada = session_of(endpoint, (), lease)
        bob = session_of(None, [f"tcp/127.0.0.1:{proxy.port(('bob', 'ada'))}"], lease)
        try:
            ada.watch_tokens(TOPICS.alive("bob"), receiver.appeared, receiver.gone)
            withdraw = bob.declare_token(TOPICS.alive("bob", 1))
            wait_for(lambda: not inbox.look().left.any(), "bob does not come")
            proxy.cut([("bob", "ada")], how)
            began = time.monotonic()
            wait_for(lambda: inbox.look().left.all(), "ada does not know that bob is gone")
            assert least < time.monotonic() - began < most
            assert receiver.present() == frozenset()
            proxy.heal()
            wait_for(lambda: not inbox.look().left.any(), "bob does not come back")
            assert inbox.look().present.all()
            assert receiver.present() == {1}
            assert proxy.traffic(("bob", "ada"))["connections"] >= 2
            withdraw()
            wait_for(lambda: inbox.look().left.all(), "bob does not leave")
        finally:
            bob.close()
            ada.close()


@pytest.mark.slow
def test_processes_drift_apart_and_meet_again(tmp_path):
    # Connections are reset: a look lasts 10 s at times while links stand still, which the tests above have.
    setting = partition.Setting(agents=4, seconds=50.0, apart=14.0, cut="close")
    found = partition.measure(setting, tmp_path)
    holds = partition.verdicts(found, setting)
    assert all(holds.values()), holds
    assert found["noticed"]["all_told_gone"] < 5
    assert found["noticed"]["all_told_back"] < 10
