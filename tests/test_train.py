"""Runs as a user leaves and finds them: folders, resume, kill, Ctrl-C, divergence."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer import Interrupted, NonFiniteParameters, resume, train
from gossamer.errors import InputError
from gossamer.evaluation.rollouts import play_own_tasks
from gossamer.experience import Steps
from gossamer.runs import checkpoints
from gossamer.runs.checkpoints import DamagedCheckpoint
from gossamer.runs.description import load_experiment
from gossamer.runs.folder import read_config, read_metrics
from gossamer.runs.progress import Silent
from gossamer.runs.restore import restore_population, run_folders
from gossamer.runtimes.build import build, population_shape, tree_bytes
from gossamer.runtimes.rounds import agent_key
from small import GustyBalance, InterruptAfter, small_experiment


def final_state(run, experiment):
    """A checkpoint's learners, environments and mail."""
    parts = build(experiment)
    shape = tuple(population_shape(parts.algorithm, experiment, parts.mailbox, parts.tasks))[:-1]
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), shape)
    return checkpoints.restore_newest(run / "checkpoints", like)


def rows_without_times(run):
    rows = read_metrics(run / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name != "time"} for row in rows]


def assert_same_run(left, right, experiment):
    """All that a checkpoint holds bit for bit, metrics identical except times."""
    ours, theirs = final_state(left, experiment), final_state(right, experiment)
    assert ours.round == theirs.round == experiment.rounds
    jax.tree.map(np.testing.assert_array_equal, ours.state, theirs.state)
    assert rows_without_times(left) == rows_without_times(right)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Forty rounds in one run."""
    return train(small_experiment(rounds=40), tmp_path_factory.mktemp("straight") / "run")


def test_few_programs_are_compiled(tmp_path):
    """Whatever else the host does with jax.numpy is a program too, of which each shape takes 20 ms."""
    compiled = []

    def note(event, seconds, fun_name="", **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(fun_name)

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(note)
    train(small_experiment(rounds=2), tmp_path / "run")
    # The initial population, the rounds, the key of a trace, and probes of the compiler's options.
    assert {"jit(initialise)", "jit(_chunk)"} < set(compiled)
    assert len(compiled) <= 6, compiled


def test_the_folder_is_complete(straight):
    names = {path.name.partition(".tfevents")[0] for path in straight.iterdir()}
    assert names == {"config.json", "metrics.jsonl", "checkpoints", "events.out", "writer.lock"}
    config = read_config(straight)
    assert load_experiment(straight) == small_experiment(rounds=40)
    assert {"jax", "gossamer", "git_revision", "prng"} <= set(config["provenance"])


def test_every_round_has_its_row(straight):
    rows = read_metrics(straight / "metrics.jsonl")
    assert [row["round"] for row in rows] == list(range(1, 41))
    steps = np.diff([0, *(row["env_steps"] for row in rows)])
    # each step of balance earns one: 25 environments' mean return is the steps of the round
    np.testing.assert_allclose([row["episodic_return"] * 25 for row in rows], steps, rtol=1e-5)
    assert all(row["time"]["env_steps_per_second"] > 0 for row in rows)
    assert {row["episodes"] for row in rows} == {25}


def test_in_lockstep_every_message_arrives_at_once(straight):
    experiment = small_experiment()
    shape = population_shape(build(experiment).algorithm, experiment)
    size = tree_bytes(shape.learner.params) // 5
    for row in read_metrics(straight / "metrics.jsonl"):
        assert row["messages"] == {
            "sent": 10,
            "lost": 0,
            "combined": 10,
            "bytes": 10 * size,
            "links_down": 0.0,
            "mean_age": 0.0,
            "oldest": 0,
            "ages": [10],
        }


def test_twenty_and_resume_and_twenty_are_forty(straight, tmp_path):
    run = train(small_experiment(rounds=20), tmp_path / "run")
    resume(run, rounds=40)
    assert_same_run(straight, run, small_experiment(rounds=40))
    assert load_experiment(run).rounds == 40


def test_an_environment_may_keep_a_key_in_its_state(tmp_path):
    """Environments that go on between rounds are saved with their keys, and the noise goes on with them."""
    experiment = small_experiment(environment=GustyBalance(), experience=Steps(7), rounds=8)
    whole = train(experiment, tmp_path / "whole")
    parted = train(replace(experiment, rounds=4), tmp_path / "parted")
    resume(parted, rounds=8)
    assert rows_without_times(parted) == rows_without_times(whole)


def test_rows_after_the_newest_checkpoint_are_run_again(straight, tmp_path):
    """As after a crash: metrics ran ahead of the checkpoint, and a line is half-written."""
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    shutil.rmtree(run / "checkpoints" / "40")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"round": 41, "env_st')
    resume(run)
    assert_same_run(straight, run, small_experiment(rounds=40))


def test_a_run_killed_before_its_first_checkpoint_starts_anew(straight, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(straight / "config.json", run)
    resume(run)
    assert_same_run(straight, run, small_experiment(rounds=40))


def test_rounds_given_where_nothing_has_begun_are_those_of_the_run(tmp_path):
    """They are what the next ``resume`` goes by."""
    run = train(small_experiment(seeds=2, rounds=2), tmp_path / "run")
    begun = tmp_path / "begun"
    (begun / "seed-0").mkdir(parents=True)
    for path in ("config.json", "seed-0/config.json"):
        shutil.copy(run / path, begun / path)
    resume(begun, rounds=4)
    assert [load_experiment(each).rounds for each in (begun, *run_folders(begun))] == [4, 4, 4]
    resume(begun)


def test_a_run_that_lost_its_checkpoints_is_refused_and_untouched(straight, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    shutil.rmtree(run / "checkpoints")
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match="has metrics and no checkpoint; restore its checkpoints"):
        resume(run)
    assert (run / "metrics.jsonl").read_bytes() == before
    with pytest.raises(InputError, match="has metrics and no checkpoint"):
        restore_population(run)


def test_seeds_that_a_kill_left_without_a_folder_are_made_at_resume(tmp_path):
    experiment = small_experiment(seeds=2, rounds=2)
    run = train(experiment, tmp_path / "run")
    cut = tmp_path / "cut"
    cut.mkdir()
    shutil.copy(run / "config.json", cut)
    resume(cut)
    for ours, theirs in zip(run_folders(cut), run_folders(run), strict=True):
        assert_same_run(ours, theirs, small_experiment(rounds=2))


def test_a_graph_that_changed_is_refused_and_one_is_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "edges.txt"
    path.write_text("0 1\n1 2\n2 3\n3 4\n")
    run = train(small_experiment(rounds=2, topology="edges.txt"), tmp_path / "run")
    monkeypatch.chdir("/")
    resume(run, rounds=4)
    assert load_experiment(run).rounds == 4
    path.write_text("0 1\n1 2\n2 3\n3 4\n4 0\n")
    with pytest.raises(InputError, match=r"the weights are not those that .* began with"):
        resume(run, rounds=6)


def test_another_generator_of_random_numbers_is_refused(straight, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    config = read_config(run)
    config["provenance"]["prng"] = "rbg"
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"the random numbers are threefry2x32; .* began with rbg"):
        resume(run)


def test_a_configuration_that_a_person_changed_is_refused(straight, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    config = read_config(straight)
    config["experiment"]["rounds"] = 0
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="rounds is 0; it must be at least 1"):
        load_experiment(run)
    (run / "config.json").write_text(json.dumps({"experiment": [1]}))
    with pytest.raises(InputError, match=r"config\.json describes no experiment|must be"):
        load_experiment(run)


def test_a_damaged_newest_checkpoint_is_warned_of_and_the_one_before_used(straight, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    data = run / "checkpoints" / "40" / "state.safetensors"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.warns(DamagedCheckpoint, match=r"40 is damaged .*38 is used instead"):
        resume(run)
    assert_same_run(straight, run, small_experiment(rounds=40))


def test_resuming_a_finished_run_changes_nothing(straight, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    told = Told()
    resume(run, reporter=told)
    assert told.sentences == [f"{run} has run all 40 rounds; give more to go on"]
    assert_same_run(straight, run, small_experiment(rounds=40))


class Told(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.sentences = []

    def say(self, sentence):
        self.sentences.append(sentence)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_resume_that_is_refused_for_its_metrics_changes_nothing(straight, tmp_path, damage):
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    damage(run / "metrics.jsonl")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="the metrics were damaged"):
        resume(run, rounds=50)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_fewer_rounds_than_done_are_refused(straight):
    before = (straight / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"rounds is 10; .* has run 40 already"):
        resume(straight, rounds=10)
    assert (straight / "metrics.jsonl").read_bytes() == before


def test_seeds_have_a_folder_each_and_resume_together(tmp_path):
    experiment = small_experiment(seeds=2, rounds=4)
    run = train(experiment, tmp_path / "run")
    assert [folder.name for folder in run_folders(run)] == ["seed-0", "seed-1"]
    one, two = (rows_without_times(folder) for folder in run_folders(run))
    assert one != two
    # a kill between the two seeds' saves
    shutil.rmtree(run / "seed-1" / "checkpoints" / "4")
    resume(run, rounds=6)
    longer = train(replace(experiment, rounds=6), tmp_path / "longer")
    for ours, theirs in zip(run_folders(run), run_folders(longer), strict=True):
        assert_same_run(ours, theirs, small_experiment(rounds=6))
    assert load_experiment(run / "seed-1") == small_experiment(seed=1, rounds=6)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_go_on(straight, tmp_path, number):
    run = tmp_path / "run"
    handler = signal.getsignal(number)
    with pytest.raises(Interrupted, match=rf"after round \d+ of 40.*gossamer train --resume {run}"):
        train(small_experiment(rounds=40), run, InterruptAfter(3, number))
    assert signal.getsignal(number) is handler
    stopped = checkpoints.rounds(run / "checkpoints")[-1]
    assert 3 <= stopped < 40
    assert len(read_metrics(run / "metrics.jsonl")) == stopped
    resume(run)
    assert_same_run(straight, run, small_experiment(rounds=40))


def test_divergence_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    experiment = small_experiment(rounds=10, topology="isolated", checkpoint_every=1)
    run = train(replace(experiment, rounds=2), tmp_path / "run")
    saved = final_state(run, replace(experiment, rounds=2))
    learner, environments, mail = saved.state
    bad = jax.tree.map(lambda leaf: leaf.at[2].set(jnp.nan), learner.params.critic)
    learner = learner._replace(params=learner.params._replace(critic=bad))
    checkpoints.save(run / "checkpoints", replace(saved, state=(learner, environments, mail)))
    with pytest.raises(
        NonFiniteParameters,
        match=r"agent 2 of seed 0 has parameters .* in round 3; .* checkpoint of round 2 in",
    ):
        resume(run, rounds=10)
    assert checkpoints.rounds(run / "checkpoints") == [1, 2]
    assert len(read_metrics(run / "metrics.jsonl")) == 2


def test_a_taken_folder_is_refused_and_untouched(straight, tmp_path):
    before = sorted(path.name for path in straight.iterdir())
    with pytest.raises(InputError, match=r"already holds a run; continue it \(--resume"):
        train(small_experiment(), straight)
    assert sorted(path.name for path in straight.iterdir()) == before


def test_bad_choices_write_nothing(tmp_path):
    with pytest.raises(InputError, match="25 tasks cannot be dealt evenly to 4 agents"):
        train(small_experiment(agents=4), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_not_a_run(tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        resume(tmp_path)


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from small import small_experiment
from gossamer import resume, train
run = Path({run!r})
if (run / "config.json").exists():
    resume(run)
else:
    train(small_experiment(rounds=40), run)
"""


