"""Running means and variances of a stream of batches.

It knows neither observations nor rewards, nor who shares the statistics.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Moments(NamedTuple):
    """Number, mean and mean square of all values so far, per component.

    The mean square and not the variance, so that a weighted mean of several ``Moments`` is that of the pooled
    values (where numbers are equal): diffusion may mix them like parameters. The price is precision: in float32 a
    deviation below a thousandth of the mean is lost in rounding.

    Example:
        >>> seen = Moments.none(1).merged(Moments.of(jnp.array([[1.0], [3.0]]), jnp.array([True, True])))
        >>> float(seen.mean[0]), float(seen.variance[0])
        (2.0, 1.0)
    """

    number: Float[Array, ""]
    mean: Float[Array, " component"]
    square: Float[Array, " component"]

    @classmethod
    def none(cls, components: int) -> "Moments":
        """Nothing seen yet: mean 0, variance 1."""
        return cls(jnp.zeros(()), jnp.zeros(components), jnp.ones(components))

    @classmethod
    def of(cls, values: Float[Array, "*batch component"], counted: Bool[Array, "*batch"]) -> "Moments":
        """Those of one batch, of the values that are counted."""
        weight = counted.astype(values.dtype)[..., None]
        number = weight.sum()
        axes = tuple(range(values.ndim - 1))
        total = jnp.maximum(number, 1.0)
        return cls(number, (weight * values).sum(axes) / total, (weight * values**2).sum(axes) / total)

    @property
    def variance(self) -> Float[Array, " component"]:
        """Of all values so far, at least 0."""
        return jnp.maximum(self.square - self.mean**2, 0.0)

    def merged(self, other: "Moments") -> "Moments":
        """Those of both streams together."""
        number = self.number + other.number
        share = other.number / jnp.maximum(number, 1.0)
        mean = self.mean + share * (other.mean - self.mean)
        return Moments(number, mean, self.square + share * (other.square - self.square))

    def standardise(
        self, values: Float[Array, "*batch component"], limit: float = 10.0
    ) -> Float[Array, "*batch component"]:
        """Values less their mean in standard deviations, clipped at ±``limit``."""
        mean, variance = (jnp.broadcast_to(each, values.shape) for each in (self.mean, self.variance))
        return jnp.clip((values - mean) / jnp.sqrt(variance + 1e-8), -limit, limit)


def without_statistics(tree: Any) -> Any:
    """A tree of parameters with nothing where it held ``Moments``.

    Example:
        >>> without_statistics({"weight": 1.0, "seen": Moments.none(2)})
        {'seen': None, 'weight': 1.0}
    """

    def is_statistics(each: Any) -> bool:
        return isinstance(each, Moments)

    return jax.tree.map(lambda each: None if is_statistics(each) else each, tree, is_leaf=is_statistics)
