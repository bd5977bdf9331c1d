"""Experiments and environments small enough for a test, shared by those that need them."""

import signal
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gossamer.environments import CartPoleBalance, CartPoleState, HostStep, Step, TaskSet
from gossamer.experiment import Experiment
from gossamer.recipes import cartpole_balance
from gossamer.runs.progress import Silent
from gossamer.types import Box


def small_experiment(**changes) -> Experiment:
    """Cart-pole balance with tiny networks and short episodes, on a ring."""
    recipe = cartpole_balance()
    small = replace(
        recipe,
        environment=CartPoleBalance(max_steps=20),
        algorithm=replace(recipe.algorithm, hidden=(8, 8)),
        agents=5,
        topology="ring",
        rounds=6,
        checkpoint_every=2,
    )
    return replace(small, **changes)


def rebound(algorithm, spaces=None, **changes):
    """A bound algorithm with other hyper-parameters, which ``replace`` alone would unbind."""
    return replace(algorithm, **changes).bind(spaces or algorithm.spaces)


class Countdown(NamedTuple):
    """A task: the number of steps until it terminates."""

    steps: Any


@dataclass(frozen=True)
class CountdownEnvironment:
    """The state counts steps; the reward is the number of the step; ends after ``task.steps``."""

    max_steps: int = 5
    observation_size: int = 1
    action_space: Box = field(default=Box(1, 1.0))

    def task_set(self, count):
        return TaskSet((Countdown(3.0),) * count)

    def reset(self, key, task):
        return jnp.zeros((), jnp.int32)

    def observe(self, state, task):
        return state.astype(jnp.float32)[None]

    def step(self, key, state, action, task):
        return Step(state + 1, (state + 1).astype(jnp.float32), state + 1 >= task.steps)


@dataclass(frozen=True)
class FixedStart(CartPoleBalance):
    """Balance whose episodes all begin alike, leaning: nothing about it is random."""

    max_steps: int = 12

    def reset(self, key, task):
        return CartPoleState(*jnp.array([0.0, 0.1, 0.12, 0.0]))


class Gusty(NamedTuple):
    """A cart-pole in gusts: its state, and the key of the gusts to come."""

    pole: CartPoleState
    key: Any


@dataclass(frozen=True)
class GustyBalance(CartPoleBalance):
    """Balance with noise in its dynamics, of which the state carries the key, a typed one."""

    max_steps: int = 20

    def reset(self, key, task):
        start, gusts = jax.random.split(key)
        return Gusty(super().reset(start, task), gusts)

    def observe(self, state, task):
        return super().observe(state.pole, task)

    def step(self, key, state, action, task):
        following, now = jax.random.split(state.key)
        step = super().step(key, state.pole, action + 0.1 * jax.random.normal(now), task)
        return step._replace(state=Gusty(step.state, following))


@dataclass(frozen=True)
class OnHost:
    """A device environment behind the host's protocol, its simulators stepped from Python."""

    environment: Any = field(default_factory=FixedStart)
    remembers: bool = True

    @property
    def max_steps(self):
        return self.environment.max_steps

    @property
    def observation_size(self):
        return self.environment.observation_size

    @property
    def action_space(self):
        return self.environment.action_space

    def task_set(self, count):
        return self.environment.task_set(count)

    def simulate(self, tasks, streams):
        return _Simulators(self, jax.tree.map(jnp.asarray, tasks), len(streams))


class _Simulators:
    """Counts steps of each simulator, and refuses to step one that has ended."""

    def __init__(self, owner, tasks, count):
        self.owner, self.tasks = owner, tasks
        environment, self.keys = owner.environment, jax.random.split(jax.random.key(0), count)
        self.starts = jax.vmap(environment.reset)(self.keys, tasks)
        self.states, self.elapsed = self.starts, np.zeros(count, np.int64)
        self.stepping = jax.jit(jax.vmap(partial(environment.step, jax.random.key(0))))
        self.observing = jax.jit(jax.vmap(environment.observe))
        self.closed = False

    def reset(self, which):
        self.states = self._chosen(which, self.starts)
        self.elapsed[which] = 0
        return np.array(self.observing(self.states, self.tasks))

    def step(self, action, which):
        assert not self.closed
        assert (self.elapsed[which] < self.owner.max_steps).all()
        step = self.stepping(self.states, jnp.asarray(action, jnp.float32), self.tasks)
        self.states = self._chosen(which, step.state)
        self.elapsed += which
        # rows of the others are meaningless, and here they are poison
        reward = np.where(which, step.reward, np.nan)
        observation = np.where(which[:, None], self.observing(self.states, self.tasks), np.nan)
        terminated = np.where(which, step.terminated, True)
        return HostStep(observation, reward, terminated, self.elapsed >= self.owner.max_steps)

    def state(self):
        return (jax.tree.map(np.array, self.states), self.elapsed.copy()) if self.owner.remembers else None

    def restore(self, state):
        states, self.elapsed = state
        self.states = jax.tree.map(jnp.asarray, states)

    def close(self):
        self.closed = True

    def _chosen(self, which, new):
        return jax.tree.map(lambda x, y: jnp.where(jnp.asarray(which), x, y), new, self.states)


class InterruptAfter(Silent):
    """A reporter that sends this process a signal at a round, as Ctrl-C does."""

    def __init__(self, round, number=signal.SIGINT):
        self.round, self.number = round, number

    def show(self, status):
        if status.round >= self.round:
            self.round = 10**9
            signal.raise_signal(self.number)
