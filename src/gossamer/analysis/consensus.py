"""How alike the agents of a population are, in their parameters. Functions of arrays; they know no run."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class RelativeDeviation(NamedTuple):
    """Standard deviation over agents divided by the absolute mean, of each parameter, in one number.

    Means of parameters lie near zero now and then, where the quotient is huge: ``mean`` over parameters, as Diff-DAC's
    table I has it, leans on those few; ``median`` does not.
    """

    mean: float
    median: float


def relative_deviation(parameters: Sequence[Float[np.ndarray, "agent ..."]]) -> RelativeDeviation:
    """Diff-DAC's table I for one run: how far agents' parameters are apart, relative to their size.

    The paper divides by the mean, which may be negative; its absolute value is taken here. A parameter that is 0
    for all agents is left out.

    Args:
        parameters: arrays with a leading agent axis.

    Example:
        >>> relative_deviation([np.array([[1.0, 2.0], [3.0, 2.0]])])
        RelativeDeviation(mean=0.25, median=0.25)
    """
    flat = np.concatenate(
        [np.asarray(each, np.float64).reshape(len(each), -1) for each in parameters], axis=1
    )
    flat = flat[:, np.any(flat != 0, axis=0)]
    with np.errstate(divide="ignore"):
        quotient = flat.std(0) / np.abs(flat.mean(0))
    return RelativeDeviation(float(quotient.mean()), float(np.median(quotient)))
