"""Mixing: published figures, a naive loop, what rules promise at every size, every form as the product."""

import functools
import itertools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import ArpackNoConvergence

from gossamer import mixing, topologies
from gossamer.errors import InputError
from gossamer.mixing import (
    Circulant,
    Dense,
    EdgeList,
    Identity,
    Neighbours,
    average,
    consensus_rate,
    from_matrix,
    is_column_stochastic,
    is_doubly_stochastic,
    is_primitive,
    is_row_stochastic,
    is_strongly_connected,
    laplacian,
    lazy,
    metropolis_hastings,
    mix,
    named_rule,
    plan,
    rates,
    read_matrix,
    spectral_gap,
    uniform,
    weigh,
)
from gossamer.mixing.forms import UNROLLED
from gossamer.topologies import from_adjacency, named

RULES = (metropolis_hastings, uniform, laplacian, lazy)
SPECS = [
    *(name for name in topologies.NAMES if name != "edge_list"),
    "random_regular:degree=3,seed=2",
    "erdos_renyi:mean_neighbourhood=3,seed=5",
]
EQUAL_DEGREES = {
    "isolated",
    "ring",
    "directed_ring",
    "complete",
    "hypercube",
    "exponential",
    "one_peer_exponential",
    "random_regular",
}
LEMMA_1 = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0]])

any_size = st.integers(1, 99)
any_spec = st.sampled_from(SPECS)
any_rule = st.sampled_from(RULES)
steady = functools.partial(
    settings, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much]
)


def topology_or_skip(spec: str, agents: int) -> topologies.Topology:
    try:
        return named(spec, agents)
    except InputError:
        assume(False)
        raise


