"""Extreme Acrobot: one step against Gymnasium's own class, the laws it obeys, and how its tasks are drawn."""

import functools
import math
from dataclasses import FrozenInstanceError
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.classic_control.acrobot import AcrobotEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.environments import Environment, TaskSet
from gossamer.environments.acrobot import EASY, HARD, Acrobot, AcrobotState, AcrobotTask
from gossamer.errors import InputError
from gossamer.types import Discrete

KEY = jax.random.key(0)  # of steps, which Acrobot ignores
SAMPLES = 400
UNIT = AcrobotTask(length=1.0, mass=1.0, inertia=1.0)
CONSTANTS = ["gravity", "timestep", "torque", "centre_of_mass", "max_shoulder_speed", "max_elbow_speed"]
# Gymnasium's gravity and goal are written into its code; tests of their own are below.
OTHER = Acrobot(timestep=0.05, torque=3.0, centre_of_mass=0.4, max_shoulder_speed=3.0, max_elbow_speed=5.0)
both_environments = pytest.mark.parametrize("environment", [Acrobot(), OTHER], ids=["default", "other"])
# (fraction of the speed limits, whether in double precision, tolerance). At full speed the elbow turns by 5.7 rad in
# one step of 0.2 s, where the method is far from converged and multiplies an error by up to some thousand: hence 1e-3
# in place of 1e-5 in single precision (6e-8 an operation). Measured worst of 4000: 3e-15, 8e-13, 1.3e-6, 3e-4.
RANGES = [(0.25, True, 1e-13), (1.0, True, 1e-12), (0.25, False, 1e-5), (1.0, False, 1e-3)]
every_range = pytest.mark.parametrize(
    ("fraction", "double", "tolerance"), RANGES, ids=["slow64", "fast64", "slow32", "fast32"]
)


def draw(seed, fraction, environment):
    """States, actions and tasks; the tasks from a wider box than the family's."""
    generator = np.random.default_rng(seed)
    limits = [math.pi, math.pi, *(fraction * v for v in (4 * math.pi, 9 * math.pi))]
    state = generator.uniform(-1, 1, (SAMPLES, 4)) * limits
    return state.T, generator.integers(0, 3, SAMPLES), generator.uniform(0.4, 1.6, (3, SAMPLES))


@functools.cache
def batched_step(environment):
    return jax.jit(jax.vmap(partial(environment.step, KEY)))


@functools.cache
def batched_observe(environment):
    return jax.jit(jax.vmap(environment.observe))


def step_all(environment, state, action, task, double):
    """Our step and observation for every sample at once, and the inputs as our precision has rounded them."""
    with jax.enable_x64(double):
        dtype = jnp.dtype("float64" if double else "float32")
        state, task = AcrobotState(*jnp.asarray(state, dtype)), AcrobotTask(*jnp.asarray(task, dtype))
        step = batched_step(environment)(state, jnp.asarray(action, jnp.int32), task)
        observation = batched_observe(environment)(step.state, task)
        assert {leaf.dtype for leaf in jax.tree.leaves((step.state, step.reward, observation))} == {dtype}
        rounded = [np.asarray(jnp.stack(x), np.float64) for x in (state, task)]
        return jax.tree.map(np.asarray, step), np.asarray(observation), rounded


def book_of(environment, length, mass, inertia):
    """Gymnasium's Acrobot with its attributes patched."""
    book = AcrobotEnv()
    book.dt, book.MAX_VEL_1, book.MAX_VEL_2 = (
        environment.timestep,
        environment.max_shoulder_speed,
        environment.max_elbow_speed,
    )
    book.AVAIL_TORQUE = [-environment.torque, 0.0, environment.torque]
    book.LINK_COM_POS_1 = book.LINK_COM_POS_2 = environment.centre_of_mass
    book.LINK_LENGTH_1, book.LINK_MOI = length, inertia
    book.LINK_MASS_1 = book.LINK_MASS_2 = mass
    book.LINK_LENGTH_2 = math.nan  # it plays no part
    return book


def assert_same_state(actual, expected, tolerance):
    error = np.asarray(actual, np.float64) - expected
    error[:2] = np.remainder(error[:2] + math.pi, 2 * math.pi) - math.pi  # −π and π are one angle
    # Relative, but absolute below 1: a component near zero is the difference of larger ones.
    np.testing.assert_array_less(np.abs(error), tolerance * np.maximum(1.0, np.abs(expected)))


