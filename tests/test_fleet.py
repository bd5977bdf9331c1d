"""Agents as processes: they compute what the vectorised runtime does, and are saved, resumed, asked and gathered."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("cryptography", reason="certificates need the extra gossamer[network]")
pytest.importorskip("zenoh", reason="the network needs the extra gossamer[network]")

from tests.stress import churn as churning

from gossamer import cli
from gossamer.algorithms import Impala
from gossamer.diagnostics.consensus_distance import consensus_distance
from gossamer.environments import Acrobot
from gossamer.errors import InputError
from gossamer.evaluation.evaluate import evaluate
from gossamer.experience import Unrolls
from gossamer.experiment import Experiment
from gossamer.network.agent import load_membership, run_member
from gossamer.network.agent_runtime import AgentRuntime, Replaced
from gossamer.network.answer import read_answer
from gossamer.network.device import Device, be_agent, membership_of
from gossamer.network.launcher import (
    Launch,
    Supervisor,
    agent_folder,
    back_to_common_round,
    launch,
    local_addresses,
    output_of,
    resume_launch,
)
from gossamer.network.membership import Fleet, Membership, default_names, read_fleet
from gossamer.network.merge import gather
from gossamer.network.session import Session
from gossamer.network.status import ask, ask_run, table
from gossamer.running_statistics import Moments
from gossamer.runs import checkpoints
from gossamer.runs.checkpoints import Checkpoint
from gossamer.runs.folder import create_run, read_last_row, read_metrics
from gossamer.runs.lock import claimed
from gossamer.runs.log import NonFiniteParameters
from gossamer.runs.metrics import merged_rows
from gossamer.runs.restore import restore_population
from gossamer.runs.serialization import to_data
from gossamer.runtimes.agent_step import spread_alone
from gossamer.runtimes.build import build, initial_population, population_shape, tree_bytes
from gossamer.runtimes.workers import Worker
from gossamer.schedules import Schedule
from gossamer.system.signals import Interrupted, Stop
from gossamer.train import resume, train
from small import small_experiment

IN_STEP = Schedule("most_recent", staleness=0)
# What agents compute is the same; the vectorised runtime fuses it otherwise, and rounds the sums of messages otherwise.
TOLERANCE = 1e-5
FREE = Schedule("most_recent")  # nobody waits for anybody
DEADLINE = 120.0  # seconds; reached only where something is broken


def few(**changes):
    return small_experiment(**{"agents": 4, "tasks": 4, "schedule": IN_STEP, "runtime": "network", **changes})


def parameters(run):
    return jax.tree.leaves(restore_population(run)[2].learner.params)


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """A finished launch of four processes over mutual TLS; tests that change it take a copy."""
    return launch(
        few(rounds=4, checkpoint_every=2), tmp_path_factory.mktemp("launched") / "run", Launch(tls=True)
    )


@pytest.fixture
def copied(launched, tmp_path):
    return Path(shutil.copytree(launched, tmp_path / "run"))


def test_processes_in_step_compute_what_one_program_does(launched, tmp_path):
    vectorised = train(few(rounds=4, checkpoint_every=2, runtime="vectorised"), tmp_path / "vectorised")
    for ours, theirs in zip(parameters(launched), parameters(vectorised), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
    ours, theirs = (read_metrics(run / "metrics.jsonl") for run in (launched, vectorised))
    for name in ("round", "env_steps", "episodes"):
        assert [row[name] for row in ours] == [row[name] for row in theirs]
    for mine, reference in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine["episodic_return"], reference["episodic_return"], rtol=1e-5)
        assert mine["messages"]["sent"] == reference["messages"]["sent"]
        assert mine["messages"]["combined"] == reference["messages"]["combined"]
    # a run like any other from here on
    assert evaluate(launched, episodes=1).returns.shape == (1, 4, 4, 1)
    with pytest.raises(InputError, match="gossamer launch, and launch --resume, run it"):
        resume(launched)


@pytest.mark.slow
def test_an_interrupted_launch_goes_on_as_if_it_had_not_been(tmp_path):
    """Ctrl-C in a terminal reaches the command; its agents are told by it, once."""
    experiment = few(rounds=40, checkpoint_every=2)
    flags = (
        "--agents 4 --tasks 4 --topology ring --rounds 40 --checkpoint-every 2 --max-steps 20 --hidden 8 8"
    )
    rule = "--rule most_recent --staleness 0"
    run = tmp_path / "run"
    command = [
        Path(sys.executable).parent / "gossamer",
        "launch",
        "cartpole-balance",
        *flags.split(),
        *rule.split(),
    ]
    with subprocess.Popen(
        [*command, "--out", run], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: rounds_of(run) and min(rounds_of(run)) >= 3, process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert f"resume with: gossamer launch --resume {run}" in said
    assert max(rounds_of(run)) < 40
    assert evaluate(run, episodes=1).returns.shape == (1, 4, 4, 1)
    before = (run / "config.json").read_bytes()
    with pytest.raises(InputError, match=r"rounds is 1; agents of .*run have run \d+ already"):
        resume_launch(run, rounds=1)
    assert (run / "config.json").read_bytes() == before
    resume_launch(run)
    launch(experiment, tmp_path / "whole")
    for ours, theirs in zip(parameters(run), parameters(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def rounds_of(run):
    """The last round in the metrics of each agent that has any."""
    paths = [agent_folder(run, name) / "metrics.jsonl" for name in default_names(4)]
    rows = [read_last_row(path) for path in paths]
    return [] if None in rows else [row["round"] for row in rows]


def wait_for(condition, process=None, seconds=None):
    until = time.monotonic() + (seconds or DEADLINE)
    while not condition():
        assert time.monotonic() < until, "it did not come to that in time"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_only_who_holds_all_agents_needs_memory_for_all(tmp_path, monkeypatch):
    """A small device is one of many; a launch here, and what is gathered, are whole."""
    experiment, fleet = few(rounds=2, schedule=FREE), free_fleet(4)
    folders = [tmp_path / name for name in fleet.names]
    for folder in folders:
        agent = Membership(fleet, folder.name, ()).data()
        create_run(folder, {"experiment": to_data(experiment), "agent": agent})
    parts = build(experiment)
    whole = 2 * tree_bytes(population_shape(parts.algorithm, experiment, None, parts.tasks))
    monkeypatch.setattr("gossamer.runtimes.build.usable_memory", lambda: whole - 1)
    for hold in (
        lambda: launch(experiment, tmp_path / "new"),
        lambda: gather(folders, tmp_path / "new"),
        lambda: restore_population(folders[0]),
    ):
        with pytest.raises(InputError, match="the population would need"):
            hold()
    assert not (tmp_path / "new").exists()
    assert Member(experiment, fleet, "agent-3", tmp_path / "device", begins_with="own").join() is None
    monkeypatch.setattr("gossamer.runtimes.build.usable_memory", lambda: 2**10)
    with pytest.raises(InputError, match="agent 3 with a message of each of 2 others would need"):
        be_agent(experiment, Device("agent-3", listen=("tcp/127.0.0.1:0",)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def free_fleet(agents, title="test"):
    names = default_names(agents)
    return Fleet.named(title, names, addresses=local_addresses(names, tls=False))


class Member:
    """An agent in a thread of this process, as ``run_member`` runs it in a process of its own."""

    def __init__(self, experiment, fleet, name, folder, **choices):
        others = tuple(fleet.addresses[each] for each in fleet.names if each < name)
        self.stop, self.ended = Stop(), None
        membership = Membership(fleet, name, (fleet.addresses[name],), others, **choices)
        self._thread = threading.Thread(target=self._run, args=(experiment, membership, folder))
        self._thread.start()

    def _run(self, experiment, membership, folder):
        try:
            run_member(experiment, membership, folder, self.stop)
        except Exception as error:
            self.ended = error

    def join(self):
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()
        return self.ended

    def leave(self):
        self.stop.requested = True
        return self.join()


FREE = Schedule("most_recent", staleness=None)
"""Nobody waits for anybody."""


def pair(**changes):
    return few(
        **{"agents": 2, "tasks": 2, "schedule": FREE, "rounds": 10**6, "checkpoint_every": 5, **changes}
    )


def test_a_neighbour_that_is_ahead_does_not_change_what_lockstep_reports(tmp_path, monkeypatch):
    """Agent 0 measures its distance once its neighbour's next message is there; agent 1 as soon as it can."""
    experiment, report = pair(schedule=IN_STEP, rounds=5), AgentRuntime._report

    def rows(title):
        fleet = free_fleet(2, title)
        agents = [Member(experiment, fleet, name, tmp_path / title / name) for name in fleet.names]
        assert [agent.join() for agent in agents] == [None, None]
        return [
            [{**row, "time": None} for row in read_metrics(tmp_path / title / name / "metrics.jsonl")]
            for name in fleet.names
        ]

    def report_late(self):
        if self._number == 0 and self._done < experiment.rounds:
            held = self._inbox.wait_for(lambda held: bool((held.version > self._done).all()), math.inf)
            assert held.version.tolist() == [self._done + 1]
        return report(self)

    early = rows("early")
    monkeypatch.setattr(AgentRuntime, "_report", report_late)
    assert rows("late") == early
    assert all(row["consensus_distance"] > 0 for agent in early for row in agent)


