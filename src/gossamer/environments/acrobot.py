"""Extreme Acrobot: two links in a row that hang from a fixed hinge, with a motor only at the joint between them.

The dynamics are those of Gymnasium's Acrobot-v1, the "book" ones. Length, mass and inertia of the links vary
between tasks, as in Packer et al. (2018). Time limits, batches and policies are other modules' business.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gossamer.environments.protocol import Step
from gossamer.environments.tasks import Parameter, TaskSet
from gossamer.errors import require_at_least, require_non_negative, require_positive, require_within
from gossamer.types import Discrete, Key


class AcrobotTask(NamedTuple):
    """Length of the first link (m), and mass (kg) and moment of inertia (kg·m²) of each of the two.

    The equations have no length of the second link.
    """

    length: Parameter
    mass: Parameter
    inertia: Parameter


class AcrobotState(NamedTuple):
    """Angles (rad) of the shoulder, 0 hanging down, and of the elbow, 0 straight; and their velocities (rad/s).

    The elbow's angle is relative to the first link. A step leaves both angles in [−π, π].
    """

    shoulder_angle: Float[Array, ""]
    elbow_angle: Float[Array, ""]
    shoulder_velocity: Float[Array, ""]
    elbow_velocity: Float[Array, ""]


EASY = AcrobotTask(length=0.7046, mass=0.5259, inertia=0.6346)
"""Held out from training: short light links."""

HARD = AcrobotTask(length=1.3963, mass=1.3929, inertia=0.6256)
"""Held out from training: long heavy links."""


@dataclass(frozen=True)
class Acrobot:
    """Swing the tip of the second link above a height, as soon as possible.

    An action is one of three torques at the elbow: 0 pushes with −``torque``, 1 lets go, 2 pushes with +``torque``;
    other numbers are not checked for. A step is worth −1, and 0 if it reaches −cos θ₁ − cos(θ₁ + θ₂) >
    ``goal_height``, which terminates the episode. Height does not depend on the task: it counts both links as 1.

    Args:
        gravity: m/s².
        timestep: seconds between two states, one fourth-order Runge-Kutta step.
        torque: N·m.
        centre_of_mass: of either link, m from its upper end.
        max_shoulder_speed: rad/s.
        max_elbow_speed: rad/s.
        goal_height: above the hinge, in links; hanging is −2, upright 2.
        initial_spread: of the initial state around hanging at rest, in rad and rad/s alike.
        max_steps: the time limit.
        task_seed: decides the tasks of a :meth:`task_set` of more than one.

    Raises:
        InputError: if a constant is not a positive, finite number (``initial_spread`` may be 0, ``goal_height``
            anything from −2 to 2), or ``task_seed`` is negative.

    Example:
        >>> import jax
        >>> environment = Acrobot()
        >>> task = AcrobotTask(length=1.0, mass=1.0, inertia=1.0)
        >>> state = environment.reset(jax.random.key(0), task)
        >>> environment.observe(state, task).shape
        (6,)
    """

    gravity: float = 9.8
    timestep: float = 0.2
    torque: float = 1.0
    centre_of_mass: float = 0.5
    max_shoulder_speed: float = 4 * math.pi
    max_elbow_speed: float = 9 * math.pi
    goal_height: float = 1.0
    initial_spread: float = 0.1
    max_steps: int = 500
    task_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("gravity", "timestep", "torque", "centre_of_mass"):
            require_positive(name, getattr(self, name))
        for name in ("max_shoulder_speed", "max_elbow_speed"):
            require_positive(name, getattr(self, name))
        require_within("goal_height", self.goal_height, -2, 2)
        require_non_negative("initial_spread", self.initial_spread)
        require_at_least("max_steps", self.max_steps, 1)
        require_at_least("task_seed", self.task_seed, 0)

    @property
    def observation_size(self) -> int:
        """Six: cosine and sine of each angle, and the two velocities."""
        return 6

    @property
    def action_space(self) -> Discrete:
        """One of three torques.

        Example:
            >>> Acrobot().action_space
            Discrete(size=3)
        """
        return Discrete(3)

    def task_set(self, count: int) -> TaskSet:
        """One task is (1, 1, 1); more are drawn by ``task_seed`` alone, the first k of any number being the same.

        Length, mass and inertia are independent of each other, each uniform over [0.5, 0.75] ∪ [1.25, 1.5] and
        rounded to four decimals: Packer et al.'s extreme environments.

        Raises:
            InputError: if ``count`` is below 1.

        Example:
            >>> Acrobot().task_set(25).describe(0)
            'length 0.507, mass 0.6289, inertia 0.7358'
        """
        require_at_least("the number of tasks", count, 1)
        if count == 1:
            return TaskSet((AcrobotTask(length=1.0, mass=1.0, inertia=1.0),))
        draws = np.random.Generator(np.random.Philox(self.task_seed)).random((count, 3))
        return TaskSet(tuple(AcrobotTask(*row) for row in _extreme(draws).tolist()))

    def held_out(self) -> dict[str, TaskSet]:
        """The two test tasks of Diff-DAC, each a set of its own, for zero-shot evaluation.

        Example:
            >>> Acrobot().held_out()["easy"].describe(0)
            'length 0.7046, mass 0.5259, inertia 0.6346'
        """
        return {"easy": TaskSet((EASY,)), "hard": TaskSet((HARD,))}

    def reset(self, key: Key, task: AcrobotTask) -> AcrobotState:
        """Hanging at rest, each component off by a uniform draw within ±``initial_spread``."""
        spread = self.initial_spread
        return AcrobotState(*jax.random.uniform(key, (4,), minval=-spread, maxval=spread))

    def observe(self, state: AcrobotState, task: AcrobotTask) -> Float[Array, " observation"]:
        """[cos θ₁, sin θ₁, cos θ₂, sin θ₂, θ̇₁, θ̇₂], not scaled."""
        shoulder_sine, shoulder_cosine = _sine_and_cosine(state.shoulder_angle)
        elbow_sine, elbow_cosine = _sine_and_cosine(state.elbow_angle)
        circle = (shoulder_cosine, shoulder_sine, elbow_cosine, elbow_sine)
        parts = (*circle, state.shoulder_velocity, state.elbow_velocity)
        # Multiples of unit vectors, not a stack: for every part of a stack, XLA on a CPU would compute the step
        # that led to the state anew, which halved the speed of collecting experience.
        units = jnp.eye(len(parts), dtype=state.shoulder_angle.dtype)
        return jnp.asarray(sum(part * unit for part, unit in zip(parts, units, strict=True)))

    def step(self, key: Key, state: AcrobotState, action: Int[Array, ""], task: AcrobotTask) -> Step:
        """One ``timestep`` at a constant torque; the reward is that of the state it leads to."""
        torque = self.torque * (action.astype(state.elbow_velocity.dtype) - 1.0)
        links = _links(task, self.centre_of_mass, self.gravity)
        rate = partial(_rate_of_change, torque=torque, links=links)
        following = self._within_bounds(_runge_kutta(rate, state, self.timestep))
        reached = self._reached(following)
        return Step(following, reward=reached.astype(torque.dtype) - 1.0, terminated=reached)

    def _within_bounds(self, state: AcrobotState) -> AcrobotState:
        return AcrobotState(
            shoulder_angle=_wrap(state.shoulder_angle),
            elbow_angle=_wrap(state.elbow_angle),
            shoulder_velocity=_clip(state.shoulder_velocity, self.max_shoulder_speed),
            elbow_velocity=_clip(state.elbow_velocity, self.max_elbow_speed),
        )

    def _reached(self, state: AcrobotState) -> Bool[Array, ""]:
        _, upper = _sine_and_cosine(state.shoulder_angle)
        _, lower = _sine_and_cosine(state.shoulder_angle + state.elbow_angle)
        return -upper - lower > self.goal_height


def _extreme(draws: Float[np.ndarray, "task parameter"]) -> Float[np.ndarray, "task parameter"]:
    """[0, 1) onto [0.5, 0.75] and [1.25, 1.5], half of it each."""
    return np.round(0.5 + draws / 2 + np.where(draws < 0.5, 0.0, 0.5), 4)


class _Links(NamedTuple):
    """What follows from a task and does not change within a step; d₃ is ``elbow_inertia``."""

    coupling: Parameter
    elbow_inertia: Parameter
    shoulder_inertia: Parameter
    elbow_weight: Parameter
    shoulder_weight: Parameter


def _links(task: AcrobotTask, centre_of_mass: float, gravity: float) -> _Links:
    length, mass, inertia = task
    elbow_inertia = mass * centre_of_mass**2 + inertia
    return _Links(
        coupling=mass * length * centre_of_mass,
        elbow_inertia=elbow_inertia,
        shoulder_inertia=2.0 * elbow_inertia + mass * length**2,
        elbow_weight=mass * gravity * centre_of_mass,
        shoulder_weight=mass * gravity * (centre_of_mass + length),
    )


def _rate_of_change(state: AcrobotState, torque: Float[Array, ""], links: _Links) -> AcrobotState:
    """The equations of motion, with l, m, I of the task, c for the centres of mass, τ for the torque.

    d₁ θ̈₁ + d₂ θ̈₂ = m l c sin θ₂ · θ̇₂ (θ̇₂ + 2 θ̇₁) − m g (c + l) sin θ₁ − φ;
    d₂ θ̈₁ + d₃ θ̈₂ = τ − m l c sin θ₂ · θ̇₁² − φ;  φ = m g c sin(θ₁ + θ₂);
    d₁ = m (2 c² + l² + 2 l c cos θ₂) + 2 I;  d₂ = d₃ + m l c cos θ₂;  d₃ = m c² + I.
    """
    shoulder_angle, elbow_angle, shoulder_velocity, elbow_velocity = state
    sine, cosine = _sine_and_cosine(shoulder_angle)
    elbow_sine, elbow_cosine = _sine_and_cosine(elbow_angle)
    d1 = links.shoulder_inertia + 2.0 * links.coupling * elbow_cosine
    d2 = links.elbow_inertia + links.coupling * elbow_cosine
    phi = links.elbow_weight * (sine * elbow_cosine + cosine * elbow_sine)
    twist = links.coupling * elbow_sine
    shoulder_torque = (
        twist * elbow_velocity * (elbow_velocity + 2.0 * shoulder_velocity)
        - links.shoulder_weight * sine
        - phi
    )
    elbow_torque = torque - twist * shoulder_velocity**2 - phi
    # Cramer's rule: one division.
    scale = 1.0 / (d1 * links.elbow_inertia - d2**2)
    shoulder_acceleration = scale * (links.elbow_inertia * shoulder_torque - d2 * elbow_torque)
    elbow_acceleration = scale * (d1 * elbow_torque - d2 * shoulder_torque)
    return AcrobotState(shoulder_velocity, elbow_velocity, shoulder_acceleration, elbow_acceleration)


def _runge_kutta(
    rate: Callable[[AcrobotState], AcrobotState], state: AcrobotState, timestep: float
) -> AcrobotState:
    """One step of the classical fourth-order method."""
    first = rate(state)
    second = rate(_along(state, first, timestep / 2))
    third = rate(_along(state, second, timestep / 2))
    fourth = rate(_along(state, third, timestep))
    mean = ((a + 2.0 * (b + c) + d) / 6.0 for a, b, c, d in zip(first, second, third, fourth, strict=True))
    return _along(state, AcrobotState(*mean), timestep)


def _along(state: AcrobotState, rate: AcrobotState, time: float) -> AcrobotState:
    return AcrobotState(*(x + time * y for x, y in zip(state, rate, strict=True)))


def _wrap(angle: Float[Array, ""]) -> Float[Array, ""]:
    # Rounding, not a remainder, which is slower on a CPU.
    return angle - 2 * math.pi * jnp.round(angle / (2 * math.pi))


def _clip(velocity: Float[Array, ""], bound: float) -> Float[Array, ""]:
    return jnp.clip(velocity, -bound, bound)


def _sine_and_cosine(angle: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Both to rounding, from their Taylor series at half the angle, wrapped into [−π/2, π/2].

    sin x = 2 sin(x/2) cos(x/2);  cos x = 1 − 2 sin²(x/2). It is for angles of a few turns.
    """
    # jnp.sin and jnp.cos cost XLA on a CPU one call of a scalar function per angle: the whole step took
    # three times as long.
    half = angle / 2
    half = half - math.pi * jnp.round(half / math.pi)
    # The first term left out is (π/2)¹⁴/14! = 6e-9, or (π/2)²²/22! = 2e-17.
    terms = 7 if angle.dtype == jnp.float32 else 11
    square = half**2
    sine, cosine = half * _series(square, terms, first=1), _series(square, terms, first=0)
    return 2.0 * sine * cosine, 1.0 - 2.0 * sine**2


def _series(square: Float[Array, ""], terms: int, first: int) -> Float[Array, ""]:
    """Σ (−x²)ᵏ/(2k + ``first``)!, by Horner's scheme."""
    total = jnp.zeros_like(square)
    for term in reversed(range(terms)):
        total = total * square + (-1) ** term / math.factorial(2 * term + first)
    return total
