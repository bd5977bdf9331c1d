"""Any single environment that Gymnasium makes, if its observations and actions are plain vectors or choices.

It is one task, not a family, and cannot be restored. What its rewards and observations mean is left as it is.
"""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int, Num, Shaped

from gossamer.environments.protocol import HostStep, Simulators
from gossamer.environments.seeding import stream_seed
from gossamer.environments.tasks import TaskSet
from gossamer.errors import InputError, require_at_least
from gossamer.types import Box, Discrete

Argument: TypeAlias = tuple[str, str | int | float | bool]


class GymnasiumTask(NamedTuple):
    """Nothing varies: ``number`` is 0 in every task."""

    number: Any


@dataclass(frozen=True)
class GymnasiumEnvironment:
    """The environment that ``gymnasium.make(env_id, **arguments)`` makes; every task is the same one.

    Observations are single precision. A Box of any shape is flattened and not scaled; a Discrete one becomes a
    vector of zeros with a one. Rewards are Gymnasium's.

    Actions of a Discrete space are numbered from 0, wherever Gymnasium starts. A Box whose components all lie in
    the same [-b, b] is taken as it is; any other Box with finite bounds is reached from [-1, 1] linearly,
    component by component. Either way an action is clipped to the bounds before the environment sees it.

    Args:
        env_id: a name in Gymnasium's registry, such as CartPole-v1, or module:Name-v0 to import the module first.
        arguments: pairs (name, value) for the environment's constructor.
        time_limit: in steps; by default the one registered for ``env_id``.

    Raises:
        InputError: if gymnasium, or what the environment needs, is not installed, ``env_id`` is unknown, the
            arguments do not fit, a space is of another kind, or no time limit is known.

    Example:
        >>> pendulum = GymnasiumEnvironment("Pendulum-v1", arguments=(("g", 9.81),))
        >>> pendulum.observation_size, pendulum.action_space, pendulum.max_steps
        (3, Box(size=1, bound=2.0), 200)
    """

    env_id: str
    arguments: tuple[Argument, ...] = ()
    time_limit: int | None = None

    def __post_init__(self) -> None:
        if self.time_limit is not None:
            require_at_least("time_limit", self.time_limit, 1)
        _ = self._facts  # asked for now, so that bad input is refused now

    @property
    def max_steps(self) -> int:
        """The time limit, which Gymnasium's own TimeLimit applies."""
        return self._facts.max_steps

    @property
    def observation_size(self) -> int:
        """Number of components of a flattened observation."""
        return self._facts.observation_size

    @property
    def action_space(self) -> Box | Discrete:
        """What an action may be.

        Example:
            >>> GymnasiumEnvironment("CartPole-v1").action_space
            Discrete(size=2)
        """
        return self._facts.action_space

    def task_set(self, count: int) -> TaskSet:
        """``count`` times the same task.

        Raises:
            InputError: if ``count`` is below 1.

        Example:
            >>> GymnasiumEnvironment("CartPole-v1").task_set(2).describe(1)
            'number 0.0'
        """
        require_at_least("the number of tasks", count, 1)
        return TaskSet((GymnasiumTask(number=0.0),) * count)

    def simulate(self, tasks: Any, streams: Int[np.ndarray, "simulator 3"]) -> Simulators:
        """One environment object for each task, stepped one after the other on the calling thread.

        Args:
            tasks: a task of arrays ``[simulator]``.
            streams: (seed, agent, env) of each, none negative: its first reset is seeded from them.

        Raises:
            InputError: if Gymnasium does not make the environment.
        """
        made = [_make(self.env_id, self.arguments, self.time_limit) for _ in tasks.number]
        return _Environments(made, self.observation_size, [stream_seed(stream) for stream in streams])

    @functools.cached_property
    def _facts(self) -> "_Facts":
        """What one environment object, closed at once, says about itself."""
        environment = _make(self.env_id, self.arguments, self.time_limit)
        try:
            return _Facts(
                observation_size=_observation_size(self.env_id, environment.observation_space),
                action_space=_action_space(self.env_id, environment.action_space),
                max_steps=_max_steps(self.env_id, environment.spec),
            )
        finally:
            environment.close()


class _Facts(NamedTuple):
    observation_size: int
    action_space: Box | Discrete
    max_steps: int


