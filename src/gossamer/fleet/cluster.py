"""Agents of a population on a cluster: Ray gives each a place and its resources, and a new one when it dies.

Ray carries no gossip: agents talk to each other over the network, as those of ``fleet.launch`` do. What they write on
their nodes is copied to the driver's disk while they live. This is the one file that imports ray.
"""

import contextlib
import logging
import math
import os
import re
import shutil
import signal
import socket
import tempfile
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax

from gossamer.errors import InputError, require_non_negative, require_positive
from gossamer.experiment import Experiment, build
from gossamer.fleet.gather import gather
from gossamer.fleet.launch import (
    KEYS,
    SAVE_SECONDS,
    AgentsFailed,
    Launch,
    Progress,
    agent_folder,
    back_to_common_round,
    create_launch,
    launchable,
    load_launch,
    output_of,
    write_addresses,
)
from gossamer.fleet.member import PROCESS, run_member
from gossamer.fleet.membership import Beginning, Fleet, Membership
from gossamer.fleet.mirror import Changes, Held, changes_of, take_over
from gossamer.keys import check, create_authority, issue
from gossamer.mixing import RULES
from gossamer.progress import Reporter, Silent
from gossamer.records import read_config, replace_config
from gossamer.runtimes.network.refusals import Refusals
from gossamer.runtimes.network.zenoh_log import ZenohLog
from gossamer.serialization import from_data, to_data
from gossamer.stopping import Interrupted, Stop, stop_requests
from gossamer.topologies import NAMES

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """Which Ray places agents, and what each agent gets.

    Raises:
        InputError: an address of another form, or resources that Ray does not divide so.

    Example:
        >>> Cluster(gpus_per_agent=1.5)
        Traceback (most recent call last):
        gossamer.errors.InputError: gpus_per_agent is 1.5; above 1 it must be a whole number
    """

    address: str | None = None
    """Of a Ray that runs: HOST:PORT of its head, or auto for the one that this machine is a node of. By default what
    RAY_ADDRESS says; without it a Ray of this machine's own is started, and ended with the run."""
    cpus_per_agent: float = 1.0
    """CPU cores that Ray keeps for each agent, >= 0; parts of one may be shared."""
    gpus_per_agent: float = 0.0
    """GPUs that Ray keeps for each agent, >= 0; parts of one may be shared. With 0 agents use the CPU only."""
    wait_seconds: float = 600.0
    """How long an agent waits for a place, > 0; then it counts as dead."""
    insecure: bool = False
    """Whether agents may send plaintext from node to node: anybody on the way can read and forge it."""

    def __post_init__(self) -> None:
        if self.address is not None:
            _require_address("address", self.address)
        for name in ("cpus_per_agent", "gpus_per_agent"):
            value = getattr(self, name)
            require_non_negative(name, value)
            if value > 1 and value % 1:
                raise InputError(f"{name} is {value}; above 1 it must be a whole number")
        require_positive("wait_seconds", self.wait_seconds)


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
    experiment = launchable(_with_absolute_paths(experiment))
    with _connected(place) as cluster:
        _require_nodes(cluster, experiment.agents, how, place)
        fleet = create_launch(experiment, out, how, cluster=asdict(place))
        if how.tls:
            create_authority(out / KEYS, fleet.run)
            for observer in fleet.observers:
                issue(out / KEYS, observer)
        return _Driver(cluster, experiment, fleet, how, place, out).run(reporter or Silent())


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
    with _connected(place) as cluster:
        _require_nodes(cluster, experiment.agents, how, place)
        replace_config(out, {**config, "cluster": asdict(place)})
        return _Driver(cluster, experiment, fleet, how, place, out).run(reporter or Silent())


# --- On an agent's node ---------------------------------------------------------------------------------------------


class Seat(NamedTuple):
    """Where an agent was placed, and can be reached."""

    host: str
    endpoint: str


State: TypeAlias = Literal["running", "finished", "stopped", "failed"]


