"""Function approximators, as flax modules. They know nothing of policies, values or learning."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gossamer.types import Key, Params

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


class ActorCriticMLP(nn.Module):
    """Policy outputs and a value of an observation, from two networks or from two heads on one.

    Weights start orthogonal, scaled by √2 in hidden layers, by 0.01 in the policy's head, by 1 in the value's;
    biases from zero. So the first policy is nearly uniform, or nearly centred.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> network = ActorCriticMLP(hidden=(8, 8), policy_outputs=3)
        >>> params = network.init(jax.random.key(0), jnp.zeros(4))
        >>> policy_outputs, value = network.outputs_of(params, jnp.ones((5, 4)))
        >>> policy_outputs.shape, value.shape
        ((5, 3), (5,))
    """

    hidden: tuple[int, ...]
    policy_outputs: int
    activation: Activation = "tanh"
    shared: bool = False

    def outputs_of(
        self, params: Params, inputs: Float[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch outputs"], Float[Array, "*batch"]]:
        """Policy outputs and value under given parameters: flax's ``apply``, typed."""
        return cast(tuple[Array, Array], self.apply(params, inputs))

    def value_of(self, params: Params, inputs: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        """The value alone."""
        return cast(Array, self.apply(params, inputs, method="value"))

    def policy_of(
        self, params: Params, inputs: Float[Array, "*batch features"]
    ) -> Float[Array, "*batch outputs"]:
        """The policy's outputs alone."""
        return cast(Array, self.apply(params, inputs, method="policy"))

    def setup(self) -> None:
        """The layers: those of the critic are the actor's where they are shared."""
        self.actor_layers = self._hidden_layers()
        self.critic_layers = self.actor_layers if self.shared else self._hidden_layers()
        self.policy_head = _orthogonal(self.policy_outputs, 0.01)
        self.value_head = _orthogonal(1, 1.0)

    def __call__(
        self, inputs: Float[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch outputs"], Float[Array, "*batch"]]:
        """Policy outputs and value for a batch of inputs."""
        if not self.shared:
            return self.policy(inputs), self.value(inputs)
        features = self._through(self.actor_layers, inputs)
        return self.policy_head(features), self.value_head(features)[..., 0]

    def policy(self, inputs: Float[Array, "*batch features"]) -> Float[Array, "*batch outputs"]:
        """Policy outputs for a batch of inputs."""
        return self.policy_head(self._through(self.actor_layers, inputs))

    def value(self, inputs: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        """Values of a batch of inputs."""
        return self.value_head(self._through(self.critic_layers, inputs))[..., 0]

    def _hidden_layers(self) -> list[nn.Dense]:
        return [_orthogonal(width, math.sqrt(2)) for width in self.hidden]

    def _through(self, layers: Sequence[nn.Dense], inputs: Array) -> Array:
        for layer in layers:
            inputs = _ACTIVATIONS[self.activation](layer(inputs))
        return inputs


def orthogonal(key: Key, rows: int, columns: int) -> Float[Array, "row column"]:
    """A random matrix with orthonormal columns (rows, where there are fewer), uniform by Haar's measure.

    A product of Householder reflections of normal vectors (Stewart 1980), one of each dimension. Not a QR
    factorisation, as flax's: several of LAPACK's in one batched program can wait for each other for ever on a CPU.

    Example:
        >>> import jax
        >>> Q = orthogonal(jax.random.key(0), 4, 2)
        >>> (Q.T @ Q).round(3).tolist() == [[1.0, 0.0], [0.0, 1.0]]
        True
    """
    longer, shorter = max(rows, columns), min(rows, columns)
    normal = jax.random.normal(key, (shorter, longer))
    place = jnp.arange(longer)

    def reflect(index: Array, Q: Array) -> Array:
        step = shorter - 1 - index
        x = jnp.where(place >= step, normal[step], 0.0)
        sign = jnp.where(x[step] < 0, -1.0, 1.0)
        v = x + jnp.where(place == step, sign * jnp.linalg.norm(x), 0.0)
        Q = Q - jnp.outer(2 * v / (v @ v), v @ Q)
        return jnp.where((place == step)[:, None], -sign * Q, Q)

    Q = jax.lax.fori_loop(0, shorter, reflect, jnp.eye(longer, shorter))
    return Q if rows >= columns else Q.T


def _orthogonal(width: int, scale: float) -> nn.Dense:
    def kernel(key: Key, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
        return scale * orthogonal(key, *shape).astype(dtype)

    return nn.Dense(width, kernel_init=kernel)