class _Environments:
    """Running environments of one kind, each with random numbers of its own."""

    def __init__(self, environments: list[Any], observation_size: int, seeds: list[int]) -> None:
        self.environments = environments
        self._seeds: list[int | None] = list(seeds)
        self._flatten = _flattener(environments[0].observation_space)
        self._to_theirs = _action_converter(environments[0].action_space)
        self._observation_size = observation_size

    def reset(self, which: Bool[np.ndarray, " simulator"]) -> Float[np.ndarray, "simulator observation"]:
        observation = self._blank()
        for index in np.flatnonzero(which).tolist():
            # Seeded once: Gymnasium then keeps the same generator from episode to episode.
            seed, self._seeds[index] = self._seeds[index], None
            observation[index] = self._flatten(self.environments[index].reset(seed=seed)[0])
        return observation

    def step(
        self, action: Num[np.ndarray, "simulator *action"], which: Bool[np.ndarray, " simulator"]
    ) -> HostStep:
        observation, reward = self._blank(), np.zeros(len(which))
        terminated, truncated = np.zeros(len(which), bool), np.zeros(len(which), bool)
        for index in np.flatnonzero(which).tolist():
            seen, reward[index], ended, cut, _ = self.environments[index].step(self._to_theirs(action[index]))
            observation[index] = self._flatten(seen)
            terminated[index], truncated[index] = ended, cut and not ended
        return HostStep(observation, reward, terminated, truncated)

    def state(self) -> None:
        return None

    def restore(self, state: Any) -> None:
        raise NotImplementedError("Gymnasium's environments cannot be restored: state() is None")

    def close(self) -> None:
        for environment in self.environments:
            environment.close()

    def _blank(self) -> Float[np.ndarray, "simulator observation"]:
        return np.zeros((len(self.environments), self._observation_size), np.float32)


def _make(id: str, arguments: tuple[Argument, ...], time_limit: int | None) -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise InputError(
            f"env_id is {id!r}, for which the package gymnasium is needed, and Python says: {error}; "
            "the extra gymnasium has it: pip install -e '.[gymnasium]' in the clone"
        ) from error
    try:
        # Importing and constructing environments warns about versions and other packages.
        with warnings.catch_warnings(action="ignore"):
            return gymnasium.make(
                id, max_episode_steps=time_limit, disable_env_checker=True, **dict(arguments)
            )
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise InputError(f"env_id is {id!r}, which needs more than is installed: {_phrase(error)}") from error
    except gymnasium.error.Error as error:
        raise InputError(f"env_id is {id!r}, which gymnasium does not make: {_phrase(error)}") from error
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"arguments are {arguments!r}, which {id} does not accept: {_phrase(error)}"
        ) from error


def _phrase(error: Exception) -> str:
    """What an exception says, as the end of a sentence."""
    return " ".join(str(error).split()).rstrip(".")


def _max_steps(id: str, spec: Any) -> int:
    if spec.max_episode_steps is None:
        raise InputError(
            f"env_id is {id!r}, which has no time limit of its own; give time_limit, a number of steps"
        )
    return spec.max_episode_steps


def _observation_size(id: str, space: Any) -> int:
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        return int(np.prod(space.shape))
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    raise InputError(f"the observations of {id} are {space}; accepted are Box, of any shape, and Discrete")


def _action_space(id: str, space: Any) -> Box | Discrete:
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    if not (isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating) and _is_finite(space)):
        raise InputError(
            f"the actions of {id} are {space}; accepted are Discrete, and Box of floats with finite bounds"
        )
    return Box(int(np.prod(space.shape)), float(space.high.flat[0]) if _is_symmetric(space) else 1.0)


def _is_finite(space: Any) -> bool:
    return bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())


def _is_symmetric(space: Any) -> bool:
    bound = space.high.flat[0]
    return bool(bound > 0 and (space.high == bound).all() and (space.low == -bound).all())


def _flattener(space: Any) -> Callable[[Any], Shaped[np.ndarray, " observation"]]:
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return lambda seen: np.arange(space.n) + space.start == seen
    return lambda seen: np.ravel(np.asarray(seen))


def _action_converter(space: Any) -> Callable[[Any], Any]:
    """From an action as this library numbers and scales it to one of Gymnasium's space."""
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return lambda action: space.start + action.astype(space.start.dtype)
    if _is_symmetric(space):
        return lambda action: _clip_into(space, action)
    middle, half = space.low / 2 + space.high / 2, space.high / 2 - space.low / 2
    return lambda action: _clip_into(space, middle.ravel() + half.ravel() * action)


def _clip_into(space: Any, action: Float[np.ndarray, " action"]) -> Float[np.ndarray, "*shape"]:
    return np.clip(action.reshape(space.shape).astype(space.dtype), space.low, space.high)
