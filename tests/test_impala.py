"""IMPALA against A2C on policy, against numpy off policy, and against actors that lag behind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.algorithms import A2C, Impala, acting
from gossamer.environments import spaces_of
from gossamer.errors import InputError
from gossamer.experience import Steps
from gossamer.types import Box, Discrete, Frames, Spaces, Trajectory
from small import rebound
from test_a2c import batch, forward
from test_learning import TargetChoice
from test_returns import naive_vtrace

SEPARATE = Impala(hidden=(8, 8), network="separate")
DISCRETE, GAUSSIAN = SEPARATE.bind(Spaces(3, Discrete(4))), SEPARATE.bind(Spaces(3, Box(2, 1.0)))
KEY = jax.random.key(0)
by_actions = pytest.mark.parametrize("impala", [DISCRETE, GAUSSIAN], ids=["categorical", "gaussian"])


def on_policy(algorithm, params, trajectory):
    """The trajectory as if these parameters had collected it."""
    policy = algorithm.policy(params, trajectory.observation)
    return trajectory._replace(log_prob=policy.log_prob(trajectory.action))


def off_policy(algorithm):
    """A trajectory as if a policy of another opinion had collected it; within an episode steps follow each other."""
    trajectory = on_policy(algorithm, algorithm.init(KEY).params, batch(algorithm))
    ended = (trajectory.terminated | trajectory.truncated).at[-1].set(True)[..., None]
    following = jnp.where(ended, trajectory.next_observation, jnp.roll(trajectory.observation, -1, axis=0))
    opinion = jax.random.normal(jax.random.key(7), trajectory.log_prob.shape)
    return trajectory._replace(next_observation=following, log_prob=trajectory.log_prob + opinion)


@by_actions
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_on_policy_it_is_a2c(impala, reduction):
    """Impala's c_v weighs half the squared error; A2C averages over the transitions, here 18."""
    a2c = A2C(hidden=(8, 8), value_coefficient=0.4, entropy_coefficient=0.2, discount=0.9).bind(impala.spaces)
    ours = rebound(
        impala,
        reduction=reduction,
        reward_clip=0.0,
        value_coefficient=0.8,
        entropy_coefficient=0.2,
        discount=0.9,
    )
    learner = a2c.init(KEY)
    trajectory = on_policy(a2c, learner.params, batch(a2c))
    expected, info = a2c.gradient(learner, trajectory, KEY)
    gradient, our_info = ours.gradient(ours.init(KEY), trajectory, KEY)
    scale = 18.0 if reduction == "sum" else 1.0
    # float32: the same sums in another order
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, scale * y, rtol=1e-4, atol=1e-5 * scale),
        (gradient.network, gradient.log_scale),
        (expected.network, expected.log_scale),
    )
    for part in ("policy_loss", "value_loss", "entropy"):
        np.testing.assert_allclose(our_info[part], info[part], rtol=1e-4)
    np.testing.assert_allclose(our_info["gradient_norm"], scale * info["gradient_norm"], rtol=1e-4)


