"""A ring that comes apart and is healed: sessions on loopback through a proxy that delays and cuts."""

import socket
import threading
import time
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("zenoh", reason="the network needs the extra gossamer[network]")

from tests.stress import partition

from gossamer.fleet.launch import local_addresses
from gossamer.mixing import uniform, weigh
from gossamer.runtimes.clock import MonotonicClock
from gossamer.runtimes.inbox import Inbox
from gossamer.runtimes.network.intake import Intake
from gossamer.runtimes.network.post import NetworkPost, Outbox, Voice
from gossamer.runtimes.network.refusals import Refusals
from gossamer.runtimes.network.schema import Schema
from gossamer.runtimes.network.security import zenoh_config
from gossamer.runtimes.network.session import Session
from gossamer.runtimes.network.space import Space
from gossamer.runtimes.network.wire import Expected, message_bytes
from gossamer.runtimes.peers import Neighbourhood, Peer
from gossamer.schedules import Links, Schedule
from gossamer.topologies import named
from proxy import Proxy

DEADLINE = 40.0  # seconds; reached only where something is broken
LEASE = 2.0  # seconds; Zenoh's own is 10
LONGEST_PAUSE = 5.0  # seconds; a round takes some hundredths, on processors that others use too
PACE = 0.02  # seconds between two rounds
RUN = "0f" * 16
SPACE = Space(RUN)
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
        self.intake = Intake(
            number, self.inbox, EXPECTED, SPACE, numbers, frozenset(self.near), SCHEDULE, 0, self.refusals
        )
        for name in numbers:
            self.session.subscribe(SPACE.message(name, 0), self.intake.receive, lossless=False)
            self.session.watch_tokens(SPACE.alive(name), self.intake.appeared, self.intake.gone)
        key = SPACE.message(self.name, 0)
        outbox = Outbox(
            Voice(number, bytes.fromhex(RUN), 1, SCHEMA, "none"),
            [self.session.publisher(key, lossless=False)],
            in_step=False,
        )
        post = NetworkPost(
            outbox, LINKS, number, SCHEDULE, 0, self.intake.present, self.join, lambda: self.withdraw()
        )
        self.peer = Peer(neighbourhood, Drift(number), self.inbox, post, clock, SCHEDULE, None)
        self.place, self.ended = np.zeros(2, np.float32), []
        self.thread = threading.Thread(target=self.live, daemon=True)

    def join(self):
        self.withdraw = self.session.declare_token(SPACE.alive(self.name, 1))

    def live(self):
        self.peer.run(self.place, 0, 10**9, self, self.report)

    def enter(self, done):
        return not self.stop.wait(PACE)

    def hurries(self):
        return False

    def report(self, update, learner):
        self.place = learner
        self.ended.append(time.monotonic())

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
        lambda: all(agent.intake.last().keys() == set(agent.near) for agent in agents), "not all are heard"
    )
    rounds_more(agents, 100, "agents do not go on")
    before = distance_of(agents)

    proxy.cut(crossing, "stall")
    cut_at = time.monotonic()
    wait_for(
        lambda: all(agent.intake.present() == set(agent.near) - across(agent) for agent in agents),
        "neighbours across are not known to be gone, or others are",
    )
    assert time.monotonic() - cut_at > LEASE / 2  # by the lease, as nothing was closed
    wait_for(lambda: distance_of(agents) > 5 * before, "halves do not drift apart")
    rounds_more(agents, 20, "agents do not go on alone")
    apart = distance_of(agents)
    versions = {
        (agent, each): agent.intake.last()[each].version for agent in agents for each in across(agent)
    }

    proxy.heal()
    wait_for(lambda: all(agent.intake.present() == set(agent.near) for agent in agents), "not all come back")
    wait_for(lambda: distance_of(agents) < apart / 3, "halves do not meet again")
    rounds_more(agents, 20, "agents do not go on together")
    for (agent, each), version in versions.items():
        assert agent.intake.last()[each].version > version
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
    intake = Intake(0, inbox, EXPECTED, SPACE, numbers, frozenset([1]), SCHEDULE, 0, Refusals("ada"))
    with Proxy({("bob", "ada"): address_of(endpoint)}) as proxy:
        ada = session_of(endpoint, (), lease)
        bob = session_of(None, [f"tcp/127.0.0.1:{proxy.port(('bob', 'ada'))}"], lease)
        try:
            ada.watch_tokens(SPACE.alive("bob"), intake.appeared, intake.gone)
            withdraw = bob.declare_token(SPACE.alive("bob", 1))
            wait_for(lambda: not inbox.look().left.any(), "bob does not come")
            proxy.cut([("bob", "ada")], how)
            began = time.monotonic()
            wait_for(lambda: inbox.look().left.all(), "ada does not know that bob is gone")
            assert least < time.monotonic() - began < most
            assert intake.present() == frozenset()
            proxy.heal()
            wait_for(lambda: not inbox.look().left.any(), "bob does not come back")
            assert inbox.look().present.all()
            assert intake.present() == {1}
            assert proxy.traffic(("bob", "ada"))["connections"] >= 2
            withdraw()
            wait_for(lambda: inbox.look().left.all(), "bob does not leave")
        finally:
            bob.close()
            ada.close()


