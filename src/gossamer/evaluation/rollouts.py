"""Whole episodes of agents that learn nothing meanwhile, greedily or sampled: undiscounted returns."""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, Real, Shaped

from gossamer.algorithms.protocol import Algorithm, acting, initial_carry
from gossamer.environments import Simulators
from gossamer.experience.device import Episodes
from gossamer.system.compilation import jit
from gossamer.types import Key, Params


def play_on_host(
    algorithm: Algorithm,
    params: Params,
    tasks: Any,
    key: Key,
    environment: Any,
    episodes: int,
    greedy: bool,
) -> Float[np.ndarray, "seed agent task episode"]:
    """As ``play_every_task``, with a simulator for each episode, all of an agent's at once."""
    count = len(jax.tree.leaves(tasks)[0])
    every_task = jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf), episodes), tasks)
    number = int(jax.random.randint(key, (), 0, 2**31 - 1))
    streams = np.array([(number, 0, episode) for episode in range(count * episodes)])
    seeds, agents = jax.tree.leaves(params)[0].shape[:2]
    earned = np.zeros((seeds, agents, count * episodes))
    for place in np.ndindex(seeds, agents):
        own = jax.tree.map(lambda leaf, i=place: leaf[i], params)
        with closing(environment.simulate(every_task, streams)) as simulators:
            act = partial(act_for_episodes, algorithm, own, key, greedy=greedy)
            carry = initial_carry(algorithm, len(streams))
            earned[place] = _returns(simulators, act, carry, len(streams), environment.max_steps)
    return earned.reshape(seeds, agents, count, episodes)


def _returns(
    simulators: Simulators,
    act: Callable[[int, Array, Any], tuple[Array, Any]],
    initial: Any,
    episodes: int,
    most_steps: int,
) -> Float[np.ndarray, " episode"]:
    """Undiscounted returns of one episode in each simulator."""
    alive, earned = np.ones(episodes, bool), np.zeros(episodes)
    observation, carry = simulators.reset(alive), initial
    for step in range(most_steps):
        action, carry = act(step, jnp.asarray(observation), carry)
        taken = simulators.step(np.asarray(action), alive)
        earned += np.where(alive, taken.reward, 0.0)
        observation = np.where(alive[:, None], taken.observation, observation)
        ended = alive & (taken.terminated | taken.truncated)
        alive &= ~(ended if taken.finished is None else taken.finished)
        # A life that ended is not the end of the game, and not of its return.
        if (goes_on := ended & alive).any():
            observation = np.where(goes_on[:, None], simulators.reset(goes_on), observation)
            carry = jax.tree.map(jax.vmap(jnp.where), jax.tree.map(lambda _: goes_on, carry), initial, carry)
        if not alive.any():
            break
    return earned


@partial(jit, static_argnames="greedy")
def act_for_episodes(
    algorithm: Algorithm,
    params: Params,
    key: Key,
    step: Int[Array, ""] | int,
    observation: Real[Array, "episode observation"],
    carry: Any,
    greedy: bool,
) -> tuple[Num[Array, "episode *action"], Any]:
    """One agent's actions, the most probable or sampled, and next carries in all episodes that it plays at once."""
    keys = jax.random.split(jax.random.fold_in(key, step), len(observation))
    action, _, carry = jax.vmap(acting(algorithm, params, greedy))(keys, observation, carry)
    return action, carry


@partial(jax.jit, static_argnames=("environment", "episodes", "greedy"))
def play_every_task(
    algorithm: Algorithm,
    params: Params,
    tasks: Any,
    key: Key,
    environment: Any,
    episodes: int,
    greedy: bool,
) -> Float[Array, "seed agent task episode"]:
    """Every agent on every task, with the same initial states for all agents of a task.

    Args:
        algorithm: what acts.
        params: leaves ``[seed, agent, ...]``.
        tasks: leaves ``[task]``.
        key: of the initial states and the sampled actions.
        environment: the dynamics.
        episodes: per agent and task.
        greedy: the most probable action; sampled otherwise.
    """
    play = partial(_play, algorithm, environment, episodes, greedy, tasks, key)
    return jax.lax.map(partial(jax.lax.map, play), params)


@partial(jax.jit, static_argnames=("environment", "episodes", "greedy"))
def play_own_tasks(
    algorithm: Algorithm,
    params: Params,
    tasks: Any,
    keys: Shaped[Array, " seed"],
    environment: Any,
    episodes: int,
    greedy: bool,
) -> Float[Array, "seed agent env episode"]:
    """Every agent in its own environments, each of its episodes from an initial state of its own.

    Args:
        algorithm: what acts.
        params: leaves ``[seed, agent, ...]``.
        tasks: leaves ``[agent, env]``.
        keys: of the initial states and the sampled actions of each seed.
        environment: the dynamics.
        episodes: per agent and environment.
        greedy: the most probable action; sampled otherwise.
    """

    def one_agent(own: tuple[Params, Any, Key]) -> Float[Array, "env episode"]:
        agent_params, agent_tasks, agent_key = own
        return _play(algorithm, environment, episodes, greedy, agent_tasks, agent_key, agent_params)

    def one_seed(of_seed: tuple[Params, Key]) -> Float[Array, "agent env episode"]:
        seed_params, key = of_seed
        agent_keys = jax.random.split(key, jax.tree.leaves(tasks)[0].shape[0])
        return jax.lax.map(one_agent, (seed_params, tasks, agent_keys))

    return jax.lax.map(one_seed, (params, keys))


def _play(
    algorithm: Algorithm,
    environment: Any,
    episodes: int,
    greedy: bool,
    tasks: Any,
    key: Key,
    params: Params,
) -> Float[Array, "task episode"]:
    """One agent's returns."""
    act, carry = acting(algorithm, params, greedy), initial_carry(algorithm)
    played = Episodes(episodes).collect(environment, act, key, tasks, state=(), carry=carry).trajectory
    return jnp.where(played.mask, played.reward, 0.0).sum(0).reshape(-1, episodes)
