"""What was trained is used: the policy of one agent, taken from its run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer import Experiment, InputError, load_policy, train
from gossamer.algorithms import A2C
from gossamer.environments import Acrobot
from gossamer.experience import Steps
from gossamer.runs.restore import restore_population
from small import small_experiment


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(small_experiment(rounds=2, seeds=2, seed=3), tmp_path_factory.mktemp("policy") / "run")


def test_it_acts_as_the_agent_of_that_seed_does(run):
    _, parts, population = restore_population(run)
    seen = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    params = jax.tree.map(lambda leaf: leaf[1, 2], population.learner.params)
    expected = np.stack([parts.algorithm.act_greedily(params, jnp.asarray(each)) for each in seen])
    policy = load_policy(run, agent=2, seed=4)
    # compiled for a batch, it sums in another order
    np.testing.assert_allclose(policy.act(seen), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(policy.act(seen[0]), expected[0], rtol=1e-5, atol=1e-6)
    assert policy.act(seen.reshape(7, 1, 4)).shape == (7, 1, 1)
    others = [load_policy(run, 1, 4), load_policy(run, 2)]
    assert all(np.abs(other.act(seen) - expected).max() > 1e-3 for other in others)


def test_sampled_actions_follow_the_key_and_keep_to_the_bound(run):
    policy, seen = load_policy(run), np.zeros((500, 4), np.float32)
    first, again, other = (policy.act(seen, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0
    assert first.std() > 0
    assert np.abs(first).max() <= policy.spaces.action.bound
    wide = policy.act(1e6 * np.ones((2, 4), np.float32), jax.random.key(0))
    assert np.abs(wide).max() <= policy.spaces.action.bound


def test_discrete_actions_are_numbers(tmp_path):
    environment = Acrobot(max_steps=20)
    a2c = A2C(hidden=(8,))
    small = Experiment(environment, a2c, Steps(5), tasks=2, agents=2, topology="complete", rounds=2)
    policy = load_policy(train(small, tmp_path / "run"), agent=1)
    action = policy.act(np.zeros((3, 6), np.float32))
    assert action.shape == (3,)
    assert set(action.tolist()) <= {0, 1, 2}
    assert int(policy.act(np.zeros(6, np.float32))) in (0, 1, 2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"agent": 5}, "agent is 5"),
        ({"agent": -1}, "agent is -1"),
        ({"seed": 2}, "seed is 2"),
        ({"best": True}, "best"),
    ],
)
def test_what_is_not_there_is_refused(run, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        load_policy(run, **arguments)


def test_another_environments_observation_is_refused(run):
    with pytest.raises(InputError, match=r"shape \(6,\); its last axis must have 4 components"):
        load_policy(run).act(np.zeros(6))
