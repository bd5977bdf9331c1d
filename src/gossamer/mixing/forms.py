"""The mean that weights make, on the device: the five ways to compute it, and which is cheapest.

Weights may be traced here; lost or stale messages are not here.
"""

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse import coo_array, csr_array, eye_array

from gossamer.errors import InputError
from gossamer.mixing.matrices import Matrix, agents_of, phases_of, sparse
from gossamer.types import Message

_MOST_TERMS = 32  # of a mean that is written out
FEW_SHIFTS = 4  # above, XLA's fused shifts are slower than gathers (25 shifts: ten times)
UNROLLED = 16  # slots added in one pass; more would only make programs long


def mix(mixer: "Mixer", tree: Message, round: int | Int[Array, ""] = 0) -> Message:
    """Σ_j W_ij x_j for every agent i and every leaf x[agent, …] of ``tree``, with the weights of ``round``.

    Weights are cast to each leaf's type. Everything in ``mixer`` but its shapes and shifts may be traced.

    Example:
        >>> from gossamer import topologies
        >>> from gossamer.mixing import uniform, weigh
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
        >>> from gossamer.mixing import metropolis_hastings, weigh
        >>> for topology in (topologies.ring(25), topologies.line(25), topologies.complete(25)):
        ...     print(type(plan(weigh(topology, metropolis_hastings))).__name__)
        Circulant
        Neighbours
        Dense
    """
    phases = phases_of(weights)
    return (form or _cheapest_form(phases)).of(phases)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Identity:
    """W = I: no messages and no computation."""

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
        every = np.arange(agents_of(phases[0]))
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
        return cls(_device(index, jnp.int32), _device(weight))

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

        def term(weight, index):
            return _along(weight, leaf) * _rows(leaf, index)

        def column(of, k):
            return jax.lax.index_in_dim(of, k, axis=1, keepdims=False)

        slots = index.shape[1]
        first = [term(column(weight, k), column(index, k)) for k in range(min(slots, UNROLLED))]
        total = functools.reduce(operator.add, first)
        if slots <= UNROLLED:
            return total
        return jax.lax.fori_loop(
            UNROLLED, slots, lambda k, total: total + term(weight[:, k], index[:, k]), total
        )


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
        agents = agents_of(phases[0])
        chunk = min(max(agents // 8, 8), 1024)
        chunks = max(-(-max(W.nnz for W in phases) // chunk), 1)
        parts = [[part.reshape(chunks, chunk) for part in _padded_edges(W, chunks * chunk)] for W in phases]
        receiver, sender, weight = (np.stack(part) for part in zip(*parts, strict=True))
        return cls(_device(receiver, jnp.int32), _device(sender, jnp.int32), _device(weight), agents)

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


def _is_identity(phases: Sequence[csr_array]) -> bool:
    return all(sparse(W - eye_array(agents_of(W))).nnz == 0 for W in phases)


def _common_shifts(phases: Sequence[csr_array]) -> tuple[int, ...] | None:
    """The distances i - j at which every agent, in every phase, has a weight; None if some have others."""
    shifts = None
    for W in phases:
        entries = coo_array(W)
        found = np.unique((entries.row - entries.col) % agents_of(W))
        if W.nnz != len(found) * agents_of(W) or (shifts is not None and not np.array_equal(found, shifts)):
            return None
        shifts = found
    return None if shifts is None else tuple(shifts.tolist())


def _largest_neighbourhood(phases: Sequence[csr_array]) -> int:
    return int(max(np.diff(W.indptr).max() for W in phases))


def _cheapest_form(phases: Sequence[csr_array]) -> "type[Mixer]":
    if _is_identity(phases):
        return Identity
    agents = agents_of(phases[0])
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


def _device(values: Any, dtype: Any = None) -> Array:
    # Converted by numpy and put there: ``jnp.asarray`` would compile a program.
    return jax.device_put(np.asarray(values).astype(dtype or jnp.result_type(float)))


def _along(weights: Float[Array, " row"], leaf: Float[Array, "..."]) -> Float[Array, "row ..."]:
    return weights.astype(leaf.dtype).reshape(weights.shape + (1,) * (leaf.ndim - 1))


def _rows(leaf: Float[Array, "..."], index: Int[Array, " row"]) -> Float[Array, "..."]:
    # Not ``leaf.at[index]``, which takes many times as long to trace and makes room for negative indices.
    rows = jax.lax.GatherDimensionNumbers(tuple(range(1, leaf.ndim)), (0,), (0,))
    sizes = (1, *leaf.shape[1:])
    return jax.lax.gather(leaf, index[:, None], rows, sizes, mode="promise_in_bounds")


def _checked(leaf: Array, agents: int) -> Array:
    """Gathers promise to stay in bounds, so a leaf of another length must never reach them."""
    if leaf.ndim == 0 or leaf.shape[0] != agents or not jnp.issubdtype(leaf.dtype, jnp.floating):
        found = f"{leaf.dtype}{list(leaf.shape)}"
        raise TypeError(f"a leaf is {found}; mixing needs floats whose first axis is the {agents} agents")
    return leaf