class News(NamedTuple):
    """What an agent's process tells of itself."""

    state: State
    message: str
    """Why it is not running."""
    said: bytes
    """Of its log."""
    changes: Changes | None
    """Of its folder; None before it has opened its files."""


class RemoteAgent:
    """The process of one agent, in which Ray runs the methods; several at once.

    Every method may be called again when its answer was lost.

    Args:
        run: the run on the network.
        name: of the agent.
        tls: whether it will talk by TLS.
        host: the address that it listens at; by default its node's.
    """

    def __init__(self, run: str, name: str, tls: bool, host: str | None):
        self._run, self._name, self._tls, self._host = run, name, tls, host
        self._held: socket.socket | None = None
        self._seat: Seat | None = None
        self._stop, self._ended, self._once = Stop(), threading.Event(), threading.Lock()
        self._state: State = "running"
        self._message, self._thread, self._process = "", None, None

    def prepare(self) -> Seat:
        """Find a folder and a free port on the node. The port is held until the agent needs it."""
        with self._once:
            if self._seat is None:
                root = Path(tempfile.gettempdir()) / f"gossamer-{self._run}"
                root.mkdir(mode=0o700, exist_ok=True)
                for earlier in root.glob(f"{self._name}-*"):
                    shutil.rmtree(earlier, ignore_errors=True)  # of a process that died; its key is in there
                self._home = Path(tempfile.mkdtemp(prefix=f"{self._name}-", dir=root))
                host = self._host or _node_address()
                self._held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
                self._held.bind((host, 0))
                shown = f"[{host}]" if ":" in host else host
                protocol = "tls" if self._tls else "tcp"
                self._seat = Seat(host, f"{protocol}/{shown}:{self._held.getsockname()[1]}")
            return self._seat

    def begin(
        self, experiment: Any, membership: Membership, keys: Mapping[str, bytes], start: Changes | None
    ) -> None:
        """Begin to be the agent.

        Args:
            experiment: as plain data.
            membership: which agent it is; its folder of keys is made here.
            keys: files of that folder, by name; none where plaintext is spoken.
            start: what its folder holds at the beginning.
        """
        with self._once:
            if self._thread is not None:
                return
            if keys:
                membership = replace(membership, keys=str(self._home / KEYS))
                _write_private(self._home / KEYS, keys)
            if start is not None:
                take_over(self._folder, start)
            self._process = self._process_file()
            self._set_up()
            self._thread = threading.Thread(
                target=self._live, args=(from_data(experiment), membership), daemon=True, name="agent"
            )
            self._thread.start()

    def poll(self, held: Held, said: int) -> News:
        """What is new, within half a second, or once the agent has ended: then it is the last.

        Args:
            held: what the copy of its folder has of this life.
            said: bytes of its log that are known.
        """
        self._ended.wait(_BETWEEN)
        # Asked first: what comes after the end is complete.
        state = self._state
        # Its own file of the process is the last that an agent opens. Before, files may still be cut to where its
        # checkpoint stands; from then on they only grow.
        opened = self._process_file() != self._process
        changes = changes_of(self._folder, held) if opened else None
        with self._output.open("rb") as file:
            file.seek(said)
            return News(state, self._message, file.read(), changes)

    def stop(self) -> None:
        """Ask the agent to save itself and leave."""
        self._stop.requested = True

    def clear(self) -> None:
        """Remove what it wrote on its node; the last of the run there leaves nothing."""
        shutil.rmtree(self._home, ignore_errors=True)
        if not any(path.name != _COMPILED for path in self._home.parent.glob("*")):
            shutil.rmtree(self._home.parent, ignore_errors=True)

    @property
    def _folder(self) -> Path:
        return self._home / "agent"

    @property
    def _output(self) -> Path:
        return self._home / "agent.log"

    def _process_file(self) -> bytes | None:
        path = self._folder / PROCESS
        return path.read_bytes() if path.exists() else None

    def _set_up(self) -> None:
        """What is true of the process as a whole, which is the agent's alone."""
        handler = logging.FileHandler(self._output)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.INFO)
        logging.getLogger("absl").setLevel(logging.WARNING)  # of every checkpoint Orbax tells a page
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            # Agents of a node compile the same, and so does one that begins again.
            jax.config.update("jax_compilation_cache_dir", str(self._home.parent / _COMPILED))

    def _live(self, experiment: Experiment, membership: Membership) -> None:
        assert self._held is not None, "it was prepared"
        self._held.close()
        refusals = Refusals(self._name)
        try:
            with ZenohLog(refusals):
                run_member(experiment, membership, self._folder, self._stop, refusals=refusals)
            self._state = "finished"
        except Interrupted as end:
            self._message, self._state = str(end), "stopped"
        except Exception as error:
            _log.exception("%s ended", self._name)
            self._message, self._state = f"{type(error).__name__}: {error}", "failed"
        self._ended.set()


