"""Fully decentralised deep reinforcement learning: agents that combine only with their neighbours on a graph.

Names are imported when they are first used (PEP 562): ``import gossamer`` alone loads neither jax nor scipy.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gossamer.catalogue import PUBLIC

if TYPE_CHECKING:
    from gossamer.algorithms.a2c import A2C
    from gossamer.algorithms.dist_mtps import DistMTPS
    from gossamer.algorithms.impala import Impala
    from gossamer.algorithms.reinforce import Reinforce
    from gossamer.algorithms.siac import SiAC
    from gossamer.analysis import plot
    from gossamer.environments.acrobot import Acrobot
    from gossamer.environments.atari import Atari
    from gossamer.environments.cartpole import CartPoleBalance, CartPoleSwingUp
    from gossamer.environments.gymnasium import GymnasiumEnvironment
    from gossamer.environments.hopper import HopperMass, HopperWind
    from gossamer.environments.pendulum import Pendulum
    from gossamer.errors import InputError
    from gossamer.evaluation.evaluate import Evaluation, evaluate
    from gossamer.evaluation.policy import Policy, load_policy
    from gossamer.experience.ahead import Unrolls
    from gossamer.experience.device import Episodes, Steps
    from gossamer.experiment import Experiment
    from gossamer.runs.log import NonFiniteParameters
    from gossamer.runtimes.build import build
    from gossamer.schedules.adaptive_timeout import AdaptiveTimeout
    from gossamer.schedules.durations import Constant, Exponential, Integers, Lognormal, Uniform
    from gossamer.schedules.schedule import Schedule
    from gossamer.system.signals import Interrupted
    from gossamer.train import resume, train
    from gossamer.types import Box, Discrete, Frames, Spaces

    __version__: str

__all__ = [
    "A2C",
    "Acrobot",
    "AdaptiveTimeout",
    "Atari",
    "Box",
    "CartPoleBalance",
    "CartPoleSwingUp",
    "Constant",
    "Discrete",
    "DistMTPS",
    "Episodes",
    "Evaluation",
    "Experiment",
    "Exponential",
    "Frames",
    "GymnasiumEnvironment",
    "HopperMass",
    "HopperWind",
    "Impala",
    "InputError",
    "Integers",
    "Interrupted",
    "Lognormal",
    "NonFiniteParameters",
    "Pendulum",
    "Policy",
    "Reinforce",
    "Schedule",
    "SiAC",
    "Spaces",
    "Steps",
    "Uniform",
    "Unrolls",
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
    elif name in PUBLIC:
        value = getattr(import_module(PUBLIC[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package, whose ``train`` and ``evaluate`` are functions although submodules have the same names.

    The import system sets a submodule as an attribute of its package once it is loaded, whichever module imports it.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
