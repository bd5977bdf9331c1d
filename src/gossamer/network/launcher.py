"""Run all agents of a population as processes of this machine: start, watch and restart them, then merge their folders.

The launcher is not a centre: agents talk only to each other, and continue without it if it leaves them running.
"""

import logging
import multiprocessing
import os
import secrets
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from gossamer.errors import InputError, require_at_least
from gossamer.experiment import Experiment
from gossamer.network.agent import run_member
from gossamer.network.agent_runtime import Replaced
from gossamer.network.compression import Compression
from gossamer.network.credentials import create_authority, issue, require_cryptography
from gossamer.network.membership import Fleet, Membership, default_names
from gossamer.network.merge import gather
from gossamer.runs import checkpoints
from gossamer.runs.description import load_experiment
from gossamer.runs.folder import create_run, provenance, read_config, read_last_row, replace_config
from gossamer.runs.lock import claimed
from gossamer.runs.log import has_begun
from gossamer.runs.progress import Reporter, Silent, Status
from gossamer.runs.serialization import to_data
from gossamer.runtimes.build import Parts, build, require_memory, with_absolute_paths
from gossamer.schedules import Links
from gossamer.system.processes import available_cores, become_worker, environment_variables
from gossamer.system.signals import Interrupted, Stop, Unfinished, stop_requests

_log = logging.getLogger(__name__)

OBSERVER = "observer-status"


@dataclass(frozen=True)
class Launch:
    """How processes are begun and looked after.

    Raises:
        InputError: a negative number of restarts.
    """

    compression: Compression = "none"
    """How messages are written: none, float16, bfloat16 or int8, the latter with error feedback."""
    tls: bool = False
    """Whether agents talk by mutual TLS, with certificates made for this run."""
    restarts: int = 3
    """How often an agent that died is restarted."""

    def __post_init__(self) -> None:
        require_at_least("restarts", self.restarts, 0)


def launch(
    experiment: Experiment, out: Path, how: Launch | None = None, reporter: Reporter | None = None
) -> Path:
    """Run a population whose agents are processes, in a new folder.

    Args:
        experiment: what to run; its runtime becomes ``network``.
        out: a folder that is new or empty. Each agent has one of its own in it; at the end all are gathered.
        how: how processes are begun and looked after.
        reporter: shows progress; nothing is shown by default.

    Returns:
        ``out``.

    Raises:
        InputError: The experiment is invalid, or ``out`` is not an empty directory. Nothing is written.
        Interrupted: it was asked to stop; agents have saved themselves, or in step are saved as of a common checkpoint.
        AgentsFailed: agents died more often than they are restarted; the others ran to their end.
    """
    (experiment, parts), how = launchable(experiment), how or Launch()
    require_memory(experiment, parts)  # all of them will be here
    fleet = create_launch(experiment, out, how)
    if how.tls:
        issue_all(out, fleet)
    return _supervise(experiment, fleet, how, out, reporter or Silent())


def launchable(experiment: Experiment) -> tuple[Experiment, Parts]:
    """An experiment whose agents will be processes, and what it is made of.

    Raises:
        InputError: The experiment is invalid.
    """
    experiment = replace(with_absolute_paths(experiment), runtime="network")
    if experiment.seeds != 1:
        raise InputError(
            f"seeds is {experiment.seeds}; a launch runs one seed at a time, give seeds 1 and a seed"
        )
    return experiment, build(experiment)


def create_launch(experiment: Experiment, out: Path, how: Launch, **more: Any) -> Fleet:
    """The folder of a new launch, with the run and the names of its agents.

    Args:
        experiment: a ``launchable`` one.
        out: a folder that is new or empty.
        how: what all agents have in common.
        more: what else its configuration says.

    Raises:
        InputError: The folder is not an empty directory.
    """
    if how.tls:
        require_cryptography()  # before anything is written
    names = default_names(experiment.agents)
    observers = (OBSERVER,) if how.tls else ()
    fleet = Fleet(secrets.token_hex(16), names, observers=observers)
    create_run(
        out,
        {
            "experiment": to_data(experiment),
            "fleet": {"run": fleet.run, "names": list(names), "observers": list(observers)},
            "launch": asdict(how),
            **more,
            "resume": "learner-exact",
            "provenance": provenance(),
        },
    )
    return fleet