def _node_address() -> str:
    return str(_ray().util.get_node_ip_address())


def _write_private(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, content in files.items():
        # The mode is right from the first moment: after a chmod it may be too late.
        with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)


# --- On the driver's machine ----------------------------------------------------------------------------------------


@dataclass
class _Running:
    """One agent as the driver knows it: a question that it was asked, and what comes after the answer."""

    name: str
    actor: Any = None
    state: Literal["waiting", "placed", "running", "ended", "failed"] = "waiting"
    begun: int = 0
    since: float = 0.0
    question: Callable[[], Any] | None = None
    answer: Any = None
    then: Callable[[Any], None] | None = None
    seat: Seat | None = None
    held: Held = field(default_factory=Held)
    said: int = 0

    @property
    def lives(self) -> bool:
        """Whether there is more to come from it."""
        return self.state in ("waiting", "placed", "running")


class _Driver:
    """Places agents, copies what they write, and begins them again; they do not need it to learn."""

    def __init__(
        self,
        cluster: "_Connection",
        experiment: Experiment,
        fleet: Fleet,
        how: Launch,
        place: Cluster,
        out: Path,
    ):
        self._ray, self._host = cluster.ray, cluster.host
        self._experiment, self._how, self._place, self._out = experiment, how, place, out
        self._fleet = replace(fleet, addresses={})
        parts = build(experiment)
        self._links, self._in_step = parts.links, parts.schedule.in_step
        self._agents = [_Running(name) for name in fleet.names]
        self._stopping, self._lost = False, []  # the latter by a stop: those that did not save themselves
        self._remote = self._ray.remote(RemoteAgent).options(
            num_cpus=place.cpus_per_agent,
            num_gpus=place.gpus_per_agent,
            max_restarts=0,  # whoever comes in its place must be told who is where
            max_concurrency=_AT_ONCE,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": _environment(place)},
        )

    def run(self, reporter: Reporter) -> Path:
        """Until all agents have ended; then gather them."""
        folders = [agent_folder(self._out, agent.name) for agent in self._agents]
        if self._in_step:
            back_to_common_round([folder / "checkpoints" for folder in folders])
        try:
            with stop_requests() as stop, reporter:
                self._watch(stop, Progress(reporter, self._experiment, folders).show)
        finally:
            for agent in self._agents:
                self._release(agent)
        if stop:
            but = (
                f" but {', '.join(self._lost)}, of which an earlier checkpoint is kept" if self._lost else ""
            )
            raise Interrupted(
                f"stopped, all agents have saved themselves{but}; go on with: gossamer launch --resume {self._out}"
            )
        failed = [agent.name for agent in self._agents if agent.state == "failed"]
        if failed:
            raise AgentsFailed(
                f"{', '.join(failed)} died {self._how.restarts + 1} times; what they said is in "
                f"{output_of(self._out, failed[0])}, and gossamer launch --resume {self._out} begins them again"
            )
        gather(folders, self._out)
        return self._out

    def _watch(self, stop: Stop, show: Callable[[], None]) -> None:
        until = math.inf
        for agent in self._agents:
            self._wait_for_place(agent)
        while any(agent.lives for agent in self._agents):
            self._hear_somebody()
            show()
            if stop and not self._stopping:
                self._stopping, until = True, time.monotonic() + SAVE_SECONDS
                self._stop_all()
            if time.monotonic() > until:
                self._lost += [agent.name for agent in self._agents if agent.lives]
                return
            if not self._stopping:
                self._begin_placed()
                self._give_up_waiting()

    def _wait_for_place(self, agent: _Running) -> None:
        agent.state, agent.since, agent.seat = "waiting", time.monotonic(), None
        agent.begun += 1
        agent.actor = actor = self._remote.remote(self._fleet.run, agent.name, self._how.tls, self._host)
        self._ask(agent, lambda: actor.prepare.remote(), lambda seat: self._placed(agent, seat))

    def _placed(self, agent: _Running, seat: Seat) -> None:
        agent.state, agent.seat = "placed", seat
        _log.info("%s is placed at %s", agent.name, seat.endpoint)

    def _begin_placed(self) -> None:
        # At first all begin together: in step nobody would wait for long for who has no place yet.
        if any(agent.state == "waiting" and agent.begun == 1 for agent in self._agents):
            return
        for agent in self._agents:
            if agent.state == "placed":
                self._begin(agent)

    def _begin(self, agent: _Running) -> None:
        seat, actor = agent.seat, agent.actor
        assert seat is not None, "it was placed"
        self._fleet = replace(self._fleet, addresses={**self._fleet.addresses, agent.name: seat.endpoint})
        write_addresses(self._out, self._fleet)
        copy = agent_folder(self._out, agent.name)
        begins_with: Beginning = "own" if agent.begun == 1 else "newest"
        membership = Membership(
            self._fleet,
            agent.name,
            (seat.endpoint,),
            self._known_neighbours(agent.name),
            insecure=self._place.insecure,
            compression=self._how.compression,
            begins_with=begins_with,
        )
        keys = self._certificate(agent.name, seat.host) if self._how.tls else {}
        start = changes_of(copy) if (copy / "config.json").exists() else None
        agent.state, agent.held, agent.said = "running", Held(), 0
        data = to_data(self._experiment)
        self._ask(
            agent, lambda: actor.begin.remote(data, membership, keys, start), lambda _: self._poll(agent)
        )

    def _known_neighbours(self, name: str) -> tuple[str, ...]:
        """Addresses of the neighbours that have begun: of any two, the later one connects, and keeps trying."""
        near = self._fleet.neighbours(self._links, name)
        running = {agent.name for agent in self._agents if agent.state == "running"}
        return tuple(self._fleet.addresses[each] for each in near if each in running)

    def _certificate(self, name: str, host: str) -> dict[str, bytes]:
        """Of an agent at its new address; the authority's key stays here."""
        for suffix in ("pem", "key"):
            (self._out / KEYS / f"{name}.{suffix}").unlink(missing_ok=True)
        issue(self._out / KEYS, name, (host,))
        return {path.name: path.read_bytes() for path in check(self._out / KEYS, name)}

    def _poll(self, agent: _Running) -> None:
        actor = agent.actor
        self._ask(
            agent,
            lambda: actor.poll.remote(agent.held, agent.said),
            lambda news: self._copy(agent, news),
        )

    def _copy(self, agent: _Running, news: News) -> None:
        if news.changes is not None:
            take_over(agent_folder(self._out, agent.name), news.changes)
            agent.held = agent.held.and_then(news.changes)
        self._write_output(agent, news.said)
        agent.said += len(news.said)
        if news.state == "running":
            self._poll(agent)
            return
        actor = agent.actor
        self._ask(agent, lambda: actor.clear.remote(), lambda _: self._ended(agent, news))

    def _ended(self, agent: _Running, news: News) -> None:
        if news.state == "failed" or (news.state == "stopped" and not self._stopping):
            self._died(agent, news.message)
            return
        agent.state = "ended"
        self._release(agent)

    def _died(self, agent: _Running, why: str) -> None:
        self._write_output(agent, f"{agent.name} died: {why}\n".encode())
        self._release(agent)
        why = textwrap.shorten(why, _REASON_WIDTH)
        if self._stopping:
            agent.state = "ended"
            self._lost.append(agent.name)
            _log.error("%s died before it had saved itself: %s", agent.name, why)
        elif agent.begun > self._how.restarts:
            agent.state = "failed"
            _log.error("%s died and is not begun again: %s", agent.name, why)
        else:
            _log.warning("%s died and is begun again: %s", agent.name, why)
            self._wait_for_place(agent)

    def _give_up_waiting(self) -> None:
        for agent in self._agents:
            if agent.state == "waiting" and time.monotonic() - agent.since > self._place.wait_seconds:
                self._died(agent, f"no node had room for it in {self._place.wait_seconds:g} s")

    def _stop_all(self) -> None:
        for agent in self._agents:
            if agent.state == "running":
                agent.actor.stop.remote()
            elif agent.lives:
                agent.state = "ended"
                self._release(agent)

    def _release(self, agent: _Running) -> None:
        """Give its place back."""
        addresses = {name: each for name, each in self._fleet.addresses.items() if name != agent.name}
        self._fleet = replace(self._fleet, addresses=addresses)
        actor, agent.actor, agent.answer = agent.actor, None, None
        if actor is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)

    def _ask(self, agent: _Running, question: Callable[[], Any], then: Callable[[Any], None]) -> None:
        agent.question, agent.then = question, then
        agent.answer = question()

    def _hear_somebody(self) -> None:
        """What agents answer, as soon as one does, if that is soon."""
        asked = {agent.answer: agent for agent in self._agents if agent.answer is not None}
        if not asked:
            return
        self._ray.wait(list(asked), num_returns=1, timeout=_LOOK_AGAIN)
        answers, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=0)
        for answer in answers:
            agent = asked[answer]
            assert agent.question is not None
            assert agent.then is not None
            try:
                value = self._ray.get(answer)
            except self._ray.exceptions.ActorUnavailableError:
                # It may be cut off for a moment only. Ray says when it has died.
                time.sleep(_LOOK_AGAIN)
                agent.answer = agent.question()
            except self._ray.exceptions.RayError as error:
                self._died(agent, _last_line(error))
            else:
                agent.answer = None
                agent.then(value)

    def _write_output(self, agent: _Running, said: bytes) -> None:
        path = output_of(self._out, agent.name)
        path.parent.mkdir(exist_ok=True)
        with path.open("ab") as file:
            file.write(said)


