"""Actors that run ahead of one learner: threads that collect, and a bounded queue between them and it.

The star of IMPALA (Espeholt et al. 2018, section 3). It knows no algorithm and no environment: collectors have those.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from gossamer.errors import InputError, require_at_least
from gossamer.types import Collected, Finished, Params, Trajectory


@dataclass(frozen=True)
class Unrolls:
    """Unrolls of some steps that actors collect ahead of the learner: IMPALA's experience, a few updates off-policy.

    The actors divide the environments of an agent. A batch takes ``batch`` of their unrolls, of any actor.

    Raises:
        InputError: a number below 1, ``ahead`` below 0, or a batch that would never fill.

    Example:
        >>> Unrolls(steps=20, actors=4, batch=4, ahead=4).steps
        20
    """

    steps: int = 20
    """Steps of each environment in an unroll."""
    actors: int = 4
    """Actors of an agent; they must divide its environments."""
    batch: int = 4
    """Unrolls for one update."""
    ahead: int = 4
    """Unrolls that may wait for the learner while actors collect others; 0: learner and actors alternate."""

    def __post_init__(self) -> None:
        for name in ("steps", "actors", "batch"):
            require_at_least(name, getattr(self, name), 1)
        require_at_least("ahead", self.ahead, 0)
        _require_batch(self.batch, self.ahead, self.actors)


@runtime_checkable
class Collector(Protocol):
    """The environments of one actor: where they stand, and its random keys, are its own affair."""

    def collect(self, act: Any) -> Collected:
        """One unroll, from where the last one ended; called by one thread only."""
        ...


class Batch(NamedTuple):
    """Unrolls of several actors side by side on the ``env`` axis, those of an actor of lower number first.

    ``lag[u]`` is how many updates the parameters that collected unroll u were behind the newest ones. ``task`` holds
    the collectors' own numbers.
    """

    trajectory: Trajectory
    finished: Finished
    lag: Int[np.ndarray, " unroll"]


class ActorError(RuntimeError):
    """An actor ended with an error, which is this one's cause."""


