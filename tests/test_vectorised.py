from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.algorithms import acting, combine
from gossamer.diagnostics.consensus_distance import consensus_distance
from gossamer.experience import Episodes
from gossamer.runtimes import vectorised
from gossamer.runtimes.build import build, initial_population
from gossamer.runtimes.rounds import AgentRound, act_and_adapt, agent_key
from gossamer.runtimes.vectorised import (
    RoundRecord,
    add_record,
    chunk_program,
    in_blocks,
    no_records,
    run_chunk,
)
from small import small_experiment


def start(experiment, parts=None):
    parts = parts or build(experiment)
    return initial_population(parts.algorithm, experiment, parts.mailbox, parts.tasks)


def run(experiment, rounds=2, population=None, capacity=8, every=1):
    parts = build(experiment)
    return run_chunk(
        start(experiment, parts) if population is None else population,
        parts.algorithm,
        parts.mixer,
        parts.tasks,
        parts.seeds,
        jnp.asarray(rounds, jnp.int32),
        jnp.asarray(every, jnp.int32),
        environment=parts.environment,
        experience=parts.experience,
        capacity=capacity,
        block=parts.block,
    )


def params_of(population):
    return population.learner.params


def assert_close(left, right, rtol=1e-4, atol=1e-5):
    # float32, the same operations compiled apart; Adam's first steps divide by small second moments
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), left, right)


def copy(tree):
    return jax.tree.map(jnp.copy, tree)


@pytest.mark.parametrize(
    "topology", ["ring", "star", "erdos_renyi:mean_neighbourhood=3", "one_peer_exponential"]
)
def test_equals_a_naive_loop_over_agents(topology):
    """One agent at a time through the contract: adapt, then combine what the neighbours sent."""
    weights = "uniform" if topology == "one_peer_exponential" else "metropolis_hastings"
    experiment = small_experiment(topology=topology, weights=weights)
    parts = build(experiment)
    algorithm = parts.algorithm
    learners = [algorithm.init(agent_key(jnp.int32(0), jnp.int32(k), jnp.int32(0))) for k in range(5)]
    for number in (1, 2, 3):
        adapted = []
        for k, learner in enumerate(learners):
            task = jax.tree.map(lambda leaf, k=k: leaf[k], parts.tasks)
            key = agent_key(jnp.int32(0), jnp.int32(k), jnp.int32(number))
            after, _, _ = act_and_adapt(
                algorithm, parts.experience, parts.environment, learner, (), task, key
            )
            adapted.append(after)
        W = parts.weights[(number - 1) % len(parts.weights)].toarray()
        learners = []
        for k, learner in enumerate(adapted):
            heard = [k, *(j for j in range(5) if j != k and W[k, j] > 0)]
            messages = jax.tree.map(
                lambda *leaves: jnp.stack(leaves), *(algorithm.message(adapted[j]) for j in heard)
            )
            learners.append(combine(algorithm, learner, messages, jnp.asarray(W[k, heard], jnp.float32)))
    population, _ = run(experiment, rounds=3)
    naive = jax.tree.map(lambda *leaves: jnp.stack(leaves)[None], *(learner.params for learner in learners))
    assert_close(params_of(population), naive, rtol=1e-3, atol=1e-4)


def test_isolated_agents_combine_nothing():
    """A population of isolated agents is as many single agents."""
    experiment = small_experiment(topology="isolated")
    population, _ = run(experiment, rounds=2)
    parts = build(experiment)
    learner = parts.algorithm.init(agent_key(jnp.int32(0), jnp.int32(3), jnp.int32(0)))
    task = jax.tree.map(lambda leaf: leaf[3], parts.tasks)
    for number in (1, 2):
        key = agent_key(jnp.int32(0), jnp.int32(3), jnp.int32(number))
        learner, _, _ = act_and_adapt(
            parts.algorithm, parts.experience, parts.environment, learner, (), task, key
        )
    assert_close(jax.tree.map(lambda leaf: leaf[0, 3], params_of(population)), learner.params)


def test_a_complete_graph_from_one_start_is_the_mean():
    """After one combination everybody holds the mean of what all adapted to."""
    experiment = small_experiment(topology="complete", initial_parameters="shared")
    population, record = run(experiment, rounds=1)
    isolated, _ = run(replace(experiment, topology="isolated"), rounds=1)
    mean = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf.mean(1, keepdims=True), leaf.shape), params_of(isolated)
    )
    assert_close(params_of(population), mean)
    # float32 rounding of parameters of size one
    assert record.consensus_distance[0, 0] < 1e-5