@by_actions
def test_estimates_are_vtraces_of_clipped_rewards(impala):
    impala = rebound(impala, discount=0.9, rho_bar=1.5, c_bar=0.8, reward_clip=0.5)
    params, trajectory = impala.init(KEY).params, off_policy(impala)
    estimate = impala.estimate(params, trajectory)
    value, following = (
        np.float64(impala.value(params, seen))
        for seen in (trajectory.observation, trajectory.next_observation)
    )
    log_prob = impala.policy(params, trajectory.observation).log_prob(trajectory.action)
    ratio = np.exp(np.float64(log_prob) - np.float64(trajectory.log_prob))
    assert ratio.min() < 0.8
    assert ratio.max() > 1.5  # so that both thresholds matter
    reward = np.clip(np.float64(trajectory.reward), -0.5, 0.5)
    columns = (reward, value, following, trajectory.terminated, trajectory.truncated, ratio)
    for env in range(3):
        facts = (np.asarray(each)[:, env] for each in columns)
        targets, advantages = naive_vtrace(*facts, 0.9, 1.5, 0.8)
        np.testing.assert_allclose(estimate.target[:, env], targets, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(estimate.advantage[:, env], advantages, rtol=1e-4, atol=1e-5)


def naive_loss(impala, layers, log_scale, trajectory, advantage, target):
    """The loss of the docstring, in double precision."""
    outputs, value = forward(impala, layers, np.float64(trajectory.observation))
    if isinstance(impala.spaces.action, Discrete):
        log_probs = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
        log_prob = np.take_along_axis(log_probs, np.asarray(trajectory.action)[..., None], -1)[..., 0]
        entropy = -(np.exp(log_probs) * log_probs).sum(-1)
    else:
        z = (np.float64(trajectory.action) - outputs) / np.exp(log_scale)
        log_prob = (-0.5 * z**2 - log_scale - 0.5 * np.log(2 * np.pi)).sum(-1)
        entropy = (0.5 * np.log(2 * np.pi * np.e) + log_scale).sum()
    loss = -log_prob * advantage + impala.value_coefficient * (value - target) ** 2 / 2
    return np.sum(loss - impala.entropy_coefficient * entropy)


@by_actions
def test_off_policy_the_gradient_equals_finite_differences_of_the_loss_by_hand(impala):
    """Advantages and targets stand still while weights move, and behaviour is nobody's gradient."""
    impala = rebound(impala, entropy_coefficient=0.3, value_coefficient=0.7)
    learner, trajectory = impala.init(KEY), off_policy(impala)
    estimate = jax.tree.map(np.float64, impala.estimate(learner.params, trajectory))
    gradient, _ = impala.gradient(learner, trajectory, KEY)
    start = jax.tree.map(np.float64, (learner.params.network["params"], learner.params.log_scale))
    leaves, structure = jax.tree.flatten(start)
    edges = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def loss(vector):
        pieces = (
            piece.reshape(leaf.shape) for piece, leaf in zip(np.split(vector, edges), leaves, strict=True)
        )
        return naive_loss(impala, *jax.tree.unflatten(structure, pieces), trajectory, *estimate)

    flat = np.concatenate([leaf.ravel() for leaf in leaves])
    differences = [(loss(flat + step) - loss(flat - step)) / 2e-5 for step in 1e-5 * np.eye(len(flat))]
    ours = jax.tree.leaves((gradient.network["params"], gradient.log_scale))
    # float32 sums over 18 transitions of size one
    np.testing.assert_allclose(
        np.concatenate([leaf.ravel() for leaf in ours]), differences, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_padding_counts_nothing(reduction):
    impala = rebound(GAUSSIAN, reduction=reduction)
    trajectory = off_policy(impala)
    mask = trajectory.mask.at[3:, 1].set(False)
    trajectory = trajectory._replace(mask=mask, truncated=trajectory.truncated.at[2, 1].set(True))
    noisy = trajectory._replace(action=jnp.where(mask[..., None], trajectory.action, 100.0))
    ours, theirs = (impala.gradient(impala.init(KEY), each, KEY)[0] for each in (trajectory, noisy))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), ours, theirs)


def test_rmsprop_is_tensorflows_with_a_rate_that_falls_to_nothing():
    """ms ← 0.9 ms + 0.1 g² from 1, m ← 0.5 m + rate · g / √(ms + 0.01), w ← w − m."""
    impala = rebound(
        DISCRETE, max_gradient_norm=0.0, learning_rate=0.1, decay=0.9, momentum=0.5, decay_updates=4
    )
    learner = impala.init(KEY)
    gradient, _ = impala.gradient(learner, off_policy(impala), KEY)
    kernel = np.float64(learner.params.network["params"]["policy_head"]["kernel"])
    g = np.float64(gradient.network["params"]["policy_head"]["kernel"])
    mean_square, step = 1.0, 0.0
    for update in range(6):
        mean_square = 0.9 * mean_square + 0.1 * g**2
        step = 0.5 * step + max(0.1 * (1 - update / 4), 0) * g / np.sqrt(mean_square + 0.01)
        kernel = kernel - step
        learner = impala.apply(learner, gradient)
        ours = learner.params.network["params"]["policy_head"]["kernel"]
        # float32, steps of a tenth
        np.testing.assert_allclose(ours, kernel, rtol=1e-5, atol=1e-6)


def test_after_the_last_update_of_its_schedule_nothing_changes():
    impala = rebound(DISCRETE, decay_updates=1)
    learner = impala.init(KEY)
    once, _ = impala.adapt(learner, off_policy(impala), KEY)
    twice, _ = impala.adapt(once, off_policy(impala), KEY)
    jax.tree.map(np.testing.assert_array_equal, twice.params, once.params)
    assert not np.array_equal(*(jax.tree.leaves(each.params)[0] for each in (learner, once)))


