"""Fully decentralised deep reinforcement learning: agents that combine only with their neighbours on a graph.

Names are imported when they are first used (PEP 562): ``import gossamer`` alone loads neither jax nor scipy.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gossamer.analysis import plot
    from gossamer.errors import InputError
    from gossamer.evaluate import Evaluation, evaluate
    from gossamer.experiment import Experiment
    from gossamer.parts import build
    from gossamer.policy import Policy, load_policy
    from gossamer.recording import NonFiniteParameters
    from gossamer.stopping import Interrupted
    from gossamer.train import resume, train

    __version__: str

_MODULES = {
    "Evaluation": "gossamer.evaluate",
    "Experiment": "gossamer.experiment",
    "InputError": "gossamer.errors",
    "Interrupted": "gossamer.stopping",
    "NonFiniteParameters": "gossamer.recording",
    "Policy": "gossamer.policy",
    "build": "gossamer.parts",
    "evaluate": "gossamer.evaluate",
    "load_policy": "gossamer.policy",
    "plot": "gossamer.analysis",
    "resume": "gossamer.train",
    "train": "gossamer.train",
}

__all__ = [
    "Evaluation",
    "Experiment",
    "InputError",
    "Interrupted",
    "NonFiniteParameters",
    "Policy",
    "__version__",
    "build",
    "evaluate",
    "load_policy",
    "plot",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used; later uses find it in the module."""
    if name == "__version__":
        from importlib.metadata import version

        value = version("gossamer")
    elif name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package, whose ``train`` and ``evaluate`` are functions although submodules have the same names.

    The import system sets a submodule as an attribute of its package once it is loaded, whoever imports it.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _MODULES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