def test_the_mean_of_many_initial_parameters_is_everybodys():
    """As many as there are environments: 25 here, five for each agent."""
    experiment = small_experiment(initial_parameters="averaged", agents=5)
    parts = build(experiment)
    population = initial_population(parts.algorithm, experiment, parts.mailbox, parts.tasks)
    every = [
        parts.algorithm.init(agent_key(jnp.int32(0), jnp.int32(source), jnp.int32(0))).params
        for source in range(25)
    ]
    mean = jax.tree.map(lambda *leaves: jnp.broadcast_to(sum(leaves) / 25, (1, 5, *leaves[0].shape)), *every)
    assert_close(params_of(population), mean)


def test_averaging_preserves_the_mean_of_the_adapted():
    experiment = small_experiment(topology="ring")
    combined, _ = run(experiment, rounds=1)
    isolated, _ = run(replace(experiment, topology="isolated"), rounds=1)

    def mean(population):
        return jax.tree.map(lambda leaf: leaf.mean(1), params_of(population))

    assert_close(mean(combined), mean(isolated))


def test_centralised_is_one_agent_on_the_pooled_batch():
    experiment = small_experiment(agents=1, topology="isolated")
    parts = build(experiment)
    population, record = run(experiment, rounds=1)
    key = agent_key(jnp.int32(0), jnp.int32(0), jnp.int32(1))
    learner = parts.algorithm.init(agent_key(jnp.int32(0), jnp.int32(0), jnp.int32(0)))
    collect_key, adapt_key = jax.random.split(key)
    tasks = jax.tree.map(lambda leaf: leaf[0], parts.tasks)

    act = acting(parts.algorithm, learner.params)
    trajectory = parts.experience.collect(parts.environment, act, collect_key, tasks, state=()).trajectory
    assert trajectory.mask.shape == (20, 25)
    after, _ = parts.algorithm.adapt(learner, trajectory, adapt_key)
    assert_close(jax.tree.map(lambda leaf: leaf[0, 0], params_of(population)), after.params)
    assert record.agents.env_steps[0, 0, 0] == trajectory.mask.sum()


def test_seeds_in_one_program_equal_single_runs():
    batched, _ = run(small_experiment(seeds=3), rounds=2)
    for seed in range(3):
        single, _ = run(small_experiment(seed=seed), rounds=2)
        assert_close(
            jax.tree.map(lambda leaf, seed=seed: leaf[seed : seed + 1], params_of(batched)), params_of(single)
        )


@pytest.mark.parametrize("block", [1, 2, 5])
def test_blocks_change_nothing(block):
    experiment = small_experiment()
    whole, _ = run(replace(experiment, block=5))
    blocked, _ = run(replace(experiment, block=block))
    assert_close(params_of(whole), params_of(blocked))


def test_chunks_change_no_bit():
    experiment = small_experiment()
    at_once, _ = run(experiment, rounds=5)
    first, _ = run(experiment, rounds=2)
    then, _ = run(experiment, rounds=3, population=first)
    jax.tree.map(np.testing.assert_array_equal, at_once, then)


def test_one_compilation_per_shape():
    """Learning rates, weights, tasks, seeds and the number of rounds are traced."""
    chunk_program.jitted.clear_cache()
    experiment = small_experiment()
    run(experiment, rounds=1)
    run(replace(experiment, seed=4), rounds=3)
    run(replace(experiment, weights="lazy"))
    algorithm = experiment.algorithm
    run(replace(experiment, algorithm=replace(algorithm, actor_learning_rate=0.1, discount=0.5)))
    assert chunk_program.jitted._cache_size() == 1
    run(replace(experiment, algorithm=replace(algorithm, hidden=(4,))))
    assert chunk_program.jitted._cache_size() == 2


def test_a_round_is_traced_once(monkeypatch):
    traced = []

    def counted(*arguments):
        traced.append(None)
        return act_and_adapt(*arguments)

    monkeypatch.setattr(vectorised, "act_and_adapt", counted)
    experiment = small_experiment()
    run(replace(experiment, algorithm=replace(experiment.algorithm, hidden=(3, 5))))
    assert len(traced) == 1


@pytest.mark.parametrize(("agents", "width", "block"), [(5, 8, 5), (300, 64, 150), (257, 64, 229)])
def test_a_block_divides_the_agents_where_it_can(agents, width, block):
    """300 agents in blocks of 229 would leave 71 over, for which the program holds the round once more."""
    experiment = small_experiment(agents=agents, tasks=1)
    experiment = replace(experiment, algorithm=replace(experiment.algorithm, hidden=(width, width)))
    assert build(experiment).block == block


def test_adding_agents_changes_no_stream():
    few, many = start(small_experiment(agents=5)), start(small_experiment(agents=25))
    first_five = jax.tree.map(lambda leaf: leaf[:, :5], params_of(many))
    jax.tree.map(np.testing.assert_array_equal, params_of(few), first_five)


