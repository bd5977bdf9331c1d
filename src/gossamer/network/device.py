"""One agent on a device of its own, from what its owner says: a name, a file of the fleet, addresses, certificates."""

from dataclasses import dataclass, replace
from pathlib import Path

from gossamer.errors import InputError
from gossamer.experiment import Experiment
from gossamer.network.agent import run_member
from gossamer.network.compression import Compression
from gossamer.network.membership import Beginning, Fleet, Membership, default_names, read_fleet
from gossamer.runs.progress import Reporter
from gossamer.runtimes.build import build
from gossamer.system.signals import stop_requests


@dataclass(frozen=True)
class Device:
    """One agent, and how it is reached."""

    name: str
    """Name of the agent, one of the fleet's."""
    fleet: Path | None = None
    """TOML file of the fleet: title, [agents] with an address for each name, observers. By default agents are agent-0,
    agent-1, ... of a fleet whose title is the recipe's environment, found by --connect."""
    listen: tuple[str, ...] = ()
    """Where it listens, as tls/0.0.0.0:7447; by default its address in the fleet's file."""
    connect: tuple[str, ...] = ()
    """Where it finds others, besides its neighbours' addresses in the fleet's file."""
    keys: Path | None = None
    """Folder with authority.pem, NAME.pem and NAME.key, from gossamer keys; without it plaintext on this machine."""
    insecure: bool = False
    """Whether plaintext may leave this machine: anybody can read and forge it."""
    compression: Compression = "none"
    """How messages are written, the same for all agents: none, float16, bfloat16 or int8."""
    begins_with: Beginning = "newest"
    """What it begins with: its own checkpoint, the newest of that and its neighbours' parameters, or theirs."""


def be_agent(experiment: Experiment, device: Device, out: Path, reporter: Reporter | None = None) -> Path:
    """Be one agent until its last round, or until it is asked to stop.

    Args:
        experiment: that of the whole fleet, the same on every device.
        device: which agent this is.
        out: its folder, new or of an earlier part of its life.
        reporter: shows progress.

    Returns:
        ``out``.

    Raises:
        InputError: An argument is invalid. Nothing is written.
        Interrupted: it was asked to stop, and has saved itself.
        Replaced: another process speaks for the agent now.
    """
    experiment = replace(experiment, runtime="network")
    if experiment.seeds != 1:
        raise InputError(
            f"seeds is {experiment.seeds}; an agent is part of one seed, give seeds 1 and a seed"
        )
    membership = membership_of(device, experiment)
    with stop_requests() as stop:
        return run_member(experiment, membership, out, stop, reporter)


def membership_of(device: Device, experiment: Experiment) -> Membership:
    """An agent's place in its fleet, with the addresses of its neighbours.

    Raises:
        InputError: an unknown name, or neither an address to listen at nor one to connect to.
    """
    fleet = _fleet_of(device, experiment)
    fleet.require_agents(experiment.agents)
    near = fleet.neighbours(build(experiment).links, device.name)
    known = tuple(fleet.addresses[name] for name in near if name in fleet.addresses)
    own = fleet.addresses.get(device.name)
    listen = device.listen or ((own,) if own else ())
    connect = (*known, *(each for each in device.connect if each not in known))
    if near and not listen and not connect:
        raise InputError(
            f"{device.name} neither listens nor connects; give --fleet with addresses, --listen or --connect"
        )
    return Membership(
        fleet,
        device.name,
        listen,
        connect,
        keys=None if device.keys is None else str(device.keys.absolute()),
        insecure=device.insecure,
        compression=device.compression,
        begins_with=device.begins_with,
    )


def _fleet_of(device: Device, experiment: Experiment) -> Fleet:
    if device.fleet is not None:
        return read_fleet(device.fleet)
    return Fleet.named(type(experiment.environment).__name__, default_names(experiment.agents))
