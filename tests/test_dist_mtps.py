"""Dist-MTPS: its policy searches, its step of ADMM, and cycles that visit agents one after the other."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.algorithms import DistMTPS
from gossamer.algorithms.dist_mtps import Factors, Searched
from gossamer.environments import CartPoleBalance
from gossamer.errors import InputError
from gossamer.experience import Episodes, Steps
from gossamer.experiment import Experiment
from gossamer.mixing import metropolis_hastings, weigh
from gossamer.recipes import cartpole_balance, dist_mtps
from gossamer.runtimes.build import build
from gossamer.runtimes.cycle import CycleMailbox
from gossamer.runtimes.lockstep import VectorisedRuntime
from gossamer.runtimes.mailbox import Delivery
from gossamer.runtimes.rounds import act_and_adapt, agent_key
from gossamer.schedules import Cycle, Links, Schedule
from gossamer.topologies import named
from gossamer.types import Box, Spaces, Trajectory

SPACES = Spaces(observation_size=4, action=Box(size=2, bound=10.0))
CYCLE = Schedule(rule="cycle")


def search_by(neighbours=2, **choices):
    return DistMTPS(**choices).bind(SPACES, neighbours)


def links_of(spec, agents):
    return Links.of(weigh(named(spec, agents), metropolis_hastings))


def population(algorithm, agents, seed=0):
    """Learners with models of losses as a search leaves them."""
    keys = jax.random.split(jax.random.key(seed), agents)
    learners = jax.vmap(algorithm.init)(keys)
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(agents, 4, 4))
    curvature = roots @ roots.transpose(0, 2, 1) + 0.5 * np.eye(4)
    model = learners.optimiser._replace(
        target=jnp.asarray(rng.normal(size=(agents, 4, 2)), jnp.float32),
        curvature=jnp.asarray(curvature, jnp.float32),
    )
    return learners._replace(optimiser=model)


@jax.jit
def repeat(mailbox, algorithm, learners, now, count):
    return jax.lax.fori_loop(0, count, lambda _, each: mailbox.combine(algorithm, each, now), learners)


def cycles(algorithm, learners, links, count=1):
    now = Delivery.of(Cycle(CYCLE, links).wave())
    return repeat(CycleMailbox.of(links), algorithm, learners, now, count)


def naive_cycle(algorithm, learners, links):
    """Wei and Ozdaglar's sweep in numpy: bases and multipliers by edge, each minimum by a dense linear solve."""
    target, curvature = (np.asarray(leaf, float) for leaf in learners.optimiser[:2])
    s, bases = np.asarray(learners.params.coefficients, float), np.asarray(learners.params.basis, float)
    agents, (rows, columns, latent) = len(bases), bases.shape[1:]
    multiplier = {(j, i): np.zeros((rows, columns, latent)) for i in range(agents) for j in range(i)}
    neighbours = {i: links.sender[links.receiver == i].tolist() for i in range(agents)}
    mu, rho = algorithm.basis_regulariser, algorithm.penalty

    def sweep():
        for i in range(agents):
            before, after = ([j for j in neighbours[i] if (j < i) == earlier] for earlier in (True, False))
            for action in range(columns):
                # unknown: L[:, action, :] flattened; ½‖α − L s‖²_Γ has the Hessian Γ ⊗ s sᵀ
                hessian = np.kron(curvature[i], np.outer(s[i], s[i]))
                hessian += (mu + rho * len(neighbours[i])) * np.eye(rows * latent)
                right = np.outer(curvature[i] @ target[i, :, action], s[i]).ravel()
                for j in before:
                    right += (rho * bases[j] - multiplier[j, i])[:, action].ravel()
                for j in after:
                    right += (rho * bases[j] + multiplier[i, j])[:, action].ravel()
                bases[i][:, action] = np.linalg.solve(hessian, right).reshape(rows, latent)
            for j in before:
                multiplier[j, i] -= rho * (bases[j] - bases[i])

    return bases, sweep


