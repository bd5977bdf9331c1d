"""A2C, the advantage actor-critic with n-step returns (Diff-DAC, section IV-E), for one agent.

Whether it is Diff-A2C, centralised A2C, specialised A2C or a learner of GALA is not said here: that is the shape
of the tasks, the graph and the schedule. Nothing here talks to anyone.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, Real

from gossamer.algorithms.hyperparameters import bind_fields, traced
from gossamer.algorithms.policy_gradient import actor_critic_loss, clipped, limit_of
from gossamer.algorithms.protocol import descend
from gossamer.algorithms.weighting import Weighting, transition_weights
from gossamer.distributions import Categorical, DiagonalGaussian
from gossamer.errors import InputError, require_choice, require_non_negative, require_positive, require_within
from gossamer.returns import following_values, generalised_advantages
from gossamer.running_statistics import Moments
from gossamer.types import (
    Activation,
    Box,
    Estimate,
    Frames,
    Info,
    Key,
    Learner,
    Precision,
    Spaces,
    Trajectory,
)

if TYPE_CHECKING:  # imported where they are used: together they take half a second
    import optax

    import gossamer.networks

Network: TypeAlias = Literal["separate", "shared", "nature"]
Normalise: TypeAlias = Literal["nothing", "observations", "observations_and_rewards"]
Statistics: TypeAlias = Literal["local", "mixed"]


class A2CParams(NamedTuple):
    """All that a policy needs to act: weights, log standard deviations (of a ``Box``), running statistics.

    ``observation`` and ``reward`` are empty tuples where nothing is normalised.
    """

    network: Any
    log_scale: Any
    observation: Any
    reward: Any


class A2CGradient(NamedTuple):
    """The loss's gradient, and the statistics of the batch it was computed on."""

    network: Any
    log_scale: Any
    observation: Any
    reward: Any