def last_round(folder):
    row = read_last_row(folder / "metrics.jsonl")
    return 0 if row is None else row["round"]


def test_a_late_agent_begins_with_what_its_neighbour_has_and_an_old_process_ends(tmp_path):
    experiment, fleet = pair(), free_fleet(2)
    first = Member(experiment, fleet, "agent-0", tmp_path / "first")
    wait_for(lambda: last_round(tmp_path / "first") >= 20)
    late = Member(experiment, fleet, "agent-1", tmp_path / "late")
    wait_for(lambda: last_round(tmp_path / "late") > 0)
    assert read_metrics(tmp_path / "late" / "metrics.jsonl")[0]["round"] > 20
    found = ask(experiment, fleet, "none", None, "observer-test", DEADLINE)
    assert {name: each["rounds"] for name, each in found.answers.items()} == dict.fromkeys(fleet.names, 10**6)
    assert found.answers["agent-1"]["hears"]["agent-0"]["present"]
    assert found.consensus_distance is not None
    assert 0 <= found.consensus_distance < 10
    assert "2 of 2 agents answer" in str(table(found).title)
    # somebody begins agent-1 again elsewhere, and the process that was it finds out
    elsewhere = {**fleet.addresses, "agent-1": local_addresses(["agent-1"], tls=False)["agent-1"]}
    anew = Member(experiment, replace(fleet, addresses=elsewhere), "agent-1", tmp_path / "anew")
    assert isinstance(late.join(), Replaced)
    wait_for(lambda: last_round(tmp_path / "anew") > last_round(tmp_path / "late"))
    assert isinstance(anew.leave(), Interrupted)
    assert isinstance(first.leave(), Interrupted)


