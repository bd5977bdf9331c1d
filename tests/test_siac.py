import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.algorithms import SiAC
from gossamer.algorithms.siac import transition_weights
from gossamer.errors import InputError
from gossamer.types import Box, Spaces, Trajectory
from small import rebound

SPACES = Spaces(observation_size=3, action=Box(size=2, bound=4.0))
SIAC = SiAC(hidden=(16, 16)).bind(SPACES)


def batch(lengths, key=0, horizon=6, terminated=True):
    """Episodes of the given lengths, one column each, with random contents."""
    keys = jax.random.split(jax.random.key(key), 3)
    env = len(lengths)
    ends = jnp.arange(horizon)[:, None] == jnp.array(lengths)[None] - 1
    mask = jnp.arange(horizon)[:, None] < jnp.array(lengths)[None]
    no = jnp.zeros_like(ends)
    return Trajectory.padding(horizon, env, observation=3, action=2)._replace(
        observation=jax.random.normal(keys[0], (horizon, env, 3)),
        next_observation=jax.random.normal(keys[2], (horizon, env, 3)),
        action=jax.random.normal(keys[1], (horizon, env, 2)),
        reward=jnp.where(mask, 1.0, 0.0),
        terminated=ends if terminated else no,
        truncated=no if terminated else ends,
        mask=mask,
    )


def column(trajectory, index):
    """One episode of a batch, cut to its length."""
    length = int(trajectory.mask[:, index].sum())
    cut = {
        name: value[:length, index : index + 1]
        for name, value in trajectory._asdict().items()
        if name not in ("task", "carry")
    }
    return Trajectory(**cut, task=jnp.zeros(1, jnp.int32))


def gradient(siac, trajectory, learner=None):
    learner = learner or siac.init(jax.random.key(7))
    return siac.gradient(learner, trajectory, jax.random.key(0))[0]


def assert_trees_close(left, right, rtol=1e-4, atol=1e-5):
    # float32 sums of the same terms in another order
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), left, right)


def test_advantage_is_equation_40():
    learner = SIAC.init(jax.random.key(0))
    trajectory = batch([6, 3])
    estimate = SIAC.estimate(learner.params, trajectory)
    for env, length in enumerate((6, 3)):
        for t in range(length):
            ret = sum(0.99 ** (j - t) * float(trajectory.reward[j, env]) for j in range(t, length))
            value = SIAC.value(learner.params.critic, trajectory.observation[t, env])
            np.testing.assert_allclose(estimate.target[t, env], ret, rtol=1e-5)
            np.testing.assert_allclose(estimate.advantage[t, env], ret - value, rtol=1e-4, atol=1e-5)


def test_scaled_rewards_scale_targets():
    learner, trajectory = SIAC.init(jax.random.key(0)), batch([6, 3])
    plain = SIAC.estimate(learner.params, trajectory).target
    scaled = rebound(SIAC, reward_scale=0.1).estimate(learner.params, trajectory).target
    # one factor more in float32
    np.testing.assert_allclose(scaled, 0.1 * plain, rtol=1e-5, atol=1e-6)


def test_the_time_limit_bootstraps_only_where_asked():
    learner = SIAC.init(jax.random.key(0))
    cut, ended = batch([4], terminated=False), batch([4], terminated=True)
    bootstrapping = rebound(SIAC, bootstrap_at_time_limit=True)
    value = SIAC.value(learner.params.critic, cut.next_observation[3, 0])
    plain = SIAC.estimate(learner.params, cut).target
    np.testing.assert_allclose(
        bootstrapping.estimate(learner.params, cut).target[:4, 0],
        plain[:4, 0] + 0.99 ** jnp.arange(4, 0, -1) * value,
        rtol=1e-5,
    )
    assert jnp.array_equal(bootstrapping.estimate(learner.params, ended).target, plain)


def test_padding_counts_nothing():
    full, cut = batch([6, 2]), batch([6, 2])
    noise = jnp.where(cut.mask[..., None], 0.0, 3.0)
    cut = cut._replace(observation=cut.observation + noise, action=cut.action - noise)
    assert_trees_close(gradient(SIAC, full), gradient(SIAC, cut))


def test_critic_gradient_is_equation_43_by_hand():
    learner = SIAC.init(jax.random.key(1))
    trajectory = batch([4])
    advantage = SIAC.estimate(learner.params, trajectory).advantage
    expected = jax.tree.map(jnp.zeros_like, learner.params.critic)
    for t in range(4):
        each = jax.grad(SIAC.value)(learner.params.critic, trajectory.observation[t, 0])
        expected = jax.tree.map(lambda x, y, t=t: x - y * advantage[t, 0] / 4, expected, each)
    assert_trees_close(gradient(SIAC, trajectory, learner).critic, expected)


