"""Diff-PPO: proximal policy optimisation (Schulman et al. 2017) among neighbours, an algorithm of one's own.

It is written for one agent. Who its neighbours are, and when it hears them, is the experiment's choice.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from gossamer.algorithms.hyperparameters import bind_fields, traced
from gossamer.distributions import Categorical, DiagonalGaussian
from gossamer.errors import InputError, require_at_least, require_positive, require_within
from gossamer.networks import ActorCriticMLP
from gossamer.returns import generalised_advantages
from gossamer.types import Box, Estimate, Info, Key, Learner, Params, Spaces, Trajectory


@traced
@dataclass(frozen=True)
class DiffPPO:
    """PPO with the clipped surrogate (7): epochs over minibatches of a trajectory, then one combination.

        mean[ −min(r_t Â_t, clip(r_t, 1 − ε, 1 + ε) Â_t) + ½ (v(s_t) − target_t)² ],  r_t = π(a_t|s_t) / π_old(a_t|s_t)

    Raises:
        InputError: a hyper-parameter lies outside its range.
    """

    spaces: Spaces = field(init=False, repr=False, compare=False)
    """What the agent observes and does; ``bind`` sets it."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of actor and critic (neurons)."""
    epochs: int = 4
    """How often a trajectory is gone through."""
    minibatches: int = 4
    """Steps of Adam in an epoch, each on a part of its own; what does not divide evenly is left out, at random."""
    learning_rate: float = 3e-4
    """Adam's step size, > 0."""
    clip: float = 0.2
    """ε, how far the ratio of probabilities may leave 1 and still be rewarded, > 0."""
    discount: float = 0.99
    """γ, the discount per step, in [0, 1]."""
    trace_decay: float = 0.95
    """λ of generalised advantage estimation, in [0, 1]."""

    def __post_init__(self) -> None:
        require_at_least("epochs", self.epochs, 1)
        require_at_least("minibatches", self.minibatches, 1)
        require_positive("learning_rate", self.learning_rate)
        require_positive("clip", self.clip)
        require_within("discount", self.discount, 0.0, 1.0)
        require_within("trace_decay", self.trace_decay, 0.0, 1.0)

    def bind(self, spaces: Spaces) -> "DiffPPO":
        """Copy for an environment with these spaces."""
        return bind_fields(self, spaces=spaces)

    @property
    def optimiser_steps(self) -> int:
        """Steps of Adam in a round."""
        return self.epochs * self.minibatches

    def init(self, key: Key) -> Learner:
        """A learner with its own random parameters and a fresh optimiser."""
        network = self._network.init(key, jnp.zeros(self.spaces.observation_size))
        params = {"network": network, "log_scale": jnp.zeros(self.spaces.action.size)}
        return Learner(params, self._optimiser.init(params), updates=jnp.zeros((), jnp.int32))

    def policy(self, params: Params, observation: Array) -> Categorical | DiagonalGaussian:
        """The distribution of actions: categorical, or Gaussian with deviations that no state changes."""
        outputs = self._network.policy_of(params["network"], observation)
        if not isinstance(self.spaces.action, Box):
            return Categorical(outputs)
        return DiagonalGaussian(outputs, jnp.broadcast_to(jnp.exp(params["log_scale"]), outputs.shape))

    def act(self, params: Params, key: Key, observation: Array) -> tuple[Array, Array]:
        """A sampled action for one observation, and its log-probability."""
        policy = self.policy(params, observation)
        action = policy.sample(key)
        return action, policy.log_prob(action)

    def act_greedily(self, params: Params, observation: Array) -> Array:
        """The most probable action for one observation."""
        return self.policy(params, observation).mode()

    def estimate(self, params: Params, trajectory: Trajectory) -> Estimate:
        """Generalised advantages, and the critic's targets v(s_t) + Â_t."""
        value = self._network.value_of(params["network"], trajectory.observation)
        following = self._network.value_of(params["network"], trajectory.next_observation)
        over_env = jax.vmap(generalised_advantages, in_axes=(1, 1, 1, 1, 1, None, None), out_axes=1)
        ends, decays = (trajectory.terminated, trajectory.truncated), (self.discount, self.trace_decay)
        advantage = over_env(trajectory.reward, value, following, *ends, *map(jnp.asarray, decays))
        return Estimate(advantage, value + advantage)

    def loss(self, params: Params, rows: Trajectory, estimate: Estimate) -> tuple[Array, Info]:
        """The loss of transitions side by side, and its two parts."""
        weight = rows.mask / jnp.maximum(rows.mask.sum(), 1)
        ratio = jnp.exp(self.policy(params, rows.observation).log_prob(rows.action) - rows.log_prob)
        near = jnp.clip(ratio, 1 - self.clip, 1 + self.clip)
        policy_loss = -jnp.sum(weight * jnp.minimum(ratio * estimate.advantage, near * estimate.advantage))
        error = self._network.value_of(params["network"], rows.observation) - estimate.target
        value_loss = 0.5 * jnp.sum(weight * error**2)
        return policy_loss + value_loss, {"policy_loss": policy_loss, "value_loss": value_loss}

    def adapt(self, learner: Learner, trajectory: Trajectory, key: Key) -> tuple[Learner, Info]:
        """The learner after all steps of a round; the key shuffles the transitions.

        Raises:
            InputError: a round has fewer transitions than minibatches.
        """
        time, env = trajectory.mask.shape
        if time * env < self.minibatches:
            raise InputError(f"minibatches is {self.minibatches}; a round has only {time * env} transitions")
        columns = trajectory._replace(task=jnp.broadcast_to(trajectory.task, (time, env)))
        batch = columns, self.estimate(learner.params, trajectory)
        batch = jax.tree.map(lambda leaf: leaf.reshape(time * env, *leaf.shape[2:]), batch)
        keys, size = jax.random.split(key, self.epochs), time * env // self.minibatches
        orders = jax.vmap(lambda each: jax.random.permutation(each, time * env))(keys)
        minibatches = orders[:, : size * self.minibatches].reshape(-1, size)

        def step(state: tuple[Params, Any], chosen: Array) -> tuple[tuple[Params, Any], Info]:
            params, optimiser = state
            rows, estimate = jax.tree.map(lambda leaf: leaf[chosen], batch)
            gradient, info = jax.grad(self.loss, has_aux=True)(params, rows, estimate)
            change, optimiser = self._optimiser.update(gradient, optimiser, params)
            return (optax.apply_updates(params, change), optimiser), info

        (params, optimiser), infos = jax.lax.scan(step, (learner.params, learner.optimiser), minibatches)
        adapted = learner._replace(params=params, optimiser=optimiser, updates=learner.updates + 1)
        return adapted, jax.tree.map(jnp.mean, infos)

    def message(self, learner: Learner) -> Params:
        """All parameters; what Adam remembers stays with the agent."""
        return learner.params

    def absorb(self, learner: Learner, mixed: Params) -> Learner:
        """The learner with the weighted mean of its neighbourhood's parameters."""
        return learner._replace(params=mixed)

    @property
    def _network(self) -> ActorCriticMLP:
        return ActorCriticMLP(self.hidden, self.spaces.action.size)

    @property
    def _optimiser(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate)
