"""REINFORCE against the book: the gradient of an expectation, and a diffusion step by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer import Experiment, train
from gossamer.algorithms import Reinforce, combine
from gossamer.environments import Acrobot, CartPoleBalance
from gossamer.errors import InputError
from gossamer.experience import Episodes
from gossamer.runs.folder import read_metrics
from gossamer.runtimes.build import build
from gossamer.types import Box, Discrete, Spaces, Trajectory
from small import rebound

KEY = jax.random.key(0)
PLAIN = Reinforce(hidden=(8,), baseline="none", entropy_coefficient=0.0).bind(Spaces(3, Discrete(4)))


def bandit(action, reward, seen):
    """One episode of one step."""
    yes = jnp.ones((1, 1), bool)
    return Trajectory.padding(1, 1)._replace(
        observation=seen[None, None],
        next_observation=jnp.zeros((1, 1, 3)),
        action=jnp.full((1, 1), action),
        reward=jnp.full((1, 1), reward),
        terminated=yes,
        mask=yes,
    )


def test_its_mean_over_actions_is_the_gradient_of_the_expected_return():
    learner, seen, reward = PLAIN.init(KEY), jnp.array([0.3, -1.0, 2.0]), np.array([1.0, -2.0, 0.5, 3.0])

    def expected_return(params):
        return jax.nn.softmax(PLAIN.policy(params, seen).logits) @ reward

    probability = jax.nn.softmax(PLAIN.policy(learner.params, seen).logits)
    each = [PLAIN.gradient(learner, bandit(a, reward[a], seen), KEY)[0] for a in range(4)]
    mean = jax.tree.map(
        lambda *leaves: sum(p * leaf for p, leaf in zip(probability, leaves, strict=True)), *each
    )
    # optimisers descend: the sign is the other one; float32 sums of the same terms
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, -y, rtol=1e-4, atol=1e-6),
        mean,
        jax.grad(expected_return)(learner.params),
    )


def episodes(lengths, horizon=5):
    """Of the given lengths, one column each, with random contents; what stands in the padding must not count."""
    keys, env = jax.random.split(jax.random.key(1), 3), len(lengths)
    time, lengths = jnp.arange(horizon)[:, None], jnp.array(lengths)[None]
    return Trajectory.padding(horizon, env)._replace(
        observation=jax.random.normal(keys[0], (horizon, env, 3)),
        next_observation=jnp.zeros((horizon, env, 3)),
        action=jax.random.randint(keys[1], (horizon, env), 0, 4),
        reward=jax.random.normal(keys[2], (horizon, env)),
        terminated=time == lengths - 1,
        mask=time < lengths,
    )


@pytest.mark.parametrize("baseline", ["none", "others"])
def test_gradient_against_a_loop(baseline):
    lengths, reinforce = (5, 2, 3), rebound(PLAIN, baseline=baseline, discount=0.9, reward_scale=2.0)
    learner, played = reinforce.init(KEY), episodes((5, 2, 3))
    to_go = np.zeros((5, 3))
    for e, length in enumerate(lengths):
        for t in range(length):
            to_go[t, e] = sum(0.9 ** (j - t) * 2.0 * float(played.reward[j, e]) for j in range(t, length))
    total = jax.tree.map(jnp.zeros_like, learner.params)
    for e, length in enumerate(lengths):
        for t in range(length):
            others = np.mean([to_go[t, o] for o in range(3) if o != e]) if baseline == "others" else 0.0

            def log_prob(params, t=t, e=e):
                return reinforce.policy(params, played.observation[t, e]).log_prob(played.action[t, e])

            score = jax.grad(log_prob)(learner.params)
            total = jax.tree.map(lambda x, y, a=to_go[t, e] - others: x - a * y / sum(lengths), total, score)
    gradient, _ = reinforce.gradient(learner, played, KEY)
    # float32 sums of the same terms in another order
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), gradient, total)


def test_a_diffusion_step_is_5a_and_5b():
    beta, plain = 0.1, rebound(PLAIN, optimiser="sgd", learning_rate=0.1)
    learners = [plain.init(jax.random.key(agent)) for agent in range(3)]
    adapted = [plain.adapt(learner, episodes((4, 5)), KEY)[0] for learner in learners]
    intermediate = [
        jax.tree.map(lambda w, g: w - beta * g, each.params, plain.gradient(each, episodes((4, 5)), KEY)[0])
        for each in learners
    ]
    weights = jnp.array([0.5, 0.3, 0.2])
    messages = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(plain.message(each) for each in adapted))
    combined = combine(plain, adapted[0], messages, weights).params
    by_hand = jax.tree.map(lambda a, b, c: 0.5 * a + 0.3 * b + 0.2 * c, *intermediate)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), combined, by_hand)


def test_agents_that_diffuse_policy_gradients_learn(tmp_path):
    environment = CartPoleBalance(max_steps=60)
    reinforce = Reinforce(hidden=(16, 16), learning_rate=0.01)
    experiment = Experiment(
        environment, reinforce, Episodes(8), tasks=4, agents=4, topology="ring", rounds=60
    )
    rows = read_metrics(train(experiment, tmp_path / "run") / "metrics.jsonl")
    returns = [row["episodic_return"] for row in rows]
    # of seeds 0 to 4 each begins at 24 to 26 steps upright and ends at 57 to 60 of 60
    assert np.mean(returns[:3]) < 30
    assert np.mean(returns[-5:]) > 50


class Unbounded(CartPoleBalance):
    """A force without an end."""

    @property
    def action_space(self):
        return Box(1, np.inf)


def test_it_needs_bounded_or_discrete_actions():
    reinforce = Reinforce()
    acrobot = Experiment(Acrobot(), reinforce, Episodes(1), agents=1, tasks=1, topology="isolated")
    build(acrobot)
    with pytest.raises(
        InputError,
        match=r"Reinforce needs bounded or discrete actions and the environment has Box\(.*inf.*use A2C",
    ):
        build(replace(acrobot, environment=Unbounded()))


@pytest.mark.parametrize(
    "changes", [{"hidden": ()}, {"learning_rate": 0.0}, {"discount": 1.1}, {"reward_scale": -1.0}], ids=str
)
def test_bad_choices_are_refused(changes):
    (name,) = changes
    with pytest.raises(InputError, match=name):
        Reinforce(**changes)
