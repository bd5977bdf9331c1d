import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer import topologies
from gossamer.diagnostics.consensus_bound import ConsensusBound, Verdict, holds, is_vacuous
from gossamer.errors import InputError

TOPOLOGIES = ["ring", "directed_ring", "complete", "star", "line"]
SIZE = 5  # parameters of an agent


def distance_to_mean(x):
    return math.sqrt(((x - x.mean(0)) ** 2).sum() / len(x))


class Gossip:
    """The book: agents that hold vectors, adapt at random moments, and combine what arrived after random delays.

    Every event is told to the certificates, the combinations with ``told`` in place of the weights that are used.
    """

    def __init__(self, peers, certificates, seed, delay=2, dtype=float, told=None, weight=None):
        self.rng = np.random.default_rng(seed)
        self.peers, self.certificates, self.delay = peers, certificates, delay
        self.told, self.weight = told, weight
        self.pull = np.zeros((len(peers), SIZE))
        self.x = np.zeros((len(peers), SIZE), dtype)
        self.updates = [0] * len(peers)
        self.sent = {}
        self.inbox = {}

    def step(self, change=1.0):
        """One agent adapts, sends, receives what arrived by now, and combines."""
        agent = int(self.rng.integers(len(self.peers)))
        self.adapt(agent, change)
        self.receive(agent)
        self.combine(agent)

    def adapt(self, agent, change):
        direction = self.rng.normal(size=SIZE) + self.pull[agent]
        before = self.x[agent].copy()
        self.x[agent] += (change * direction / np.linalg.norm(direction)).astype(self.x.dtype)
        self.updates[agent] += 1
        self.sent[agent, self.updates[agent]] = self.x[agent].copy()
        change = float(np.linalg.norm((self.x[agent] - before).astype(float)))
        for certificate in self.certificates:
            certificate.adapted(agent, self.updates[agent], change)

    def receive(self, agent):
        """A message arrives up to ``delay`` updates of its sender late; the newest that came wins."""
        for sender in self.peers[agent]:
            version = self.updates[sender] - int(self.rng.integers(self.delay + 1))
            if version > self.inbox.get((agent, sender), 0):
                self.inbox[agent, sender] = version
                for certificate in self.certificates:
                    certificate.received(agent, sender, version)

    def combine(self, agent):
        heard = [sender for sender in self.peers[agent] if (agent, sender) in self.inbox]
        if not heard or self.rng.random() < 0.2:
            return
        share = 1 / (1 + len(heard)) if self.weight is None else self.weight
        told = share if self.told is None else self.told
        versions = [self.inbox[agent, sender] for sender in heard]
        messages = [self.sent[key] for key in zip(heard, versions, strict=True)]
        own = self.x.dtype.type(1 - share * len(heard))
        self.x[agent] = own * self.x[agent] + self.x.dtype.type(share) * sum(messages)
        for certificate in self.certificates:
            rows = [(sender, version, told) for sender, version in zip(heard, versions, strict=True)]
            certificate.combined(agent, 1 - told * len(heard), rows)


def peers_of(name, agents):
    edges = topologies.named(name, agents).phases[0]
    return [[int(j) for i, j in edges if i == agent] for agent in range(agents)]


@given(
    name=st.sampled_from(TOPOLOGIES),
    agents=st.integers(3, 6),
    delay=st.integers(0, 3),
    shared=st.booleans(),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=40, deadline=None)