@every_range
@both_environments
def test_it_steps_as_gymnasiums(environment, fraction, double, tolerance):
    state, action, task = draw(0, fraction, environment)
    step, observation, (state, task) = step_all(environment, state, action, task, double)
    ended = []
    for i in range(SAMPLES):
        book = book_of(environment, *task[:, i])
        book.state = state[:, i]
        seen, reward, terminated, _, _ = book.step(action[i])
        assert_same_state([part[i] for part in step.state], book.state, tolerance)
        # 1e-6: Gymnasium rounds what it shows to single precision.
        np.testing.assert_allclose(observation[i], seen, rtol=tolerance + 1e-6, atol=tolerance + 1e-6)
        height = -np.cos(book.state[0]) - np.cos(book.state[0] + book.state[1])
        if abs(height - 1.0) > 4 * tolerance:  # nearer than rounding, either answer is right
            assert step.terminated[i] == terminated
            assert step.reward[i] == reward == (0.0 if terminated else -1.0)
        ended.append(terminated)
    assert 0.05 < np.mean(ended) < 0.95  # both cases were tried
    assert np.all(np.abs(step.state[:2]) <= math.pi * (1 + 1e-7))
    for velocity, bound in zip(
        step.state[2:], (environment.max_shoulder_speed, environment.max_elbow_speed), strict=True
    ):
        assert np.all(np.abs(velocity) <= np.float64(bound) * (1 + 1e-7))
        if fraction == 1.0:
            assert 0 < np.mean(np.abs(velocity) >= np.float64(bound) * (1 - 1e-7)) < 1


@pytest.mark.parametrize(("double", "tolerance"), [(True, 4e-15), (False, 2e-6)], ids=["float64", "float32"])
def test_it_shows_cosines_and_sines_of_any_angle_it_meets(double, tolerance):
    # ±30 rad: a stage of a step goes beyond ±π. There an angle itself is rounded to 1e-6, or 2e-15.
    with jax.enable_x64(double):
        angle = jnp.linspace(-30.0, 30.0, 10_001, dtype="float64" if double else "float32")
        state = AcrobotState(angle, angle[::-1], angle, angle)
        seen = np.asarray(jax.vmap(lambda state: Acrobot().observe(state, UNIT))(state))
        angle = np.asarray(angle, np.float64)
    expected = [np.cos(angle), np.sin(angle), np.cos(angle[::-1]), np.sin(angle[::-1]), angle, angle]
    np.testing.assert_allclose(seen.T, expected, rtol=0, atol=tolerance)


def energy(state, task, environment):
    """Of the two links as rigid bodies, kinetic and potential (J), from the velocities of their centres of mass."""
    first, second = state.shoulder_angle, state.shoulder_angle + state.elbow_angle
    first_rate, second_rate = state.shoulder_velocity, state.shoulder_velocity + state.elbow_velocity
    mass, centre = task.mass, environment.centre_of_mass
    velocity = [
        task.length * part(first) * first_rate + centre * part(second) * second_rate
        for part in (np.cos, np.sin)
    ]
    moving = mass * ((centre * first_rate) ** 2 + velocity[0] ** 2 + velocity[1] ** 2)
    turning = task.inertia * (first_rate**2 + second_rate**2)
    height = -(centre + task.length) * np.cos(first) - centre * np.cos(second)
    return (moving + turning) / 2 + mass * environment.gravity * height


@pytest.mark.parametrize(("task", "gravity"), [(UNIT, 9.8), (EASY, 3.0), (HARD, 9.8)])
def test_without_a_torque_energy_is_conserved(task, gravity):
    environment = Acrobot(gravity=gravity, timestep=0.01, max_shoulder_speed=50.0, max_elbow_speed=50.0)
    with jax.enable_x64(True):
        start = AcrobotState(*jnp.array([2.0, -1.0, 1.0, 3.0]))

        def swing(state, _):
            state = environment.step(KEY, state, jnp.array(1), task).state
            return state, state

        _, states = jax.lax.scan(swing, start, length=1000)
        states = jax.tree.map(np.asarray, states)
    before = energy(jax.tree.map(np.asarray, start), task, environment)
    after = energy(states, task, environment)
    assert np.ptp(np.cos(states.shoulder_angle)) > 0.5  # it did swing
    # Local errors of fifth order in 0.01 s, a thousand of them. Measured worst: 2e-6.
    np.testing.assert_allclose(after, before, rtol=1e-5)


