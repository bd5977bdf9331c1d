import math

import numpy as np
import pytest

from gossamer.diagnostics.gradient_correlation import CorrelationSum, correlation, mean_off_diagonal


@pytest.mark.parametrize("parameters", [2, 100, 65_536, 150_001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_that_of_numpy(parameters, dtype):
    generator = np.random.default_rng(parameters)
    # a large mean, which a correlation must not see
    gradients = (100 + generator.normal(size=(4, parameters))).astype(dtype)
    gradients[1] += gradients[0]
    expected = np.corrcoef(gradients.astype(np.float64))
    # means of 1e5 numbers of size 100 in double precision
    np.testing.assert_allclose(correlation(gradients), expected, atol=1e-9)


def test_neither_scale_nor_offset_matters():
    gradients = np.random.default_rng(0).normal(size=(2, 50))
    both = np.concatenate([gradients, 3 * gradients + 1, -gradients])
    np.testing.assert_allclose(correlation(both)[:2, 2:4], correlation(gradients), atol=1e-12)
    np.testing.assert_allclose(correlation(both)[:2, 4:], -correlation(gradients), atol=1e-12)


@pytest.mark.parametrize("bad", [0.0, 0.1, math.nan, math.inf])
def test_a_gradient_without_direction_correlates_with_nothing(bad):
    gradients = np.random.default_rng(0).normal(size=(3, 10))
    gradients[1] = bad
    values = correlation(gradients)
    assert np.isnan(values[1]).all()
    assert np.isnan(values[:, 1]).all()
    assert values[0, 2] == pytest.approx(np.corrcoef(gradients[[0, 2]])[0, 1])
    assert mean_off_diagonal(values) == pytest.approx(values[0, 2])


def test_the_mean_leaves_out_what_is_unknown():
    moments = np.random.default_rng(0).normal(size=(5, 3, 20))
    moments[2, 1] = 0.0
    total = CorrelationSum.init(3)
    for gradients in moments:
        total = total.add(gradients)
    expected = np.nanmean([correlation(gradients) for gradients in moments], axis=0)
    np.testing.assert_allclose(total.mean(), expected)
    assert total.known[0].tolist() == [5, 4, 5]


def test_a_single_agent_has_no_pair():
    assert math.isnan(mean_off_diagonal(np.ones((1, 1))))
    assert np.isnan(CorrelationSum.init(2).mean()).all()
