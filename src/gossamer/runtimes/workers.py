"""What a thread of its own does with an experiment's environment and algorithm, on the device or on the host."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gossamer.algorithms.protocol import initial_carry
from gossamer.experience import Steps, Unrolls
from gossamer.experience.ahead import ActorsAhead
from gossamer.experience.host import HostSteps, streams_of
from gossamer.experiment import on_host
from gossamer.runtimes.agent_step import (
    Turn,
    act_alone,
    act_and_adapt_alone,
    apply_alone,
    collect_alone,
    combine_alone,
    gradient_alone,
    learn_alone,
)
from gossamer.runtimes.build import Parts
from gossamer.runtimes.rounds import AgentRound, agent_key
from gossamer.types import Collected, Finished, Learner, Message


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
        """Resume from what ``state`` returned."""
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
        keeps_gradients: whether ``last_gradient`` is wanted.
    """

    def __init__(self, parts: Parts, number: int, tasks: Any, keeps_gradients: bool = False):
        self._keeps_gradients, self.last_gradient = keeps_gradients, None
        self._algorithm, self._seed, self._number = parts.algorithm, int(parts.seeds[0]), number
        self._collector: Collector = (
            _Ahead(parts, number, tasks)
            if isinstance(parts.experience, Unrolls)
            else _collector(parts, number, tasks, parts.experience)
        )

    def adapt(self, learner: Learner, done: int) -> tuple[Learner, Any]:
        """A round up to the message, computed and not only promised: peers must not wait for each other's."""
        if self._keeps_gradients:
            gradient, report = self.gradient(learner, done)
            return jax.block_until_ready(apply_alone(self._algorithm, learner, gradient)), report
        if isinstance(self._collector, _OnDevice):
            return jax.block_until_ready(self._collector.adapt(learner, done))
        collected = self._collector.collect(learner, done)
        learner, report = learn_alone(self._algorithm, learner, collected, self._turn(done))
        return jax.block_until_ready(learner), self._with_lag(report)

    def gradient(self, learner: Learner, done: int) -> tuple[Any, Any]:
        """A round up to the gradient, computed and not only dispatched: others continue from what it changes."""
        collected = self._collector.collect(learner, done)
        gradient, report = gradient_alone(self._algorithm, learner, collected, self._turn(done))
        if self._keeps_gradients:
            self.last_gradient = gradient
        return jax.block_until_ready(gradient), self._with_lag(report)

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
        """Begin episodes, or continue those of the environments that were put on the device."""
        self._collector.start(playing)

    def state(self) -> Any:
        """Where its environments stand, as far as that can be told."""
        return self._collector.state()

    def restore(self, state: Any) -> None:
        """Resume from what ``state`` returned."""
        self._collector.restore(state)

    def close(self) -> None:
        """Let go of simulators."""
        self._collector.close()

    def _turn(self, done: int) -> Turn:
        return Turn(self._seed, self._number, done)

    def _with_lag(self, report: AgentRound) -> AgentRound:
        if not isinstance(self._collector, _Ahead):
            return report
        return report._replace(info={**report.info, "policy_lag": self._collector.lag})


def _collector(parts: Parts, number: int, tasks: Any, experience: Any) -> "_OnHost | _OnDevice":
    return (_OnHost if on_host(parts.environment) else _OnDevice)(parts, number, tasks, experience)


class _OnDevice:
    """Environments on the device: collecting and learning are one program."""

    remembers = True

    def __init__(self, parts: Parts, number: int, tasks: Any, experience: Any):
        self._parts, self._number, self._tasks = parts, number, tasks
        self._experience, self._seed, self._playing = experience, int(parts.seeds[0]), ()

    def adapt(self, learner: Learner, done: int) -> tuple[Learner, Any]:
        learner, self._playing, report = act_and_adapt_alone(
            self._parts.algorithm,
            learner,
            self._playing,
            self._tasks,
            Turn(self._seed, self._number, done),
            environment=self._parts.environment,
            experience=self._experience,
        )
        return learner, report

    def collect(self, learner: Learner, done: int) -> Collected:
        collected = collect_alone(
            self._parts.algorithm,
            learner,
            self._playing,
            self._tasks,
            Turn(self._seed, self._number, done),
            environment=self._parts.environment,
            experience=self._experience,
        )
        self._playing = collected.state
        return collected._replace(state=())

    def start(self, playing: Any) -> None:
        self._playing = playing

    def restart(self) -> None:
        """Begin new episodes, others than the run began with."""
        key = jax.random.fold_in(agent_key(*map(jnp.int32, (self._seed, self._number, 0))), 2)
        carry = initial_carry(self._parts.algorithm)
        self._playing = self._experience.init(self._parts.environment, key, self._tasks, carry)

    def state(self) -> Any:
        return self._playing

    def restore(self, state: Any) -> None:
        self._playing = state

    def close(self) -> None:
        """Nothing is held."""