@traced
@dataclass(frozen=True)
class A2C:
    """Advantage actor-critic: n-step or generalised advantages, one optimiser, whatever the actions.

    Loss of a batch, with Â of (45) (``trace_decay`` 1) and its target v(s_t) + Â_t held fixed:

        mean[ −ln π_w(a_t|s_t) Â_t + c_v (v_ξ(s_t) − target_t)² − c_e H(π_w(·|s_t)) ]

    With c_v = ½ the critic's part is (43). Actions of a ``Discrete`` space have a categorical policy; those of a
    ``Box`` a diagonal Gaussian one, whose standard deviations are parameters that do not depend on the state and
    whose samples are clipped by the environment.

    RMSProp is PyTorch's form, which adds ε outside the root. Observations and rewards may be normalised by running
    statistics, which are part of the parameters: saved with them, and mixed with the neighbours' where
    ``statistics`` says so. The reward is divided by the standard deviation of discounted sums of rewards since the
    batch's start or the episode's.

    Observations that are frames need the network ``nature``, and ``activation="relu"``. What follows a step is then
    valued only where the next step did not see it: a forward pass through convolutions is what an update costs.

    Defaults are those of Diff-A2C in appendix A.3, and GALA's of table 2 where Diff-DAC is silent
    (``value_coefficient``, ``max_gradient_norm``). Numbers are traced: changing them compiles nothing.

    Raises:
        InputError: where a hyper-parameter lies outside its range.

    Example:
        >>> from gossamer.types import Discrete
        >>> a2c = A2C(hidden=(8, 8)).bind(Spaces(observation_size=6, action=Discrete(3)))
        >>> learner = a2c.init(jax.random.key(0))
        >>> action, log_prob = a2c.act(learner.params, jax.random.key(1), jnp.zeros(6))
        >>> action.shape, log_prob.shape
        ((), ())
    """

    spaces: Spaces = field(init=False, repr=False, compare=False)
    """What the agent observes and does; ``bind`` sets it."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers (neurons)."""
    activation: Activation = "tanh"
    """Activation of the hidden layers."""
    network: Network = "separate"
    """Whether actor and critic have hidden layers of their own or share them; nature: convolutions, all shared."""
    convolution_widths: tuple[int, int, int] = (32, 64, 64)
    """Channels of the nature network's convolutions; GALA's published program has 32 in the last."""
    precision: Precision = "float32"
    """What the nature network's convolutions and hidden layers compute in; parameters are float32."""
    optimiser: str = "rmsprop"
    """rmsprop, adam, or the name of any optax optimiser that needs a learning rate only (sgd, adamw, lion, ...)."""
    weighting: Weighting = "transitions"
    """What counts alike in the gradient: every transition, pooled, or every task."""
    normalise: Normalise = "nothing"
    """What running statistics normalise."""
    statistics: Statistics = "local"
    """Whether running statistics stay an agent's own or are mixed like its parameters."""
    learning_rate: float = 7e-4
    """Step size of the optimiser, > 0."""
    decay: float = 0.99
    """Decay of rmsprop's mean square, in [0, 1]."""
    epsilon: float = 1e-5
    """Added to the root in rmsprop and adam, > 0."""
    max_gradient_norm: float = 0.5
    """Longer gradients are scaled down to this Euclidean norm; 0 for no limit."""
    entropy_coefficient: float = 0.01
    """Weight of the policy's entropy (nats) in the objective, >= 0."""
    value_coefficient: float = 0.5
    """Weight of the critic's squared error, >= 0."""
    discount: float = 0.99
    """γ, the discount per step, in [0, 1]."""
    trace_decay: float = 1.0
    """λ of generalised advantage estimation, in [0, 1]; 1 gives n-step returns."""
    reward_clip: float = 0.0
    """The learner sees rewards clipped to ± this, before they are normalised; 0 for no limit."""

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise InputError(f"hidden is {self.hidden}; it must hold at least one width, each at least 1")
        require_choice("activation", self.activation, ("relu", "tanh"))
        require_choice("network", self.network, ("separate", "shared", "nature"))
        require_choice("precision", self.precision, ("float32", "bfloat16"))
        require_choice("weighting", self.weighting, ("transitions", "tasks"))
        require_choice("normalise", self.normalise, ("nothing", "observations", "observations_and_rewards"))
        require_choice("statistics", self.statistics, ("local", "mixed"))
        for name in ("learning_rate", "epsilon"):
            require_positive(name, getattr(self, name))
        for name in ("max_gradient_norm", "entropy_coefficient", "value_coefficient", "reward_clip"):
            require_non_negative(name, getattr(self, name))
        for name in ("decay", "discount", "trace_decay"):
            require_within(name, getattr(self, name), 0.0, 1.0)
        _require_descent(
            self.optimiser, _optimiser_named(self.optimiser, self.learning_rate, self.decay, self.epsilon)
        )

    def bind(self, spaces: Spaces) -> "A2C":
        """Copy for an environment with these spaces.

        Raises:
            InputError: the network does not fit the observations.
        """
        _require_fitting_network(self, spaces)
        return bind_fields(self, spaces=spaces)

    def init(self, key: Key) -> Learner:
        """A learner with its own random parameters and a fresh optimiser."""
        observation = jnp.zeros(self.spaces.observation_size)
        action = self.spaces.action
        params = A2CParams(
            network=self._network.init(key, observation),
            log_scale=jnp.zeros(action.size) if isinstance(action, Box) else (),
            observation=Moments.none(self.spaces.observation_size) if self._normalises_observations else (),
            reward=Moments.none(1) if self._normalises_rewards else (),
        )
        optimiser = self._optimiser.init((params.network, params.log_scale))
        return Learner(params, optimiser, updates=jnp.zeros((), jnp.int32))

    def policy(
        self, params: A2CParams, observation: Real[Array, "*batch observation"]
    ) -> Categorical | DiagonalGaussian:
        """The distribution of actions."""
        return self._policy_of(
            self._network.policy_of(params.network, self._seen(params, observation)), params
        )

    def value(
        self, params: A2CParams, observation: Real[Array, "*batch observation"]
    ) -> Float[Array, "*batch"]:
        """v_ξ(s), in units of the (normalised) return."""
        return self._network.value_of(params.network, self._seen(params, observation))

    def policy_and_value(
        self, params: A2CParams, observation: Real[Array, "*batch observation"]
    ) -> tuple[Categorical | DiagonalGaussian, Float[Array, "*batch"]]:
        """Both at once, going through layers that they share only once."""
        outputs, value = self._network.outputs_of(params.network, self._seen(params, observation))
        return self._policy_of(outputs, params), value

    def following_values(
        self, params: A2CParams, trajectory: Trajectory, value: Float[Array, "time env"]
    ) -> Float[Array, "time env"]:
        """v(s_{t+1}), where v(s_t) is known already; of frames only those that no step saw are valued."""
        if self.spaces.frames is None:
            return self.value(params, trajectory.next_observation)
        over_env = jax.vmap(
            partial(following_values, partial(self.value, params)), in_axes=(1, 1, 1), out_axes=1
        )
        return over_env(value, trajectory.next_observation, trajectory.truncated)

    def act(
        self, params: A2CParams, key: Key, observation: Real[Array, " observation"]
    ) -> tuple[Num[Array, "*action"], Float[Array, ""]]:
        """A sampled, unclipped action for one observation, and its log-probability."""
        policy = self.policy(params, observation)
        action = policy.sample(key)
        return action, policy.log_prob(action)

    def act_greedily(
        self, params: A2CParams, observation: Real[Array, " observation"]
    ) -> Num[Array, "*action"]:
        """The most probable action for one observation."""
        return self.policy(params, observation).mode()

    def estimate(self, params: A2CParams, trajectory: Trajectory) -> Estimate:
        """Advantages (45) with bootstrap at the batch's end and at time limits, and the critic's targets."""
        return self._estimate(params, trajectory, self.value(params, trajectory.observation))

    def gradient(self, learner: Learner, trajectory: Trajectory, key: Key) -> tuple[A2CGradient, Info]:
        """The loss's gradient, averaged over real transitions, before any clipping."""
        import optax

        del key
        params = learner.params
        weight = transition_weights(trajectory, self.weighting)

        def loss(trained: tuple[Any, Any]) -> tuple[Array, Info]:
            current = params._replace(network=trained[0], log_scale=trained[1])
            policy, value = self.policy_and_value(current, trajectory.observation)
            # From the loss's own values: convolutions of the same frames are not computed twice.
            estimate = jax.lax.stop_gradient(self._estimate(params, trajectory, value))
            coefficients = self.value_coefficient, self.entropy_coefficient
            return actor_critic_loss(policy, value, trajectory.action, estimate, weight, *coefficients)

        gradient, info = jax.grad(loss, has_aux=True)((params.network, params.log_scale))
        info = {**info, "gradient_norm": optax.tree.norm(gradient)}
        observation, reward = self._batch_statistics(trajectory)
        network, log_scale = gradient
        return A2CGradient(network, log_scale, observation, reward), info

    def apply(self, learner: Learner, gradient: A2CGradient) -> Learner:
        """One step of the optimiser along the clipped gradient; statistics take the batch in."""
        import optax

        params = learner.params
        trained = (params.network, params.log_scale)
        change, state = self._optimiser.update(
            (gradient.network, gradient.log_scale), learner.optimiser, trained
        )
        network, log_scale = cast(tuple[Any, Any], optax.apply_updates(trained, change))
        observation, reward = params.observation, params.reward
        if self._normalises_observations:
            observation = observation.merged(gradient.observation)
        if self._normalises_rewards:
            reward = reward.merged(gradient.reward)
        params = A2CParams(network, log_scale, observation, reward)
        return learner._replace(params=params, optimiser=state, updates=learner.updates + 1)

    adapt = descend

    def message(self, learner: Learner) -> A2CParams:
        """Weights of actor and critic, alike (33b), (39b); the statistics too where they are mixed."""
        if self.statistics == "mixed":
            return learner.params
        return learner.params._replace(observation=(), reward=())

    def absorb(self, learner: Learner, mixed: A2CParams) -> Learner:
        """The learner with combined parameters; its optimiser's state stays its own."""
        if self.statistics == "local":
            own = learner.params
            mixed = mixed._replace(observation=own.observation, reward=own.reward)
        return learner._replace(params=mixed)

    @property
    def _normalises_observations(self) -> bool:
        return self.normalise != "nothing"

    @property
    def _normalises_rewards(self) -> bool:
        return self.normalise == "observations_and_rewards"

    @property
    def _network(self) -> "gossamer.networks.ActorCriticNetwork":
        from gossamer.networks import ActorCriticMLP, NatureCNN

        outputs, frames = self.spaces.action.size, self.spaces.frames
        if frames is not None:
            return NatureCNN(frames, outputs, self.convolution_widths, self.hidden, self.precision)
        return ActorCriticMLP(self.hidden, outputs, self.activation, shared=self.network == "shared")

    @property
    def _optimiser(self) -> "optax.GradientTransformation":
        import optax

        return optax.chain(
            optax.clip_by_global_norm(limit_of(self.max_gradient_norm)),
            _optimiser_named(self.optimiser, self.learning_rate, self.decay, self.epsilon),
        )

    def _estimate(
        self, params: A2CParams, trajectory: Trajectory, value: Float[Array, "time env"]
    ) -> Estimate:
        """The estimate, where v(s_t) is known already."""
        over_env = jax.vmap(generalised_advantages, in_axes=(1, 1, 1, 1, 1, None, None), out_axes=1)
        advantage = over_env(
            self._earned(params, trajectory.reward),
            value,
            self.following_values(params, trajectory, value),
            trajectory.terminated,
            trajectory.truncated,
            jnp.asarray(self.discount),
            jnp.asarray(self.trace_decay),
        )
        return Estimate(advantage, value + advantage)

    def _policy_of(self, outputs: Array, params: A2CParams) -> Categorical | DiagonalGaussian:
        if not isinstance(self.spaces.action, Box):
            return Categorical(outputs)
        return DiagonalGaussian(outputs, jnp.broadcast_to(jnp.exp(params.log_scale), outputs.shape))

    def _seen(self, params: A2CParams, observation: Array) -> Array:
        return params.observation.standardise(observation) if self._normalises_observations else observation

    def _earned(self, params: A2CParams, reward: Array) -> Array:
        reward = clipped(reward, self.reward_clip)
        if not self._normalises_rewards:
            return reward
        return jnp.clip(reward / jnp.sqrt(params.reward.variance[0] + 1e-8), -10.0, 10.0)

    def _batch_statistics(self, trajectory: Trajectory) -> tuple[Any, Any]:
        observation, reward = (), ()
        if self._normalises_observations:
            observation = Moments.of(trajectory.observation, trajectory.mask)
        if self._normalises_rewards:
            seen = trajectory._replace(reward=clipped(trajectory.reward, self.reward_clip))
            reward = Moments.of(_sums_so_far(seen, self.discount)[..., None], trajectory.mask)
        return observation, reward


