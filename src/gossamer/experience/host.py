"""Experience from simulators on the host: those of all seeds and agents take each step together.

Only acting is on the device, one call for everybody's observations. It knows no algorithm.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from gossamer.environments.protocol import HostEnvironment, Pixels
from gossamer.types import Collected, Finished, Trajectory

# From the number of the step and observations [seed, agent, env, ...]: actions and log-probabilities.
ActForAll: TypeAlias = Callable[[int, Array], tuple[Array, Array]]


class HostSteps:
    """A fixed number of steps in each simulator, across the ends of episodes, like ``device.Steps``.

    Args:
        environment: the family of tasks.
        steps: T, steps in each simulator for one update.
        tasks: task parameters with leaves ``[agent, env]``.
        seeds: one run each; every run has simulators of its own.
    """

    def __init__(self, environment: HostEnvironment, steps: int, tasks: Any, seeds: Int[np.ndarray, " seed"]):
        self._steps = steps
        self._shape = (len(seeds), *np.shape(jax.tree.leaves(tasks)[0]))
        _, agents, envs = self._shape
        seed, agent, env = np.meshgrid(seeds, np.arange(agents), np.arange(envs), indexing="ij")
        streams = np.stack([seed, agent, env], -1).reshape(-1, 3)
        every_task = jax.tree.map(
            lambda leaf: np.broadcast_to(np.asarray(leaf), self._shape).reshape(-1), tasks
        )
        self._simulators = environment.simulate(every_task, streams)
        kind = np.uint8 if isinstance(environment, Pixels) else np.float32
        self._observation = np.zeros((len(streams), environment.observation_size), kind)
        self._elapsed, self._earned = np.zeros(len(streams), np.int64), np.zeros(len(streams))

    def start(self) -> None:
        """Begin an episode everywhere."""
        self._elapsed[:], self._earned[:] = 0, 0.0
        self._begin(np.ones(len(self._elapsed), bool))

    def collect(self, act: ActForAll, active: Bool[np.ndarray, "seed agent"] | None = None) -> Collected:
        """Go on with the simulators of the agents that are active, of all by default.

        Returns:
            Leaves ``[seed, agent, ...]`` as ``device.Steps`` gives them to one agent; the rows of agents at rest are
            meaningless. The state stays here.
        """
        which = (
            np.ones(self._shape, bool)
            if active is None
            else np.broadcast_to(np.asarray(active)[..., None], self._shape)
        )
        which = which.reshape(-1)
        rows, totals = [], [np.zeros(len(which)) for _ in Finished._fields]
        for step in range(self._steps):
            row, ended, finished = self._step(act, step, which)
            rows.append(row)
            counted = (finished, self._earned * finished, self._elapsed * finished)
            for total, part in zip(totals, counted, strict=True):
                total += part
            self._elapsed[finished], self._earned[finished] = 0, 0.0
            self._begin(ended)
        columns = (jnp.asarray(self._by_agent(np.stack(column))) for column in zip(*rows, strict=True))
        task = jnp.broadcast_to(jnp.arange(self._shape[2]), self._shape)
        trajectory = Trajectory(*columns, task=task)
        sums = Finished(*(total.reshape(self._shape).astype(np.float32) for total in totals))
        return Collected((), trajectory, sums)

    @property
    def remembers(self) -> bool:
        """Whether ``state`` is all that there is to know of the simulators."""
        return self._simulators.state() is not None

    def state(self) -> Any:
        """Everything that ``restore`` needs, as arrays ``[seed, ...]``; empty where simulators cannot tell theirs."""
        inner = self._simulators.state()
        if inner is None:
            return ()
        state = (self._observation, self._elapsed, self._earned, inner)
        return jax.tree.map(lambda leaf: leaf.reshape(self._shape[0], -1, *leaf.shape[1:]), state)

    def restore(self, state: Any) -> None:
        """Go on from what ``state`` returned; from new episodes where that was empty."""
        if not jax.tree.leaves(state):
            self.start()
            return
        flat = jax.tree.map(lambda leaf: np.array(leaf).reshape(-1, *np.shape(leaf)[2:]), state)
        self._observation, self._elapsed, self._earned, inner = flat
        self._simulators.restore(inner)

    def close(self) -> None:
        """Close the simulators."""
        self._simulators.close()

    def _step(
        self, act: ActForAll, step: int, which: np.ndarray
    ) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
        """A row of the trajectory, which episodes ended with it, and whose returns are to be reported."""
        observation = self._observation.copy()
        action, log_prob = act(step, jnp.asarray(observation.reshape(*self._shape, -1)))
        action = np.asarray(action)
        action = action.reshape(len(which), *action.shape[3:])
        taken = self._simulators.step(action, which)
        self._elapsed += which
        self._earned += np.where(which, taken.reward, 0.0)
        after = np.where(which[:, None], taken.observation, observation).astype(observation.dtype)
        self._observation = after.copy()
        row = (
            observation,
            action,
            np.asarray(log_prob).reshape(-1),
            np.where(which, taken.reward, 0.0).astype(np.float32),
            after,
            which & taken.terminated,
            which & taken.truncated & ~taken.terminated,
            np.ones_like(which),
        )
        ended = which & (taken.terminated | taken.truncated)
        return row, ended, ended if taken.finished is None else which & taken.finished

    def _begin(self, which: np.ndarray) -> None:
        if which.any():
            self._observation[which] = self._simulators.reset(which)[which]

    def _by_agent(self, column: np.ndarray) -> np.ndarray:
        """From ``[time, simulator, ...]`` to ``[seed, agent, time, env, ...]``."""
        split = column.reshape(self._steps, *self._shape, *column.shape[2:])
        return np.moveaxis(split, 0, 2)