def test_gravity_is_a_change_of_the_unit_of_time():
    # With 4 times the gravity and torque, and half the time, the angles are the same and speeds are doubled.
    state, action, task = draw(1, 0.5, Acrobot())
    slow, _, _ = step_all(Acrobot(), state, action, task, double=True)
    fast_environment = Acrobot(
        gravity=4 * 9.8,
        torque=4.0,
        timestep=0.1,
        max_shoulder_speed=8 * math.pi,
        max_elbow_speed=18 * math.pi,
    )
    state[2:] *= 2
    fast, _, _ = step_all(fast_environment, state, action, task, double=True)
    unit = np.array([1.0, 1.0, 2.0, 2.0])[:, None]
    assert_same_state(fast.state, unit * np.stack(slow.state), 1e-12)
    np.testing.assert_array_equal(fast.terminated, slow.terminated)


def mirrored(state):
    return AcrobotState(*(-part for part in state))


numbers = functools.partial(st.floats, width=32, allow_subnormal=False)
# Rounded tasks: every extreme value, and the single one.
parameters = st.sampled_from([0.5, 0.6123, 0.75, 1.0, 1.25, 1.3987, 1.5])


@given(
    angles=st.tuples(numbers(-3.125, 3.125), numbers(-3.125, 3.125)),
    velocities=st.tuples(numbers(-12.5, 12.5), numbers(-28.25, 28.25)),
    action=st.integers(0, 2),
    task=st.builds(AcrobotTask, parameters, parameters, parameters),
)
@settings(deadline=None, max_examples=150)
def test_left_and_right_are_alike_and_every_step_stays_in_bounds(angles, velocities, action, task):
    take = single_step()
    state = AcrobotState(*(jnp.float32(value) for value in (*angles, *velocities)))
    task = AcrobotTask(*(jnp.float32(value) for value in task))
    step = take(state, jnp.int32(action), task)
    other = take(mirrored(state), jnp.int32(2 - action), task)
    np.testing.assert_array_equal(np.stack(other.state), np.stack(mirrored(step.state)))
    assert other.terminated == step.terminated == (step.reward == 0.0)
    assert step.reward in (-1.0, 0.0)
    # 1e-6: π itself is rounded.
    bounds = np.array([math.pi, math.pi, 4 * math.pi, 9 * math.pi]) * (1 + 1e-6)
    assert np.all(np.abs(np.stack(step.state)) <= bounds)


@functools.cache
def single_step():
    return jax.jit(partial(Acrobot().step, KEY))


@pytest.mark.parametrize(
    ("goal_height", "angles", "terminated"),
    [
        (1.0, (0.0, 0.0), False),  # hanging, at −2
        (1.0, (math.pi, 0.0), True),  # upright, at 2
        (1.0, (math.pi, math.pi), False),  # folded upwards, at 0
        (1.0, (math.pi / 2 + 0.53, 0.0), True),  # 2 sin 0.53 = 1.011
        (1.0, (math.pi / 2 + 0.52, 0.0), False),  # 2 sin 0.52 = 0.994
        (1.0, (-math.pi / 2 - 0.53, 0.0), True),
        (-0.5, (math.pi, math.pi), True),
        (1.9, (math.pi, 0.4), True),  # 1 + cos 0.4 = 1.92
        (1.95, (math.pi, 0.4), False),
    ],
)
@pytest.mark.parametrize("task", [UNIT, HARD])
def test_it_ends_where_the_tip_is_above_the_goal_whatever_the_links_length(
    goal_height, angles, terminated, task
):
    # A millisecond from rest moves nothing by more than 2e-5.
    environment = Acrobot(goal_height=goal_height, timestep=0.001)
    step = environment.step(KEY, AcrobotState(*jnp.array([*angles, 0.0, 0.0])), jnp.array(1), task)
    assert bool(step.terminated) is terminated
    assert float(step.reward) == (0.0 if terminated else -1.0)