@pytest.mark.parametrize("topology", ["ring", "complete"])
def test_cycles_are_those_of_a_naive_loop(topology):
    links = links_of(topology, 6)
    algorithm = DistMTPS(latent=3).bind(SPACES, neighbours=int(np.bincount(links.receiver).max()))
    learners = population(algorithm, 6)
    bases, sweep = naive_cycle(algorithm, learners, links)
    for _ in range(4):
        sweep()
        learners = cycles(algorithm, learners, links)
        # float32 against float64, condition numbers of some tens
        np.testing.assert_allclose(learners.params.basis, bases, rtol=2e-4, atol=2e-5)


def test_cycles_find_the_minimum_that_one_would_find_with_all_data():
    """Agents end with one basis: that of min_L Σ_i ½‖α_i − L s_i‖²_{Γ_i} + ½ N μ ‖L‖²."""
    algorithm, links = search_by(latent=2, basis_regulariser=0.1), links_of("ring", 5)
    learners = population(algorithm, 5)
    learners = cycles(algorithm, learners, links, 300)
    target, curvature = (np.asarray(leaf, float) for leaf in learners.optimiser[:2])
    s = np.asarray(learners.params.coefficients, float)
    hessian = sum(np.kron(curvature[i], np.outer(s[i], s[i])) for i in range(5)) + 0.5 * np.eye(8)
    for action in range(2):
        right = sum(np.outer(curvature[i] @ target[i, :, action], s[i]).ravel() for i in range(5))
        expected = np.linalg.solve(hessian, right).reshape(4, 2)
        for basis in np.asarray(learners.params.basis):
            # rounding of float32 is carried on by the multipliers of 300 cycles
            np.testing.assert_allclose(basis[:, action], expected, rtol=2e-3, atol=2e-4)


def test_who_is_not_visited_stays_as_it_was():
    algorithm, links = search_by(), links_of("ring", 4)
    learners = population(algorithm, 4)
    wave = Cycle(replace(CYCLE, absences=((2, 1.0, None),)), links).wave()
    after = repeat(CycleMailbox.of(links), algorithm, learners, Delivery.of(wave), 1)
    moved = np.any(np.asarray(after.params.basis != learners.params.basis), axis=(1, 2, 3))
    assert moved.tolist() == [True, True, False, False]


def test_an_agent_alone_takes_its_own_minimum():
    algorithm, links = search_by(0, basis_regulariser=1e-6), links_of("isolated", 1)
    learners = population(algorithm, 1)
    after = cycles(algorithm, learners, links)
    theta = np.einsum("oak,k->oa", after.params.basis[0], after.params.coefficients[0])
    # the regulariser is a millionth of the curvature
    np.testing.assert_allclose(theta, learners.optimiser.target[0], rtol=1e-3, atol=1e-4)


def episodes(algorithm, params, env=400, time=6, seed=0):
    """Episodes of a task whose reward says how good an action was, at states drawn at random."""
    observe, act = jax.random.split(jax.random.key(seed))
    seen = jax.random.normal(observe, (time, env, 4))
    action, log_prob = jax.vmap(jax.vmap(algorithm.act, in_axes=(None, 0, 0)), in_axes=(None, 0, 0))(
        params, jax.random.split(act, (time, env)), seen
    )
    best = seen @ jnp.array([[1.0, 0.0], [0.0, -1.0], [0.5, 0.5], [0.0, 0.0]])
    last = jnp.broadcast_to(jnp.arange(time)[:, None] == time - 1, (time, env))
    return Trajectory.padding(time, env, 4, 2)._replace(
        observation=seen,
        action=action,
        log_prob=log_prob,
        reward=-jnp.sum((action - best) ** 2, axis=-1),
        terminated=last,
        mask=jnp.ones((time, env), bool),
    )


def test_reinforce_goes_along_the_likelihood_ratio_gradient():
    """α − θ = η · ∇ Σ weight ln π(a|x) Â, by automatic differentiation of the policy itself."""
    algorithm = search_by(step_size=0.3, exploration=0.7)
    learner = algorithm.init(jax.random.key(1))
    trajectory = episodes(algorithm, learner.params, env=20)
    advantage = algorithm.estimate(learner.params, trajectory).advantage

    def surrogate(theta):
        one = Factors(theta[..., None], jnp.ones(1))
        return jnp.mean(algorithm.policy(one, trajectory.observation).log_prob(trajectory.action) * advantage)

    theta = learner.params.basis @ learner.params.coefficients
    found, _ = algorithm.search_task(learner, trajectory)
    np.testing.assert_allclose(found.target, theta + 0.3 * jax.grad(surrogate)(theta), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.curvature, np.eye(4))