@pytest.mark.slow
def test_an_agent_of_a_directed_ring_begins_again(tmp_path):
    """Those that only hear it answer it too, when it asks what neighbours have."""
    experiment = few(
        agents=3, tasks=3, topology="directed_ring", rounds=10**6, checkpoint_every=10, schedule=FREE
    )
    run, killed = tmp_path / "run", []

    def kill_and_stop():
        folder = agent_folder(run, "agent-2")
        wait_for(lambda: last_round(folder) >= 20)
        killed.append(json.loads((folder / "process.json").read_text())["pid"])
        os.kill(killed[0], signal.SIGKILL)
        wait_for(lambda: json.loads((folder / "process.json").read_text())["pid"] != killed[0])
        here = last_round(folder)
        wait_for(lambda: last_round(folder) > here)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=kill_and_stop)
    thread.start()
    with pytest.raises(Interrupted, match="all agents have saved themselves; resume with"):
        launch(experiment, run, Launch(restarts=1))
    thread.join(DEADLINE)
    log = output_of(run, "agent-2").read_text()
    assert log.count("begins with a neighbour's parameters") == 1
    assert "Traceback" not in log


def test_a_folder_is_written_by_one_process_only(copied):
    run = copied
    before = (agent_folder(run, "agent-0") / "metrics.jsonl").read_bytes()
    config = (run / "config.json").read_bytes()
    with claimed(run), pytest.raises(InputError, match=r"another process writes to .*run; stop it first"):
        resume_launch(run, rounds=6)
    assert (run / "config.json").read_bytes() == config
    own, membership = load_membership(agent_folder(run, "agent-0"))
    folder = agent_folder(run, "agent-0")
    with claimed(folder), pytest.raises(InputError, match="another process writes to"):
        run_member(own, membership, folder, Stop())
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_agents_are_gathered_into_nothing_else_than_their_own_run(copied, tmp_path):
    run = copied
    folders = [agent_folder(run, name) for name in default_names(4)]
    other = train(small_experiment(rounds=2), tmp_path / "other")
    for taken in (other, folders[0]):
        before = (taken / "metrics.jsonl").read_bytes()
        with pytest.raises(InputError, match="holds another run, which would be overwritten; give a folder"):
            gather(folders, taken)
        assert (taken / "metrics.jsonl").read_bytes() == before
    once, again = (gather(folders, tmp_path / "new") for _ in range(2))
    assert read_metrics(once / "metrics.jsonl") == read_metrics(again / "metrics.jsonl")
    assert gather(folders, run) == run
    # who has ended cannot be asked any more, but what it left tells that it has
    shutil.rmtree(folders[3] / "checkpoints")
    told = ask_run(run, seconds=0.1)
    assert told.silent == default_names(4)
    assert told.saved == dict.fromkeys(told.silent[:3], 4) | {"agent-3": None}
    assert list(table(told).columns[2].cells) == ["saved at 4/4"] * 3 + ["nothing saved yet"]