def issue_all(out: Path, fleet: Fleet) -> None:
    """An authority for one run on this machine, and the certificates of all agents and observers."""
    create_authority(out / KEYS, fleet.run)
    for name in (*fleet.names, *fleet.observers):
        issue(out / KEYS, name)


def resume_launch(out: Path, rounds: int | None = None, reporter: Reporter | None = None) -> Path:
    """Resume a launch whose processes have ended, each agent from its newest checkpoint.

    Args:
        out: the folder of a launch on this machine.
        rounds: a new total number of rounds.
        reporter: shows progress; nothing is shown by default.

    Raises:
        InputError: the folder holds no launch, or one on Ray; its agents have run more rounds already, or one of them
            has lost its checkpoints.
        Interrupted, AgentsFailed: as ``launch``.
    """
    if is_on_ray(out):
        raise InputError(
            f"{out} was launched on Ray; resume it with resume_on_ray or gossamer launch --resume"
        )
    experiment, fleet, how = prepare_resume(out, rounds)
    return _supervise(experiment, fleet, how, out, reporter or Silent())


def is_on_ray(out: Path) -> bool:
    """Whether a launch ran on a Ray cluster.

    Raises:
        InputError: the folder holds no run.
    """
    return "cluster" in read_config(out)


def prepare_resume(out: Path, rounds: int | None = None) -> tuple[Experiment, Fleet, Launch]:
    """What a launch is resumed with, after all that could be refused later has been checked.

    Args:
        out: the folder of the launch.
        rounds: a new total number of rounds, written to the folder.

    Raises:
        InputError: the folder holds no launch, its agents have run more rounds already, or one of them has lost its
            checkpoints.
    """
    experiment, fleet, how = load_launch(out)
    for name in fleet.names:
        has_begun(agent_folder(out, name))  # refuses what an agent would refuse, before any is begun
    if rounds is not None:
        with claimed(out):
            _require_no_fewer(rounds, fleet, out)
            experiment = replace(experiment, rounds=rounds)
            replace_config(out, {**read_config(out), "experiment": to_data(experiment)})
    return experiment, fleet, how


def _require_no_fewer(rounds: int, fleet: Fleet, out: Path) -> None:
    """Refuse to end a launch before where its agents stand."""
    stores = [agent_folder(out, name) / "checkpoints" for name in fleet.names]
    done = max((number for store in stores for number in checkpoints.rounds(store)), default=0)
    if rounds < done:
        raise InputError(f"rounds is {rounds}; agents of {out} have run {done} already: give as many or more")


def load_launch(out: Path) -> tuple[Experiment, Fleet, Launch]:
    """What a folder was launched with.

    Raises:
        InputError: the folder holds no launch.
    """
    config = read_config(out)
    if "fleet" not in config:
        raise InputError(f"{out} holds no launch; give a folder that gossamer launch wrote")
    fleet = config["fleet"]
    return (
        load_experiment(out),
        Fleet(
            fleet["run"],
            tuple(fleet["names"]),
            addresses=fleet.get("addresses", {}),
            observers=tuple(fleet["observers"]),
        ),
        Launch(**config["launch"]),
    )


def agent_folder(out: Path, name: str) -> Path:
    """Where an agent of a launch writes."""
    return out / "agents" / name


def output_of(out: Path, name: str) -> Path:
    """What an agent's process has said."""
    return out / "agents" / f"{name}.log"


class AgentsFailed(Unfinished):
    """Agents died more often than they are restarted; the message names them and what they wrote last."""


@dataclass
class _Running:
    """One agent's process, and how often it was begun."""

    name: str
    process: BaseProcess | None = None
    begun: int = 0
    failed: bool = False
    finished: bool = False