def test_power_is_a_weighted_regression_of_actions_on_states():
    algorithm = search_by(search="power", exploration=0.5, ridge=1e-6)
    learner = algorithm.init(jax.random.key(2))
    trajectory = episodes(algorithm, learner.params, env=50)
    target = np.asarray(algorithm.estimate(learner.params, trajectory).target, float).ravel()
    seen = np.asarray(trajectory.observation, float).reshape(-1, 4)
    action = np.asarray(trajectory.action, float).reshape(-1, 2)
    weight = np.sqrt((target - target.min()) / (seen**2).sum(1))[:, None]
    expected = np.linalg.lstsq(weight * seen, weight * action, rcond=None)[0]
    found, _ = algorithm.search_task(learner, trajectory)
    # ridge of a millionth, sums in float32
    np.testing.assert_allclose(found.target, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("search", ["reinforce", "power"])
def test_searches_improve_the_policy(search):
    algorithm = search_by(
        0, search=search, step_size=0.05, exploration=0.5, latent=4, coefficient_regulariser=1e-6
    )
    learner = algorithm.init(jax.random.key(3))
    links = links_of("isolated", 1)
    rewards = []
    for seed in range(40):
        trajectory = episodes(algorithm, learner.params, env=50, seed=seed)
        rewards.append(float(trajectory.reward.mean()))
        learner, _ = algorithm.adapt(learner, trajectory, jax.random.key(0))
        stacked = cycles(algorithm, jax.tree.map(lambda leaf: leaf[None], learner), links)
        learner = jax.tree.map(lambda leaf: leaf[0], stacked)
    # noise of 0.5 costs 0.5 (REINFORCE) or 2 (PoWER, four components of variance one); the start costs several
    assert np.mean(rewards[-5:]) > 0.6 * np.mean(rewards[:5])
    assert np.mean(rewards[-5:]) > (-1.0 if search == "reinforce" else -3.0)


def test_coefficients_fit_the_search_with_the_basis_held_fixed():
    algorithm = search_by(latent=3, coefficient_regulariser=0.2)
    learner = jax.tree.map(lambda leaf: leaf[0], population(algorithm, 1))
    model = learner.optimiser

    def loss(s):
        away = model.target - learner.params.basis @ s
        return 0.5 * jnp.einsum("oa,op,pa->", away, model.curvature, away) + 0.1 * s @ s

    after = algorithm.fit(learner, Searched(model.target, model.curvature))
    np.testing.assert_allclose(jax.grad(loss)(after.params.coefficients), np.zeros(3), atol=1e-4)
    np.testing.assert_array_equal(after.params.basis, learner.params.basis)


def test_the_baseline_knows_nothing_of_its_own_episode():
    algorithm = search_by(discount=1.0)
    one = Trajectory.padding(3, 2, 4, 2)._replace(
        reward=jnp.array([[1.0, 5.0], [1.0, 0.0], [1.0, 0.0]]),
        terminated=jnp.array([[False, True], [False, False], [True, False]]),
        mask=jnp.array([[True, True], [True, False], [True, False]]),
    )
    advantage = algorithm.estimate(algorithm.init(jax.random.key(0)).params, one).advantage
    np.testing.assert_allclose(advantage, [[3 - 5, 5 - 3], [2 - 0, 0 - 2], [1 - 0, 0 - 1]])


# --- the schedule -------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    agents=st.integers(2, 9),
    absences=st.dictionaries(
        st.integers(0, 8), st.tuples(st.integers(0, 20), st.integers(1, 10) | st.none()), max_size=3
    ),
)
def test_agents_are_visited_in_the_order_of_a_token(agents, absences):
    """The turns of all waves are 0, 1, ..., N − 1, 0, 1, ...; nobody acts while away, or adapts in an open cycle."""
    known = tuple(
        (agent, float(leaves), None if stays is None else float(leaves + stays))
        for agent, (leaves, stays) in absences.items()
        if agent < agents
    )
    if len([1 for entry in known if entry[2] is None]) == agents:
        return
    cycle = Cycle(Schedule(rule="cycle", absences=known), links_of("complete", agents))
    turns, adapted = [], np.zeros(agents, int)
    for number in range(1, 30):
        wave = cycle.wave()
        away = {who for who, leaves, back in known if leaves <= number and (back is None or number < back)}
        assert wave.time == number
        assert not (wave.adapts | wave.combines)[list(away)].any()
        assert not wave.adapts.any() or len(turns) % agents == 0
        turns += np.flatnonzero(wave.combines).tolist()
        adapted += wave.adapts
        np.testing.assert_array_equal(wave.version, adapted)
        assert (wave.age >= 0).sum() == wave.sent.sum() == wave.combines.sum() * (agents - 1)
    assert turns == [number % agents for number in range(len(turns))]
    if not known:
        assert len(turns) == 29 * agents


