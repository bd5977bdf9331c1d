"""Engines: the host's against the device's on one deterministic environment, and what they report."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.algorithms import A2C
from gossamer.algorithms.hyperparameters import traced
from gossamer.errors import InputError
from gossamer.experience import Episodes, Steps
from gossamer.experience.host import HostSteps, streams_of
from gossamer.experiment import Experiment
from gossamer.runtimes.build import build
from gossamer.runtimes.choice import runtime_of
from gossamer.runtimes.lockstep import HostRuntime, VectorisedRuntime
from gossamer.runtimes.protocol import Report, Traffic
from gossamer.schedules import Schedule
from small import Countdown, CountdownEnvironment, FixedStart, OnHost

LOCKSTEP = Schedule()
SLOW = Schedule(
    "most_recent",
    staleness=4,
    link_failure=0.2,
    wake_probability=0.7,
    compute_time="uniform:low=0.5,high=1.5",
    slow_agents=((1, 2.0),),
)


@traced
@dataclass(frozen=True)
class GreedyA2C(A2C):
    """A2C that explores nothing: host and device draw their noise from other keys, and here there is none."""

    def act(self, params, key, observation):
        return self.act_greedily(params, observation), jnp.zeros(())


def experiment(environment, schedule=LOCKSTEP, **changes):
    a2c = GreedyA2C(hidden=(8, 8), learning_rate=0.01)
    small = Experiment(
        environment, a2c, Steps(6), tasks=4, agents=4, topology="ring", schedule=schedule, rounds=10, seeds=2
    )
    return replace(small, **changes)


def go(runtime, *rounds, every=1):
    population, reports = runtime.start(), []
    for count in rounds:
        population, more = runtime.advance(population, count, every)
        reports += more
    return population, reports


@pytest.mark.parametrize(
    ("schedule", "shape"),
    [(LOCKSTEP, {}), (SLOW, {}), (LOCKSTEP, {"agents": 1, "topology": "isolated"})],
    ids=["lockstep", "slow", "centralised"],
)
def test_the_host_is_the_device(schedule, shape):
    """Same environment, same learners, through Python's simulators and through one compiled program."""
    ours, theirs = (experiment(each, schedule, **shape) for each in (OnHost(), FixedStart()))
    host, device = (runtime_of(each, build(each)) for each in (ours, theirs))
    assert (type(host), type(device)) == (HostRuntime, VectorisedRuntime)
    on_host, said = go(host, 4, 3, every=3)
    on_device, expected = go(device, 4, 3, every=3)
    assert [report.rounds for report in said] == [report.rounds for report in expected] == [3, 1, 2, 1]
    # float32, compiled apart; errors grow through an unstable pole

    def close(ours, theirs):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)

    jax.tree.map(close, on_host.learner, on_device.learner)
    for one, other in zip(said, expected, strict=True):
        jax.tree.map(close, one.record, other.record)
        jax.tree.map(np.testing.assert_array_equal, one.traffic, other.traffic)
    assert sum(report.record.agents.finished.episodes.sum() for report in said) > 10


@pytest.mark.parametrize("environment", [OnHost(), FixedStart()], ids=["host", "device"])
def test_reports_of_shared_rounds_are_sums(environment):
    each = experiment(environment, SLOW)
    _, single = go(runtime_of(each, build(each)), 7)
    _, shared = go(runtime_of(each, build(each)), 2, 5, every=3)
    assert [report.rounds for report in shared] == [2, 1, 3, 1]
    begin = 0
    for report in shared:
        parts = single[begin : begin + report.rounds]
        begin += report.rounds
        total = parts[0]
        for part in parts[1:]:
            total = total.and_then(part)
        assert total.rounds == report.rounds
        jax.tree.map(np.testing.assert_array_equal, total.traffic, report.traffic)
        # float32 sums in another order
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), total.record, report.record
        )


def test_traffic_adds_up_and_the_oldest_is_the_oldest():
    def of(sent, lost, *ages):
        return Traffic.of(np.array([sent]), np.array([lost]), [np.array(ages)])

    both = of(1, 2, 4, 9).and_then(of(10, 20, 0, 3, 40))
    jax.tree.map(np.testing.assert_array_equal, both, of(11, 22, 4, 9, 0, 3, 40))
    assert (both.oldest.tolist(), both.ages.sum(), both.ages[0, -1]) == ([40], 5, 1)
    assert Traffic.none(2).and_then(Traffic.none(2)).oldest.tolist() == [0, 0]


def test_lockstep_traffic_counts_every_link_of_the_phase():
    each = experiment(FixedStart(), topology="one_peer_exponential", weights="uniform", agents=4, rounds=6)
    _, reports = go(runtime_of(each, build(each)), 3, 3)
    assert all(report.traffic.sent.tolist() == [4, 4] for report in reports)
    each = experiment(FixedStart())
    _, (report,) = go(runtime_of(each, build(each)), 5, every=5)
    assert report.traffic.sent.tolist() == report.traffic.combined.tolist() == [40, 40]


@pytest.mark.parametrize("schedule", [LOCKSTEP, SLOW], ids=["lockstep", "slow"])
@pytest.mark.parametrize("environment", [OnHost(), FixedStart()], ids=["host", "device"])
def test_another_engine_goes_on_to_the_bit(environment, schedule):
    each = experiment(environment, schedule)
    whole, reports = go(runtime_of(each, build(each)), 3, 4)
    runtime = runtime_of(each, build(each))
    assert runtime.resumes == "exact"
    population, _ = go(runtime, 3)
    saved = jax.tree.map(np.array, runtime.saved(population))
    runtime.close()
    other = runtime_of(each, build(each))
    population, later = other.advance(other.restore(jax.tree.map(jnp.asarray, saved)), 4, 1)
    jax.tree.map(np.testing.assert_array_equal, whole, population)
    jax.tree.map(np.testing.assert_array_equal, reports[3:], later)


def test_simulators_that_cannot_tell_their_state_start_new_episodes():
    each = experiment(OnHost(remembers=False))
    runtime = runtime_of(each, build(each))
    assert runtime.resumes == "learner-exact"
    population, _ = go(runtime, 1)
    saved = runtime.saved(population)
    assert jax.tree.leaves(saved.environments) == []
    other = runtime_of(each, build(each))
    _, (report,) = other.advance(other.restore(saved), 1, 1)
    assert isinstance(report, Report)


def test_resting_agents_are_not_stepped():
    tasks = Countdown(np.full((2, 1), 3.0, np.float32))
    streams = streams_of(np.array([0, 5]), np.arange(2), environments=1)
    steps = HostSteps(OnHost(CountdownEnvironment()), 4, tasks, streams)
    steps.start()

    def act(step, observations, carries):
        return jnp.zeros((*observations.shape[:3], 1)), jnp.zeros(observations.shape[:3]), carries

    active = np.array([[True, False], [False, True]])
    first = steps.collect(act, active)
    assert first.finished.episodes[..., 0].tolist() == [[1, 0], [0, 1]]
    assert first.trajectory.reward[0, 0, :, 0].tolist() == [1, 2, 3, 1]
    second = steps.collect(act)
    assert second.trajectory.reward[..., 0].tolist() == [
        [[2, 3, 1, 2], [1, 2, 3, 1]],
        [[1, 2, 3, 1], [2, 3, 1, 2]],
    ]
    assert second.finished.returns[..., 0].tolist() == [[6, 6], [6, 6]]


def test_whole_episodes_on_the_host_are_refused():
    with pytest.raises(
        InputError, match="OnHost runs on the host, where experience is a number of steps; use Steps"
    ):
        build(experiment(OnHost(), experience=Episodes(1)))
