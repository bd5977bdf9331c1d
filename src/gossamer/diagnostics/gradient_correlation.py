"""How alike the gradients of agents are, which GALA's figure 2 shows. Functions of arrays; they know no run."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_CHUNK = 65_536  # parameters in double precision at once


class CorrelationSum(NamedTuple):
    """Correlations of several moments, added up; pairs that had none at a moment are not counted there."""

    total: Float[np.ndarray, "agent agent"]
    known: Float[np.ndarray, "agent agent"]

    @classmethod
    def init(cls, agents: int) -> "CorrelationSum":
        """Of no moment."""
        return cls(np.zeros((agents, agents)), np.zeros((agents, agents)))

    def add(self, gradients: Float[np.ndarray, "agent parameter"]) -> "CorrelationSum":
        """With one moment more.

        Example:
            >>> moments = CorrelationSum.init(2).add(np.array([[0.0, 1.0], [0.0, 2.0]]))
            >>> moments = moments.add(np.array([[0.0, 1.0], [1.0, 0.0]]))
            >>> moments.mean().round(3).tolist()
            [[1.0, 0.0], [0.0, 1.0]]
        """
        values = correlation(gradients)
        finite = np.isfinite(values)
        return CorrelationSum(self.total + np.where(finite, values, 0.0), self.known + finite)

    def mean(self) -> Float[np.ndarray, "agent agent"]:
        """Over moments; ``nan`` for a pair that never had a correlation."""
        unknown = np.full(self.total.shape, np.nan)
        return np.divide(self.total, self.known, out=unknown, where=self.known > 0)


def correlation(gradients: Float[np.ndarray, "agent parameter"]) -> Float[np.ndarray, "agent agent"]:
    """Pearson's correlation of each two agents' gradients, over parameters.

    ρ_ij = Σ_p (g_ip − ḡ_i)(g_jp − ḡ_j) / (‖g_i − ḡ_i‖·‖g_j − ḡ_j‖), computed in double precision, part by part, as
    networks have millions of parameters. A gradient whose components are all the same, or that is not finite,
    correlates with nothing: ``nan``.

    Args:
        gradients: of all agents, flattened, at one moment.

    Example:
        >>> correlation(np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 2.0, 1.0]])).round(3).tolist()
        [[1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]
    """
    mean = gradients.mean(axis=1, keepdims=True, dtype=np.float64)
    products = np.zeros((len(gradients), len(gradients)))
    for start in range(0, gradients.shape[1], _CHUNK):
        with np.errstate(invalid="ignore"):
            part = gradients[:, start : start + _CHUNK] - mean
            products += part @ part.T
    # Rounding of the mean would give constant components a direction.
    varies = gradients.min(axis=1) < gradients.max(axis=1)
    norm = np.sqrt(np.where(varies, np.diag(products), np.nan))
    return np.clip(products / (norm[:, None] * norm), -1.0, 1.0)


def mean_off_diagonal(matrix: Float[np.ndarray, "agent agent"]) -> float:
    """Mean over pairs of different agents whose value is known; ``nan`` if there is none.

    Example:
        >>> mean_off_diagonal(np.array([[1.0, 0.2], [0.4, 1.0]])).__round__(3)
        0.3
    """
    others = matrix[~np.eye(len(matrix), dtype=bool)]
    known = others[np.isfinite(others)]
    return float(known.mean()) if known.size else float("nan")
