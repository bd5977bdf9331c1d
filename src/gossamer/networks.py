"""Function approximators, as flax modules. They know nothing of policies, values or learning."""

from collections.abc import Callable
from typing import Literal, TypeAlias, cast

import flax.linen as nn
from jaxtyping import Array, Float

from gossamer.types import Params

Activation: TypeAlias = Literal["relu", "tanh"]

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": nn.relu, "tanh": nn.tanh}


class MLP(nn.Module):
    """Multilayer perceptron: dense layers with an activation between them, and a linear last layer.

    Weights start from LeCun's normal distribution (variance 1/fan-in), biases from zero.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> network = MLP(hidden=(8, 8), outputs=2, activation="relu")
        >>> params = network.init(jax.random.key(0), jnp.zeros(3))
        >>> network.outputs_of(params, jnp.ones((5, 3))).shape
        (5, 2)
    """

    hidden: tuple[int, ...]
    outputs: int
    activation: Activation = "relu"

    def outputs_of(
        self, params: Params, inputs: Float[Array, "*batch features"]
    ) -> Float[Array, "*batch outputs"]:
        """The network's outputs under given parameters: flax's ``apply``, typed."""
        return cast(Array, self.apply(params, inputs))

    @nn.compact
    def __call__(self, inputs: Float[Array, "*batch features"]) -> Float[Array, "*batch outputs"]:
        """The network's outputs for a batch of inputs."""
        activate = _ACTIVATIONS[self.activation]
        for width in self.hidden:
            inputs = activate(nn.Dense(width)(inputs))
        return nn.Dense(self.outputs)(inputs)
