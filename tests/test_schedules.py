"""Schedules: a naive event-by-event simulation, what waves promise for any schedule, draws, and refusals."""

import functools
import heapq
import itertools
import math
import zlib
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer import topologies
from gossamer.errors import InputError
from gossamer.mixing import is_doubly_stochastic, metropolis_hastings, weigh
from gossamer.mixing import uniform as uniform_weights
from gossamer.runs.serialization import dumps, loads
from gossamer.schedules import (
    Links,
    Schedule,
    Simulation,
    Wave,
    compute_duration,
    is_stale,
    is_usable,
    latency_of,
    link_fails,
    may_combine,
    parse_duration,
    return_missing_to_self,
    uniform,
)

RULES = ("most_recent", "all_in_peers", "whatever_arrived", "push_sum")
COMPUTE_TIMES = (
    "constant:value=1",
    "uniform:low=0.5,high=1.5",
    "exponential:mean=1",
    "lognormal:median=1,sigma=0.5",
)
LATENCIES = (
    "constant:value=0",
    "constant:value=0.5",
    "integers:most=3",
    "uniform:low=0,high=2",
    "exponential:mean=0.5",
)
SYMMETRIC = ("ring", "star", "erdos_renyi:mean_neighbourhood=3,seed=1", "isolated")
ANY = (*SYMMETRIC, "directed_ring", "one_peer_exponential")

ROUNDING = 1e-12  # a dozen float64 weights of at most one

steady = functools.partial(settings, deadline=None, derandomize=True)


class Setting(NamedTuple):
    schedule: Schedule
    spec: str
    agents: int
    seed: int

    @property
    def weights(self) -> tuple:
        return weights_of(self.spec, self.agents)

    @property
    def simulation(self) -> Simulation:
        return Simulation(self.schedule, Links.of(self.weights), self.seed)


@functools.cache
def weights_of(spec: str, agents: int) -> tuple:
    spec = "ring" if agents < 3 else spec  # the random graph needs three
    topology = topologies.named(spec, agents)
    return weigh(topology, metropolis_hastings if topology.is_symmetric else uniform_weights)


@st.composite
def absences(draw, agents: int):
    """Of all but agent 0, up to two each, some for ever, some from the start; in quarters, so that they tie."""
    found = []
    for agent in draw(st.sets(st.integers(1, agents - 1), max_size=3)) if agents > 1 else ():
        times = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=4)))
        pairs = itertools.zip_longest(times[::2], times[1::2])
        found += [(agent, a / 4, None if b is None else b / 4) for a, b in pairs]
    return tuple(found)


@st.composite
def choices(draw, rules=RULES, in_flight=None) -> dict:
    """The arguments of a setting."""
    agents = draw(st.integers(2, 12))
    rule = draw(st.sampled_from(rules))
    slow = draw(st.dictionaries(st.integers(0, agents - 1), st.sampled_from([0.5, 2.0, 4.0]), max_size=2))
    schedule = {
        "rule": rule,
        "staleness": draw(st.none() | st.integers(0, 5)) if rule == "most_recent" else None,
        "deadline": draw(st.sampled_from([0.0, 1.0, 2.5, 10.0])),
        "link_failure": draw(st.sampled_from([0.0, 0.2, 0.8, 1.0])),
        "failures": draw(st.sampled_from(["symmetric", "one_sided"])),
        "wake_probability": draw(st.sampled_from([1.0, 1.0, 0.6])),
        "compute_time": draw(st.sampled_from(COMPUTE_TIMES)),
        "latency": draw(st.sampled_from(LATENCIES)),
        "slow_agents": tuple(slow.items()),
        "absences": draw(absences(agents)),
        "in_flight": draw(st.integers(0, 5)) if in_flight is None else in_flight,
    }
    spec, seed = draw(st.sampled_from(ANY)), draw(st.integers(0, 99))
    return {"schedule": schedule, "spec": spec, "agents": agents, "seed": seed}


def setting_of(chosen: dict) -> Setting:
    return Setting(**(chosen | {"schedule": Schedule(**chosen["schedule"])}))


# waves, written out as events


class Combination(NamedTuple):
    """Of one agent: when, the version and age of each sender's message, and the weights (own, then by sender)."""

    time: float
    used: dict[int, tuple[int, int]]
    own: float
    weights: dict[int, float]