def kill_at_random(straight, run, generator):
    """Start or resume a run in another process and kill it once it has written some number of bytes."""
    script = SCRIPT.format(tests=str(Path(__file__).parent), run=str(run))
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(run.parent / "cache")}
    target = generator.uniform(0, (straight / "metrics.jsonl").stat().st_size)
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    metrics = run / "metrics.jsonl"
    while True:
        try:
            return process.wait(timeout=0.005)
        except subprocess.TimeoutExpired:
            if metrics.exists() and metrics.stat().st_size >= target:
                process.send_signal(signal.SIGKILL)


def check_folder(run):
    """No unreadable file, and no line lost before the newest checkpoint."""
    json.loads((run / "config.json").read_text())
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["round"] for row in rows] == list(range(1, len(rows) + 1))
    done = checkpoints.rounds(run / "checkpoints")
    if done:
        experiment = small_experiment(rounds=40)
        assert final_state(run, experiment).round == done[-1]
        assert len(rows) >= done[-1]


def survive_kills(straight, tmp_path, kills):
    generator = random.Random(0)
    killed = attempt = 0
    while killed < kills:
        attempt += 1
        run = tmp_path / f"run-{attempt}"
        for _ in range(3):
            killed += kill_at_random(straight, run, generator) == -signal.SIGKILL
            if run.exists():
                check_folder(run)
        resume(run)
        assert_same_run(straight, run, small_experiment(rounds=40))
    return killed