def test_a_graph_is_built_once_and_one_worker_tells_the_form_of_all(tmp_path, monkeypatch):
    experiment, built = few(rounds=1, checkpoint_every=1), []
    supervisor = Supervisor(experiment, free_fleet(4), Launch(), tmp_path)
    monkeypatch.setattr("gossamer.network.launcher.build", lambda each: (built.append(each), build(each))[1])
    connections = {name: supervisor.connects_to(name) for name in default_names(4)}
    assert connections["agent-3"] == ("agent-0", "agent-2")
    assert len(built) == 1
    begun, folders = [], [tmp_path / name for name in default_names(4)]
    fleet = Fleet.named("one by one", default_names(4))
    runtime = AgentRuntime(experiment, build(experiment), 0)
    state = jax.tree.map(lambda leaf: leaf[0], tuple(runtime.saved(runtime.start()))[:-1])
    for folder in folders:
        agent = Membership(fleet, folder.name, ()).data()
        create_run(folder, {"experiment": to_data(experiment), "agent": agent})
        (folder / "metrics.jsonl").write_text(json.dumps(row(1, 1.0)) + "\n")
        metadata = {"metrics_offset": 0, "env_steps": 0, "seconds": 0.0}
        checkpoints.save(folder / "checkpoints", Checkpoint(1, state, metadata))
    start = Worker.start
    monkeypatch.setattr(Worker, "start", lambda self, playing: (begun.append(self), start(self, playing)))
    gather(folders, tmp_path / "run")
    assert len(begun) == 1


@pytest.mark.parametrize(
    "damage",
    [
        b"no json",
        b"[]",
        b"[" * 10**5,
        lambda answer: {**answer, "knows": {"agent-0": "1"}},
        lambda answer: {**answer, "knows": {"agent-0": 2**70}},
        lambda answer: {**answer, "knows": []},
        lambda answer: {**answer, "round": True},
        lambda answer: {**answer, "hears": {"bob": {}}},
        lambda answer: {name: value for name, value in answer.items() if name != "refused"},
    ],
)
def test_answers_that_are_none_are_left_out(damage):
    answer = {
        "name": "ada",
        "host": "here",
        "pid": 7,
        "incarnation": 8,
        "round": 3,
        "rounds": 10,
        "seconds": 1.5,
        "hears": {"bob": {"present": True, "round": None, "age_seconds": None}},
        "knows": {"bob": 4},
        "refused": {"stale": {"bob": 1}},
        "unsent": 2,
    }
    assert read_answer(json.dumps(answer).encode()) == answer
    data = damage if isinstance(damage, bytes) else json.dumps(damage(answer)).encode()
    assert read_answer(data) is None


