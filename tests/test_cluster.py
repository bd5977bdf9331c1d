"""Agents that Ray places: what they compute, how they come back from a lost node, and what is refused."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

pytest.importorskip("cryptography", reason="certificates need the extra gossamer[ray]")
pytest.importorskip("zenoh", reason="the network needs the extra gossamer[ray]")

from gossamer.cli import main
from gossamer.errors import InputError
from gossamer.network.launcher import (
    AgentsFailed,
    Launch,
    agent_folder,
    create_launch,
    launchable,
    load_launch,
    output_of,
)
from gossamer.network.membership import default_names
from gossamer.network.ray import Cluster, driver, launch_on_ray, resume_on_ray
from gossamer.network.ray.connection import Connection, require_room
from gossamer.network.status import ask_run
from gossamer.runs import checkpoints
from gossamer.runs.folder import read_config, read_last_row, read_metrics
from gossamer.runs.restore import restore_population
from gossamer.schedules import Schedule
from gossamer.system.signals import Interrupted
from gossamer.train import train
from small import small_experiment

IN_STEP = Schedule("most_recent", staleness=0)
FREE = Schedule("most_recent", staleness=None)
"""Nobody waits for anybody."""
TOLERANCE = 1e-5  # as between processes and one program: sums of messages are rounded otherwise
DEADLINE = 240.0  # seconds; reached only where something is broken
STORE = 80 * 2**20  # bytes, nearly the least that Ray takes

# Ray starts its processes by a fork with a line of Python before the other program; it leaves their pipes open.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:subprocess [0-9]+ is still running:ResourceWarning"),
]


def few(agents, **changes):
    return small_experiment(
        **{"agents": agents, "tasks": agents, "schedule": FREE, "runtime": "network", **changes}
    )


GIVEN_UP = threading.Event()
"""Set once a test has failed while a thread of it still waits."""


def wait_for(condition, seconds=DEADLINE):
    until = time.monotonic() + seconds
    while not condition():
        assert not GIVEN_UP.is_set(), "the test has failed meanwhile"
        assert time.monotonic() < until, "it did not come to that in time"
        time.sleep(0.05)


def process_of(run, name):
    """The process that an agent's files are from, as its number and its incarnation."""
    path = agent_folder(run, name) / "process.json"
    return json.loads(path.read_text()) if path.exists() else {"pid": 0, "incarnation": 0}


def last_round(run, name):
    row = read_last_row(agent_folder(run, name) / "metrics.jsonl")
    return 0 if row is None else row["round"]


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@contextmanager
def meanwhile(act):
    """Do something in a thread; what goes wrong there comes out at the end, unless something else went wrong before."""
    errors = []

    def caught():
        try:
            act()
        except BaseException as error:
            errors.append(error)
            if not GIVEN_UP.is_set():
                os.kill(os.getpid(), signal.SIGINT)  # nobody shall wait for what does not come

    thread = threading.Thread(target=caught)
    thread.start()
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Interrupted | AgentsFailed):  # which tests expect
            GIVEN_UP.set()
        raise
    finally:
        thread.join()
        failed = GIVEN_UP.is_set()
        GIVEN_UP.clear()
        if errors and not failed:
            raise errors[0]