def test_agents_have_distinct_streams_also_from_shared_parameters():
    experiment = small_experiment(initial_parameters="shared", topology="isolated", tasks=1)
    before = start(experiment)
    # float32 rounding of the mean of five equal numbers
    assert float(jax.vmap(consensus_distance)(params_of(before))[0]) < 1e-6
    _, record = run(experiment, rounds=1)
    assert len({float(length) for length in record.agents.info["policy_loss"][0, 0]}) == 5


def test_independent_parameters_differ():
    assert float(jax.vmap(consensus_distance)(params_of(start(small_experiment())))[0]) > 0.1


def test_steps_are_real_transitions_only():
    _, record = run(small_experiment(), rounds=1)
    finished = record.agents.finished
    assert finished.episodes[0, 0].tolist() == [[1.0] * 5] * 5
    lengths = finished.lengths[0, 0]
    assert record.agents.env_steps[0, 0].tolist() == lengths.sum(-1).astype(int).tolist()
    assert record.agents.env_steps[0, 0].min() < 5 * 20


def test_several_episodes_are_reported_by_their_number_and_sums():
    _, record = run(small_experiment(experience=Episodes(3)), rounds=1)
    finished = record.agents.finished
    assert finished.returns.shape == (8, 1, 5, 5)
    assert (finished.episodes[0] == 3).all()
    # every step of balance earns one
    np.testing.assert_allclose(finished.returns, finished.lengths)
    assert finished.lengths[0].sum() == record.agents.env_steps[0].sum()


def test_rounds_that_share_a_record_are_summed_at_its_multiples():
    """Rounds 1-2, 3-4 and 5 in records of two, from one program and from chunks that end inside one."""
    experiment = small_experiment()
    _, single = run(experiment, rounds=5)
    _, pairs = run(experiment, rounds=5, every=2)
    for index, rounds in enumerate(([0, 1], [2, 3], [4])):
        jax.tree.map(
            # float32 sums in another order
            lambda ours, each, i=index, r=rounds: np.testing.assert_allclose(
                ours[i], each[np.array(r)].sum(0), rtol=1e-5
            ),
            pairs.agents,
            single.agents,
        )
        assert pairs.consensus_distance[index] == single.consensus_distance[rounds[-1]]
    assert pairs.agents.updates[:4, 0, 0].tolist() == [2, 2, 1, 0]
    first, _ = run(experiment, rounds=3, every=2)
    _, rest = run(experiment, rounds=2, every=2, population=first)
    assert rest.agents.updates[:3, 0, 0].tolist() == [1, 1, 0]


def test_the_agent_that_diverged_is_named():
    experiment = small_experiment(agents=25, topology="ring")
    population = start(experiment)
    poisoned = jax.tree.map(lambda leaf: leaf.at[:, 3].set(jnp.nan), population.learner.params.critic)
    learner = population.learner
    learner = learner._replace(params=learner.params._replace(critic=poisoned))
    _, record = run(experiment, rounds=2, population=population._replace(learner=learner))
    assert np.flatnonzero(~record.finite[0, 0]).tolist() == [3]
    # and in the next round its neighbours have mixed with it
    assert np.flatnonzero(~record.finite[1, 0]).tolist() == [2, 3, 4]


def test_infinite_is_not_finite_either():
    experiment = small_experiment(topology="isolated")
    population = start(experiment)
    learner = population.learner
    bias = jax.tree.map(lambda leaf: leaf.at[:, 1].set(jnp.inf), learner.params.critic)
    learner = learner._replace(params=learner.params._replace(critic=bias))
    _, record = run(experiment, rounds=1, population=population._replace(learner=learner))
    assert record.finite[0, 0].tolist() == [True, False, True, True, True]


def test_consensus_distance_equals_numpy():
    leaves = {"a": jax.random.normal(jax.random.key(0), (4, 3, 2)), "b": jnp.arange(4.0)}
    flat = np.concatenate([np.asarray(leaf).reshape(4, -1) for leaf in leaves.values()], 1)
    expected = np.sqrt(((flat - flat.mean(0)) ** 2).sum(1).mean())
    np.testing.assert_allclose(consensus_distance(leaves), expected, rtol=1e-6)


def test_in_blocks_equals_vmap_for_every_size():
    numbers = jnp.arange(7.0)
    for block in range(1, 9):
        np.testing.assert_array_equal(in_blocks(jnp.square, block)(numbers), numbers**2)


def test_a_record_remembers_a_round_that_was_not_finite():
    report = AgentRound(jnp.zeros((1, 2)), (), jnp.zeros((1, 2)), {})

    def record(*finite):
        return RoundRecord(report, jnp.zeros(1), jnp.array([finite]))

    rows = no_records(record(True, True), capacity=2)
    for each in (record(False, True), record(True, True)):
        rows = add_record(rows, each, 1)
    assert rows.finite.tolist() == [[[True, True]], [[False, True]]]
