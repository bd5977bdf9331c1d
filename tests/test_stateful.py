"""A policy that carries something through an episode, and an algorithm with a memory, in every runtime."""

import json
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer import Experiment, InputError, evaluate, load_policy, train
from gossamer.algorithms import acting, initial_carry
from gossamer.algorithms.hyperparameters import traced
from gossamer.environments import spaces_of
from gossamer.experience import Episodes, Steps, Unrolls
from gossamer.experience.host import HostSteps, streams_of
from gossamer.runs.restore import restore_population
from gossamer.runtimes.build import build
from gossamer.schedules import Schedule
from gossamer.train import resume, runtime_of
from small import Countdown, CountdownEnvironment, OnHost
from stateful import Cue, Elman, Recall, ReplayedQ
from test_learning import TargetChoice
from test_threads import assert_same

LOCKSTEP = Schedule("most_recent", staleness=0)
KEY = jax.random.key(0)


def small(algorithm, environment, **changes):
    experiment = Experiment(
        environment,
        algorithm,
        Steps(4),
        tasks=3,
        agents=3,
        copies=2,
        topology="ring",
        schedule=LOCKSTEP,
        rounds=6,
    )
    return replace(experiment, **{"checkpoint_every": 6, **changes})


@dataclass(frozen=True)
class FixedRecall(Recall):
    """One sign for all: on the host, simulators draw from other streams in another runtime."""

    def reset(self, key, task):
        return Cue(jnp.ones(()), jnp.zeros((), jnp.int32))


STATEFUL = {
    "recurrent": small(Elman(), Recall()),
    "recurrent-host": small(Elman(), OnHost(FixedRecall())),
    "replay": small(ReplayedQ(), TargetChoice()),
    "replay-host": small(ReplayedQ(), OnHost(TargetChoice())),
}
over_experiments = pytest.mark.parametrize("experiment", STATEFUL.values(), ids=STATEFUL)


def advanced(experiment, rounds=6):
    runtime = runtime_of(experiment, build(experiment))
    try:
        population, _ = runtime.advance(runtime.start(), rounds, 1)
        return jax.device_get(runtime.saved(population))
    finally:
        runtime.close()


@traced
@dataclass(frozen=True)
class Counter(Elman):
    """Its carry is the number of steps so far in the episode, and so is its action."""

    def initial_carry(self):
        return jnp.zeros((), jnp.int32)

    def act(self, params, key, observation, carry):
        return carry[None].astype(jnp.float32), jnp.zeros(()), carry + 1


COUNTER = Counter().bind(spaces_of(CountdownEnvironment()))
TASKS = Countdown(jnp.array([2.0, 3.0]))  # steps until an episode ends


def collected_on_the_device():
    steps, environment, carry = Steps(4), CountdownEnvironment(), initial_carry(COUNTER)
    state = steps.init(environment, KEY, TASKS, carry)
    for _ in range(2):
        collected = steps.collect(environment, acting(COUNTER, ()), KEY, TASKS, state, carry)
        state = collected.state
        yield collected.trajectory


def collected_on_the_host():
    streams = streams_of(np.arange(1), np.arange(1), environments=2)[0, 0]
    steps = HostSteps(OnHost(CountdownEnvironment()), 4, TASKS, streams, initial_carry(COUNTER))
    steps.start()
    for _ in range(2):
        yield steps.collect(act_on_the_host).trajectory


def act_on_the_host(step, seen, carries):
    act = acting(COUNTER, ())
    for _ in range(seen.ndim - 1):
        act = jax.vmap(act, in_axes=(None, 0, 0))
    return act(KEY, seen, carries)


@pytest.mark.parametrize("collected", [collected_on_the_device, collected_on_the_host])
def test_a_carry_starts_anew_with_an_episode_and_its_head_is_kept(collected):
    first, second = collected()
    assert first.action[..., 0].T.tolist() == [[0, 1, 0, 1], [0, 1, 2, 0]]
    assert second.action[..., 0].T.tolist() == [[0, 1, 0, 1], [1, 2, 0, 1]]
    assert first.carry.tolist() == [0, 0]
    assert second.carry.tolist() == [0, 1]