def parameters(agents: int, seed: int = 0) -> dict[str, jax.Array]:
    generator = np.random.default_rng(seed)
    shapes = {"kernel": (agents, 3, 2), "bias": (agents, 2), "scale": (agents,)}
    return {name: jnp.asarray(generator.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def assert_close(actual, expected):
    """Equal but for rounding: at most 99 float32 products of order one differ by 99 · 2⁻²⁴ ≈ 6e-6."""
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def naive_mix(W, leaf) -> np.ndarray:
    """Σ_j W_ij x_j, written as the sum it is."""
    W, leaf = W.toarray(), np.asarray(leaf, np.float64)
    mixed = np.zeros_like(leaf)
    for i, j in itertools.product(range(len(W)), repeat=2):
        mixed[i] += W[i, j] * leaf[j]
    return mixed


def assert_mixes_like_the_product(mixer, W, tree, round=0):
    mixed = jax.jit(mix)(mixer, tree, round)
    assert mixed.keys() == tree.keys()
    for name, leaf in tree.items():
        assert mixed[name].dtype == leaf.dtype
        assert_close(mixed[name], naive_mix(W, leaf))


# published figures


@pytest.mark.parametrize(("agents", "rate"), [(14, 0.934), (25, 0.979)])
def test_consensus_rate_of_the_ring(agents: int, rate: float):
    assert round(consensus_rate(weigh(topologies.ring(agents), metropolis_hastings)), 3) == rate


@pytest.mark.parametrize("agents", [4, 8, 16, 32, 64])
def test_one_period_of_one_peer_exponential_is_the_mean_for_powers_of_two(agents: int):
    phases = weigh(topologies.one_peer_exponential(agents), uniform)
    product = functools.reduce(lambda total, W: W @ total, phases, np.eye(agents))
    np.testing.assert_array_equal(
        product, np.full((agents, agents), 1 / agents)
    )  # powers of two: no rounding
    assert consensus_rate(phases) == 0


@pytest.mark.parametrize(("agents", "rate"), [(6, 0.217), (12, 0.209), (25, 0.192)])
def test_one_period_of_one_peer_exponential_leaves_a_rest_otherwise(agents: int, rate: float):
    phases = weigh(topologies.one_peer_exponential(agents), uniform)
    assert round(consensus_rate(phases), 3) == rate


def test_lemma_1_of_diff_dac_has_a_counterexample():
    assert is_primitive(LEMMA_1)
    assert is_doubly_stochastic(LEMMA_1)
    assert consensus_rate(LEMMA_1) == pytest.approx(1, abs=1e-12)  # float64 LAPACK
    assert spectral_gap(LEMMA_1) == pytest.approx(
        0.5, abs=1e-12
    )  # it does converge, though not in every round


def test_one_norm_step_of_lemma_1_fails_on_the_ring():
    (W,) = weigh(topologies.ring(25), metropolis_hastings)
    assert round(np.abs(W.toarray() - 1 / 25).sum(axis=0).max(), 2) == 1.76


@pytest.mark.parametrize("agents", [3, 10, 25])
def test_spectral_gap_of_rings_in_closed_form(agents: int):
    angle = 2 * math.pi / agents
    ring = weigh(topologies.ring(agents), metropolis_hastings)
    directed = weigh(topologies.directed_ring(agents), uniform)
    # float64 eigenvalues of normal matrices
    assert spectral_gap(ring) == pytest.approx(1 - abs(1 + 2 * math.cos(angle)) / 3, abs=1e-12)
    assert spectral_gap(directed) == pytest.approx(1 - abs(1 + np.exp(1j * angle)) / 2, abs=1e-12)


# what the rules promise


def test_metropolis_hastings_entry_by_entry():
    topology = named("erdos_renyi:seed=4", 20)
    adjacency = topology.adjacency().toarray()
    expected = np.zeros((20, 20))
    for i, j in zip(*adjacency.nonzero(), strict=True):
        expected[i, j] = 1 / (1 + max(adjacency[i].sum(), adjacency[j].sum()))
    expected += np.diag(1 - expected.sum(axis=1))
    # float64, at most 20 terms
    np.testing.assert_allclose(weigh(topology, metropolis_hastings)[0].toarray(), expected, atol=1e-14)
    halfway = (np.eye(20) + expected) / 2
    np.testing.assert_allclose(weigh(topology, lazy)[0].toarray(), halfway, atol=1e-14)


def test_laplacian_entry_by_entry():
    adjacency = topologies.star(5).adjacency()
    L = np.diag([4.0, 1, 1, 1, 1]) - adjacency.toarray()
    for epsilon, given_epsilon in ((1 / 5, None), (0.25, 0.25), (0.1, 0.1)):
        W = laplacian(adjacency, given_epsilon).toarray()
        np.testing.assert_allclose(W, np.eye(5) - epsilon * L, atol=1e-15)  # float64


@steady(max_examples=250)
@given(any_spec, any_size, any_rule)
def test_rules_keep_their_promises(spec: str, agents: int, rule: mixing.Rule):
    topology = topology_or_skip(spec, agents)
    for phase, W in enumerate(weigh(topology, rule)):
        assert is_row_stochastic(W)
        assert W.toarray().min() >= 0
        np.testing.assert_allclose(W.sum(axis=1), 1, atol=1e-12)  # float64, at most 99 terms
        equal = spec.partition(":")[0] in EQUAL_DEGREES
        if rule is not uniform or equal:
            np.testing.assert_allclose(W.sum(axis=0), 1, atol=1e-12)
        allowed = topology.adjacency(phase).toarray() + np.eye(agents)
        assert not W.toarray()[allowed == 0].any()


@steady(max_examples=100)
@given(any_spec, any_size, st.sampled_from((metropolis_hastings, lazy)))
def test_connected_symmetric_graphs_with_own_weight_reach_consensus(
    spec: str, agents: int, rule: mixing.Rule
):
    topology = topology_or_skip(spec, agents)
    weights = weigh(topology, rule)
    connected = topology.is_strongly_connected
    assert (consensus_rate(weights) < 1 - 1e-6) == connected
    if topology.period == 1:
        assert is_primitive(weights[0]) == is_strongly_connected(weights[0]) == connected


# the device: every form is the product


FORMS = (Circulant, Neighbours, EdgeList, Dense)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "spec", ["ring", "exponential", "one_peer_exponential", "star", "erdos_renyi", "line"]
)
def test_every_form_is_the_naive_sum(spec: str, form: type):
    agents = 23
    rule = uniform if spec == "star" else metropolis_hastings
    weights = weigh(named(spec, agents), rule)
    if form is Circulant and spec not in ("ring", "exponential"):
        with pytest.raises(InputError, match=r"these weights are not circulant: .*; use Neighbours"):
            plan(weights, form)
        return
    mixer = plan(weights, form)
    for round in (0, 1, len(weights), 7):
        assert_mixes_like_the_product(mixer, weights[round % len(weights)], parameters(agents), round)


def test_circulant_allows_each_agent_its_own_weights():
    generator = np.random.default_rng(0)
    phases = []
    for _ in range(2):
        W = np.zeros((7, 7))
        for i in range(7):
            W[i, [i, (i - 1) % 7, (i - 4) % 7]] = generator.dirichlet(np.ones(3))
        phases += from_matrix(W)
    mixer = plan(phases)
    assert type(mixer) is Circulant
    assert set(mixer.shifts) == {0, 1, 4}
    for round in range(4):
        assert_mixes_like_the_product(mixer, phases[round % 2], parameters(7), round)


@pytest.mark.parametrize("form", [Neighbours, EdgeList])
def test_many_slots_and_many_chunks(form: type):
    (W,) = weigh(named("erdos_renyi:mean_neighbourhood=30", 60), metropolis_hastings)
    mixer = plan([W], form)
    assert not isinstance(mixer, Neighbours) or mixer.index.shape[2] > UNROLLED
    assert not isinstance(mixer, EdgeList) or mixer.weight.shape[1] > 2
    assert_mixes_like_the_product(mixer, W, parameters(60))


def test_phases_with_different_numbers_of_edges():
    phases = [*weigh(topologies.star(9), uniform), *weigh(topologies.isolated(9), uniform)]
    for form in (Neighbours, EdgeList, Dense):
        for round in range(3):
            assert_mixes_like_the_product(plan(phases, form), phases[round % 2], parameters(9), round)


@steady(max_examples=25)
@given(any_spec, any_size, any_rule, st.integers(0, 20))
def test_planned_mix_is_the_product_and_keeps_constants_and_means(
    spec: str, agents: int, rule: mixing.Rule, round: int
):
    weights = weigh(topology_or_skip(spec, agents), rule)
    W, mixer = weights[round % len(weights)], plan(weights)
    tree = {"w": parameters(agents, seed=round)["bias"]}
    combine = jax.jit(mix)
    mixed = combine(mixer, tree, round)["w"]
    assert_close(mixed, W @ np.asarray(tree["w"], np.float64))
    if is_doubly_stochastic(W):
        assert_close(mixed.mean(axis=0), tree["w"].mean(axis=0))
    constant = jnp.full((agents, 2), 3.0)
    assert_close(combine(mixer, {"w": constant}, round)["w"], constant)


@pytest.mark.parametrize("spec", ["line", "star", "erdos_renyi", "directed_ring"])
def test_renaming_agents_renames_the_result(spec: str):
    topology, renamed = named(spec, 12), np.random.default_rng(1).permutation(12)
    # agent i of the second graph is agent renamed[i] of the first
    second = from_adjacency(topology.adjacency()[renamed][:, renamed])
    leaf = parameters(12)["kernel"]
    first_then_rename = mix(plan(weigh(topology, uniform)), leaf)[renamed]
    rename_then_second = mix(plan(weigh(second, uniform)), leaf[renamed])
    assert_close(first_then_rename, rename_then_second)


@pytest.mark.parametrize("rule", RULES)
def test_isolated_is_nothing_at_all(rule: mixing.Rule):
    mixer, tree = plan(weigh(topologies.isolated(5), rule)), parameters(5)
    assert isinstance(mixer, Identity)
    assert mix(mixer, tree) is tree


@pytest.mark.parametrize("agents", [1, 2, 25])
def test_complete_with_uniform_weights_is_the_mean(agents: int):
    leaf = parameters(agents)["kernel"]
    mixed = mix(plan(weigh(topologies.complete(agents), uniform)), leaf)
    assert_close(mixed, np.broadcast_to(leaf.mean(axis=0), leaf.shape))


@pytest.mark.parametrize("spec", ["ring", "star", "complete", "erdos_renyi"])
def test_average_of_what_one_agent_hears_is_its_row_of_the_mix(spec: str):
    (W,) = weigh(named(spec, 7), metropolis_hastings)
    tree = parameters(7)
    mixed = jax.jit(mix)(plan([W]), tree)
    for i in (0, 1, 6):
        peers = W[[i]].indices
        messages = jax.tree.map(lambda leaf, peers=peers: leaf[peers], tree)
        mine = jax.jit(average)(messages, jnp.asarray(W[[i]].data, jnp.float32))
        for name in tree:
            assert_close(mine[name], mixed[name][i])


@pytest.mark.parametrize("form", [Circulant, Neighbours, EdgeList])
def test_nothing_leaks_from_strangers(form: type):
    topology = topologies.ring(8) if form is Circulant else topologies.line(8)
    leaf = parameters(8)["bias"].at[7].set(jnp.nan)
    mixed = mix(plan(weigh(topology, metropolis_hastings), form), leaf)
    spoilt = {0, 6, 7} if form is Circulant else {6, 7}
    assert set(np.flatnonzero(np.isnan(mixed).any(axis=1)).tolist()) == spoilt


def test_nothing_leaks_from_oneself_into_padding():
    W = from_matrix([[0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 0.25, 0.5, 0.25], [0, 0, 1, 0]])
    leaf = jnp.array([jnp.inf, 1, 2, 3])
    for form in (Neighbours, EdgeList):
        assert np.isfinite(mix(plan(W, form), leaf)).tolist() == [True, False, True, True]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("spec", ["ring", "line", "complete", "star"])
def test_leaves_keep_their_type(spec: str, dtype):
    mixed = mix(plan(weigh(named(spec, 40), metropolis_hastings)), {"w": jnp.ones((40, 2), dtype)})
    assert mixed["w"].dtype == dtype
    # weights rounded to 8 bits, at most 40 of them
    np.testing.assert_allclose(mixed["w"].astype(jnp.float32), 1, atol=40 * 2.0**-9)


# the device: what is traced, what is compiled, what it costs


@pytest.mark.parametrize("form", FORMS)
def test_new_weights_of_the_same_shape_are_not_compiled_again(form: type):
    compilations = 0

    @jax.jit
    def combine(mixer, tree, round):
        nonlocal compilations
        compilations += 1
        return mix(mixer, tree, round)

    for round, rule in enumerate((metropolis_hastings, lazy, uniform)):
        (W,) = weigh(topologies.ring(12), rule)
        mixed = combine(plan([W], form), parameters(12), round)
        assert_close(mixed["kernel"], naive_mix(W, parameters(12)["kernel"]))
    assert compilations == 1


def test_the_round_may_be_traced():
    phases = weigh(topologies.one_peer_exponential(8), uniform)
    mixer, leaf = plan(phases), parameters(8)["kernel"]
    final = jax.lax.fori_loop(3, 6, lambda round, leaf: mix(mixer, leaf, round), leaf)
    assert_close(final, np.broadcast_to(leaf.mean(axis=0), leaf.shape))


def test_mixers_stack_over_seeds():
    weights = [weigh(named(f"random_regular:seed={seed}", 20), lazy) for seed in range(3)]
    mixers = [plan(W, Neighbours) for W in weights]
    leaves = jnp.stack([parameters(20, seed)["kernel"] for seed in range(3)])
    mixed = jax.vmap(mix)(jax.tree.map(lambda *parts: jnp.stack(parts), *mixers), leaves)
    for seed in range(3):
        assert_close(mixed[seed], naive_mix(weights[seed][0], leaves[seed]))


@pytest.mark.parametrize(
    ("spec", "agents", "form"),
    [
        ("isolated", 25, Identity),
        ("ring", 1, Identity),
        ("ring", 25, Circulant),
        ("directed_ring", 10_000, Circulant),
        ("exponential", 200, Neighbours),
        ("one_peer_exponential", 25, Neighbours),
        ("line", 25, Neighbours),
        ("erdos_renyi", 25, Neighbours),
        ("erdos_renyi", 10_000, Neighbours),
        ("star", 25, Dense),
        ("star", 10_000, EdgeList),
        ("complete", 25, Dense),
    ],
)
def test_plan_takes_the_cheapest_form(spec: str, agents: int, form: type):
    assert type(plan(weigh(named(spec, agents), metropolis_hastings))) is form


@pytest.mark.parametrize("spec", ["ring", "star", "erdos_renyi", "one_peer_exponential"])
def test_ten_thousand_agents_combine_without_square_memory(spec: str):
    agents, parameter = 10_000, 1_000
    mixer = plan(weigh(named(spec, agents), metropolis_hastings))
    leaf = jax.ShapeDtypeStruct((agents, parameter), jnp.float32)
    memory = jax.jit(mix).lower(mixer, leaf, jnp.int32(0)).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 4 * agents * agents / 20
    assert memory.temp_size_in_bytes < 4 * agents * parameter  # less than one more copy of the parameters
    assert sum(part.nbytes for part in jax.tree.leaves(mixer)) < 4 * agents * agents / 20


# checks


@steady(max_examples=150)
@given(st.integers(1, 6), st.data())
def test_is_primitive_means_some_power_is_positive(agents: int, data: st.DataObject):
    cells = data.draw(st.lists(st.booleans(), min_size=agents**2, max_size=agents**2))
    W = np.array(cells, float).reshape(agents, agents)
    assume(W.any(axis=1).all())
    W /= W.sum(axis=1, keepdims=True)
    # Wielandt: a primitive n × n matrix is positive at power (n - 1)² + 1
    power = np.linalg.matrix_power((W > 0).astype(object), (agents - 1) ** 2 + 1)
    assert is_primitive(W) == bool((power > 0).all())
    reach = np.linalg.matrix_power((np.eye(agents) + W > 0).astype(object), agents)
    assert is_strongly_connected(W) == bool((reach > 0).all())


def test_row_and_column_sums_are_told_apart():
    rows = np.array([[0.5, 0.5], [1.0, 0.0]])
    assert (is_row_stochastic(rows), is_column_stochastic(rows), is_doubly_stochastic(rows)) == (
        True,
        False,
        False,
    )
    columns = rows.T
    assert (is_row_stochastic(columns), is_column_stochastic(columns)) == (False, True)
    assert not is_row_stochastic(np.array([[1.5, -0.5], [0.0, 1.0]]))
    assert not is_row_stochastic(np.array([[np.nan, 1.0], [0.0, 1.0]]))


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        ("ring", metropolis_hastings),  # circulant: by Fourier transform
        ("directed_ring", uniform),
        ("one_peer_exponential", uniform),
        ("erdos_renyi", metropolis_hastings),  # symmetric
        ("star", uniform),  # neither
    ],
)
def test_large_and_small_agree_on_rates(monkeypatch: pytest.MonkeyPatch, spec: str, rule: mixing.Rule):
    weights = weigh(named(spec, 60), rule)
    small = consensus_rate(weights), spectral_gap(weights)
    monkeypatch.setattr(rates, "DENSE_LIMIT", 0)
    # the iteration stops at 1e-6
    np.testing.assert_allclose((consensus_rate(weights), spectral_gap(weights)), small, atol=2e-6)


