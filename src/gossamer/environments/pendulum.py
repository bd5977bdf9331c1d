"""The inverted pendulum: a rigid pole on a motor too weak to lift it in one swing.

The dynamics are those of Gymnasium's Pendulum-v1. The mass and the length vary between tasks. Time limits,
batches and policies are other modules' business.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gossamer.environments.protocol import Step
from gossamer.environments.tasks import Parameter, TaskSet
from gossamer.errors import require_at_least, require_positive
from gossamer.types import Box, Key


class PendulumTask(NamedTuple):
    """Mass of the pole (kg) and its length (m)."""

    mass: Parameter
    length: Parameter


class PendulumState(NamedTuple):
    """Angle from upright (rad, not wrapped) and its velocity (rad/s)."""

    angle: Float[Array, ""]
    velocity: Float[Array, ""]


@dataclass(frozen=True)
class Pendulum:
    """Swing a pendulum up and hold it there; an action is a torque in N·m, clipped to ±``max_torque``.

    θ̈ = 3g/(2l) · sin θ + 3u/(m l²), semi-implicit Euler, |θ̇| ≤ ``max_speed``; observation [cos θ, sin θ, θ̇].
    An episode starts anywhere on the circle and never terminates.

    Args:
        gravity: g in m/s².
        timestep: seconds between two states.
        max_torque: N·m.
        max_speed: rad/s.
        max_steps: the time limit.

    Raises:
        InputError: if a constant is not a positive, finite number.

    Example:
        >>> import jax
        >>> environment = Pendulum()
        >>> task = PendulumTask(mass=1.0, length=1.0)
        >>> state = environment.reset(jax.random.key(0), task)
        >>> environment.observe(state, task).shape
        (3,)
    """

    gravity: float = 10.0
    timestep: float = 0.05
    max_torque: float = 2.0
    max_speed: float = 8.0
    max_steps: int = 200

    def __post_init__(self) -> None:
        for name in ("gravity", "timestep", "max_torque", "max_speed"):
            require_positive(name, getattr(self, name))
        require_at_least("max_steps", self.max_steps, 1)

    @property
    def observation_size(self) -> int:
        """Three: cosine and sine of the angle, and its velocity."""
        return 3

    @property
    def action_space(self) -> Box:
        """One torque in N·m.

        Example:
            >>> Pendulum().action_space
            Box(size=1, bound=2.0)
        """
        return Box(size=1, bound=self.max_torque)

    def task_set(self, count: int) -> TaskSet:
        """Tasks over mass × length in [0.8, 1.2] kg × [0.8, 1.2] m; 25 are those of Diff-DAC, appendix A.1.

        Raises:
            InputError: if ``count`` is below 1.

        Example:
            >>> Pendulum().task_set(25).describe(24)
            'mass 1.2, length 1.2'
        """
        single = PendulumTask(mass=1.0, length=1.0)
        return TaskSet.grid(PendulumTask, count, single, mass=(0.8, 1.2), length=(0.8, 1.2))

    def reset(self, key: Key, task: PendulumTask) -> PendulumState:
        """θ uniform in [−π, π] rad and θ̇ in [−1, 1] rad/s."""
        angle, velocity = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        return PendulumState(angle=math.pi * angle, velocity=velocity)

    def observe(self, state: PendulumState, task: PendulumTask) -> Float[Array, " observation"]:
        """[cos θ, sin θ, θ̇], not scaled."""
        return jnp.stack([jnp.cos(state.angle), jnp.sin(state.angle), state.velocity])

    def step(
        self, key: Key, state: PendulumState, action: Float[Array, " action"], task: PendulumTask
    ) -> Step:
        """One ``timestep``; the reward −(wrap(θ)² + 0.1 θ̇² + 0.001 u²) is that of the state before it."""
        torque = jnp.clip(action[0], -self.max_torque, self.max_torque)
        reward = -(_wrap(state.angle) ** 2 + 0.1 * state.velocity**2 + 0.001 * torque**2)
        acceleration = 1.5 * self.gravity / task.length * jnp.sin(state.angle) + 3.0 * torque / (
            task.mass * task.length**2
        )
        velocity = state.velocity + self.timestep * acceleration
        velocity = jnp.clip(velocity, -self.max_speed, self.max_speed)
        angle = state.angle + self.timestep * velocity
        return Step(PendulumState(angle, velocity), reward, terminated=jnp.zeros((), dtype=bool))


def _wrap(angle: Float[Array, ""]) -> Float[Array, ""]:
    # Rounding, not a remainder, which made the whole step a quarter slower on a CPU.
    return angle - 2 * math.pi * jnp.round(angle / (2 * math.pi))
