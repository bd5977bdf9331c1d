"""Hopper: its physics, reward and ends against Gymnasium's own class, its task draws, and going on exactly."""

import sys

import gymnasium
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.environments.hopper import HopperMass, HopperMassTask, HopperWind, HopperWindTask
from gossamer.environments.protocol import HostEnvironment
from gossamer.errors import InputError

EVERY = np.ones(1, bool)
BOTH = pytest.mark.parametrize("family", [HopperMass, HopperWind])
PRESETS = pytest.mark.parametrize("preset", ["paper", "published_code"])


def streams(count, seed=0):
    return np.array([[seed, 0, env] for env in range(count)])


def mass(*scales):
    return HopperMassTask(np.array(scales))


def wind(*winds):
    return HopperWindTask(*np.array(winds, dtype=float).T)


def actions(steps, simulators, scale=1.0, seed=1):
    shape = (steps, simulators, 3)
    return np.random.default_rng(seed).uniform(-scale, scale, shape).astype(np.float32)


def play(simulators, chosen):
    """Every step of every simulator, each starting anew where its episode ends."""
    every = np.ones(chosen.shape[1], bool)
    history = [simulators.reset(every)]
    for action in chosen:
        step = simulators.step(action, every)
        history += step
        ended = step.terminated | step.truncated
        if ended.any():
            history.append(np.where(ended[:, None], simulators.reset(ended), 0))
    return history


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def book(task, *, steps=1000, **options):
    """Gymnasium's Hopper-v5, drawing its starts from where simulator 0 of seed 0 draws them."""
    environment = gymnasium.make("Hopper-v5", max_episode_steps=steps, disable_env_checker=True)
    for name, value in options.items():
        setattr(environment.unwrapped.model.opt, name, value)
    mass_scale = getattr(task, "mass_scale", np.ones(1))[0]
    environment.unwrapped.model.body_mass[:] *= mass_scale
    environment.unwrapped.model.body_inertia[:] *= mass_scale
    mujoco.mj_setConst(environment.unwrapped.model, mujoco.MjData(environment.unwrapped.model))
    return environment


def reset_book(environment, episode):
    key = np.random.SeedSequence(0, spawn_key=(0, 0, episode))
    environment.unwrapped.np_random = np.random.Generator(np.random.Philox(key))
    return environment.reset()[0]


def assert_same_physics(simulators, reference):
    """Time, positions, velocities, and what the solver starts from."""
    data = reference.unwrapped.data
    expected = np.concatenate([[data.time], data.qpos, data.qvel, data.qacc_warmstart])
    np.testing.assert_array_equal(simulators.state().physics[0, :19], expected)


CASES = [
    pytest.param(HopperMass, mass(1.0), {}, 1.0, id="unchanged"),
    pytest.param(HopperMass, mass(1.0), {}, 3.0, id="actions beyond the bound"),
    pytest.param(HopperMass, mass(0.3), {}, 1.0, id="light"),
    pytest.param(HopperWind, wind((0, 0)), {"density": 1.2, "viscosity": 2e-5}, 1.0, id="still air"),
    pytest.param(
        HopperWind,
        wind((9, -4)),
        {"density": 1.2, "viscosity": 2e-5, "wind": (9, -4, 0)},
        1.0,
        id="windy",
    ),
]


@pytest.mark.parametrize(("family", "task", "options", "scale"), CASES)
def test_1000_steps_with_resets_equal_gymnasiums_to_the_bit(family, task, options, scale):
    environment = family(legacy_healthy_reward=False, max_steps=20)
    simulators, reference = environment.simulate(task, streams(1)), book(task, steps=20, **options)
    np.testing.assert_array_equal(simulators.reset(EVERY)[0], reset_book(reference, 0).astype(np.float32))
    assert_same_physics(simulators, reference)
    episode, ends = 0, {"terminated": 0, "truncated": 0}
    for action in actions(1000, 1, scale):
        step = simulators.step(action, EVERY)
        observation, reward, terminated, truncated, _ = reference.step(action[0])
        assert_same_physics(simulators, reference)
        np.testing.assert_array_equal(step.observation[0], observation.astype(np.float32))
        assert step.reward[0] == reward
        assert (step.terminated[0], step.truncated[0]) == (terminated, truncated and not terminated)
        ends["terminated"] += terminated
        ends["truncated"] += step.truncated[0]
        if terminated or truncated:
            episode += 1
            start = simulators.reset(EVERY)[0]
            np.testing.assert_array_equal(start, reset_book(reference, episode).astype(np.float32))
            assert_same_physics(simulators, reference)
    assert min(ends.values()) > 5  # both ways of ending were tried