class Audit:
    """What the waves say happened, kept by the plainest means, every promise checked on the way."""

    def __init__(self, setting: Setting):
        self.schedule, self.links, self.seed = setting.schedule, Links.of(setting.weights), setting.seed
        self.simulation = setting.simulation
        agents, edges = self.links.agents, self.links.edges
        self.ring = [[0] * (self.schedule.in_flight + 1) for _ in range(agents)]
        self.version, self.inbox = [0] * agents, [0] * edges
        self.arrival: dict[tuple[int, int], float] = {}  # (edge, version): messages sent and not lost
        self.last_used, self.last_age = [0] * edges, [-1] * edges
        self.last_time, self.last_event = 0.0, [0.0] * agents
        self.last_take: list[float] = []
        self.adapted, self.combined = defaultdict(list), defaultdict(list)
        self.overtaken = self.lost = 0

    def run(self, waves: int) -> "Audit":
        for _ in range(waves):
            self.follow(self.simulation.wave())
        return self

    def follow(self, wave: Wave) -> None:
        self.check_times(wave)
        takeover = not wave.adapts.any() and (wave.own[wave.combines] == 0).any()
        self.check_weights(wave)
        for i in np.flatnonzero(wave.adapts):
            self.version[i] += 1
            assert wave.slot[i] == self.version[i] % len(self.ring[i])
            self.ring[i][wave.slot[i]] = self.version[i]
            self.adapted[i].append(wave.adapted_at[i])
        self.send(wave)
        self.take(wave, takeover)
        self.use(wave, takeover)
        assert self.version == wave.version.tolist()
        self.overtaken += wave.overtaken.sum()
        self.lost += wave.lost.sum()

    def check_times(self, wave: Wave) -> None:
        times = np.concatenate([wave.adapted_at[wave.adapts], wave.combined_at[wave.combines]])
        assert len(times)  # something happens in every wave, so that time cannot stand still
        assert wave.time >= self.last_time
        assert all(wave.time >= time for time in self.last_take)
        assert (times >= wave.time).all()
        assert np.isnan(wave.adapted_at[~wave.adapts]).all()
        assert np.isnan(wave.combined_at[~wave.combines]).all()
        both = wave.adapts & wave.combines
        assert (wave.combined_at[both] >= wave.adapted_at[both]).all()
        for at in (wave.adapted_at, wave.combined_at):
            for i in np.flatnonzero(~np.isnan(at)):
                assert at[i] >= self.last_event[i]
                self.last_event[i] = at[i]
        self.last_time, self.last_take = wave.time, times.tolist()

    def check_weights(self, wave: Wave) -> None:
        ends = self.links.sender if self.schedule.rule == "push_sum" else self.links.receiver
        sums = wave.own + np.bincount(ends, wave.weight, minlength=self.links.agents)
        np.testing.assert_allclose(sums, 1, rtol=0, atol=ROUNDING)
        assert (wave.weight >= 0).all()
        if self.schedule.rule != "push_sum":
            assert (wave.own[~wave.combines] == 1).all()
            np.testing.assert_array_equal(wave.weight > 0, wave.age >= 0)

    def send(self, wave: Wave) -> None:
        for e in np.flatnonzero(wave.sent):
            i, j = int(self.links.receiver[e]), int(self.links.sender[e])
            assert wave.adapts[j]
            assert self.links.weight[(self.version[j] - 1) % self.links.period, e] > 0
            if not link_fails(self.schedule, self.seed, j, i, self.version[j]):
                latency = float(latency_of(self.schedule, self.seed, j, i, self.version[j]))
                self.arrival[e, self.version[j]] = wave.adapted_at[j] + latency
            else:
                assert wave.lost[e]

    def take(self, wave: Wave, takeover: bool) -> None:
        for e in np.flatnonzero(wave.take >= 0):
            i, j = self.links.receiver[e], self.links.sender[e]
            version = self.ring[j][wave.take[e]]
            if takeover:
                assert version == max(self.ring[j]) >= self.inbox[e]
                self.version[i] = max(self.version[i], version)
            else:
                assert version > self.inbox[e]
                if wave.combines[i]:
                    assert self.arrival[e, version] <= wave.combined_at[i]
                else:
                    self.last_take.append(self.arrival[e, version])
            self.inbox[e], self.last_age[e] = version, -1

    def use(self, wave: Wave, takeover: bool) -> None:
        used = defaultdict(dict)
        for e in np.flatnonzero(wave.age >= 0):
            i, j = int(self.links.receiver[e]), int(self.links.sender[e])
            assert wave.combines[i]
            assert wave.age[e] == max(self.version[i] - self.inbox[e], 0)
            assert wave.age[e] >= self.last_age[e]
            self.last_age[e] = wave.age[e]
            if self.schedule.staleness is not None:
                assert wave.age[e] <= self.schedule.staleness
            if self.schedule.rule != "most_recent" and not takeover:
                assert self.inbox[e] > self.last_used[e]
            self.last_used[e] = self.inbox[e]
            used[i][j] = (self.inbox[e], int(wave.age[e]))
        edges = list(zip(self.links.receiver, self.links.sender, wave.weight, strict=True))
        for i in np.flatnonzero(wave.combines).tolist():
            side = 1 if self.schedule.rule == "push_sum" and not takeover else 0
            weights = {int(edge[1 - side]): edge[2] for edge in edges if edge[side] == i and edge[2] > 0}
            self.combined[i].append(Combination(wave.combined_at[i], used[i], wave.own[i], weights))


@given(chosen=choices())
@steady(max_examples=200)
def test_waves_keep_their_promises(chosen: dict):
    setting = setting_of(chosen)
    audit = Audit(setting).run(40)
    always = set(range(audit.links.agents)) - {absence[0] for absence in setting.schedule.absences}
    for agent in always:
        updates = np.arange(audit.version[agent] + 1)
        longest = compute_duration(setting.schedule, setting.seed, agent, updates).max()
        pauses = np.diff([0.0, *audit.adapted[agent], audit.last_time])
        assert (pauses <= longest + setting.schedule.deadline + ROUNDING).all()


# against the book: one event at a time, from a heap


class Agent:
    def __init__(self):
        self.version = self.posted = self.joined = self.era = 0
        self.present, self.waiting, self.adapted = True, False, 0.0
        self.inbox: dict[int, int] = {}  # sender: version
        self.unread: set[int] = set()
        self.newest: dict[int, int] = defaultdict(int)  # ever received, absences survived


LEAVE, RETURN, ADAPT, ARRIVE, COMBINE = range(5)  # the order at one instant


