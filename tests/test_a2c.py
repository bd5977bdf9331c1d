"""A2C against numpy: returns, the loss's gradient, its optimiser, its running statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.algorithms import A2C
from gossamer.errors import InputError
from gossamer.returns import generalised_advantages
from gossamer.types import Box, Discrete, Frames, Spaces, Trajectory
from small import rebound

DISCRETE = A2C(hidden=(8, 8)).bind(Spaces(3, Discrete(4)))
GAUSSIAN = A2C(hidden=(8, 8)).bind(Spaces(3, Box(2, 1.0)))
FRAMES = Frames(stack=1, height=36, width=36)
PIXELS = A2C((8,), "relu", "nature", (2, 3, 4)).bind(Spaces(FRAMES.size, Discrete(4), FRAMES))
KEY = jax.random.key(0)
by_actions = pytest.mark.parametrize("a2c", [DISCRETE, GAUSSIAN], ids=["categorical", "gaussian"])


def batch(a2c, time=6, env=3, key=1):
    """Random transitions with ends of both kinds inside."""
    keys = jax.random.split(jax.random.key(key), 6)
    action = a2c.spaces.action
    if isinstance(action, Discrete):
        chosen = jax.random.randint(keys[1], (time, env), 0, action.size)
    else:
        chosen = jax.random.normal(keys[1], (time, env, action.size))
    terminated = jax.random.bernoulli(keys[4], 0.2, (time, env))
    return Trajectory.padding(time, env, observation=3)._replace(
        observation=2 * jax.random.normal(keys[0], (time, env, 3)) + 1,
        action=chosen,
        reward=jax.random.normal(keys[2], (time, env)),
        next_observation=jax.random.normal(keys[3], (time, env, 3)),
        terminated=terminated,
        truncated=~terminated & jax.random.bernoulli(keys[5], 0.2, (time, env)),
        mask=jnp.ones((time, env), bool),
    )


def pixel_batch(terminated, truncated, key=1):
    """Frames that follow each other, and others where an episode ended."""
    terminated, truncated = jnp.asarray(terminated), jnp.asarray(truncated)
    time, env = terminated.shape
    draw = np.random.default_rng(key)
    seen, last = draw.integers(0, 256, (2, time + 1, env, FRAMES.size), dtype=np.uint8)
    ended = np.asarray(terminated | truncated)[..., None]
    return Trajectory.padding(time, env)._replace(
        observation=jnp.asarray(seen[:-1]),
        action=jnp.asarray(draw.integers(0, 4, (time, env))),
        reward=jnp.asarray(draw.normal(size=(time, env)), jnp.float32),
        next_observation=jnp.asarray(np.where(ended, last[:-1], seen[1:])),
        terminated=terminated,
        truncated=truncated,
        mask=jnp.ones((time, env), bool),
    )


def naive_advantage(reward, value, next_value, terminated, truncated, gamma, decay):
    """Forwards from every step: the weighted sum of all n-step advantages within its own episode."""
    advantages = []
    for start in range(len(reward)):
        total, weight = 0.0, 1.0
        for t in range(start, len(reward)):
            following = 0.0 if terminated[t] else gamma * next_value[t]
            total += weight * (reward[t] + following - value[t])
            if terminated[t] or truncated[t]:
                break
            weight *= gamma * decay
        advantages.append(total)
    return np.array(advantages)


def naive_n_step(reward, value, next_value, terminated, truncated, gamma):
    """Rewards to the end of the episode or the batch, then what follows; no temporal difference in sight."""
    advantages = []
    for start in range(len(reward)):
        total, t = 0.0, start
        while True:
            total += gamma ** (t - start) * reward[t]
            if terminated[t]:
                break
            if truncated[t] or t == len(reward) - 1:
                total += gamma ** (t - start + 1) * next_value[t]
                break
            t += 1
        advantages.append(total - value[start])
    return np.array(advantages)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), gamma=st.floats(0, 1), decay=st.floats(0, 1))
def test_advantages_equal_naive_sums(data, gamma, decay):
    length = data.draw(st.sampled_from([1, 2, 9]))
    numbers = st.lists(st.floats(-10, 10, width=32), min_size=length, max_size=length)
    flags = st.lists(st.booleans(), min_size=length, max_size=length)
    reward = np.array(data.draw(numbers))
    # values follow each other inside an episode, as those of one critic do
    value, last = np.array(data.draw(numbers)), data.draw(numbers)
    terminated, truncated = np.array(data.draw(flags)), np.array(data.draw(flags))
    ends = terminated | truncated
    next_value = np.where(ends, last, np.append(value[1:], last[-1]))
    arrays = [jnp.asarray(each, jnp.float32) for each in (reward, value, next_value)]
    flagged = (jnp.asarray(terminated), jnp.asarray(truncated))
    given_arrays = (reward, value, next_value, terminated, truncated)
    # float32 sums of up to nine terms of size 30
    ours = generalised_advantages(*arrays, *flagged, gamma, decay)
    np.testing.assert_allclose(ours, naive_advantage(*given_arrays, gamma, decay), rtol=1e-4, atol=1e-3)
    ours = generalised_advantages(*arrays, *flagged, gamma, 1.0)
    np.testing.assert_allclose(ours, naive_n_step(*given_arrays, gamma), rtol=1e-4, atol=1e-3)


@by_actions
def test_estimates_bootstrap_with_the_final_observation(a2c):
    a2c = rebound(a2c, discount=0.9, trace_decay=0.7)
    trajectory, params = batch(a2c), a2c.init(KEY).params
    estimate = a2c.estimate(params, trajectory)
    value, following = (
        np.float64(a2c.value(params, seen)) for seen in (trajectory.observation, trajectory.next_observation)
    )
    for env in range(3):
        columns = (trajectory.reward, value, following, trajectory.terminated, trajectory.truncated)
        expected = naive_advantage(*(np.asarray(each)[:, env] for each in columns), 0.9, 0.7)
        np.testing.assert_allclose(estimate.advantage[:, env], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(estimate.target[:, env], value[:, env] + expected, rtol=1e-4, atol=1e-5)


def forward(a2c, layers, observation):
    """Policy outputs and value of separate networks, by hand."""
    outputs = []
    for name, head in (("actor", "policy_head"), ("critic", "value_head")):
        x = observation
        for index in range(2):
            layer = layers[f"{name}_layers_{index}"]
            x = np.tanh(x @ layer["kernel"] + layer["bias"])
        outputs.append(x @ layers[head]["kernel"] + layers[head]["bias"])
    return outputs[0], outputs[1][..., 0]


def naive_loss(a2c, layers, log_scale, trajectory, advantage, target):
    """The loss of the docstring, in double precision."""
    outputs, value = forward(a2c, layers, np.float64(trajectory.observation))
    if isinstance(a2c.spaces.action, Discrete):
        log_probs = outputs - np.log(np.exp(outputs).sum(-1, keepdims=True))
        log_prob = np.take_along_axis(log_probs, np.asarray(trajectory.action)[..., None], -1)[..., 0]
        entropy = -(np.exp(log_probs) * log_probs).sum(-1)
    else:
        z = (np.float64(trajectory.action) - outputs) / np.exp(log_scale)
        log_prob = (-0.5 * z**2 - log_scale - 0.5 * np.log(2 * np.pi)).sum(-1)
        entropy = (0.5 * np.log(2 * np.pi * np.e) + log_scale).sum()
    loss = -log_prob * advantage + a2c.value_coefficient * (value - target) ** 2
    return np.mean(loss - a2c.entropy_coefficient * entropy)


@by_actions
def test_the_gradient_equals_finite_differences_of_the_loss_by_hand(a2c):
    """Advantages and targets stand still while weights move."""
    a2c = rebound(a2c, entropy_coefficient=0.3, value_coefficient=0.7)
    learner, trajectory = a2c.init(KEY), batch(a2c)
    estimate = jax.tree.map(np.float64, a2c.estimate(learner.params, trajectory))
    gradient, _ = a2c.gradient(learner, trajectory, KEY)
    start = jax.tree.map(np.float64, (learner.params.network["params"], learner.params.log_scale))
    flat, rebuild = (
        np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(start)]),
        jax.tree.structure(start),
    )
    shapes = [leaf.shape for leaf in jax.tree.leaves(start)]

    def loss(vector):
        pieces = np.split(vector, np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1])
        leaves = [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        layers, log_scale = jax.tree.unflatten(rebuild, leaves)
        return naive_loss(a2c, layers, log_scale, trajectory, *estimate)

    differences = [(loss(flat + step) - loss(flat - step)) / 2e-5 for step in 1e-5 * np.eye(len(flat))]
    ours = jax.tree.leaves((gradient.network["params"], gradient.log_scale))
    # float32 sums over 18 transitions of size one
    np.testing.assert_allclose(
        np.concatenate([leaf.ravel() for leaf in ours]), differences, rtol=1e-3, atol=1e-4
    )


def test_padding_counts_nothing():
    trajectory = batch(GAUSSIAN)
    mask = trajectory.mask.at[3:, 1].set(False)
    trajectory = trajectory._replace(mask=mask, truncated=trajectory.truncated.at[2, 1].set(True))
    noisy = trajectory._replace(action=jnp.where(mask[..., None], trajectory.action, 100.0))
    ours, theirs = (GAUSSIAN.gradient(GAUSSIAN.init(KEY), each, KEY)[0] for each in (trajectory, noisy))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), ours, theirs)


def test_the_gradient_that_is_applied_has_at_most_the_given_norm():
    """Plain descent at rate 1 shows what is applied."""
    descent = rebound(DISCRETE, optimiser="sgd", learning_rate=1.0)
    trajectory = batch(descent)
    large = trajectory._replace(reward=100 * trajectory.reward)
    for limit, norm in ((0.5, 0.5), (2.0, 2.0), (0.0, None)):
        a2c = rebound(descent, max_gradient_norm=limit)
        learner = a2c.init(KEY)
        gradient, info = a2c.gradient(learner, large, KEY)
        change = jax.tree.map(
            lambda x, y: x - y, learner.params.network, a2c.apply(learner, gradient).params.network
        )
        length = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(change)))
        assert info["gradient_norm"] > 2
        # float32 differences of weights of size one
        np.testing.assert_allclose(length, norm or info["gradient_norm"], rtol=1e-3)
        angle = jax.tree.map(lambda x, y: (x * y).sum(), change, gradient.network)
        cosine = sum(jax.tree.leaves(angle)) / length / info["gradient_norm"]
        np.testing.assert_allclose(cosine, 1.0, rtol=1e-3)


def test_rmsprop_is_pytorchs():
    """square ← 0.99 square + 0.01 g²; w ← w − 0.0007 g / (√square + 1e-5), from square = 0."""
    a2c = rebound(DISCRETE, max_gradient_norm=0.0)
    learner = a2c.init(KEY)
    gradient, _ = a2c.gradient(learner, batch(a2c), KEY)
    kernel, square = np.float64(learner.params.network["params"]["policy_head"]["kernel"]), 0.0
    for step in range(3):
        g = np.float64(gradient.network["params"]["policy_head"]["kernel"]) * 10.0 ** (-2 * step)
        scaled = gradient._replace(
            network=jax.tree.map(lambda leaf, s=step: leaf * 10.0 ** (-2 * s), gradient.network)
        )
        square = 0.99 * square + 0.01 * g**2
        kernel = kernel - 7e-4 * g / (np.sqrt(square) + 1e-5)
        learner = a2c.apply(learner, scaled)
        ours = learner.params.network["params"]["policy_head"]["kernel"]
        # float32, steps of 0.007: a thousandth of one would show
        np.testing.assert_allclose(ours, kernel, rtol=1e-5, atol=5e-7)


def test_epsilon_stands_outside_the_root():
    a2c = rebound(DISCRETE, max_gradient_norm=0.0, epsilon=0.1, learning_rate=1.0)
    learner = a2c.init(KEY)
    gradient, _ = a2c.gradient(learner, batch(a2c), KEY)
    ones = gradient._replace(network=jax.tree.map(jnp.ones_like, gradient.network))
    change = jax.tree.map(
        lambda x, y: float((x - y).mean()), learner.params.network, a2c.apply(learner, ones).params.network
    )
    # 1 / (√0.01 + 0.1); inside the root it would be 1 / √(0.01 + 0.1) = 3.0
    np.testing.assert_allclose(jax.tree.leaves(change), 5.0, rtol=1e-4)


@pytest.mark.parametrize(("network", "layers"), [("separate", 6), ("shared", 4)])
def test_layers_of_actor_and_critic(network, layers):
    a2c = rebound(DISCRETE, network=network)
    learner = a2c.init(KEY)
    assert len(learner.params.network["params"]) == layers
    only_critic = rebound(a2c, entropy_coefficient=0.0)
    trajectory = batch(a2c)
    # without advantage nothing but the critic learns
    trajectory = trajectory._replace(terminated=jnp.ones((6, 3), bool), truncated=jnp.zeros((6, 3), bool))
    value = only_critic.value(learner.params, trajectory.observation)
    gradient, _ = only_critic.gradient(learner, trajectory._replace(reward=value + 1e-3), KEY)
    actor = gradient.network["params"]["actor_layers_0"]["kernel"]
    critic = gradient.network["params"].get("critic_layers_0", {}).get("kernel")
    assert (critic is None) == (network == "shared")
    head = gradient.network["params"]["value_head"]["kernel"]
    assert jnp.abs(head).max() > 0
    if critic is not None:
        assert jnp.abs(critic).max() > 10 * jnp.abs(actor).max()


def full_estimate(a2c, params, trajectory):
    """Every frame is valued, also those that the next step saw."""
    over_env = jax.vmap(generalised_advantages, in_axes=(1, 1, 1, 1, 1, None, None), out_axes=1)
    value = a2c.value(params, trajectory.observation)
    following = a2c.value(params, trajectory.next_observation)
    ends = (trajectory.terminated, trajectory.truncated)
    return over_env(trajectory.reward, value, following, *ends, a2c.discount, a2c.trace_decay), value


estimate_of_pixels = jax.jit(PIXELS.estimate)
learner_of_pixels = PIXELS.init(KEY)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(data=st.data(), key=st.integers(0, 99))
def test_frames_are_valued_once_and_exactly(data, key):
    time, env = data.draw(st.sampled_from([(1, 2), (4, 3)]))
    kinds = st.sampled_from(["goes on", "goes on", "terminated", "truncated"])
    row = st.lists(kinds, min_size=env, max_size=env)
    ends = np.array(data.draw(st.lists(row, min_size=time, max_size=time)))
    trajectory = pixel_batch(ends == "terminated", ends == "truncated", key)
    advantage, value = full_estimate(PIXELS, learner_of_pixels.params, trajectory)
    ours = estimate_of_pixels(learner_of_pixels.params, trajectory)
    # float32; convolutions of another number of images may sum in another order
    np.testing.assert_allclose(ours.advantage, advantage, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.target, value + advantage, rtol=1e-4, atol=1e-5)


def test_agents_whose_episodes_are_cut_elsewhere_are_valued_together():
    cut = np.zeros((3, 5, 2), bool)
    cut[0, 1, 0] = cut[0, 3, 0] = cut[1, 2, 1] = True
    batches = [pixel_batch(np.zeros((5, 2), bool), each, key) for key, each in enumerate(cut)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
    learners = jax.vmap(PIXELS.init)(jax.random.split(KEY, 3))
    ours = jax.vmap(PIXELS.estimate)(learners.params, stacked)
    for agent, trajectory in enumerate(batches):
        params = jax.tree.map(lambda leaf, i=agent: leaf[i], learners.params)
        # float32, batched and single convolutions sum in another order
        expected, _ = full_estimate(PIXELS, params, trajectory)
        np.testing.assert_allclose(ours.advantage[agent], expected, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_frames_equals_that_with_estimates_made_before():
    """Advantages and targets come from the loss's own values, and stand still all the same."""
    truncated = np.zeros((4, 3), bool)
    truncated[1, 2] = True
    trajectory, weights = pixel_batch(np.zeros((4, 3), bool), truncated), learner_of_pixels.params.network
    advantage, value = full_estimate(PIXELS, learner_of_pixels.params, trajectory)
    target = value + advantage

    def loss(network):
        params = learner_of_pixels.params._replace(network=network)
        policy, value = (
            PIXELS.policy(params, trajectory.observation),
            PIXELS.value(params, trajectory.observation),
        )
        actor = -policy.log_prob(trajectory.action) * advantage - 0.01 * policy.entropy()
        return jnp.mean(actor + 0.5 * (value - target) ** 2)

    gradient, _ = jax.jit(PIXELS.gradient)(learner_of_pixels, trajectory, KEY)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5),
        gradient.network,
        jax.grad(loss)(weights),
    )


