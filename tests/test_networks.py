"""Initial weights and the shape of networks; what they learn is tested with the algorithms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.networks import ActorCriticMLP, orthogonal


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
