"""Agents in threads against the vectorised runtime, and workers around one learner against one learner."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer import Interrupted, NonFiniteParameters, resume, train
from gossamer.algorithms import A2C, Impala
from gossamer.environments import Acrobot
from gossamer.errors import InputError
from gossamer.experience import Steps, Unrolls
from gossamer.experiment import Experiment
from gossamer.runs.checkpoints import rounds as checkpoints_of
from gossamer.runs.description import load_experiment
from gossamer.runs.folder import read_metrics
from gossamer.runs.restore import restore_population
from gossamer.runtimes.build import build
from gossamer.runtimes.central import AllReduce, Asynchronous, Stopped
from gossamer.runtimes.choice import runtime_of
from gossamer.runtimes.threads import ThreadsRuntime
from gossamer.runtimes.workers import Worker
from gossamer.schedules import Schedule
from gossamer.schedules.adaptive_timeout import AdaptiveTimeout
from small import InterruptAfter, OnHost

IN_STEP = Schedule("most_recent", staleness=0)


def acrobot(**changes):
    environment = Acrobot()
    a2c = A2C(hidden=(16, 16))
    small = Experiment(
        environment,
        a2c,
        Steps(5),
        tasks=1,
        agents=4,
        copies=2,
        topology="ring",
        schedule=IN_STEP,
        runtime="threads",
        rounds=12,
        checkpoint_every=6,
        record_every=2,
    )
    return replace(small, **changes)


CENTRAL = {"agents": 1, "copies": 8, "workers": 4, "topology": "isolated", "schedule": Schedule()}


def learners_after(experiment, *rounds, every=1):
    runtime = runtime_of(experiment, build(experiment))
    try:
        population, reports = runtime.start(), []
        for count in rounds or (experiment.rounds,):
            population, more = runtime.advance(population, count, every)
            reports += more
        return runtime.saved(population).learner, reports
    finally:
        runtime.close()


def assert_same(ours, theirs):
    # float32, compiled for one agent and for all: sums are rounded in another order
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6), ours, theirs)


@pytest.mark.parametrize(
    "topology",
    [
        "ring",
        pytest.param("directed_ring", marks=pytest.mark.slow),
        pytest.param("complete", marks=pytest.mark.slow),
        "one_peer_exponential",
    ],
)
def test_threads_in_step_are_the_vectorised_runtime(topology):
    experiment = acrobot(topology=topology, weights="uniform")
    threads, reports = learners_after(experiment, 7, 5, every=3)
    vectorised, expected = learners_after(replace(experiment, runtime="vectorised"), 7, 5, every=3)
    assert_same(threads, vectorised)
    assert [report.rounds for report in reports] == [report.rounds for report in expected]
    for ours, theirs in zip(reports, expected, strict=True):
        assert_same(ours.record, theirs.record)
        jax.tree.map(np.testing.assert_array_equal, ours.traffic, theirs.traffic)


def test_on_the_host_too():
    """Each agent has simulators of its own there, with the random numbers that it would have among the others."""
    a2c = A2C(hidden=(8, 8))
    experiment = acrobot(environment=OnHost(), algorithm=a2c, copies=2)
    threads, _ = learners_after(experiment)
    vectorised, _ = learners_after(replace(experiment, runtime="vectorised"))
    assert_same(threads, vectorised)


@pytest.mark.parametrize("host", [False, True], ids=["device", "host"])
def test_a_run_in_step_goes_on_to_the_bit(tmp_path, host):
    experiment = acrobot()
    if host:
        a2c = A2C(hidden=(8, 8))
        experiment = acrobot(environment=OnHost(), algorithm=a2c)
    whole = train(experiment, tmp_path / "whole")
    assert json.loads((whole / "config.json").read_text())["resume"] == "exact"
    half = train(replace(experiment, rounds=6), tmp_path / "half")
    resume(half, rounds=12)
    for one, other in zip(
        read_metrics(whole / "metrics.jsonl"), read_metrics(half / "metrics.jsonl"), strict=True
    ):
        assert {**one, "time": None} == {**other, "time": None}
    jax.tree.map(
        np.testing.assert_array_equal, *(restore_population(run)[2].learner for run in (whole, half))
    )


@pytest.mark.parametrize("rule", ["all_in_peers", "whatever_arrived", "most_recent"])
def test_whoever_waits_for_nobody_counts_every_update(tmp_path, rule):
    experiment = acrobot(schedule=Schedule(rule), topology="directed_ring", weights="uniform", rounds=60)
    run = train(experiment, tmp_path / "run")
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["round"] for row in rows] == list(range(2, 61, 2))
    assert rows[-1]["env_steps"] == 60 * 4 * 2 * 5
    assert checkpoints_of(run / "checkpoints")[-1] == 60
    learner = restore_population(run)[2].learner
    assert learner.updates.tolist() == [[60] * 4]
    assert json.loads((run / "config.json").read_text())["resume"] == "learner-exact"


def test_nothing_is_counted_twice_or_lost_where_a_run_that_waits_for_nobody_goes_on(tmp_path):
    experiment = acrobot(
        schedule=Schedule("all_in_peers"), topology="directed_ring", weights="uniform", rounds=30
    )
    runtime = runtime_of(experiment, build(experiment))
    population, first = runtime.advance(runtime.start(), 11, 2)
    saved = jax.tree.map(np.array, runtime.saved(population))
    runtime.close()
    made = int(saved.learner.updates.sum())
    counted = int(saved.mail[0].updates.sum())
    assert made == 11 * 4 + counted
    assert saved.mail[0].env_steps.sum() == counted * 2 * 5
    other = runtime_of(experiment, build(experiment))
    population, second = other.advance(other.restore(saved), 19, 2)
    final = other.saved(population)
    other.close()
    steps = sum(report.record.agents.env_steps.sum() for report in first + second)
    assert steps + final.mail[0].env_steps.sum() == 30 * 4 * 2 * 5
    assert final.learner.updates.tolist() == [[30] * 4]


def test_a_first_row_after_a_checkpoint_may_be_all_that_was_counted_before():
    """As many updates as a row needs may have come while all were brought to a stand."""
    experiment = acrobot(
        schedule=Schedule("all_in_peers"), topology="directed_ring", weights="uniform", rounds=500
    )
    runtime = runtime_of(experiment, build(experiment))
    population, _ = runtime.advance(runtime.start(), 10, 1)
    saved = jax.tree.map(np.array, runtime.saved(population))
    runtime.close()
    sums, traffic = saved.mail
    full = sums._replace(updates=np.full_like(sums.updates, 1.0))
    other = runtime_of(experiment, build(experiment))
    population = other.restore(saved._replace(mail=(full, traffic)))
    population, (first,) = other.advance(population, 1, 2)
    population, (second,) = other.advance(population, 1, 2)
    other.close()
    assert (first.record.agents.info, first.record.agents.updates.sum()) == ({}, 0)
    both = first.and_then(second)
    assert both.record.agents.updates.sum() == second.record.agents.updates.sum() > 0
    assert both.record.agents.info.keys() == second.record.agents.info.keys() != set()


def test_seeds_are_trained_one_after_the_other(tmp_path):
    experiment = acrobot(seeds=2, rounds=4, checkpoint_every=2)
    run = train(experiment, tmp_path / "run")
    for seed in range(2):
        alone = train(replace(experiment, seeds=1, seed=seed), tmp_path / f"alone-{seed}")
        rows = [read_metrics(folder / "metrics.jsonl") for folder in (run / f"seed-{seed}", alone)]
        assert [{**row, "time": None} for row in rows[0]] == [{**row, "time": None} for row in rows[1]]
    resume(run, rounds=6)
    assert read_metrics(run / "seed-1" / "metrics.jsonl")[-1]["round"] == 6
    assert restore_population(run)[2].learner.updates.tolist() == [[6] * 4] * 2


# one learner in the middle


def test_the_mean_of_the_workers_gradients_is_the_gradient_of_all_simulators():
    experiment = acrobot(runtime="all_reduce", **CENTRAL)
    parts = build(experiment)
    runtime = runtime_of(experiment, parts)
    assert isinstance(runtime, ThreadsRuntime)
    learner = jax.tree.map(lambda leaf: leaf[0, 0], runtime.start().learner)
    collected = [worker._collector.collect(learner, 0).trajectory for worker in runtime._workers]
    runtime.close()
    key = jax.random.key(0)
    gradient_of = jax.jit(lambda trajectory: parts.algorithm.gradient(learner, trajectory, key)[0])
    columns = [each._replace(task=None) for each in collected]
    together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *columns)
    together = together._replace(task=jnp.arange(8))
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 4, *map(gradient_of, collected))
    assert_same(mean, gradient_of(together))


@pytest.mark.parametrize("runtime", ["all_reduce", "a3c"])
def test_one_worker_is_the_learner_alone(runtime):
    experiment = acrobot(runtime=runtime, **{**CENTRAL, "workers": 1})
    alone, _ = learners_after(replace(experiment, runtime="vectorised", workers=1))
    central, _ = learners_after(experiment)
    assert_same(central, alone)


def test_all_reduce_is_the_same_in_every_run():
    experiment = acrobot(runtime="all_reduce", **CENTRAL)
    one, reports = learners_after(experiment, 5, 7)
    other, _ = learners_after(experiment, 12)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert one.updates.tolist() == [[12]]
    assert sum(report.record.agents.env_steps.sum() for report in reports) == 12 * 8 * 5


def test_a3c_applies_every_gradient_and_reports_its_lag(tmp_path):
    run = train(acrobot(runtime="a3c", rounds=40, **CENTRAL), tmp_path / "run")
    learner = restore_population(run)[2].learner
    assert learner.updates.tolist() == [[160]]
    rows = read_metrics(run / "metrics.jsonl")
    assert rows[-1]["env_steps"] == 40 * 8 * 5
    assert max(row["messages"]["oldest"] for row in rows) > 0
    resume(run, rounds=44)
    assert restore_population(run)[2].learner.updates.tolist() == [[176]]


def test_a_gradient_is_applied_to_what_others_have_made_of_the_learner():
    centre = Asynchronous(10.0, 0, lambda learner, gradient: learner - gradient)
    _, version = centre.read()
    assert centre.give(0, 1.0, version) == (9.0, 0)
    assert centre.give(1, 2.0, version) == (7.0, 1)


def test_a_mean_that_will_not_come_releases_who_waits():
    centre = AllReduce(jnp.zeros(()), 0, lambda learner, gradient: learner - gradient, workers=2)
    centre.stop()
    with pytest.raises(Stopped):
        centre.give(0, jnp.ones(()), 0)


# bad input


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"workers": 2}, "workers is 2"),
        ({"schedule": Schedule(latency="constant:value=1")}, "latency is 'constant:value=1'"),
        ({"schedule": Schedule(deadline=3.0)}, "deadline is 3.0"),
        ({"block": 2}, "block is 2"),
        (
            {"runtime": "vectorised", "patience": AdaptiveTimeout(first=1.0)},
            "in the runtime vectorised nobody waits by the clock, in threads and network agents do",
        ),
        ({"schedule": Schedule("push_sum")}, "rule is 'push_sum'"),
        ({"schedule": Schedule(slow_agents=((1, 0.5),))}, "slow_agents makes agent 1 faster"),
        ({"runtime": "a3c"}, "agents is 4"),
        ({"runtime": "all_reduce", **CENTRAL, "workers": 3}, "workers is 3"),
        (
            {"runtime": "all_reduce", **CENTRAL, "schedule": IN_STEP},
            "the runtime all_reduce has no peers and takes the default",
        ),
        ({"topology": "directed_ring:peers=4"}, "peers is 4"),
        ({"topology": "directed_ring:peers=0"}, "peers is 0"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        build(acrobot(**changes))


def test_there_is_at_least_one_worker():
    with pytest.raises(InputError, match="workers is 0; it must be at least 1"):
        acrobot(workers=0)


def test_an_error_in_a_thread_is_the_runs(tmp_path):
    class Broken(OnHost):
        def simulate(self, tasks, streams):
            simulators = super().simulate(tasks, streams)
            simulators.step = None
            return simulators

    a2c = A2C(hidden=(8, 8))
    experiment = acrobot(environment=Broken(), algorithm=a2c)
    with pytest.raises(TypeError):
        learners_after(experiment)


def test_an_interruption_names_the_run_of_all_seeds(tmp_path):
    with pytest.raises(Interrupted, match=f"resume with: gossamer train --resume {tmp_path / 'run'}$"):
        train(acrobot(seeds=2), tmp_path / "run", InterruptAfter(1))


# what is measured on the way


def test_the_distance_of_threads_stays_within_what_is_certified(tmp_path):
    experiment = acrobot(
        schedule=Schedule("all_in_peers", link_failure=0.2, failures="one_sided"),
        topology="directed_ring",
        weights="uniform",
        certify=True,
        rounds=60,
    )
    rows = read_metrics(train(experiment, tmp_path / "run") / "metrics.jsonl")
    certificates = [row["certificate"] for row in rows]
    assert len(certificates) == 30
    assert all(each["holds"] for each in certificates)
    ratios = [each["distance"] / each["bound"] for each in certificates]
    assert 0.01 < float(np.median(ratios)) <= 1.0


def test_a_certificate_that_is_told_of_other_weights_does_not_hold(tmp_path, monkeypatch):
    """Whoever mixes less than it says is found out: here nobody mixes at all."""
    monkeypatch.setattr(Worker, "combine", lambda self, learner, messages, weights: learner)
    experiment = acrobot(schedule=Schedule("whatever_arrived"), certify=True, rounds=100)
    rows = read_metrics(train(experiment, tmp_path / "run") / "metrics.jsonl")
    assert not all(row["certificate"]["holds"] for row in rows)


@pytest.mark.parametrize("runtime", ["threads", "all_reduce"])
def test_gradients_of_agents_are_compared(tmp_path, runtime):
    changes = CENTRAL if runtime == "all_reduce" else {}
    experiment = acrobot(runtime=runtime, correlate=True, rounds=4, checkpoint_every=2, **changes)
    rows = read_metrics(train(experiment, tmp_path / "run") / "metrics.jsonl")
    matrix = np.array(rows[-1]["gradient_correlation"])
    assert matrix.shape == (4, 4)
    np.testing.assert_allclose(np.diag(matrix), 1.0)
    np.testing.assert_allclose(matrix, matrix.T)
    assert np.abs(matrix[np.triu_indices(4, 1)]).max() < 0.9999


def test_keeping_gradients_changes_nothing(tmp_path):
    plain, _ = learners_after(acrobot())
    kept, _ = learners_after(acrobot(correlate=True))
    assert_same(plain, kept)


def test_the_best_policy_is_kept(tmp_path):
    experiment = acrobot(environment=Acrobot(max_steps=10), keep_best=True, rounds=8, checkpoint_every=2)
    run = train(experiment, tmp_path / "run")
    rows = read_metrics(run / "metrics.jsonl")
    means = {row["round"]: row["episodic_return"] for row in rows if row["episodes"]}
    best = json.loads((run / "best.json").read_text())
    first = min(means, key=lambda round: (-means[round], round))
    assert best == {"round": first, "episodic_return": means[first]}
    assert restore_population(run, best=True)[2].learner.updates.tolist() == [[first] * 4]
    with pytest.raises(InputError, match=r"holds no best checkpoint: .* without keep_best \(--keep-best\)"):
        restore_population(train(replace(experiment, keep_best=False), tmp_path / "plain"), best=True)


# actors ahead


def unrolls(**changes):
    environment = Acrobot(max_steps=20)
    algorithm = Impala(hidden=(16, 16))
    experience = changes.pop("experience", Unrolls(steps=6, actors=2, batch=2, ahead=2))
    return acrobot(environment=environment, algorithm=algorithm, experience=experience, copies=4, **changes)


def test_one_learner_with_actors_ahead_counts_all_that_it_learned_from(tmp_path):
    experiment = unrolls(agents=1, topology="isolated", schedule=Schedule(), rounds=12)
    rows = read_metrics(train(experiment, tmp_path / "run") / "metrics.jsonl")
    assert rows[-1]["env_steps"] == 12 * 6 * 4
    assert max(row["losses"]["policy_lag"] for row in rows) > 0
    # episodes of 20 steps: three have ended in each environment after 72
    assert sum(row["episodes"] for row in rows) == 12


def test_learners_with_actors_ahead_gossip_too(tmp_path):
    experiment = unrolls(
        schedule=Schedule("all_in_peers"), topology="directed_ring", weights="uniform", rounds=12
    )
    rows = read_metrics(train(experiment, tmp_path / "run") / "metrics.jsonl")
    assert sum(row["messages"]["combined"] for row in rows) > 0
    assert restore_population(tmp_path / "run")[2].learner.updates.tolist() == [[12] * 4]


def test_actors_that_do_not_run_ahead_have_no_lag(tmp_path):
    alternating = Unrolls(steps=6, actors=2, batch=2, ahead=0)
    experiment = unrolls(agents=1, topology="isolated", schedule=Schedule(), experience=alternating)
    rows = read_metrics(train(experiment, tmp_path / "run") / "metrics.jsonl")
    assert {row["losses"]["policy_lag"] for row in rows} == {0.0}


@pytest.mark.parametrize("host", [False, True], ids=["device", "host"])
def test_a_learner_with_actors_ahead_goes_on(tmp_path, host):
    alone = {"agents": 1, "topology": "isolated", "schedule": Schedule(), "rounds": 4, "checkpoint_every": 2}
    experiment = unrolls(**alone)
    if host:
        experiment = replace(experiment, environment=OnHost(), algorithm=Impala(hidden=(8, 8)))
    run = train(experiment, tmp_path / "run")
    resume(run, rounds=8)
    assert restore_population(run)[2].learner.updates.tolist() == [[8]]
    assert read_metrics(run / "metrics.jsonl")[-1]["env_steps"] == 8 * 6 * 4


def test_all_seeds_get_the_new_number_of_rounds_before_any_goes_on(tmp_path):
    run = train(acrobot(seeds=2, rounds=4, checkpoint_every=2), tmp_path / "run")
    with pytest.raises(Interrupted):
        resume(run, rounds=8, reporter=InterruptAfter(1))
    folders = [run, run / "seed-0", run / "seed-1"]
    assert [load_experiment(folder).rounds for folder in folders] == [8, 8, 8]
    with pytest.raises(InputError, match=r"rounds is 2; .*seed-0 has run 6 already: give as many"):
        resume(run, rounds=2)
    assert load_experiment(run).rounds == 8


def test_a_divergence_is_no_matter_of_the_certificate(tmp_path):
    experiment = acrobot(certify=True, schedule=Schedule("whatever_arrived"))
    experiment = replace(experiment, algorithm=replace(experiment.algorithm, learning_rate=1e38))
    with pytest.raises(NonFiniteParameters):
        train(experiment, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"runtime": "vectorised"}, "experience is Unrolls, whose actors are threads"),
        ({"experience": Unrolls(actors=3, batch=1)}, "actors is 3"),
    ],
)
def test_actors_that_do_not_fit_are_refused(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        build(unrolls(**changes))


@pytest.mark.parametrize("flag", ["certify", "correlate"])
def test_what_the_vectorised_runtime_does_not_measure_is_refused(flag):
    with pytest.raises(InputError, match=f"{flag} is True; the runtime vectorised"):
        build(acrobot(runtime="vectorised", **{flag: True}))
