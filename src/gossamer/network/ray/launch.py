"""Launches on Ray, new and resumed."""

from dataclasses import asdict, replace
from pathlib import Path

from gossamer.errors import InputError
from gossamer.experiment import Experiment
from gossamer.network.credentials import create_authority, issue
from gossamer.network.launcher import KEYS, Launch, create_launch, is_on_ray, launchable, prepare_resume
from gossamer.network.ray.connection import connected, require_room
from gossamer.network.ray.driver import Driver
from gossamer.network.ray.place import Cluster
from gossamer.runs.folder import read_config, replace_config
from gossamer.runs.progress import Reporter, Silent


def launch_on_ray(
    experiment: Experiment,
    out: Path,
    how: Launch | None = None,
    place: Cluster | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Run a population whose agents are placed on a cluster by Ray, in a new folder.

    All nodes need this version of gossamer, with the extra ``ray``. The driver does not learn or carry messages, but
    agents end with it; ``resume_on_ray`` resumes from the checkpoints that it holds. Certificates, checkpoints and
    metrics go over Ray's own connections, which are as safe as the cluster is.

    Args:
        experiment: what to run; its runtime becomes ``network``. Files that it names must be on every node.
        out: a folder that is new or empty. What agents write is copied into it; at the end all are gathered.
        how: how agents talk, and how often they are restarted.
        place: which Ray, and what each agent gets.
        reporter: shows progress; nothing is shown by default.

    Returns:
        ``out``.

    Raises:
        InputError: no ray, no such cluster, one without room for all agents, plaintext between nodes that was not asked
            for, an invalid experiment, or a folder that is not empty. Nothing is written.
        Interrupted: it was asked to stop; all agents have saved themselves, and that was copied.
        AgentsFailed: agents died more often than they are restarted; the others ran to their end.
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


def resume_on_ray(
    out: Path, rounds: int | None = None, reporter: Reporter | None = None, address: str | None = None
) -> Path:
    """Resume a launch on Ray, each agent from the newest checkpoint that was copied.

    Args:
        out: the folder of the launch.
        rounds: a new total number of rounds.
        reporter: shows progress; nothing is shown by default.
        address: of the Ray to use, if it is another than before; the next resumption uses it too.

    Raises:
        InputError: the folder holds no launch on Ray, or as ``launch_on_ray``.
        Interrupted, AgentsFailed: as ``launch_on_ray``.
    """
    if not is_on_ray(out):
        raise InputError(f"{out} was not launched on Ray; give a folder of gossamer launch --runtime ray")
    experiment, fleet, how = prepare_resume(out, rounds)
    config = read_config(out)
    place = Cluster(**config["cluster"])
    if address is not None:
        place = replace(place, address=address)
    with connected(place) as cluster:
        require_room(cluster, experiment.agents, how, place)
        replace_config(out, {**config, "cluster": asdict(place)})
        return Driver(cluster, experiment, fleet, how, place, out).run(reporter or Silent())