@pytest.mark.parametrize(
    "tasks",
    [Acrobot().task_set(100), *Acrobot().held_out().values(), Acrobot().task_set(1)],
    ids=["hundred", "easy", "hard", "single"],
)
def test_pushing_with_the_elbow_reaches_the_goal_and_nothing_blows_up(tasks):
    environment = Acrobot()
    task = jax.tree.map(jnp.ravel, tasks.deal(len(tasks)))
    state = jax.vmap(environment.reset)(jax.random.split(jax.random.key(0), len(tasks)), task)

    def push(state, _):
        # Along the elbow's own motion: the motor puts in energy at every moment.
        action = 1 + jnp.sign(state.elbow_velocity).astype(int)
        step = jax.vmap(partial(environment.step, KEY))(state, action, task)
        return step.state, (step.state, step.terminated)

    _, (states, terminated) = jax.lax.scan(push, state, None, length=environment.max_steps)
    assert all(jnp.isfinite(leaf).all() for leaf in states)
    assert terminated.any(0).mean() > 0.9  # so simple a policy misses a few


@pytest.mark.parametrize("spread", [0.1, 0.5, 0.0])
def test_initial_states_fill_their_box_independently(spread):
    environment = Acrobot(initial_spread=spread)
    keys = jax.random.split(jax.random.key(0), 4000)
    states = np.stack(jax.vmap(lambda key: environment.reset(key, UNIT))(keys), axis=1)
    assert np.all(np.abs(states) <= spread)
    # The largest of 4000 draws misses the end by 1 % with odds of 1e-9; a uniform draw's deviation is r/√3.
    assert np.all(np.abs(states).max(0) >= 0.99 * spread)
    np.testing.assert_allclose(states.std(0), spread / math.sqrt(3), rtol=0.03)
    if spread:
        # Four standard errors of a correlation of 4000 pairs.
        assert np.all(np.abs(np.corrcoef(states.T) - np.eye(4)) < 4 / math.sqrt(4000))


def test_one_task_is_the_single_one_whatever_the_seed():
    assert Acrobot().task_set(1) == Acrobot(task_seed=5).task_set(1) == TaskSet((UNIT,))


@given(seed=st.integers(0, 2**63), count=st.integers(2, 60), more=st.integers(0, 60))
@settings(deadline=None, max_examples=60)
def test_tasks_are_extreme_and_their_number_changes_none_of_them(seed, count, more):
    tasks = Acrobot(task_seed=seed).task_set(count)
    assert len(tasks) == count
    assert tasks == Acrobot(task_seed=seed).task_set(count)
    assert tasks.tasks == Acrobot(task_seed=seed).task_set(count + more).tasks[:count]
    values = np.asarray(tasks.tasks)
    assert np.all(((values >= 0.5) & (values <= 0.75)) | ((values >= 1.25) & (values <= 1.5)))
    np.testing.assert_array_equal(values, np.round(values, 4))


def test_tasks_fill_both_intervals_evenly_and_independently():
    values = np.asarray(Acrobot().task_set(4000).tasks)
    large = values > 1.0
    assert len(np.unique(large, axis=0)) == 8  # each parameter is small or large whatever the others are
    # Four standard errors: of a mean of 4000 coins, and of a correlation.
    np.testing.assert_allclose(large.mean(0), 0.5, atol=4 * 0.5 / math.sqrt(4000))
    assert np.all(np.abs(np.corrcoef(values.T) - np.eye(3)) < 4 / math.sqrt(4000))
    for column, is_large in zip(values.T, large.T, strict=True):
        for low, part in ((0.5, column[~is_large]), (1.25, column[is_large])):
            # Of some 2000 draws the outermost are within 1 % of the ends, with odds of 1e-8.
            np.testing.assert_allclose([part.min(), part.max()], [low, low + 0.25], atol=0.0025)
            np.testing.assert_allclose(part.mean(), low + 0.125, atol=4 * 0.25 / math.sqrt(12 * len(part)))


def test_the_seed_decides_the_tasks():
    sets = {Acrobot(task_seed=seed).task_set(25) for seed in range(20)}
    assert len(sets) == 20
    # Published results name a seed: what it stands for must not change.
    assert Acrobot().task_set(2).tasks == ((0.507, 0.6289, 0.7358), (0.5457, 1.4896, 0.628))
    assert all(type(task) is AcrobotTask for task in Acrobot().task_set(2).tasks)


def test_the_held_out_tasks_are_the_published_ones_and_in_no_training_set():
    held_out = Acrobot(task_seed=3).held_out()
    assert held_out == {"easy": TaskSet((EASY,)), "hard": TaskSet((HARD,))}
    assert tuple(EASY) == (0.7046, 0.5259, 0.6346)
    assert tuple(HARD) == (1.3963, 1.3929, 0.6256)
    assert not {EASY, HARD} & set(Acrobot().task_set(1000).tasks)