# --- The proxy ----------------------------------------------------------------------------------------------------


class Echo:
    """A listener that sends back what comes, and counts who came."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address, self.came = self.socket.getsockname(), 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.came += 1
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection, suppress(ConnectionError):
            while data := connection.recv(65536):
                connection.sendall(data)


@pytest.fixture
def echo():
    listener = Echo()
    yield listener
    listener.socket.shutdown(socket.SHUT_RDWR)
    listener.socket.close()


def connected(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port(("bob", "ada"))), timeout=DEADLINE)


def read(connection, size):
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data


def test_bytes_come_in_order_and_late(echo):
    sent = np.random.default_rng(0).bytes(3_000_000)
    with Proxy({("bob", "ada"): echo.address}, most_ms=40.0, seed=3) as proxy, connected(proxy) as connection:
        threading.Thread(target=connection.sendall, args=(sent,), daemon=True).start()
        assert read(connection, len(sent)) == sent
        began = time.monotonic()
        for number in range(20):
            connection.sendall(bytes([number]))
            assert read(connection, 1) == bytes([number])
        assert (
            time.monotonic() - began > 20 * 0.020
        )  # forty ways of 20 ms on average; half of that never happens
        traffic = proxy.traffic(("bob", "ada"))
        assert traffic["bytes"] == 2 * (len(sent) + 20)
        assert traffic["mean_delay_ms"] > 10
        connection.shutdown(socket.SHUT_WR)
        assert read(connection, 1) == b""


def test_what_stands_still_comes_after_healing_and_who_has_gone_is_not_heard_of(echo):
    with Proxy({("bob", "ada"): echo.address}) as proxy, connected(proxy) as connection:
        connection.sendall(b"a")
        assert read(connection, 1) == b"a"
        proxy.cut([("bob", "ada")], "stall")
        connection.sendall(b"b")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connected(proxy).close()
        with connected(proxy) as later:
            later.sendall(b"c")
            # Who has gone may be accepted before it is known to have gone, and before the later one.
            wait_for(lambda: came_and_open(proxy) == (3, 2), "who has gone is still waited for")
            proxy.heal()
            assert read(later, 1) == b"c"
            connection.settimeout(DEADLINE)
            assert read(connection, 1) == b"b"
            assert echo.came == 2


def came_and_open(proxy):
    traffic = proxy.traffic(("bob", "ada"))
    return traffic["accepted"], traffic["open"]


def test_what_is_closed_is_refused_until_it_is_healed(echo):
    with Proxy({("bob", "ada"): echo.address}) as proxy, connected(proxy) as connection:
        connection.sendall(b"a")
        assert read(connection, 1) == b"a"
        proxy.cut([("bob", "ada")], "close")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        with pytest.raises(ConnectionError):
            talk_without_end(proxy)
        assert echo.came == 1
        proxy.heal()
        with connected(proxy) as again:
            again.sendall(b"b")
            assert read(again, 1) == b"b"


def talk_without_end(proxy):
    """When a reset comes depends on who is faster."""
    with connected(proxy) as connection:
        while True:
            connection.sendall(b"a")


def test_a_cut_is_of_a_kind_and_of_pairs_that_there_are(echo):
    with Proxy({("bob", "ada"): echo.address}) as proxy:
        with pytest.raises(ValueError, match="how is 'burn'; it must be stall or close"):
            proxy.cut([("bob", "ada")], "burn")
        with pytest.raises(KeyError):
            proxy.cut([("ada", "bob")], "stall")


# --- The benchmark ------------------------------------------------------------------------------------------------


def sample(second, distance, rounds, heard, gone):
    return partition.Sample(second, distance, {"ada": rounds}, (), heard, gone)


# Cut after 10 s, healed after 20 s; noticed 4 s and 2 s later.
BORDERS = [10.0, 20.0]
SAMPLES = [
    sample(second, *seen)
    for second, seen in {
        5.0: (1.0, 50, 0.1, 0),
        9.0: (1.2, 90, 0.1, 0),
        11.0: (1.2, 110, 1.5, 0),
        14.0: (2.0, 140, 4.5, 2),
        19.0: (4.0, 190, 9.5, 2),
        21.0: (4.0, 210, 11.5, 2),
        22.0: (2.0, 220, 0.5, 0),
        29.0: (1.0, 290, 0.1, 0),
    }.items()
]


def row(number):
    """A round each 0.1 s, but for a pause of 1 s in the partition; the clock of the agent is 100 s ahead."""
    pause = 0.9 if number > 150 else 0.0
    messages = {"sent": 2, "lost": 1, "combined": 2}
    return {"round": number, "time": {"seconds": 100 + number / 10 + pause}, "messages": messages}


def test_distances_and_what_was_noticed_are_told_by_phase(monkeypatch):
    monkeypatch.setattr(partition, "STRETCH", 5.0)
    assert partition.distances(SAMPLES, BORDERS) == {"before": 1.1, "apart": 4.0, "after": 1.0}
    assert partition.noticed(SAMPLES, BORDERS, edges=2) == {
        "last_message_across": -0.5,
        "all_told_gone": 4.0,
        "first_message_back": 1.5,
        "all_told_back": 2.0,
    }
    assert partition.noticed(SAMPLES, BORDERS, edges=3)["all_told_gone"] is None


def test_a_life_is_told_by_phase_with_pauses_to_its_end():
    rows = [row(number) for number in range(1, 281)]
    lived = partition.life(rows, "ada", SAMPLES, BORDERS)
    # The observer has seen the last rounds 0.9 s early: by its clock all earlier ones were so much earlier too.
    assert [lived[phase]["rounds"] for phase in partition.PHASES] == [100, 91, 81]
    assert lived["apart"]["longest_pause"] == pytest.approx(1.0)
    assert lived["apart"]["sent"] == 182
    assert lived["after"]["longest_pause"] == pytest.approx(1.0)  # as if it had stopped
    assert lived["before"]["longest_pause"] == pytest.approx(0.1)


def good():
    """Figures by which everything holds."""
    phase = {"rounds": 100, "longest_pause": 0.2, "sent": 200, "lost": 60, "combined": 180}
    return {
        "distance": {"before": 1.0, "apart": 4.0, "after": 1.5},
        "noticed": {"last_message_across": -0.1, "all_told_gone": 10.0, "all_told_back": 3.0},
        "agents": {"ada": dict.fromkeys(partition.PHASES, phase)},
        "refused": {"ada": {}},
        "exit_status": {"ada": 130},
    }


def test_what_holds_and_what_does_not():
    setting = partition.Setting()
    assert all(partition.verdicts(good(), setting).values())
    stopped = {"rounds": 0, "longest_pause": 30.0, "sent": 0, "lost": 0, "combined": 0}
    for part, change in {
        "distance": {"before": 1.0, "apart": 1.4, "after": 1.0},
        "noticed": {"last_message_across": 5.0},
        "agents": {
            "ada": {**good()["agents"]["ada"], "apart": {**good()["agents"]["ada"]["apart"], "lost": 0}}
        },
        "refused": {"ada": {"replayed": {"bob": 1}}},
        "exit_status": {"ada": 1},
    }.items():
        holds = partition.verdicts({**good(), part: change}, setting)
        assert sum(not each for each in holds.values()) == 1, part
    holds = partition.verdicts({**good(), "distance": {"before": 1.0, "apart": 4.0, "after": 3.0}}, setting)
    assert not holds["it falls after healing, by more than half of that"]
    holds = partition.verdicts(
        {**good(), "agents": {"ada": {**good()["agents"]["ada"], "apart": stopped}}}, setting
    )
    assert not holds["all agents go on all the time"]


def test_the_picture_shows_distances_and_paces():
    found = {
        "cut": {"seconds": BORDERS},
        "noticed": partition.noticed(SAMPLES, BORDERS, edges=2),
        "samples": [each._asdict() for each in SAMPLES],
        "rounds_per_second": {"ada": [10] * 29, "bob": [20] * 29},
    }
    above, below = partition.picture(found).axes
    assert above.lines[0].get_xydata().tolist() == [
        [each.second, each.consensus_distance] for each in SAMPLES
    ]
    shown = [each.get_text().strip().partition("\n")[0] for each in above.texts]
    assert shown == ["cut in two", "healed", "neighbours across", "and to be back"]
    assert below.lines[0].get_ydata().tolist() == [15.0] * 29


@pytest.mark.slow
def test_processes_drift_apart_and_meet_again(tmp_path):
    setting = partition.Setting(agents=4, seconds=60.0, apart=22.0)
    found = partition.measure(setting, tmp_path)
    holds = partition.verdicts(found, setting)
    assert all(holds.values()), holds
    assert 5 < found["noticed"]["all_told_gone"] < 15  # Zenoh's lease is 10 s
    assert found["noticed"]["all_told_back"] < 15