class _OnHost:
    """Simulators on the host, an object of them for each worker."""

    def __init__(self, parts: Parts, number: int, tasks: Any, experience: Any):
        assert isinstance(experience, Steps)  # ``build`` refuses whole episodes on the host
        self._algorithm, self._seed, self._number = parts.algorithm, int(parts.seeds[0]), number
        streams = streams_of(np.array([self._seed]), np.array([number]), len(jax.tree.leaves(tasks)[0]))
        carry = initial_carry(parts.algorithm)
        self._host = HostSteps(parts.environment, experience.steps, tasks, streams[0, 0], carry)

    def collect(self, learner: Learner, done: int) -> Collected:
        turn = Turn(self._seed, self._number, done)

        return self._host.collect(partial(act_alone, self._algorithm, learner.params, turn))

    def start(self, playing: Any) -> None:
        self._host.start()

    @property
    def remembers(self) -> bool:
        return self._host.remembers

    def restart(self) -> None:
        """Begin new episodes."""
        self._host.start()

    def state(self) -> Any:
        return self._host.state()

    def restore(self, state: Any) -> None:
        self._host.restore(state)

    def close(self) -> None:
        self._host.close()


class _Ahead:
    """Actors that collect with parameters of a few updates ago, each with a part of the environments."""

    remembers = False

    def __init__(self, parts: Parts, number: int, tasks: Any):
        assert isinstance(parts.experience, Unrolls)
        self._experience, self._environments = parts.experience, len(jax.tree.leaves(tasks)[0])
        self._share = self._environments // self._experience.actors
        self._actors = [
            # Random numbers of actors are apart from each other's and from those of other agents' actors.
            _collector(
                parts,
                number * self._experience.actors + actor,
                jax.tree.map(lambda leaf, a=actor: leaf[self._slice(a)], tasks),
                Steps(self._experience.steps),
            )
            for actor in range(self._experience.actors)
        ]
        self._ahead: ActorsAhead | None = None
        self.lag = 0.0

    def collect(self, learner: Learner, done: int) -> Collected:
        if self._ahead is None:
            self._ahead = self._begin(learner.params, done)
        else:
            self._ahead.publish(learner.params)
        batch = self._ahead.take()
        self.lag = float(batch.lag.mean())
        # Episodes are counted where their environment is, whichever agent learns from them.
        finished = Finished(
            *(
                np.bincount(np.asarray(batch.trajectory.task), total, minlength=self._environments)
                for total in batch.finished
            )
        )
        return Collected((), batch.trajectory, finished)

    def start(self, playing: Any) -> None:
        for actor, collector in enumerate(self._actors):
            collector.start(jax.tree.map(lambda leaf, a=actor: leaf[self._slice(a)], playing))

    def state(self) -> Any:
        return ()

    def restore(self, state: Any) -> None:
        """Actors were in the middle of unrolls: they begin new episodes."""
        del state
        for collector in self._actors:
            collector.restart()

    def close(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
        for collector in self._actors:
            collector.close()

    def _begin(self, params: Any, done: int) -> ActorsAhead:
        each = self._experience
        unrolling = [
            _Unrolling(collector, actor * self._share, done) for actor, collector in enumerate(self._actors)
        ]
        return ActorsAhead(unrolling, lambda params: params, params, capacity=each.ahead, batch=each.batch)

    def _slice(self, actor: int) -> slice:
        return slice(actor * self._share, (actor + 1) * self._share)


class _Unrolling:
    """One actor's environments, whose numbers among the agent's begin at ``first``, after ``done`` updates."""

    def __init__(self, collector: "_OnHost | _OnDevice", first: int, done: int):
        self._collector, self._first, self._done = collector, first, done

    def collect(self, act: Any) -> Collected:
        collected = self._collector.collect(Learner(act, (), jnp.zeros((), jnp.int32)), self._done)
        self._done += 1
        trajectory = collected.trajectory._replace(task=collected.trajectory.task + self._first)
        return Collected((), trajectory, jax.device_get(collected.finished))
