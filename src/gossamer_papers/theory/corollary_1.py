"""Propositions 1 and 2 and corollary 1 of Diff-DAC, family by family: what the saddle point is worth in the tasks.

The saddle point solves the process of the averaged kernel; corollary 1 says that its policy is also the best one for
(1/N) Σ_k J_θk. Any better policy refutes that, and is looked for here among deterministic ones.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from gossamer.errors import require_at_least
from gossamer_papers.theory.families import (
    Family,
    Policy,
    averaged,
    is_row_stochastic,
    objective,
    random_family,
    value_iteration,
)
from gossamer_papers.theory.primal_dual import dual_ascent, duality_gap, infeasibility, slackness

Actions = Int[np.ndarray, " state"]

_EXHAUSTIVE = 512  # deterministic policies up to which all of them are tried
_IMPROVED = 1e-9  # a smaller gain may be rounding


class Check(NamedTuple):
    """Of one family: errors of what must hold, and the numbers that corollary 1 says are equal.

    ``saddle_value`` is μᵀv*, ``saddle_objective`` what the saddle's policy earns, ``best_objective`` what the best
    policy that was found earns: a lower bound of the maximum, and above ``saddle_objective`` a counterexample.
    ``best_is_exact`` says that all deterministic policies were tried. ``highest_objective`` is what the tasks' own
    optimal policies would earn, an upper bound.
    """

    row_stochastic: bool
    value_error: float
    infeasibility: float
    duality_gap: float
    slackness: float
    saddle_value: float
    saddle_objective: float
    best_objective: float
    highest_objective: float
    best_is_exact: bool
    steps: int

    @property
    def gap(self) -> float:
        """How much more the best policy found earns than the saddle's, relative to the latter."""
        return (self.best_objective - self.saddle_objective) / abs(self.saddle_objective)

    def beaten(self, tolerance: float = 1e-6) -> bool:
        """Whether proposition 2 (ii) fails: some policy earns more than the saddle's by more than rounding."""
        return self.gap > tolerance

    def misvalued(self, tolerance: float = 1e-6) -> bool:
        """Whether proposition 2 (i) surely fails: μᵀv* is no value that the maximum can have."""
        margin = tolerance * abs(self.saddle_value)
        too_low = self.saddle_value < self.best_objective - margin
        return too_low or self.saddle_value > self.highest_objective + margin


def check(family: Family) -> Check:
    """Solve the averaged process by dual ascent, compare it with value iteration, and look for better policies.

    Example:
        >>> from gossamer_papers.theory.families import retrying
        >>> found = check(retrying())
        >>> round(found.saddle_value, 3), round(found.saddle_objective, 3), round(found.best_objective, 3)
        (0.909, 0.5, 0.7)
        >>> round(found.gap, 3), found.beaten(), found.misvalued()
        (0.4, True, True)
    """
    # Of the mean itself, as ``averaged`` makes a process of no other.
    row_stochastic = is_row_stochastic(family.kernels.mean(0))
    process = averaged(family)
    saddle = dual_ascent(process)
    earned = objective(family, saddle.policy)
    best, exact = best_deterministic(family, [saddle.policy])
    highest = float((value_iteration(family) @ family.start).mean())
    return Check(
        row_stochastic=row_stochastic,
        value_error=float(np.abs(saddle.value - value_iteration(process)[0]).max()),
        infeasibility=infeasibility(process, saddle),
        duality_gap=duality_gap(process, saddle),
        slackness=slackness(process, saddle),
        saddle_value=float(family.start @ saddle.value),
        saddle_objective=earned,
        # The saddle's policy counts as well: with ties it need not be deterministic.
        best_objective=max(objective(family, best), earned),
        highest_objective=highest,
        best_is_exact=exact,
        steps=saddle.steps,
    )


def check_random_families(
    families: int, states: int = 20, actions: int = 5, tasks: int = 8, seed: int = 0
) -> tuple[Check, ...]:
    """``check`` of as many random families, the seeds of which count up from ``seed``.

    Raises:
        InputError: no family, a size below 2, or a negative seed.

    Example:
        >>> len(check_random_families(3, states=4, actions=2, tasks=2))
        3
    """
    require_at_least("families", families, 1)
    return tuple(check(random_family(seed + index, states, actions, tasks)) for index in range(families))


def best_deterministic(family: Family, starts: Sequence[Policy] = ()) -> tuple[Policy, bool]:
    """The best deterministic policy that is found for the multitask objective (3), and whether it is surely the best.

    All are tried where there are at most 512. Elsewhere the action of one state after the other is changed for the
    better, steepest first, from the ``starts``, from the uniform policy's and from the tasks' own greedy policies: a
    lower bound of the maximum. A stochastic policy may be better still, as the task is hidden.

    Args:
        family: the tasks.
        starts: policies to start from; of each the most probable actions.

    Example:
        >>> from gossamer_papers.theory.families import retrying
        >>> policy, exact = best_deterministic(retrying())
        >>> policy[0].tolist(), exact
        ([1.0, 0.0], True)
    """
    exact = family.actions**family.states <= _EXHAUSTIVE
    if exact:
        every = itertools.product(range(family.actions), repeat=family.states)
        found = (np.array(actions) for actions in every)
    else:
        found = (_climb(family, actions) for actions in _starts(family, starts))
    policies = (_one_hot(family, actions) for actions in found)
    return max(policies, key=lambda policy: objective(family, policy)), exact


def gains_of_single_changes(family: Family, actions: Actions) -> Float[np.ndarray, "state action"]:
    """How much (3) grows if a deterministic policy takes action a in state s, and its own elsewhere; exact.

    With M = (I − γP_π)⁻¹ of a task, a change of one row of P_π adds A(s, a) M e_s / (1 − δᵀM e_s) to its values, where
    δ = γ(P(·|s, a) − P(·|s, π(s))) (Sherman and Morrison), and so A(s, a) ρ(s) / (1 − δᵀM e_s) to its objective.

    Example:
        >>> from gossamer_papers.theory.families import retrying
        >>> gains_of_single_changes(retrying(), np.array([1, 0])).round(3).tolist()
        [[0.2, 0.0], [0.0, 0.0]]
    """
    states = np.arange(family.states)
    own = family.kernels[:, states, actions]
    expected_reward = family.expected_reward
    inverse = np.linalg.inv(np.eye(family.states) - family.discount * own)
    value = np.einsum("kst,kt->ks", inverse, expected_reward[:, states, actions])
    following = np.einsum("ksat,kt->ksa", family.kernels, value)
    advantage = expected_reward + family.discount * following - value[..., None]
    change = family.discount * (family.kernels - own[:, :, None])
    returning = np.einsum("ksat,kts->ksa", change, inverse)
    visited = np.einsum("s,kst->kt", family.start, inverse)
    return (advantage * visited[..., None] / (1 - returning)).mean(0)


def _starts(family: Family, starts: Sequence[Policy]) -> Iterator[Actions]:
    yield from (policy.argmax(1) for policy in starts)
    yield np.zeros(family.states, int)
    own = family.expected_reward + family.discount * np.einsum(
        "ksat,kt->ksa", family.kernels, value_iteration(family, tolerance=1e-3)
    )
    yield from own.argmax(-1)


def _climb(family: Family, actions: Actions) -> Actions:
    while True:
        gains = gains_of_single_changes(family, actions)
        state, action = np.unravel_index(gains.argmax(), gains.shape)
        if gains[state, action] <= _IMPROVED:
            return actions
        actions = np.where(np.arange(len(actions)) == state, action, actions)


def _one_hot(family: Family, actions: Actions) -> Policy:
    return np.eye(family.actions)[actions]
