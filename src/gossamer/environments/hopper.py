"""MuJoCo's Hopper, a one-legged robot that is to hop forward: its mass, or the wind, varies between tasks.

The physics is that of the package mujoco, stepped in C by a pool of threads; what is learned is not its business.
"""

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from gossamer.environments.protocol import HostStep, Simulators
from gossamer.environments.tasks import TaskSet
from gossamer.errors import InputError, require_at_least, require_choice
from gossamer.types import Box


class HopperMassTask(NamedTuple):
    """What the masses of all bodies are multiplied by; 1 is Gymnasium's Hopper."""

    mass_scale: Any


class HopperWindTask(NamedTuple):
    """The wind along x, where the robot is to go, and along y (m/s)."""

    wind_x: Any
    wind_y: Any


class HopperState(NamedTuple):
    """Everything that going on exactly needs of running Hoppers.

    ``physics`` is MuJoCo's integration state, warm start included; ``elapsed`` counts the steps of the episode,
    ``episodes`` the episodes that were started, each of which has its own random numbers.
    """

    physics: Float[np.ndarray, "simulator physics"]
    elapsed: Int[np.ndarray, " simulator"]
    episodes: Int[np.ndarray, " simulator"]


@dataclass(frozen=True)
class Hopper(ABC):
    """What both families share: robot, observation, reward and end of an episode are those of Gymnasium's Hopper.

    A step is 4 steps of MuJoCo, 0.008 s. An action is three torques in [-1, 1], in units of 200 N·m; MuJoCo clips
    what it applies, while the reward charges for the action as it was given:

        r = Δx / 0.008 s + 1 − 10⁻³ ‖a‖²

    An episode terminates once the torso is at most 0.7 m high or tilted by 0.2 rad or more, or a component of the
    state after the first two reaches ±100. It starts within ±0.005 of standing still. The observation is height
    (m), tilt and three joint angles (rad), and the six velocities (m/s, rad/s) clipped to ±10.
    """

    preset: Literal["paper", "published_code"] = "paper"
    legacy_healthy_reward: bool = True
    task_seed: int = 0
    max_steps: int = 1000

    def __post_init__(self) -> None:
        require_choice("preset", self.preset, tuple(_PRESETS))
        require_at_least("task_seed", self.task_seed, 0)
        require_at_least("max_steps", self.max_steps, 1)

    @property
    def observation_size(self) -> int:
        """Eleven: five positions and six velocities; how far it went is not seen."""
        return 11

    @property
    def action_space(self) -> Box:
        """Torques at thigh, leg and foot, in units of 200 N·m.

        Example:
            >>> HopperWind().action_space
            Box(size=3, bound=1.0)
        """
        return Box(size=3, bound=1.0)

    @abstractmethod
    def task_set(self, count: int) -> TaskSet:
        """The family's ``count`` tasks; ``count=1`` is its standard single task."""

    @abstractmethod
    def modify(self, model: Any, task: Any) -> None:
        """Make MuJoCo's model of Gymnasium's Hopper that of a task of plain numbers, in place."""

    def simulate(self, tasks: Any, streams: Int[np.ndarray, "simulator 3"]) -> Simulators:
        """One Hopper for each task, on as many threads as there are processors; their number changes no result.

        Args:
            tasks: a task of arrays ``[simulator]``.
            streams: (seed, agent, env) of each, none negative: where its random numbers come from.

        Raises:
            InputError: if mujoco or gymnasium is not installed.
        """
        columns = (np.asarray(column, dtype=np.float64).tolist() for column in tasks)
        models = self._models(type(tasks)(*values) for values in zip(*columns, strict=True))
        return _Hoppers(models, streams, self.max_steps, self.legacy_healthy_reward)

    def _models(self, tasks: Iterable[Any]) -> list[Any]:
        mujoco = _import_mujoco()
        original = mujoco.MjModel.from_xml_path(str(_asset()))
        models = []
        for task in tasks:
            model = copy.copy(original)
            self.modify(model, task)
            # What MuJoCo derives from masses, such as how soft a contact is, follows the change.
            mujoco.mj_setConst(model, mujoco.MjData(model))
            models.append(model)
        return models


