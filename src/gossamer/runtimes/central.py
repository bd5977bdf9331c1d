"""What the baselines of GALA have in the middle: one learner whose gradients several workers compute.

All-reduce (synchronous A2C) waits for every worker's gradient and applies their mean; A3C applies each as it comes.
A worker knows neither algorithm nor simulators: they are a ``GradientPart``.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from gossamer.runtimes.agent_step import mean_alone
from gossamer.runtimes.peer import Gate, Update

Apply = Callable[[Any, Any], Any]


class Stopped(Exception):
    """The workers end, and none waits for gradients any more."""


@runtime_checkable
class GradientPart(Protocol):
    """What one worker does by itself."""

    def gradient(self, learner: Any, done: int) -> tuple[Any, Any]:
        """Collect with a learner's parameters, in round ``done`` + 1: its gradient, and what there is to report."""
        ...


class Given(NamedTuple):
    """The learner after a gradient was given, and how many updates it had made since the worker read it."""

    learner: Any
    lag: int


@runtime_checkable
class Centre(Protocol):
    """The one learner."""

    def read(self) -> tuple[Any, int]:
        """The learner, and how many updates it has made."""
        ...

    def give(self, worker: int, gradient: Any, version: int) -> Given:
        """Hand in a gradient computed with the learner of a version."""
        ...

    def stop(self) -> None:
        """Release all waiting threads."""
        ...


class Asynchronous:
    """A3C (Mnih et al. 2016): every gradient is applied as it comes, with the statistics of one shared optimiser.

    The gradient was computed with parameters that others have changed since: its lag in updates is reported. Workers
    with many simulators each are the large-batch form (Stooke and Abbeel 2018), with one each the original.

    Args:
        learner: at first.
        version: how many updates it has made.
        apply: one step of the optimiser.
    """

    def __init__(self, learner: Any, version: int, apply: Apply):
        self._learner, self._version, self._apply = learner, version, apply
        self._lock = threading.Lock()

    def read(self) -> tuple[Any, int]:
        """The newest learner."""
        with self._lock:
            return self._learner, self._version

    def give(self, worker: int, gradient: Any, version: int) -> Given:
        """Apply it now."""
        del worker
        with self._lock:
            lag = self._version - version
            self._learner, self._version = self._apply(self._learner, gradient), self._version + 1
            return Given(self._learner, lag)

    def stop(self) -> None:
        """No-op: no thread waits."""


class AllReduce:
    """Synchronous A2C: the mean of all workers' gradients is applied once all have come.

    With as many samples from each worker that is the gradient of one learner with all their simulators; it is clipped
    after the mean. The learner that every worker reads is the same.

    Args:
        learner: at first.
        version: how many updates it has made.
        apply: one step of the optimiser.
        workers: how many gradients make a mean.

    Example:
        >>> import jax.numpy as jnp
        >>> centre = AllReduce(jnp.zeros(()), 0, lambda x, gradient: x - gradient, workers=1)
        >>> float(centre.give(0, jnp.ones(()), 0).learner)
        -1.0
    """

    def __init__(self, learner: Any, version: int, apply: Apply, workers: int):
        self._learner, self._version, self._apply = learner, version, apply
        self._workers = workers
        self._gradients: dict[int, Any] = {}
        self._changed = threading.Condition()
        self._stopped = False

    def read(self) -> tuple[Any, int]:
        """The learner after the last mean."""
        with self._changed:
            return self._learner, self._version

    def give(self, worker: int, gradient: Any, version: int) -> Given:
        """Wait for the others; the last to arrive applies the mean.

        Raises:
            Stopped: no mean will come.
        """
        with self._changed:
            self._gradients[worker] = gradient
            if len(self._gradients) == self._workers:
                self._reduce()
            self._changed.wait_for(lambda: self._stopped or self._version > version)
            if self._version == version:
                raise Stopped
            return Given(self._learner, 0)

    def stop(self) -> None:
        """Release the workers."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _reduce(self) -> None:
        # In order of the worker and not of arrival, so that sums are rounded alike in every run.
        gradients = [self._gradients[worker] for worker in sorted(self._gradients)]
        self._gradients.clear()
        self._learner = self._apply(self._learner, mean_alone(tuple(gradients)))
        self._version += 1
        self._changed.notify_all()


def work(
    worker: int,
    centre: Centre,
    part: GradientPart,
    done: int,
    rounds: int,
    gate: Gate,
) -> Iterator[tuple[Update, Any]]:
    """A worker's rounds: read the learner, compute a gradient, give it; yield an ``Update`` and the learner.

    Args:
        worker: its number.
        centre: the learner.
        part: what it does by itself.
        done: rounds that it has made.
        rounds: after which it ends.
        gate: asked before every round.
    """
    while done < rounds and gate.enter(done):
        learner, version = centre.read()
        gradient, happened = part.gradient(learner, done)
        try:
            given = centre.give(worker, gradient, version)
        except Stopped:
            return
        done += 1
        yield Update(worker, done, happened, 1, 0, np.array([given.lag]), 0, 0.0), given.learner
