"""Launches on Ray, new and resumed."""

from dataclasses import asdict, replace
from pathlib import Path

from gossamer.errors import InputError
from gossamer.experiment import Experiment
from gossamer.fleet.cluster.connection import connected, require_room
from gossamer.fleet.cluster.driver import Driver
from gossamer.fleet.cluster.place import Cluster
from gossamer.fleet.launch import KEYS, Launch, create_launch, launchable, load_launch
from gossamer.keys import create_authority, issue
from gossamer.progress import Reporter, Silent
from gossamer.records import read_config, replace_config


def launch_on_ray(
    experiment: Experiment,
    out: Path,
    how: Launch | None = None,
    place: Cluster | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Run a population whose agents are placed on a cluster by Ray, in a new folder.

    All nodes need this version of gossamer, with the extra ``ray``. The driver does not learn or carry messages, but
    agents end with it; ``resume_on_ray`` goes on from the checkpoints that it holds. Certificates, checkpoints and
    metrics go over Ray's own connections, which are as safe as the cluster is.

    Args:
        experiment: what to run; its runtime becomes ``network``. Files that it names must be on every node.
        out: a folder that is new or empty. What agents write is copied into it; at the end all are gathered.
        how: how agents talk, and how often they are begun again.
        place: which Ray, and what each agent gets.
        reporter: shows progress; nothing is shown by default.

    Returns:
        ``out``.

    Raises:
        InputError: no ray, no such cluster, one without room for all agents, plaintext between nodes that was not asked
            for, or an experiment or a folder that does not do; nothing is written then.
        Interrupted: it was asked to stop; all agents have saved themselves, and that was copied.
        AgentsFailed: agents died more often than they are begun again; the others went on to their end.
    """
    how, place = how or Launch(), place or Cluster()
    if how.tls and place.insecure:
        raise InputError("insecure is for agents without certificates; leave it out, or tls")
    experiment, _ = launchable(experiment)
    with connected(place) as cluster:
        require_room(cluster, experiment.agents, how, place)
        fleet = create_launch(experiment, out, how, cluster=asdict(place))
        if how.tls:
            create_authority(out / KEYS, fleet.run)
            for observer in fleet.observers:
                issue(out / KEYS, observer)
        return Driver(cluster, experiment, fleet, how, place, out).run(reporter or Silent())


def resume_on_ray(out: Path, reporter: Reporter | None = None, address: str | None = None) -> Path:
    """Go on with a launch on Ray, each agent from the newest checkpoint that was copied.

    Args:
        out: the folder of the launch.
        reporter: shows progress; nothing is shown by default.
        address: of the Ray to use, if it is another than before; the next resumption uses it too.

    Raises:
        InputError: the folder holds no launch on Ray, or as ``launch_on_ray``.
        Interrupted, AgentsFailed: as ``launch_on_ray``.
    """
    experiment, fleet, how = load_launch(out)
    config = read_config(out)
    if "cluster" not in config:
        raise InputError(f"{out} was not launched on Ray; give a folder of gossamer launch --runtime ray")
    place = Cluster(**config["cluster"])
    if address is not None:
        place = replace(place, address=address)
    with connected(place) as cluster:
        require_room(cluster, experiment.agents, how, place)
        replace_config(out, {**config, "cluster": asdict(place)})
        return Driver(cluster, experiment, fleet, how, place, out).run(reporter or Silent())
