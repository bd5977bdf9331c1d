"""Function approximators, as flax modules. They know nothing of policies, values or learning."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from gossamer.types import Activation, Frames, Key, Params, Precision

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


class ActorCriticNetwork(nn.Module):
    """What every network of an actor-critic offers: policy outputs, values, or both, under given parameters."""

    def outputs_of(
        self, params: Params, inputs: Real[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch outputs"], Float[Array, "*batch"]]:
        """Policy outputs and value under given parameters: flax's ``apply``, typed."""
        return cast(tuple[Array, Array], self.apply(params, inputs))

    def value_of(self, params: Params, inputs: Real[Array, "*batch features"]) -> Float[Array, "*batch"]:
        """The value alone."""
        return cast(Array, self.apply(params, inputs, method="value"))

    def policy_of(
        self, params: Params, inputs: Real[Array, "*batch features"]
    ) -> Float[Array, "*batch outputs"]:
        """The policy's outputs alone."""
        return cast(Array, self.apply(params, inputs, method="policy"))

    @abstractmethod
    def __call__(
        self, inputs: Real[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch outputs"], Float[Array, "*batch"]]:
        """Policy outputs and value for a batch of inputs."""

    @abstractmethod
    def policy(self, inputs: Real[Array, "*batch features"]) -> Float[Array, "*batch outputs"]:
        """Policy outputs for a batch of inputs."""

    @abstractmethod
    def value(self, inputs: Real[Array, "*batch features"]) -> Float[Array, "*batch"]:
        """Values of a batch of inputs."""


class ActorCriticMLP(ActorCriticNetwork):
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

    def setup(self) -> None:
        """The layers: those of the critic are the actor's where they are shared."""
        self.actor_layers = _hidden_layers(self.hidden)
        self.critic_layers = self.actor_layers if self.shared else _hidden_layers(self.hidden)
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

    def _through(self, layers: Sequence[nn.Dense], inputs: Array) -> Array:
        for layer in layers:
            inputs = _ACTIVATIONS[self.activation](layer(inputs))
        return inputs


class NatureCNN(ActorCriticNetwork):
    """Policy outputs and a value of frames: three convolutions and dense layers, which actor and critic share.

    Convolutions of ``widths`` channels, 8×8 with stride 4, 4×4 with stride 2 and 3×3 with stride 1, none padded, then
    dense layers, each with a ReLU (Mnih et al. 2015); two linear heads. GALA's network (appendix C.2, that of
    Dhariwal et al. 2017) has widths 32, 64, 64; its published program has 32 in the last. Weights start orthogonal as
    those of ``ActorCriticMLP`` do, a convolution's as the matrix [height·width·channel, output] that it is.

    Inputs are the bytes of ``Frames``, which the network divides by 255. ``precision`` is that of convolutions and
    hidden layers; parameters, heads and outputs are float32.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> frames = Frames(stack=4, height=84, width=84)
        >>> network = NatureCNN(frames, policy_outputs=6)
        >>> observation = jnp.zeros((5, frames.size), jnp.uint8)
        >>> params = network.init(jax.random.key(0), observation)
        >>> policy_outputs, value = network.outputs_of(params, observation)
        >>> policy_outputs.shape, value.shape
        ((5, 6), (5,))
    """

    frames: Frames
    policy_outputs: int
    widths: tuple[int, int, int] = (32, 64, 64)
    hidden: tuple[int, ...] = (512,)
    precision: Precision = "float32"

    def setup(self) -> None:
        """The layers, all of them shared but the heads."""
        self.convolutions = [
            _convolution(width, size, stride, self.precision)
            for width, (size, stride) in zip(self.widths, ((8, 4), (4, 2), (3, 1)), strict=True)
        ]
        self.hidden_layers = _hidden_layers(self.hidden, self.precision)
        self.policy_head = _orthogonal(self.policy_outputs, 0.01)
        self.value_head = _orthogonal(1, 1.0)

    def __call__(
        self, inputs: Real[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch outputs"], Float[Array, "*batch"]]:
        """Policy outputs and value for a batch of inputs."""
        features = self._features(inputs)
        return self.policy_head(features), self.value_head(features)[..., 0]

    def policy(self, inputs: Real[Array, "*batch features"]) -> Float[Array, "*batch outputs"]:
        """Policy outputs for a batch of inputs."""
        return self.policy_head(self._features(inputs))

    def value(self, inputs: Real[Array, "*batch features"]) -> Float[Array, "*batch"]:
        """Values of a batch of inputs."""
        return self.value_head(self._features(inputs))[..., 0]

    def _features(self, inputs: Array) -> Array:
        batch, frames = inputs.shape[:-1], self.frames
        images = inputs.reshape(math.prod(batch), frames.stack, frames.height, frames.width)
        # Channels last, bytes still: XLA rearranges convolutions on a CPU only where they are in no loop or branch,
        # and those that are and lie otherwise take dozens of times as long.
        x = images.transpose(0, 2, 3, 1).astype(self.precision) / 255
        for convolution in self.convolutions:
            x = nn.relu(convolution(x))
        x = x.reshape(*batch, math.prod(x.shape[1:]))
        for layer in self.hidden_layers:
            x = nn.relu(layer(x))
        return x.astype(jnp.float32)


SMALLEST_IMAGE = 36  # pixels each way that NatureCNN's convolutions need: 36 → 8 → 3 → 1


@partial(jax.jit, static_argnames=("rows", "columns"))
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


def _hidden_layers(widths: Sequence[int], precision: Precision = "float32") -> list[nn.Dense]:
    return [_orthogonal(width, math.sqrt(2), precision) for width in widths]


def _convolution(width: int, size: int, stride: int, precision: Precision) -> nn.Conv:
    return nn.Conv(
        width,
        kernel_size=(size, size),
        strides=(stride, stride),
        padding="VALID",
        kernel_init=_orthogonal_kernel(math.sqrt(2)),
        dtype=precision,
    )


def _orthogonal(width: int, scale: float, precision: Precision = "float32") -> nn.Dense:
    return nn.Dense(width, kernel_init=_orthogonal_kernel(scale), dtype=precision)


def _orthogonal_kernel(scale: float) -> Callable[..., Array]:
    """An initialiser of kernels whose last axis is that of outputs."""

    def kernel(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        matrix = scale * orthogonal(key, math.prod(shape[:-1]), shape[-1])
        return matrix.reshape(shape).astype(dtype)

    return kernel
