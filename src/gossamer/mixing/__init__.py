"""How much to believe whom: weight matrices over a topology, what they promise, and the mean they make.

``W[i, j]`` is the weight agent i gives to agent j; rows sum to one. Weights are sparse float64 on the host,
one matrix per phase; ``plan`` lays them out for the device. Lost or stale messages are not here.
"""

from gossamer.mixing.explicit import from_matrix, read_matrix
from gossamer.mixing.forms import (
    Circulant,
    Dense,
    EdgeList,
    Identity,
    Mixer,
    Neighbours,
    average,
    mix,
    plan,
)
from gossamer.mixing.matrices import SUM_TOLERANCE, Matrix
from gossamer.mixing.properties import (
    is_column_stochastic,
    is_doubly_stochastic,
    is_primitive,
    is_row_stochastic,
    is_strongly_connected,
)
from gossamer.mixing.rates import consensus_rate, spectral_gap
from gossamer.mixing.rules import (
    RULES,
    Rule,
    laplacian,
    lazy,
    metropolis_hastings,
    named_rule,
    uniform,
    weigh,
)

__all__ = [
    "RULES",
    "SUM_TOLERANCE",
    "Circulant",
    "Dense",
    "EdgeList",
    "Identity",
    "Matrix",
    "Mixer",
    "Neighbours",
    "Rule",
    "average",
    "consensus_rate",
    "from_matrix",
    "is_column_stochastic",
    "is_doubly_stochastic",
    "is_primitive",
    "is_row_stochastic",
    "is_strongly_connected",
    "laplacian",
    "lazy",
    "metropolis_hastings",
    "mix",
    "named_rule",
    "plan",
    "read_matrix",
    "spectral_gap",
    "uniform",
    "weigh",
]