@dataclass(frozen=True)
class HopperMass(Hopper):
    """Hoppers of different mass; the single task is Gymnasium's own Hopper under the preset ``paper``.

    Masses are multiplied by s = low + (high − low) · Beta(0.1, 0.1), which is mostly near one of the ends:

        preset            s             inertia           surroundings
        paper             [0.05, 0.95]  multiplied by s   none
        published_code    [0.05, 1.95]  as it was         air: 1.2 kg/m³, 2e-4 Pa·s

    MuJoCo computes drag from a box of the body's mass and inertia. With the published code's inertia that box
    grows as the mass falls, until drag can exceed the weight of the lightest robot.

    Args:
        preset: the column of the table above.
        legacy_healthy_reward: whether the failing step earns the +1 too (Gymnasium's Hopper-v4 and before,
            those of the paper's time) or not (v5).
        task_seed: where the tasks come from; they depend on nothing else.
        max_steps: the time limit.

    Raises:
        InputError: for an unknown preset, a negative ``task_seed``, or ``max_steps`` below 1.

    Example:
        >>> HopperMass().task_set(1).describe(0)
        'mass_scale 1.0'
    """

    def task_set(self, count: int) -> TaskSet:
        """``count`` draws, the first of which are those of a smaller count; one task is the unchanged Hopper.

        Raises:
            InputError: if ``count`` is below 1.

        Example:
            >>> HopperMass().task_set(25).tasks[:2] == HopperMass().task_set(2).tasks
            True
        """
        require_at_least("the number of tasks", count, 1)
        if count == 1:
            return TaskSet((HopperMassTask(mass_scale=1.0),))
        low, high = _PRESETS[self.preset].mass_range
        draws = _task_generator(self.task_seed, family=0).beta(0.1, 0.1, size=count)
        return TaskSet(tuple(HopperMassTask(float(low + (high - low) * draw)) for draw in draws))

    def modify(self, model: Any, task: HopperMassTask) -> None:
        """Multiply the masses, and what the preset says."""
        preset = _PRESETS[self.preset]
        model.body_mass[:] *= task.mass_scale
        if preset.scale_inertia:
            model.body_inertia[:] *= task.mass_scale
        if preset.mass_in_air:
            model.opt.density, model.opt.viscosity = _AIR_DENSITY, preset.viscosity


@dataclass(frozen=True)
class HopperWind(Hopper):
    """Hoppers in different winds, in air of 1.2 kg/m³; the single task has still air, and so some drag.

    Both components are 30 · (Beta(0.4, 0.4) − 0.5) m/s, in [-15, 15]. The robot moves in the plane of x and z,
    so ``wind_y`` has exactly no effect; it is kept because the paper varies it. The viscosity is 2e-5 Pa·s under
    the preset ``paper`` and 2e-4 under ``published_code``.

    Args:
        preset: the viscosity, see above.
        legacy_healthy_reward: whether the failing step earns the +1 too (Gymnasium's Hopper-v4 and before,
            those of the paper's time) or not (v5).
        task_seed: where the tasks come from; they depend on nothing else.
        max_steps: the time limit.

    Raises:
        InputError: for an unknown preset, a negative ``task_seed``, or ``max_steps`` below 1.

    Example:
        >>> HopperWind().task_set(1).describe(0)
        'wind_x 0.0, wind_y 0.0'
    """

    def task_set(self, count: int) -> TaskSet:
        """``count`` draws, the first of which are those of a smaller count; one task has no wind.

        Raises:
            InputError: if ``count`` is below 1.

        Example:
            >>> HopperWind().task_set(25).tasks[:2] == HopperWind().task_set(2).tasks
            True
        """
        require_at_least("the number of tasks", count, 1)
        if count == 1:
            return TaskSet((HopperWindTask(wind_x=0.0, wind_y=0.0),))
        draws = _task_generator(self.task_seed, family=1).beta(0.4, 0.4, size=(count, 2))
        return TaskSet(tuple(HopperWindTask(*wind) for wind in (30.0 * (draws - 0.5)).tolist()))

    def modify(self, model: Any, task: HopperWindTask) -> None:
        """Fill the surroundings with moving air; without a density MuJoCo ignores the wind."""
        model.opt.density, model.opt.viscosity = _AIR_DENSITY, _PRESETS[self.preset].viscosity
        model.opt.wind[:] = task.wind_x, task.wind_y, 0.0


class _Preset(NamedTuple):
    mass_range: tuple[float, float]
    scale_inertia: bool
    mass_in_air: bool
    viscosity: float


_PRESETS = {
    "paper": _Preset((0.05, 0.95), scale_inertia=True, mass_in_air=False, viscosity=2e-5),
    "published_code": _Preset((0.05, 1.95), scale_inertia=False, mass_in_air=True, viscosity=2e-4),
}
_AIR_DENSITY = 1.2
_FRAME_SKIP = 4
_RESET_NOISE = 5e-3