def test_actor_gradient_is_equation_44_by_hand():
    siac = rebound(SIAC, entropy_coefficient=0.0)
    learner = siac.init(jax.random.key(1))
    trajectory = batch([4])
    advantage = siac.estimate(learner.params, trajectory).advantage

    def log_prob(actor, t):
        return siac.policy(actor, trajectory.observation[t, 0]).log_prob(trajectory.action[t, 0])

    expected = jax.tree.map(jnp.zeros_like, learner.params.actor)
    for t in range(4):
        each = jax.grad(log_prob)(learner.params.actor, t)
        expected = jax.tree.map(lambda x, y, t=t: x - y * advantage[t, 0] / 4, expected, each)
    assert_trees_close(gradient(siac, trajectory, learner).actor, expected)


def test_entropy_is_rewarded():
    eager = rebound(SIAC, entropy_coefficient=100.0)
    learner = eager.init(jax.random.key(0))
    trajectory = batch([6])
    before = eager.policy(learner.params.actor, trajectory.observation).entropy().mean()
    for _ in range(3):
        learner = eager.apply(learner, gradient(eager, trajectory, learner))
    assert eager.policy(learner.params.actor, trajectory.observation).entropy().mean() > before


def test_pooled_gradient_is_that_of_the_pooled_batch():
    """Equations (41)-(42): the centralised gradient weighs the tasks' own by their transitions."""
    learner = SIAC.init(jax.random.key(2))
    lengths = (6, 2, 1)
    trajectory = batch(lengths)
    own = [gradient(SIAC, column(trajectory, index), learner) for index in range(3)]
    pooled = jax.tree.map(lambda *g: sum(n * x for n, x in zip(lengths, g, strict=True)) / 9, *own)
    assert_trees_close(gradient(SIAC, trajectory, learner), pooled)


def test_task_mean_gradient_is_the_mean_of_the_tasks_gradients():
    learner = SIAC.init(jax.random.key(2))
    siac = rebound(SIAC, weighting="tasks")
    trajectory = batch((6, 2, 1))
    own = [gradient(siac, column(trajectory, index), learner) for index in range(3)]
    mean = jax.tree.map(lambda *g: sum(g) / 3, *own)
    assert_trees_close(gradient(siac, trajectory, learner), mean)


@pytest.mark.parametrize("weighting", ["transitions", "tasks"])
def test_weights_sum_to_one_and_vanish_on_padding(weighting):
    trajectory = batch((6, 2, 1, 4))._replace(task=jnp.array([0, 0, 1, 1]))
    weights = transition_weights(trajectory, weighting)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
    assert not weights[~trajectory.mask].any()


def test_tasks_of_several_episodes_weigh_alike():
    trajectory = batch((6, 2, 1, 4))._replace(task=jnp.array([0, 0, 1, 1]))
    weights = transition_weights(trajectory, "tasks").sum(0)
    np.testing.assert_allclose([weights[:2].sum(), weights[2:].sum()], [0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize(("spread", "power"), [("variance", 0.5), ("standard_deviation", 1.0)])
def test_what_softplus_is(spread, power):
    siac = rebound(SIAC, spread=spread)
    learner = siac.init(jax.random.key(0))
    zero = jax.tree.map(jnp.zeros_like, learner.params.actor)
    policy = siac.policy(zero, jnp.zeros(3))
    np.testing.assert_allclose(policy.scale, (np.log(2) + 1e-6) ** power, rtol=1e-6)


def test_the_mean_stays_within_the_bound():
    learner = SIAC.init(jax.random.key(0))
    large = jax.tree.map(lambda leaf: leaf * 1000, learner.params.actor)
    assert jnp.abs(SIAC.policy(large, jnp.ones(3)).mode()).max() <= 4.0


def test_learning_rates_are_traced_and_structure_is_not():
    leaves = jax.tree.leaves(SIAC)
    assert SIAC.actor_learning_rate in leaves
    assert SIAC.critic_learning_rate in leaves
    other = jax.tree.structure(rebound(SIAC, actor_learning_rate=0.5))
    assert other == jax.tree.structure(SIAC)
    assert jax.tree.structure(rebound(SIAC, hidden=(8,))) != other


def test_adam_is_the_papers():
    """The first step of Adam is the learning rate in the direction of the gradient's sign."""
    learner = SIAC.init(jax.random.key(0))
    after = SIAC.apply(learner, jax.tree.map(jnp.ones_like, learner.params))
    # Adam's ε = 1e-8 and float32 subtraction of weights of size one
    assert_trees_close(
        after.params.actor, jax.tree.map(lambda x: x - 0.001, learner.params.actor), 1e-5, 1e-6
    )
    assert_trees_close(
        after.params.critic, jax.tree.map(lambda x: x - 0.01, learner.params.critic), 1e-5, 1e-6
    )
    assert after.updates == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"actor_learning_rate": -1.0}, "actor_learning_rate is -1.0"),
        ({"critic_learning_rate": float("nan")}, "critic_learning_rate is nan"),
        ({"entropy_coefficient": float("inf")}, "entropy_coefficient is inf"),
        ({"discount": 1.5}, "discount is 1.5"),
        ({"hidden": ()}, r"hidden is \(\)"),
        ({"variance_floor": -1.0}, "variance_floor is -1.0"),
    ],
)
def test_refuses(change, sentence):
    with pytest.raises(InputError, match=sentence):
        rebound(SIAC, **change)
