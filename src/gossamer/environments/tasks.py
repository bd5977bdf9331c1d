"""The tasks of a run, and who gets which: one ``TaskSet`` is shared by every algorithm compared in it.

It holds plain numbers, so it can be hashed, printed and stored. It knows neither the dynamics nor what is
random about an episode, and quantities that follow from a task's parameters are not stored in it.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gossamer.errors import InputError, require_at_least

# A plain number in a TaskSet, a traced scalar in the dynamics.
Parameter: TypeAlias = float | Float[Array, ""]


@dataclass(frozen=True)
class TaskSet:
    """Tasks in a fixed order: NamedTuples of floats, all of the same type.

    Raises:
        InputError: if there is no task, the types differ, or a parameter is not a finite number.

    Example:
        >>> from gossamer.environments import PendulumTask
        >>> tasks = TaskSet((PendulumTask(mass=0.8, length=1.0), PendulumTask(mass=1.2, length=1.0)))
        >>> len(tasks), tasks.names
        (2, ('mass', 'length'))
    """

    tasks: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.tasks:
            raise InputError("a task set was given no task; it needs at least 1")
        for task in self.tasks:
            _check_task(task, type(self.tasks[0]))

    @classmethod
    def grid(cls, task_type: type, count: int, single: Any, **ranges: tuple[float, float]) -> "TaskSet":
        """``single`` for one task, else ``count`` tasks spread evenly over two parameters' ranges.

        The grid is a × b with a ≤ b as near to square as ``count`` allows, a values of the first parameter
        and b of the second, ends included; 25 gives 5 × 5. A prime count leaves the first parameter at the
        middle of its range. The second parameter varies fastest.

        Args:
            task_type: a NamedTuple of two floats.
            count: how many tasks, at least 1.
            single: the family's standard single task.
            ranges: lowest and highest value of each of the two fields, by name.

        Raises:
            InputError: if ``count`` is below 1, or the ranges are not those of the task's two fields.

        Example:
            >>> from gossamer.environments import PendulumTask
            >>> single = PendulumTask(mass=1.0, length=1.0)
            >>> TaskSet.grid(PendulumTask, 2, single, mass=(0.8, 1.2), length=(0.5, 1.5))
            TaskSet(tasks=(PendulumTask(mass=1.0, length=0.5), PendulumTask(mass=1.0, length=1.5)))
        """
        require_at_least("the number of tasks", count, 1)
        _check_ranges(task_type, ranges)
        if count == 1:
            return cls((single,))
        rows = max(divisor for divisor in _divisors(count) if divisor**2 <= count)
        first, second = (ranges[name] for name in _fields(task_type))
        return cls(
            tuple(task_type(a, b) for a in _spread(first, rows) for b in _spread(second, count // rows))
        )

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names, in the order of a task's values."""
        return _fields(type(self.tasks[0]))

    def describe(self, task: int) -> str:
        """Names and values of the parameters of one task, by its number, for a row of a table.

        Example:
            >>> from gossamer.environments import PendulumTask
            >>> TaskSet((PendulumTask(mass=0.8, length=1.0),)).describe(0)
            'mass 0.8, length 1.0'
        """
        return ", ".join(f"{name} {value}" for name, value in zip(self.names, self.tasks[task], strict=True))

    def deal(self, agents: int, copies: int = 1) -> Any:
        """The tasks as one task of arrays ``[agent, env]``: a value for each environment of each agent.

        Either the agents divide the tasks, and each gets a block of consecutive ones; or the tasks divide the
        agents, and agent k gets task k mod ``len(tasks)``. Every task is dealt equally often.

        Args:
            agents: how many agents there are.
            copies: how many environments an agent has of each of its tasks, next to one another.

        Raises:
            InputError: if the tasks cannot be dealt evenly; it names the numbers of agents that would fit.

        Example:
            >>> from gossamer.environments import Pendulum
            >>> Pendulum().task_set(25).deal(agents=5).mass.shape
            (5, 5)
        """
        number = self._numbers(agents, copies)
        # Rounded by numpy and put there: ``jnp.asarray`` would compile a program.
        columns = np.asarray(self.tasks, dtype=np.float64).T.astype(jnp.result_type(float))
        return type(self.tasks[0])(*(jax.device_put(column[number]) for column in columns))

    def index(self, agents: int, copies: int = 1) -> Int[Array, "agent env"]:
        """The number of the task in each place of :meth:`deal`, for the same arguments.

        Example:
            >>> from gossamer.environments import Pendulum
            >>> print(Pendulum().task_set(4).index(agents=2, copies=2))
            [[0 0 1 1]
             [2 2 3 3]]
        """
        return jax.device_put(self._numbers(agents, copies).astype(np.int32))

    def _numbers(self, agents: int, copies: int) -> Int[np.ndarray, "agent env"]:
        require_at_least("agents", agents, 1)
        require_at_least("copies", copies, 1)
        tasks = len(self)
        if tasks % agents and agents % tasks:
            fitting = ", ".join(str(divisor) for divisor in _divisors(tasks))
            raise InputError(
                f"{tasks} tasks cannot be dealt evenly to {agents} agents; "
                f"{fitting} or a multiple of {tasks} agents would fit"
            )
        dealt = np.arange(max(tasks, agents)) % tasks
        return np.repeat(dealt.reshape(agents, -1), copies, axis=1)


def _check_task(task: Any, expected: type) -> None:
    if type(task) is not expected or not _fields(expected):
        raise InputError(
            f"a task is {task!r}; every task of a set must be a NamedTuple of the same type, "
            f"here {expected.__name__}"
        )
    for name, value in zip(_fields(expected), task, strict=True):
        if not (isinstance(value, int | float) and math.isfinite(value)):
            raise InputError(f"a task's {name} is {value!r}; it must be a finite number")


def _check_ranges(task_type: type, ranges: dict[str, tuple[float, float]]) -> None:
    fields = _fields(task_type)
    if len(fields) != 2 or set(ranges) != set(fields):
        raise InputError(
            f"ranges were given for {sorted(ranges)}; a grid needs one for each of the two fields "
            f"of a task, and {task_type.__name__} has {list(fields)}; list other tasks: TaskSet((task, ...))"
        )
    for name, (low, high) in ranges.items():
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise InputError(
                f"the range of {name} is ({low}, {high}); it must be two finite numbers, the lower first"
            )


def _fields(task_type: type) -> tuple[str, ...]:
    return getattr(task_type, "_fields", ())


def _divisors(count: int) -> list[int]:
    return [divisor for divisor in range(1, count + 1) if count % divisor == 0]


def _spread(bounds: tuple[float, float], count: int) -> list[float]:
    low, high = bounds
    values = np.linspace(low, high, count) if count > 1 else [(low + high) / 2]
    # linspace leaves 0.7000000000000001 and the like, which tables and config.json would show.
    return [float(f"{value:.10g}") for value in values]
