"""Diff-DAC's theorem 1: the gradient of the approximate Lagrangian for a softmax policy, against differences.

It is about one averaged process and a value that is held fixed; no agent learns here.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from gossamer.errors import require_at_least
from gossamer_papers.theory.families import (
    Family,
    Policy,
    advantages,
    averaged,
    random_family,
    values,
    visits,
)

Features = Float[np.ndarray, "state action parameter"]

_DIFFERENCE = 1e-5  # about the cube root of float64's precision, where a central difference is most exact


class GradientCheck(NamedTuple):
    """Relative errors of (37) against central differences: with v = v^π, and with another v."""

    own_value: float
    other_value: float


def softmax_policy(features: Features, w: Float[np.ndarray, " parameter"]) -> Policy:
    """π_w(a|s) ∝ exp(wᵀψ(s, a)).

    Example:
        >>> softmax_policy(np.eye(2)[None], np.array([0.0, np.log(3.0)])).round(2).tolist()
        [[0.25, 0.75]]
    """
    return softmax(features @ w, axis=1)


def scores(features: Features, policy: Policy) -> Features:
    """∇_w log π_w(a|s) = ψ(s, a) − Σ_b π_w(b|s) ψ(s, b).

    Example:
        >>> scores(np.eye(2)[None], np.array([[0.25, 0.75]])).tolist()
        [[[0.75, -0.75], [-0.25, 0.25]]]
    """
    return features - np.einsum("sa,sam->sm", policy, features)[:, None]


def approximate_lagrangian(
    family: Family, features: Features, value: Float[np.ndarray, " state"], w: Float[np.ndarray, " parameter"]
) -> float:
    """L̃(v, w) = μᵀv + Σ_s ρ_γ^{π_w}(s) Σ_a π_w(a|s) Ā(s, a), (34)-(36), with visits ρ under P̄."""
    policy = softmax_policy(features, w)
    process = averaged(family)
    advantage = advantages(process, value[None])[0]
    return float(family.start @ value + visits(process, policy)[0] @ (policy * advantage).sum(1))


def lagrangian_gradient(
    family: Family, features: Features, value: Float[np.ndarray, " state"], w: Float[np.ndarray, " parameter"]
) -> Float[np.ndarray, " parameter"]:
    """∇_w L̃(v, w) as theorem 1 has it (37): Σ_s ρ_γ^{π_w}(s) Σ_a π_w(a|s) ∇_w log π_w(a|s) Ā(s, a).

    The gradient of the visits is left out. Step (b) of (59) drops it because Σ_a π_w(a|s) Ā(s, a) = 0, which is so
    where v is the value v^{π_w} of this policy under P̄. With that v held fixed while w is differenced, (37) is the
    gradient; with any other, a critic's, say, it is not.

    Example:
        >>> from gossamer_papers.theory.families import retrying
        >>> family, w = retrying(), np.zeros(4)
        >>> features = np.eye(4).reshape(2, 2, 4)
        >>> own = values(averaged(family), family.uniform_policy)[0]
        >>> lagrangian_gradient(family, features, own, w).round(3).tolist()
        [-0.048, 0.048, 0.0, 0.0]
        >>> difference_gradient(family, features, own, w).round(3).tolist()
        [-0.048, 0.048, 0.0, 0.0]
    """
    policy = softmax_policy(features, w)
    process = averaged(family)
    weight = visits(process, policy)[0][:, None] * policy * advantages(process, value[None])[0]
    return np.einsum("sa,sam->m", weight, scores(features, policy))


def difference_gradient(
    family: Family, features: Features, value: Float[np.ndarray, " state"], w: Float[np.ndarray, " parameter"]
) -> Float[np.ndarray, " parameter"]:
    """∇_w L̃(v, w) by central differences of (34), v held fixed."""

    def along(direction: Float[np.ndarray, " parameter"]) -> float:
        up, down = (
            approximate_lagrangian(family, features, value, w + sign * _DIFFERENCE * direction)
            for sign in (1, -1)
        )
        return (up - down) / (2 * _DIFFERENCE)

    return np.array([along(direction) for direction in np.eye(len(w))])


def check_theorem_1(families: int, seed: int = 0, parameters: int = 6) -> tuple[GradientCheck, ...]:
    """Of random families (up to 8 states, 4 actions, 5 tasks) with random features and parameters, the errors of (37).

    The other value is v^π with a standard normal draw added in each state.

    Raises:
        InputError: no family, no parameter, or a negative seed.

    Example:
        >>> (found,) = check_theorem_1(families=1)
        >>> found.own_value < 1e-6, found.other_value > 1e-2
        (True, True)
    """
    require_at_least("families", families, 1)
    require_at_least("parameters", parameters, 1)
    return tuple(_check(seed + index, parameters) for index in range(families))


def _check(seed: int, parameters: int) -> GradientCheck:
    family = random_family(seed, states=8, actions=4, tasks=5)
    generator = np.random.default_rng((seed, 1))
    features = generator.normal(size=(family.states, family.actions, parameters))
    w = generator.normal(size=parameters)
    own = values(averaged(family), softmax_policy(features, w))[0]
    other = own + generator.normal(size=family.states)
    return GradientCheck(*(_relative_error(family, features, value, w) for value in (own, other)))


def _relative_error(
    family: Family, features: Features, value: Float[np.ndarray, " state"], w: Float[np.ndarray, " parameter"]
) -> float:
    differenced = difference_gradient(family, features, value, w)
    stated = lagrangian_gradient(family, features, value, w)
    return float(np.linalg.norm(stated - differenced) / np.linalg.norm(differenced))
