"""What a device environment is: pure functions of a state and a task, written for one environment.

It says nothing of how many are stepped (``vmap`` adds axes), of who acts, or of time limits: an environment
reports ``terminated``; ``max_steps`` is applied, as a truncation, by the experience that steps it.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float

from gossamer.environments.tasks import TaskSet
from gossamer.types import Box, Key


class Step(NamedTuple):
    """What one action led to: the next state, its reward, and whether the task itself ended the episode."""

    state: Any
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]


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
    def action_space(self) -> Box:
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

    def step(self, state: Any, action: Float[Array, " action"], task: Any) -> Step:
        """One step of the dynamics."""
        ...