def test_velocities_are_seen_up_to_10():
    simulators = HopperMass(legacy_healthy_reward=False).simulate(mass(0.05), streams(1))
    simulators.reset(EVERY)
    seen, true = [], []
    for _ in range(60):
        seen.append(simulators.step(np.full((1, 3), -1, np.float32), EVERY).observation[0, 5:])
        true.append(simulators.state().physics[0, 7:13])
    assert np.abs(true).max() > 11
    np.testing.assert_array_equal(seen, np.clip(true, -10, 10).astype(np.float32))


def upset(family_arguments, **components):
    """One step from a state with some components of [qpos, qvel] replaced."""
    simulators = HopperMass(**family_arguments).simulate(mass(1.0), streams(1))
    simulators.reset(EVERY)
    state = simulators.state()
    for index, value in components.items():
        state.physics[0, 1 + int(index[1:])] = value
    simulators.restore(state)
    step = simulators.step(np.full((1, 3), 0.5, np.float32), EVERY)
    after = simulators.state().physics[0, 1:13]
    moved = (after[0] - state.physics[0, 1]) / 0.008
    return step, after, step.reward[0] - moved


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize(
    ("components", "terminated"),
    [
        ({}, False),
        ({"_1": 0.69, "_4": -2.0}, True),
        ({"_2": 0.25}, True),
        ({"_2": -0.25}, True),
        ({"_2": 0.15}, False),
        ({"_9": 150.0}, True),
        ({"_0": 500.0}, False),
    ],
)
def test_the_failing_step_earns_the_living_reward_only_under_legacy(legacy, components, terminated):
    step, after, rest = upset({"legacy_healthy_reward": legacy}, **components)
    height, tilt = after[1:3]
    unhealthy = height <= 0.7 or abs(tilt) >= 0.2 or np.abs(after[2:]).max() >= 100
    assert step.terminated[0] == terminated == unhealthy
    # 1e-6: the cost is computed from actions in single precision.
    assert rest == pytest.approx((legacy or not terminated) - 1e-3 * 0.75, abs=1e-6)


def test_a_step_that_fails_at_the_time_limit_is_terminated_and_not_truncated():
    late, _, _ = upset({"max_steps": 1})
    both, _, _ = upset({"max_steps": 1}, _2=0.25)
    assert (late.terminated[0], late.truncated[0]) == (False, True)
    assert (both.terminated[0], both.truncated[0]) == (True, False)


@PRESETS
def test_wind_across_the_plane_changes_no_bit_and_wind_along_it_does(preset):
    chosen = np.repeat(actions(80, 1), 3, axis=1)
    same = np.array([[0, 0, 0]] * 3)
    simulators = HopperWind(preset=preset).simulate(wind((5, 0), (5, 14), (-5, 0)), same)
    every = np.ones(3, bool)
    simulators.reset(every)
    for action in chosen:
        simulators.step(action, every)
    calm, across, against = simulators.state().physics
    np.testing.assert_array_equal(calm, across)
    assert np.abs(calm - against)[1:13].max() > 1e-3


def test_wind_without_a_medium_has_no_effect():
    states = []
    for density, speed in [(0.0, 0.0), (0.0, 15.0), (1.2, 0.0), (1.2, 15.0)]:
        reference = book(None, density=density, wind=(speed, 0, 0))
        reset_book(reference, 0)
        for action in actions(40, 1):
            reference.unwrapped.do_simulation(action[0], 4)
        states.append(reference.unwrapped.state_vector())
    vacuum, windy_vacuum, air, windy_air = states
    np.testing.assert_array_equal(vacuum, windy_vacuum)
    assert np.abs(air - windy_air).max() > 1e-3


def modified(environment, task):
    model = gymnasium.make("Hopper-v5").unwrapped.model
    original = model.body_mass.copy(), model.body_inertia.copy()
    environment.modify(model, task)
    return model, *original


