"""How much to believe whom: weight matrices over a topology, what they promise, and the mean they make.

``W[i, j]`` is the weight agent i gives to agent j; rows sum to one. Weights are sparse float64 on the host,
one matrix per phase; ``plan`` lays them out for the device. Lost or stale messages are not here.
"""

import functools
import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse import coo_array, csgraph, csr_array, diags_array, eye_array
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, eigsh

from gossamer.errors import InputError
from gossamer.topologies import Topology, parse_spec
from gossamer.types import Message

Rule: TypeAlias = Callable[[csr_array], csr_array]  # from a phase's adjacency to its weights
Matrix: TypeAlias = Any  # [agent, agent]: a numpy array or a scipy sparse one

_MOST_TERMS = 32  # of a mean that is written out
SUM_TOLERANCE = 1e-6  # a sum that misses one by less is rounding, of float32 or of a text file


def weigh(topology: Topology, rule: Rule) -> tuple[csr_array, ...]:
    """The weights that ``rule`` gives in every phase of ``topology``.

    Example:
        >>> from gossamer import topologies
        >>> weigh(topologies.line(3), metropolis_hastings)[0].toarray().round(2).tolist()
        [[0.67, 0.33, 0.0], [0.33, 0.33, 0.33], [0.0, 0.33, 0.67]]
    """
    return tuple(rule(topology.adjacency(phase)) for phase in range(topology.period))


def metropolis_hastings(adjacency: csr_array) -> csr_array:
    """W_ij = 1 / (1 + max(d_i, d_j)) on every edge, the rest to oneself.

    Doubly stochastic on every symmetric graph. d_i is how many others agent i hears.

    Raises:
        InputError: the graph is directed and the result not doubly stochastic.

    Example:
        >>> from gossamer import topologies
        >>> metropolis_hastings(topologies.star(3).adjacency()).toarray()[0].round(2).tolist()
        [0.33, 0.33, 0.33]
    """
    degree, edges = _row_sums(adjacency), coo_array(adjacency)
    weight = 1 / (1 + np.maximum(degree[edges.row], degree[edges.col]))
    others = csr_array((weight, (edges.row, edges.col)), shape=adjacency.shape)
    W = csr_array(others + diags_array(1 - _row_sums(others)))
    if not is_doubly_stochastic(W):
        raise InputError(
            "metropolis_hastings does not keep the mean on this directed graph: its columns do not sum to"
            " one; use uniform, whose rows do, or a graph in which everybody is heard as often as it hears"
        )
    return W


def uniform(adjacency: csr_array) -> csr_array:
    """W_ij = 1 / (1 + d_i) for oneself and everybody heard: doubly stochastic where all degrees are equal.

    Example:
        >>> from gossamer import topologies
        >>> uniform(topologies.line(3).adjacency()).toarray().round(2).tolist()
        [[0.5, 0.5, 0.0], [0.33, 0.33, 0.33], [0.0, 0.5, 0.5]]
    """
    neighbourhood = csr_array(adjacency + eye_array(_agents(adjacency)))
    return csr_array(diags_array(1 / _row_sums(neighbourhood)) @ neighbourhood)


def laplacian(adjacency: csr_array, epsilon: float | None = None) -> csr_array:
    """W = I - ε L with L = D - A: doubly stochastic where everybody is heard as often as it hears.

    ``epsilon`` is 1 / (d_max + 1) unless given.

    Raises:
        InputError: ``epsilon`` outside (0, 1 / d_max].

    Example:
        >>> from gossamer import topologies
        >>> laplacian(topologies.line(3).adjacency(), epsilon=0.5).toarray().tolist()
        [[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]
    """
    degree = _row_sums(adjacency)
    largest = max(degree.max(), 1)
    epsilon = 1 / (degree.max() + 1) if epsilon is None else epsilon
    if not 0 < epsilon * largest <= 1:
        raise InputError(
            f"laplacian: epsilon is {epsilon:g}; it must be above 0 and at most 1 / d_max,"
            f" here {1 / largest:.4g}"
        )
    return csr_array(diags_array(1 - epsilon * degree) + epsilon * adjacency)