def test_whole_episodes_start_with_the_initial_carry():
    episodes = Episodes(2).collect(
        CountdownEnvironment(), acting(COUNTER, ()), KEY, TASKS, (), initial_carry(COUNTER)
    )
    assert episodes.trajectory.carry.tolist() == [0] * 4
    assert episodes.trajectory.action[:2, :, 0].tolist() == [[0] * 4, [1] * 4]


def test_resting_agents_keep_their_carry():
    streams = streams_of(np.arange(1), np.arange(2), environments=1)[0]
    tasks = Countdown(np.full((2, 1), 9.0, np.float32))
    steps = HostSteps(OnHost(CountdownEnvironment()), 3, tasks, streams, initial_carry(COUNTER))
    steps.start()
    steps.collect(act_on_the_host, np.array([True, False]))
    assert steps.collect(act_on_the_host).trajectory.carry.tolist() == [[3], [0]]


@over_experiments
def test_threads_in_lockstep_are_the_vectorised_runtime(experiment):
    vectorised, threads = advanced(experiment), advanced(replace(experiment, runtime="threads"))
    assert_same(threads.learner, vectorised.learner)
    flat = [
        jax.tree.map(np.ravel, each.environments) for each in (threads, vectorised)
    ]  # on the host all in one row
    assert_same(*flat)


@over_experiments
def test_a_run_resumes_to_the_bit(experiment, tmp_path):
    whole = train(replace(experiment, rounds=4), tmp_path / "whole")
    half = train(replace(experiment, rounds=2), tmp_path / "half")
    resume(half, rounds=4)
    assert json.loads((half / "config.json").read_text())["resume"] == "exact"
    jax.tree.map(np.testing.assert_array_equal, *(restore_population(run)[2] for run in (whole, half)))
    assert np.isfinite(evaluate(half, episodes=2).all).all()


def test_actors_ahead_of_the_learner_keep_carries_of_their_own():
    unrolls = Unrolls(steps=4, actors=2, batch=2, ahead=0)
    experiment = small(Elman(), Recall(), experience=unrolls, runtime="threads", schedule=Schedule())
    experiment = replace(experiment, agents=1, tasks=1, copies=4, topology="isolated")
    assert advanced(experiment).learner.updates.tolist() == [[6]]


@traced
@dataclass(frozen=True)
class Forgetful(Elman):
    """The same network, which acts as if every step were the first of an episode."""

    def act(self, params, key, observation, carry):
        return (*super().act(params, key, observation, self.initial_carry())[:2], self.initial_carry())

    def act_greedily(self, params, observation, carry):
        return super().act_greedily(params, observation, self.initial_carry())[0], self.initial_carry()


@pytest.mark.parametrize(("algorithm", "low", "high"), [(Elman(), 0.95, 1.0), (Forgetful(), 0.3, 0.7)])
def test_only_a_policy_with_a_carry_learns_to_recall(algorithm, low, high, tmp_path):
    experiment = small(algorithm, Recall(), experience=Episodes(64), agents=1, tasks=1, topology="isolated")
    run = train(replace(experiment, copies=1, rounds=100, checkpoint_every=100), tmp_path / "run")
    assert low <= evaluate(run, episodes=100).all[0] <= high
    with pytest.raises(InputError, match="is recurrent"):
        load_policy(run)


def test_a_memory_keeps_the_newest_transitions_and_is_learned_from():
    experiment = small(
        ReplayedQ(), TargetChoice(), agents=1, tasks=1, topology="isolated", schedule=Schedule()
    )
    learner = jax.tree.map(lambda leaf: leaf[0, 0], advanced(experiment, rounds=40).learner)
    memory = learner.memory
    assert memory.count == 40 * 4 * 2 > len(memory.reward) == 64
    assert memory.mask.all()
    np.testing.assert_array_equal(memory.reward, -((memory.action - 1.0) ** 2))
    np.testing.assert_allclose(
        learner.params[0], [-1.0, 0.0, -1.0], atol=0.05
    )  # the rewards of actions 0, 1 and 2
