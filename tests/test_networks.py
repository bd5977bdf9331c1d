"""Initial weights and the shape of networks; what they learn is tested with the algorithms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.networks import SMALLEST_IMAGE, ActorCriticMLP, NatureCNN, orthogonal
from gossamer.types import Frames

FRAMES = Frames(stack=2, height=52, width=44)  # neither square nor of sizes that strides divide
SMALL = NatureCNN(FRAMES, policy_outputs=3, widths=(4, 5, 6), hidden=(7,))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([1, 2, 7, 16]), st.sampled_from([1, 2, 7, 16]), st.integers(0, 2**31 - 1))
def test_rows_or_columns_are_orthonormal(rows, columns, seed):
    Q = np.float64(orthogonal(jax.random.key(seed), rows, columns))
    assert Q.shape == (rows, columns)
    product = Q.T @ Q if rows >= columns else Q @ Q.T
    # float32, up to sixteen reflections
    np.testing.assert_allclose(product, np.eye(min(rows, columns)), atol=1e-5)


def test_uniform_by_haars_measure():
    """Each entry of a uniform 3×3 rotation or reflection is uniform in [-1, 1], and both kinds are as frequent."""
    matrices = np.asarray(
        jax.vmap(lambda key: orthogonal(key, 3, 3))(jax.random.split(jax.random.key(0), 4000))
    )
    for entry in matrices.reshape(4000, 9).T:
        assert scipy.stats.kstest(entry, "uniform", (-1, 2)).pvalue > 1e-3
    # four standard errors of a frequency
    assert abs((np.linalg.det(matrices) > 0).mean() - 0.5) < 4 * 0.5 / 4000**0.5


def test_many_in_one_program_end():
    """Twenty-five agents' layers at once: QR factorisations of LAPACK have waited for each other here."""
    keys = jax.random.split(jax.random.key(0), 25)
    weights = jax.jit(jax.vmap(lambda key: orthogonal(key, 64, 64)))(keys)
    np.testing.assert_allclose(np.einsum("kij,kil->kjl", weights, weights)[3], np.eye(64), atol=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_layers_start_with_their_gains_and_without_bias(shared):
    network = ActorCriticMLP(hidden=(8, 6), policy_outputs=3, shared=shared)
    layers = network.init(jax.random.key(0), jnp.zeros(4))["params"]
    gains = {
        "actor_layers_0": math.sqrt(2),
        "actor_layers_1": math.sqrt(2),
        "policy_head": 0.01,
        "value_head": 1.0,
    }
    if not shared:
        gains |= {"critic_layers_0": math.sqrt(2), "critic_layers_1": math.sqrt(2)}
    assert set(layers) == set(gains)
    for name, gain in gains.items():
        singular = np.linalg.svd(layers[name]["kernel"], compute_uv=False)
        np.testing.assert_allclose(singular, gain, rtol=1e-5)
        assert not layers[name]["bias"].any()


@pytest.mark.parametrize("shared", [False, True])
def test_policy_and_value_alone_are_those_of_both(shared):
    network = ActorCriticMLP(hidden=(8,), policy_outputs=3, shared=shared)
    params, inputs = network.init(jax.random.key(0), jnp.zeros(4)), jnp.ones((5, 4))
    policy, value = network.outputs_of(params, inputs)
    np.testing.assert_array_equal(network.policy_of(params, inputs), policy)
    np.testing.assert_array_equal(network.value_of(params, inputs), value)
    assert value.shape == (5,)


def random_frames(frames, *batch, seed=0):
    drawn = np.random.default_rng(seed).integers(0, 256, (*batch, frames.size), dtype=np.uint8)
    return jnp.asarray(drawn)


def naive_convolution(images, kernel, bias, stride):
    """Every output by itself: the products of a patch [row, column, channel] with a kernel, summed."""
    count, height, width, _ = images.shape
    size = len(kernel)
    rows, columns = (height - size) // stride + 1, (width - size) // stride + 1
    output = np.zeros((count, rows, columns, kernel.shape[-1]))
    for row in range(rows):
        for column in range(columns):
            top, left = stride * row, stride * column
            patch = images[:, top : top + size, left : left + size]
            output[:, row, column] = np.einsum("nijc,ijco->no", patch, kernel) + bias
    return output


def naive_nature(layers, observation, frames):
    """The network of the docstring in double precision, from pixels that are looked up one by one."""
    stack, height, width = frames.stack, frames.height, frames.width
    x = np.zeros((len(observation), height, width, stack))
    for frame in range(stack):
        for row in range(height):
            for column in range(width):
                x[:, row, column, frame] = observation[:, (frame * height + row) * width + column] / 255
    for index, stride in enumerate((4, 2, 1)):
        layer = layers[f"convolutions_{index}"]
        x = np.maximum(naive_convolution(x, layer["kernel"], layer["bias"], stride), 0)
    x = x.reshape(len(x), -1)
    dense = layers["hidden_layers_0"]
    x = np.maximum(x @ dense["kernel"] + dense["bias"], 0)
    heads = (x @ layers[name]["kernel"] + layers[name]["bias"] for name in ("policy_head", "value_head"))
    return tuple(heads)


def test_nature_equals_naive_convolutions_of_the_frames():
    observation = random_frames(FRAMES, 3)
    params = SMALL.init(jax.random.key(0), observation)
    # biases are zero at first, which would hide them
    params = jax.tree.map(lambda leaf: leaf + 0.1 if leaf.ndim == 1 else leaf, params)
    policy, value = naive_nature(jax.tree.map(np.float64, params["params"]), np.float64(observation), FRAMES)
    ours = SMALL.outputs_of(params, observation)
    # float32 sums of up to 128 products of size one
    np.testing.assert_allclose(ours[0], policy, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours[1], value[:, 0], rtol=1e-4, atol=1e-5)


def test_nature_keeps_leading_axes_and_vmap_adds_them():
    observation = random_frames(FRAMES, 2, 3)
    params = SMALL.init(jax.random.key(0), observation)
    policy, value = SMALL.outputs_of(params, observation)
    assert (policy.shape, value.shape) == ((2, 3, 3), (2, 3))
    one = SMALL.outputs_of(params, observation[1, 2])
    mapped = jax.vmap(jax.vmap(lambda seen: SMALL.outputs_of(params, seen)))(observation)
    # float32; convolutions of another number of images may sum in another order
    for ours, theirs in ((policy[1, 2], one[0]), (value[1, 2], one[1]), (policy, mapped[0])):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(SMALL.policy_of(params, observation), policy)
    np.testing.assert_array_equal(SMALL.value_of(params, observation), value)


def test_nature_starts_orthogonal():
    layers = SMALL.init(jax.random.key(0), random_frames(FRAMES))["params"]
    gains = {f"convolutions_{index}": math.sqrt(2) for index in range(3)}
    gains |= {"hidden_layers_0": math.sqrt(2), "policy_head": 0.01, "value_head": 1.0}
    assert set(layers) == set(gains)
    for name, gain in gains.items():
        kernel = layers[name]["kernel"]
        singular = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)
        # float32, up to seven reflections
        np.testing.assert_allclose(singular, gain, rtol=1e-5)
        assert not layers[name]["bias"].any()