def lazy(adjacency: csr_array) -> csr_array:
    """(I + M) / 2 with Metropolis–Hastings weights M: no eigenvalue is negative.

    Example:
        >>> from gossamer import topologies
        >>> lazy(topologies.ring(2).adjacency()).toarray().tolist()
        [[0.75, 0.25], [0.25, 0.75]]
    """
    return csr_array((eye_array(_agents(adjacency)) + metropolis_hastings(adjacency)) / 2)


RULES: Mapping[str, Rule] = MappingProxyType(
    {rule.__name__: rule for rule in (metropolis_hastings, uniform, laplacian, lazy)}
)


def named_rule(spec: str) -> Rule:
    """The rule that a name or a name with parameters, stands for.

    Raises:
        InputError: unknown name (with the nearest ones), unknown or ill-typed parameter.

    Example:
        >>> named_rule("laplacian:epsilon=0.2").keywords
        {'epsilon': 0.2}
        >>> named_rule("metropolis")
        Traceback (most recent call last):
        gossamer.errors.InputError: 'metropolis' is not a weight rule, nor ...; did you mean metropolis_hastings? ...
    """
    rule, arguments = parse_spec(spec, RULES, "weight rule, nor the path of a matrix file")
    return functools.partial(rule, **arguments)


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
    W = _sparse(matrix)
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


def is_row_stochastic(W: Matrix) -> bool:
    """Whether no weight is negative and every row sums to one: what agents hear is a mean.

    Example:
        >>> is_row_stochastic(np.array([[0.5, 0.5], [0.0, 1.0]]))
        True
    """
    W = _sparse(W)
    return _is_nonnegative(W) and bool(np.all(np.abs(_row_sums(W) - 1) < SUM_TOLERANCE))


def is_column_stochastic(W: Matrix) -> bool:
    """Whether no weight is negative and every column sums to one: combining keeps the agents' sum.

    Example:
        >>> is_column_stochastic(np.array([[0.5, 0.5], [0.0, 1.0]]))
        False
    """
    return is_row_stochastic(_sparse(W).T)


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
    return bool(csgraph.connected_components(_sparse(W), directed=True, connection="strong")[0] == 1)


def is_primitive(W: Matrix) -> bool:
    """Whether some power of W is positive everywhere (Diff-DAC, 7): strongly connected, and of period one.

    The period is the greatest common divisor of all cycle lengths.

    Example:
        >>> is_primitive(np.array([[0.0, 1.0], [1.0, 0.0]]))
        False
    """
    W = _sparse(W)
    if not is_strongly_connected(W):
        return False
    depth = csgraph.shortest_path(W, unweighted=True, indices=0).astype(np.int64)
    edges = coo_array(W)
    return bool(np.gcd.reduce(depth[edges.row] + 1 - depth[edges.col]) == 1)


def consensus_rate(weights: Matrix | Sequence[Matrix]) -> float:
    """‖W - J‖₂, J = 11ᵀ/N: the most of the agents' disagreement that is left after one period.

    Of several phases W is the product, the first applied first. It is sure to be below one for a connected
    doubly stochastic W with a positive diagonal; a primitive W, as in Diff-DAC's lemma 1, is not enough.

    Example:
        >>> from gossamer import topologies
        >>> round(consensus_rate(weigh(topologies.ring(25), metropolis_hastings)), 3)
        0.979
    """
    phases = _phases(weights)
    if _agents(phases[0]) <= DENSE_LIMIT:
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
    return 1 - _spectral_radius(_phases(weights))


def mix(mixer: "Mixer", tree: Message, round: int | Int[Array, ""] = 0) -> Message:
    """Σ_j W_ij x_j for every agent i and every leaf x[agent, …] of ``tree``, with the weights of ``round``.

    Weights are cast to each leaf's type. Everything in ``mixer`` but its shapes and shifts may be traced.

    Example:
        >>> from gossamer import topologies
        >>> mixer = plan(weigh(topologies.complete(4), uniform))
        >>> mix(mixer, {"w": jnp.arange(4.0)})["w"].tolist()
        [1.5, 1.5, 1.5, 1.5]
    """
    if isinstance(mixer, Identity):
        return tree
    phase = round % mixer.period if mixer.period > 1 else 0
    return jax.tree.map(lambda leaf: mixer.combine(_checked(leaf, mixer.agents), phase), tree)