def test_paper_scales_masses_and_inertias_without_air():
    model, masses, inertias = modified(HopperMass(), HopperMassTask(0.3))
    np.testing.assert_array_equal(model.body_mass, 0.3 * masses)
    np.testing.assert_array_equal(model.body_inertia, 0.3 * inertias)
    assert (model.opt.density, model.opt.viscosity) == (0, 0)


def test_published_code_scales_masses_only_in_air():
    model, masses, inertias = modified(HopperMass(preset="published_code"), HopperMassTask(1.9))
    np.testing.assert_array_equal(model.body_mass, 1.9 * masses)
    np.testing.assert_array_equal(model.body_inertia, inertias)
    assert (model.opt.density, model.opt.viscosity) == (1.2, 2e-4)


@pytest.mark.parametrize(("preset", "viscosity"), [("paper", 2e-5), ("published_code", 2e-4)])
def test_wind_blows_in_air_and_leaves_the_robot_as_it_was(preset, viscosity):
    model, masses, inertias = modified(HopperWind(preset=preset), HopperWindTask(3.0, -4.0))
    np.testing.assert_array_equal(model.opt.wind, [3, -4, 0])
    assert (model.opt.density, model.opt.viscosity) == (1.2, viscosity)
    np.testing.assert_array_equal(model.body_mass, masses)
    np.testing.assert_array_equal(model.body_inertia, inertias)


@pytest.mark.parametrize(("preset", "low", "high"), [("paper", 0.05, 0.95), ("published_code", 0.05, 1.95)])
def test_mass_scales_are_beta_draws_over_the_range(preset, low, high):
    draws = np.asarray(HopperMass(preset=preset).task_set(4000).tasks)[:, 0]
    assert low <= draws.min() < low + 1e-6
    assert high - 1e-6 < draws.max() <= high
    unit = (draws - low) / (high - low)
    # Beta(a, a) has mean 1/2 and variance 1/(4(2a + 1)); a mean of 4000 is off by three of its deviations at most.
    assert unit.mean() == pytest.approx(0.5, abs=3 * np.sqrt(1 / 4.8 / 4000))
    assert unit.var() == pytest.approx(1 / 4.8, rel=0.05)


def test_winds_are_independent_beta_draws_in_both_directions():
    draws = np.asarray(HopperWind().task_set(4000).tasks)
    assert -15 <= draws.min() < -14.99
    assert 14.99 < draws.max() <= 15
    deviation = 30 * np.sqrt(1 / (4 * 1.8))
    np.testing.assert_allclose(draws.mean(0), 0, atol=3 * deviation / np.sqrt(4000))
    np.testing.assert_allclose(draws.std(0), deviation, rtol=0.05)
    assert abs(np.corrcoef(draws.T)[0, 1]) < 3 / np.sqrt(4000)


@BOTH
@given(few=st.integers(2, 30), more=st.integers(0, 30), seed=st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=25)
def test_fewer_tasks_are_the_first_of_more(family, few, more, seed):
    environment = family(task_seed=seed)
    tasks = environment.task_set(few + more)
    assert tasks.tasks[:few] == environment.task_set(few).tasks
    assert tasks != family(task_seed=seed + 1).task_set(few + more)


def test_single_tasks_are_the_unchanged_robot_and_no_wind():
    assert HopperMass().task_set(1).tasks == (HopperMassTask(1.0),)
    assert HopperWind().task_set(1).tasks == (HopperWindTask(0.0, 0.0),)


@BOTH
@PRESETS
def test_restored_simulators_go_on_to_the_bit(family, preset):
    environment = family(preset=preset, max_steps=15)
    tasks = environment.task_set(5)
    tasks = type(tasks.tasks[0])(*np.asarray(tasks.tasks).T)
    chosen = actions(60, 5)
    first = environment.simulate(tasks, streams(5))
    play(first, chosen[:30])
    saved = first.state()
    assert all(len(leaf) == 5 for leaf in saved)
    resumed = environment.simulate(tasks, streams(5))
    resumed.restore(saved)
    every = np.ones(5, bool)
    for action in chosen[30:]:
        went_on, again = first.step(action, every), resumed.step(action, every)
        assert_same(went_on, again)
        ended = went_on.terminated | went_on.truncated
        assert_same([first.reset(ended)], [resumed.reset(ended)])
    assert_same(first.state(), resumed.state())
    assert saved.elapsed.max() < 15  # a copy, which going on has not touched