class ActorsAhead:
    """One thread for each actor, which collects with the newest parameters for as long as it may run ahead.

    An unroll is pending until the learner publishes the update that it made of it. Unrolls pend in the order of their
    completion, and an actor continues collecting once its last one is among the first ``capacity`` of them, or is no
    longer pending. So never more than ``capacity`` + actors unrolls exist; a single actor is never more than
    ⌊capacity / batch⌋ updates behind, whereas a slow one among several may be overtaken by any number of others'.
    With ``capacity`` 0 no actor runs ahead: if a batch takes one unroll of every actor, learner and actors alternate
    and no unroll lags, which is the synchronous actor-critic.

    Actors start at once. ``close``, or leaving the ``with`` block, waits for each to finish the unroll that it is
    collecting; simulators may be closed only after that. Parameters are shared by reference: whoever publishes
    them must never donate their buffers.

    Args:
        collectors: one for each actor.
        act_with: what a collector acts with, from parameters.
        params: what actors act with before anything is published.
        capacity: unrolls that may pend while their actors collect others.
        batch: unrolls that the learner takes at once; table G.1 of IMPALA has 32.

    Raises:
        InputError: if there is no actor, ``capacity`` is negative, or a batch would never fill.

    Example:
        >>> class Counting:
        ...     def collect(self, act):
        ...         trajectory = Trajectory.padding(time=2, env=3)._replace(reward=jnp.full((2, 3), act))
        ...         return Collected((), trajectory, Finished(*3 * [jnp.zeros(3)]))
        >>> with ActorsAhead([Counting()], float, params=0, capacity=0, batch=1) as actors:
        ...     for update in range(3):
        ...         batch = actors.take()
        ...         print(batch.trajectory.reward[0].tolist(), batch.lag.tolist())
        ...         actors.publish(update + 1)
        [0.0, 0.0, 0.0] [0]
        [1.0, 1.0, 1.0] [0]
        [2.0, 2.0, 2.0] [0]
    """

    def __init__(
        self,
        collectors: Sequence[Collector],
        act_with: Callable[[Params], Any],
        params: Params,
        capacity: int,
        batch: int = 32,
    ):
        require_at_least("actors", len(collectors), 1)
        require_at_least("capacity", capacity, 0)
        require_at_least("batch", batch, 1)
        _require_batch(batch, capacity, len(collectors))
        self._act_with, self._capacity, self._batch = act_with, capacity, batch
        self._newest = _Published(0, params)
        self._queue: deque[_Unroll] = deque()
        self._added = self._taken = self._learned = 0  # unrolls so far
        self._closed, self._failure = False, None
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, args=each, name=f"actor-{each[0]}", daemon=True)
            for each in enumerate(collectors)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "ActorsAhead":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self) -> Batch:
        """The next batch, as soon as there is one. What was taken before counts as learned from, published or not.

        Raises:
            ActorError: an actor ended with an error.
            RuntimeError: the actors are closed, or were while this waited.
        """
        with self._changed:
            self._count_as_learned()
            self._changed.wait_for(lambda: self._stopped or len(self._queue) >= self._batch)
            self._require_running()
            unrolls = [self._queue.popleft() for _ in range(self._batch)]
            self._taken += self._batch
            version = self._newest.version
        return _side_by_side(sorted(unrolls, key=lambda unroll: unroll.actor), version)

    def publish(self, params: Params) -> None:
        """Hand the actors the parameters after one more update: unrolls that begin from now on take these."""
        with self._changed:
            self._newest = _Published(self._newest.version + 1, params)
            self._count_as_learned()

    def close(self) -> None:
        """Wake everyone who waits, and wait for every actor to end. What still pends is lost."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    @property
    def _stopped(self) -> bool:
        return self._closed or self._failure is not None

    def _count_as_learned(self) -> None:
        self._learned = self._taken
        self._changed.notify_all()

    def _require_running(self) -> None:
        if self._failure is not None:
            actor, error = self._failure
            raise ActorError(f"actor {actor} ended with {type(error).__name__}: {error}") from error
        if self._closed:
            raise RuntimeError("the actors are closed; take batches before that")

    def _run(self, actor: int, collector: Collector) -> None:
        """The life of one actor's thread."""
        try:
            place = -1
            while (newest := self._await_turn(place)) is not None:
                collected = collector.collect(self._act_with(newest.params))
                # Not a promise of arrays: its error would surface elsewhere, and unrolls would pend uncounted.
                place = self._add(_Unroll(actor, newest.version, jax.block_until_ready(collected)))
        except BaseException as error:  # whatever it is, a learner that waits for this actor must hear of it
            with self._changed:
                self._failure = self._failure or (actor, error)
                self._changed.notify_all()

    def _await_turn(self, place: int) -> "_Published | None":
        """What to collect with, once the actor whose last unroll has a place may continue; None to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or place < self._learned + self._capacity)
            return None if self._stopped else self._newest

    def _add(self, unroll: "_Unroll") -> int:
        """The place of an unroll in the order of all."""
        with self._changed:
            self._queue.append(unroll)
            self._added += 1
            self._changed.notify_all()
            return self._added - 1


def _require_batch(batch: int, capacity: int, actors: int) -> None:
    if batch > capacity + actors:
        raise InputError(
            f"batch is {batch}; it must be at most capacity + actors, {capacity + actors}, or it would never fill"
        )


class _Published(NamedTuple):
    version: int
    params: Params


class _Unroll(NamedTuple):
    actor: int
    version: int
    collected: Collected


def _concatenated(trees: Sequence[Any], axis: int) -> Any:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=axis), *trees)


def _side_by_side(unrolls: Sequence[_Unroll], version: int) -> Batch:
    parts = [unroll.collected.trajectory for unroll in unrolls]
    # Without an axis for time before that of the environments.
    timeless = _concatenated([(part.task, part.carry) for part in parts], axis=0)
    timed = _concatenated([part._replace(task=(), carry=()) for part in parts], axis=1)
    sums = zip(*(unroll.collected.finished for unroll in unrolls), strict=True)
    return Batch(
        timed._replace(task=timeless[0], carry=timeless[1]),
        Finished(*(np.concatenate(column) for column in sums)),
        np.array([version - unroll.version for unroll in unrolls]),
    )
