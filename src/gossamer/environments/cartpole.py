"""A pole hinged on a cart that is pushed along a track: swing it up, or keep it balanced.

The equations are those of Gymnasium's CartPole, written once for both, with a continuous force. The mass and
the half-length of the pole vary between tasks. There is no friction anywhere.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gossamer.environments.protocol import Step
from gossamer.environments.tasks import Parameter, TaskSet
from gossamer.errors import require_at_least, require_non_negative, require_positive
from gossamer.types import Box, Key


class CartPoleTask(NamedTuple):
    """Mass of the pole (kg) and half its length (m): the distance from hinge to centre of mass."""

    pole_mass: Parameter
    half_length: Parameter


class CartPoleState(NamedTuple):
    """Of the cart: position (m), velocity (m/s). Of the pole: angle (rad), angular velocity (rad/s).

    The angle is 0 upright, positive where the pole leans to +x, and not wrapped.
    """

    position: Float[Array, ""]
    velocity: Float[Array, ""]
    angle: Float[Array, ""]
    angular_velocity: Float[Array, ""]


@dataclass(frozen=True)
class CartPoleSwingUp:
    """Swing a hanging pole up and hold it over the centre of the track.

    An action is a force in N, clipped to ±``max_force``. The track has no ends, and an episode never
    terminates. Masses, lengths and the reward are those of Diff-DAC, appendix A.1; the rest, on which it is
    silent, is Gymnasium's.

    Args:
        cart_mass: kg.
        gravity: m/s².
        timestep: seconds between two states.
        max_force: N.
        initial_spread: of the initial state around hanging at rest, in m, m/s, rad and rad/s alike.
        max_steps: the time limit.

    Raises:
        InputError: if a constant is not a positive, finite number (``initial_spread`` may be 0).

    Example:
        >>> import jax
        >>> environment = CartPoleSwingUp()
        >>> task = CartPoleTask(pole_mass=0.5, half_length=0.25)
        >>> state = environment.reset(jax.random.key(0), task)
        >>> environment.observe(state, task).shape
        (5,)
    """

    cart_mass: float = 0.5
    gravity: float = 9.8
    timestep: float = 0.02
    max_force: float = 10.0
    initial_spread: float = 0.05
    max_steps: int = 200

    def __post_init__(self) -> None:
        for name in ("cart_mass", "gravity", "timestep", "max_force"):
            require_positive(name, getattr(self, name))
        require_non_negative("initial_spread", self.initial_spread)
        require_at_least("max_steps", self.max_steps, 1)

    @property
    def observation_size(self) -> int:
        """Five: position, velocity, cosine and sine of the angle, and its velocity."""
        return 5

    @property
    def action_space(self) -> Box:
        """One force in N.

        Example:
            >>> CartPoleSwingUp().action_space
            Box(size=1, bound=10.0)
        """
        return Box(size=1, bound=self.max_force)

    def task_set(self, count: int) -> TaskSet:
        """Tasks over pole mass × half-length in [0.1, 0.5] kg × [0.2, 1.0] m.

        25 tasks are those of Diff-DAC, appendix A.1, and so is the single one.

        Raises:
            InputError: if ``count`` is below 1.

        Example:
            >>> CartPoleSwingUp().task_set(25).describe(24)
            'pole_mass 0.5, half_length 1.0'
        """
        single = CartPoleTask(pole_mass=0.5, half_length=0.25)
        return TaskSet.grid(CartPoleTask, count, single, pole_mass=(0.1, 0.5), half_length=(0.2, 1.0))

    def reset(self, key: Key, task: CartPoleTask) -> CartPoleState:
        """At rest with the pole hanging, each component off by a uniform draw within ±``initial_spread``."""
        start = _near_upright(key, self.initial_spread)
        return start._replace(angle=start.angle + math.pi)

    def observe(self, state: CartPoleState, task: CartPoleTask) -> Float[Array, " observation"]:
        """[x, ẋ, cos θ, sin θ, θ̇], not scaled."""
        position, velocity, angle, angular_velocity = state
        return jnp.stack([position, velocity, jnp.cos(angle), jnp.sin(angle), angular_velocity])

    def step(
        self, key: Key, state: CartPoleState, action: Float[Array, " action"], task: CartPoleTask
    ) -> Step:
        """One ``timestep``; the reward is that of the state before it.

        r = 2/(1 + e^d) + cos θ in (−1, 2], where d is the distance (m) of the pole's tip from where it
        is when the pole stands upright on a cart at x = 0: d² = (x + 2l sin θ)² + (2l)² (1 − cos θ)².
        """
        sine, cosine = jnp.sin(state.angle), jnp.cos(state.angle)
        pole_length = 2.0 * task.half_length
        distance = jnp.sqrt((state.position + pole_length * sine) ** 2 + (pole_length * (1.0 - cosine)) ** 2)
        reward = 2.0 * jax.nn.sigmoid(-distance) + cosine
        force = jnp.clip(action[0], -self.max_force, self.max_force)
        following = _advance(state, force, task, self.cart_mass, self.gravity, self.timestep)
        return Step(following, reward, terminated=jnp.zeros((), dtype=bool))


@dataclass(frozen=True)
class CartPoleBalance:
    """Keep a pole upright on a track of finite length.

    An action is a force in N, clipped to ±``max_force``. Every step, the failing one included, is worth 1, so
    that the best return is ``max_steps``. An episode starts near upright at the centre, and terminates once
    |θ| > ``max_angle`` or |x| > ``max_position``. Diff-DAC, appendix A.2.

    Args:
        cart_mass: kg.
        gravity: m/s².
        timestep: seconds between two states.
        max_force: N.
        initial_spread: of the initial state around upright at rest, in m, m/s, rad and rad/s alike.
        max_angle: rad.
        max_position: m.
        max_steps: the time limit.

    Raises:
        InputError: if a constant is not a positive, finite number (``initial_spread`` may be 0).

    Example:
        >>> import jax
        >>> environment = CartPoleBalance()
        >>> task = CartPoleTask(pole_mass=0.1, half_length=0.5)
        >>> state = environment.reset(jax.random.key(0), task)
        >>> environment.observe(state, task).shape
        (4,)
    """

    cart_mass: float = 1.0
    gravity: float = 9.8
    timestep: float = 0.02
    max_force: float = 10.0
    initial_spread: float = 0.05
    max_angle: float = math.radians(12)
    max_position: float = 2.4
    max_steps: int = 200

    def __post_init__(self) -> None:
        for name in ("cart_mass", "gravity", "timestep", "max_force", "max_angle", "max_position"):
            require_positive(name, getattr(self, name))
        require_non_negative("initial_spread", self.initial_spread)
        require_at_least("max_steps", self.max_steps, 1)

    @property
    def observation_size(self) -> int:
        """Four: the state."""
        return 4

    @property
    def action_space(self) -> Box:
        """One force in N.

        Example:
            >>> CartPoleBalance().action_space
            Box(size=1, bound=10.0)
        """
        return Box(size=1, bound=self.max_force)

    def task_set(self, count: int) -> TaskSet:
        """Tasks over pole mass × half-length in [0.1, 1] kg × [0.05, 0.5] m.

        25 tasks are those of Diff-DAC, appendix A.2, and so is the single one. The appendix calls the varied
        number a length and the single task's a half-length; both are half-lengths here.

        Raises:
            InputError: if ``count`` is below 1.

        Example:
            >>> CartPoleBalance().task_set(25).describe(1)
            'pole_mass 0.1, half_length 0.1625'
        """
        single = CartPoleTask(pole_mass=0.1, half_length=0.5)
        return TaskSet.grid(CartPoleTask, count, single, pole_mass=(0.1, 1.0), half_length=(0.05, 0.5))

    def reset(self, key: Key, task: CartPoleTask) -> CartPoleState:
        """Every component uniform within ±``initial_spread``."""
        return _near_upright(key, self.initial_spread)

    def observe(self, state: CartPoleState, task: CartPoleTask) -> Float[Array, " observation"]:
        """[x, ẋ, θ, θ̇], not scaled."""
        return jnp.stack(state)

    def step(
        self, key: Key, state: CartPoleState, action: Float[Array, " action"], task: CartPoleTask
    ) -> Step:
        """One ``timestep``, worth 1; it terminates if the state it leads to is out of bounds."""
        force = jnp.clip(action[0], -self.max_force, self.max_force)
        following = _advance(state, force, task, self.cart_mass, self.gravity, self.timestep)
        fallen = jnp.abs(following.angle) > self.max_angle
        left = jnp.abs(following.position) > self.max_position
        return Step(following, reward=jnp.ones_like(state.angle), terminated=fallen | left)


def _near_upright(key: Key, spread: float) -> CartPoleState:
    position, velocity, angle, angular_velocity = jax.random.uniform(key, (4,), minval=-spread, maxval=spread)
    return CartPoleState(position, velocity, angle, angular_velocity)


def _advance(
    state: CartPoleState,
    force: Float[Array, ""],
    task: CartPoleTask,
    cart_mass: float,
    gravity: float,
    timestep: float,
) -> CartPoleState:
    """The state one explicit Euler step later: half-length l, pole mass m, cart mass M, no friction.

    T = (F + m l θ̇² sin θ)/(m + M);  θ̈ = (g sin θ − cos θ · T)/(l (4/3 − m cos²θ/(m + M)));
    ẍ = T − m l θ̈ cos θ/(m + M).
    """
    position, velocity, angle, angular_velocity = state
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    mass_ratio = task.pole_mass / (task.pole_mass + cart_mass)
    thrust = force / (task.pole_mass + cart_mass) + mass_ratio * task.half_length * angular_velocity**2 * sine
    angular_acceleration = (gravity * sine - cosine * thrust) / (
        task.half_length * (4.0 / 3.0 - mass_ratio * cosine**2)
    )
    acceleration = thrust - mass_ratio * task.half_length * angular_acceleration * cosine
    return CartPoleState(
        position=position + timestep * velocity,
        velocity=velocity + timestep * acceleration,
        angle=angle + timestep * angular_velocity,
        angular_velocity=angular_velocity + timestep * angular_acceleration,
    )