def _last_line(error: Exception) -> str:
    """Of what Ray says, which is a page with the reason at its end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _environment(place: Cluster) -> dict[str, str]:
    """Variables of an agent's process: it uses what Ray keeps for it, and no more."""
    variables = {
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    if place.cpus_per_agent <= 1:
        flags = os.environ.get("XLA_FLAGS", "")
        variables["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
        variables["OMP_NUM_THREADS"] = "1"
    # Set in any case: what the driver uses, or its Ray, is not theirs to inherit.
    variables["JAX_PLATFORMS"] = "" if place.gpus_per_agent else "cpu"
    if 0 < place.gpus_per_agent < 1:
        # By default JAX takes three quarters of a GPU for itself.
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * place.gpus_per_agent:.3f}"
    return variables


def _with_absolute_paths(experiment: Experiment) -> Experiment:
    """Actors have working directories of their own."""
    changes = {
        name: os.path.abspath(spec)
        for name, spec, known in (
            ("topology", experiment.topology, NAMES),
            ("weights", experiment.weights, RULES),
        )
        if spec.partition(":")[0] not in known and os.path.isfile(spec)
    }
    return replace(experiment, **changes)


def _require_nodes(cluster: "_Connection", agents: int, how: Launch, place: Cluster) -> None:
    """Refuse a cluster without room for all agents, or whose nodes would talk in plaintext."""
    nodes = [node for node in cluster.ray.nodes() if node["Alive"]]
    room = sum(_room(node["Resources"], place) for node in nodes)
    if room < agents:
        raise InputError(
            f"the cluster has room for {room:g} agents with cpus_per_agent {place.cpus_per_agent:g} and gpus_per_agent "
            f"{place.gpus_per_agent:g}, and agents is {agents}; give fewer agents, less to each, or a larger cluster"
        )
    hosts = [cluster.host or node["NodeManagerAddress"] for node in nodes]
    open_hosts = sorted({host for host in hosts if not _is_loopback(host)})
    if open_hosts and not how.tls and not place.insecure:
        raise InputError(
            f"tls is off, and agents would listen at {', '.join(open_hosts[:3])}, which other machines can reach; give "
            "--tls True, or --insecure True"
        )


def _room(resources: Mapping[str, float], place: Cluster) -> float:
    wanted = {"CPU": place.cpus_per_agent, "GPU": place.gpus_per_agent}
    # A tenth fits ten times into one, whatever the rounding of binary fractions says.
    return min(
        (
            math.floor(resources.get(kind, 0.0) / amount + 1e-6)
            for kind, amount in wanted.items()
            if amount > 0
        ),
        default=math.inf,
    )


def _is_loopback(host: str) -> bool:
    return host == "::1" or host.startswith("127.")


# --- Ray itself -----------------------------------------------------------------------------------------------------


class _Connection(NamedTuple):
    """A Ray to which this process is connected."""

    ray: Any
    host: str | None
    """Where agents listen; None: at the addresses of their nodes."""


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "agents on a cluster need ray; install it with: pip install 'gossamer[ray]'"
        ) from error
    return ray