def test_an_update_convolves_the_batch_forward_once():
    """Three convolutions of T·E images and three of the last E; backwards five: of three kernels, of two inputs."""
    trajectory = pixel_batch(np.zeros((4, 3), bool), np.zeros((4, 3), bool))
    program = jax.jit(PIXELS.gradient).lower(learner_of_pixels, trajectory, KEY).as_text()
    assert program.count("stablehlo.convolution(") == 11


def test_rewards_are_clipped_for_the_learner():
    clipping = rebound(DISCRETE, reward_clip=1.0)
    trajectory, params = batch(DISCRETE), DISCRETE.init(KEY).params
    large = trajectory._replace(reward=5 * trajectory.reward)
    clipped = trajectory._replace(reward=jnp.clip(large.reward, -1, 1))
    assert not np.array_equal(clipped.reward, large.reward)
    jax.tree.map(
        np.testing.assert_array_equal, clipping.estimate(params, large), DISCRETE.estimate(params, clipped)
    )
    normalising = rebound(clipping, normalise="observations_and_rewards")
    learner = normalising.init(KEY)
    of_large, of_clipped = (normalising.gradient(learner, each, KEY)[0].reward for each in (large, clipped))
    jax.tree.map(np.testing.assert_array_equal, of_large, of_clipped)


