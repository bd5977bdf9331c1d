"""Dist-MTPS, distributed multitask policy search (El Bsat et al. 2017 as Diff-DAC describes it), for one agent.

Policies are linear in the raw state, with a basis that all tasks share and coefficients of one's own. Agents agree on
the basis by an alternating-direction method of multipliers that visits one after the other.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gossamer.algorithms.hyperparameters import bind_fields, traced
from gossamer.algorithms.protocol import Needs
from gossamer.algorithms.weighting import transition_weights
from gossamer.distributions import DiagonalGaussian
from gossamer.errors import (
    require_at_least,
    require_choice,
    require_positive,
    require_within,
)
from gossamer.returns import leave_one_out, returns_to_go
from gossamer.types import Box, Estimate, Info, Key, Learner, NeighbourMessage, Spaces, Trajectory

Search: TypeAlias = Literal["reinforce", "power"]


class Factors(NamedTuple):
    """Parameters of a policy, θ = L s: the basis L that tasks share, and the coefficients s of one's own."""

    basis: Float[Array, "observation action latent"]
    coefficients: Float[Array, " latent"]


class Quadratic(NamedTuple):
    """A policy search's model of a task's loss around its result, ½ ‖α − θ‖²_Γ, and the multipliers of the edges.

    ``target`` is α and ``curvature`` Γ, one for all components of the action. ``multipliers[p]`` is λ of the edge to
    the neighbour in slot p, kept by the one of the two that is visited later; zero in the slots of the others.
    """

    target: Float[Array, "observation action"]
    curvature: Float[Array, "observation observation"]
    multipliers: Float[Array, "peer observation action latent"]


class Searched(NamedTuple):
    """What a policy search found: a quadratic model of the task's loss, by its minimum and its curvature."""

    target: Float[Array, "observation action"]
    curvature: Float[Array, "observation observation"]


