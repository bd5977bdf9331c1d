"""Experience from simulators on the host, which all take each step together.

Only acting is on the device, one call for everybody's observations. It knows no algorithm.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from gossamer.environments.protocol import HostEnvironment, Pixels
from gossamer.types import Collected, Finished, Trajectory

# From the number of the step, observations and carries [*lead, env, ...]: actions, log-probabilities and next carries.
Act: TypeAlias = Callable[[int, Array, Any], tuple[Array, Array, Any]]


class HostSteps:
    """A fixed number of steps in each simulator, across the ends of episodes, like ``device.Steps``.

    Leading axes are free: (seed, agent) for a population that moves together, none for an agent on its own.

    Args:
        environment: the family of tasks.
        steps: T, steps in each simulator for one update.
        tasks: task parameters with leaves that broadcast to ``[*lead, env]``.
        streams: (seed, agent, env) of every simulator, ``[*lead, env, 3]``: where its random numbers come from.
        carry: what a policy carries into the first step of an episode of one simulator.
    """

    def __init__(
        self,
        environment: HostEnvironment,
        steps: int,
        tasks: Any,
        streams: Int[np.ndarray, "..."],
        carry: Any = (),
    ):
        self._steps = steps
        self._shape = streams.shape[:-1]
        every_task = jax.tree.map(
            lambda leaf: np.broadcast_to(np.asarray(leaf), self._shape).reshape(-1), tasks
        )
        self._simulators = environment.simulate(every_task, streams.reshape(-1, 3))
        count = math.prod(self._shape)
        kind = np.uint8 if isinstance(environment, Pixels) else np.float32
        # Never written to: the device may read the memory of an array that it was given.
        self._observation = np.zeros((count, environment.observation_size), kind)
        self._elapsed, self._earned = np.zeros(count, np.int64), np.zeros(count)
        self._initial_carry = jax.tree.map(
            lambda leaf: np.repeat(np.asarray(leaf)[None], count, axis=0), carry
        )
        self._carry = self._initial_carry

    def start(self) -> None:
        """Begin an episode everywhere."""
        self._elapsed[:], self._earned[:] = 0, 0.0
        self._begin(np.ones(len(self._elapsed), bool))

    def collect(self, act: Act, active: Bool[np.ndarray, "*lead"] | None = None) -> Collected:
        """Continue the simulators of the agents that are active, of all by default.

        Returns:
            Leaves ``[*lead, ...]`` as ``device.Steps`` gives them to one agent; the rows of agents at rest are
            meaningless. The state stays here.
        """
        which = np.ones(self._shape, bool)
        if active is not None:
            which &= np.asarray(active)[..., None]
        which = which.reshape(-1)
        seen, rows, head = [self._show()], [], self._carries()
        totals = Finished(*(np.zeros(len(which), np.float32) for _ in Finished._fields))
        for step in range(self._steps):
            action, log_prob, carry = act(step, seen[-1], self._carries())
            self._carry = _chosen(which, jax.tree.map(self._flat, carry), self._carry)
            rows.append(self._step(action, log_prob, which))
            self._count(rows[-1].finished, totals)
            self._begin(rows[-1].ended)
            seen.append(self._show())
        sums = Finished(*(total.reshape(self._shape) for total in totals))
        return Collected((), self._trajectory(seen, rows)._replace(carry=head), sums)

    @property
    def remembers(self) -> bool:
        """Whether ``state`` is all that there is to know of the simulators."""
        return self._simulators.state() is not None

    def state(self) -> Any:
        """Everything that ``restore`` needs, as arrays ``[seed, ...]``; empty where simulators cannot tell theirs."""
        inner = self._simulators.state()
        if inner is None:
            return ()
        state = (self._observation, self._elapsed, self._earned, inner, self._carry)
        return jax.tree.map(lambda leaf: leaf.reshape(*self._outermost, -1, *leaf.shape[1:]), state)

    def restore(self, state: Any) -> None:
        """Resume from what ``state`` returned, with new episodes if that was empty."""
        if not jax.tree.leaves(state):
            self.start()
            return
        axes = len(self._outermost) + 1
        flat = jax.tree.map(lambda leaf: np.array(leaf).reshape(-1, *np.shape(leaf)[axes:]), state)
        self._observation, self._elapsed, self._earned, inner, self._carry = flat
        self._simulators.restore(inner)

    def close(self) -> None:
        """Close the simulators."""
        self._simulators.close()

    @property
    def _outermost(self) -> tuple[int, ...]:
        """The first of the leading axes, if there are any."""
        return self._shape[:-1][:1]

    def _show(self) -> Array:
        return jnp.asarray(self._observation.reshape(*self._shape, -1))

    def _step(self, action: Array, log_prob: Array, which: np.ndarray) -> "_Row":
        lead = len(self._shape)
        chosen = np.asarray(action)
        taken = self._simulators.step(chosen.reshape(len(which), *chosen.shape[lead:]), which)
        self._elapsed += which
        self._earned += np.where(which, taken.reward, 0.0)
        if not which.all():
            taken = taken._replace(observation=np.where(which[:, None], taken.observation, self._observation))
        self._observation = taken.observation.astype(self._observation.dtype, copy=False)
        ended = which & (taken.terminated | taken.truncated)
        return _Row(
            action=chosen,
            log_prob=np.asarray(log_prob),
            reward=np.where(which, taken.reward, 0.0).astype(np.float32).reshape(self._shape),
            following=self._observation.reshape(*self._shape, -1),
            terminated=(which & taken.terminated).reshape(self._shape),
            ended=ended,
            finished=ended if taken.finished is None else which & taken.finished,
        )

    def _begin(self, which: np.ndarray) -> None:
        if which.any():
            fresh = self._simulators.reset(which).astype(self._observation.dtype, copy=False)
            self._observation = np.where(which[:, None], fresh, self._observation)
            self._carry = _chosen(which, self._initial_carry, self._carry)

    def _carries(self) -> Any:
        return jax.tree.map(
            lambda leaf: jnp.asarray(leaf.reshape(*self._shape, *leaf.shape[1:])), self._carry
        )

    def _flat(self, leaf: Array) -> np.ndarray:
        return np.asarray(leaf).reshape(-1, *leaf.shape[len(self._shape) :])

    def _count(self, finished: np.ndarray, totals: Finished) -> None:
        """Add the episodes whose returns are to be reported to the totals."""
        for total, part in zip(totals, (1, self._earned, self._elapsed), strict=True):
            total += part * finished
        self._elapsed[finished], self._earned[finished] = 0, 0.0

    def _trajectory(self, seen: list[Array], rows: "list[_Row]") -> Trajectory:
        """What was collected; images that the device has been shown are not sent there again."""
        lead = len(self._shape) - 1
        following: list[Any] = seen[1:]
        if any(row.ended.any() for row in rows):
            # After an end, what was shown next is the beginning of another episode.
            following = [row.following for row in rows]
        terminated = self._by_agent(row.terminated for row in rows)
        ended = self._by_agent(row.ended.reshape(self._shape) for row in rows)
        return Trajectory(
            observation=_stacked(tuple(seen[:-1]), axis=lead),
            action=self._by_agent(row.action for row in rows),
            log_prob=self._by_agent(row.log_prob for row in rows),
            reward=self._by_agent(row.reward for row in rows),
            next_observation=_stacked(tuple(following), axis=lead),
            terminated=terminated,
            truncated=ended & ~terminated,
            mask=jnp.ones_like(terminated),
            task=jnp.broadcast_to(jnp.arange(self._shape[-1]), self._shape),
        )

    def _by_agent(self, rows: Any) -> Array:
        """From rows ``[*lead, env, ...]`` to ``[*lead, time, env, ...]``."""
        return jnp.asarray(np.stack(list(rows), axis=len(self._shape) - 1))


def streams_of(
    seeds: Int[np.ndarray, " seed"], agents: Int[np.ndarray, " agent"], environments: int
) -> Int[np.ndarray, "seed agent env 3"]:
    """(seed, agent, env) of the simulators of some agents in every seed.

    Example:
        >>> streams_of(np.array([7]), np.array([2, 3]), environments=1).tolist()
        [[[[7, 2, 0]], [[7, 3, 0]]]]
    """
    return np.stack(np.meshgrid(seeds, agents, np.arange(environments), indexing="ij"), axis=-1)


class _Row(NamedTuple):
    """One step of all simulators."""

    action: np.ndarray
    log_prob: np.ndarray
    reward: np.ndarray
    following: np.ndarray
    terminated: np.ndarray
    ended: np.ndarray
    finished: np.ndarray


def _chosen(which: Bool[np.ndarray, " simulator"], new: Any, old: Any) -> Any:
    """The new leaves of some simulators, the old ones of the others."""
    return jax.tree.map(lambda x, y: np.where(which.reshape(-1, *[1] * (y.ndim - 1)), x, y), new, old)


@partial(jax.jit, static_argnames="axis")
def _stacked(frames: tuple[Any, ...], axis: int) -> Array:
    return jnp.stack(frames, axis=axis)
