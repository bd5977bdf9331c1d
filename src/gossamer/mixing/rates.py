"""How fast agents agree: the rate in every round of which one can be sure, and the rate in the long run.

Small populations are asked of LAPACK, circulant ones of Fourier, and others of ARPACK, within 1e-6;
where ARPACK gives up, a power iteration tells the rate to about 1e-3.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, eigsh

from gossamer.mixing.matrices import Matrix, agents_of, phases_of, sparse

DENSE_LIMIT = 512  # agents up to which LAPACK is quicker than iterating


def consensus_rate(weights: Matrix | Sequence[Matrix]) -> float:
    """‖W - J‖₂, J = 11ᵀ/N: the most of the agents' disagreement that is left after one period.

    Of several phases W is the product, the first applied first. It is sure to be below one for a connected
    doubly stochastic W with a positive diagonal; a primitive W, as in Diff-DAC's lemma 1, is not enough.

    Example:
        >>> from gossamer import topologies
        >>> from gossamer.mixing import metropolis_hastings, weigh
        >>> round(consensus_rate(weigh(topologies.ring(25), metropolis_hastings)), 3)
        0.979
    """
    phases = phases_of(weights)
    if agents_of(phases[0]) <= DENSE_LIMIT:
        return float(np.linalg.norm(_deviation(phases), 2))
    if _are_circulant(phases):  # then it is normal, and its norm its spectral radius
        return _spectral_radius(phases)
    deviation = _Deviation(phases)
    return math.sqrt(_largest(eigsh, deviation.H @ deviation))


def spectral_gap(weights: Matrix | Sequence[Matrix]) -> float:
    """1 - |λ₂| of a row-stochastic W: how fast disagreement vanishes in the long run, per period.

    Example:
        >>> spectral_gap(np.array([[0.75, 0.25], [0.25, 0.75]]))
        0.5
    """
    return 1 - _spectral_radius(phases_of(weights))


def _spectral_radius(phases: Sequence[csr_array]) -> float:
    """|λ₂| of the product W, as the largest |λ| of W - J, whose spectrum has 0 in place of W's 1 (Brauer)."""
    if agents_of(phases[0]) <= DENSE_LIMIT:
        return float(np.abs(np.linalg.eigvals(_deviation(phases))).max())
    if _are_circulant(phases):
        spectra = [np.fft.fft(W[:, [0]].toarray().ravel()) for W in phases]
        return float(np.abs(np.prod(spectra, axis=0))[1:].max())
    return _largest(eigsh if _is_symmetric(phases) else eigs, _Deviation(phases))


def _deviation(phases: Sequence[csr_array]) -> Float[np.ndarray, "agent agent"]:
    product = functools.reduce(lambda total, W: W @ total, phases[1:], phases[0].toarray())
    return product - 1 / len(product)


class _Deviation(LinearOperator):
    """W - J for the product W of all phases, neither of them formed."""

    def __init__(self, phases: Sequence[csr_array]):
        super().__init__(np.float64, (agents_of(phases[0]), agents_of(phases[0])))
        self.phases = phases

    def _matvec(self, x):
        return functools.reduce(lambda x, W: W @ x, self.phases, x) - x.mean()

    def _rmatvec(self, x):
        return functools.reduce(lambda x, W: W.T @ x, reversed(self.phases), x) - x.mean()


def _largest(solve: Callable[..., Any], operator: LinearOperator) -> float:
    """The largest |λ|, within 1e-6, from a fixed start so that the same weights print the same figure."""
    start = _start(operator)
    try:
        values = solve(operator, k=1, ncv=40, tol=1e-6, maxiter=1000, v0=start, return_eigenvectors=False)
    except ArpackNoConvergence:  # many eigenvalues of nearly one modulus, which only their growth tells
        return _growth(operator)
    return float(np.abs(values).max())


def _growth(operator: LinearOperator, steps: int = 2000) -> float:
    """The geometric mean of the growth in the later half of a power iteration."""
    x, logarithms = _start(operator), []
    for _ in range(steps):
        x = operator.matvec(x / np.linalg.norm(x))
        if not x.any():
            return 0.0
        logarithms.append(math.log(np.linalg.norm(x)))
    return math.exp(np.mean(logarithms[steps // 2 :]))


def _start(operator: LinearOperator) -> Float[np.ndarray, " agent"]:
    return np.random.default_rng(0).normal(size=operator.shape[0])


def _are_circulant(phases: Sequence[csr_array]) -> bool:
    """Whether every W[i, j] depends on (i - j) mod N alone."""

    def turned(W):
        every = np.arange(1, agents_of(W) + 1) % agents_of(W)
        return W[every][:, every]

    return all(sparse(W - turned(W)).nnz == 0 for W in phases)


def _is_symmetric(phases: Sequence[csr_array]) -> bool:
    return len(phases) == 1 and sparse(phases[0] - phases[0].T).nnz == 0