@contextlib.contextmanager
def _connected(place: Cluster) -> Iterator[_Connection]:
    """Connect to a Ray, or start one, unless this process is connected; and leave it as it was."""
    ray = _ray()
    if ray.is_initialized():
        address = ray.get_runtime_context().gcs_address
        if place.address not in (None, "auto", address):
            raise InputError(
                f"address is {place.address!r}; this process is connected to the Ray at {address} already"
            )
        yield _Connection(ray, None)
        return
    address = place.address or os.environ.get("RAY_ADDRESS")
    with _sigterm_kept():
        if address is None:
            _start_own(ray)
        else:
            _join(ray, "RAY_ADDRESS" if place.address is None else "address", address)
        try:
            # Nobody joins a Ray that was started here, and its agents need not be heard elsewhere.
            yield _Connection(ray, _LOOPBACK if address is None else None)
        finally:
            ray.shutdown()


def _start_own(ray: Any) -> None:
    # Unless it is told, Ray reports its use to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with warnings.catch_warnings():
        # JAX warns of forks; these turn into other programs at once.
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        _init(ray, address="local", include_dashboard=False, object_store_memory=_STORE_BYTES)


def _join(ray: Any, name: str, address: str) -> None:
    _require_address(name, address)
    if address != "auto":
        # Ray itself would try for minutes.
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            raise InputError(
                f"{name} is {address!r}, where nobody answers ({error}); give that of a Ray that runs"
            ) from error
    try:
        _init(ray, address=address)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InputError(
            f"{name} is {address!r}, and Ray says: {' '.join(str(error).split())}; give that of a Ray that runs with "
            "the same versions of Ray and Python"
        ) from error


def _init(ray: Any, **choices: Any) -> None:
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **choices)


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Ray puts a handler of its own in place of the one that there was."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _require_address(name: str, address: str) -> None:
    if address != "auto" and not _ADDRESS.fullmatch(address):
        raise InputError(
            f"{name} is {address!r}; it must be HOST:PORT of a Ray's head, or auto, on a machine that is a node of it"
        )


_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")
_COMPILED = "compiled"
_LOOPBACK = "127.0.0.1"
# Methods of an actor: one waits for news, one for a lock, and a request to stop must come through.
_AT_ONCE = 4
_BETWEEN = 0.5  # seconds between two answers about what is new
_LOOK_AGAIN = 0.2  # seconds between looks at requests to stop
_CONNECT_SECONDS = 5.0
_REASON_WIDTH = 200  # characters: Ray adds advice, which is in the agent's log
_STORE_BYTES = 256 * 2**20  # only checkpoints pass through it, and they do not stay
