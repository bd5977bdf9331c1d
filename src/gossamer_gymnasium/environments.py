"""Families of tasks as Gymnasium's: one environment of one task, or many that one compiled program steps at once.

Spaces, dynamics, rewards and both ends of an episode are those of ``gossamer.environments``. Nothing is drawn.
"""

import dataclasses
import numbers
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Array, Bool, Float, Int, Num

from gossamer import environments, types
from gossamer.environments import Environment, HostEnvironment, HostStep, Simulators, TaskSet
from gossamer.errors import InputError, require_at_least, require_choice
from gossamer_gymnasium import FAMILIES


class TaskEnv(gymnasium.Env[np.ndarray, Any]):
    """One task of a family: ``gymnasium.make("gossamer_gymnasium:gossamer/NAME-v0", task=...)``.

    The observation space is a Box of single precision without bounds, the action space that of the family; a Box's
    actions beyond its bounds count as the bounds. ``truncated`` is true at the family's own time limit, and only where
    the task has not ended the episode itself; Gymnasium's TimeLimit is not used. Infos are empty.

    Episode e after ``reset(seed=...)``, counted from 0, starts from the key fold_in(key(n), e), where n is the first
    integer below 2³¹ that Gymnasium's generator of that seed draws; Hopper's has the stream (n, 0, 0).

    Args:
        family: a name in :data:`FAMILIES`; ids give it.
        task: the number of a task, a mapping with a value of every parameter, or None for the family's standard one.
        tasks: how many tasks the family is dealt as where ``task`` is a number, as in recipes.
        constants: of the family's dynamics, such as ``max_steps``.

    Raises:
        InputError: for an unknown family or constant, a task that does not exist, or an action that is none.

    Example:
        >>> environment = TaskEnv("Pendulum", task={"mass": 1.2, "length": 0.8})
        >>> observation, _ = environment.reset(seed=0)
        >>> environment.step(environment.action_space.high)[2:]
        (False, False, {})
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's name and type)

    def __init__(self, family: str, task: Any = None, tasks: int = 25, **constants: Any) -> None:
        self._environment = _family(family, constants)
        self._task = _task(self._environment, task, tasks)
        self.observation_space, self.action_space = _spaces(self._environment)
        self._simulators: Simulators | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The first observation of a new episode; options are not used."""
        super().reset(seed=seed)
        if seed is not None or self._simulators is None:
            self.close()
            self._simulators = _simulate(self._environment, [self._task], [_number(self.np_random)])
        return self._simulators.reset(_ONE)[0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step of the family's dynamics."""
        taken = _started(self._simulators).step(_actions(self.action_space, action)[None], _ONE)
        return (
            taken.observation[0],
            float(taken.reward[0]),
            bool(taken.terminated[0]),
            bool(taken.truncated[0]),
            {},
        )

    def close(self) -> None:
        """Let go of simulators on the host."""
        if self._simulators is not None:
            self._simulators.close()
        self._simulators = None


class TasksVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many tasks of a family: ``gymnasium.make_vec("gossamer_gymnasium:gossamer/NAME-v0", 25, task=range(25))``.

    A step of all of them is one call of a compiled program, and a second one where episodes start; Hoppers are stepped
    by a pool of threads. Environment i after ``reset(seed=s)`` is :class:`TaskEnv` after ``reset(seed=s + i)``.

    Args:
        family: a name in :data:`FAMILIES`; ids give it.
        num_envs: how many environments, at least 1.
        task: one task for all, as :class:`TaskEnv` takes it, or a sequence with one for each.
        tasks: how many tasks the family is dealt as where a task is a number.
        autoreset_mode: whether an episode that ended starts anew at the next step, as is Gymnasium's custom, or at
            once, with the last observation in the info's ``final_obs``.
        max_episode_steps: another time limit than the family's.
        constants: of the family's dynamics.

    Raises:
        InputError: as :class:`TaskEnv`, or if the tasks are not as many as the environments.

    Example:
        >>> environments = TasksVectorEnv("Pendulum", num_envs=25, task=range(25))
        >>> environments.reset(seed=0)[0].shape
        (25, 3)
    """

    def __init__(
        self,
        family: str,
        num_envs: int = 1,
        task: Any = None,
        tasks: int = 25,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        **constants: Any,
    ) -> None:
        require_at_least("num_envs", num_envs, 1)
        if max_episode_steps is not None:
            constants["max_steps"] = max_episode_steps
        self._environment = _family(family, constants)
        self._tasks = [_task(self._environment, each, tasks) for each in _one_each(task, num_envs)]
        self._mode = _autoreset(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self._mode}
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = _spaces(self._environment)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._simulators: Simulators | None = None
        self._ended = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The first observations of new episodes everywhere; options are not used."""
        super().reset(seed=seed)
        if seed is not None or self._simulators is None:
            self.close_extras()
            self._simulators = _simulate(self._environment, self._tasks, self._numbers(seed))
        self._ended = np.zeros(self.num_envs, bool)
        return self._simulators.reset(~self._ended), {}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One step everywhere; what has ended starts anew, now or at the next step."""
        simulators, given = _started(self._simulators), _actions(self.action_space, actions)
        if self._mode is AutoresetMode.NEXT_STEP:
            return self._step_or_start(simulators, given)
        return self._step_and_start(simulators, given)

    def close_extras(self, **kwargs: Any) -> None:
        """Let go of simulators on the host."""
        if self._simulators is not None:
            self._simulators.close()
        self._simulators = None

    def _step_or_start(self, simulators: Simulators, actions: np.ndarray) -> Any:
        starting, going = self._ended, ~self._ended
        observation, reward, terminated, truncated, _ = simulators.step(actions, going)
        if starting.any():
            observation = np.where(starting[:, None], simulators.reset(starting), observation)
        reward, terminated, truncated = np.where(going, reward, 0.0), terminated & going, truncated & going
        self._ended = terminated | truncated
        return observation, reward, terminated, truncated, {}

    def _step_and_start(self, simulators: Simulators, actions: np.ndarray) -> Any:
        observation, reward, terminated, truncated, _ = simulators.step(actions, ~self._ended)
        ended, info = terminated | truncated, {}
        if ended.any():
            last = np.full(self.num_envs, None, dtype=object)
            for index in np.flatnonzero(ended).tolist():
                last[index] = observation[index]
            info = {"final_obs": last, "_final_obs": ended, "final_info": {}, "_final_info": ended.copy()}
            observation = np.where(ended[:, None], simulators.reset(ended), observation)
        return observation, reward, terminated, truncated, info

    def _numbers(self, seed: int | None) -> list[int]:
        if seed is None:
            return self.np_random.integers(_NUMBERS, size=self.num_envs).tolist()
        return [_number(seeding.np_random(seed + index)[0]) for index in range(self.num_envs)]


_ONE = np.ones(1, bool)
_NUMBERS = 2**31
_DIRECTED = ("wind_x", "wind_y")  # parameters that may be negative; masses, lengths and inertias are above 0


class _DeviceSimulators:
    """Instances of a device environment behind the interface of simulators on the host."""

    def __init__(self, environment: Environment, tasks: Any, numbers: Sequence[int]) -> None:
        self._environment = environment
        self._tasks = tasks
        self._numbers = np.asarray(numbers, np.uint32)
        self._episodes = np.zeros(len(numbers), np.uint32)
        self._elapsed = np.zeros(len(numbers), np.int64)
        self._states: Any = None

    def reset(self, which: Bool[np.ndarray, " simulator"]) -> Float[np.ndarray, "simulator observation"]:
        starts, observation = _start(self._environment, self._tasks, self._numbers, self._episodes)
        states = starts if self._states is None else _chosen(which, starts, self._states)
        # Programs may read arrays of the host while they run, and those are written to below and by the caller.
        self._states, observation = jax.block_until_ready((states, observation))
        self._episodes[which] += 1
        self._elapsed[which] = 0
        return np.array(observation, np.float32)

    def step(
        self, action: Num[np.ndarray, "simulator *action"], which: Bool[np.ndarray, " simulator"]
    ) -> HostStep:
        place = self._numbers, self._episodes, self._elapsed.astype(np.uint32)
        self._states, observation, reward, terminated, cut = _advance(
            self._environment, self._tasks, place, self._states, action, which
        )
        self._elapsed[which] += 1
        terminated = np.array(terminated)
        at_limit = self._elapsed >= self._environment.max_steps
        return HostStep(
            observation=np.array(observation, np.float32),
            reward=np.array(reward, np.float64),
            terminated=terminated,
            truncated=~terminated & (at_limit if cut is None else at_limit | np.asarray(cut)),
        )

    def state(self) -> Any:
        return jax.device_get(self._states), self._elapsed.copy(), self._episodes.copy()

    def restore(self, state: Any) -> None:
        self._states, self._elapsed, self._episodes = jax.tree.map(np.copy, state)

    def close(self) -> None:
        self._states = None


@partial(jax.jit, static_argnames="environment")
def _start(
    environment: Environment,
    tasks: Any,
    numbers: Int[Array | np.ndarray, " simulator"],
    episodes: Int[Array | np.ndarray, " simulator"],
) -> tuple[Any, Float[Array, "simulator observation"]]:
    """Initial states of the next episode of every instance, and what is seen of them."""

    def one(task: Any, number: Any, episode: Any) -> tuple[Any, Array]:
        state = environment.reset(jax.random.fold_in(jax.random.key(number), episode), task)
        return state, environment.observe(state, task)

    return jax.vmap(one)(tasks, numbers, episodes)


@partial(jax.jit, static_argnames="environment")
def _advance(
    environment: Environment,
    tasks: Any,
    place: tuple[Any, Any, Any],
    states: Any,
    actions: Num[Array | np.ndarray, "simulator *action"],
    which: Bool[Array | np.ndarray, " simulator"],
) -> tuple[Any, Array, Array, Array, Array | None]:
    """Step every instance in ``which``; ``place`` holds their numbers, episodes and steps so far."""

    def one(task: Any, place: Any, state: Any, action: Any, goes: Any) -> tuple[Any, Any, Any, Any, Any]:
        number, episode, elapsed = place
        # No episode has the largest number, so that a step never shares its key with a reset.
        key = jax.random.fold_in(jax.random.key(number), np.uint32(2**32 - 1))
        key = jax.random.fold_in(jax.random.fold_in(key, episode), elapsed)
        step = environment.step(key, state, action, task)
        following = jax.tree.map(lambda new, old: jnp.where(goes, new, old), step.state, state)
        seen = environment.observe(following, task)
        return following, seen, step.reward, step.terminated, step.truncated

    return jax.vmap(one)(tasks, place, states, actions, which)


@jax.jit
def _chosen(which: Bool[Array | np.ndarray, " simulator"], new: Any, old: Any) -> Any:
    return jax.tree.map(jax.vmap(jnp.where), jax.tree.map(lambda _: which, new), new, old)


def _simulate(
    environment: Environment | HostEnvironment, tasks: Sequence[Any], numbers: Sequence[int]
) -> Simulators:
    columns = [np.asarray(column, np.float64) for column in zip(*tasks, strict=True)]
    if isinstance(environment, HostEnvironment):
        streams = np.array([(number, 0, 0) for number in numbers])
        return environment.simulate(type(tasks[0])(*columns), streams)
    on_device = type(tasks[0])(*(jnp.asarray(column, jnp.float32) for column in columns))
    return _DeviceSimulators(environment, on_device, numbers)


def _started(simulators: Simulators | None) -> Simulators:
    if simulators is None:
        raise gymnasium.error.ResetNeeded("step was called before reset; call reset first")
    return simulators


def _number(generator: np.random.Generator) -> int:
    return int(generator.integers(_NUMBERS))


def _family(name: str, constants: dict[str, Any]) -> Environment | HostEnvironment:
    require_choice("family", name, FAMILIES)
    made = getattr(environments, name)
    try:
        return made(**constants)
    except TypeError as error:
        known = ", ".join(field.name for field in dataclasses.fields(made))
        raise InputError(
            f"constants are {constants!r}, which {name} does not take; it takes {known}"
        ) from error


def _spaces(environment: Environment | HostEnvironment) -> tuple[Box, Space[Any]]:
    seen = Box(-np.inf, np.inf, (environment.observation_size,), np.float32)
    action = environment.action_space
    if isinstance(action, types.Discrete):
        return seen, Discrete(action.size)
    return seen, Box(-action.bound, action.bound, (action.size,), np.float32)


def _actions(space: Space[Any], given: Any) -> Num[np.ndarray, "*shape"]:
    """As the dynamics take them; refuses other shapes, numbers that are not finite and choices that do not exist."""
    assert space.shape is not None  # those of a family and its batches have one
    try:
        array = np.asarray(given, np.float32 if isinstance(space, Box) else np.int32)
    except (TypeError, ValueError):
        array = None
    if array is None or array.shape != space.shape or not _possible(space, array, given):
        raise InputError(f"the action is {given!r}; it must be an element of {space}")
    return array


def _possible(space: Space[Any], array: np.ndarray, given: Any) -> bool:
    if isinstance(space, Box):
        return bool(np.isfinite(array).all())
    return bool(np.array_equal(array, given)) and array.astype(space.dtype) in space


def _task(environment: Environment | HostEnvironment, task: Any, count: int) -> Any:
    standard = environment.task_set(1).tasks[0]
    if task is None:
        return standard
    if isinstance(task, Mapping) and set(task) == set(standard._fields):
        return _valued(type(standard), task)
    require_at_least("tasks", count, 1)
    if isinstance(task, numbers.Integral) and not isinstance(task, bool) and 0 <= int(task) < count:
        return environment.task_set(count).tasks[int(task)]
    raise InputError(
        f"task is {task!r}; it must be a number from 0 to {count - 1}, or a mapping with a value of each of "
        + ", ".join(standard._fields)
    )


def _valued(kind: Any, values: Mapping[str, Any]) -> Any:
    (task,) = TaskSet((kind(**{name: values[name] for name in kind._fields}),)).tasks
    for name in kind._fields:
        if name not in _DIRECTED and values[name] <= 0:
            raise InputError(f"a task's {name} is {values[name]}; it must be above 0")
    return task


def _one_each(task: Any, count: int) -> list[Any]:
    if task is None or isinstance(task, Mapping | str) or not isinstance(task, Sequence | np.ndarray):
        return [task] * count
    if len(task) != count:
        raise InputError(
            f"task holds {len(task)} tasks; it must be one task for all, or a sequence of num_envs, {count}"
        )
    return list(task)


def _autoreset(mode: AutoresetMode | str) -> AutoresetMode:
    accepted = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)
    for each in accepted:
        if mode in (each, each.value):
            return each
    raise InputError(
        f"autoreset_mode is {mode!r}; it must be {' or '.join(repr(each.value) for each in accepted)}"
    )