def test_one_failed_agent_stops_everybody():
    cycle = Cycle(Schedule(rule="cycle", absences=((2, 5.0, None),)), links_of("ring", 4))
    waves = [cycle.wave() for _ in range(20)]
    assert [int(wave.adapts.sum()) for wave in waves[:6]] == [4, 4, 4, 4, 3, 0]
    assert not any(wave.adapts.any() or wave.combines.any() for wave in waves[5:])


def test_skipping_is_simulating():
    schedule, links = Schedule(rule="cycle", absences=((1, 3.0, 6.0),)), links_of("ring", 3)
    simulated, skipped = Cycle(schedule, links), Cycle(schedule, links)
    for _ in range(7):
        simulated.wave()
    skipped.skip(7)
    for left, right in zip(simulated.wave(), skipped.wave(), strict=True):
        np.testing.assert_array_equal(left, right)


# --- runs ---------------------------------------------------------------------------------------------------------


def small(**changes):
    environment = CartPoleBalance(max_steps=20)
    experiment = Experiment(
        environment=environment,
        algorithm=DistMTPS(),
        experience=Episodes(3),
        tasks=4,
        agents=4,
        topology="ring",
        schedule=CYCLE,
        rounds=6,
    )
    return replace(experiment, **changes)


def run(experiment, rounds, every=1):
    parts = build(experiment)
    runtime = VectorisedRuntime(experiment, parts)
    population, reports = runtime.advance(runtime.start(), rounds, every)
    return parts, population, reports


def test_a_round_is_collecting_in_parallel_and_then_a_cycle():
    experiment = small()
    parts, population, _ = run(experiment, rounds=2)
    learners = jax.tree.map(lambda leaf: leaf[0], VectorisedRuntime(experiment, parts).start().learner)

    @jax.jit
    def alone(learner, tasks, agent, number):
        key = agent_key(jnp.asarray(0), agent, number)
        return act_and_adapt(
            parts.algorithm, experiment.experience, experiment.environment, learner, (), tasks, key
        )[0]

    for number in (1, 2):
        for agent in range(4):
            tasks = jax.tree.map(lambda leaf, agent=agent: leaf[agent], parts.tasks)
            before = jax.tree.map(lambda leaf, agent=agent: leaf[agent], learners)
            after = alone(before, tasks, agent, number)
            learners = jax.tree.map(lambda leaf, new, agent=agent: leaf.at[agent].set(new), learners, after)
        learners = cycles(parts.algorithm, learners, parts.links)
    # the same operations in other programs: float32 rounding, through two linear solves each round
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x[0], y, rtol=1e-3, atol=1e-4), population.learner, learners
    )