def descendants(pid):
    """All processes that a process has begun, and theirs."""
    children = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            children.setdefault(parent_of(path.name), []).append(int(path.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    found, waiting = [], [pid]
    while waiting:
        waiting += children.get(waiting[0], [])
        found.append(waiting.pop(0))
    return set(found) - {pid}


def require_increasing(run, name, last=None):
    """No round is there twice. Who takes over what a neighbour has at its end has no lines of the last ones."""
    rounds = [row["round"] for row in read_metrics(agent_folder(run, name) / "metrics.jsonl")]
    assert rounds == sorted(set(rounds))
    assert last in (None, rounds[-1])


def node_folder(run):
    """What agents of a run have on their nodes, which are this machine."""
    return Path(tempfile.gettempdir()) / f"gossamer-{read_config(run)['fleet']['run']}"


# --- Agents that are placed, die and come back ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray_of_this_machine():
    """Begins a Ray, unless one runs; the last one is ended."""
    ray = pytest.importorskip("ray", reason="the cluster needs the extra gossamer[ray]")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        before = signal.getsignal(signal.SIGTERM)

        def begin():
            if not ray.is_initialized():
                ray.init(
                    address="local",
                    num_cpus=2,
                    object_store_memory=STORE,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                )
            return ray

        yield begin
        ray.shutdown()
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def ray(ray_of_this_machine):
    """A Ray of this machine, to which this process stays connected."""
    return ray_of_this_machine()


@pytest.mark.slow
def test_an_agent_whose_process_is_killed_comes_back_with_its_checkpoint(ray, tmp_path):
    run, experiment, before = tmp_path / "run", few(2, rounds=400, checkpoint_every=20), {}
    modes, rows = {}, []

    def kill():
        wait_for(lambda: (agent_folder(run, "agent-1") / "checkpoints" / "20").exists())
        (keys,) = node_folder(run).glob("agent-1-*/keys")
        modes.update({path.name: path.stat().st_mode & 0o777 for path in (keys, *keys.iterdir())})
        rows.extend(read_metrics(agent_folder(run, "agent-1") / "metrics.jsonl")[:20])
        before.update(process_of(run, "agent-1"))
        os.kill(before["pid"], signal.SIGKILL)

    with meanwhile(kill):
        launch_on_ray(experiment, run, Launch(tls=True), Cluster())
    after = process_of(run, "agent-1")
    assert after["incarnation"] > before["incarnation"]
    for name in default_names(2):
        require_increasing(run, name)
        assert checkpoints.rounds(agent_folder(run, name) / "checkpoints")[-1] == 400
    kept = read_metrics(agent_folder(run, "agent-1") / "metrics.jsonl")[:20]
    assert kept == rows, "none came again: times are the same too"
    assert checkpoints.rounds(run / "checkpoints") == [400]
    assert "agent-1 died: " in output_of(run, "agent-1").read_text()
    wait_for(lambda: not any(lives(each["pid"]) for each in (before, after, process_of(run, "agent-0"))))
    assert not node_folder(run).exists()
    files = {"authority.pem": 0o600, "agent-1.pem": 0o600, "agent-1.key": 0o600}
    assert modes == {"keys": 0o700, **files}, "an agent has its own key, and nobody has the authority's"


@pytest.mark.slow
def test_an_agent_without_a_place_is_given_up(ray, tmp_path):
    class Blocker:
        def here(self):
            return True

    run, blocker = tmp_path / "run", ray.remote(Blocker).options(num_cpus=2).remote()
    try:
        assert ray.get(blocker.here.remote())
        place = Cluster(wait_seconds=1.0)
        with pytest.raises(AgentsFailed, match=r"agent-0, agent-1 died 1 times; what they said is in"):
            launch_on_ray(few(2), run, Launch(tls=True, restarts=0), place)
    finally:
        ray.kill(blocker)
    assert output_of(run, "agent-1").read_text() == "agent-1 died: no node had room for it in 1 s\n"


@pytest.mark.slow
def test_an_agent_that_cannot_save_itself_is_named_after_a_stop(ray, tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "SAVE_SECONDS", 5.0)
    run, stopped = tmp_path / "run", []

    def stop():
        wait_for(lambda: all(last_round(run, name) >= 20 for name in default_names(2)))
        stopped.append(process_of(run, "agent-1")["pid"])
        os.kill(stopped[0], signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGINT)

    lost = "saved themselves but agent-1, of which an earlier checkpoint is kept; resume with"
    with meanwhile(stop), pytest.raises(Interrupted, match=lost):
        launch_on_ray(few(2, rounds=10**6, checkpoint_every=20), run, Launch(tls=True))
    os.kill(stopped[0], signal.SIGKILL)


@pytest.mark.slow
def test_agents_on_ray_compute_what_one_program_does(ray, tmp_path):
    launch_on_ray(few(2, schedule=IN_STEP), tmp_path / "ray", Launch(tls=True), Cluster(cpus_per_agent=0.5))
    train(few(2, schedule=IN_STEP, runtime="vectorised"), tmp_path / "vectorised")
    ours, theirs = (
        jax.tree.leaves(restore_population(tmp_path / name)[2].learner.params)
        for name in ("ray", "vectorised")
    )
    for mine, reference in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, reference, atol=TOLERANCE)


@pytest.mark.slow
def test_an_agent_that_dies_again_and_again_is_given_up(ray, tmp_path):
    """The other goes on to its end."""
    run, experiment = tmp_path / "run", few(2, rounds=600, checkpoint_every=20)

    def kill():
        wait_for(lambda: last_round(run, "agent-1") >= 1)
        os.kill(process_of(run, "agent-1")["pid"], signal.SIGKILL)

    with (
        meanwhile(kill),
        pytest.raises(AgentsFailed, match=rf"agent-1 died 1 times; .* --resume {run} begins"),
    ):
        launch_on_ray(experiment, run, Launch(tls=True, restarts=0))
    assert last_round(run, "agent-0") == 600
    assert last_round(run, "agent-1") < 600
    assert not (run / "metrics.jsonl").exists()


@pytest.fixture
def nodes():
    """Three nodes of a cluster, beside the head, on which nothing runs."""
    cluster_utils = pytest.importorskip(
        "ray.cluster_utils", reason="the cluster needs the extra gossamer[ray]"
    )
    pytest.importorskip("ray").shutdown()  # a process is connected to one Ray
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        small = {"object_store_memory": STORE, "include_dashboard": False}
        cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
        try:
            yield cluster, [cluster.add_node(num_cpus=2, object_store_memory=STORE) for _ in range(3)]
        finally:
            cluster.shutdown()


def raylet_of(node):
    return node.all_processes["raylet"][0].process.pid


@pytest.mark.slow
def test_agents_of_a_lost_node_come_back_elsewhere_and_all_go_on_after_a_stop(nodes, tmp_path):
    cluster, workers = nodes
    run, names, place = tmp_path / "run", default_names(4), Cluster(cluster.address)
    experiment = few(4, rounds=10**6, checkpoint_every=20)
    before, after, times = {}, {}, {}

    def lose_a_node():
        wait_for(lambda: all(last_round(run, name) >= 40 for name in names))
        before.update({name: (process_of(run, name), last_round(run, name)) for name in names})
        raylet = parent_of(before["agent-1"][0]["pid"])
        lost = next(node for node in workers if raylet_of(node) == raylet)
        on_it = [name for name in names if parent_of(before[name][0]["pid"]) == raylet]
        times["lost"] = time.monotonic()
        cluster.remove_node(lost, allow_graceful=False)
        wait_for(lambda: all(process_of(run, name) != before[name][0] for name in on_it))
        times["back"] = time.monotonic()
        wait_for(lambda: all(last_round(run, name) > before[name][1] for name in on_it))
        times["learning"] = time.monotonic()
        after.update(
            {name: (process_of(run, name), parent_of(process_of(run, name)["pid"])) for name in on_it}
        )
        wait_for(lambda: all(hears_of(run, name) for name in on_it))
        others = [raylet_of(node) for node in workers if node is not lost]
        assert all(parent in others for _, parent in after.values())
        os.kill(os.getpid(), signal.SIGINT)

    with meanwhile(lose_a_node), pytest.raises(Interrupted, match=f"resume with: .*--resume {run}"):
        launch_on_ray(experiment, run, Launch(tls=True), place)
    for name, (process, _) in after.items():
        assert process["incarnation"] > before[name][0]["incarnation"]
        assert not lives(before[name][0]["pid"])
        assert "begins with a neighbour's parameters" in output_of(run, name).read_text()
    untouched = set(names) - set(after)
    assert untouched
    assert all(process_of(run, name) == before[name][0] for name in untouched)
    print({name: round(each - times["lost"], 1) for name, each in times.items()}, "after the loss")

    last = max(last_round(run, name) for name in names) + 20
    resume_on_ray(run, rounds=last)
    for name in names:
        require_increasing(run, name, last)
    assert read_metrics(run / "metrics.jsonl")[-1]["round"] == last
    wait_for(lambda: not any(lives(process_of(run, name)["pid"]) for name in names))
    assert not node_folder(run).exists()


def hears_of(run, name):
    """Whether its neighbours hear of the process that is the agent now."""
    answers = ask_run(run).answers
    edges = [answer["hears"][name] for answer in answers.values() if name in answer["hears"]]
    return len(answers) == 4 and len(edges) == 2 and all(edge["present"] and edge["round"] for edge in edges)


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_saves_what_runs_on_a_ray_of_its_own(tmp_path, monkeypatch):
    """The terminal tells every process of the command's group."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    run = tmp_path / "run"
    gossamer = str(Path(sys.executable).parent / "gossamer")
    command = [gossamer, "launch", "cartpole-balance", "--runtime", "ray", "--cpus-per-agent", "0.5"]
    flags = "--agents 2 --tasks 2 --topology ring --checkpoint-every 10 --max-steps 20 --hidden 8 8"
    rule = "--rule most_recent --staleness None --rounds 1000000"
    with subprocess.Popen(
        [*command, *flags.split(), *rule.split(), "--out", str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        wait_for(lambda: all(last_round(run, name) >= 15 for name in default_names(2)))
        begun = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, said
    assert f"resume with: gossamer launch --resume {run}" in said
    assert {process_of(run, name)["pid"] for name in default_names(2)} < begun
    wait_for(lambda: not any(lives(pid) for pid in begun))
    assert not node_folder(run).exists()
    assert all(output_of(run, name).read_text().count("died") == 0 for name in default_names(2))

    last = max(last_round(run, name) for name in default_names(2)) + 10
    done = subprocess.run(
        [gossamer, "launch", "--resume", str(run), "--rounds", str(last)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    for name in default_names(2):
        require_increasing(run, name, last)


# --- What does not fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"address": "ray://head:10001"},
            "address is 'ray://head:10001'; it must be HOST:PORT of a Ray's head",
        ),
        ({"cpus_per_agent": -1.0}, "cpus_per_agent is -1.0; it must be a finite number, 0 or above"),
        ({"cpus_per_agent": 1.5}, "cpus_per_agent is 1.5; above 1 it must be a whole number"),
        ({"gpus_per_agent": float("nan")}, "gpus_per_agent is nan"),
        ({"wait_seconds": 0.0}, "wait_seconds is 0.0; it must be a finite number above 0"),
    ],
    ids=["client", "negative", "one and a half", "nan", "no time"],
)
def test_a_cluster_that_cannot_be(choices, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Cluster(**choices)


def cluster_of(*resources, address="10.0.0.1"):
    nodes = [{"Alive": True, "NodeManagerAddress": address, "Resources": each} for each in resources]
    return Connection(SimpleNamespace(nodes=lambda: nodes), None)


def test_what_has_no_room_is_refused():
    """Agents are not divided among nodes."""
    place = Cluster(cpus_per_agent=0.1)
    require_room(cluster_of({"CPU": 1.0}), 10, Launch(tls=True), place)
    with pytest.raises(
        InputError, match=r"has room for 10 agents with cpus_per_agent 0\.1 .* agents is 11; give"
    ):
        require_room(cluster_of({"CPU": 1.0}), 11, Launch(tls=True), place)
    with pytest.raises(InputError, match="has room for 2 agents"):
        require_room(cluster_of({"CPU": 1.5}, {"CPU": 1.5}), 3, Launch(tls=True), Cluster())
    with pytest.raises(InputError, match="has room for 0 agents with cpus_per_agent 1 and gpus_per_agent 1"):
        require_room(cluster_of({"CPU": 4.0}), 1, Launch(tls=True), Cluster(gpus_per_agent=1))
    require_room(cluster_of({}), 1000, Launch(tls=True), Cluster(cpus_per_agent=0))


def test_plaintext_between_nodes_is_refused_unless_it_is_asked_for():
    cluster = cluster_of({"CPU": 4.0})
    with pytest.raises(InputError, match=r"tls is off, and agents would listen at 10\.0\.0\.1, which other"):
        require_room(cluster, 4, Launch(), Cluster())
    require_room(cluster, 4, Launch(), Cluster(insecure=True))
    require_room(cluster_of({"CPU": 4.0}, address="127.0.0.1"), 4, Launch(), Cluster())
    require_room(cluster._replace(host="127.0.0.1"), 4, Launch(), Cluster())


@pytest.fixture
def nobody(monkeypatch):
    """An address at which nobody answers, as a process meets it that is connected to no Ray yet."""
    ray = pytest.importorskip("ray", reason="the cluster needs the extra gossamer[ray]")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--runtime ray --address {nobody}", "address is '{nobody}', where nothing answers"),
        ("--runtime=ray --address {nobody}", "address is '{nobody}', where nothing answers"),
        ("--runtime ray --address head", "address is 'head'; it must be HOST:PORT of a Ray's head, or auto"),
        ("--runtime ray --tls True --insecure True", "insecure is for agents without certificates"),
        ("--runtime ray --seeds 2", "seeds is 2; a launch runs one seed at a time"),
        ("--runtime ray --runtime ray", "--runtime is given 2 times"),
        ("--runtime threads", "--runtime is 'threads'; gossamer launch takes network or ray"),
        ("--cpus-per-agent 2", "cpus_per_agent is 2.0, which is for agents on a cluster; add --runtime ray"),
        ("--runtime", "--runtime"),
    ],
)
def test_flags_that_do_not_fit_write_nothing(tmp_path, monkeypatch, capsys, nobody, flags, message):
    monkeypatch.chdir(tmp_path)
    said = call(capsys, "launch", "cartpole-balance", *flags.format(nobody=nobody).split())
    assert message.format(nobody=nobody) in said
    assert list(tmp_path.iterdir()) == []


def test_the_environment_may_name_the_cluster(tmp_path, monkeypatch, nobody):
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    with pytest.raises(InputError, match=f"RAY_ADDRESS is '{nobody}', where nothing answers"):
        launch_on_ray(few(2), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_without_ray_a_sentence_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"need ray; install it with: pip install 'gossamer\[ray\]'"):
        launch_on_ray(few(2), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_only_a_launch_on_ray_is_resumed_there(tmp_path, capsys):
    run = tmp_path / "run"
    create_launch(few(2), run, Launch())
    with pytest.raises(
        InputError, match="was not launched on Ray; give a folder of gossamer launch --runtime"
    ):
        resume_on_ray(run)
    with pytest.raises(SystemExit) as ended:
        main(["launch", "--resume", str(run), "--address", "auto"])
    assert ended.value.code == 2
    assert "address is 'auto'" in capsys.readouterr().err
    assert load_launch(run)[2] == Launch()


def test_files_are_named_so_that_any_process_of_the_machine_finds_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("edges.txt").write_text("0 1\n1 0\n")
    found, _ = launchable(few(2, topology="edges.txt"))
    assert (found.topology, found.weights) == (str(tmp_path / "edges.txt"), "metropolis_hastings")


def test_agents_take_no_more_than_ray_keeps_for_them():
    assert driver._environment(Cluster())["JAX_PLATFORMS"] == "cpu"
    assert "xla_cpu_multi_thread_eigen=false" in driver._environment(Cluster())["XLA_FLAGS"]
    assert "XLA_FLAGS" not in driver._environment(Cluster(cpus_per_agent=4))
    shared = driver._environment(Cluster(gpus_per_agent=0.5))
    assert shared["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.450"
    assert shared["JAX_PLATFORMS"] == ""
