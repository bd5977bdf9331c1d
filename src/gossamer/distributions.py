"""Distributions of actions, as named tuples of their parameters with the functions that algorithms need.

They know neither networks nor environments; the last axis is the action's.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gossamer.types import Key


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
