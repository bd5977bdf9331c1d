"""The directed edges of a topology and the weights on them, as arrays; nothing here fails or delays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from gossamer.errors import InputError

Matrix: TypeAlias = Any  # [agent, agent]: a numpy array or a scipy sparse one


@dataclass(frozen=True, eq=False)
class Links:
    """Edges of all phases, sorted by receiver and then sender, without self loops.

    ``weight[p, e]`` is W[receiver[e], sender[e]] of phase p, 0 where that phase lacks the edge, and ``own[p, i]``
    is W[i, i]. An agent whose version is v ≥ 1, having adapted v times, is in phase (v - 1) mod period: its first
    combination uses phase 0, as round 0 of ``mixing.mix`` does.

    Example:
        >>> links = Links.of((np.array([[0.5, 0.5], [0.0, 1.0]]),))
        >>> links.receiver.tolist(), links.sender.tolist(), links.weight.tolist(), links.own.tolist()
        ([0], [1], [[0.5]], [[0.5, 1.0]])
    """

    receiver: Int[np.ndarray, " edge"]
    sender: Int[np.ndarray, " edge"]
    weight: Float[np.ndarray, "phase edge"]
    own: Float[np.ndarray, "phase agent"]

    @classmethod
    def of(cls, weights: Sequence[Matrix]) -> "Links":
        """The edges of the weights that ``mixing.weigh`` gives, one matrix [agent, agent] per phase.

        Raises:
            InputError: no matrix, or matrices that are not square and of one shape.
        """
        from scipy.sparse import coo_array

        agents = _common_agents(weights)
        phases = [coo_array(W) for W in weights]
        for entries in phases:
            entries.eliminate_zeros()
        codes = [entries.row.astype(np.int64) * agents + entries.col for entries in phases]
        receiver, sender = np.divmod(np.unique(np.concatenate(codes)), agents)
        edges = receiver != sender
        receiver, sender = receiver[edges], sender[edges]
        weight, own = np.zeros((len(phases), len(receiver))), np.zeros((len(phases), agents))
        for phase, (entries, code) in enumerate(zip(phases, codes, strict=True)):
            loops = entries.row == entries.col
            own[phase, entries.row[loops]] = entries.data[loops]
            weight[phase, np.searchsorted(receiver * agents + sender, code[~loops])] = entries.data[~loops]
        return cls(receiver, sender, weight, own)

    @property
    def agents(self) -> int:
        """Number of agents."""
        return self.own.shape[1]

    @property
    def edges(self) -> int:
        """Number of directed edges."""
        return len(self.receiver)

    @property
    def period(self) -> int:
        """Number of phases."""
        return len(self.own)


def _common_agents(weights: Sequence[Matrix]) -> int:
    shapes = sorted({np.shape(W) for W in weights})
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][0] != shapes[0][1] or not shapes[0][0]:
        found = ", ".join(map(str, shapes)) or "none"
        raise InputError(
            f"weights have the shapes {found}; give one square matrix, [agent, agent], per phase"
        )
    return shapes[0][0]
