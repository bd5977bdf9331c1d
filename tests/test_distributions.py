import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from gossamer.distributions import Categorical, DiagonalGaussian

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


PROBABILITIES = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
# unnormalised: a constant per row changes nothing
CHOICE = Categorical(jnp.array(np.log(PROBABILITIES) + np.array([[3.0], [-40.0]]), jnp.float32))


def test_categorical_log_prob_and_entropy_equal_scipy():
    for action in range(3):
        chosen = CHOICE.log_prob(jnp.array([action, action]))
        np.testing.assert_allclose(chosen, np.log(PROBABILITIES[:, action]), rtol=1e-5)
    np.testing.assert_allclose(CHOICE.entropy(), scipy.stats.entropy(PROBABILITIES, axis=1), rtol=1e-5)


def test_categorical_samples_have_the_probabilities():
    samples = jax.vmap(CHOICE.sample)(jax.random.split(jax.random.key(0), 20000))
    assert jnp.issubdtype(samples.dtype, jnp.integer)
    for row in range(2):
        frequency = np.bincount(np.asarray(samples[:, row]), minlength=3) / 20000
        # four standard errors of a frequency
        np.testing.assert_allclose(frequency, PROBABILITIES[row], atol=4 * 0.5 / 20000**0.5)


def test_the_categorical_mode_is_most_probable():
    assert CHOICE.mode().tolist() == [2, 0]


def test_the_gradient_of_a_choice_is_its_one_hot_vector_less_the_probabilities():
    gradient = jax.grad(lambda logits: Categorical(logits).log_prob(jnp.array(1)))(CHOICE.logits[0])
    np.testing.assert_allclose(gradient, np.array([0, 1, 0]) - PROBABILITIES[0], rtol=1e-5)
