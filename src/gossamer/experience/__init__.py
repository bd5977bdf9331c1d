"""How an agent collects what it learns from."""

from gossamer.experience.ahead import Unrolls
from gossamer.experience.device import Episodes, Steps

__all__ = ["Episodes", "Steps", "Unrolls"]