def test_the_distance_never_exceeds_the_bound(name, agents, delay, shared, seed):
    gossip = Gossip(peers_of(name, agents), [], seed, delay)
    if not shared:
        gossip.x += gossip.rng.normal(size=gossip.x.shape)
    start = distance_to_mean(gossip.x)
    # with few terms, so that most of the run is folded
    gossip.certificates = [
        ConsensusBound(agents, start),
        ConsensusBound(agents, start, kept=delay + 1, terms=28),
    ]
    assert gossip.certificates[0].bound() == pytest.approx(start)
    for _ in range(120):
        gossip.step(change=float(gossip.rng.exponential()))
        distance = distance_to_mean(gossip.x)
        exact, folded = (certificate.bound() for certificate in gossip.certificates)
        assert holds(distance, exact)
        assert exact <= folded * (1 + 1e-9)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_float32_stays_within_its_slack(seed):
    """Parameters a million times larger than their changes: without the slack, rounding breaks the bound."""
    gossip = Gossip(peers_of("directed_ring", 4), [certificate := ConsensusBound(4)], seed, dtype=np.float32)
    gossip.x += np.float32(1000 / 3)
    for _ in range(60):
        gossip.step(change=1e-4)
        norm = float(np.linalg.norm(gossip.x.astype(float), axis=1).max())
        assert certificate.verdict(distance_to_mean(gossip.x), norm).holds
    assert certificate.rounding(norm) < 1e-6 * norm * 20


def test_rounding_alone_is_covered():
    """Nobody changes and weights are thirds: the distance is not 0, and the bound is."""
    gossip = Gossip(peers_of("ring", 5), [certificate := ConsensusBound(5)], seed=1, dtype=np.float32)
    gossip.x += np.float32(1 / 3)
    verdicts = []
    for _ in range(300):
        gossip.step(change=0.0)
        verdicts.append(certificate.verdict(distance_to_mean(gossip.x.astype(float)), norm=1.0))
    assert max(verdict.distance for verdict in verdicts) > 0
    assert all(verdict.bound == 0 and verdict.holds for verdict in verdicts)
    assert not any(verdict._replace(slack=0.0).holds for verdict in verdicts if verdict.distance)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_without_adaptation_the_bound_decays(name):
    certificate, merging = ConsensusBound(4, 3.0), ConsensusBound(4, 3.0, terms=40)
    gossip = Gossip(peers_of(name, 4), [certificate, merging], seed=3)
    for _ in range(100):
        gossip.step()
    start = certificate.bound()
    assert start < merging.bound()
    for _ in range(600):
        gossip.step(change=0.0)
    assert certificate.bound() < 1e-6 * start
    assert merging.bound() < 0.01 * start
    assert 0.5 < certificate.contraction_rate() < 1
    assert 4 <= certificate.contraction_time < 200


def test_agents_that_never_combine_keep_their_distance():
    certificate = ConsensusBound(3, terms=16)
    for version, agent in itertools.product(range(1, 100), range(3)):
        certificate.adapted(agent, version, change=1.0 if version == 1 else 0.0)
    # three single updates of root mean square √2/3, each as far as on the first day
    assert certificate.bound() == pytest.approx(math.sqrt(2))
    assert math.isnan(certificate.contraction_rate())
    assert certificate.contraction_time == 3 * 99
    # never contracted: λ = 1
    assert certificate.printed() == pytest.approx(3 / math.sqrt(3))


def test_merging_updates_of_which_all_nodes_hold_as_much_loses_nothing():
    """Agents that never combine: once messages are replaced, an old update is wholly in its agent."""
    certificate = ConsensusBound(3, terms=64)
    for version, agent in itertools.product(range(1, 301), range(3)):
        certificate.adapted(agent, version, change=1.0)
    assert certificate.bound() == pytest.approx(300 * 3 * math.sqrt(2) / 3)


def test_weights_that_float32_rounded_do_not_drift():
    certificate = ConsensusBound(2)
    certificate.adapted(0, 1, 1.0)
    certificate.combined(1, own=0.0, heard=[(0, 1, 1 - 9e-7)])
    assert certificate.bound() == 0


def test_slack_counts_the_roundings_that_remain():
    certificate = ConsensusBound(2)
    certificate.adapted(0, 1, 1.0)
    certificate.adapted(1, 1, 5.0)
    # each update keeps half its distance in the root mean square, and rounds 3 times, or 4 once a message is heard
    assert certificate.rounding(norm=10.0) == pytest.approx(2**-24 * 10 * (3 * (1 + 1) + 2 + 2))
    certificate.combined(1, own=1.0, heard=[(0, 1, 0.0)])
    assert certificate.rounding(norm=10.0) == pytest.approx(2**-24 * 10 * (4 * (1 + 1) + 2 + 2))


