"""Diff-DAC's tabular primal-dual actor-critic (section IV-A), and what a saddle point of its Lagrangian must satisfy.

It solves one process. Of a family that is the averaged one, see ``families.averaged``; what the solution is worth in
the tasks themselves is the affair of ``corollary_1``.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gossamer.errors import InputError, require_positive
from gossamer_papers.theory.families import Family, Policy, advantages, occupancy, values

_MOST_STEPS = 10_000
_GROWTH = 1.05


class Saddle(NamedTuple):
    """A saddle point: v* and d* of (15), the policy of d* (20), and how many steps of ascent led there."""

    value: Float[np.ndarray, " state"]
    dual: Float[np.ndarray, "state action"]
    policy: Policy
    steps: int


def lagrangian(
    family: Family, value: Float[np.ndarray, " state"], dual: Float[np.ndarray, "state action"]
) -> float:
    """L̄(v, d) = μᵀv + (1/N) Σ_k Σ_sa d(s, a) A_k(s, a), of (11)-(12) and (27).

    It is linear in the kernel, so that a family and its averaged process have the same.

    Example:
        >>> from gossamer_papers.theory.families import averaged, retrying
        >>> v, d = np.array([1.0, 2.0]), np.array([[1.0, 0.5], [0.0, 2.0]])
        >>> both = (lagrangian(family, v, d) for family in (retrying(), averaged(retrying())))
        >>> [round(value, 6) for value in both]
        [2.525, 2.525]
    """
    each = np.broadcast_to(value, (family.tasks, family.states))
    return float(family.start @ value + (advantages(family, each).mean(0) * dual).sum())


def dual_ascent(process: Family, step: float = 1.0, tolerance: float = 1e-8) -> Saddle:
    """Alternate a critic that solves (21) for the policy (20) of d, and an actor d ← [d + β A]⁺ (22)-(24).

    The Lagrangian is linear in v, so the minimum (16) over v exists only where d is an occupancy; as in the paper the
    critic solves Bellman's equation instead, which makes complementary slackness (17) hold. The result is policy
    improvement, for any β > 0: the actor adds mass where A > 0 and removes it where A < 0, so that
    Σ_a d'(s, a) A(s, a) ≥ Σ_a d(s, a) A(s, a) = 0, and v never falls. An action whose advantage stays above
    zero in the limit would take all of its state's mass, provided Σ β = ∞: so the limit is optimal.

    It starts from d = 1. No state ever loses all its mass, where (20) would say nothing: of the actions that have
    some, one has A ≥ 0 and keeps it. β grows by 5 % a step, because inferior actions vanish at the rate β |A|,
    which for a nearly optimal one is slow. It stops where max A ≤ (1 − γ) ``tolerance``, which puts v within
    ``tolerance`` of v* in every state. d* is the policy's occupancy (18): the mass that ascent leaves in a state has
    its policy and not its scale.

    Args:
        process: a single process; of a family take ``averaged``.
        step: β of the first step, > 0.
        tolerance: largest error of v, > 0, in units of the return.

    Raises:
        InputError: several tasks, a number out of range, or no solution in 10,000 steps.

    Example:
        >>> from gossamer_papers.theory.families import averaged, retrying
        >>> saddle = dual_ascent(averaged(retrying()))
        >>> saddle.value.round(3).tolist(), saddle.policy[0].tolist()
        ([0.909, 0.0], [0.0, 1.0])
    """
    if process.tasks != 1:
        raise InputError(
            f"dual ascent solves a single process and was given {process.tasks} tasks; average them"
        )
    require_positive("step", step)
    require_positive("tolerance", tolerance)
    mass = np.ones((process.states, process.actions))
    for taken in range(_MOST_STEPS):
        policy = mass / mass.sum(1, keepdims=True)
        value = values(process, policy)
        advantage = advantages(process, value)[0]
        if advantage.max() <= (1 - process.discount) * tolerance:
            return Saddle(value[0], occupancy(process, policy)[0], policy, taken)
        mass = np.maximum(mass + step * advantage, 0.0)
        step *= _GROWTH
    raise InputError(f"tolerance is {tolerance}; it was not reached in {_MOST_STEPS} steps, ask for less")


def infeasibility(process: Family, saddle: Saddle) -> float:
    """By how much v* breaks a constraint of (14), or d* one of its dual: the largest of A(s, a), −d and ``flow_error``.

    Zero at a saddle point; of a policy's own value and occupancy, only where it is optimal in every state.

    Example:
        >>> from gossamer_papers.theory.families import averaged, retrying
        >>> process = averaged(retrying())
        >>> infeasibility(process, dual_ascent(process)) < 1e-8
        True
        >>> policy = process.uniform_policy
        >>> own = Saddle(values(process, policy)[0], occupancy(process, policy)[0], policy, steps=0)
        >>> round(infeasibility(process, own), 3)
        0.074
    """
    above = advantages(process, saddle.value[None])[0].max()
    return max(0.0, float(above), -float(saddle.dual.min()), flow_error(process, saddle.dual))


def duality_gap(process: Family, saddle: Saddle) -> float:
    """max_d L(v*, d) − min_v L(v, d*), what both sides gain by moving: zero at a saddle point (15).

    μᵀv* = Σ_sa d*(s, a) r(s, a) of (25) would not do: any policy's own value and occupancy have that. L is linear in
    either, so it is largest with all of d on the pair with the largest A (24), or none if none is above zero, and
    smallest with v moved against ∇_v L in every state. Away from a saddle point both would be infinite: here d has
    at most twice an occupancy's mass 1 / (1 − γ), and v is within 1 of v*.

    Example:
        >>> from gossamer_papers.theory.families import averaged, retrying
        >>> process = averaged(retrying())
        >>> saddle = dual_ascent(process)
        >>> duality_gap(process, saddle) < 1e-9
        True
        >>> duality_gap(process, saddle._replace(value=saddle.value + 0.1)) > 0.09
        True
    """
    advantage = advantages(process, saddle.value[None])[0]
    best_dual = np.zeros_like(advantage)
    if advantage.max() > 0:
        best_dual.flat[advantage.argmax()] = 2 / (1 - process.discount)
    best_value = saddle.value + np.sign(_flow(process, saddle.dual))
    return lagrangian(process, saddle.value, best_dual) - lagrangian(process, best_value, saddle.dual)


def slackness(process: Family, saddle: Saddle) -> float:
    """max_sa |d*(s, a) A(s, a)|, zero by complementary slackness (17).

    It is also for any deterministic policy's own value and occupancy: only beside ``infeasibility`` does it say more.
    """
    return float(np.abs(saddle.dual * advantages(process, saddle.value[None])[0]).max())


def flow_error(process: Family, dual: Float[np.ndarray, "state action"]) -> float:
    """max_s |Σ_a d(s, a) − μ(s) − γ Σ_s'a d(s', a) P(s|s', a)|, zero where ∇_v L = 0: d is an occupancy.

    Example:
        >>> from gossamer_papers.theory.families import occupancy, random_family
        >>> family = random_family(1)
        >>> process = Family(family.kernels[:1], family.reward, family.start, family.discount)
        >>> flow_error(process, occupancy(process, process.uniform_policy)[0]) < 1e-9
        True
    """
    return float(np.abs(_flow(process, dual)).max())


def _flow(process: Family, dual: Float[np.ndarray, "state action"]) -> Float[np.ndarray, " state"]:
    """−∇_v L(v, d), for any v: what d has in a state, less what starts and arrives there."""
    arriving = np.einsum("sa,sat->t", dual, process.kernels[0])
    return dual.sum(1) - process.start - process.discount * arriving
