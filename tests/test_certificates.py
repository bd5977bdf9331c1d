"""Batch certificates: within them by any random record, above the certificate that is kept up to date."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.analysis.consensus_bounds import (
    Gossip,
    are_ergodic,
    asynchronous_step,
    augmented,
    contraction_norms,
    disagreement_norms,
    distances,
    exact_bounds,
    one_late_contraction,
    printed_bounds,
    random_gossip,
    replay,
    strong_connectivity,
)
from gossamer.diagnostics.consensus_bound import ConsensusBound
from gossamer.errors import InputError

ROUNDOFF = 1 + 1e-9  # of float64, in sums of some hundred products


def one_after_the_other(agents, events, seed, delay=3):
    """Agents on a ring, one acting at a time, with messages of any of the last ``delay`` + 1 sent ones.

    Returns the record, and a certificate that was told the same with its bound after every event.
    """
    generator = np.random.default_rng(seed)
    start = generator.normal(size=(agents, 3))
    distance = math.sqrt(((start - start.mean(0)) ** 2).sum() / agents)
    certificate = ConsensusBound(agents, distance, kept=delay + 1)
    weights = np.tile(np.eye(agents), (events, 1, 1))
    ages = np.zeros((events, agents, agents), int)
    updates = np.zeros((events, agents, 3))
    sent = [[] for _ in range(agents)]
    bounds = []
    for k in range(events):
        agent = int(generator.integers(agents))
        updates[k, agent] = generator.normal(size=3) * generator.exponential()
        sent[agent].append(k)
        certificate.adapted(agent, len(sent[agent]), float(np.linalg.norm(updates[k, agent])))
        sender = (agent - 1) % agents
        if sent[sender]:
            back = int(generator.integers(min(delay + 1, len(sent[sender]))))
            ages[k, agent, sender] = k - sent[sender][-1 - back]
            weights[k, agent, [agent, sender]] = 0.5
            certificate.combined(agent, 0.5, [(sender, len(sent[sender]) - back, 0.5)])
        bounds.append(certificate.bound())
    return Gossip(weights, ages, updates, start), np.array(bounds)


def of_agents(gossip):
    """Root mean square distance of the agents alone to their mean, after each iteration."""
    own = replay(gossip)[1:, : gossip.agents]
    return np.sqrt(((own - own.mean(1, keepdims=True)) ** 2).sum((1, 2)) / gossip.agents)


@given(
    agents=st.integers(2, 5),
    iterations=st.integers(1, 25),
    delay=st.integers(0, 3),
    active=st.floats(0.2, 1.0),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=40, deadline=None)
def test_no_distance_exceeds_the_exact_bound(agents, iterations, delay, active, seed):
    gossip = random_gossip(agents, iterations, delay, seed, active=active)
    distance = distances(gossip)
    assert (distance <= exact_bounds(gossip) * ROUNDOFF).all()
    assert (of_agents(gossip) * math.sqrt(agents) <= distance * ROUNDOFF).all()


@given(agents=st.integers(2, 4), seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_the_incremental_certificate_is_between_distance_and_batch_bound(agents, seed):
    gossip, kept_up_to_date = one_after_the_other(agents, 20, seed)
    batch = exact_bounds(gossip) / math.sqrt(agents)
    assert (of_agents(gossip) <= kept_up_to_date * ROUNDOFF).all()
    assert (kept_up_to_date <= batch * ROUNDOFF).all()


def test_a_replay_is_the_loop_of_the_book():
    """Each agent by hand, with a list of all it ever sent."""
    gossip = random_gossip(agents=4, iterations=40, delay=3, seed=5)
    x, sent = gossip.start.copy(), []
    for k in range(40):
        adapted = x + gossip.updates[k]
        sent.append(adapted)
        x = np.stack(
            [
                sum(
                    gossip.weights[k, i, j]
                    * (sent[k - gossip.ages[k, i, j]][j] if gossip.ages[k, i, j] <= k else gossip.start[j])
                    for j in range(4)
                )
                for i in range(4)
            ]
        )
        np.testing.assert_allclose(replay(gossip)[k + 1, :4], x)


@given(agents=st.integers(2, 5), delay=st.integers(0, 3), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_augmented_matrices_are_row_stochastic(agents, delay, seed):
    gossip = random_gossip(agents, 8, delay, seed)
    matrices = augmented(gossip)
    assert matrices.shape == (8, gossip.nodes, gossip.nodes)
    assert (matrices >= 0).all()
    np.testing.assert_allclose(matrices.sum(-1), 1)


def test_the_projection_is_gone_into_an_orthonormal_basis():
    """‖Q Φ Qᵀ‖ with a Q written out, and Q Φ = (Q Φ Qᵀ) Q, on which the bound rests."""
    phi = augmented(random_gossip(3, 6, 2, seed=1))[4]
    basis = np.linalg.qr(np.column_stack([np.ones(len(phi)), np.eye(len(phi))[:, 1:]]))[0]
    Q = basis[:, 1:].T
    np.testing.assert_allclose(Q @ phi, Q @ phi @ Q.T @ Q, atol=1e-12)
    assert disagreement_norms(phi) == pytest.approx(np.linalg.norm(Q @ phi @ Q.T, 2))


def test_the_printed_bound_fails_where_one_late_step_contracts():
    gossip = one_late_contraction(iterations=5, norm=0.7)
    assert [contraction_norms(gossip, length).max().round(9) for length in (1, 4, 5)] == [1.0, 1.0, 0.7]
    assert distances(gossip)[-1] == pytest.approx(0.7)
    assert exact_bounds(gossip)[-1] == pytest.approx(0.7)
    assert printed_bounds(gossip)[-1] == pytest.approx(0.7**5)


def test_the_printed_bound_by_hand():
    """(9) with a Q written out: what the mean of all nodes does is no part of it."""
    gossip = random_gossip(3, 6, 1, seed=4)
    matrices, nodes = augmented(gossip), gossip.nodes
    basis = np.linalg.qr(np.column_stack([np.ones(nodes), np.eye(nodes)[:, 1:]]))[0]
    Q = basis[:, 1:].T
    updates = np.pad(gossip.updates, ((0, 0), (0, nodes - 3), (0, 0)))
    assert np.linalg.norm(updates.sum(1), axis=-1).max() > 1  # the mean moves
    k = len(matrices) - 1
    products = [np.linalg.multi_dot([*matrices[s:][::-1], np.eye(nodes)]) for s in range(k + 1)]
    rate = max(np.linalg.norm(Q @ product @ Q.T, 2) for product in products)
    bound = rate ** (k + 1) * np.linalg.norm(Q @ replay(gossip)[0])
    bound += sum(rate ** (k + 1 - s) * np.linalg.norm(Q @ updates[s]) for s in range(k + 1))
    assert printed_bounds(gossip)[-1] == pytest.approx(bound)


def test_one_step_may_grow_and_long_products_contract():
    assert disagreement_norms(asynchronous_step()) == pytest.approx(1.35, abs=0.001)
    gossip = random_gossip(agents=4, iterations=120, delay=1, seed=3)
    norms = [contraction_norms(gossip, length).max() for length in (1, 20, 40, 80)]
    assert norms[0] > 1 > norms[1] > norms[2] > norms[3]
    window = gossip.delay + strong_connectivity(gossip.weights)
    assert are_ergodic(gossip, window).all()


def test_isolated_agents_are_not_ergodic():
    still = Gossip(
        np.tile(np.eye(3), (6, 1, 1)), np.zeros((6, 3, 3), int), np.zeros((6, 3, 2)), np.ones((3, 2))
    )
    assert strong_connectivity(still.weights) is None
    assert not are_ergodic(still, 6).any()
    assert contraction_norms(still, 6).tolist() == pytest.approx([1.0])


def test_without_updates_the_start_fades():
    gossip = random_gossip(agents=3, iterations=60, delay=1, seed=2)
    quiet = Gossip(gossip.weights, gossip.ages, np.zeros_like(gossip.updates), gossip.start)
    bounds = exact_bounds(quiet)
    assert bounds[-1] < 1e-2 * bounds[0]
    assert (distances(quiet) <= bounds * ROUNDOFF).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.full((1, 2, 2), 0.6)}, "a row of the weights is no mean"),
        ({"ages": np.zeros((2, 2, 2), int)}, "they must be"),
        ({"updates": np.zeros((1, 3, 3))}, "they must be"),
        ({"ages": np.full((1, 2, 2), 1)}, "an agent's own is not 0"),
        ({"ages": np.array([[[0, -1], [0, 0]]])}, "an age is negative"),
        ({"start": np.zeros((2, 4))}, "they must be"),
    ],
)
def test_bad_records_are_refused(change, message):
    good = {
        "weights": np.full((1, 2, 2), 0.5),
        "ages": np.zeros((1, 2, 2), int),
        "updates": np.zeros((1, 2, 3)),
        "start": np.zeros((2, 3)),
    }
    with pytest.raises(InputError, match=message):
        Gossip(**{**good, **change})


def test_bad_lengths_are_refused():
    gossip = random_gossip(2, 5, 0, seed=0)
    with pytest.raises(InputError, match="length is 6; it must be at most the number of iterations, here 5"):
        contraction_norms(gossip, 6)
    with pytest.raises(InputError, match="length is 0"):
        contraction_norms(gossip, 0)
    with pytest.raises(InputError, match="agents is 1"):
        random_gossip(1, 5, 0, seed=0)