def test_masked_simulators_stand_still():
    environment = HopperMass(max_steps=1000)
    together = environment.simulate(mass(0.2, 0.5, 0.9), streams(3))
    together.reset(np.ones(3, bool))
    which = np.array([True, False, True])
    before = together.state()
    for action in actions(5, 3):
        together.step(action, which)
    together.reset(np.array([True, False, False]))
    after = together.state()
    assert_same([leaf[1] for leaf in before], [leaf[1] for leaf in after])
    assert after.elapsed.tolist() == [0, 0, 5]
    assert after.episodes.tolist() == [2, 1, 1]


def test_a_simulator_alone_does_what_it_does_among_others():
    environment, chosen = HopperMass(), actions(12, 3)
    together = environment.simulate(mass(0.2, 0.5, 0.9), streams(3))
    alone = environment.simulate(mass(0.5), streams(3)[1:2])
    together.reset(np.ones(3, bool))
    alone.reset(EVERY)
    for action in chosen:
        together.step(action, np.ones(3, bool))
        alone.step(action[1:2], EVERY)
    assert_same([leaf[1] for leaf in together.state()], [leaf[0] for leaf in alone.state()])


def test_starts_are_within_their_range_distinct_and_reproducible():
    environment = HopperMass()
    every = np.ones(40, bool)
    triples = np.array([[seed, agent, env] for seed in range(2) for agent in range(4) for env in range(5)])
    one, other = (environment.simulate(mass(*[1.0] * 40), triples) for _ in range(2))
    starts = np.concatenate([one.reset(every) for _ in range(3)])
    np.testing.assert_array_equal(starts, np.concatenate([other.reset(every) for _ in range(3)]))
    assert len(np.unique(starts, axis=0)) == 120
    noise = starts - np.array([1.25] + [0] * 10, np.float32)
    assert np.abs(noise).max() < 5e-3 + 1e-6
    assert np.abs(noise).max() > 4.9e-3
    # 120 · 11 uniform draws: the mean is off by three of its deviations at most.
    assert abs(noise.mean()) < 3 * 5e-3 / np.sqrt(3 * noise.size)


@BOTH
def test_keeps_the_contract(family):
    environment = family()
    assert isinstance(environment, HostEnvironment)
    tasks = environment.task_set(2).deal(agents=1)
    simulators = environment.simulate(type(tasks)(*(column[0] for column in tasks)), streams(2))
    every = np.ones(2, bool)
    observation = simulators.reset(every)
    step = simulators.step(np.zeros((2, 3), np.float32), every)
    assert observation.dtype == step.observation.dtype == np.float32
    assert observation.shape == step.observation.shape == (2, environment.observation_size)
    assert step.reward.dtype == np.float64
    assert step.terminated.dtype == step.truncated.dtype == bool
    simulators.close()
    simulators.close()


@pytest.mark.parametrize(
    ("arguments", "sentence"), [({"task_seed": -1}, "task_seed is -1"), ({"max_steps": 0}, "max_steps is 0")]
)
@BOTH
def test_bad_input_is_refused_in_one_sentence(family, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        family(**arguments)


@BOTH
def test_an_unknown_preset_is_refused_in_one_sentence(family):
    environment = family()
    # The type check that tests run under would refuse the constructor's argument first.
    object.__setattr__(environment, "preset", "papers")
    with pytest.raises(InputError, match=r"preset is 'papers'; it must be one of paper, published_code"):
        environment.__post_init__()


@BOTH
def test_no_task_is_refused(family):
    with pytest.raises(InputError, match="the number of tasks is 0; it must be at least 1"):
        family().task_set(0)


@pytest.mark.parametrize("package", ["mujoco", "mujoco.batch", "gymnasium"])
def test_a_missing_package_is_one_sentence_that_names_the_extra(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        InputError,
        match=rf"{package}.*; the extra mujoco has both: pip install -e '\.\[mujoco\]' in the clone$",
    ):
        HopperMass().simulate(mass(1.0), streams(1))
    HopperMass().task_set(3)  # needs neither