@traced
@dataclass(frozen=True)
class DistMTPS:
    """Multitask policy search with a shared basis, found by distributed ADMM, and coefficients of each task's own.

    The policy of task t is Gaussian and linear in the raw state x, with parameters θ_t = L s_t:

        a ~ N(θ_tᵀ x, σ²)  (REINFORCE),    a ~ N(θ_tᵀ x, σ² ‖x‖²)  (PoWER, noise in the parameters).

    The problem is min_{L, s_1, ..., s_N} Σ_t [½ ‖α_t − L s_t‖²_{Γ_t} + ½ ν ‖s_t‖²] + ½ N μ ‖L‖², in which the quadratic
    is the policy search's model of −J_t around its result α_t. A round alternates between the two:

    1. every agent plays with θ = L s, searches (``search_task``), and fits s with L held fixed (``fit``);
    2. agents agree on L with their s held fixed, in turn, by a cycle of ADMM over the edges of the graph (Wei and
       Ozdaglar 2012): agent i, whose neighbours P were visited before it in this cycle and S will be later, takes

        L_i ← argmin_L ½ ‖α_i − L s_i‖²_{Γ_i} + ½ μ ‖L‖²
                       + ½ ρ Σ_{j∈P} ‖L_j − L − λ_ji/ρ‖² + ½ ρ Σ_{j∈S} ‖L − L_j − λ_ij/ρ‖²
        λ_ji ← λ_ji − ρ (L_j − L_i)  for j in P.

    REINFORCE: α = θ + η · mean over transitions of ∇_θ ln π_θ(a|x) Â, as (44); Â is the return to go less the mean of
    those of the other episodes of the batch at the same step (with one episode, less nothing). Γ = I.
    PoWER (Kober and Peters 2009): α and Γ of the regression of actions on states, each transition weighted by its
    return to go (less the least of the batch: it must not be negative; all alike where all are the same) and the
    inverse of its noise. Γ is scaled to a mean eigenvalue of 1, so that ρ, μ and ν mean the same in both.

    Raises:
        InputError: where a hyper-parameter lies outside its range.

    Example:
        >>> from gossamer.types import Box
        >>> search = DistMTPS(latent=2).bind(Spaces(observation_size=4, action=Box(size=1, bound=10.0)), neighbours=2)
        >>> learner = search.init(jax.random.key(0))
        >>> learner.params.basis.shape, learner.params.coefficients.shape
        ((4, 1, 2), (2,))
    """

    needs: ClassVar = Needs(actions=("bounded",), whole_episodes=True)

    spaces: Spaces = field(init=False, repr=False, compare=False)
    """What the agent observes and does; ``bind`` sets it."""
    search: Search = "reinforce"
    """How a task's policy is searched: by its gradient (REINFORCE) or by weighted regression (PoWER)."""
    latent: int = 2
    """Columns of the basis: how many policies each task's is a combination of, >= 1."""
    neighbours: int = field(init=False, repr=False, compare=False)
    """Largest number of neighbours of any agent, each with a multiplier; ``bind`` sets it."""
    step_size: float = 0.1
    """η, how far REINFORCE goes along the gradient, > 0."""
    exploration: float = 1.0
    """σ, standard deviation of actions (REINFORCE) or of parameters (PoWER), > 0."""
    penalty: float = 1.0
    """ρ of ADMM: weight of a disagreement about the basis, > 0."""
    basis_regulariser: float = 0.001
    """μ, weight of ½ ‖L‖² for each task, > 0: an agent without neighbours would not determine the basis."""
    coefficient_regulariser: float = 0.001
    """ν, weight of ½ ‖s‖², > 0: where the basis lacks a direction, coefficients would not be determined."""
    ridge: float = 0.001
    """Added to the diagonal of PoWER's curvature, relative to its trace, > 0."""
    discount: float = 0.99
    """γ, the discount per step, in [0, 1]."""

    def __post_init__(self) -> None:
        require_choice("search", self.search, ("reinforce", "power"))
        require_at_least("latent", self.latent, 1)
        positive = (
            "step_size",
            "exploration",
            "penalty",
            "basis_regulariser",
            "coefficient_regulariser",
            "ridge",
        )
        for name in positive:
            require_positive(name, getattr(self, name))
        require_within("discount", self.discount, 0.0, 1.0)

    def bind(self, spaces: Spaces, neighbours: int = 0) -> "DistMTPS":
        """Copy for an environment with these spaces and a graph whose agents have at most so many neighbours."""
        return bind_fields(self, spaces=spaces, neighbours=neighbours)

    def init(self, key: Key) -> Learner:
        """A learner with a random basis and coefficients of length one, at peace with its neighbours."""
        shape = (self.spaces.observation_size, self._actions)
        basis_key, coefficients_key = jax.random.split(key)
        basis = jax.random.normal(basis_key, (*shape, self.latent)) / jnp.sqrt(shape[0])
        coefficients = jax.random.normal(coefficients_key, (self.latent,)) / jnp.sqrt(self.latent)
        params = Factors(basis, coefficients)
        model = Quadratic(
            _theta(params), jnp.eye(shape[0]), jnp.zeros((self.neighbours, *shape, self.latent))
        )
        return Learner(params, model, updates=jnp.zeros((), jnp.int32))

    def policy(self, params: Factors, observation: Float[Array, "*batch observation"]) -> DiagonalGaussian:
        """The distribution of actions; its mean is linear in the observation and not bounded."""
        mean = observation @ _theta(params)
        return DiagonalGaussian(mean, jnp.sqrt(self._variance(observation))[..., None] * jnp.ones_like(mean))

    def act(
        self, params: Factors, key: Key, observation: Float[Array, " observation"]
    ) -> tuple[Float[Array, " action"], Float[Array, ""]]:
        """A sampled, unclipped action for one observation, and its log-probability."""
        policy = self.policy(params, observation)
        action = policy.sample(key)
        return action, policy.log_prob(action)

    def act_greedily(
        self, params: Factors, observation: Float[Array, " observation"]
    ) -> Float[Array, " action"]:
        """The policy's mean for one observation."""
        return self.policy(params, observation).mode()

    def estimate(self, params: Factors, trajectory: Trajectory) -> Estimate:
        """Returns to go, and by how much they exceed the mean of the other episodes' at the same step."""
        del params
        target = returns_to_go(trajectory, self.discount)
        return Estimate(target - leave_one_out(target), target)

    def adapt(self, learner: Learner, trajectory: Trajectory, key: Key) -> tuple[Learner, Info]:
        """One policy search in the agent's task, and the coefficients that fit its result."""
        del key
        found, info = self.search_task(learner, trajectory)
        return self.fit(learner, found), info

    def search_task(self, learner: Learner, trajectory: Trajectory) -> tuple[Searched, Info]:
        """One policy search in the agent's task: the minimum of the model of its loss, and its curvature."""
        estimate = self.estimate(learner.params, trajectory)
        weight = transition_weights(trajectory, "transitions")
        policy = self.policy(learner.params, trajectory.observation)
        noise = trajectory.action - policy.mean
        theta = _theta(learner.params)
        seen = trajectory.observation
        if self.search == "reinforce":
            score = (weight * estimate.advantage)[..., None] * noise / policy.scale**2
            step = self.step_size * jnp.einsum("teo,tea->oa", seen, score)
            found = Searched(theta + step, jnp.eye(len(theta)))
        else:
            found = self._regression(theta, seen, noise, weight, estimate.target, trajectory.mask)
        info = {
            "policy_loss": -jnp.sum(weight * policy.log_prob(trajectory.action) * estimate.advantage),
            "entropy": jnp.sum(weight * policy.entropy()),
            "search_step": jnp.linalg.norm(found.target - theta),
        }
        return found, info

    def fit(self, learner: Learner, found: Searched) -> Learner:
        """The coefficients that fit the search's result best, the basis held fixed."""
        basis = learner.params.basis
        normal = jnp.einsum("oak,op,pal->kl", basis, found.curvature, basis)
        right = jnp.einsum("oak,op,pa->k", basis, found.curvature, found.target)
        coefficients = jnp.linalg.solve(normal + self.coefficient_regulariser * jnp.eye(self.latent), right)
        model = Quadratic(found.target, found.curvature, learner.optimiser.multipliers)
        params = Factors(basis, coefficients)
        return learner._replace(params=params, optimiser=model, updates=learner.updates + 1)

    def message(self, learner: Learner) -> NeighbourMessage:
        """The basis for all, and for each neighbour the multiplier of the edge to it."""
        return NeighbourMessage(learner.params.basis, learner.optimiser.multipliers)

    def combine_in_cycle(
        self,
        learner: Learner,
        letters: NeighbourMessage,
        linked: Bool[Array, " peer"],
        later: Bool[Array, " peer"],
    ) -> Learner:
        """One agent's step of the cycle of ADMM.

        Args:
            learner: the agent.
            letters: the newest of each neighbour: its basis, and the multiplier of the edge if it keeps it.
            linked: which slots hold a neighbour.
            later: which of them are visited after this agent.
        """
        basis = letters.to_all
        given = jnp.where(_along(later, basis), letters.to_each, learner.optimiser.multipliers)
        sign = jnp.where(later, 1.0, -1.0)
        anchors = self.penalty * basis + _along(sign, basis) * given
        anchors = jnp.sum(jnp.where(_along(linked, basis), anchors, 0.0), axis=0)
        agreed = self._least(learner, anchors, self.basis_regulariser + self.penalty * jnp.sum(linked))
        kept = learner.optimiser.multipliers - self.penalty * (basis - agreed[None])
        multipliers = jnp.where(_along(linked & ~later, basis), kept, 0.0)
        return learner._replace(
            params=learner.params._replace(basis=agreed),
            optimiser=learner.optimiser._replace(multipliers=multipliers),
        )

    def _least(self, learner: Learner, anchors: Array, ridge: Float[Array, ""]) -> Array:
        """argmin_L ½‖α − L s‖²_Γ + ½ c ‖L‖² − ⟨anchors, L⟩, where Γ (L s − α) sᵀ + c L = anchors.

        What it leaves of the search's step, r = α − L s, alone solves (‖s‖² Γ + c I) r = c α − anchors s, and gives L.
        """
        target, curvature, _ = learner.optimiser
        s = learner.params.coefficients
        left = jnp.linalg.solve(
            (s @ s) * curvature + ridge * jnp.eye(len(curvature)), ridge * target - anchors @ s
        )
        return (jnp.einsum("oa,k->oak", curvature @ left, s) + anchors) / ridge

    def _regression(
        self, theta: Array, seen: Array, noise: Array, weight: Array, target: Array, mask: Array
    ) -> Searched:
        least = jnp.min(jnp.where(mask, target, jnp.inf))
        importance = weight * (target - least)
        total = importance.sum()
        importance = jnp.where(total > 0, importance / jnp.where(total > 0, total, 1.0), weight)
        precision = importance / self._variance(seen)
        curvature = jnp.einsum("te,teo,tep->op", precision, seen, seen)
        right = jnp.einsum("te,teo,tea->oa", precision, seen, noise)
        steady = curvature + (self.ridge * jnp.trace(curvature) + _FLOOR) * jnp.eye(len(theta))
        return Searched(theta + jnp.linalg.solve(steady, right), steady * len(theta) / jnp.trace(steady))

    def _variance(self, observation: Float[Array, "*batch observation"]) -> Float[Array, "*batch"]:
        """σ² of an action; of PoWER's that of the parameters' noise times the observation, never quite 0."""
        if self.search == "reinforce":
            return jnp.full(observation.shape[:-1], self.exploration**2)
        return self.exploration**2 * (jnp.sum(observation**2, axis=-1) + _FLOOR)

    @property
    def _actions(self) -> int:
        assert isinstance(self.spaces.action, Box)  # ``build`` refuses any other
        return self.spaces.action.size


_FLOOR = 1e-6  # squared units of an observation; of a curvature where nothing was seen


def _theta(params: Factors) -> Float[Array, "observation action"]:
    return params.basis @ params.coefficients


def _along(values: Array, leaf: Array) -> Array:
    return values.reshape(values.shape + (1,) * (leaf.ndim - 1))
