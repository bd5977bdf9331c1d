"""The records that flow through one round, and the names of the axes. Imports nothing of ours.

Axes, outermost first; an array carries those it needs, in this order:

    seed    independent repetitions of a run, batched in one program
    agent   members of the population
    peer    messages that one agent combines; slot 0 is the agent itself
    time    steps within what one agent collected for one update
    env     the environments of one agent

Algorithms and environments are written for one agent or one environment; ``vmap`` adds the outer axes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray, Real

Key: TypeAlias = PRNGKeyArray
Params: TypeAlias = Any  # a pytree of float arrays
Message: TypeAlias = Any  # a pytree of float arrays: what peers may see of a learner
Activation: TypeAlias = Literal["relu", "tanh"]  # of hidden layers
Precision: TypeAlias = Literal["float32", "bfloat16"]  # of a network's arithmetic
InitialParameters: TypeAlias = Literal["independent", "shared", "averaged"]  # of the agents of a population
# How an agent acts in one environment: from a key, an observation and a carry to an action, its log-probability and
# the next carry, which is ``()`` unless the policy is recurrent.
Act: TypeAlias = Callable[[Key, Array, Any], tuple[Array, Array, Any]]
Info: TypeAlias = Mapping[str, Float[Any, ""]]  # named scalars that are only reported, never carried on


@dataclass(frozen=True)
class Box:
    """Continuous actions: ``size`` components, each applied by the environment in ``[-bound, bound]``.

    Example:
        >>> Box(size=1, bound=2.0)
        Box(size=1, bound=2.0)
    """

    size: int
    bound: float


@dataclass(frozen=True)
class Discrete:
    """``size`` actions that exclude each other, numbered from 0; an action is one integer.

    Example:
        >>> Discrete(3)
        Discrete(size=3)
    """

    size: int


@dataclass(frozen=True)
class Frames:
    """How an observation that is an image lies in its vector: ``stack`` grey frames, oldest first, row by row.

    Example:
        >>> Frames(stack=4, height=84, width=84).size
        28224
    """

    stack: int
    height: int
    width: int

    @property
    def size(self) -> int:
        """Number of components of the vector, each a brightness in 0..255."""
        return self.stack * self.height * self.width


class Trajectory(NamedTuple):
    """What one agent collected for one update: real transitions where ``mask`` is true, padding elsewhere.

    ``terminated`` says that the task itself ended the episode (no value follows), ``truncated`` that the time
    limit did (a value follows, that of ``next_observation``). ``task[e]`` numbers the environment whose
    transitions stand in column ``e``: with E episodes per environment, E columns share a number. An action of a
    ``Box`` has an axis for its components, one of a ``Discrete`` has none. Observations are vectors of numbers, or
    of bytes where they are images (``Frames``). ``carry`` is what a recurrent policy carried into the first row, with
    leaves ``[env, ...]``; an algorithm computes the later ones again, from the initial one after every end.
    """

    observation: Real[Array, "time env observation"]
    action: Num[Array, "time env *action"]
    log_prob: Float[Array, "time env"]
    reward: Float[Array, "time env"]
    next_observation: Real[Array, "time env observation"]
    terminated: Bool[Array, "time env"]
    truncated: Bool[Array, "time env"]
    mask: Bool[Array, "time env"]
    task: Int[Array, " env"]
    carry: Any = ()

    @classmethod
    def padding(cls, time: int, env: int, observation: int = 1, action: int = 1) -> "Trajectory":
        """A trajectory without a transition, one column per environment: a frame to fill in.

        Example:
            >>> bool(Trajectory.padding(time=2, env=3).mask.any())
            False
        """
        scalar, no = jnp.zeros((time, env)), jnp.zeros((time, env), bool)
        vector = jnp.zeros((time, env, observation))
        return cls(
            observation=vector,
            action=jnp.zeros((time, env, action)),
            log_prob=scalar,
            reward=scalar,
            next_observation=vector,
            terminated=no,
            truncated=no,
            mask=no,
            task=jnp.arange(env),
        )


class Finished(NamedTuple):
    """Episodes that ended while an agent collected: how many, and sums of their undiscounted returns and lengths.

    All three are sums, so that those of several rounds add up; on the host they are arrays of numpy.
    """

    episodes: Float[Any, " env"]
    returns: Float[Any, " env"]
    lengths: Float[Any, " env"]


class Collected(NamedTuple):
    """What collecting gives: where the environments stand, transitions to learn from, episodes that ended."""

    state: Any
    trajectory: Trajectory
    finished: Finished


class Estimate(NamedTuple):
    """What a trajectory says about its actions: how much better than expected, and what the critic should say."""

    advantage: Float[Array, "time env"]
    target: Float[Array, "time env"]


class ActorCritic(NamedTuple):
    """One value for the actor and one for the critic: parameters, gradients, or optimiser states."""

    actor: Any
    critic: Any


class NeighbourMessage(NamedTuple):
    """A message with a part for everybody and a part for each neighbour alone.

    ``to_each`` has a leading axis of places, one for each neighbour, in the order of their numbers. Who receives it
    finds in it what stands in its own place.
    """

    to_all: Any
    to_each: Any


class Learner(NamedTuple):
    """All that one agent keeps from round to round; checkpoints hold it whole.

    Messages are made of ``params``, which also suffice to act. ``optimiser`` and ``memory``, such as a replay buffer,
    are the agent's own; neighbours never receive ``memory``. ``updates`` counts its adaptations. What a recurrent
    policy carries through an episode is not here: it lies with the state of the environments.
    """

    params: Any
    optimiser: Any
    updates: Int[Array, ""]
    memory: Any = ()


@dataclass(frozen=True)
class Spaces:
    """What an agent sees and does: components of an observation, its actions, and the image that it sees, if any."""

    observation_size: int
    action: Box | Discrete
    frames: Frames | None = None