def _sums_so_far(trajectory: Trajectory, discount: Any) -> Float[Array, "time env"]:
    """Discounted sum of the rewards up to each step, from the batch's start or the episode's."""

    def forward(total: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, ended = now
        total = discount * total + reward
        return jnp.where(ended, 0.0, total), total

    ended = trajectory.terminated | trajectory.truncated
    _, sums = jax.lax.scan(forward, jnp.zeros_like(trajectory.reward[0]), (trajectory.reward, ended))
    return sums


def _require_fitting_network(a2c: A2C, spaces: Spaces) -> None:
    """Refuse frames without the network for them, the network without frames, and what neither of them has."""
    frames = spaces.frames
    if frames is None:
        if a2c.network == "nature":
            raise InputError(
                "network is 'nature', but the observations are no frames; it must be separate or shared"
            )
        if a2c.precision != "float32":
            raise InputError(f"precision is {a2c.precision!r}; networks other than nature compute in float32")
        return
    _require_fitting_frames(spaces, frames)
    if a2c.network != "nature":
        raise InputError(f"network is {a2c.network!r}, but the observations are frames; it must be nature")
    if a2c.activation != "relu":
        raise InputError(f"activation is {a2c.activation!r}; that of the nature network must be relu")
    if min(a2c.convolution_widths) < 1:
        raise InputError(f"convolution_widths is {a2c.convolution_widths}; each must be at least 1")
    if a2c.normalise != "nothing":
        raise InputError(f"normalise is {a2c.normalise!r}; it must be nothing where observations are frames")


def _require_fitting_frames(spaces: Spaces, frames: Frames) -> None:
    from gossamer.networks import SMALLEST_IMAGE

    if frames.size != spaces.observation_size:
        raise InputError(
            f"observation_size is {spaces.observation_size}, but {frames} has {frames.size} bytes"
        )
    if min(frames.height, frames.width) < SMALLEST_IMAGE:
        raise InputError(
            f"frames are {frames.height}×{frames.width} pixels; the nature network needs at least "
            f"{SMALLEST_IMAGE}×{SMALLEST_IMAGE}"
        )


def _optimiser_named(
    name: str, learning_rate: Any, decay: Any, epsilon: Any
) -> "optax.GradientTransformation":
    """Optax's optimiser of a name; rmsprop and adam with what the papers set, others with their own defaults."""
    import optax

    if name == "rmsprop":
        return optax.rmsprop(learning_rate, decay=decay, eps=epsilon, eps_in_sqrt=False)
    if name == "adam":
        return optax.adam(learning_rate, eps=epsilon)
    try:
        made = getattr(optax, name)(learning_rate)
    except (AttributeError, TypeError, ValueError):
        made = None
    if not isinstance(made, optax.GradientTransformation):
        raise _no_optimiser(name)
    return made


def _require_descent(name: str, optimiser: "optax.GradientTransformation") -> None:
    """Refuse parts of optimisers, of which some would climb, and optimisers that ask for more than gradients."""
    if name in ("rmsprop", "adam"):  # known to descend; each operation below is a program of its own
        return
    with jax.ensure_compile_time_eval():
        one = jnp.ones(1)
        try:
            change, _ = optimiser.update(one, optimiser.init(one), one)
        except TypeError as error:
            raise _no_optimiser(name) from error
        if not cast(Array, change)[0] < 0:
            raise _no_optimiser(name)


def _no_optimiser(name: str) -> InputError:
    return InputError(
        f"optimiser is {name!r}; it must be rmsprop, adam, or the name of an optax optimiser that needs a learning "
        "rate only, such as sgd, adamw or lion"
    )
