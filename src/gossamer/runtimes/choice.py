"""Which runtime advances an experiment's population."""

from gossamer.experiment import Experiment, on_host
from gossamer.runtimes.build import Parts
from gossamer.runtimes.lockstep import HostRuntime, VectorisedRuntime
from gossamer.runtimes.protocol import Runtime
from gossamer.runtimes.threads import ThreadsRuntime


def runtime_of(experiment: Experiment, parts: Parts) -> Runtime:
    """The runtime that an experiment calls for by name and by its environment."""
    if experiment.runtime != "vectorised":
        return ThreadsRuntime(experiment, parts)
    return (HostRuntime if on_host(parts.environment) else VectorisedRuntime)(experiment, parts)