class Naive:
    """Rules, weights and membership said again for one agent and event at a time; nothing is ever overtaken."""

    def __init__(self, setting: Setting):
        self.schedule, self.seed = setting.schedule, setting.seed
        self.weights = [np.asarray(W.todense()) for W in setting.weights]
        self.linked = sum(W != 0 for W in self.weights)
        self.agents = [Agent() for _ in self.weights[0]]
        self.adapted, self.combined = defaultdict(list), defaultdict(list)
        self.heap, self.ticket = [], itertools.count()
        for i, leaves, returns in self.schedule.absences:
            self.push(leaves, LEAVE, i)
            if returns is not None:
                self.push(returns, RETURN, i)
        for i in range(len(self.agents)):
            self.begin(i, 0.0)

    def push(self, time: float, kind: int, *event) -> None:
        heapq.heappush(self.heap, (time, kind, next(self.ticket), event))

    def run(self, until: float) -> "Naive":
        actions = {LEAVE: self.leave, ADAPT: self.adapt, ARRIVE: self.arrive, COMBINE: self.combine}
        while self.heap and self.heap[0][0] < until:
            time, kind, _, event = heapq.heappop(self.heap)
            if kind == RETURN:
                returning = [event[0]]
                while self.heap and self.heap[0][:2] == (time, RETURN):
                    returning.append(heapq.heappop(self.heap)[3][0])
                self.come_back(returning, time)
            else:
                actions[kind](time, *event)
        return self

    def phase(self, i: int) -> np.ndarray:
        return self.weights[(self.agents[i].version - 1) % len(self.weights)]

    def begin(self, i: int, time: float) -> None:
        agent = self.agents[i]
        duration = float(compute_duration(self.schedule, self.seed, i, agent.version))
        self.push(time + duration, ADAPT, i, agent.era)

    def leave(self, time: float, i: int) -> None:
        self.agents[i].present = self.agents[i].waiting = False
        self.agents[i].era += 1
        self.wake_all(time)

    def come_back(self, returning: list[int], time: float) -> None:
        sources = {i: self.newest_neighbour(i) for i in returning}
        for i in returning:
            agent, source = self.agents[i], sources[i]
            agent.present = True
            if self.schedule.rule != "push_sum":
                agent.inbox, agent.unread = {}, set()
                if source is not None:
                    version = self.agents[source].posted
                    agent.version = max(agent.version, version)
                    agent.inbox[source] = agent.newest[source] = version
                    used = {source: (version, agent.version - version)}
                    self.combined[i].append(Combination(time, used, 0.0, {source: 1.0}))
            agent.joined = agent.version
            self.begin(i, time)
        self.wake_all(time)

    def newest_neighbour(self, i: int) -> int | None:
        posted = [
            (-self.agents[j].posted, j)
            for j in range(len(self.agents))
            if j != i and self.linked[i, j] and self.agents[j].present and self.agents[j].posted
        ]
        if not posted:
            return None
        newest, j = min(posted)
        limit = math.inf if self.schedule.staleness is None else self.schedule.staleness
        return j if self.agents[i].version + newest <= limit else None

    def wake_all(self, time: float) -> None:
        for i, agent in enumerate(self.agents):
            if agent.waiting:
                self.push(time, COMBINE, i, agent.era)

    def adapt(self, time: float, i: int, era: int) -> None:
        agent = self.agents[i]
        if era != agent.era:
            return
        agent.version += 1
        agent.posted = agent.version
        agent.adapted, agent.waiting = time, True
        self.adapted[i].append(time)
        agent.share = {}
        for r, receiver in enumerate(self.agents):
            if r == i or self.phase(i)[r, i] == 0 or not receiver.present:
                continue
            agent.share[r] = True
            if not link_fails(self.schedule, self.seed, i, r, agent.version):
                latency = float(latency_of(self.schedule, self.seed, i, r, agent.version))
                self.push(time + latency, ARRIVE, i, r, agent.version)
        self.push(time, COMBINE, i, era)
        self.push(time + self.schedule.deadline, COMBINE, i, era)

    def arrive(self, time: float, sender: int, i: int, version: int) -> None:
        agent = self.agents[i]
        if agent.present and version > agent.newest[sender]:
            agent.inbox[sender] = agent.newest[sender] = version
            agent.unread.add(sender)
            if agent.waiting:
                self.push(time, COMBINE, i, agent.era)

    def combine(self, time: float, i: int, era: int) -> None:
        agent, schedule = self.agents[i], self.schedule
        if era != agent.era or not agent.waiting:
            return
        W = self.phase(i)
        peers = [j for j in range(len(W)) if j != i and W[i, j] > 0 and self.agents[j].present]
        age = {j: agent.version - agent.inbox.get(j, agent.joined) for j in peers}
        limit = math.inf if schedule.staleness is None else schedule.staleness
        if time < agent.adapted + schedule.deadline and any(age[j] > limit for j in peers):
            return
        agent.waiting = False
        if schedule.rule == "push_sum":
            share = 1 / (1 + len(agent.share))
            used = {j: (agent.inbox[j], max(agent.version - agent.inbox[j], 0)) for j in agent.unread}
            self.record(i, time, used, share, dict.fromkeys(agent.share, share))
        elif schedule.rule == "all_in_peers":
            if agent.unread >= set(peers):
                self.average(i, time, peers)
        elif schedule.rule == "whatever_arrived":
            self.average(i, time, [j for j in peers if j in agent.unread])
        else:
            self.average(i, time, [j for j in peers if j in agent.inbox and age[j] <= limit])
        self.begin(i, time)

    def average(self, i: int, time: float, used: list[int]) -> None:
        agent, W = self.agents[i], self.phase(i)
        messages = {j: (agent.inbox[j], max(agent.version - agent.inbox[j], 0)) for j in used}
        self.record(i, time, messages, 1 - sum(W[i, j] for j in used), {j: W[i, j] for j in used})

    def record(self, i: int, time: float, used: dict, own: float, weights: dict) -> None:
        self.agents[i].unread -= set(used)
        self.combined[i].append(Combination(time, used, own, weights))


