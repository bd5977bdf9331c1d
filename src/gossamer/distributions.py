"""Distributions of actions, as named tuples of their parameters with the functions that algorithms need.

They know neither networks nor environments; the last axis is that of an action's components, or of the choices.
"""

import math
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gossamer.types import Key

Spread: TypeAlias = Literal["variance", "standard_deviation"]


class DiagonalGaussian(NamedTuple):
    """Independent normal distributions, one per component of an action; unbounded.

    Example:
        >>> policy = DiagonalGaussian(jnp.zeros(2), jnp.ones(2))
        >>> round(float(policy.log_prob(jnp.zeros(2))), 4), round(float(policy.entropy()), 4)
        (-1.8379, 2.8379)
    """

    mean: Float[Array, "*batch action"]
    scale: Float[Array, "*batch action"]

    def sample(self, key: Key) -> Float[Array, "*batch action"]:
        """A random action: mean + scale · ε with ε standard normal."""
        return self.mean + self.scale * jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def mode(self) -> Float[Array, "*batch action"]:
        """The most probable action."""
        return self.mean

    def log_prob(self, action: Float[Array, "*batch action"]) -> Float[Array, "*batch"]:
        """Log density of an action: Σ −½((a − μ)/σ)² − ln σ − ½ ln 2π."""
        standardised = (action - self.mean) / self.scale
        each = -0.5 * standardised**2 - jnp.log(self.scale) - 0.5 * math.log(2 * math.pi)
        return each.sum(-1)

    def entropy(self) -> Float[Array, "*batch"]:
        """Differential entropy in nats: Σ ½ + ½ ln 2π + ln σ."""
        return (0.5 + 0.5 * math.log(2 * math.pi) + jnp.log(self.scale)).sum(-1)


class Categorical(NamedTuple):
    """One of several actions that exclude each other, by unnormalised log-probabilities.

    Example:
        >>> policy = Categorical(jnp.zeros(4))
        >>> round(float(policy.log_prob(jnp.array(2))), 4), round(float(policy.entropy()), 4)
        (-1.3863, 1.3863)
    """

    logits: Float[Array, "*batch choice"]

    def sample(self, key: Key) -> Int[Array, "*batch"]:
        """A random action."""
        return jax.random.categorical(key, self.logits)

    def mode(self) -> Int[Array, "*batch"]:
        """The most probable action; the first of several."""
        return self.logits.argmax(-1)

    def log_prob(self, action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Log-probability of an action."""
        # A product with a one-hot vector and not a gather, whose gradient is a slow scatter on a CPU.
        chosen = jax.nn.one_hot(action, self.logits.shape[-1], dtype=self.logits.dtype)
        return (jax.nn.log_softmax(self.logits) * chosen).sum(-1)

    def entropy(self) -> Float[Array, "*batch"]:
        """Entropy in nats: −Σ p ln p."""
        log_probs = jax.nn.log_softmax(self.logits)
        return -(jnp.exp(log_probs) * log_probs).sum(-1)


def bounded_gaussian(
    outputs: Float[Array, "*batch outputs"], bound: float, spread: Spread, floor: float | Float[Array, ""]
) -> DiagonalGaussian:
    """The normal distribution that a network's outputs describe (Diff-DAC, appendix A.1).

    The first half of the outputs gives the mean, bound · tanh(·); the second the variance, softplus(·), or its root.

    Args:
        outputs: two for each component of an action.
        bound: of the mean, in units of the action.
        spread: what the softplus is, the variance or the standard deviation.
        floor: added to the softplus, >= 0.

    Example:
        >>> policy = bounded_gaussian(jnp.array([100.0, 0.0]), bound=2.0, spread="variance", floor=0.0)
        >>> float(policy.mean[0]), round(float(policy.scale[0]) ** 2, 4)
        (2.0, 0.6931)
    """
    location, softened = jnp.split(outputs, 2, axis=-1)
    softened = jax.nn.softplus(softened) + floor
    scale = jnp.sqrt(softened) if spread == "variance" else softened
    return DiagonalGaussian(bound * jnp.tanh(location), scale)
