"""What an agent learns with: the contract, and the algorithms under it."""

from gossamer.algorithms.a2c import A2C
from gossamer.algorithms.dist_mtps import DistMTPS
from gossamer.algorithms.impala import Impala
from gossamer.algorithms.protocol import (
    Algorithm,
    Averaging,
    Cyclic,
    GradientAlgorithm,
    Recurrent,
    acting,
    combine,
    descend,
    initial_carry,
)
from gossamer.algorithms.reinforce import Reinforce
from gossamer.algorithms.siac import SiAC

__all__ = [
    "A2C",
    "Algorithm",
    "Averaging",
    "Cyclic",
    "DistMTPS",
    "GradientAlgorithm",
    "Impala",
    "Recurrent",
    "Reinforce",
    "SiAC",
    "acting",
    "combine",
    "descend",
    "initial_carry",
]