def test_one_update_is_certified_with_equality():
    """However often it is mixed: the share of every agent is known exactly."""
    gossip = Gossip(peers_of("directed_ring", 4), [certificate := ConsensusBound(4)], seed=5)
    gossip.adapt(2, 1.7)
    assert certificate.bound() == pytest.approx(1.7 * math.sqrt(3) / 4)
    for _ in range(60):
        gossip.step(change=0.0)
        assert distance_to_mean(gossip.x) == pytest.approx(certificate.bound(), rel=1e-9, abs=1e-15)
    assert 1e-12 < certificate.bound() < 0.1


def test_updates_of_one_direction_are_certified_with_equality():
    certificate = ConsensusBound(2)
    for version in range(1, 6):
        certificate.adapted(0, version, 2.0)
    assert certificate.bound() == pytest.approx(5.0)


def test_a_ring_of_four_is_not_vacuous():
    gossip = Gossip(peers_of("directed_ring", 4), [certificate := ConsensusBound(4)], seed=0)
    verdicts = []
    for _ in range(1000):
        gossip.step()
        verdicts.append(certificate.verdict(distance_to_mean(gossip.x)))
    ratios = [verdict.ratio for verdict in verdicts]
    assert not is_vacuous(ratios)
    assert 0.1 < np.median(ratios) < 1
    assert all(verdict.holds for verdict in verdicts)


def test_wrong_weights_are_found_out():
    """Agents believe their peer with .05; told that it was ½, the certificate does not hold.

    Each is pulled its own way, as by a task of its own: changes that point anywhere hide in the triangle inequality.
    """
    peers = peers_of("directed_ring", 4)
    gossip = Gossip(peers, [certificate := ConsensusBound(4)], seed=0, weight=0.05, told=0.5)
    honest = Gossip(peers, [truth := ConsensusBound(4)], seed=0, weight=0.05)
    gossip.pull += 3 * np.eye(4, SIZE)
    honest.pull += 3 * np.eye(4, SIZE)
    failed = 0
    for _ in range(1000):
        gossip.step()
        honest.step()
        failed += not certificate.verdict(distance_to_mean(gossip.x)).holds
        assert truth.verdict(distance_to_mean(honest.x)).holds
    assert failed > 50


class Matrices:
    """The events as matrices on nodes that are the agents and their ``kept`` newest messages (ALGORITHMS.md)."""

    def __init__(self, agents, kept):
        self.agents, self.kept = agents, kept
        self.nodes = agents * (1 + kept)
        self.events = []

    def node_of(self, sender, version):
        return self.agents + sender * self.kept + version % self.kept

    def adapted(self, agent, version, change):
        self.events.append((None, agent, change))
        self._row(self.node_of(agent, version), {agent: 1.0})

    def received(self, receiver, sender, version):
        pass

    def combined(self, agent, own, heard):
        self._row(agent, {agent: own} | {self.node_of(sender, version): w for sender, version, w in heard})

    def _row(self, node, weights):
        matrix = np.eye(self.nodes)
        matrix[node] = 0
        for source, weight in weights.items():
            matrix[node, source] = weight
        self.events.append((matrix, None, None))

    def bounds(self):
        """With the column of each product, and with the norm of it."""
        product, column, norm = np.eye(self.nodes)[: self.agents], 0.0, 0.0
        for matrix, agent, change in reversed(self.events):
            if matrix is not None:
                product = product @ matrix
                continue
            disagreement = product - product.mean(0)
            column += np.linalg.norm(disagreement[:, agent]) * change
            norm += np.linalg.norm(disagreement, 2) * math.sqrt(1 - 1 / self.nodes) * change
        return column / math.sqrt(self.agents), norm / math.sqrt(self.agents)


