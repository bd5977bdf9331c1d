"""What one agent of a run has learned, as a function from observations to actions: to be used, not to be trained."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Num, Real

from gossamer.algorithms.protocol import Algorithm, Recurrent
from gossamer.environments import spaces_of
from gossamer.errors import InputError
from gossamer.runs.restore import restore_population
from gossamer.system.compilation import jit
from gossamer.types import Box, Key, Params, Spaces


@dataclass(frozen=True)
class Policy:
    """One agent's policy, with the parameters of a checkpoint."""

    algorithm: Algorithm
    """What it was learned with."""
    params: Params
    """Of this agent alone."""
    spaces: Spaces
    """What it sees, and what it does."""

    def act(
        self, observation: Real[np.ndarray, "*batch observation"], key: Key | None = None
    ) -> Num[np.ndarray, "*batch_and_action"]:
        """The action for an observation, or one for each of a batch.

        Args:
            observation: as the environment gives it.
            key: of the sampled action, another one for each call; without it the most probable action is taken.

        Returns:
            The number of a ``Discrete`` action, or the components of a ``Box``, within its bound.

        Raises:
            InputError: an observation has another length than those that were trained on.
        """
        observation = np.asarray(observation)
        if observation.ndim == 0 or observation.shape[-1] != self.spaces.observation_size:
            raise InputError(
                f"the observation has shape {observation.shape}; its last axis must have "
                f"{self.spaces.observation_size} components"
            )
        flat = observation.reshape(-1, self.spaces.observation_size)
        if key is None:
            action = np.asarray(_greedy(self.algorithm, self.params, jnp.asarray(flat)))
        else:
            action = np.asarray(_sampled(self.algorithm, self.params, key, jnp.asarray(flat)))
        space = self.spaces.action
        if isinstance(space, Box):
            action = np.clip(action, -space.bound, space.bound)
        return action.reshape(observation.shape[:-1] + action.shape[1:])


def load_policy(run: Path | str, agent: int = 0, seed: int | None = None, best: bool = False) -> Policy:
    """The policy of one agent of a run.

    Args:
        run: a folder that ``train`` made.
        agent: its number, from 0.
        seed: one of the run's seeds; by default the first.
        best: take the seed's best checkpoint, not its newest.

    Raises:
        InputError: the folder holds no run, or no such agent, seed or checkpoint, or its policy is recurrent.
    """
    experiment, parts, population = restore_population(Path(run), best)
    if isinstance(parts.algorithm, Recurrent):
        raise InputError(
            f"{type(parts.algorithm).__name__} is recurrent, and Policy.act keeps no carry between calls; use evaluate"
        )
    seed = experiment.seed if seed is None else seed
    if not 0 <= agent < experiment.agents:
        raise InputError(f"agent is {agent}; {run} has the agents 0 to {experiment.agents - 1}")
    last = experiment.seed + experiment.seeds - 1
    if not experiment.seed <= seed <= last:
        raise InputError(f"seed is {seed}; {run} has the seeds {experiment.seed} to {last}")
    params = jax.tree.map(lambda leaf: leaf[seed - experiment.seed, agent], population.learner.params)
    return Policy(parts.algorithm, params, spaces_of(parts.environment))


@jit
def _greedy(algorithm: Any, params: Any, observations: Any) -> Any:
    return jax.vmap(partial(algorithm.act_greedily, params))(observations)


@jit
def _sampled(algorithm: Any, params: Any, key: Any, observations: Any) -> Any:
    keys = jax.random.split(key, len(observations))
    return jax.vmap(lambda each, seen: algorithm.act(params, each, seen)[0])(keys, observations)
