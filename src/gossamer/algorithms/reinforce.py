"""REINFORCE (Williams 1992), the policy gradient without a critic, for one agent.

Agents that adapt by it and combine with their neighbours are the diffusion policy gradient with which Diff-DAC begins
(section III). Nothing here talks to anyone.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from gossamer.algorithms.hyperparameters import bind_fields, traced
from gossamer.algorithms.protocol import Needs, descend
from gossamer.algorithms.weighting import Weighting, transition_weights
from gossamer.distributions import Categorical, DiagonalGaussian, Spread, bounded_gaussian
from gossamer.errors import InputError, require_choice, require_non_negative, require_positive, require_within
from gossamer.returns import leave_one_out, returns_to_go
from gossamer.types import Activation, Box, Estimate, Info, Key, Learner, Spaces, Trajectory

if TYPE_CHECKING:  # imported where they are used: together they take half a second
    import optax

    import gossamer.networks

Baseline: TypeAlias = Literal["others", "none"]
Optimiser: TypeAlias = Literal["adam", "sgd"]


@traced
@dataclass(frozen=True)
class Reinforce:
    """Monte-Carlo policy gradient over whole episodes: the adaptation (5a) of the diffusion policy gradient.

        ŵ = w + β ∇̂_w J_θ(π_w),    ∇̂_w J_θ = mean over transitions of ∇_w ln π_w(a_t|s_t) (G_t − b_t)

    G_t is the discounted return to the end of the episode, as in (40); the baseline b_t is the mean of those of the
    batch's other episodes at the same step, which does not depend on the action that it is compared with, or nothing.
    The combination (5b) is that of all our algorithms. As in SiAC, transitions are not discounted by their time, and
    the mean is over the real ones, whose number the policy determines too.

    The optimiser ``sgd`` is (5a) as printed, with β the learning rate. Actions of a ``Box`` have SiAC's policy, those
    of a ``Discrete`` a categorical one.

    Raises:
        InputError: where a hyper-parameter lies outside its range.

    Example:
        >>> from gossamer.types import Discrete
        >>> reinforce = Reinforce(hidden=(8,)).bind(Spaces(observation_size=3, action=Discrete(2)))
        >>> learner = reinforce.init(jax.random.key(0))
        >>> action, log_prob = reinforce.act(learner.params, jax.random.key(1), jnp.zeros(3))
        >>> action.shape, log_prob.shape
        ((), ())
    """

    needs: ClassVar = Needs(actions=("bounded", "discrete"), whole_episodes=True)

    spaces: Spaces = field(init=False, repr=False, compare=False)
    """What the agent observes and does; ``bind`` sets it."""
    hidden: tuple[int, ...] = (400, 400)
    """Widths of the policy's hidden layers (neurons)."""
    activation: Activation = "relu"
    """Activation of the hidden layers."""
    spread: Spread = "variance"
    """What the softplus output of a Box's policy is: its variance or its standard deviation."""
    baseline: Baseline = "others"
    """What returns are compared with: the mean of the batch's other episodes at the same step, or nothing."""
    weighting: Weighting = "transitions"
    """What counts alike in the gradient: every transition, or every task."""
    optimiser: Optimiser = "adam"
    """adam, or sgd: plain gradient ascent."""
    learning_rate: float = 0.001
    """The optimiser's step size, > 0."""
    entropy_coefficient: float = 0.0005
    """Weight of the policy's entropy (nats) in the objective, >= 0."""
    discount: float = 0.99
    """γ, the discount per step, in [0, 1]."""
    reward_scale: float = 1.0
    """Factor of rewards where the agent learns from them, > 0. Reported returns are unscaled."""
    variance_floor: float = 1e-6
    """Added to the softplus output, so that the density stays finite, >= 0 (units of the action, squared)."""

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise InputError(f"hidden is {self.hidden}; it must hold at least one width, each at least 1")
        require_choice("activation", self.activation, ("relu", "tanh"))
        require_choice("spread", self.spread, ("variance", "standard_deviation"))
        require_choice("baseline", self.baseline, ("others", "none"))
        require_choice("weighting", self.weighting, ("transitions", "tasks"))
        require_choice("optimiser", self.optimiser, ("adam", "sgd"))
        require_positive("learning_rate", self.learning_rate)
        require_non_negative("entropy_coefficient", self.entropy_coefficient)
        require_within("discount", self.discount, 0.0, 1.0)
        require_positive("reward_scale", self.reward_scale)
        require_non_negative("variance_floor", self.variance_floor)

    def bind(self, spaces: Spaces) -> "Reinforce":
        """Copy for an environment with these spaces."""
        return bind_fields(self, spaces=spaces)

    def init(self, key: Key) -> Learner:
        """A learner with its own random parameters and a fresh optimiser."""
        params = self._network.init(key, jnp.zeros(self.spaces.observation_size))
        return Learner(params, self._optimiser.init(params), updates=jnp.zeros((), jnp.int32))

    def policy(
        self, params: Any, observation: Float[Array, "*batch observation"]
    ) -> Categorical | DiagonalGaussian:
        """The distribution of actions."""
        outputs = self._network.outputs_of(params, observation)
        action = self.spaces.action
        if isinstance(action, Box):
            return bounded_gaussian(outputs, action.bound, self.spread, self.variance_floor)
        return Categorical(outputs)

    def act(
        self, params: Any, key: Key, observation: Float[Array, " observation"]
    ) -> tuple[Num[Array, "*action"], Float[Array, ""]]:
        """A sampled, unclipped action for one observation, and its log-probability."""
        policy = self.policy(params, observation)
        action = policy.sample(key)
        return action, policy.log_prob(action)

    def act_greedily(self, params: Any, observation: Float[Array, " observation"]) -> Num[Array, "*action"]:
        """The most probable action for one observation."""
        return self.policy(params, observation).mode()

    def estimate(self, params: Any, trajectory: Trajectory) -> Estimate:
        """Returns to go, and by how much they exceed the baseline."""
        del params
        target = returns_to_go(trajectory, self.discount, self.reward_scale)
        return Estimate(target - leave_one_out(target) if self.baseline == "others" else target, target)

    def gradient(self, learner: Learner, trajectory: Trajectory, key: Key) -> tuple[Any, Info]:
        """Minus the gradient of (5a), and of the entropy: what an optimiser descends."""
        del key
        estimate = self.estimate(learner.params, trajectory)
        weight = transition_weights(trajectory, self.weighting)

        def loss(params: Any) -> tuple[Array, Info]:
            policy = self.policy(params, trajectory.observation)
            policy_loss = -jnp.sum(weight * policy.log_prob(trajectory.action) * estimate.advantage)
            entropy = jnp.sum(weight * policy.entropy())
            info = {"policy_loss": policy_loss, "entropy": entropy}
            return policy_loss - self.entropy_coefficient * entropy, info

        return jax.grad(loss, has_aux=True)(learner.params)

    def apply(self, learner: Learner, gradient: Any) -> Learner:
        """One step of the optimiser."""
        import optax

        change, state = self._optimiser.update(gradient, learner.optimiser, learner.params)
        params = optax.apply_updates(learner.params, change)
        return learner._replace(params=params, optimiser=state, updates=learner.updates + 1)

    adapt = descend

    def message(self, learner: Learner) -> Any:
        """The policy's parameters (5b)."""
        return learner.params

    def absorb(self, learner: Learner, mixed: Any) -> Learner:
        """The learner with combined parameters; its optimiser's moments stay its own."""
        return learner._replace(params=mixed)

    @property
    def _network(self) -> "gossamer.networks.MLP":
        from gossamer.networks import MLP

        action = self.spaces.action
        outputs = 2 * action.size if isinstance(action, Box) else action.size
        return MLP(self.hidden, outputs=outputs, activation=self.activation)

    @property
    def _optimiser(self) -> "optax.GradientTransformation":
        import optax

        return {"adam": optax.adam, "sgd": optax.sgd}[self.optimiser](self.learning_rate)
