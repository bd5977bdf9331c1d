"""The contract between an algorithm and everything that runs it; imports no algorithm and no runtime.

An algorithm is a frozen dataclass of hyper-parameters with pure methods, written for ONE agent. It is also a
pytree whose leaves are the numbers that may change without compiling again (learning rates, coefficients).
"""

from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, get_args, runtime_checkable

from jaxtyping import Array, Bool, Float

from gossamer.types import Estimate, Info, Key, Learner, Message, NeighbourMessage, Params, Trajectory

ActionKind: TypeAlias = Literal["discrete", "bounded", "unbounded"]


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
    """What one agent does with its experience and with what its neighbours say.

    ``adapt`` is ``apply`` after ``gradient``; runtimes that exchange gradients need the halves. How messages are
    combined is what ``Averaging`` and ``Cyclic`` add.
    """

    def init(self, key: Key) -> Learner:
        """A learner with its own random parameters."""
        ...

    def act(self, params: Params, key: Key, observation: Array) -> tuple[Array, Array]:
        """A sampled action for one observation, and its log-probability."""
        ...

    def act_greedily(self, params: Params, observation: Array) -> Array:
        """The most probable action for one observation."""
        ...

    def estimate(self, params: Params, trajectory: Trajectory) -> Estimate:
        """Advantages and critic targets of a trajectory, under the parameters that collected it."""
        ...

    def gradient(self, learner: Learner, trajectory: Trajectory, key: Key) -> tuple[Any, Info]:
        """The stochastic gradient of the loss on a trajectory; the key serves losses that sample."""
        ...

    def apply(self, learner: Learner, gradient: Any) -> Learner:
        """The learner after one step of its optimiser along a gradient."""
        ...

    def message(self, learner: Learner) -> Message:
        """What peers may see of a learner."""
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

    @property
    def neighbours(self) -> int:
        """Most neighbours of an agent: a field, which ``build`` replaces by what it reads off the graph."""
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


def adapt(algorithm: Algorithm, learner: Learner, trajectory: Trajectory, key: Key) -> tuple[Learner, Info]:
    """One local adaptation, the first half of a diffusion step (5a), (33a), (39a)."""
    gradient, info = algorithm.gradient(learner, trajectory, key)
    return algorithm.apply(learner, gradient), info


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
