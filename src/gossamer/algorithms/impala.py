"""IMPALA's learner (Espeholt et al. 2018): an actor-critic corrected by V-trace for actors that lag behind it.

Who acts, with parameters how old, is not said here: a trajectory carries the log-probabilities of the policy that
collected it. ``experience.ahead`` has actors that run ahead. Nothing here talks to anyone.
"""

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num, Real

from gossamer.algorithms.a2c import A2C, A2CParams, Network
from gossamer.algorithms.hyperparameters import bind_fields, traced
from gossamer.algorithms.policy_gradient import actor_critic_loss, clipped, limit_of
from gossamer.algorithms.protocol import descend
from gossamer.algorithms.weighting import transition_weights
from gossamer.distributions import Categorical, DiagonalGaussian
from gossamer.errors import (
    InputError,
    require_at_least,
    require_choice,
    require_non_negative,
    require_positive,
    require_within,
)
from gossamer.returns import vtrace
from gossamer.types import Activation, Estimate, Info, Key, Learner, Precision, Spaces, Trajectory

if TYPE_CHECKING:
    import optax  # imported where an optimiser is made

Reduction: TypeAlias = Literal["sum", "mean"]


@traced
@dataclass(frozen=True)
class Impala:
    """Actor-critic with V-trace: learns from what an older policy μ of its own collected. Networks are A2C's.

    Loss of a batch, with v_s and the importance-weighted advantages of equation (1) held fixed:

        Σ [ −ln π(a_s|x_s) ρ_s (r_s + γ v_{s+1} − V(x_s)) + c_v ½ (V(x_s) − v_s)² − c_e H(π(·|x_s)) ]

    Defaults are those of the paper's table G.1 for Atari; the learning rate decays linearly to 0 from the first update
    to number ``decay_updates``, which is a run's length and so has no default. Two values of the table are choices of
    experience: unrolls of 20 steps and 32 of them to a batch. What the table does not say is as in the authors'
    program: sums over time and batch and not means (the limit 40 on the gradient's norm belongs to sums; ``mean``
    divides by the number of transitions), the ½ in the critic's loss, and RMSProp in TensorFlow's form,

        ms ← decay · ms + (1 − decay) g²,    m ← momentum · m + rate · g / √(ms + ε),    w ← w − m,    ms = 1 at first,

    whose ε stands inside the root and whose first steps are therefore small. Table G.1's ε is 0.01; 0.1 is the
    program's, for DeepMind Lab. Numbers are traced: changing them compiles nothing.

    Raises:
        InputError: where a hyper-parameter lies outside its range.

    Example:
        >>> from gossamer.types import Discrete
        >>> impala = Impala(hidden=(8, 8)).bind(Spaces(observation_size=6, action=Discrete(3)))
        >>> learner = impala.init(jax.random.key(0))
        >>> action, log_prob = impala.act(learner.params, jax.random.key(1), jnp.zeros(6))
        >>> action.shape, log_prob.shape
        ((), ())
    """

    spaces: Spaces = field(init=False, repr=False, compare=False)
    """What the agent observes and does; ``bind`` sets it."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers (neurons)."""
    activation: Activation = "tanh"
    """Activation of the hidden layers."""
    network: Network = "shared"
    """Whether actor and critic have hidden layers of their own or share them; nature: convolutions, all shared."""
    convolution_widths: tuple[int, int, int] = (32, 64, 64)
    """Channels of the nature network's convolutions."""
    precision: Precision = "float32"
    """What the nature network's convolutions and hidden layers compute in; parameters are float32."""
    reduction: Reduction = "sum"
    """Whether the loss adds up the transitions of a batch or averages them."""
    decay_updates: int = 0
    """Updates in which the learning rate falls to 0; 0 for a constant rate."""
    learning_rate: float = 0.0006
    """Step size of RMSProp at the first update, > 0."""
    decay: float = 0.99
    """Decay of RMSProp's mean square, in [0, 1]."""
    momentum: float = 0.0
    """Decay of RMSProp's momentum, in [0, 1]."""
    epsilon: float = 0.01
    """Added to the mean square under RMSProp's root, > 0."""
    max_gradient_norm: float = 40.0
    """Longer gradients are scaled down to this Euclidean norm; 0 for no limit."""
    entropy_coefficient: float = 0.01
    """c_e, weight of the policy's entropy (nats) in the objective, >= 0."""
    value_coefficient: float = 0.5
    """c_v, weight of half the critic's squared error, >= 0 (A2C's weighs the whole)."""
    discount: float = 0.99
    """γ, the discount per step, in [0, 1]."""
    reward_clip: float = 1.0
    """The learner sees rewards clipped to ± this; 0 for no limit."""
    rho_bar: float = 1.0
    """ρ̄, the largest importance weight of a temporal difference, > 0."""
    c_bar: float = 1.0
    """c̄, the largest importance weight that is passed on to earlier steps, in (0, ρ̄]."""

    def __post_init__(self) -> None:
        _ = self._actor_critic  # checks the network
        require_choice("reduction", self.reduction, ("sum", "mean"))
        require_at_least("decay_updates", self.decay_updates, 0)
        for name in ("learning_rate", "epsilon", "rho_bar", "c_bar"):
            require_positive(name, getattr(self, name))
        for name in ("max_gradient_norm", "entropy_coefficient", "value_coefficient", "reward_clip"):
            require_non_negative(name, getattr(self, name))
        for name in ("decay", "momentum", "discount"):
            require_within(name, getattr(self, name), 0.0, 1.0)
        if self.c_bar > self.rho_bar:
            raise InputError(f"c_bar is {self.c_bar}; it must be at most rho_bar, {self.rho_bar}")

    def bind(self, spaces: Spaces) -> "Impala":
        """Copy for an environment with these spaces.

        Raises:
            InputError: the network does not fit the observations.
        """
        bound = bind_fields(self, spaces=spaces)
        _ = bound._actor_critic  # checks that the network fits
        return bound

    def init(self, key: Key) -> Learner:
        """A learner with its own random parameters and a fresh optimiser."""
        updates = jnp.zeros((), jnp.int32)
        params = self._actor_critic.init(key).params
        return Learner(params, self._optimiser(updates).init(params), updates)

    def policy(
        self, params: A2CParams, observation: Real[Array, "*batch observation"]
    ) -> Categorical | DiagonalGaussian:
        """The distribution of actions."""
        return self._actor_critic.policy(params, observation)

    def value(
        self, params: A2CParams, observation: Real[Array, "*batch observation"]
    ) -> Float[Array, "*batch"]:
        """V(x), in units of the return of clipped rewards."""
        return self._actor_critic.value(params, observation)

    def act(
        self, params: A2CParams, key: Key, observation: Real[Array, " observation"]
    ) -> tuple[Num[Array, "*action"], Float[Array, ""]]:
        """A sampled, unclipped action for one observation, and its log-probability."""
        return self._actor_critic.act(params, key, observation)

    def act_greedily(
        self, params: A2CParams, observation: Real[Array, " observation"]
    ) -> Num[Array, "*action"]:
        """The most probable action for one observation."""
        return self._actor_critic.act_greedily(params, observation)

    def estimate(self, params: A2CParams, trajectory: Trajectory) -> Estimate:
        """V-trace's advantages and targets, with bootstrap at the batch's end and at time limits."""
        policy, value = self._actor_critic.policy_and_value(params, trajectory.observation)
        return self._estimate(params, trajectory, policy, value)

    def gradient(self, learner: Learner, trajectory: Trajectory, key: Key) -> tuple[A2CParams, Info]:
        """The loss's gradient before any clipping; parts of the loss are reported per transition."""
        import optax

        del key
        weight = transition_weights(trajectory, "transitions")
        coefficients = 0.5 * self.value_coefficient, self.entropy_coefficient

        def mean_loss(params: A2CParams) -> tuple[Array, Info]:
            policy, value = self._actor_critic.policy_and_value(params, trajectory.observation)
            estimate = jax.lax.stop_gradient(self._estimate(params, trajectory, policy, value))
            return actor_critic_loss(policy, value, trajectory.action, estimate, weight, *coefficients)

        gradient, info = jax.grad(mean_loss, has_aux=True)(learner.params)
        if self.reduction == "sum":
            transitions = trajectory.mask.sum()
            gradient = jax.tree.map(lambda leaf: leaf * transitions, gradient)
        return gradient, {**info, "gradient_norm": optax.tree.norm(gradient)}

    def apply(self, learner: Learner, gradient: A2CParams) -> Learner:
        """One step of RMSProp along the clipped gradient, at the rate of this update."""
        import optax

        optimiser = self._optimiser(learner.updates)
        change, state = optimiser.update(gradient, learner.optimiser, learner.params)
        params = cast(A2CParams, optax.apply_updates(learner.params, change))
        return learner._replace(params=params, optimiser=state, updates=learner.updates + 1)

    adapt = descend

    def message(self, learner: Learner) -> A2CParams:
        """All weights."""
        return learner.params

    def absorb(self, learner: Learner, mixed: A2CParams) -> Learner:
        """The learner with combined parameters; its optimiser's state stays its own."""
        return learner._replace(params=mixed)

    @property
    def _actor_critic(self) -> A2C:
        return _actor_critic(
            getattr(self, "spaces", None),
            self.hidden,
            self.activation,
            self.network,
            self.convolution_widths,
            self.precision,
        )

    def _estimate(
        self,
        params: A2CParams,
        trajectory: Trajectory,
        policy: Categorical | DiagonalGaussian,
        value: Float[Array, "time env"],
    ) -> Estimate:
        """The estimate, where policy and value of the observations are known already."""
        over_env = jax.vmap(vtrace, in_axes=(1, 1, 1, 1, 1, 1, None, None, None), out_axes=1)
        of_sequences = over_env(
            clipped(trajectory.reward, self.reward_clip),
            value,
            self._actor_critic.following_values(params, trajectory, value),
            trajectory.terminated,
            trajectory.truncated,
            policy.log_prob(trajectory.action) - trajectory.log_prob,
            *(jnp.asarray(each) for each in (self.discount, self.rho_bar, self.c_bar)),
        )
        return Estimate(of_sequences.advantage, of_sequences.target)

    def _optimiser(self, updates: Int[Array, ""]) -> "optax.GradientTransformation":
        """The optimiser after a number of updates: its rate follows from that and is no state of its own."""
        import optax

        left = jnp.maximum(1 - updates / self.decay_updates, 0.0) if self.decay_updates else 1.0
        rmsprop = optax.rmsprop(
            cast(Any, self.learning_rate * left),
            decay=self.decay,
            eps=self.epsilon,
            initial_scale=1.0,
            eps_in_sqrt=True,
            momentum=self.momentum,
        )
        return optax.chain(optax.clip_by_global_norm(cast(Any, limit_of(self.max_gradient_norm))), rmsprop)


@cache  # it is asked for at every call, and its construction tries an optimiser out
def _actor_critic(
    spaces: Spaces | None,
    hidden: tuple[int, ...],
    activation: Activation,
    network: Network,
    convolution_widths: tuple[int, int, int],
    precision: Precision,
) -> A2C:
    """Policy and value, of which A2C's loss and optimiser stay unused."""
    a2c = A2C(hidden, activation, network, convolution_widths, precision)
    return a2c if spaces is None else a2c.bind(spaces)
