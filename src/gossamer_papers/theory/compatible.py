"""Diff-DAC's theorem 3: where diffusion of exact gradients, with a linear critic on compatible features, ends.

Small families, softmax policies, two time scales. Where it stands is a stationary point of the averaged gradient ḡ;
how far that is from one of the multitask objective is measured beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from gossamer.errors import InputError, require_at_least
from gossamer.mixing import Matrix, metropolis_hastings, weigh
from gossamer.topologies import ring
from gossamer_papers.theory.agreement import StepSizes
from gossamer_papers.theory.families import Family, advantages, averaged, values, visits
from gossamer_papers.theory.policy_gradient_theorem import (
    Features,
    lagrangian_gradient,
    scores,
    softmax_policy,
)

Parameters = Float[np.ndarray, "agent parameter"]

STEPS = StepSizes(critic=0.05, actor=0.04, plateau=1000)
"""Step sizes that meet (50), with an actor that is slower from the first round on.

Its step is 0.8 of the critic's at first and 0.44 of it at round 20,000. With larger steps critics on random features
may diverge; without the plateau steps would be too small before the gradient is.
"""

_MOMENTS = 40


@dataclass(frozen=True, eq=False)
class Problem:
    """A family, one task for each agent, and the features ψ(s, a) of a policy π_w(a|s) ∝ exp(wᵀψ(s, a)).

    Raises:
        InputError: features for other states or actions.
    """

    family: Family
    features: Features

    def __post_init__(self) -> None:
        expected = (self.family.states, self.family.actions)
        if self.features.shape[:2] != expected:
            raise InputError(
                f"features are for {self.features.shape[:2]} states and actions, not for {expected}"
            )


class Gradients(NamedTuple):
    """Of critic and actor: g_k of (47), without the ratio of the step sizes and with the actor's sign turned."""

    critic: Parameters
    actor: Parameters


class Course(NamedTuple):
    """A run at some rounds: ‖ḡ(φ̄)‖ (53), ‖φ^dis‖ (65) and the norm of the mean actor.

    And the mean actor at the start, and both mean parameters in the end.
    """

    round: Float[np.ndarray, " moment"]
    gradient: Float[np.ndarray, " moment"]
    disagreement: Float[np.ndarray, " moment"]
    actor_norm: Float[np.ndarray, " moment"]
    initial_actor: Float[np.ndarray, " parameter"]
    critic: Float[np.ndarray, " parameter"]
    actor: Float[np.ndarray, " parameter"]


class Stationarity(NamedTuple):
    """Of the end of a run: norms of ∇_w J̄ (3), there and at the start, and the relative bias that (58) leaves.

    ``bias`` is ‖∇_w L̃(v_ξ, w) − ∇_w L̃(v^π, w)‖ / ‖∇_w L̃(v^π, w)‖ at the start, with ξ the critic's equilibrium: an
    unbiased critic would have 0.
    """

    objective_gradient: float
    objective_gradient_at_start: float
    bias: float


def compatible_features(
    features: Features, actor: Float[np.ndarray, " parameter"]
) -> Float[np.ndarray, "state parameter"]:
    """∇_ξ v_ξ(s) = Σ_a ∇_w log π_w(a|s), as printed (58); so v_ξ is linear in ξ, with features that move with w.

    The sum has no weights. With π_w(a|s) in it, it would vanish for every policy; as it is, it vanishes for a uniform
    one, where the critic is 0 whatever ξ: the equilibrium λ(w) of assumption 7 is then not Lipschitz around w = 0. The
    usual condition is about Q and not v: ∇_ξ Q_ξ(s, a) = ∇_w log π_w(a|s).

    Example:
        >>> features = np.eye(2)[None]
        >>> compatible_features(features, np.zeros(2)).tolist()
        [[0.0, 0.0]]
        >>> compatible_features(features, np.array([0.0, np.log(3.0)])).round(2).tolist()
        [[0.5, -0.5]]
    """
    return scores(features, softmax_policy(features, actor)).sum(1)


def gradients(problem: Problem, critic: Parameters, actor: Parameters) -> Gradients:
    """The exact expected gradients g_k of every agent at its own parameters.

    Critic: that of J_k(ξ) (30)-(31) with its target held fixed, 2 Σ_s ρ(s)(v_ξ(s) − y_k(s)) ∇v_ξ(s). Actor: −∇_w L̃_k of
    (38), −Σ_s ρ(s) Σ_a π(a|s) ∇log π(a|s) A_k(s, a). As in (38), ρ are the visits of the agent's own policy
    under P̄, alike for all tasks. An agent with samples of its own task alone would have those of P_θk in their place.

    An erratum: (46a) subtracts g_k, and as printed (47) it would descend L̃, which (39a) ascends. Hence the minus.
    """
    family, features = problem.family, problem.features
    policy = softmax(np.einsum("sam,km->ksa", features, actor), axis=-1)
    score = features - np.einsum("ksa,sam->ksm", policy, features)[:, :, None]
    compatible = score.sum(2)
    visited = _visits_of_each(family, policy)
    advantage = advantages(family, np.einsum("ksm,km->ks", compatible, critic))
    weighted = policy * advantage
    return Gradients(
        critic=-2 * np.einsum("ks,ksm->km", visited * weighted.sum(-1), compatible),
        actor=-np.einsum("ks,ksa,ksam->km", visited, weighted, score),
    )