@pytest.mark.slow
def test_sigkill_at_random_moments(straight, tmp_path):
    assert survive_kills(straight, tmp_path, kills=3) >= 3


@pytest.mark.slow
def test_sigkill_at_many_random_moments(straight, tmp_path):
    assert survive_kills(straight, tmp_path, kills=20) >= 20


def experiment_with_tests(**changes):
    return small_experiment(test_every=4, test_episodes=3, checkpoint_every=6, rounds=12, **changes)


def test_tests_in_training_are_greedy_episodes_in_each_agents_own_tasks(tmp_path):
    """Every fourth line has one, and nobody learns from it: the rest is as without."""
    run = train(experiment_with_tests(), tmp_path / "tested")
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["round"] for row in rows if "test" in row] == [4, 8, 12]
    plain = train(small_experiment(checkpoint_every=6, rounds=12), tmp_path / "plain")
    without = [
        {name: value for name, value in row.items() if name != "test"} for row in rows_without_times(run)
    ]
    assert without == rows_without_times(plain)
    _, parts, population = restore_population(run)
    nobody = jnp.int32(2**31 - 1)
    keys = jnp.stack([agent_key(jnp.int32(0), nobody, jnp.int32(12))])
    again = play_own_tasks(
        parts.algorithm,
        population.learner.params,
        parts.tasks,
        keys,
        parts.environment,
        3,
        True,
    )
    test = rows[-1]["test"]
    by_task = np.zeros(25)
    by_task[parts.task_index] = np.asarray(again)[0].mean(-1)
    np.testing.assert_allclose(test["task_return"], by_task, rtol=1e-6)
    assert test["episodic_return"] == pytest.approx(by_task.mean(), rel=1e-6)
    # greedily, by hand: agent 2's second environment, from the same initial states
    key = jax.random.split(keys[0], 5)[2]
    own = jax.tree.map(lambda leaf: leaf[0, 2], population.learner.params)
    tasks = jax.tree.map(lambda leaf: leaf[2], parts.tasks)
    states = jax.vmap(parts.environment.reset)(
        jax.random.split(jax.random.split(key)[0], 15), jax.tree.map(lambda leaf: jnp.repeat(leaf, 3), tasks)
    )
    task = jax.tree.map(lambda leaf: leaf[1], tasks)
    state, steps = jax.tree.map(lambda leaf: leaf[4], states), 0
    while steps < parts.environment.max_steps:
        action = parts.algorithm.act_greedily(own, parts.environment.observe(state, task))
        state, _, terminated, _ = parts.environment.step(key, state, action, task)
        steps += 1
        if terminated:
            break
    assert float(again[0, 2, 1, 1]) == steps


def test_an_interruption_changes_no_test(tmp_path):
    straight = train(experiment_with_tests(), tmp_path / "straight")
    halves = train(replace(experiment_with_tests(), rounds=6), tmp_path / "halves")
    resume(halves, rounds=12)
    assert rows_without_times(straight) == rows_without_times(halves)


def test_tests_are_where_lines_end_and_on_the_device(tmp_path):
    with pytest.raises(InputError, match="test_every is 5; it must be a multiple of record_every, 2"):
        small_experiment(test_every=5, record_every=2)
    with pytest.raises(InputError, match="test_every is 8; it must be at most rounds, 6"):
        small_experiment(test_every=8)
    with pytest.raises(InputError, match="test_every is 0"):
        small_experiment(test_every=0)
    with pytest.raises(InputError, match="need the runtime vectorised"):
        build(small_experiment(test_every=2, runtime="threads"))
