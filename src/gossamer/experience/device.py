"""Experience from environments that run on the device, for one agent: whole episodes or some steps, by ``lax.scan``.

It knows no algorithm: how to act is a function it is given. Environments that live on the host are not its.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from gossamer.environments.protocol import Environment, Step
from gossamer.errors import require_at_least
from gossamer.system.compilation import computed_once
from gossamer.types import Act, Collected, Finished, Key, Trajectory


@dataclass(frozen=True)
class Episodes:
    """Whole episodes from a fresh start: ``episodes_per_environment`` of them in each environment (the paper's E).

    Column e of the trajectory is one episode. Steps after its end are padding: the state stands still, the
    mask is false and nothing counts.

    Raises:
        InputError: if ``episodes_per_environment`` is below 1.

    Example:
        >>> from gossamer.environments import Pendulum
        >>> pendulum = Pendulum(max_steps=3)
        >>> tasks = jax.tree.map(lambda leaf: leaf[0], pendulum.task_set(4).deal(agents=1))
        >>> def still(key, observation, carry):
        ...     return jnp.zeros(1), jnp.zeros(()), carry
        >>> episodes = Episodes(episodes_per_environment=2)
        >>> episodes.collect(pendulum, still, jax.random.key(0), tasks, state=()).trajectory.reward.shape
        (3, 8)
    """

    episodes_per_environment: int = 1
    """E, whole episodes in each environment for one update."""

    def __post_init__(self) -> None:
        require_at_least("episodes_per_environment", self.episodes_per_environment, 1)

    def init(self, environment: Environment, key: Key, tasks: Any, carry: Any = ()) -> tuple[()]:
        """Nothing is carried from one update to the next."""
        return ()

    def collect(
        self, environment: Environment, act: Act, key: Key, tasks: Any, state: Any, carry: Any = ()
    ) -> Collected:
        """Play the episodes of one agent.

        Args:
            environment: the dynamics.
            act: an action, its log-probability and the next carry, from a key, one observation and a carry.
            key: the source of every random choice.
            tasks: task parameters with leaves ``[env]``.
            state: what ``init`` returned.
            carry: that of an episode's start.

        Returns:
            The same state, and a trajectory of ``environment.max_steps`` rows and ``env · episodes_per_environment``
            columns, the episodes of one environment side by side.
        """
        environments = len(jax.tree.leaves(tasks)[0])
        number = jnp.repeat(jnp.arange(environments), self.episodes_per_environment)
        tasks = jax.tree.map(lambda leaf: leaf[number], tasks)
        reset_key, act_key = jax.random.split(key)
        states = jax.vmap(environment.reset)(jax.random.split(reset_key, len(number)), tasks)
        play = _episode_step(environment, act, tasks)
        act_keys = jax.random.split(act_key, (environment.max_steps, len(number)))
        step_keys = _step_keys(key, environment.max_steps, len(number))
        times = jnp.arange(1, environment.max_steps + 1)
        alive = jnp.ones(len(number), bool)
        carries = _repeated(carry, len(number))
        _, transitions = jax.lax.scan(play, (states, alive, carries), (times, act_keys, step_keys))
        trajectory = Trajectory(*transitions, task=number, carry=carries)
        return Collected(state, trajectory, _finished(trajectory, environments))


class Playing(NamedTuple):
    """Where the environments of one agent stand between two updates.

    ``elapsed`` counts steps of the episode in progress, ``earned`` sums its rewards, ``carry`` is what the agent's
    policy carries through it.
    """

    states: Any
    elapsed: Int[Array, " env"]
    earned: Float[Array, " env"]
    carry: Any = ()


@dataclass(frozen=True)
class Steps:
    """A fixed number of steps in each environment, across the ends of episodes (A2C's horizon T).

    An environment whose episode ends starts anew at once; the transition that ended it holds the final observation.

    Raises:
        InputError: if ``steps`` is below 1.

    Example:
        >>> from gossamer.environments import Pendulum
        >>> pendulum = Pendulum(max_steps=2)
        >>> tasks = jax.tree.map(lambda leaf: leaf[0], pendulum.task_set(4).deal(agents=1))
        >>> def still(key, observation, carry):
        ...     return jnp.zeros(1), jnp.zeros(()), carry
        >>> steps = Steps(steps=5)
        >>> state = steps.init(pendulum, jax.random.key(0), tasks)
        >>> steps.collect(pendulum, still, jax.random.key(1), tasks, state).finished.episodes.tolist()
        [2.0, 2.0, 2.0, 2.0]
    """

    steps: int = 60
    """T, steps in each environment for one update."""

    def __post_init__(self) -> None:
        require_at_least("steps", self.steps, 1)

    def init(self, environment: Environment, key: Key, tasks: Any, carry: Any = ()) -> Playing:
        """Every environment at the start of an episode."""
        count = len(jax.tree.leaves(tasks)[0])
        states = jax.vmap(environment.reset)(jax.random.split(key, count), tasks)
        return Playing(states, jnp.zeros(count, jnp.int32), jnp.zeros(count), _repeated(carry, count))

    def collect(
        self, environment: Environment, act: Act, key: Key, tasks: Any, state: Playing, carry: Any = ()
    ) -> Collected:
        """Continue every environment of one agent.

        Args:
            environment: the dynamics.
            act: an action, its log-probability and the next carry, from a key, one observation and a carry.
            key: the source of every random choice.
            tasks: task parameters with leaves ``[env]``.
            state: where the environments stand.
            carry: that of an episode's start.

        Returns:
            Where they stand then, and a trajectory of ``steps`` rows and a column for each environment, all real.
        """
        count = len(jax.tree.leaves(tasks)[0])
        reset_key, act_key = jax.random.split(key)
        # All fresh starts in one go, which is cheaper than one at every step of the scan.
        starts = jax.vmap(jax.vmap(environment.reset), in_axes=(0, None))(
            jax.random.split(reset_key, (self.steps, count)), tasks
        )
        act_keys = jax.random.split(act_key, (self.steps, count))
        step_keys = _step_keys(key, self.steps, count)
        play = _endless_step(environment, act, tasks, _repeated(carry, count))
        times = jnp.arange(1, self.steps + 1)
        after, (transitions, finished) = jax.lax.scan(play, state, (times, starts, act_keys, step_keys))
        trajectory = Trajectory(*transitions, task=jnp.arange(count), carry=state.carry)
        return Collected(after, trajectory, jax.tree.map(lambda rows: rows.sum(0), finished))


def _endless_step(
    environment: Environment, act: Act, tasks: Any, initial_carry: Any
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """The scan's body: one step of every environment, and a fresh start where that ended an episode."""
    observe = jax.vmap(environment.observe)

    def play(before: Playing, now: tuple[Array, Any, Array, Array]) -> tuple[Playing, Any]:
        time, starts, act_keys, step_keys = now
        observation = observe(before.states, tasks)
        action, log_prob, carry = jax.vmap(act)(act_keys, observation, before.carry)
        # Otherwise every array of the transition would hold the dynamics once more, in time and in compilation.
        step = jax.vmap(environment.step)(step_keys, before.states, action, tasks)
        step = computed_once(step, time > 0)
        elapsed, earned = before.elapsed + 1, before.earned + step.reward
        truncated = ~step.terminated & _cut(step, elapsed >= environment.max_steps)
        ended = step.terminated | truncated
        states = jax.tree.map(lambda start, on: _where(ended, start, on), starts, step.state)
        carry = jax.tree.map(lambda start, on: _where(ended, start, on), initial_carry, carry)
        following = observe(step.state, tasks)
        real = jnp.ones_like(ended)
        transition = (observation, action, log_prob, step.reward, following, step.terminated, truncated, real)
        finished = Finished(
            ended.astype(earned.dtype),
            jnp.where(ended, earned, 0.0),
            jnp.where(ended, elapsed, 0).astype(earned.dtype),
        )
        after = Playing(states, jnp.where(ended, 0, elapsed), jnp.where(ended, 0.0, earned), carry)
        return after, (transition, finished)

    return play


def _repeated(carry: Any, environments: int) -> Any:
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (environments, *jnp.shape(leaf))), carry)