def test_nobody_learns_while_one_is_away_and_all_go_on_afterwards():
    experiment = small(schedule=replace(CYCLE, absences=((1, 3.0, 5.0),)))
    _, _, reports = run(experiment, rounds=6)
    steps = [int(report.record.agents.env_steps.sum()) for report in reports]
    assert steps[3] == steps[4] == 0
    assert min(steps[:3] + steps[5:]) > 0
    assert [int(report.traffic.sent[0]) for report in reports] == [8, 8, 2, 0, 6, 8]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schedule": Schedule()}, "DistMTPS takes cycle"),
        ({"topology": "star"}, "agents 1 and 2 are not linked both ways"),
        ({"topology": "directed_ring"}, "not linked both ways"),
        ({"topology": "one_peer_exponential"}, "2 phases"),
        ({"experience": Steps(5)}, "use Episodes"),
        ({"weights": "uniform"}, "weights is 'uniform'"),
        ({"runtime": "threads"}, "DistMTPS runs in vectorised only"),
        ({"schedule": replace(CYCLE, absences=((7, 1.0, None),))}, "among 0 to 3"),
    ],
)
def test_what_does_not_fit_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        build(small(**changes))


@pytest.mark.parametrize("search", ["reinforce", "power"])
def test_returns_that_are_all_the_same_say_nothing_and_break_nothing(search):
    algorithm = search_by(search=search, discount=0.0)
    learner = algorithm.init(jax.random.key(4))
    trajectory = episodes(algorithm, learner.params, env=5)._replace(reward=jnp.ones((6, 5)))
    found, _ = algorithm.search_task(learner, trajectory)
    assert bool(jnp.isfinite(found.target).all() & jnp.isfinite(found.curvature).all())


def test_what_a_cycle_makes_of_finite_messages_is_looked_at_too():
    """A step so large that coefficients overflow: the round that does it is the round that says so."""
    experiment = small(algorithm=replace(small().algorithm, step_size=1e38, exploration=1e-3))
    _, _, reports = run(experiment, rounds=1)
    assert not reports[0].record.finite.all()


def test_padding_teaches_nothing():
    algorithm = search_by(search="power")
    learner = algorithm.init(jax.random.key(5))
    whole = episodes(algorithm, learner.params, env=4, time=6)
    longer = jax.tree.map(
        lambda leaf: (
            jnp.concatenate([leaf, (7 * jnp.ones_like(leaf[:2])).astype(leaf.dtype)])
            if leaf.ndim > 1
            else leaf
        ),
        whole,
    )._replace(mask=jnp.concatenate([whole.mask, jnp.zeros((2, 4), bool)]))
    for search in ("reinforce", "power"):
        one = search_by(search=search)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
            one.search_task(learner, whole)[0],
            one.search_task(learner, longer)[0],
        )


@pytest.mark.parametrize(
    "wrong", [{"latent": 0}, {"penalty": 0.0}, {"basis_regulariser": 0.0}, {"ridge": 0.0}, {"discount": 1.1}]
)
def test_hyper_parameters_have_ranges(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=name):
        DistMTPS(**wrong)


def test_a_mean_of_initial_parameters_is_not_for_a_cycle():
    with pytest.raises(InputError, match="averages nothing"):
        build(small(initial_parameters="averaged"))


def test_averaging_algorithms_have_no_cycle():
    with pytest.raises(InputError, match="SiAC takes one of most_recent"):
        build(replace(cartpole_balance(), topology="ring", schedule=CYCLE))


@pytest.mark.parametrize(
    "changes", [{"link_failure": 0.1}, {"latency": "constant:value=1"}, {"in_flight": 2}]
)
def test_only_absences_depart_from_a_cycle(changes):
    with pytest.raises(InputError, match="only absences may depart"):
        Schedule(rule="cycle", **changes)


def test_a_letter_is_counted_by_what_one_link_carries():
    parts = build(small())
    assert parts.message_bytes == 2 * 4 * 4 * 1 * 2  # a basis and one multiplier, [4, 1, 2] of float32


@pytest.mark.parametrize("search", ["reinforce", "power"])
def test_recipes_have_the_best_hyper_parameters_of_the_recorded_grid(search):
    path = Path(__file__).parents[1] / "benchmarks" / "results" / "dist_mtps.json"
    best = json.loads(path.read_text())["searches"][search][0]
    algorithm = dist_mtps(cartpole_balance(), search).algorithm
    tuned = {name: value for name, value in best.items() if hasattr(algorithm, name)}
    assert len(tuned) == 5
    assert {name: getattr(algorithm, name) for name in tuned} == tuned
