"""Whole episodes of agents that learn nothing meanwhile, greedily or sampled: undiscounted returns."""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num, Real, Shaped

from gossamer.algorithms.protocol import Algorithm
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
            earned[place] = _returns(simulators, act, len(streams), environment.max_steps)
    return earned.reshape(seeds, agents, count, episodes)


def _returns(
    simulators: Simulators, act: Callable[[int, Array], Array], episodes: int, most_steps: int
) -> Float[np.ndarray, " episode"]:
    """Undiscounted returns of one episode in each simulator."""
    alive, earned = np.ones(episodes, bool), np.zeros(episodes)
    observation = simulators.reset(alive)
    for step in range(most_steps):
        taken = simulators.step(np.asarray(act(step, jnp.asarray(observation))), alive)
        earned += np.where(alive, taken.reward, 0.0)
        observation = np.where(alive[:, None], taken.observation, observation)
        ended = alive & (taken.terminated | taken.truncated)
        alive &= ~(ended if taken.finished is None else taken.finished)
        # A life that ended is not the end of the game, and not of its return.
        if (goes_on := ended & alive).any():
            observation = np.where(goes_on[:, None], simulators.reset(goes_on), observation)
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
    greedy: bool,
) -> Num[Array, "episode *action"]:
    """One agent's actions in all episodes that it plays at once: the most probable ones, or sampled."""
    if greedy:
        return jax.vmap(algorithm.act_greedily, in_axes=(None, 0))(params, observation)
    keys = jax.random.split(jax.random.fold_in(key, step), len(observation))
    return jax.vmap(algorithm.act, in_axes=(None, 0, 0))(params, keys, observation)[0]


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

    def act(act_key: Key, observation: Array) -> tuple[Array, Array]:
        if greedy:
            return algorithm.act_greedily(params, observation), jnp.zeros(())
        return algorithm.act(params, act_key, observation)

    played = Episodes(episodes).collect(environment, act, key, tasks, state=()).trajectory
    return jnp.where(played.mask, played.reward, 0.0).sum(0).reshape(-1, episodes)