def test_what_an_agent_saved_it_goes_on_with(tmp_path):
    experiment, fleet = pair(), free_fleet(2)
    for _ in range(2):
        alone = Member(experiment, fleet, "agent-0", tmp_path / "agent", begins_with="own")
        before = last_round(tmp_path / "agent")
        wait_for(lambda before=before: last_round(tmp_path / "agent") >= before + 3)
        assert isinstance(alone.leave(), Interrupted)
    rows = read_metrics(tmp_path / "agent" / "metrics.jsonl")
    assert [row["round"] for row in rows] == list(range(1, len(rows) + 1))
    assert checkpoints.rounds(tmp_path / "agent" / "checkpoints")[-1] == len(rows)
    with pytest.raises(InputError, match="holds agent-0 of another run; give another folder"):
        run_member(
            replace(experiment, seed=1),
            Membership(fleet, "agent-0", (fleet.addresses["agent-0"],)),
            tmp_path / "agent",
            Stop(),
        )
    with pytest.raises(InputError, match="agents number 1 are missing; give those of all 2"):
        gather([tmp_path / "agent"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def alone(experiment, folder, stop=None, listen=None):
    """Be the first of two agents, of which the other never comes."""
    fleet = Fleet.named("alone", default_names(2))
    listen = listen or tuple(local_addresses(["here"], tls=False).values())
    membership = Membership(fleet, "agent-0", listen, begins_with="own")
    return run_member(experiment, membership, folder, Stop() if stop is None else stop)


def test_an_agent_is_saved_from_its_first_moment_and_refuses_to_write_over_what_it_lost(tmp_path):
    folder, stop = tmp_path / "agent", Stop()
    stop.requested = True
    experiment = pair()
    with pytest.raises(
        Interrupted, match="stopped after round 0 of 1000000, saved as of round 0; resume with: the same"
    ):
        alone(experiment, folder, stop)
    assert checkpoints.rounds(folder / "checkpoints") == [0]
    finished = replace(experiment, rounds=5)
    alone(finished, folder)
    before = (folder / "metrics.jsonl").read_bytes()
    assert before.count(b"\n") == 5
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(InputError, match="has metrics and no checkpoint; restore its checkpoints"):
        alone(finished, folder)
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_agents_in_step_that_share_no_checkpoint_begin_again_and_others_go_back(tmp_path, caplog):
    folders = [tmp_path / name for name in default_names(2)]

    def saved(*rounds):
        for folder, numbers in zip(folders, rounds, strict=True):
            shutil.rmtree(folder, ignore_errors=True)
            for number in numbers:
                checkpoints.save(folder / "checkpoints", Checkpoint(number, np.zeros(1), {}))
            if numbers:
                (folder / "metrics.jsonl").write_text("{}\n")
        back_to_common_round(folders)
        return [checkpoints.rounds(folder / "checkpoints") for folder in folders]

    assert saved((0, 5), (5, 10)) == [[0, 5], [5]]
    assert saved((), ()) == [[], []]
    assert (folders[0] / "metrics.jsonl").exists() is False
    assert not caplog.records
    assert saved((0, 5), (10, 15)) == [[], []]
    assert not any((folder / "metrics.jsonl").exists() for folder in folders)
    assert "agents share no checkpoint; all begin again" in caplog.text


def test_lines_are_of_the_same_rounds_wherever_an_agent_began(tmp_path, monkeypatch):
    """One that takes over round 37 writes of round 40, of three rounds, and then like all others."""
    experiment = replace(pair(), rounds=60, record_every=10, checkpoint_every=20)
    join = AgentRuntime.join

    def take_over(self):
        self._done = 37
        return join(self)

    monkeypatch.setattr(AgentRuntime, "join", take_over)
    alone(experiment, tmp_path / "agent")
    rows = read_metrics(tmp_path / "agent" / "metrics.jsonl")
    assert [row["round"] for row in rows] == [40, 50, 60]
    steps = np.diff([0, *(row["env_steps"] for row in rows)])
    assert steps[0] < steps[1:].min()


def test_a_stop_within_a_line_loses_no_round(tmp_path, monkeypatch):
    """The rounds since the last line are in the checkpoint, and the next line counts them."""
    experiment = replace(pair(), rounds=10, record_every=5)
    whole, parted = (tmp_path / name for name in ("whole", "parted"))
    alone(experiment, whole)
    stop, adapt = Stop(), Worker.adapt

    def stop_in_round_7(self, learner, done):
        stop.requested |= done == 6
        return adapt(self, learner, done)

    with monkeypatch.context() as patched:
        patched.setattr(Worker, "adapt", stop_in_round_7)
        with pytest.raises(Interrupted, match="stopped after round 7 of 10, saved as of round 7"):
            alone(experiment, parted, stop)
    assert last_round(parted) == 5
    alone(experiment, parted)
    for name in ("round", "env_steps", "episodes", "episodic_return", "messages"):
        first, second = (
            [row[name] for row in read_metrics(run / "metrics.jsonl")] for run in (whole, parted)
        )
        assert first == second


def test_what_is_not_finite_is_not_saved(tmp_path, monkeypatch):
    """Also where no line of the metrics is due: it was stopped in the middle of one."""
    stop, adapt = Stop(), Worker.adapt

    def diverge(self, learner, done):
        learner, report = adapt(self, learner, done)
        if done == 6:
            stop.requested = True
            learner = learner._replace(params=jax.tree.map(lambda leaf: leaf * np.nan, learner.params))
        return learner, report

    monkeypatch.setattr(Worker, "adapt", diverge)
    experiment = replace(pair(), record_every=5)
    with pytest.raises(
        NonFiniteParameters,
        match=r"agent-0 of seed 0 has .* not finite in rounds 6 to 7; .* checkpoint of round 5 in .* is kept",
    ):
        alone(experiment, tmp_path / "agent", stop)
    assert checkpoints.rounds(tmp_path / "agent" / "checkpoints") == [0, 5]


def open_files(folder):
    """Of this process, in a folder."""
    links = (os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return [link for link in links if str(folder) in link]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="what is open is seen on Linux only")
@pytest.mark.parametrize("begun", [False, True])
def test_who_cannot_enter_the_network_writes_nothing_and_leaves_nothing_open(tmp_path, monkeypatch, begun):
    folder, closed = tmp_path / "agent", []
    experiment = replace(pair(), rounds=5)
    if begun:
        alone(experiment, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    close = Worker.close
    monkeypatch.setattr(Worker, "close", lambda self: (closed.append(self), close(self)))
    threads = set(threading.enumerate())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = (f"tcp/127.0.0.1:{taken.getsockname()[1]}",)
        with pytest.raises(InputError, match="the network could not be opened"):
            alone(experiment, folder, listen=listen)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert folder.exists() == begun
    assert closed
    assert set(threading.enumerate()) <= threads
    assert open_files(folder) == []


def test_what_fails_while_an_agent_is_made_leaves_nothing_open(tmp_path, monkeypatch):
    closed, close = [], Session.close
    monkeypatch.setattr(Session, "close", lambda self: (closed.append(self), close(self)))
    monkeypatch.setattr("gossamer.network.agent_runtime.Peer", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        alone(pair(), tmp_path / "agent")
    assert closed
    assert open_files(tmp_path / "agent") == []
    wait_for(lambda: "send queue" not in {thread.name for thread in threading.enumerate()})


def test_an_agent_collects_ahead_on_the_device(tmp_path):
    """Its actors have episodes to begin with."""
    environment = Acrobot()
    experiment = Experiment(
        environment,
        Impala(hidden=(8, 8)),
        Unrolls(steps=2, actors=1, batch=1, ahead=1),
        tasks=1,
        agents=2,
        copies=2,
        topology="complete",
        schedule=FREE,
        runtime="network",
        rounds=1,
        checkpoint_every=1,
    )
    alone(experiment, tmp_path / "agent")
    assert last_round(tmp_path / "agent") == 1


def test_one_agent_is_made_as_it_is_among_all():
    experiment = few(initial_parameters="averaged", runtime="vectorised")
    parts = build(experiment)
    everybody = initial_population(parts.algorithm, experiment, None, parts.tasks)
    for number in range(4):
        one = initial_population(parts.algorithm, experiment, None, parts.tasks, only=number)
        for mine, all_ in zip(jax.tree.leaves(one), jax.tree.leaves(everybody), strict=True):
            if all_.ndim > 1:
                np.testing.assert_allclose(mine[0, 0], all_[0, number], rtol=1e-6)


def test_all_runtimes_mean_the_same_by_the_distance_of_agents():
    """Stacked, one by one, and on the host; running statistics count nowhere."""
    generator = np.random.default_rng(0)
    messages = [
        {
            "w": generator.normal(size=(2, 3)).astype(np.float32),
            "b": np.float32(generator.normal()) * np.ones((), np.float32),
            "seen": Moments.none(2)._replace(number=np.float32(100 * agent)),
        }
        for agent in range(5)
    ]
    flat = np.stack([np.append(each["w"].ravel(), each["b"]) for each in messages])
    expected = np.sqrt(((flat - flat.mean(0)) ** 2).sum(1).mean())
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *messages)
    assert float(consensus_distance(stacked)) == pytest.approx(expected, rel=1e-6)
    assert float(spread_alone(tuple(messages))[0]) == pytest.approx(expected, rel=1e-6)
    groups = [jax.tree.map(lambda leaf: leaf[None], each) for each in messages]
    assert float(consensus_distance(*groups)) == pytest.approx(expected, rel=1e-6)
    assert consensus_distance(groups[0]) == 0.0


def row(number, value, steps=10):
    return {
        "round": number,
        "env_steps": steps * number,
        "episodes": 2,
        "episodic_return": value,
        "episodic_length": 4.0,
        "consensus_distance": value,
        "losses": {"critic": value},
        "messages": {
            "sent": 2,
            "lost": 1,
            "combined": 1,
            "bytes": 8,
            "links_down": 0.5,
            "mean_age": value,
            "oldest": 3,
            "ages": [0, 1],
        },
        "agent_return": {"each": [value]},
        "task_return": {"each": [value]},
        "time": {"seconds": float(number), "env_steps_per_second": 5.0},
    }


def test_lines_of_agents_become_lines_of_the_population():
    first = [row(1, 1.0), row(2, 3.0)]
    second = [{**row(2, 4.0), "task_return": {"each": [None, 4.0]}}, row(3, 9.0)]  # it joined late
    merged = merged_rows([first, second])
    assert [each["round"] for each in merged] == [1, 2]
    assert [each["env_steps"] for each in merged] == [10, 40]
    assert merged[1]["task_return"] == {"each": [3.0, 4.0]}
    assert merged[1]["episodic_return"] == 3.5
    assert merged[1]["consensus_distance"] == np.sqrt((9 + 16) / 2)
    assert merged[1]["messages"]["mean_age"] == 3.5
    assert merged[1]["messages"]["ages"] == [0, 2]
    assert merged[1]["losses"] == {"critic": 3.5}
    assert np.isnan(merged[0]["agent_return"]["each"][1])


FLEET = """
title = "garden"
observers = ["observer-gardener"]
[agents]
ada = "tls/10.0.0.1:7447"
bob = ""
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FLEET.replace("garden", ""), "title ''"),
        (FLEET.replace("[agents]", "[agent]"), "has 'agent'"),
        (FLEET.replace('bob = ""', "bob = 7"), r"has no table \[agents\] of names and addresses"),
        (FLEET.replace("observer-gardener", "gardener"), "observers has 'gardener'"),
        (FLEET.replace("bob", "Bob"), "names is 'Bob'"),
        ("[agents", "is no TOML file"),
    ],
    ids=["no title", "a table of another name", "an address that is a number", "observer", "name", "no TOML"],
)
def test_a_fleet_that_does_not_do(tmp_path, text, message):
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_fleet(path)


def test_a_device_finds_its_neighbours_in_the_fleets_file(tmp_path):
    path = tmp_path / "fleet.toml"
    path.write_text(FLEET)
    experiment = pair()
    ada, bob = (membership_of(Device(name, path), experiment) for name in ("ada", "bob"))
    assert (ada.listen, ada.connect) == (("tls/10.0.0.1:7447",), ())
    assert (bob.listen, bob.connect) == ((), ("tls/10.0.0.1:7447",))
    assert ada.fleet == bob.fleet
    with pytest.raises(InputError, match="name is 'eve'; it must be one of ada, bob"):
        membership_of(Device("eve", path), experiment)
    with pytest.raises(InputError, match="agent-0 neither listens nor connects"):
        membership_of(Device("agent-0"), experiment)
    # what listens to other machines needs certificates
    with pytest.raises(InputError, match="which requires certificates"):
        be_agent(experiment, Device("ada", path), tmp_path / "ada")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["launch", "cartpole"], "'cartpole' is not a recipe; did you mean"),
        (["launch", "cartpole-balance", "--seeds", "2"], "seeds is 2; a launch runs one seed at a time"),
        (["launch", "cartpole-balance", "--compression", "zip"], "compression"),
        (
            ["launch", "cartpole-balance", "--rule", "push_sum"],
            "rule is 'push_sum', which only the runtime vectorised",
        ),
        (["launch", "--resume", "nowhere"], "nowhere is not a run folder"),
        (["status", "nowhere"], "nowhere is not a run folder"),
        (["agent", "cartpole-balance"], "--name"),
        (["agent", "cartpole-balance", "--name", "eve"], "name is 'eve'; it must be one of agent-0"),
        (["keys", "isue", "x"], "'isue' is no action of keys; did you mean issue?"),
        (["keys", "issue", "nowhere", "--names", "ada"], "nowhere"),
        (["gather", "--out", "x"], "no folder was given"),
        (
            ["train", "cartpole-balance", "--runtime", "network"],
            "gossamer launch, and launch --resume, run it",
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_bad_input_gets_a_sentence_and_writes_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_keys_of_a_fleet(tmp_path, capsys):
    cli.main(["keys", "init", str(tmp_path / "keys"), "--title", "garden"])
    cli.main(
        [
            "keys",
            "issue",
            str(tmp_path / "keys"),
            "--names",
            "ada",
            "observer-gardener",
            "--addresses",
            "10.0.0.1",
        ]
    )
    written = sorted(path.name for path in (tmp_path / "keys").iterdir())
    assert written == [
        "ada.key",
        "ada.pem",
        "authority.key",
        "authority.pem",
        "observer-gardener.key",
        "observer-gardener.pem",
    ]
    assert all(
        os.stat(tmp_path / "keys" / name).st_mode & 0o077 == 0 for name in written if name.endswith(".key")
    )


@pytest.mark.parametrize("package", ["zenoh", "cryptography", "xxhash"])
def test_without_the_extra_a_sentence_names_it(tmp_path, package):
    script = f"import sys; sys.modules[{package!r}] = None\nfrom gossamer.cli import main\nmain(sys.argv[1:])"
    flags = ["launch", "cartpole-balance", "--agents", "5", "--tasks", "5", "--tls", "True", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-c", script, *flags], capture_output=True, text=True, cwd=tmp_path, timeout=DEADLINE
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "gossamer[network]" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_agents_come_and_go_and_the_others_learn_on(tmp_path):
    """A minute; tests/stress/churn has ten."""
    found = churning.churn(60.0, pool=6, least=2, seed=0, folder=tmp_path)
    verdicts = churning.verdicts(found)
    assert all(verdicts.values()), (verdicts, churning.last_line(found, 60.0))
    assert found["killed"] >= 2
    assert found["begun"] >= 4
    assert json.dumps(found)