@dataclass
class Supervisor:
    """Begins agents' processes on this machine, and knows which of them live.

    Args:
        experiment: of the whole population.
        fleet: names and addresses.
        how: what all agents have in common.
        out: the run's folder.
        through: by which address one agent reaches another, by their names, where that is not the other's own.
    """

    experiment: Experiment
    fleet: Fleet
    how: Launch
    out: Path
    through: Mapping[tuple[str, str], str] = field(default_factory=dict)
    _cores: list[int] = field(default_factory=available_cores)

    @cached_property
    def _links(self) -> Links:
        return build(self.experiment).links

    def begin(self, name: str, begins_with: Any) -> BaseProcess:
        """A process for one agent."""
        number = self.fleet.number(name)
        membership = Membership(
            self.fleet,
            name,
            (self.fleet.addresses[name],),
            tuple(
                self.through.get((name, each), self.fleet.addresses[each]) for each in self.connects_to(name)
            ),
            keys=str(self.out / KEYS) if self.how.tls else None,
            compression=self.how.compression,
            begins_with=begins_with,
        )
        process = multiprocessing.get_context("spawn").Process(
            target=_be_agent,
            args=(
                self.experiment,
                membership,
                agent_folder(self.out, name),
                self._cores[number % len(self._cores)],
            ),
            name=name,
        )
        with environment_variables(**_light_variables()):
            process.start()
        return process

    def connects_to(self, name: str) -> tuple[str, ...]:
        """The neighbours that an agent connects to; the others connect to it."""
        # Who begins again must be found by those that are there, and find them: of two neighbours one connects, and
        # keeps trying. Either would do; the later number finds the earlier there more often.
        near = self.fleet.neighbours(self._links, name)
        return tuple(each for each in near if self.fleet.number(each) < self.fleet.number(name))


def _supervise(experiment: Experiment, fleet: Fleet, how: Launch, out: Path, reporter: Reporter) -> Path:
    fleet = replace(fleet, addresses=local_addresses(fleet.names, how.tls))
    agents = [_Running(name) for name in fleet.names]
    with claimed(out), stop_requests() as stop, reporter:
        reporter.begin(f"starting {len(agents)} agents, each of which compiles its round")
        write_addresses(out, fleet)
        if experiment.schedule.in_step:
            back_to_common_round([agent_folder(out, name) for name in fleet.names])
        supervisor = Supervisor(experiment, fleet, how, out)
        lost: list[str] = []
        try:
            for each in agents:
                each.process, each.begun = supervisor.begin(each.name, "own"), 1
            folders = [agent_folder(out, name) for name in fleet.names]
            _watch(agents, supervisor, stop, Progress(reporter, experiment, folders).show)
        finally:
            lost += _end_all(agents)
    if stop:
        raise Interrupted(stopped(out, lost) + gather_saved(out, fleet))
    failed = [each.name for each in agents if each.failed]
    if failed:
        raise AgentsFailed(
            f"{', '.join(failed)} died {how.restarts + 1} times; what they said is in "
            f"{output_of(out, failed[0])}, and gossamer launch --resume {out} begins them again"
        )
    gather([agent_folder(out, name) for name in fleet.names], out)
    return out


def gather_saved(out: Path, fleet: Fleet) -> str:
    """Put together what a launch that was stopped has so far; what there is to say if that cannot be."""
    try:
        gather([agent_folder(out, name) for name in fleet.names], out)
    except (
        Exception,
        KeyboardInterrupt,
    ) as error:  # whatever happens here, the user must learn how to resume
        return f" (not gathered: {str(error) or type(error).__name__})"
    return ""


def stopped(out: Path, lost: Sequence[str]) -> str:
    """What is said of a launch that was asked to stop.

    In step, agents save themselves at common rounds only, and so none has saved itself because it was asked.

    Args:
        out: its folder.
        lost: the agents that were killed before they had ended.

    Example:
        >>> import tempfile
        >>> from gossamer.recipes import cartpole_balance
        >>> from gossamer.schedules import Schedule
        >>> out = Path(tempfile.mkdtemp())
        >>> for name, staleness in (("in-step", 0), ("free", None)):
        ...     schedule = Schedule("most_recent", staleness)
        ...     _ = create_launch(replace(cartpole_balance(), schedule=schedule), out / name, Launch())
        ...     print(stopped(out / name, ["ada"]))
        stopped, each agent is saved as of its last checkpoint; resume with: gossamer launch --resume /.../in-step
        stopped, all agents have saved themselves but ada, of which an earlier checkpoint is kept; resume with: ...
    """
    again = f"resume with: gossamer launch --resume {out}"
    experiment, _, _ = load_launch(out)
    if experiment.schedule.in_step:
        return f"stopped, each agent is saved as of its last checkpoint; {again}"
    but = f" but {', '.join(lost)}, of which an earlier checkpoint is kept" if lost else ""
    return f"stopped, all agents have saved themselves{but}; {again}"


