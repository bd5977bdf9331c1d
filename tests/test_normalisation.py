import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.diagnostics.consensus_distance import consensus_distance
from gossamer.running_statistics import Moments


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 1000))
def test_batches_merge_to_the_moments_of_all_values(sizes, seed):
    generator = np.random.default_rng(seed)
    batches = [generator.normal(3, 2, (7, 2)).astype(np.float32) for _ in sizes]
    counted = [np.arange(7) < size for size in sizes]
    seen = Moments.none(2)
    for values, mask in zip(batches, counted, strict=True):
        seen = seen.merged(Moments.of(jnp.asarray(values), jnp.asarray(mask)))
    kept = np.concatenate([values[mask] for values, mask in zip(batches, counted, strict=True)])
    assert seen.number == len(kept)
    if len(kept):
        # float32 means of squares of size ten
        np.testing.assert_allclose(seen.mean, kept.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(seen.variance, kept.var(0), rtol=1e-3, atol=1e-4)
    else:
        assert (seen.mean.tolist(), seen.variance.tolist()) == ([0, 0], [1, 1])


def test_a_weighted_mean_of_equal_numbers_is_that_of_the_pooled_values():
    values = np.random.default_rng(0).normal(size=(2, 50, 1)).astype(np.float32)
    one, two = (Moments.of(jnp.asarray(each), jnp.ones(50, bool)) for each in values)
    mixed = Moments(*((a + b) / 2 for a, b in zip(one, two, strict=True)))
    np.testing.assert_allclose(mixed.variance, values.var(), rtol=1e-5)


@pytest.mark.parametrize(("value", "expected"), [(5.0, 1.5), (2.0, 0.0), (200.0, 10.0), (-200.0, -10.0)])
def test_standardised_and_clipped(value, expected):
    seen = Moments(jnp.array(9.0), jnp.array([2.0]), jnp.array([8.0]))  # deviation 2
    np.testing.assert_allclose(seen.standardise(jnp.array([value])), [expected], rtol=1e-6)


def test_values_that_never_vary_do_not_divide_by_zero():
    seen = Moments.of(jnp.full((4, 1), 7.0), jnp.ones(4, bool))
    assert jnp.isfinite(seen.standardise(jnp.array([[7.0], [8.0]]))).all()


def test_statistics_that_differ_are_no_distance_between_agents():
    weights = jnp.array([[0.0], [2.0]])
    seen = Moments(jnp.array([5.0, 900.0]), jnp.array([[1.0], [7.0]]), jnp.array([[2.0], [60.0]]))
    assert consensus_distance({"weights": weights, "seen": seen}) == 1.0
