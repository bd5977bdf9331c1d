"""When numbers say that a statement of the papers holds: tolerances, and a rule for each. Nothing is computed.

What is printed and what is written into results are judged by the same rules.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from gossamer_papers.theory.asynchrony import ROUNDOFF, Study
from gossamer_papers.theory.corollary_1 import Check

EXACT = 1e-6
"""What value iteration and float64 leave, relative to values of about 1 to 20."""
GRADIENT = 1e-4
"""Largest relative error of a gradient that counts as equal to central differences."""
AGREED = 1e-3
"""Largest share of the first disagreement that agents who agree may keep."""
STATIONARY = 1e-4
"""Largest norm of a gradient at a point that counts as stationary."""


def verdict(condition: bool | np.bool_) -> Literal["holds", "does not hold"]:
    """A condition in words.

    Example:
        >>> verdict(1 < 2), verdict(2 < 1)
        ('holds', 'does not hold')
    """
    return "holds" if condition else "does not hold"


def reaches_the_value(checks: Sequence[Check]) -> bool:
    """Dual ascent (21)-(24) ends at the value of the averaged process in every family."""
    return max(each.value_error for each in checks) < EXACT


def ends_at_a_saddle(checks: Sequence[Check]) -> bool:
    """Strong duality (15), (25) and complementary slackness (17), between feasible v* and d*, in every family."""
    return max(max(each.infeasibility, each.duality_gap, each.slackness) for each in checks) < EXACT


def values_the_maximum(checks: Sequence[Check]) -> bool:
    """Proposition 2 (i): in every family μᵀv* can be the highest that a policy earns."""
    return not any(each.misvalued() for each in checks)


def is_never_beaten(checks: Sequence[Check]) -> bool:
    """Proposition 2 (ii): in no family another policy earns more than the saddle's."""
    return not any(each.beaten() for each in checks)


def is_the_gradient(errors: Float[np.ndarray, " family"]) -> bool:
    """Theorem 1: relative errors against central differences are those of rounding.

    Example:
        >>> is_the_gradient(np.array([1e-9, 2e-9])), is_the_gradient(np.array([1e-9, 0.5]))
        (True, False)
    """
    return bool(errors.max() < GRADIENT)


def is_within(distance: float, bound: float) -> bool:
    """A distance is no larger than its bound, up to rounding in float64.

    Example:
        >>> is_within(1.0, 1.0), is_within(1.1, 1.0)
        (True, False)
    """
    return distance <= bound * (1 + ROUNDOFF)


def stays_within_exact_bounds(found: Study, distance: float, bound: float) -> bool:
    """GALA's proposition 1 by its proof: nothing recorded is beyond it, nor the example of one late contraction."""
    return not found.beyond_exact and is_within(distance, bound)


def stays_within_printed_bounds(found: Study, distance: float, bound: float) -> bool:
    """GALA's proposition 1 as printed, in the same way."""
    return not found.beyond_printed and is_within(distance, bound)


def is_ergodic(found: Study) -> bool:
    """GALA's proposition 2: all products over τ + B iterations are ergodic."""
    return found.ergodic == 1


def contracts_at_once(found: Study) -> bool:
    """GALA's proposition 2: the norm of all these products is below 1."""
    return found.norm < 1