NORMALISED = rebound(DISCRETE, normalise="observations_and_rewards")


def adapted(a2c, batches, key=0):
    learner = a2c.init(jax.random.key(key))
    for each in batches:
        gradient, _ = a2c.gradient(learner, each, KEY)
        learner = a2c.apply(learner, gradient)
    return learner


def test_statistics_are_those_of_all_transitions_so_far():
    batches = [batch(NORMALISED, key=key) for key in range(4)]
    params = adapted(NORMALISED, batches).params
    seen = np.concatenate([np.float64(each.observation).reshape(-1, 3) for each in batches])
    assert params.observation.number == len(seen)
    np.testing.assert_allclose(params.observation.mean, seen.mean(0), rtol=1e-5)
    np.testing.assert_allclose(params.observation.variance, seen.var(0), rtol=1e-5)
    sums = []
    for each in batches:
        for env in range(3):
            total = 0.0
            for t in range(6):
                total = 0.99 * total + float(each.reward[t, env])
                sums.append(total)
                if each.terminated[t, env] or each.truncated[t, env]:
                    total = 0.0
    np.testing.assert_allclose(params.reward.mean[0], np.mean(sums), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(params.reward.variance[0], np.var(sums), rtol=1e-4)


def test_the_network_sees_standardised_observations_and_scaled_rewards():
    params = adapted(NORMALISED, [batch(NORMALISED, key=key) for key in range(2)]).params
    observation = jnp.array([[1.0, 2.0, -100.0]])
    seen = (observation - params.observation.mean[None]) / jnp.sqrt(params.observation.variance)[None]
    expected = DISCRETE.policy(params, jnp.clip(seen, -10, 10)).logits
    np.testing.assert_allclose(NORMALISED.policy(params, observation).logits, expected, rtol=1e-4, atol=1e-6)
    trajectory = batch(NORMALISED)
    ends = trajectory._replace(terminated=jnp.ones((6, 3), bool))
    target = NORMALISED.estimate(params, ends).target
    scaled = ends.reward / jnp.sqrt(params.reward.variance[0])
    np.testing.assert_allclose(target, scaled, rtol=1e-4, atol=1e-5)


def test_local_statistics_stay_ones_own_and_mixed_ones_are_averaged():
    for statistics in ("local", "mixed"):
        a2c = rebound(NORMALISED, statistics=statistics)
        one, two = (adapted(a2c, [batch(a2c, key=key)], key) for key in (1, 2))
        mean = jax.tree.map(lambda x, y: (x + y) / 2, a2c.message(one), a2c.message(two))
        after = a2c.absorb(one, mean).params
        both = (one.params.observation.mean, two.params.observation.mean)
        expected = both[0] if statistics == "local" else (both[0] + both[1]) / 2
        np.testing.assert_allclose(after.observation.mean, expected, rtol=1e-6)
        shared = (one.params.reward.square + (two if statistics == "mixed" else one).params.reward.square) / 2
        np.testing.assert_allclose(after.reward.square, shared, rtol=1e-6)
        assert bool(jax.tree.leaves(a2c.message(one).observation)) == (statistics == "mixed")
        assert jax.tree.structure(after) == jax.tree.structure(one.params)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lion"])
def test_other_optimisers_by_name(name):
    a2c = rebound(DISCRETE, optimiser=name, learning_rate=0.01)
    learner = a2c.init(KEY)
    gradient, _ = a2c.gradient(learner, batch(a2c), KEY)
    change = a2c.apply(learner, gradient).params.network["params"]["policy_head"]["kernel"]
    assert not np.array_equal(change, learner.params.network["params"]["policy_head"]["kernel"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        *(
            (
                {"optimiser": name},
                rf"^optimiser is '{name}'; it must be rmsprop, adam, or the name of an optax",
            )
            for name in ("sdg", "chain", "__name__", "losses", "apply_updates", "scale", "lbfgs")
        ),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"max_gradient_norm": -1.0}, "max_gradient_norm is -1.0"),
        ({"trace_decay": 1.5}, "trace_decay is 1.5"),
        ({"reward_clip": -1.0}, "reward_clip is -1.0"),
        ({"network": "nature"}, "network is 'nature'"),
        ({"precision": "bfloat16"}, "precision is 'bfloat16'"),
        ({"hidden": (0,)}, r"hidden is \(0,\)"),
    ],
)
def test_refuses(change, sentence):
    with pytest.raises(InputError, match=sentence):
        rebound(DISCRETE, **change)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"network": "shared"}, "network is 'shared'"),
        ({"activation": "tanh"}, "activation is 'tanh'"),
        ({"convolution_widths": (2, 0, 4)}, r"convolution_widths is \(2, 0, 4\)"),
        ({"normalise": "observations"}, "normalise is 'observations'"),
        ({"spaces": Spaces(7, Discrete(4), FRAMES)}, "observation_size is 7"),
        ({"spaces": Spaces(700, Discrete(4), Frames(1, 20, 35))}, "frames are 20×35 pixels"),
    ],
)
def test_refuses_with_frames(change, sentence):
    with pytest.raises(InputError, match=sentence):
        rebound(PIXELS, **change)
