"""Experience from environments that run on the device, for one agent: whole episodes, by ``lax.scan``.

It knows no algorithm: how to act is a function it is given. Environments that live on the host are not its.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Shaped

from gossamer.environments.protocol import Environment
from gossamer.errors import require_at_least
from gossamer.types import Key, Trajectory

Act: TypeAlias = Callable[[Key, Array], tuple[Array, Array]]


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
        >>> def still(key, observation):
        ...     return jnp.zeros(1), jnp.zeros(())
        >>> Episodes(episodes_per_environment=2).collect(pendulum, still, jax.random.key(0), tasks).reward.shape
        (3, 8)
    """

    episodes_per_environment: int = 1
    """E, whole episodes in each environment for one update."""

    def __post_init__(self) -> None:
        require_at_least("episodes_per_environment", self.episodes_per_environment, 1)

    def collect(self, environment: Environment, act: Act, key: Key, tasks: Any) -> Trajectory:
        """Play the episodes of one agent.

        Args:
            environment: the dynamics.
            act: an action and its log-probability, from a key and one observation.
            key: the source of every random choice.
            tasks: task parameters with leaves ``[env]``.

        Returns:
            A trajectory of ``environment.max_steps`` rows and ``env · episodes_per_environment`` columns, the episodes
            of one environment side by side.
        """
        environments = len(jax.tree.leaves(tasks)[0])
        number = jnp.repeat(jnp.arange(environments), self.episodes_per_environment)
        tasks = jax.tree.map(lambda leaf: leaf[number], tasks)
        reset_key, act_key = jax.random.split(key)
        states = jax.vmap(environment.reset)(jax.random.split(reset_key, len(number)), tasks)
        play = _episode_step(environment, act, tasks)
        act_keys = jax.random.split(act_key, (environment.max_steps, len(number)))
        times = jnp.arange(1, environment.max_steps + 1)
        alive = jnp.ones(len(number), bool)
        _, transitions = jax.lax.scan(play, (states, alive), (times, act_keys))
        return Trajectory(*transitions, task=number)


def _episode_step(environment: Environment, act: Act, tasks: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    """The scan's body: one step of every environment that is still in its episode."""
    observe = jax.vmap(environment.observe)

    def play(carry: tuple[Any, Bool[Array, " env"]], now: tuple[Array, Array]) -> tuple[Any, Any]:
        states, alive = carry
        time, keys = now
        observation = observe(states, tasks)
        action, log_prob = jax.vmap(act)(keys, observation)
        step = jax.vmap(environment.step)(states, action, tasks)
        states = jax.tree.map(lambda new, old: _where(alive, new, old), step.state, states)
        terminated = alive & step.terminated
        truncated = alive & ~step.terminated & (time == environment.max_steps)
        reward = jnp.where(alive, step.reward, 0.0)
        after = observe(states, tasks)
        transition = (observation, action, log_prob, reward, after, terminated, truncated, alive)
        return (states, alive & ~step.terminated), transition

    return play


def _where(
    condition: Bool[Array, " env"], new: Shaped[Array, "env *rest"], old: Shaped[Array, "env *rest"]
) -> Shaped[Array, "env *rest"]:
    return jnp.where(condition.reshape(condition.shape + (1,) * (new.ndim - 1)), new, old)