def test_it_declares_itself():
    environment = Acrobot()
    assert isinstance(environment, Environment)
    assert environment.max_steps == 500
    assert environment.observation_size == 6
    assert environment.action_space == Discrete(3)


def test_it_is_its_constants():
    book = AcrobotEnv()
    environment = Acrobot()
    assert (environment.timestep, environment.centre_of_mass) == (book.dt, book.LINK_COM_POS_1)
    assert (environment.max_shoulder_speed, environment.max_elbow_speed) == (book.MAX_VEL_1, book.MAX_VEL_2)
    assert (environment.gravity, environment.torque, environment.goal_height) == (9.8, 1.0, 1.0)
    assert environment == Acrobot() != Acrobot(task_seed=1)
    assert hash(environment) == hash(Acrobot())
    with pytest.raises(FrozenInstanceError):
        environment.gravity = 1.0


def test_it_runs_over_agents_and_environments_and_is_traced_once():
    environment = Acrobot()
    traced = []

    def step(*arguments):
        traced.append(arguments)
        return environment.step(KEY, *arguments)

    over_all = jax.jit(jax.vmap(jax.vmap(step)))
    tasks = environment.task_set(6).deal(agents=3, copies=2)
    keys = jax.random.split(jax.random.key(0), (3, 4))
    state = jax.jit(jax.vmap(jax.vmap(environment.reset)))(keys, tasks)
    for seed in range(3):
        action = jax.random.randint(jax.random.key(seed), (3, 4), 0, 3)
        taken = over_all(state, action, tasks)
        state = taken.state
    assert len(traced) == 1
    observation = jax.vmap(jax.vmap(environment.observe))(state, tasks)
    assert observation.shape == (3, 4, 6)
    assert taken.reward.shape == taken.terminated.shape == (3, 4)
    assert taken.terminated.dtype == bool
    for leaf in jax.tree.leaves((state, taken.reward, observation)):
        assert leaf.dtype == jnp.float32
    # One of them alone does the same; the compiler rounds differently, and again at each of the three steps.
    alone = environment.reset(keys[1, 2], jax.tree.map(lambda leaf: leaf[1, 2], tasks))
    for seed in range(3):
        action = jax.random.randint(jax.random.key(seed), (3, 4), 0, 3)
        alone = environment.step(KEY, alone, action[1, 2], jax.tree.map(lambda leaf: leaf[1, 2], tasks)).state
    np.testing.assert_allclose(jnp.stack(alone), jnp.stack(state)[:, 1, 2], atol=1e-5)


def test_every_action_and_every_parameter_of_a_task_matters():
    environment = Acrobot()
    state = environment.reset(jax.random.key(3), UNIT)
    tasks = [UNIT, *(UNIT._replace(**{name: 0.5}) for name in UNIT._fields)]
    after = {
        tuple(np.stack(environment.step(KEY, state, jnp.array(action), task).state).tolist())
        for action in range(3)
        for task in tasks
    }
    assert len(after) == 12


@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_constant_that_is_not_positive_is_refused(name, value):
    with pytest.raises(InputError, match=f"^{name} is {value}; it must be a finite number above 0$"):
        Acrobot(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("initial_spread", -0.1, "initial_spread is -0.1; it must be a finite number, 0 or above"),
        ("initial_spread", math.nan, "initial_spread is nan; it must be a finite number, 0 or above"),
        ("goal_height", 2.1, "goal_height is 2.1; it must lie between -2 and 2"),
        ("goal_height", math.nan, "goal_height is nan; it must lie between -2 and 2"),
        ("max_steps", 0, "max_steps is 0; it must be at least 1"),
        ("task_seed", -1, "task_seed is -1; it must be at least 0"),
    ],
)
def test_another_value_that_does_not_fit_is_refused(name, value, sentence):
    with pytest.raises(InputError, match=f"^{sentence}$"):
        Acrobot(**{name: value})


@pytest.mark.parametrize("count", [0, -3])
def test_a_task_set_without_tasks_is_refused(count):
    with pytest.raises(InputError, match=f"^the number of tasks is {count}; it must be at least 1$"):
        Acrobot().task_set(count)
