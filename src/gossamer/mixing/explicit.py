"""Weights that no rule made: a matrix from elsewhere, or from a text file, once it is seen to be one."""

import os

import numpy as np
from scipy.sparse import coo_array, csr_array, eye_array

from gossamer.errors import InputError
from gossamer.mixing.matrices import SUM_TOLERANCE, Matrix, agents_of, row_sums, sparse
from gossamer.topologies import Topology


def from_matrix(matrix: Matrix, topology: Topology | None = None, name: str = "W") -> tuple[csr_array]:
    """An explicit weight matrix as the one phase of a static population.

    Raises:
        InputError: not square, an entry that is negative or not finite, a row that does not sum to one, or,
            with a ``topology``, another number of agents, several phases, or a weight where there is no edge.

    Example:
        >>> from_matrix([[0.5, 0.4], [0.5, 0.5]])
        Traceback (most recent call last):
        gossamer.errors.InputError: W, row 0 sums to 0.9; every row must sum to one
    """
    shape = np.shape(matrix)
    if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
        raise InputError(f"{name} has shape {shape}; a weight matrix is square, [agent, agent]")
    W = sparse(matrix)
    _check_rows(name, W)
    if topology is not None:
        _check_support(name, W, topology)
    return (W,)


def read_matrix(path: str | os.PathLike[str], topology: Topology | None = None) -> tuple[csr_array]:
    r"""``from_matrix`` of a text file: one row a line, numbers apart by blanks or commas, ``#`` for comments.

    Raises:
        InputError: no such text file, a bad line (with its number and text), or what ``from_matrix`` refuses.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "weights.txt")
        ...     _ = path.write_text("0.5 0.5\n0.5 0.5")
        ...     read_matrix(path)[0].toarray().tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a text file ({error}); give a readable one") from error
    rows = [_parse_row(path, number, text) for number, text in enumerate(lines, 1)]
    rows = [row for row in rows if row]
    wrong = next((row for row in rows if len(row) != len(rows)), None)
    if wrong is not None or not rows:
        length = len(wrong) if wrong is not None else 0
        raise InputError(
            f"{path} has {len(rows)} rows and one of {length} numbers; a weight matrix is square"
        )
    return from_matrix(np.array(rows), topology, name=str(path))


def _check_rows(name: str, W: csr_array) -> None:
    entries = coo_array(W)
    bad = np.flatnonzero(~(np.isfinite(entries.data) & (entries.data >= 0)))
    if len(bad):
        row, column, value = entries.row[bad[0]], entries.col[bad[0]], entries.data[bad[0]]
        raise InputError(f"{name}[{row}, {column}] is {value:g}; weights must be finite and at least 0")
    sums = row_sums(W)
    bad = np.flatnonzero(np.abs(sums - 1) >= SUM_TOLERANCE)
    if len(bad):
        raise InputError(f"{name}, row {bad[0]} sums to {sums[bad[0]]:.9g}; every row must sum to one")


def _check_support(name: str, W: csr_array, topology: Topology) -> None:
    if topology.period > 1:
        raise InputError(
            f"{name} is one matrix and {topology.name} has {topology.period} phases; give a static one"
        )
    if agents_of(W) != topology.agents:
        raise InputError(
            f"{name} is for {agents_of(W)} agents and {topology.name} for {topology.agents}; they must agree"
        )
    allowed = topology.adjacency() + eye_array(topology.agents)
    strangers = coo_array(W - W.multiply(allowed))
    strangers.eliminate_zeros()
    if strangers.nnz:
        row, column, value = strangers.row[0], strangers.col[0], strangers.data[0]
        raise InputError(
            f"{name}[{row}, {column}] is {value:g}, but in {topology.name} agent {row} does not hear agent"
            f" {column}; give weights on edges and the diagonal only"
        )


def _parse_row(path: str | os.PathLike[str], number: int, text: str) -> list[float]:
    try:
        return [float(word) for word in text.partition("#")[0].replace(",", " ").split()]
    except ValueError as error:
        raise InputError(
            f"{path}, line {number}: {text!r} is not a row of numbers, such as '0.5 0.5'"
        ) from error
