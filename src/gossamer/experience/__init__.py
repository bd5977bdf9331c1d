"""How an agent collects what it learns from."""

from gossamer.experience.device import Episodes, Steps

__all__ = ["Episodes", "Steps"]
