"""A weight matrix as it is held on the host: sparse, in float64, without stored zeros, one for each phase."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

Matrix: TypeAlias = Any  # [agent, agent]: a numpy array or a scipy sparse one

SUM_TOLERANCE = 1e-6  # a sum that misses one by less is rounding, of float32 or of a text file


def sparse(W: Matrix) -> csr_array:
    """A copy of W that holds every weight once, and no zero.

    Example:
        >>> sparse([[0.5, 0.5], [0.0, 1.0]]).nnz
        3
    """
    W = csr_array(W, dtype=np.float64, copy=True)
    W.sum_duplicates()
    W.eliminate_zeros()
    return W


def phases_of(weights: Matrix | Sequence[Matrix]) -> tuple[csr_array, ...]:
    """The matrices of all phases; a single matrix is the one phase of a static population.

    Example:
        >>> len(phases_of(np.eye(3)))
        1
    """
    matrices = weights if isinstance(weights, tuple | list) else (weights,)
    return tuple(sparse(W) for W in matrices)


def agents_of(W: csr_array) -> int:
    """How many agents W is for.

    Example:
        >>> agents_of(sparse(np.eye(3)))
        3
    """
    return len(W.indptr) - 1


def row_sums(W: csr_array) -> Float[np.ndarray, " agent"]:
    """What each agent gives in all.

    Example:
        >>> row_sums(sparse([[0.5, 0.5], [0.0, 1.0]])).tolist()
        [1.0, 1.0]
    """
    return np.asarray(W.sum(axis=1))