class _Hoppers:
    """Running Hoppers. Everything that changes is in ``batch.state`` and the two counters."""

    def __init__(
        self,
        models: list[Any],
        streams: Int[np.ndarray, "simulator 3"],
        max_steps: int,
        legacy_healthy_reward: bool,
    ) -> None:
        # Batch, not mujoco.rollout: rollout drops the warm start, and was slower on two cores.
        self._batch = _import_mujoco().batch.Batch(
            models[0], len(models), nthread=min(len(models), os.cpu_count() or 1)
        )
        self._batch.set_models(models)
        self._position, self._velocity = self._batch.bind("qpos"), self._batch.bind("qvel")
        self._streams = streams
        self._step_seconds = models[0].opt.timestep * _FRAME_SKIP
        self._max_steps = max_steps
        self._legacy_healthy_reward = legacy_healthy_reward
        self._elapsed = np.zeros(len(models), dtype=np.int64)
        self._episodes = np.zeros(len(models), dtype=np.int64)

    def reset(self, which: Bool[np.ndarray, " simulator"]) -> Float[np.ndarray, "simulator observation"]:
        self._batch.reset(which, stage=_import_mujoco().mjtStage.mjSTAGE_NONE)
        positions = self._position.shape[1]
        for simulator in np.flatnonzero(which).tolist():
            noise = self._start_noise(simulator)
            self._position[simulator] += noise[:positions]
            self._velocity[simulator] += noise[positions:]
        self._elapsed[which] = 0
        self._episodes[which] += 1
        return self._observation()

    def step(
        self, action: Float[np.ndarray, "simulator action"], which: Bool[np.ndarray, " simulator"]
    ) -> HostStep:
        before = self._position[:, 0].copy()
        self._batch.bind("ctrl")[which] = action[which]
        self._batch.step(which, nstep=_FRAME_SKIP)
        self._elapsed[which] += 1
        healthy = self._healthy()
        forward = (self._position[:, 0] - before) / self._step_seconds
        # In the action's own precision, as Gymnasium computes it.
        cost = 1e-3 * np.sum(np.square(action), axis=1)
        return HostStep(
            observation=self._observation(),
            reward=forward + (healthy | self._legacy_healthy_reward) - cost,
            terminated=~healthy,
            truncated=healthy & (self._elapsed >= self._max_steps),
        )

    def state(self) -> HopperState:
        return HopperState(self._batch.state.copy(), self._elapsed.copy(), self._episodes.copy())

    def restore(self, state: HopperState) -> None:
        self._batch.state[:] = state.physics
        self._elapsed[:] = state.elapsed
        self._episodes[:] = state.episodes

    def close(self) -> None:
        # The batch ends its threads when nothing refers to it any more, and its views do.
        vars(self).clear()

    def _start_noise(self, simulator: int) -> Float[np.ndarray, " positions_and_velocities"]:
        seed, agent, env = self._streams[simulator].tolist()
        key = np.random.SeedSequence(seed, spawn_key=(agent, env, int(self._episodes[simulator])))
        size = self._position.shape[1] + self._velocity.shape[1]
        return np.random.Generator(np.random.Philox(key)).uniform(-_RESET_NOISE, _RESET_NOISE, size)

    def _observation(self) -> Float[np.ndarray, "simulator observation"]:
        velocity = np.clip(self._velocity, -10.0, 10.0)
        return np.concatenate([self._position[:, 1:], velocity], axis=1, dtype=np.float32)

    def _healthy(self) -> Bool[np.ndarray, " simulator"]:
        height, tilt = self._position[:, 1], self._position[:, 2]
        bounded = (np.abs(self._position[:, 2:]) < 100).all(1) & (np.abs(self._velocity) < 100).all(1)
        return bounded & (height > 0.7) & (np.abs(tilt) < 0.2)


def _task_generator(task_seed: int, family: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(task_seed, spawn_key=(family,))))


def _asset() -> Path:
    try:
        import gymnasium
    except ImportError as error:
        raise _missing(error) from error
    # By path: importing gymnasium.envs.mujoco would demand rendering packages.
    return Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "hopper.xml"


def _import_mujoco() -> Any:
    try:
        import mujoco
        import mujoco.batch
    except ImportError as error:
        raise _missing(error) from error
    return mujoco


def _missing(error: ImportError) -> InputError:
    return InputError(
        f"the Hopper needs the packages mujoco and gymnasium, and Python says: {error}; "
        "the extra mujoco has both: pip install -e '.[mujoco]' in the clone"
    )
