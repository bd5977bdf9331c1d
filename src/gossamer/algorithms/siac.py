"""SiAC, Diff-DAC's simple actor-critic (section IV-D), for one agent.

Whether it is Diff-SiAC, centralised or specialised SiAC is not said here: that is the shape of the tasks and
the graph. Nothing here talks to anyone.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gossamer.algorithms.hyperparameters import bind_fields, traced
from gossamer.algorithms.protocol import Needs, descend
from gossamer.algorithms.weighting import Weighting, transition_weights
from gossamer.distributions import DiagonalGaussian, Spread, bounded_gaussian
from gossamer.errors import InputError, require_choice, require_non_negative, require_positive, require_within
from gossamer.returns import returns_to_go
from gossamer.types import Activation, ActorCritic, Box, Estimate, Info, Key, Learner, Spaces, Trajectory

if TYPE_CHECKING:
    import gossamer.networks  # imported where a network is made: flax takes a third of a second


@traced
@dataclass(frozen=True)
class SiAC:
    """Simple actor-critic: Monte-Carlo advantages over whole episodes, separate networks, Adam.

    Advantage (40), with the return to the end of the episode and no bootstrap:

        Â_t = Σ_{j=t}^{T−1} γ^{j−t} r_{j+1} − v_ξ(s_t)

    Critic (43) descends ½(v_ξ(s_t) − G_t)²; actor (44) ascends ln π_w(a_t|s_t) Â_t. As printed, (33a) with (43)
    would move the critic away from its target; the signs here are those of the squared error. The text calls
    the entropy a penalty; it is rewarded here, as is usual.

    Defaults are appendix A.1's. Learning rates and coefficients are traced: changing them compiles nothing.

    Raises:
        InputError: where a hyper-parameter lies outside its range.

    Example:
        >>> from gossamer.types import Box
        >>> siac = SiAC(hidden=(8, 8)).bind(Spaces(observation_size=3, action=Box(size=1, bound=2.0)))
        >>> learner = siac.init(jax.random.key(0))
        >>> action, log_prob = siac.act(learner.params, jax.random.key(1), jnp.zeros(3))
        >>> action.shape, log_prob.shape
        ((1,), ())
    """

    needs: ClassVar = Needs(actions=("bounded",))

    spaces: Spaces = field(init=False, repr=False, compare=False)
    """What the agent observes and does; ``bind`` sets it."""
    hidden: tuple[int, ...] = (400, 400)
    """Widths of the hidden layers of actor and critic (neurons)."""
    activation: Activation = "relu"
    """Activation of the hidden layers."""
    spread: Spread = "variance"
    """What the actor's softplus output is: the policy's variance (the paper's) or its standard deviation."""
    weighting: Weighting = "transitions"
    """What counts alike in the gradient: every transition, pooled (41)-(42), or every task."""
    bootstrap_at_time_limit: bool = False
    """Add the critic's value of the state in which the time limit cut an episode off (the paper does not)."""
    actor_learning_rate: float = 0.001
    """Adam's step size for the actor, > 0."""
    critic_learning_rate: float = 0.01
    """Adam's step size for the critic, > 0."""
    entropy_coefficient: float = 0.0005
    """Weight of the policy's entropy (nats) in the actor's objective, >= 0."""
    discount: float = 0.99
    """γ, the discount per step, in [0, 1]."""
    reward_scale: float = 1.0
    """Factor of rewards where the agent learns from them, > 0; the paper names none. Reported returns are unscaled."""
    variance_floor: float = 1e-6
    """Added to the softplus output, so that the density stays finite, >= 0 (units of the action, squared)."""

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise InputError(f"hidden is {self.hidden}; it must hold at least one width, each at least 1")
        require_choice("activation", self.activation, ("relu", "tanh"))
        require_choice("spread", self.spread, ("variance", "standard_deviation"))
        require_choice("weighting", self.weighting, ("transitions", "tasks"))
        require_positive("actor_learning_rate", self.actor_learning_rate)
        require_positive("critic_learning_rate", self.critic_learning_rate)
        require_non_negative("entropy_coefficient", self.entropy_coefficient)
        require_within("discount", self.discount, 0.0, 1.0)
        require_positive("reward_scale", self.reward_scale)
        require_non_negative("variance_floor", self.variance_floor)

    def bind(self, spaces: Spaces) -> "SiAC":
        """Copy for an environment with these spaces."""
        return bind_fields(self, spaces=spaces)

    def init(self, key: Key) -> Learner:
        """A learner with its own random parameters and fresh optimisers."""
        actor_key, critic_key = jax.random.split(key)
        observation = jnp.zeros(self.spaces.observation_size)
        params = ActorCritic(
            actor=self._actor.init(actor_key, observation), critic=self._critic.init(critic_key, observation)
        )
        optimiser = ActorCritic(
            actor=self._optimisers.actor.init(params.actor),
            critic=self._optimisers.critic.init(params.critic),
        )
        return Learner(params, optimiser, updates=jnp.zeros((), jnp.int32))

    def policy(self, actor_params: Any, observation: Float[Array, "*batch observation"]) -> DiagonalGaussian:
        """The distribution of actions: mean = bound · tanh(·), variance = softplus(·) or its square."""
        outputs = self._actor.outputs_of(actor_params, observation)
        assert isinstance(self.spaces.action, Box)  # ``build`` refuses any other
        return bounded_gaussian(outputs, self.spaces.action.bound, self.spread, self.variance_floor)

    def value(
        self, critic_params: Any, observation: Float[Array, "*batch observation"]
    ) -> Float[Array, "*batch"]:
        """v_ξ(s), in units of the return."""
        return self._critic.outputs_of(critic_params, observation)[..., 0]

    def act(
        self, params: ActorCritic, key: Key, observation: Float[Array, " observation"]
    ) -> tuple[Float[Array, " action"], Float[Array, ""]]:
        """A sampled, unclipped action for one observation, and its log-probability."""
        policy = self.policy(params.actor, observation)
        action = policy.sample(key)
        return action, policy.log_prob(action)

    def act_greedily(
        self, params: ActorCritic, observation: Float[Array, " observation"]
    ) -> Float[Array, " action"]:
        """The policy's mean for one observation."""
        return self.policy(params.actor, observation).mode()

    def estimate(self, params: ActorCritic, trajectory: Trajectory) -> Estimate:
        """Advantages (40), and the returns that the critic should predict."""
        beyond = 0.0
        if self.bootstrap_at_time_limit:
            beyond = self.discount * self.value(params.critic, trajectory.next_observation)
        target = returns_to_go(trajectory, self.discount, self.reward_scale, beyond)
        return Estimate(target - self.value(params.critic, trajectory.observation), target)

    def gradient(self, learner: Learner, trajectory: Trajectory, key: Key) -> tuple[ActorCritic, Info]:
        """Gradients (43)-(44) of the actor's and the critic's loss, averaged over real transitions."""
        del key
        return self.gradient_of(learner.params, trajectory, self.estimate(learner.params, trajectory))

    def gradient_of(
        self, params: ActorCritic, trajectory: Trajectory, estimate: Estimate
    ) -> tuple[ActorCritic, Info]:
        """The same with advantages and targets that are known already."""
        weight = transition_weights(trajectory, self.weighting)

        def actor_loss(actor_params: Any) -> tuple[Array, tuple[Array, Array]]:
            policy = self.policy(actor_params, trajectory.observation)
            surrogate = jnp.sum(weight * policy.log_prob(trajectory.action) * estimate.advantage)
            entropy = jnp.sum(weight * policy.entropy())
            return -surrogate - self.entropy_coefficient * entropy, (-surrogate, entropy)

        def critic_loss(critic_params: Any) -> Array:
            error = self.value(critic_params, trajectory.observation) - estimate.target
            return 0.5 * jnp.sum(weight * error**2)

        actor, (policy_loss, entropy) = jax.grad(actor_loss, has_aux=True)(params.actor)
        value_loss, critic = jax.value_and_grad(critic_loss)(params.critic)
        info = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        return ActorCritic(actor, critic), info

    def apply(self, learner: Learner, gradient: ActorCritic) -> Learner:
        """One step of Adam for the actor and one for the critic."""
        import optax

        def step(optimiser: Any, gradient: Any, state: Any, params: Any) -> tuple[Any, Any]:
            change, state = optimiser.update(gradient, state, params)
            return optax.apply_updates(params, change), state

        parts = zip(self._optimisers, gradient, learner.optimiser, learner.params, strict=True)
        (actor, actor_state), (critic, critic_state) = (step(*part) for part in parts)
        params, optimiser = ActorCritic(actor, critic), ActorCritic(actor_state, critic_state)
        return learner._replace(params=params, optimiser=optimiser, updates=learner.updates + 1)

    adapt = descend

    def message(self, learner: Learner) -> ActorCritic:
        """Both networks' parameters: Diff-DAC combines critic (33b) and actor (39b) alike."""
        return learner.params

    def absorb(self, learner: Learner, mixed: ActorCritic) -> Learner:
        """The learner with combined parameters; its optimisers' moments stay its own."""
        return learner._replace(params=mixed)

    @property
    def _actor(self) -> "gossamer.networks.MLP":
        from gossamer.networks import MLP

        return MLP(self.hidden, outputs=2 * self.spaces.action.size, activation=self.activation)

    @property
    def _critic(self) -> "gossamer.networks.MLP":
        from gossamer.networks import MLP

        return MLP(self.hidden, outputs=1, activation=self.activation)

    @property
    def _optimisers(self) -> ActorCritic:
        import optax

        return ActorCritic(optax.adam(self.actor_learning_rate), optax.adam(self.critic_learning_rate))