def average(messages: Message, weights: Float[Array, " peer"]) -> Message:
    """Σ_p w_p m_p over the leading ``peer`` axis of every leaf: the same mean, for one agent on a network.

    Example:
        >>> average({"w": jnp.array([[1.0, 2.0], [3.0, 6.0]])}, jnp.array([0.5, 0.5]))["w"].tolist()
        [2.0, 4.0]
    """

    def leaf_mean(leaf: Array) -> Array:
        if len(leaf) > _MOST_TERMS:
            return jnp.tensordot(weights.astype(leaf.dtype), leaf, axes=1)
        # Term by term: XLA reduces a leading axis about a hundred times more slowly on a CPU.
        terms = [weight.astype(leaf.dtype) * part for weight, part in zip(weights, leaf, strict=True)]
        return functools.reduce(operator.add, terms)

    return jax.tree.map(leaf_mean, messages)


def plan(weights: Sequence[Matrix], form: "type[Mixer] | None" = None) -> "Mixer":
    """Lay out the weights of all phases for the device, in the cheapest form or the one asked for.

    The cost of a form is counted in passes over [agent, parameter]; ``docs/decisions/mixing-forms.md`` says
    how. Nothing of size agents² is made unless the graph is that dense.

    Raises:
        InputError: the weights do not fit the ``form`` asked for.

    Example:
        >>> from gossamer import topologies
        >>> for topology in (topologies.ring(25), topologies.line(25), topologies.complete(25)):
        ...     print(type(plan(weigh(topology, metropolis_hastings))).__name__)
        Circulant
        Neighbours
        Dense
    """
    phases = _phases(weights)
    return (form or _cheapest_form(phases)).of(phases)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Identity:
    """W = I: nobody hears anybody, and nothing is computed."""

    @classmethod
    def of(cls, phases: Sequence[csr_array]) -> "Identity":
        """Refuses weights that mix anything."""
        if not _is_identity(phases):
            raise InputError("these weights are not the identity; use another form")
        return cls()


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Circulant:
    """Everybody hears at equal distances: Σ_s w[phase, s, i] x[i - shifts[s]], by shifting whole arrays."""

    weight: Any  # Float[Array, "phase shift agent"]
    shifts: tuple[int, ...] = field(metadata={"static": True})

    @classmethod
    def of(cls, phases: Sequence[csr_array]) -> "Circulant":
        """Refuses weights in which some phase has other distances, or some agent lacks one."""
        shifts = _common_shifts(phases)
        if shifts is None:
            raise InputError(
                "these weights are not circulant: agents hear at different distances; use Neighbours"
            )
        every = np.arange(_agents(phases[0]))
        at = [(every, (every - shift) % len(every)) for shift in shifts]
        return cls(_device([[W[row_column] for row_column in at] for W in phases]), shifts)

    @property
    def period(self) -> int:
        """Number of phases."""
        return self.weight.shape[0]

    @property
    def agents(self) -> int:
        """Number of agents."""
        return self.weight.shape[2]

    def combine(self, leaf: Float[Array, "agent ..."], phase: Any) -> Float[Array, "agent ..."]:
        """One leaf, mixed."""
        weight = self.weight[phase]
        terms = [
            _along(weight[k], leaf) * jnp.roll(leaf, shift, axis=0) for k, shift in enumerate(self.shifts)
        ]
        return functools.reduce(operator.add, terms)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Neighbours:
    """Everybody has the same few slots: Σ_k w[phase, i, k] x[index[phase, i, k]], one slot after the other.

    An empty slot repeats a neighbour with weight zero, so that no non-finite value leaks from a stranger.
    """

    index: Any  # Int[Array, "phase agent slot"]
    weight: Any  # Float[Array, "phase agent slot"]

    @classmethod
    def of(cls, phases: Sequence[csr_array]) -> "Neighbours":
        """As many slots as the largest neighbourhood needs."""
        slots = max(_largest_neighbourhood(phases), 1)
        index, weight = zip(*(_padded_rows(W, slots) for W in phases), strict=True)
        return cls(jnp.asarray(np.stack(index), jnp.int32), _device(weight))

    @property
    def period(self) -> int:
        """Number of phases."""
        return self.index.shape[0]

    @property
    def agents(self) -> int:
        """Number of agents."""
        return self.index.shape[1]

    def combine(self, leaf: Float[Array, "agent ..."], phase: Any) -> Float[Array, "agent ..."]:
        """One leaf, mixed: up to ``UNROLLED`` slots in one fused pass, a loop over the rest."""
        index, weight = self.index[phase], self.weight[phase]

        def term(k):
            return _along(weight[:, k], leaf) * _rows(leaf, index[:, k])

        slots = index.shape[1]
        total = functools.reduce(operator.add, [term(k) for k in range(min(slots, UNROLLED))])
        if slots <= UNROLLED:
            return total
        return jax.lax.fori_loop(UNROLLED, slots, lambda k, total: total + term(k), total)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class EdgeList:
    """Any graph, however irregular: x[sender] · w added to row ``receiver``, some edges at a time.

    Only one chunk of messages exists at once; the last is padded with its last edge at weight zero. On a GPU
    the order of additions to one row, and so the last bit of the result, is not fixed.
    """

    receiver: Any  # Int[Array, "phase chunk edge"]
    sender: Any  # Int[Array, "phase chunk edge"]
    weight: Any  # Float[Array, "phase chunk edge"]
    agents: int = field(metadata={"static": True})

    @classmethod
    def of(cls, phases: Sequence[csr_array]) -> "EdgeList":
        """As many chunks as the phase with most edges needs."""
        agents = _agents(phases[0])
        chunk = min(max(agents // 8, 8), 1024)
        chunks = max(-(-max(W.nnz for W in phases) // chunk), 1)
        parts = [[part.reshape(chunks, chunk) for part in _padded_edges(W, chunks * chunk)] for W in phases]
        receiver, sender, weight = (np.stack(part) for part in zip(*parts, strict=True))
        return cls(jnp.asarray(receiver, jnp.int32), jnp.asarray(sender, jnp.int32), _device(weight), agents)

    @property
    def period(self) -> int:
        """Number of phases."""
        return self.weight.shape[0]

    def combine(self, leaf: Float[Array, "agent ..."], phase: Any) -> Float[Array, "agent ..."]:
        """One leaf, mixed."""

        def add(total, edges):
            receiver, sender, weight = edges
            messages = _along(weight, leaf) * _rows(leaf, sender)
            rows = total.at[receiver]
            return rows.add(messages, indices_are_sorted=True, mode="promise_in_bounds"), None

        edges = (self.receiver[phase], self.sender[phase], self.weight[phase])
        return jax.lax.scan(add, jnp.zeros_like(leaf), edges)[0]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Dense:
    """W as it is: one matrix product, for graphs with many edges; a non-finite value reaches everybody."""

    weight: Any  # Float[Array, "phase agent agent"]

    @classmethod
    def of(cls, phases: Sequence[csr_array]) -> "Dense":
        """The phases, one above the other."""
        return cls(_device([W.toarray() for W in phases]))

    @property
    def period(self) -> int:
        """Number of phases."""
        return self.weight.shape[0]

    @property
    def agents(self) -> int:
        """Number of agents."""
        return self.weight.shape[1]

    def combine(self, leaf: Float[Array, "agent ..."], phase: Any) -> Float[Array, "agent ..."]:
        """One leaf, mixed."""
        weight = self.weight[phase].astype(leaf.dtype)
        # HIGHEST, because a mean over agents must not lose the digits that a GPU's default product drops
        return jnp.tensordot(weight, leaf, axes=1, precision=jax.lax.Precision.HIGHEST)


Mixer: TypeAlias = Identity | Circulant | Neighbours | EdgeList | Dense

FEW_SHIFTS = 4  # above, XLA's fused shifts are slower than gathers (25 shifts: ten times)
UNROLLED = 16  # slots added in one pass; more would only make programs long
DENSE_LIMIT = 512  # agents up to which LAPACK is quicker than iterating


def _sparse(W: Matrix) -> csr_array:
    W = csr_array(W, dtype=np.float64, copy=True)
    W.sum_duplicates()
    W.eliminate_zeros()
    return W


def _agents(W: csr_array) -> int:
    return len(W.indptr) - 1


def _phases(weights: Matrix | Sequence[Matrix]) -> tuple[csr_array, ...]:
    matrices = weights if isinstance(weights, tuple | list) else (weights,)
    return tuple(_sparse(W) for W in matrices)


def _row_sums(W: csr_array) -> Float[np.ndarray, " agent"]:
    return np.asarray(W.sum(axis=1))


def _is_nonnegative(W: csr_array) -> bool:
    return bool(np.all(W.data >= 0) and np.all(np.isfinite(W.data)))


def _check_rows(name: str, W: csr_array) -> None:
    entries = coo_array(W)
    bad = np.flatnonzero(~(np.isfinite(entries.data) & (entries.data >= 0)))
    if len(bad):
        row, column, value = entries.row[bad[0]], entries.col[bad[0]], entries.data[bad[0]]
        raise InputError(f"{name}[{row}, {column}] is {value:g}; weights must be finite and at least 0")
    sums = _row_sums(W)
    bad = np.flatnonzero(np.abs(sums - 1) >= SUM_TOLERANCE)
    if len(bad):
        raise InputError(f"{name}, row {bad[0]} sums to {sums[bad[0]]:.9g}; every row must sum to one")


def _check_support(name: str, W: csr_array, topology: Topology) -> None:
    if topology.period > 1:
        raise InputError(
            f"{name} is one matrix and {topology.name} has {topology.period} phases; give a static one"
        )
    if _agents(W) != topology.agents:
        raise InputError(
            f"{name} is for {_agents(W)} agents and {topology.name} for {topology.agents}; they must agree"
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


def _deviation(phases: Sequence[csr_array]) -> Float[np.ndarray, "agent agent"]:
    product = functools.reduce(lambda total, W: W @ total, phases[1:], phases[0].toarray())
    return product - 1 / len(product)


class _Deviation(LinearOperator):
    """W - J for the product W of all phases, neither of them formed."""

    def __init__(self, phases: Sequence[csr_array]):
        super().__init__(np.float64, (_agents(phases[0]), _agents(phases[0])))
        self.phases = phases

    def _matvec(self, x):
        return functools.reduce(lambda x, W: W @ x, self.phases, x) - x.mean()

    def _rmatvec(self, x):
        return functools.reduce(lambda x, W: W.T @ x, reversed(self.phases), x) - x.mean()


def _spectral_radius(phases: Sequence[csr_array]) -> float:
    """|λ₂| of the product W, as the largest |λ| of W - J, whose spectrum has 0 in place of W's 1 (Brauer)."""
    if _agents(phases[0]) <= DENSE_LIMIT:
        return float(np.abs(np.linalg.eigvals(_deviation(phases))).max())
    if _are_circulant(phases):
        spectra = [np.fft.fft(W[:, [0]].toarray().ravel()) for W in phases]
        return float(np.abs(np.prod(spectra, axis=0))[1:].max())
    try:
        return _largest(eigsh if _is_symmetric(phases) else eigs, _Deviation(phases))
    except ArpackNoConvergence:  # a ring of eigenvalues of nearly one modulus, which only their growth tells
        return _growth(_Deviation(phases))


def _largest(solve: Callable[..., Any], deviation: LinearOperator) -> float:
    """The largest |λ|, within 1e-6, from a fixed start so that the same weights print the same figure."""
    start = _start(deviation)
    values = solve(deviation, k=1, ncv=40, tol=1e-6, maxiter=1000, v0=start, return_eigenvectors=False)
    return float(np.abs(values).max())


def _growth(deviation: LinearOperator, steps: int = 2000) -> float:
    """The geometric mean of the growth in the later half of a power iteration."""
    x, logarithms = _start(deviation), []
    for _ in range(steps):
        x = deviation.matvec(x / np.linalg.norm(x))
        if not x.any():
            return 0.0
        logarithms.append(math.log(np.linalg.norm(x)))
    return math.exp(np.mean(logarithms[steps // 2 :]))


def _start(deviation: LinearOperator) -> Float[np.ndarray, " agent"]:
    return np.random.default_rng(0).normal(size=deviation.shape[0])


def _are_circulant(phases: Sequence[csr_array]) -> bool:
    """Whether every W[i, j] depends on (i - j) mod N alone."""

    def turned(W):
        every = np.arange(1, _agents(W) + 1) % _agents(W)
        return W[every][:, every]

    return all(_sparse(W - turned(W)).nnz == 0 for W in phases)


def _is_symmetric(phases: Sequence[csr_array]) -> bool:
    return len(phases) == 1 and _sparse(phases[0] - phases[0].T).nnz == 0


def _is_identity(phases: Sequence[csr_array]) -> bool:
    return all(_sparse(W - eye_array(_agents(W))).nnz == 0 for W in phases)


def _common_shifts(phases: Sequence[csr_array]) -> tuple[int, ...] | None:
    """The distances i - j at which every agent, in every phase, has a weight; None if some have others."""
    shifts = None
    for W in phases:
        entries = coo_array(W)
        found = np.unique((entries.row - entries.col) % _agents(W))
        if W.nnz != len(found) * _agents(W) or (shifts is not None and not np.array_equal(found, shifts)):
            return None
        shifts = found
    return None if shifts is None else tuple(shifts.tolist())


def _largest_neighbourhood(phases: Sequence[csr_array]) -> int:
    return int(max(np.diff(W.indptr).max() for W in phases))


def _cheapest_form(phases: Sequence[csr_array]) -> "type[Mixer]":
    if _is_identity(phases):
        return Identity
    agents = _agents(phases[0])
    passes = {
        Neighbours: _largest_neighbourhood(phases),
        EdgeList: 6 * max(W.nnz for W in phases) / agents,
        Dense: agents / 2,
    }
    form = min(passes, key=passes.__getitem__)
    few = form is Neighbours and passes[Neighbours] <= FEW_SHIFTS
    return Circulant if few and _common_shifts(phases) is not None else form


def _padded_rows(
    W: csr_array, slots: int
) -> tuple[Int[np.ndarray, "agent slot"], Float[np.ndarray, "agent slot"]]:
    counts = np.diff(W.indptr)
    row = np.repeat(np.arange(len(counts)), counts)
    slot = np.arange(W.nnz) - W.indptr[row]
    own = np.arange(len(counts))
    first = np.where(counts > 0, W.indices[np.minimum(W.indptr[:-1], W.nnz - 1)], own)
    index, weight = np.repeat(first[:, None], slots, axis=1), np.zeros((len(counts), slots))
    index[row, slot], weight[row, slot] = W.indices, W.data
    return index, weight


def _padded_edges(W: csr_array, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    entries, missing = coo_array(W), (0, length - W.nnz)
    receiver, sender = (np.pad(part, missing, mode="edge") for part in (entries.row, entries.col))
    return receiver, sender, np.pad(entries.data, missing)


def _device(weights: Any) -> Array:
    return jnp.asarray(np.asarray(weights), jnp.result_type(float))


def _along(weights: Float[Array, " row"], leaf: Float[Array, "..."]) -> Float[Array, "row ..."]:
    return weights.astype(leaf.dtype).reshape(weights.shape + (1,) * (leaf.ndim - 1))


def _rows(leaf: Float[Array, "..."], index: Int[Array, " row"]) -> Float[Array, "..."]:
    return leaf.at[index].get(mode="promise_in_bounds")


def _checked(leaf: Array, agents: int) -> Array:
    """Gathers promise to stay in bounds, so a leaf of another length must never reach them."""
    if leaf.ndim == 0 or leaf.shape[0] != agents or not jnp.issubdtype(leaf.dtype, jnp.floating):
        found = f"{leaf.dtype}{list(leaf.shape)}"
        raise TypeError(f"a leaf is {found}; mixing needs floats whose first axis is the {agents} agents")
    return leaf