@pytest.mark.parametrize("rate", [consensus_rate, spectral_gap])
@pytest.mark.parametrize(("spec", "rule"), [("directed_ring", uniform), ("ring", metropolis_hastings)])
def test_rates_survive_eigenvalues_that_cannot_be_told_apart(
    monkeypatch: pytest.MonkeyPatch,
    spec: str,
    rule: mixing.Rule,
    rate: Callable[[mixing.Matrix], float],
):
    (W,) = weigh(named(spec, 60), rule)
    order = np.random.default_rng(0).permutation(60)  # circulant no more, but of the same spectrum
    asked = []

    def gives_up(*arguments, **options):
        asked.append(arguments)
        raise ArpackNoConvergence("no convergence", np.empty(0), np.empty(0))

    expected = rate(W)
    monkeypatch.setattr(rates, "DENSE_LIMIT", 0)
    monkeypatch.setattr(rates, "eigs", gives_up)
    monkeypatch.setattr(rates, "eigsh", gives_up)
    # growth per step over 1,000 steps tells the radius to about 1 / 1,000
    assert rate(W[order][:, order]) == pytest.approx(expected, abs=1e-3)
    assert len(asked) == 1


# matrices from elsewhere, and refusals


def test_from_matrix_and_read_matrix():
    W = weigh(topologies.line(4), metropolis_hastings)[0]
    np.testing.assert_array_equal(from_matrix(W, topologies.line(4))[0].toarray(), W.toarray())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.txt")
        np.savetxt(path, W.toarray(), delimiter=",", header="line of four")
        np.testing.assert_array_equal(read_matrix(path, topologies.line(4))[0].toarray(), W.toarray())