def diffuse(
    problem: Problem, weights: Matrix, rounds: int, steps: StepSizes = STEPS, seed: int = 0
) -> Course:
    """Agents from parameters of their own, standard normal, by (46a)-(46b) without noise.

    Args:
        problem: one task for each agent.
        weights: C, as a numpy array or a sparse one.
        rounds: > 0.
        steps: α_i for critics and β_i for actors.
        seed: of the initial parameters.

    Raises:
        InputError: no round, or weights for another number of agents.

    Example:
        >>> from gossamer.mixing import metropolis_hastings, weigh
        >>> from gossamer.topologies import ring
        >>> course = diffuse(contested(seed=3), weigh(ring(8), metropolis_hastings)[0], rounds=1500)
        >>> bool(course.gradient[-1] < 0.05 * course.gradient[0])
        True
        >>> bool(course.disagreement[-1] < 0.01 * course.disagreement[0])
        True
    """
    require_at_least("rounds", rounds, 1)
    C = np.asarray(weights.toarray() if hasattr(weights, "toarray") else weights)
    if len(C) != problem.family.tasks:
        raise InputError(
            f"weights are for {len(C)} agents and there are {problem.family.tasks} tasks; they must agree"
        )
    generator = np.random.default_rng(seed)
    critic, actor = generator.normal(size=(2, problem.family.tasks, problem.features.shape[-1]))
    initial_actor = actor.mean(0)
    moments = {0, rounds // 2, *np.geomspace(1, rounds, _MOMENTS).astype(int).tolist()}
    rows = []
    for i in range(rounds + 1):
        if i in moments:
            rows.append((i, *_measure(problem, critic, actor)))
        slope = gradients(problem, critic, actor)
        step = steps.at(i + 1)
        critic = C @ (critic - step.critic * slope.critic)
        actor = C @ (actor - step.actor * slope.actor)
    return Course(
        *np.array(rows, float).T, initial_actor=initial_actor, critic=critic.mean(0), actor=actor.mean(0)
    )


def stationarity(problem: Problem, course: Course) -> Stationarity:
    """How far the end of a run is from a stationary point of the multitask objective (3), which theorem 3 approximates.

    Args:
        problem: as in ``diffuse``.
        course: what it gave.

    Example:
        >>> from gossamer.mixing import metropolis_hastings, weigh
        >>> from gossamer.topologies import ring
        >>> problem = contested(seed=3)
        >>> course = diffuse(problem, weigh(ring(8), metropolis_hastings)[0], rounds=5000)
        >>> bool(stationarity(problem, course).objective_gradient > 10 * course.gradient[-1])
        True
    """
    start = course.initial_actor
    return Stationarity(
        objective_gradient=float(np.linalg.norm(objective_gradient(problem, course.actor))),
        objective_gradient_at_start=float(np.linalg.norm(objective_gradient(problem, start))),
        bias=critic_bias(problem, start),
    )


class Outcome(NamedTuple):
    """One problem's run on a ring, and what its end is worth."""

    course: Course
    stationarity: Stationarity

    @property
    def growing(self) -> bool:
        """Whether the mean actor grows by more than 5 % over the second half of the rounds, as if it had no limit."""
        rounds, norms = self.course.round, self.course.actor_norm
        return bool(norms[-1] > 1.05 * norms[rounds == rounds[-1] // 2].item())


def outcomes(
    make: Callable[[int, int], Problem], problems: int, agents: int, rounds: int, seed: int
) -> tuple[Outcome, ...]:
    """Runs of as many problems on a ring, of seeds that count up from ``seed``.

    Args:
        make: ``contested`` or ``uncontested``.
        problems: how many.
        agents: of each.
        rounds: of each run.
        seed: of the first problem and of its initial parameters.

    Raises:
        InputError: no problem, or as ``diffuse`` and ``contested``.

    Example:
        >>> (outcome,) = outcomes(contested, problems=1, agents=4, rounds=5000, seed=0)
        >>> bool(outcome.course.gradient[-1] < 1e-4), outcome.growing
        (True, False)
    """
    require_at_least("problems", problems, 1)
    W = weigh(ring(agents), metropolis_hastings)[0]

    def run(seed: int) -> Outcome:
        problem = make(seed, agents)
        course = diffuse(problem, W, rounds, seed=seed)
        return Outcome(course, stationarity(problem, course))

    return tuple(run(seed + index) for index in range(problems))


def objective_gradient(
    problem: Problem, actor: Float[np.ndarray, " parameter"]
) -> Float[np.ndarray, " parameter"]:
    """∇_w J̄(w) of (3), exact: the mean over tasks of Σ_s ρ_k(s) Σ_a π(a|s) ∇log π(a|s) A_k(s, a), all under P_θk."""
    family = problem.family
    policy = softmax_policy(problem.features, actor)
    advantage = advantages(family, values(family, policy))
    weight = visits(family, policy)[..., None] * policy * advantage
    return np.einsum("ksa,sam->m", weight, scores(problem.features, policy)) / family.tasks


def critic_equilibrium(
    problem: Problem, actor: Float[np.ndarray, " parameter"]
) -> Float[np.ndarray, " parameter"]:
    """λ(w) of assumption 7: the ξ at which the averaged critic gradient vanishes, a linear system of equations."""
    process = averaged(problem.family)
    policy = softmax_policy(problem.features, actor)
    compatible = compatible_features(problem.features, actor)
    under_policy = np.einsum("sat,sa->st", process.kernels[0], policy)
    weighted = visits(process, policy)[0][:, None] * compatible
    operator = np.eye(process.states) - process.discount * under_policy
    reward = (process.expected_reward[0] * policy).sum(1)
    return np.linalg.solve(weighted.T @ operator @ compatible, weighted.T @ reward)


def critic_bias(problem: Problem, actor: Float[np.ndarray, " parameter"]) -> float:
    """Relative error of the policy gradient (37) with the critic at its equilibrium in place of v^π.

    The text says that features (58) leave no bias. They would if v_ξ could be v^π; with fewer parameters than states it
    cannot.

    Example:
        >>> critic_bias(contested(seed=3), np.ones(2)) > 0.01
        True
    """
    family, features = problem.family, problem.features
    value = compatible_features(features, actor) @ critic_equilibrium(problem, actor)
    exact = values(averaged(family), softmax_policy(features, actor))[0]
    with_critic, without = (lagrangian_gradient(family, features, v, actor) for v in (value, exact))
    return float(np.linalg.norm(with_critic - without) / np.linalg.norm(without))


def contested(seed: int, agents: int = 8) -> Problem:
    """Twelve states that share two policy parameters and want them at opposite ends: the best w is finite.

    In even states the second action costs about 1 and its feature is about 2; in odd ones it earns about 0.75 and its
    feature is about 0.75. Kernels are Dirichlet(0.5) for each task, the discount is 0.7.

    Raises:
        InputError: a negative seed or fewer than 2 agents.

    Example:
        >>> contested(0).features.shape
        (12, 2, 2)
    """
    require_at_least("seed", seed, 0)
    require_at_least("agents", agents, 2)
    generator, states = np.random.default_rng(seed), 12
    state = np.arange(states)
    willing = state % 2 == 1
    size = np.where(willing, generator.uniform(0.5, 1.0, states), generator.uniform(1.5, 2.5, states))
    features = np.zeros((states, 2, 2))
    features[state, 1, state // 2 % 2] = size
    reward = np.zeros((states, 2, states))
    earned = np.where(willing, generator.uniform(0.6, 0.9, states), -generator.uniform(0.9, 1.2, states))
    reward[:, 1] = earned[:, None]
    kernels = generator.dirichlet(np.full(states, 0.5), size=(agents, states, 2))
    family = Family(kernels, reward, generator.dirichlet(np.ones(states)), discount=0.7)
    return Problem(family, features)


def uncontested(seed: int, agents: int = 8) -> Problem:
    """A random problem of the same size with random features: the best w is as a rule at infinity.

    Softmax policies then become ever more certain: gradients fall, but parameters grow and assumptions 5 and 8 fail.

    Raises:
        InputError: as ``contested``.

    Example:
        >>> uncontested(0).features.shape
        (12, 3, 2)
    """
    require_at_least("seed", seed, 0)
    require_at_least("agents", agents, 2)
    generator, states, actions = np.random.default_rng(seed), 12, 3
    family = Family(
        kernels=generator.dirichlet(np.full(states, 0.5), size=(agents, states, actions)),
        reward=generator.uniform(size=(states, actions, states)),
        start=generator.dirichlet(np.ones(states)),
        discount=0.7,
    )
    return Problem(family, generator.normal(size=(states, actions, 2)))


def _visits_of_each(
    family: Family, policy: Float[np.ndarray, "agent state action"]
) -> Float[np.ndarray, "agent state"]:
    """ρ under P̄ of each agent's policy."""
    under_policy = np.einsum("sat,ksa->kts", family.kernels.mean(0), policy)
    start = np.broadcast_to(family.start, policy.shape[:2])[..., None]
    return np.linalg.solve(np.eye(family.states) - family.discount * under_policy, start)[..., 0]


def _measure(problem: Problem, critic: Parameters, actor: Parameters) -> tuple[float, float, float]:
    """‖ḡ(φ̄)‖, ‖φ^dis‖ and the norm of the mean actor."""
    means = [np.broadcast_to(each.mean(0), each.shape) for each in (critic, actor)]
    slope = gradients(problem, *means)
    gradient = np.concatenate([slope.critic.mean(0), slope.actor.mean(0)])
    apart = [each - mean for each, mean in zip((critic, actor), means, strict=True)]
    return float(np.linalg.norm(gradient)), float(np.linalg.norm(apart)), float(np.linalg.norm(means[1][0]))
