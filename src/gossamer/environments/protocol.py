"""What an environment is: on the device, pure functions of a state and a task; on the host, running simulators.

A device environment is written for one instance. It does not decide how many are stepped (``vmap`` adds axes) or who
acts. It reports ``terminated``, and ``truncated`` if it cuts episodes itself; the time limit ``max_steps`` is applied,
as a truncation, by the experience that steps it.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, Real

from gossamer.environments.tasks import TaskSet
from gossamer.types import Box, Discrete, Frames, Key, Spaces


class Step(NamedTuple):
    """Result of one action: the next state, the reward, and whether the episode ends.

    ``terminated``: the task itself ended and no value follows. ``truncated``: the episode is cut although a value
    follows; None for an environment that leaves this to its time limit. If both are true, it is terminated.
    """

    state: Any
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""] | None = None


@runtime_checkable
class Environment(Protocol):
    """A family of tasks with common dynamics; a frozen dataclass of its constants.

    A task is a NamedTuple of scalars, the state any pytree of arrays.
    """

    @property
    def max_steps(self) -> int:
        """The time limit: after so many steps the episode is truncated."""
        ...

    @property
    def observation_size(self) -> int:
        """Number of components of an observation."""
        ...

    @property
    def action_space(self) -> Box | Discrete:
        """What an action may be."""
        ...

    def task_set(self, count: int) -> TaskSet:
        """The family's ``count`` tasks; ``count=1`` is its standard single task."""
        ...

    def reset(self, key: Key, task: Any) -> Any:
        """A random initial state."""
        ...

    def observe(self, state: Any, task: Any) -> Float[Array, " observation"]:
        """What the agent sees of a state."""
        ...

    def step(self, key: Key, state: Any, action: Num[Array, "*action"], task: Any) -> Step:
        """One step of the dynamics; the key, another one for each step, is for those that are random."""
        ...


class HostStep(NamedTuple):
    """What one action of every simulator led to, before any of them starts anew.

    ``observation`` is that of the state the action led to, also where the episode ended there. ``finished`` says
    where a return is reported, which is every end of an episode unless it is given: a life lost may end an episode
    for the learner while the game and its score continue.
    """

    observation: Real[np.ndarray, "simulator observation"]
    reward: Float[np.ndarray, " simulator"]
    terminated: Bool[np.ndarray, " simulator"]
    truncated: Bool[np.ndarray, " simulator"]
    finished: Bool[np.ndarray, " simulator"] | None = None


@runtime_checkable
class Simulators(Protocol):
    """Running instances of a host environment, numbered; nothing about them is pure.

    The runtime decides when one starts anew: it calls ``reset`` for those whose episode has ended.
    """

    def reset(self, which: Bool[np.ndarray, " simulator"]) -> Real[np.ndarray, "simulator observation"]:
        """Start new episodes where ``which`` is true; rows of the others are meaningless."""
        ...

    def step(
        self, action: Num[np.ndarray, "simulator *action"], which: Bool[np.ndarray, " simulator"]
    ) -> HostStep:
        """Advance those where ``which`` is true by one action each; rows of the others are meaningless.

        The arrays are the caller's from then on: the next step does not write to them.
        """
        ...

    def state(self) -> Any | None:
        """Everything that ``restore`` needs to resume exactly, as arrays ``[simulator, ...]``; None if it cannot."""
        ...

    def restore(self, state: Any) -> None:
        """Resume from what ``state`` returned, to the bit."""
        ...

    def close(self) -> None:
        """Let go of processes, threads and memory."""
        ...


@runtime_checkable
class HostEnvironment(Protocol):
    """A family of tasks whose dynamics are no JAX program; a frozen dataclass of its constants."""

    @property
    def max_steps(self) -> int:
        """The time limit, which the simulators apply themselves."""
        ...

    @property
    def observation_size(self) -> int:
        """Number of components of an observation."""
        ...

    @property
    def action_space(self) -> Box | Discrete:
        """What an action may be."""
        ...

    def task_set(self, count: int) -> TaskSet:
        """The family's ``count`` tasks; ``count=1`` is its standard single task."""
        ...

    def simulate(self, tasks: Any, streams: Int[np.ndarray, "simulator 3"]) -> Simulators:
        """One simulator for each task.

        Args:
            tasks: a task of arrays ``[simulator]``.
            streams: (seed, agent, env) of each: where its random numbers come from, and nothing else.
        """
        ...


@runtime_checkable
class Pixels(Protocol):
    """What an environment has besides if its observations are images."""

    @property
    def frames(self) -> Frames:
        """How the image lies in the vector of an observation, whose numbers are bytes (uint8)."""
        ...


def spaces_of(environment: Environment | HostEnvironment) -> Spaces:
    """What an agent of an environment sees and does.

    Example:
        >>> from gossamer.environments import Pendulum
        >>> spaces_of(Pendulum())
        Spaces(observation_size=3, action=Box(size=1, bound=2.0), frames=None)
    """
    frames = environment.frames if isinstance(environment, Pixels) else None
    return Spaces(environment.observation_size, environment.action_space, frames)