@pytest.mark.parametrize(("limit", "longest"), [(0.5, 0.5), (2.0, 2.0), (0.0, None)])
def test_the_gradient_that_is_applied_has_at_most_the_given_norm(limit, longest):
    """With a mean square that stays 1 and ε next to nothing a step is the gradient."""
    impala = rebound(DISCRETE, max_gradient_norm=limit, learning_rate=1.0, decay=1.0, epsilon=1e-9)
    learner = impala.init(KEY)
    gradient, info = impala.gradient(learner, off_policy(impala), KEY)
    after = impala.apply(learner, gradient)
    change = jax.tree.map(lambda x, y: x - y, learner.params, after.params)
    assert info["gradient_norm"] > 2
    length = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(change)))
    # float32 differences of weights of size one
    np.testing.assert_allclose(length, longest or info["gradient_norm"], rtol=1e-3)


def test_frames_go_through_the_nature_network():
    frames = Frames(stack=2, height=36, width=36)
    impala = Impala((8,), "relu", "nature").bind(Spaces(frames.size, Discrete(3), frames))
    learner = impala.init(KEY)
    seen = jax.random.randint(KEY, (4, 2, frames.size), 0, 256).astype(jnp.uint8)
    trajectory = Trajectory.padding(4, 2)._replace(
        observation=seen,
        next_observation=seen,
        action=jnp.zeros((4, 2), jnp.int32),
        reward=jnp.ones((4, 2)),
        mask=jnp.ones((4, 2), bool),
    )
    adapted, info = jax.jit(impala.adapt)(learner, on_policy(impala, learner.params, trajectory), KEY)
    assert all(jnp.isfinite(value) for value in info.values())
    assert jax.tree.map(jnp.shape, adapted) == jax.tree.map(jnp.shape, learner)


def learn(impala, lag, updates=400):
    """The learner whose actor is always ``lag`` updates behind, at a choice of which the second is best."""
    environment, steps = TargetChoice(), Steps(64)
    tasks = jax.tree.map(lambda leaf: leaf[0], environment.task_set(1).deal(agents=1))

    def update(carry, key):
        learner, history, state = carry
        behind = jax.tree.map(lambda leaf: leaf[0], history)
        collect_key, adapt_key = jax.random.split(key)

        collected = steps.collect(environment, acting(impala, behind), collect_key, tasks, state)
        learner, _ = impala.adapt(learner, collected.trajectory, adapt_key)
        history = jax.tree.map(
            lambda past, new: jnp.concatenate([past[1:], new[None]]), history, learner.params
        )
        return (learner, history, collected.state), None

    learner = impala.init(KEY)
    history = jax.tree.map(lambda leaf: jnp.stack([leaf] * (lag + 1)), learner.params)
    start = (learner, history, steps.init(environment, KEY, tasks))
    (learner, _, _), _ = jax.lax.scan(update, start, jax.random.split(KEY, updates))
    return learner


LEARNER = Impala(hidden=(16,), learning_rate=0.01).bind(spaces_of(TargetChoice()))


@pytest.mark.parametrize("lag", [0, 10])
def test_it_chooses_the_best_action_though_its_actor_lags(lag):
    learner = learn(LEARNER, lag)
    assert LEARNER.act_greedily(learner.params, jnp.ones(1)) == 1
    assert LEARNER.policy(learner.params, jnp.ones(1)).log_prob(jnp.array(1)) > np.log(0.9)


def test_from_the_experience_of_a_uniform_policy_it_learns_the_value_of_its_own():
    """Uniform choices earn −2/3, the best 0: the critic must not say what the actor earned."""
    learner = learn(LEARNER, lag=400)
    assert LEARNER.policy(learner.params, jnp.ones(1)).log_prob(jnp.array(1)) > np.log(0.9)
    assert -0.1 < LEARNER.value(learner.params, jnp.ones(1)) < 0.1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"rho_bar": 0.0}, "rho_bar is 0.0"),
        ({"c_bar": 1.5}, "c_bar is 1.5"),
        ({"reward_clip": -1.0}, "reward_clip is -1.0"),
        ({"momentum": 1.5}, "momentum is 1.5"),
        ({"decay_updates": -1}, "decay_updates is -1"),
        ({"hidden": (0,)}, r"hidden is \(0,\)"),
        ({"network": "nature"}, "network is 'nature'"),
    ],
)
def test_refuses(change, sentence):
    with pytest.raises(InputError, match=sentence):
        rebound(DISCRETE, **change)