@pytest.mark.parametrize(("last", "parameters"), [(64, 1_687_719), (32, 866_439)])
def test_nature_has_as_many_parameters_as_in_the_paper(last, parameters):
    """84×84 → 20×20 → 9×9 → 7×7, by hand: convolutions, hidden layer, six actions, a value."""
    convolutions = (8 * 8 * 4 + 1) * 32 + (4 * 4 * 32 + 1) * 64 + (3 * 3 * 64 + 1) * last
    assert parameters == convolutions + (7 * 7 * last + 1) * 512 + (512 + 1) * (6 + 1)
    frames = Frames(stack=4, height=84, width=84)
    network = NatureCNN(frames, policy_outputs=6, widths=(32, 64, last))
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(frames.size))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == parameters


def test_bfloat16_is_for_computing_only():
    observation = random_frames(FRAMES, 4)
    params = SMALL.init(jax.random.key(0), observation)
    half = NatureCNN(FRAMES, 3, SMALL.widths, SMALL.hidden, precision="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(half.init(jax.random.key(0), observation))} == {
        np.dtype("float32")
    }
    exact, rounded = (network.outputs_of(params, observation) for network in (SMALL, half))
    for ours, theirs in zip(rounded, exact, strict=True):
        assert ours.dtype == np.dtype("float32")
        assert not np.array_equal(ours, theirs)
        # eight bits of mantissa, a few layers
        np.testing.assert_allclose(ours, theirs, rtol=0.05, atol=0.02 * float(jnp.abs(theirs).max()))


def test_the_smallest_image_is_the_smallest():
    def features(size):
        frames = Frames(stack=1, height=size, width=size)
        shapes = jax.eval_shape(NatureCNN(frames, 2).init, jax.random.key(0), jnp.zeros(frames.size))
        return shapes["params"]["hidden_layers_0"]["kernel"].shape[0]

    assert features(SMALLEST_IMAGE) == 64
    with pytest.raises(IndexError):  # of a matrix without rows
        features(SMALLEST_IMAGE - 1)
