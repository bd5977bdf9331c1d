"""What a thread of its own does with an experiment's environment and algorithm, on the device or on the host."""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float

from gossamer.experience.device import Steps
from gossamer.experience.host import HostSteps, streams_of
from gossamer.experiment import Parts, on_host
from gossamer.runtimes.single import (
    act_alone,
    act_and_adapt_alone,
    collect_alone,
    combine_alone,
    gradient_alone,
    learn_alone,
)
from gossamer.types import Collected, Learner, Message


class Collector(Protocol):
    """Where one worker's experience comes from."""

    @property
    def remembers(self) -> bool:
        """Whether ``state`` is all that there is to know."""
        ...

    def collect(self, learner: Learner, done: int) -> Collected:
        """Experience of round ``done`` + 1."""
        ...

    def start(self, playing: Any) -> None:
        """Begin episodes; on the device they stand there already."""
        ...

    def state(self) -> Any:
        """What ``restore`` needs; empty where nothing can be told."""
        ...

    def restore(self, state: Any) -> None:
        """Go on from what ``state`` returned."""
        ...

    def close(self) -> None:
        """Let go of simulators."""
        ...


class Worker:
    """One agent, or one worker of a central learner: collects, and learns or computes a gradient.

    Args:
        parts: what the experiment is made of.
        number: of the worker; its random numbers are its own.
        tasks: of its environments, leaves ``[env]``.
    """

    def __init__(self, parts: Parts, number: int, tasks: Any):
        self._algorithm, self._seed, self._number = parts.algorithm, int(parts.seeds[0]), number
        self._collector: Collector = (
            _OnHost(parts, number, tasks) if on_host(parts.environment) else _OnDevice(parts, number, tasks)
        )

    def adapt(self, learner: Learner, done: int) -> tuple[Learner, Any]:
        """A round up to the message."""
        if isinstance(self._collector, _OnDevice):
            return self._collector.adapt(learner, done)
        collected = self._collector.collect(learner, done)
        return learn_alone(self._algorithm, learner, collected, self._seed, self._number, done)

    def gradient(self, learner: Learner, done: int) -> tuple[Any, Any]:
        """A round up to the gradient."""
        collected = self._collector.collect(learner, done)
        return gradient_alone(self._algorithm, learner, collected, self._seed, self._number, done)

    def message(self, learner: Learner) -> Message:
        """What peers may see."""
        return self._algorithm.message(learner)

    def combine(
        self, learner: Learner, messages: Sequence[Message], weights: Float[np.ndarray, " peer"]
    ) -> Learner:
        """Average with what has come."""
        return combine_alone(self._algorithm, learner, tuple(messages), weights.astype(np.float32))

    @property
    def remembers(self) -> bool:
        """Whether ``state`` is all that there is to know of its environments."""
        return self._collector.remembers

    def start(self, playing: Any) -> None:
        """Begin episodes, or go on where the environments were put on the device."""
        self._collector.start(playing)

    def state(self) -> Any:
        """Where its environments stand, as far as that can be told."""
        return self._collector.state()

    def restore(self, state: Any) -> None:
        """Go on from there."""
        self._collector.restore(state)

    def close(self) -> None:
        """Let go of simulators."""
        self._collector.close()


class _OnDevice:
    """Environments on the device: collecting and learning are one program."""

    remembers = True

    def __init__(self, parts: Parts, number: int, tasks: Any):
        self._parts, self._number, self._tasks = parts, number, tasks
        self._seed, self._playing = int(parts.seeds[0]), ()

    def adapt(self, learner: Learner, done: int) -> tuple[Learner, Any]:
        learner, self._playing, report = act_and_adapt_alone(
            self._parts.algorithm,
            learner,
            self._playing,
            self._tasks,
            self._seed,
            self._number,
            done,
            environment=self._parts.environment,
            experience=self._parts.experience,
        )
        return learner, report

    def collect(self, learner: Learner, done: int) -> Collected:
        collected = collect_alone(
            self._parts.algorithm,
            learner,
            self._playing,
            self._tasks,
            self._seed,
            self._number,
            done,
            environment=self._parts.environment,
            experience=self._parts.experience,
        )
        self._playing = collected.state
        return collected._replace(state=())

    def start(self, playing: Any) -> None:
        self._playing = playing

    def state(self) -> Any:
        return self._playing

    def restore(self, state: Any) -> None:
        self._playing = state

    def close(self) -> None:
        """Nothing is held."""


class _OnHost:
    """Simulators on the host, an object of them for each worker."""

    def __init__(self, parts: Parts, number: int, tasks: Any):
        assert isinstance(parts.experience, Steps)  # ``build`` refuses whole episodes on the host
        self._algorithm, self._seed, self._number = parts.algorithm, int(parts.seeds[0]), number
        streams = streams_of(np.array([self._seed]), np.array([number]), len(jax.tree.leaves(tasks)[0]))
        self._host = HostSteps(parts.environment, parts.experience.steps, tasks, streams[0, 0])

    def collect(self, learner: Learner, done: int) -> Collected:
        def act(step: int, seen: Array) -> tuple[Array, Array]:
            return act_alone(self._algorithm, learner.params, self._seed, self._number, done, step, seen)

        return self._host.collect(act)

    def start(self, playing: Any) -> None:
        self._host.start()

    @property
    def remembers(self) -> bool:
        return self._host.remembers

    def state(self) -> Any:
        return self._host.state()

    def restore(self, state: Any) -> None:
        self._host.restore(state)

    def close(self) -> None:
        self._host.close()