def _step_keys(key: Key, steps: int, environments: int) -> Array:
    """Keys of the environments' steps, ``[time, env]``, from a stream that neither resets nor actions use."""
    return jax.random.split(jax.random.fold_in(key, 2), (steps, environments))


def _cut(step: Step, at_limit: Bool[Array, "..."]) -> Bool[Array, "..."]:
    """Whether the environment or its time limit cuts an episode."""
    return at_limit if step.truncated is None else step.truncated | at_limit


def _finished(trajectory: Trajectory, environments: int) -> Finished:
    """Of a trajectory of whole episodes."""

    def per_environment(column: Array) -> Array:
        column = column.astype(trajectory.reward.dtype)
        return jax.ops.segment_sum(column, trajectory.task, num_segments=environments)

    real = trajectory.mask
    return Finished(
        episodes=per_environment((trajectory.terminated | trajectory.truncated).sum(0)),
        returns=per_environment(jnp.where(real, trajectory.reward, 0.0).sum(0)),
        lengths=per_environment(real.sum(0)),
    )


def _episode_step(environment: Environment, act: Act, tasks: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    """The scan's body: one step of every environment that is still in its episode."""
    observe = jax.vmap(environment.observe)

    def play(
        before: tuple[Any, Bool[Array, " env"], Any], now: tuple[Array, Array, Array]
    ) -> tuple[Any, Any]:
        states, alive, carry = before
        time, act_keys, step_keys = now
        observation = observe(states, tasks)
        action, log_prob, carry = jax.vmap(act)(act_keys, observation, carry)
        step = jax.vmap(environment.step)(step_keys, states, action, tasks)
        states = jax.tree.map(lambda new, old: _where(alive, new, old), step.state, states)
        terminated = alive & step.terminated
        cut = _cut(step, time == environment.max_steps)
        truncated = alive & ~step.terminated & cut
        reward = jnp.where(alive, step.reward, 0.0)
        after = observe(states, tasks)
        transition = (observation, action, log_prob, reward, after, terminated, truncated, alive)
        # The time limit ends the scan itself.
        ended = step.terminated if step.truncated is None else step.terminated | step.truncated
        return (states, alive & ~ended, carry), transition

    return play


def _where(
    condition: Bool[Array, " env"], new: Shaped[Array, "env *rest"], old: Shaped[Array, "env *rest"]
) -> Shaped[Array, "env *rest"]:
    return jnp.where(condition.reshape(condition.shape + (1,) * (new.ndim - 1)), new, old)
