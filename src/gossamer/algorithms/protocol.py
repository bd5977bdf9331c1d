"""The contract between an algorithm and everything that runs it; imports no algorithm and no runtime.

An algorithm is a frozen dataclass of hyper-parameters with pure methods, written for ONE agent. It is also a
pytree whose leaves are the numbers that may change without compiling again (learning rates, coefficients).
"""

from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, get_args, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gossamer.types import Act, Info, Key, Learner, Message, NeighbourMessage, Params, Spaces, Trajectory

ActionKind: TypeAlias = Literal["discrete", "bounded", "unbounded"]


def optimiser_steps(algorithm: Any) -> int:
    """Number of optimiser steps in one ``adapt``: the algorithm's attribute of that name, 1 without one.

    ``Learner.updates`` counts calls of ``adapt`` and not these steps: message ages, versions and resuming rely on it.

    Example:
        >>> optimiser_steps(object())
        1
    """
    return getattr(algorithm, "optimiser_steps", 1)


class Needs(NamedTuple):
    """What an algorithm can learn from, stated as its class attribute ``needs``; without one, from everything.

    Example:
        >>> Needs(actions=("bounded",)).whole_episodes
        False
    """

    actions: tuple[ActionKind, ...] = get_args(ActionKind)
    """Kinds of action it has a policy for: a ``Discrete``, a ``Box`` with a finite bound, one without."""
    whole_episodes: bool = False
    """Whether it learns from ``Episodes`` only."""


@runtime_checkable
class Algorithm(Protocol):
    """How one agent acts, learns from its own experience, and what it sends.

    ``Averaging`` and ``Cyclic`` add how messages are combined; ``GradientAlgorithm`` adds what runtimes that exchange
    gradients need.
    """

    def bind(self, spaces: Spaces) -> "Algorithm":
        """Copy for an environment with these spaces; ``build`` calls it before any other method."""
        ...

    def init(self, key: Key) -> Learner:
        """A learner with its own random parameters."""
        ...

    def act(self, params: Params, key: Key, observation: Array) -> tuple[Array, Array]:
        """A sampled action for one observation, and its log-probability."""
        ...

    def act_greedily(self, params: Params, observation: Array) -> Array:
        """The most probable action for one observation."""
        ...

    def adapt(self, learner: Learner, trajectory: Trajectory, key: Key) -> tuple[Learner, Info]:
        """The learner after one local adaptation, (5a), (33a) or (39a), with ``updates`` one higher; scalars to report.

        An algorithm that takes more than one optimiser step states how many as ``optimiser_steps``, an attribute or a
        property. The key is for whatever it samples.
        """
        ...

    def message(self, learner: Learner) -> Message:
        """What peers may see of a learner."""
        ...


@runtime_checkable
class GradientAlgorithm(Algorithm, Protocol):
    """An algorithm whose ``adapt`` is one gradient and one optimiser step, which all-reduce and A3C take apart.

    ``adapt = descend`` implements it.
    """

    def gradient(self, learner: Learner, trajectory: Trajectory, key: Key) -> tuple[Any, Info]:
        """The stochastic gradient of the loss on a trajectory; the key is for losses that sample."""
        ...

    def apply(self, learner: Learner, gradient: Any) -> Learner:
        """The learner after one step of its optimiser along a gradient, with ``updates`` one higher."""
        ...


@runtime_checkable
class Recurrent(Protocol):
    """What an algorithm has besides if its policy carries something through an episode, such as a hidden state.

    Its ``act`` and ``act_greedily`` take the carry as a last argument and return the next one as a last result. Each
    environment has a carry of its own, which begins every episode at the initial one. A trajectory holds the carry of
    its first row.
    """

    def initial_carry(self) -> Any:
        """The carry at the start of an episode of one environment: a pytree of arrays."""
        ...


@runtime_checkable
class Averaging(Algorithm, Protocol):
    """An algorithm whose agents replace parameters by weighted means.

    Its ``combine`` is ``absorb`` after the mean of the messages, which a runtime may compute as it likes.
    """

    def absorb(self, learner: Learner, mixed: Message) -> Learner:
        """The learner after its parameters were replaced by a weighted mean of messages."""
        ...


@runtime_checkable
class Cyclic(Algorithm, Protocol):
    """An algorithm whose agents combine one after the other, each hearing what those before it have decided."""

    def bind(self, spaces: Spaces, neighbours: int = 0) -> "Cyclic":
        """Copy for an environment with these spaces and a graph whose agents have at most so many neighbours."""
        ...

    def combine_in_cycle(
        self,
        learner: Learner,
        letters: NeighbourMessage,
        linked: Bool[Array, " peer"],
        later: Bool[Array, " peer"],
    ) -> Learner:
        """The learner after its turn: what its neighbours said last, which slots hold one, whose turn is to come."""
        ...


def descend(
    algorithm: GradientAlgorithm, learner: Learner, trajectory: Trajectory, key: Key
) -> tuple[Learner, Info]:
    """``adapt`` of a ``GradientAlgorithm``: one optimiser step along the gradient of the trajectory."""
    gradient, info = algorithm.gradient(learner, trajectory, key)
    return algorithm.apply(learner, gradient), info


def initial_carry(algorithm: Algorithm, *shape: int) -> Any:
    """The carry at the start of episodes of environments with these leading axes; ``()`` without a recurrent policy."""
    carry = algorithm.initial_carry() if isinstance(algorithm, Recurrent) else ()
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*shape, *jnp.shape(leaf))), carry)


def acting(algorithm: Algorithm, params: Params, greedy: bool = False) -> Act:
    """How an agent acts in one environment, the same for policies with and without a carry.

    Greedy actions have the log-probability 0 in place of their own.
    """
    policy: Any = algorithm
    recurrent = isinstance(algorithm, Recurrent)

    def act(key: Key, observation: Array, carry: Any) -> tuple[Array, Array, Any]:
        before = (carry,) if recurrent else ()
        if greedy:
            chosen = policy.act_greedily(params, observation, *before)
            action, carry = chosen if recurrent else (chosen, carry)
            return action, jnp.zeros(()), carry
        action, log_prob, *after = policy.act(params, key, observation, *before)
        return action, log_prob, after[0] if recurrent else carry

    return act


def combine(
    algorithm: Averaging, learner: Learner, messages: Message, weights: Float[Array, " peer"]
) -> Learner:
    """One agent's combination with its neighbours, the second half of a diffusion step (5b), (33b), (39b).

        w_k ← Σ_l c_lk ŵ_l

    Args:
        algorithm: the agent's algorithm.
        learner: the agent after its adaptation.
        messages: what arrived, on a leading ``peer`` axis; slot 0 is the agent's own message.
        weights: c_lk of each slot, non-negative, summing to one.
    """
    from gossamer.mixing import average  # brings scipy, which the contract alone does not need

    return algorithm.absorb(learner, average(messages, weights))