@pytest.mark.parametrize(
    ("matrix", "sentence"),
    [
        ([[0.5, 0.5]], r"W has shape \(1, 2\)"),
        ([[0.5, 0.5], [1.5, -0.5]], r"W\[1, 1\] is -0.5"),
        ([[0.5, np.nan], [0.5, 0.5]], r"W\[0, 1\] is nan"),
        ([[0.5, 0.5], [0.5, 0.4]], "W, row 1 sums to 0.9"),
        ([[1, 0], [0, 0]], "W, row 1 sums to 0"),
    ],
)
def test_matrices_that_are_not_stochastic_are_refused(matrix: list[list[float]], sentence: str):
    with pytest.raises(InputError, match=sentence):
        from_matrix(matrix)


def test_matrices_that_do_not_fit_the_topology_are_refused():
    mean = np.full((3, 3), 1 / 3)
    with pytest.raises(
        InputError, match=r"^W\[0, 2\] is 0.333333, but in line agent 0 does not hear agent 2;"
    ):
        from_matrix(mean, topologies.line(3))
    with pytest.raises(InputError, match=r"^W is for 3 agents and ring for 4; they must agree$"):
        from_matrix(mean, topologies.ring(4))
    with pytest.raises(InputError, match=r"^W is one matrix and one_peer_exponential has 2 phases;"):
        from_matrix(mean, topologies.one_peer_exponential(3))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0.5 0.5\n\n0.5 x", r"weights.txt, line 3: '0.5 x' is not a row of numbers"),
        ("0.5 0.5\n1", "weights.txt has 2 rows and one of 1 numbers"),
        ("# nothing", r"weights.txt has 0 rows"),
        ("0.5 0.5\n0.5 0.4", r"weights.txt, row 1 sums to 0.9"),
    ],
)
def test_bad_matrix_files_are_refused(tmp_path: Path, text: str, sentence: str):
    path = tmp_path / "weights.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_matrix(path)