@given(name=st.sampled_from(TOPOLOGIES), seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_it_is_the_sum_over_products_of_matrices(name, seed):
    """And no more than the sum with their norms, which ALGORITHMS.md has."""
    reference = Matrices(4, kept=4)
    gossip = Gossip(peers_of(name, 4), [certificate := ConsensusBound(4), reference], seed, delay=0)
    for _ in range(40):
        gossip.step(change=float(gossip.rng.exponential()))
    column, norm = reference.bounds()
    assert certificate.bound() == pytest.approx(column, rel=1e-9)
    assert column <= norm


def disagreement_norm(matrix):
    centred = matrix - matrix.mean(0)
    return np.linalg.norm(centred - centred.mean(1, keepdims=True), 2)


def test_the_printed_form_is_not_a_bound():
    """Five updates of an agent, a combination only after the last: the fivefold product has norm .7, not .7⁵."""
    steps = [np.eye(2)] * 4 + [np.array([[0.7, 0.3], [0.0, 1.0]])]
    products = itertools.accumulate(reversed(steps), np.matmul)
    norms = [disagreement_norm(product) for product in products]
    assert norms == pytest.approx([0.7] * 5)
    rate = max(norms)

    certificate = ConsensusBound(2)
    certificate.adapted(1, 1, 0.0)
    for version in range(1, 6):
        certificate.adapted(0, version, 1.0)
    certificate.combined(0, own=0.7, heard=[(1, 1, 0.3)])
    distance = distance_to_mean(np.array([[0.7 * 5], [0.0]]))
    printed = sum(rate ** (5 - s) for s in range(5)) / math.sqrt(2)
    assert certificate.bound() == pytest.approx(distance)
    assert not holds(distance, printed)


def test_one_asynchronous_step_may_increase_the_norm():
    """Three of four agents of a directed ring combine with messages one step old: norm 1.35."""
    shift, nobody = np.roll(np.eye(4), 1, axis=1), np.zeros((4, 4))
    active = np.diag([1.0, 1.0, 1.0, 0.0])
    agents = np.eye(4) - active / 2, active @ shift / 2
    step = np.block([[*agents], [np.eye(4), nobody]])
    assert step.sum(1).tolist() == [1.0] * 8
    assert disagreement_norm(step) == pytest.approx(1.35, abs=0.001)
    everybody = np.block([[np.eye(4) / 2, shift / 2], [np.eye(4), nobody]])
    assert disagreement_norm(everybody) > 1
    assert disagreement_norm(np.linalg.matrix_power(everybody, 20)) < 0.2


def test_the_printed_form_fails_in_a_run():
    """With the rate as it is seen: agents that combine steadily, then stop for a while, as one that fails does."""
    certificate = ConsensusBound(2)
    for version in range(1, 200):
        certificate.adapted(0, version, 0.0)
        certificate.adapted(1, version, 0.0)
        certificate.combined(1, own=0.5, heard=[(0, version, 0.5)])
    assert certificate.contraction_rate() == pytest.approx(0.5**0.5)
    for version in range(200, 230):
        certificate.adapted(0, version, 1.0)
    assert certificate.bound() == pytest.approx(30 / 2)
    assert certificate.printed() == pytest.approx(sum(0.5 ** (n / 2) for n in range(1, 31)) / math.sqrt(2))
    assert not holds(15.0, certificate.printed())


def test_a_window_ends_when_half_is_left():
    certificate = ConsensusBound(2)
    for version in range(1, 10):
        certificate.adapted(0, version, 1.0)
        certificate.adapted(1, version, 1.0)
        # .8 a round: .8³ is above a half, .8⁴ below
        certificate.combined(1, own=0.8, heard=[(0, version, 0.2)])
    assert certificate.contraction_rate() == pytest.approx(0.8**0.5)
    assert certificate.contraction_time == 8
    # the slowest counts
    for version in range(10, 30):
        certificate.adapted(0, version, 1.0)
        certificate.adapted(1, version, 1.0)
        certificate.combined(1, own=0.3, heard=[(0, version, 0.7)])
    assert certificate.contraction_rate() == pytest.approx(0.8**0.5)
    assert certificate.contraction_time == 8


def test_the_longest_delay_is_that_of_a_combined_message():
    certificate = ConsensusBound(3)
    certificate.adapted(0, 1, 1.0)
    for version in range(1, 6):
        certificate.adapted(1, version, 1.0)
    assert certificate.longest_delay == 0
    certificate.combined(2, 0.5, [(0, 1, 0.25), (1, 4, 0.25)])
    assert certificate.longest_delay == 5


def test_who_joins_takes_over_a_message():
    certificate = ConsensusBound(2)
    certificate.adapted(0, 1, 3.0)
    certificate.joined(1, sender=0, version=1)
    assert certificate.bound() == 0


def test_a_message_that_was_received_outlives_newer_ones():
    certificate = ConsensusBound(2, kept=2)
    for version in range(1, 50):
        certificate.adapted(0, version, 1.0 if version == 1 else 0.0)
        if version == 1:
            certificate.received(1, 0, 1)
    certificate.combined(1, 0.5, [(0, 1, 0.5)])
    assert certificate.bound() == pytest.approx(0.25)
    certificate.received(1, 0, 49)
    with pytest.raises(InputError, match="message 1 of agent 0 is not held"):
        certificate.combined(1, 0.5, [(0, 1, 0.5)])


def test_memory_does_not_grow_with_the_run():
    certificate = ConsensusBound(3, kept=3, terms=16)
    gossip = Gossip(peers_of("complete", 3), [certificate], seed=2)
    for _ in range(2000):
        gossip.step()
    # three agents, three messages of each, and one at most in each of six inboxes; twice that, as it doubles
    assert len(certificate._products._of_update) <= 2 * (3 + 9 + 6)
    assert len(certificate._messages._holders) <= 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.adapted(2, 1, 1.0), "agent is 2"),
        (lambda c: c.adapted(0, 1, 1.0), "agent 0 sent version 1 after 5"),
        (lambda c: c.adapted(1, 1, math.nan), "change is nan"),
        (lambda c: c.combined(1, 0.5, [(0, 5, 0.4)]), r"weights \[0.5, 0.4\]"),
        (lambda c: c.combined(1, 1.5, [(0, 5, -0.5)]), "they must be at least 0 and sum to 1"),
        (lambda c: c.combined(1, math.nan, [(0, 5, 0.5)]), "they must be at least 0 and sum to 1"),
        (lambda c: c.combined(1, 0.5, [(0, 1, 0.5)]), "among the 4 newest of its sender or the last"),
        (lambda c: c.combined(1, 0.5, [(0, 6, 0.5)]), "message 6 of agent 0 is not held"),
        (lambda c: c.received(1, 0, 1), "message 1 of agent 0 is not held"),
        (lambda c: c.received(7, 0, 5), "agent is 7"),
        (lambda _: ConsensusBound(0), "agents is 0"),
        (lambda _: ConsensusBound(2, -1.0), "initial_distance is -1.0"),
        (lambda _: ConsensusBound(2, kept=0), "kept is 0"),
        (lambda _: ConsensusBound(2, terms=1), "terms is 1"),
    ],
)
def test_bad_events_change_nothing(call, message):
    certificate = ConsensusBound(2)
    for version in range(1, 6):
        certificate.adapted(0, version, 1.0)
    with pytest.raises(InputError, match=message):
        call(certificate)
    assert certificate.bound() == pytest.approx(2.5)
    certificate.adapted(0, 6, 1.0)
    assert certificate.bound() == pytest.approx(3.0)


def test_a_verdict_without_movement_has_no_ratio():
    verdict = ConsensusBound(2).verdict(0.0)
    assert verdict == Verdict(distance=0.0, bound=0.0, printed=0.0, slack=0.0)
    assert verdict.holds
    assert math.isnan(verdict.ratio)
    assert is_vacuous([verdict.ratio])
