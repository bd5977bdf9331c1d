import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from gossamer.distributions import DiagonalGaussian

MEAN, SCALE = jnp.array([0.5, -1.0]), jnp.array([0.3, 2.0])


def test_log_prob_and_entropy_equal_scipy():
    policy = DiagonalGaussian(MEAN, SCALE)
    action = jnp.array([0.1, 3.0])
    book = scipy.stats.multivariate_normal(np.asarray(MEAN), np.diag(np.asarray(SCALE) ** 2))
    # float32 arithmetic
    np.testing.assert_allclose(policy.log_prob(action), book.logpdf(np.asarray(action)), rtol=1e-5)
    np.testing.assert_allclose(policy.entropy(), book.entropy(), rtol=1e-5)


def test_samples_have_the_mean_and_the_scale():
    batch = DiagonalGaussian(jnp.tile(MEAN, (20000, 1)), jnp.tile(SCALE, (20000, 1)))
    samples = batch.sample(jax.random.key(0))
    # four standard errors of a mean, and of a deviation, over 20,000 samples of scale 2
    np.testing.assert_allclose(samples.mean(0), MEAN, atol=4 * 2 / 20000**0.5)
    np.testing.assert_allclose(samples.std(0), SCALE, rtol=4 / (2 * 20000) ** 0.5)


def test_the_mode_is_most_probable():
    policy = DiagonalGaussian(MEAN, SCALE)
    elsewhere = policy.sample(jax.random.key(1))
    assert policy.log_prob(policy.mode()) > policy.log_prob(elsewhere)