def test_a_missing_matrix_file_is_refused():
    with pytest.raises(InputError, match=r"^no/such.txt cannot be read as a text file"):
        read_matrix("no/such.txt")


def test_metropolis_hastings_refuses_what_it_cannot_balance():
    one_way = from_adjacency([[0, 1, 1], [1, 0, 0], [0, 1, 0]])
    for rule in (metropolis_hastings, lazy):
        with pytest.raises(InputError, match=r"metropolis_hastings does not keep the mean .*; use uniform"):
            weigh(one_way, rule)
    assert is_row_stochastic(weigh(one_way, uniform)[0])


@pytest.mark.parametrize("epsilon", [0.0, -1.0, 0.6, math.nan])
def test_laplacian_refuses_steps_that_overshoot(epsilon: float):
    with pytest.raises(
        InputError, match=r"laplacian: epsilon is .*; it must be above 0 and at most .* here 0.5"
    ):
        laplacian(topologies.ring(5).adjacency(), epsilon)


def test_named_rules():
    adjacency = topologies.ring(5).adjacency()
    for rule in RULES:
        np.testing.assert_array_equal(
            named_rule(rule.__name__)(adjacency).toarray(), rule(adjacency).toarray()
        )
    tenth = named_rule("laplacian:epsilon=0.1")(adjacency)
    np.testing.assert_array_equal(tenth.toarray(), laplacian(adjacency, 0.1).toarray())
    with pytest.raises(
        InputError,
        match=r"^'unifrom' is not a weight rule, nor the path of a matrix file; did you mean uniform\? known are metro",
    ):
        named_rule("unifrom")
    with pytest.raises(
        InputError, match=r"^'eps=1' does not fit laplacian; laplacian takes epsilon \(float\)$"
    ):
        named_rule("laplacian:eps=1")
    with pytest.raises(InputError, match=r"^'epsilon=1' does not fit lazy; lazy takes no parameter$"):
        named_rule("lazy:epsilon=1")


def test_identity_refuses_weights_that_mix():
    with pytest.raises(InputError, match="these weights are not the identity"):
        plan(weigh(topologies.ring(3), uniform), Identity)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("leaf", [jnp.ones((4, 2)), jnp.ones((5, 2), jnp.int32), jnp.float32(1)])
def test_leaves_that_do_not_fit_are_refused(form: type, leaf):
    mixer = plan(weigh(topologies.ring(5), uniform), form)
    with pytest.raises(TypeError, match=r"mixing needs floats whose first axis is the 5 agents"):
        mix(mixer, leaf)
