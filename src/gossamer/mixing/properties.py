"""What a weight matrix promises, as yes or no: a mean, a sum that is kept, and whom news reaches."""

import numpy as np
from scipy.sparse import coo_array, csgraph, csr_array

from gossamer.mixing.matrices import SUM_TOLERANCE, Matrix, row_sums, sparse


def is_row_stochastic(W: Matrix) -> bool:
    """Whether no weight is negative and every row sums to one: what agents hear is a mean.

    Example:
        >>> is_row_stochastic(np.array([[0.5, 0.5], [0.0, 1.0]]))
        True
    """
    W = sparse(W)
    return _is_nonnegative(W) and bool(np.all(np.abs(row_sums(W) - 1) < SUM_TOLERANCE))


def is_column_stochastic(W: Matrix) -> bool:
    """Whether no weight is negative and every column sums to one: combining keeps the agents' sum.

    Example:
        >>> is_column_stochastic(np.array([[0.5, 0.5], [0.0, 1.0]]))
        False
    """
    return is_row_stochastic(sparse(W).T)


def is_doubly_stochastic(W: Matrix) -> bool:
    """Whether rows and columns all sum to one and none is negative (Diff-DAC, 6).

    Example:
        >>> is_doubly_stochastic(np.array([[0.5, 0.5], [0.5, 0.5]]))
        True
    """
    return is_row_stochastic(W) and is_column_stochastic(W)


def is_strongly_connected(W: Matrix) -> bool:
    """Whether what any agent knows reaches every other in some number of rounds.

    Example:
        >>> is_strongly_connected(np.array([[0.5, 0.5], [0.0, 1.0]]))
        False
    """
    return bool(csgraph.connected_components(sparse(W), directed=True, connection="strong")[0] == 1)


def is_primitive(W: Matrix) -> bool:
    """Whether some power of W is positive everywhere (Diff-DAC, 7): strongly connected, and of period one.

    The period is the greatest common divisor of all cycle lengths.

    Example:
        >>> is_primitive(np.array([[0.0, 1.0], [1.0, 0.0]]))
        False
    """
    W = sparse(W)
    if not is_strongly_connected(W):
        return False
    depth = csgraph.shortest_path(W, unweighted=True, indices=0).astype(np.int64)
    edges = coo_array(W)
    return bool(np.gcd.reduce(depth[edges.row] + 1 - depth[edges.col]) == 1)


def _is_nonnegative(W: csr_array) -> bool:
    return bool(np.all(W.data >= 0) and np.all(np.isfinite(W.data)))
