"""What moves a population on: all agents together, or each in its own time."""

from gossamer.engines.lockstep import DeviceEngine, HostEngine
from gossamer.engines.protocol import Engine, Report, Resume, Traffic
from gossamer.engines.threads import ThreadsEngine
from gossamer.experiment import Experiment, on_host
from gossamer.parts import Parts

__all__ = [
    "DeviceEngine",
    "Engine",
    "HostEngine",
    "Report",
    "Resume",
    "ThreadsEngine",
    "Traffic",
    "engine_of",
]


def engine_of(experiment: Experiment, parts: Parts) -> Engine:
    """The engine that an experiment calls for by its runtime and its environment."""
    if experiment.runtime != "vectorised":
        return ThreadsEngine(experiment, parts)
    return (HostEngine if on_host(parts.environment) else DeviceEngine)(experiment, parts)