def assert_same_combinations(found: list[Combination], expected: list[Combination]):
    assert [(c.time, c.used) for c in found] == [(c.time, c.used) for c in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.own == pytest.approx(other.own, abs=ROUNDING)
        assert one.weights == pytest.approx(other.weights, abs=ROUNDING)


@pytest.mark.parametrize("rule", RULES)
@given(data=st.data())
@steady(max_examples=40)
def test_waves_are_the_events_of_a_naive_simulation(rule: str, data):
    setting = setting_of(data.draw(choices(rules=(rule,), in_flight=60)))
    audit = Audit(setting).run(40)
    assert audit.overtaken == 0
    end = audit.last_time
    naive = Naive(setting).run(end)
    assert any(naive.adapted.values()) or end <= 5
    for i in range(audit.links.agents):
        assert [time for time in audit.adapted[i] if time < end] == naive.adapted[i]
        assert_same_combinations([c for c in audit.combined[i] if c.time < end], naive.combined[i])


def test_the_ring_forgets_what_was_overtaken():
    """A message takes 2.5 updates: a ring of two forgets it on its way, one of four never does."""
    slow = Schedule(latency="constant:value=2.5", in_flight=1)
    setting = Setting(slow, "ring", 2, 0)
    assert Audit(setting).run(10).overtaken == 2 * (10 - 2)  # of ten versions, the last two are on their way
    assert all(not c.used for c in Audit(setting).run(10).combined[0])
    wider = setting._replace(schedule=Schedule(latency="constant:value=2.5", in_flight=3))
    audit = Audit(wider).run(10)
    assert audit.overtaken == 0
    assert [c.used for c in audit.combined[0]][2:5] == [{}, {1: (1, 3)}, {1: (2, 3)}]


# lockstep


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spec", ANY)
@pytest.mark.parametrize("agents", [2, 5, 8])
def test_lockstep_is_the_plain_synchronous_round(rule: str, spec: str, agents: int):
    weights = weights_of(spec, agents)
    schedule = Schedule(rule=rule, in_flight=0)
    assert schedule.synchronous
    simulation = Simulation(schedule, Links.of(weights), seed=0)
    for round in range(7):
        wave = simulation.wave()
        W = weights[round % len(weights)].toarray()
        assert wave.time == round + 1
        assert wave.adapts.all()
        assert wave.combines.all()
        if rule == "push_sum":  # equal out-degrees: uniform weights; else columns sum to one, as they must
            hears = (W > 0) & ~np.eye(agents, dtype=bool)
            W = (hears + np.eye(agents)) / (1 + hears.sum(axis=0))
        np.testing.assert_array_equal(matrix_of(wave, simulation.links), W)
        np.testing.assert_array_equal(wave.age, np.where(wave.weight > 0, 0, -1))
        np.testing.assert_array_equal(wave.take[wave.weight > 0], 0)


def matrix_of(wave: Wave, links: Links) -> np.ndarray:
    W = np.diag(wave.own)
    W[links.receiver, links.sender] = wave.weight
    return W


@given(
    spec=st.sampled_from(SYMMETRIC),
    agents=st.integers(2, 12),
    p=st.floats(0, 1),
    seed=st.integers(0, 99),
    rule=st.sampled_from(["whatever_arrived", "most_recent"]),
)
@steady(max_examples=200)
def test_symmetric_loss_in_lockstep_keeps_the_mean(spec: str, agents: int, p: float, seed: int, rule: str):
    staleness = 0 if rule == "most_recent" else None
    schedule = Schedule(rule=rule, staleness=staleness, deadline=0.0, link_failure=p)
    simulation = Simulation(schedule, Links.of(weights_of(spec, agents)), seed)
    for _ in range(10):
        wave = simulation.wave()
        assert is_doubly_stochastic(matrix_of(wave, simulation.links))
        np.testing.assert_array_equal(wave.weight > 0, wave.sent & ~wave.lost)


def test_one_sided_loss_does_not_keep_the_mean():
    schedule = Schedule(link_failure=0.5, failures="one_sided")
    simulation = Simulation(schedule, Links.of(weights_of("ring", 5)), 0)
    matrices = [matrix_of(simulation.wave(), simulation.links) for _ in range(10)]
    assert not all(map(is_doubly_stochastic, matrices))


# waiting, absence, and nobody hangs


def test_waiting_ends_with_a_fresh_message_or_with_the_deadline():
    """Agent 1 takes 4 units an update: with L = 1 agent 0 waits for it, with a deadline of 1 in vain."""
    weights = weights_of("ring", 2)
    slow = Schedule("most_recent", staleness=1, slow_agents=((1, 4.0),))
    audit = Audit(Setting(slow, "ring", 2, 0)).run(12)
    assert audit.adapted[0][:4] == [1, 2, 5, 9]
    assert [(c.time, c.used) for c in audit.combined[0][:4]] == [
        (1, {}),
        (4, {1: (1, 1)}),
        (8, {1: (2, 1)}),
        (12, {1: (3, 1)}),
    ]
    hasty = Simulation(
        Schedule("most_recent", staleness=1, slow_agents=((1, 4.0),), deadline=1.0), Links.of(weights), 0
    )
    waves = [hasty.wave() for _ in range(4)]
    assert [wave.time for wave in waves] == [1, 2, 3, 4]
    assert waves[2].expired.tolist() == [True, False]
    assert waves[2].own[0] == 1
    assert not any(waves[k].expired.any() for k in (0, 1, 3))


def test_an_absent_agent_is_neither_heard_nor_waited_for_and_returns_with_its_neighbours_newest():
    for schedule in (
        Schedule("most_recent", staleness=0, absences=((1, 2.5, 6.25),)),
        Schedule("all_in_peers", absences=((1, 2.5, 6.25),)),
    ):
        audit = Audit(Setting(schedule, "ring", 2, 0)).run(10)
        assert audit.adapted[0][:7] == [1, 2, 3, 4, 5, 6, 7]
        assert audit.adapted[1][:3] == [1, 2, 7.25]
        alone = [c for c in audit.combined[0] if 3 <= c.time < 6.25]
        assert [(c.used, c.own) for c in alone] == [({}, 1)] * 4
        back = next(c for c in audit.combined[1] if c.time == 6.25)
        assert back == Combination(6.25, {0: (6, 0)}, 0.0, {0: 1.0})
        assert audit.version[1] >= 7


def test_who_returns_to_nobody_keeps_its_own():
    schedule = Schedule(absences=((0, 0.0, 3.5), (1, 0.0, 2.0), (2, 0.0, 2.0)))
    audit = Audit(Setting(schedule, "ring", 3, 0)).run(5)
    assert [audit.adapted[i][0] for i in range(3)] == [4.5, 3.0, 3.0]
    assert audit.combined[0][0] == Combination(3.5, {1: (1, 0)}, 0.0, {1: 1.0})
    assert audit.combined[1][0].time == 3.0


def test_messages_to_who_leaves_are_reported_as_lost():
    schedule = Schedule(latency="constant:value=0.75", absences=((1, 2.5, 9.0),))
    simulation = Simulation(schedule, Links.of(weights_of("ring", 2)), 0)
    waves = [simulation.wave() for _ in range(3)]
    assert [wave.time for wave in waves] == [1, 2, 3]
    assert simulation.links.receiver.tolist() == [0, 1]
    assert [wave.lost.tolist() for wave in waves] == [[False, False], [False, False], [False, True]]
    assert waves[2].sent.tolist() == [False, False]


def test_push_sum_gives_nothing_to_who_is_absent():
    schedule = Schedule("push_sum", absences=((1, 1.5, None),))
    simulation = Simulation(schedule, Links.of(weights_of("ring", 3)), 0)
    assert simulation.wave().own.tolist() == [1 / 3] * 3
    assert simulation.wave().own.tolist() == [1 / 2, 1, 1 / 2]


def random_schedule(generator: np.random.Generator, agents: int) -> Schedule:
    rule = str(generator.choice(RULES))
    start = float(generator.integers(0, 6))
    return Schedule(
        rule=rule,
        staleness=int(generator.integers(0, 4)) if rule == "most_recent" else None,
        deadline=float(generator.choice([0.5, 2.0])),
        link_failure=float(generator.choice([0.0, 0.5, 1.0])),
        failures=str(generator.choice(["symmetric", "one_sided"])),
        wake_probability=float(generator.choice([1.0, 0.7])),
        compute_time=str(generator.choice(COMPUTE_TIMES)),
        latency=str(generator.choice(LATENCIES)),
        slow_agents=((0, 2.0),) if generator.random() < 0.5 else (),
        absences=((1, start, generator.choice([None, start + 2.0])),) if generator.random() < 0.5 else (),
        in_flight=int(generator.integers(0, 4)),
    )


@pytest.mark.slow
def test_a_thousand_runs_never_hang():
    """Every agent that is there goes on: nobody waits longer than its deadline, whatever fails."""
    generator = np.random.default_rng(0)
    every_links = [Links.of(weights_of(spec, agents)) for spec in ANY for agents in (2, 4)]
    for seed in range(1000):
        links = every_links[seed % len(every_links)]
        schedule = random_schedule(generator, links.agents)
        simulation = Simulation(schedule, links, seed)
        begun, gaps = np.zeros(links.agents), np.zeros(links.agents)
        for _ in range(10):
            wave = simulation.wave()
            assert wave.adapts.any() or wave.combines.any()
            at = np.where(wave.adapts, wave.adapted_at, begun)
            gaps, begun = np.maximum(gaps, at - begun), at
        update = np.array(
            [compute_duration(schedule, seed, i, np.arange(99)).max() for i in range(links.agents)]
        )
        always = [i for i in range(links.agents) if not schedule.absences or i != 1]
        silent = wave.time - begun
        assert (np.maximum(gaps, silent)[always] <= (update + schedule.deadline + ROUNDING)[always]).all()


def test_the_same_arguments_give_the_same_waves():
    setting = Setting(
        Schedule("most_recent", staleness=2, link_failure=0.3, compute_time="exponential:mean=1"),
        "erdos_renyi:mean_neighbourhood=3,seed=1",
        8,
        5,
    )
    one, other = setting.simulation, setting.simulation
    waves = [one.wave() for _ in range(30)]
    other.skip(20)
    for wave in waves[20:]:
        for found, expected in zip(other.wave(), wave, strict=True):
            np.testing.assert_array_equal(found, expected)
    different = setting._replace(seed=6).simulation.wave()
    assert different.time != waves[0].time


# rules, for one agent


def test_rules_of_one_agent():
    """Four in-peers: nothing received; read, age 6; unread, age 2; unread of one that left."""
    received, unread = np.array([False, True, True, True]), np.array([False, False, True, True])
    age, alive = np.array([0, 6, 2, 0]), np.array([True, True, True, False])
    receiver = np.zeros(4, int)

    def usable(schedule):
        return is_usable(schedule, received, unread, age, alive).tolist()

    assert usable(Schedule("whatever_arrived")) == [False, False, True, False]
    assert usable(Schedule("all_in_peers")) == [False, False, True, False]
    assert usable(Schedule("most_recent")) == [False, True, True, False]
    assert usable(Schedule("most_recent", staleness=5)) == [False, False, True, False]
    assert usable(Schedule("push_sum")) == [False, False, True, True]
    assert is_stale(Schedule("most_recent", staleness=5), age, alive).tolist() == [False, True, False, False]
    assert not is_stale(Schedule("most_recent"), age, alive).any()
    assert may_combine(Schedule("all_in_peers"), unread, alive, receiver, 1).tolist() == [False]
    only = np.array([False, False, True, False])
    assert may_combine(Schedule("all_in_peers"), unread, only, receiver, 1).tolist() == [True]
    assert may_combine(Schedule("most_recent"), unread, alive, receiver, 1).tolist() == [True]


@given(spec=st.sampled_from(ANY), agents=st.integers(2, 12), seed=st.integers(0, 99))
@steady(max_examples=30)
def test_missing_weight_returns_to_self(spec: str, agents: int, seed: int):
    links = Links.of(weights_of(spec, agents))
    usable = np.random.default_rng(seed).random(links.edges) < 0.5
    weight, own = return_missing_to_self(links.weight[0], links.own[0], usable, links.receiver)
    for i in range(links.agents):
        edges = [e for e in range(links.edges) if links.receiver[e] == i]
        lost = sum(links.weight[0, e] for e in edges if not usable[e])
        assert own[i] == pytest.approx(links.own[0, i] + lost, abs=ROUNDING)
        assert [weight[e] for e in edges] == [links.weight[0, e] if usable[e] else 0 for e in edges]


@pytest.mark.parametrize("spec", ANY)
def test_links_are_the_weights(spec: str):
    weights = weights_of(spec, 7)
    links = Links.of(weights)
    assert (links.agents, links.period) == (7, len(weights))
    pairs = list(zip(links.receiver.tolist(), links.sender.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    assert all(receiver != sender for receiver, sender in pairs)
    for phase, W in enumerate(weights):
        restored = np.diag(links.own[phase])
        restored[links.receiver, links.sender] = links.weight[phase]
        np.testing.assert_array_equal(restored, W.toarray())


# draws


def test_uniform_draws_are_uniform_and_independent():
    """40,000 draws: a mean is off by 1/√(12 · 40,000) = 0.0014, a correlation by 0.005; bounds are 4 of these."""
    agent, version = np.meshgrid(np.arange(200), np.arange(200), indexing="ij")
    u = uniform(3, "test", agent, version)
    assert ((u >= 0) & (u < 1)).all()
    assert abs(u.mean() - 1 / 2) < 0.006
    assert abs(u.var() - 1 / 12) < 0.0016  # a variance is off by √(1/180 / 40,000)
    pairs = {
        "next agent": (u[:-1], u[1:]),
        "next version": (u[:, :-1], u[:, 1:]),
        "swapped": (u, u.T * ~np.eye(200, dtype=bool)),
        "other seed": (u, uniform(4, "test", agent, version)),
        "other purpose": (u, uniform(3, "toast", agent, version)),
    }
    for name, (one, other) in pairs.items():
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02, name
    assert len(np.unique(u)) == u.size
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 46  # χ² with 19 degrees of freedom: one in 2,000


def test_uniform_is_splitmix64():
    """The first outputs of the published generator, started at 1234567, by Python's own integers."""

    def scrambled(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
        return x ^ (x >> 31)

    assert scrambled(1234567) == 6457827717110365317  # Rosetta Code, "Pseudo-random numbers/Splitmix64"
    for seed, numbers in ((0, (0,)), (7, (3, 5)), (2**40, (2**33, 1, 9))):
        state = scrambled(scrambled(seed) ^ zlib.crc32(b"link"))
        for number in numbers:
            state = scrambled(state ^ number)
        assert uniform(seed, "link", *numbers) == (state >> 11) * 2.0**-53


def test_draws_depend_on_nothing_but_their_numbers():
    schedule = Schedule(
        link_failure=0.5,
        wake_probability=0.5,
        compute_time="lognormal:median=1,sigma=1",
        latency="exponential:mean=1",
        slow_agents=((3, 2.0), (1, 3.0)),
    )
    few, many = np.arange(5), np.arange(500)
    np.testing.assert_array_equal(
        compute_duration(schedule, 0, few, 2), compute_duration(schedule, 0, many, 2)[:5]
    )
    for draw in (link_fails, latency_of):
        np.testing.assert_array_equal(draw(schedule, 0, few, 9, 2), draw(schedule, 0, many, 9, 2)[:5])
        np.testing.assert_array_equal(draw(schedule, 0, few, 9, 2), [draw(schedule, 0, i, 9, 2) for i in few])
    assert compute_duration(schedule, 0, 3, 7) == compute_duration(schedule, 0, np.array([7, 3]), 7)[1]


def test_a_larger_population_leaves_distant_agents_as_they_were():
    """On a directed ring nothing that is added after the last agent reaches the first ones in three updates."""
    schedule = Schedule(
        compute_time="uniform:low=0.9,high=1.1", latency="uniform:low=0,high=0.5", link_failure=0.3
    )
    found = []
    for agents in (10, 14):
        audit = Audit(Setting(schedule, "line", agents, 1)).run(12)
        found.append([[c for c in audit.combined[i] if c.time < 3] for i in range(4)])
    assert found[0] == found[1]
    assert all(found[0])


@pytest.mark.parametrize("failures", ["symmetric", "one_sided"])
def test_links_fail_as_often_as_asked(failures: str):
    """10,000 draws: a share of 0.3 is off by √(.21 / 10,000) = 0.0046."""
    schedule = Schedule(link_failure=0.3, failures=failures)
    there = link_fails(schedule, 0, 4, 7, np.arange(10_000))
    back = link_fails(schedule, 0, 7, 4, np.arange(10_000))
    assert abs(there.mean() - 0.3) < 0.019
    if failures == "symmetric":
        np.testing.assert_array_equal(there, back)
    else:
        assert abs((there & back).mean() - 0.09) < 0.012  # independent
    assert not link_fails(Schedule(), 0, 4, 7, np.arange(99)).any()
    assert link_fails(Schedule(link_failure=1.0), 0, 4, 7, np.arange(99)).all()


@pytest.mark.parametrize(
    ("spec", "mean", "deviation", "least"),
    [
        ("constant:value=2", 2, 0, 2),
        ("uniform:low=1,high=3", 2, 1 / math.sqrt(3), 1),
        ("integers:most=3", 1.5, math.sqrt(15 / 12), 0),
        ("exponential:mean=2", 2, 2, 0),
        ("lognormal:median=2,sigma=0.5", 2 * math.exp(0.125), 2 * math.exp(0.125) * 0.533, 0),
    ],
)
def test_durations_have_their_moments(spec: str, mean: float, deviation: float, least: float):
    draws = parse_duration(spec).draw(uniform(1, "test", np.arange(40_000)))
    assert draws.mean() == pytest.approx(mean, abs=4 * deviation / 200)  # a mean of 40,000, four deviations
    assert draws.std() == pytest.approx(deviation, rel=0.05)
    assert draws.min() >= least
    extreme = parse_duration(spec).draw(np.array([0.0, 1 - 2.0**-53]))
    assert np.isfinite(extreme).all()
    assert parse_duration(spec).can_be_zero == (extreme[0] == 0)


def test_sleeping_multiplies_by_a_geometric_number():
    duration = compute_duration(Schedule(wake_probability=0.25), 0, np.arange(20_000), 0)
    values, counts = np.unique(duration, return_counts=True)
    assert values[:3].tolist() == [1, 2, 3]
    shares = 0.25 * 0.75 ** np.arange(3)
    np.testing.assert_allclose(counts[:3] / 20_000, shares, atol=0.013)  # four deviations of at most 0.0031
    tiny = compute_duration(Schedule(compute_time="constant:value=1e-12"), 0, 0, 0)
    assert tiny == 1e-6


# configuration


def test_schedules_round_trip_and_hash():
    schedule = Schedule(
        rule="most_recent",
        staleness=5,
        link_failure=0.2,
        failures="one_sided",
        compute_time="lognormal:median=1,sigma=0.3",
        slow_agents=((0, 2.0),),
        absences=((1, 0.0, 3.0), (1, 4.0, None), (2, 1.5, 2.0)),
    )
    assert loads(dumps(schedule)) == schedule
    assert hash(loads(dumps(schedule))) == hash(schedule)


@pytest.mark.parametrize(
    ("changes", "synchronous"),
    [
        ({}, True),
        ({"rule": "most_recent", "staleness": 3, "deadline": 1.0, "in_flight": 0}, True),
        ({"compute_time": "constant:value=2"}, True),
        ({"latency": "integers:most=0"}, True),
        ({"slow_agents": ((1, 1.0),)}, True),
        ({"link_failure": 0.1}, False),
        ({"wake_probability": 0.9}, False),
        ({"compute_time": "uniform:low=1,high=2"}, False),
        ({"latency": "constant:value=0.1"}, False),
        ({"latency": "integers:most=1"}, False),
        ({"slow_agents": ((1, 2.0),)}, False),
        ({"absences": ((1, 2.0, 3.0),)}, False),
    ],
)
def test_synchronous(changes: dict, synchronous: bool):
    assert Schedule(**changes).synchronous is synchronous


def test_who_returns_takes_over_nothing_older_than_the_bound():
    """Its neighbours are eight times slower: their newest messages are older than its own parameters."""
    slow = tuple((agent, 8.0) for agent in (1, 2, 3, 4))
    absent = ((0, 60.0, 62.0),)
    schedule = Schedule(
        "most_recent", staleness=2, deadline=0.0, slow_agents=slow, absences=absent, in_flight=60
    )
    setting = Setting(schedule, "ring", 5, 0)
    audit = Audit(setting).run(90)
    naive = Naive(setting).run(audit.last_time)
    before_the_end = [c for c in audit.combined[0] if c.time < audit.last_time]
    assert_same_combinations(before_the_end, naive.combined[0])
    simulation = Simulation(
        schedule, Links.of(weigh(topologies.named("ring", 5), metropolis_hastings)), seed=0
    )
    waves = [simulation.wave() for _ in range(90)]
    assert waves[-1].time > 70
    assert max(wave.age.max() for wave in waves) <= 2
    assert any(wave.version[0] > 40 for wave in waves)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rule": "most_recent", "staleness": -1}, "staleness is -1"),
        ({"staleness": 2}, "staleness is 2"),
        ({"deadline": -1.0}, "deadline is -1.0"),
        ({"deadline": math.inf}, "deadline is inf"),
        ({"link_failure": 1.5}, "link_failure is 1.5"),
        ({"wake_probability": 0.0}, "wake_probability is 0.0"),
        ({"wake_probability": math.nan}, "wake_probability is nan"),
        ({"compute_time": "constant:value=0"}, "compute_time is 'constant:value=0'"),
        ({"compute_time": "integers:most=3"}, "compute_time is 'integers:most=3'"),
        ({"compute_time": "uniform:low=0,high=1"}, "compute_time is 'uniform:low=0,high=1'"),
        (
            {"compute_time": "konstant"},
            r"compute_time: 'konstant' is not a duration; did you mean constant\?",
        ),
        ({"latency": "uniform:low=2,high=1"}, "latency: uniform: high is 1"),
        ({"latency": "uniform:low=-1,high=1"}, "latency: uniform: low is -1.0"),
        ({"latency": "uniform:low=1,high=inf"}, "latency: uniform: high is inf"),
        ({"latency": "constant:value=nan"}, "latency: constant: value is nan"),
        ({"latency": "integers:most=-1"}, "latency: integers: most is -1"),
        ({"latency": "integers:most=1.5"}, "latency: 'most=1.5' does not fit integers"),
        ({"latency": "exponential:mean=0"}, "latency: exponential: mean is 0.0"),
        ({"latency": "lognormal:median=0,sigma=1"}, "latency: lognormal: median is 0.0"),
        ({"latency": "lognormal:median=1,sigma=-1"}, "latency: lognormal: sigma is -1.0"),
        ({"latency": "exponential"}, "latency: 'exponential' lacks mean"),
        ({"slow_agents": ((-1, 2.0),)}, "slow_agents: agent is -1"),
        ({"slow_agents": ((1, 0.0),)}, "slow_agents: the factor of agent 1 is 0.0"),
        ({"slow_agents": ((1, 2.0), (1, 3.0))}, "slow_agents names agent 1 twice"),
        ({"absences": ((-1, 2.0, None),)}, "absences: agent is -1"),
        ({"absences": ((1, -2.0, None),)}, "absences: the leaving time of agent 1 is -2.0"),
        ({"absences": ((1, 2.0, 2.0),)}, "absences: agent 1 leaves at 2 and returns at 2"),
        ({"absences": ((1, 2.0, math.inf),)}, "absences: agent 1 leaves at 2 and returns at inf"),
        (
            {"absences": ((1, 3.0, 5.0), (1, 1.0, 3.0))},
            "absences: agent 1 leaves at 3 while it is still away since 1",
        ),
        (
            {"absences": ((1, 3.0, 5.0), (1, 1.0, None))},
            "absences: agent 1 leaves at 3 while it is still away",
        ),
        ({"in_flight": -1}, "in_flight is -1"),
    ],
)
def test_bad_schedules_are_refused(changes: dict, sentence: str):
    with pytest.raises(InputError, match=sentence):
        Schedule(**changes)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("rule", "most_recnt", r"rule is 'most_recnt'; it must be one of .* \(did you mean most_recent\?\)"),
        ("failures", "both", "failures is 'both'"),
    ],
)
def test_unknown_choices_are_refused(name: str, value: str, sentence: str):
    schedule = Schedule()
    object.__setattr__(schedule, name, value)  # in tests the constructor itself refuses it, by its type
    with pytest.raises(InputError, match=sentence):
        schedule.__post_init__()


@pytest.mark.parametrize(
    ("changes", "seed", "sentence"),
    [
        ({}, -1, "seed is -1"),
        ({"slow_agents": ((3, 2.0),)}, 0, "slow_agents names agent 3"),
        ({"absences": ((5, 2.0, None),)}, 0, "absences names agent 5"),
        ({"absences": tuple((i, 2.0, None) for i in range(3))}, 0, "absences: all 3 agents leave for ever"),
    ],
)
def test_schedules_that_do_not_fit_the_population_are_refused(changes: dict, seed: int, sentence: str):
    with pytest.raises(InputError, match=sentence):
        Simulation(Schedule(**changes), Links.of(weights_of("ring", 3)), seed)


@pytest.mark.parametrize("weights", [(), (np.ones((1, 2)),), (np.eye(2), np.eye(3))])
def test_links_refuse_what_is_no_weight_matrix(weights: tuple):
    with pytest.raises(
        InputError, match=r"^weights have the shapes .*; give one square matrix, \[agent, agent\]"
    ):
        Links.of(weights)