def back_to_common_round(folders: Sequence[Path]) -> None:
    """In lockstep agents must resume from one round: the newest of which all have a checkpoint, or the beginning.

    Args:
        folders: of all agents, of which none has metrics without a checkpoint.
    """
    stores = [folder / "checkpoints" for folder in folders]
    saved = [set(checkpoints.rounds(store)) for store in stores]
    common = max(set.intersection(*saved), default=None)
    for store in stores:
        checkpoints.forget_after(store, -1 if common is None else common)
    if common is None and any(saved):
        _log.warning("agents share no checkpoint; all begin again")
        for folder in folders:
            # Without a checkpoint they would be refused.
            (folder / "metrics.jsonl").unlink(missing_ok=True)


def _watch(agents: Sequence[_Running], supervisor: Supervisor, stop: Stop, show: Callable[[], None]) -> None:
    """Wait until every process has ended; restart one that died as often as that is allowed."""
    while living := [each for each in agents if each.process is not None]:
        wait([each.process.sentinel for each in living if each.process is not None], timeout=_LOOK_AGAIN)
        show()
        if stop:
            return
        for each in living:
            assert each.process is not None
            if each.process.is_alive():
                continue
            code, each.process = each.process.exitcode, None
            if code == 0:
                each.finished = True
            elif each.begun > supervisor.how.restarts:
                each.failed = True
                _log.error("%s died (exit status %s) and is not restarted", each.name, code)
            else:
                _log.warning("%s died (exit status %s) and is restarted", each.name, code)
                each.process, each.begun = supervisor.begin(each.name, "newest"), each.begun + 1


def _end_all(agents: Sequence[_Running]) -> list[str]:
    """Ask every process to save itself, and wait until it has; who did not."""
    lost: list[str] = []
    processes = [each.process for each in agents if each.process is not None]
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(SAVE_SECONDS)
        if process.is_alive():
            _log.error("%s did not end in %g s and is killed", process.name, SAVE_SECONDS)
            process.kill()
            process.join()
            lost.append(process.name)
    return lost


def _be_agent(experiment: Experiment, membership: Membership, folder: Path, core: int) -> None:
    """The life of one process."""
    become_worker(core)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with stop_requests() as stop:
        _write_output_to(folder.parent / f"{membership.name}.log")
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        try:
            run_member(experiment, membership, folder, stop)
        except (Interrupted, Replaced) as end:
            logging.getLogger(__name__).info("%s", end)
            sys.exit(130)
        except (Unfinished, InputError) as end:
            logging.getLogger(__name__).error("%s", end)
            sys.exit(1)


def _write_output_to(path: Path) -> None:
    """All that the process says, that of libraries too."""
    with path.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)


def _light_variables() -> dict[str, str]:
    """Variables that keep children to one thread for arithmetic."""
    return {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip(),
        "OMP_NUM_THREADS": "1",
    }


def local_addresses(names: Sequence[str], tls: bool) -> dict[str, str]:
    """A free port of this machine for each agent."""
    protocol = "tls" if tls else "tcp"
    with ExitStack() as stack:
        # Held until all are known, so that they differ.
        sockets = [stack.enter_context(socket.socket()) for _ in names]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return {
            name: f"{protocol}/127.0.0.1:{each.getsockname()[1]}"
            for name, each in zip(names, sockets, strict=True)
        }


def write_addresses(out: Path, fleet: Fleet) -> None:
    """Where agents can be asked, into the configuration of a launch."""
    config = read_config(out)
    config["fleet"]["addresses"] = dict(fleet.addresses)
    replace_config(out, config)


class Progress:
    """Shows where the agents stand, by the last line of the metrics of each.

    Args:
        reporter: how it is shown.
        experiment: how many rounds there are.
        folders: of all agents.
    """

    def __init__(self, reporter: Reporter, experiment: Experiment, folders: Sequence[Path]):
        self._reporter, self._experiment = reporter, experiment
        self._folders, self._shown = folders, 0

    def show(self) -> None:
        """Show it if the slowest agent has made a round more."""
        rows = [row for each in self._folders if (row := read_last_row(each / "metrics.jsonl"))]
        slowest = min((row["round"] for row in rows), default=0)
        if slowest <= self._shown:
            return
        self._shown, rounds = slowest, self._experiment.rounds
        seconds = max(row["time"]["seconds"] for row in rows)
        self._reporter.show(Status.of(rows, rounds, (rounds - slowest) * seconds / slowest))


KEYS = "keys"
_LOOK_AGAIN = 0.2  # seconds between looks at progress and requests to stop
SAVE_SECONDS = 60.0
