"""How an agent collects what it learns from."""

from gossamer.experience.device import Episodes

__all__ = ["Episodes"]
