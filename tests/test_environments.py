"""Device environments: one step against Gymnasium's own classes, and the contract all of them keep."""

import functools
import math
from dataclasses import FrozenInstanceError, dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv

from gossamer.environments import (
    CartPoleBalance,
    CartPoleState,
    CartPoleSwingUp,
    CartPoleTask,
    Environment,
    Pendulum,
    PendulumState,
    PendulumTask,
    Step,
    TaskSet,
)
from gossamer.environments.soundness import require_sound
from gossamer.errors import InputError
from gossamer.types import Box

KEY = jax.random.key(0)  # of steps, which these environments ignore
# A new environment joins the contract tests by adding a line: (environment, observation size, action bound).
CONTRACT = [
    pytest.param(Pendulum(), 3, 2.0, id="pendulum"),
    pytest.param(CartPoleSwingUp(), 5, 10.0, id="swing-up"),
    pytest.param(CartPoleBalance(), 4, 10.0, id="balance"),
]
every_environment = pytest.mark.parametrize(("environment", "observation_size", "bound"), CONTRACT)
# Single precision rounds every operation to 6e-8; a step is some twenty of them, and its worst cancellation
# (wrapping an angle of up to 25 rad, 1 − cos θ) costs a factor of ten. Measured worst: 1.3e-6.
PRECISIONS = [(True, 1e-12), (False, 1e-5)]
either_precision = pytest.mark.parametrize(("double", "tolerance"), PRECISIONS, ids=["float64", "float32"])
SAMPLES = 400


def draw(seed, *half_ranges) -> Any:
    generator = np.random.default_rng(seed)
    return [generator.uniform(-half_range, half_range, SAMPLES) for half_range in half_ranges]


def draw_tasks(seed, environment):
    """Tasks beyond the paper's grid: uniform over a wider rectangle than its ranges."""
    corners = np.asarray(environment.task_set(4).tasks)
    generator = np.random.default_rng(seed)
    return generator.uniform(0.8 * corners.min(0), 1.5 * corners.max(0), (SAMPLES, 2)).T


def step_all(environment, state, action, task, double):
    """Our step and observation for every sample at once, and the inputs as our precision has rounded them."""
    with jax.enable_x64(double):
        dtype = jnp.dtype("float64" if double else "float32")
        state, action, task = jax.tree.map(lambda x: jnp.asarray(x, dtype), (state, action[:, None], task))
        step = jax.jit(jax.vmap(partial(environment.step, KEY)))(state, action, task)
        observation = jax.jit(jax.vmap(environment.observe))(step.state, task)
        assert {leaf.dtype for leaf in jax.tree.leaves((step.state, step.reward, observation))} == {dtype}
        rounded = jax.tree.map(lambda x: np.asarray(x, np.float64), (state, action[:, 0], task))
        return jax.tree.map(np.asarray, step), np.asarray(observation), rounded


def assert_close(actual, expected, tolerance):
    # Relative, but absolute below 1: a component near zero is the difference of larger ones.
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@either_precision
@pytest.mark.parametrize("environment", [Pendulum(), Pendulum(3.7, 0.08, 1.5, 5.0)], ids=["default", "other"])
def test_pendulum_steps_as_gymnasiums(environment, double, tolerance):
    state = PendulumState(*draw(0, 25.0, environment.max_speed))
    (action,) = draw(1, 2 * environment.max_torque)
    task = PendulumTask(*draw_tasks(2, environment))
    step, observation, (state, action, task) = step_all(environment, state, action, task, double)

    book = PendulumEnv(g=environment.gravity)
    book.dt, book.max_torque, book.max_speed = (
        environment.timestep,
        environment.max_torque,
        environment.max_speed,
    )
    for i in range(SAMPLES):
        book.m, book.l = task.mass[i], task.length[i]
        book.state = np.array([state.angle[i], state.velocity[i]])
        seen, reward, terminated, _, _ = book.step(np.array([action[i]]))
        assert_close([step.state.angle[i], step.state.velocity[i]], book.state, tolerance)
        assert_close(step.reward[i], reward, tolerance)
        assert step.terminated[i] == terminated
        # 3e-6: Gymnasium rounds what it shows to single precision, and so did we an angle of up to 25 rad.
        np.testing.assert_allclose(observation[i], seen, rtol=3e-6, atol=3e-6)
    clipped = np.abs(step.state.velocity) == np.float64(environment.max_speed)
    assert 0 < clipped.sum() < SAMPLES  # both sides of the speed limit were tried


def book_cartpole_step(environment, state, force, task, i):
    """Gymnasium's CartPole with its attributes patched, pushed by a force of any size and sign."""
    book = CartPoleEnv()
    book.gravity, book.tau = environment.gravity, environment.timestep
    book.masscart, book.masspole, book.length = environment.cart_mass, task.pole_mass[i], task.half_length[i]
    book.total_mass = book.masscart + book.masspole
    book.polemass_length = book.masspole * book.length
    book.force_mag = min(abs(force[i]), environment.max_force)
    book.state = np.array([component[i] for component in state])
    _, reward, terminated, _, _ = book.step(int(force[i] > 0))
    return np.asarray(book.state), reward, terminated


@either_precision
@pytest.mark.parametrize(
    "environment",
    [CartPoleSwingUp(), CartPoleBalance(), CartPoleBalance(cart_mass=2.0, gravity=5.0, timestep=0.01)],
    ids=["swing-up", "balance", "other"],
)
def test_cartpole_moves_as_gymnasiums(environment, double, tolerance):
    state = CartPoleState(*draw(0, 3.0, 5.0, 4.0, 8.0))
    (force,) = draw(1, 15.0)
    task = CartPoleTask(*draw_tasks(2, environment))
    step, _, (state, force, task) = step_all(environment, state, force, task, double)
    for i in range(SAMPLES):
        following, _, _ = book_cartpole_step(environment, state, force, task, i)
        assert_close([component[i] for component in step.state], following, tolerance)


def test_balance_ends_and_pays_as_gymnasiums():
    environment = CartPoleBalance()
    state = CartPoleState(*draw(3, 2.6, 3.0, 0.25, 2.0))
    (force,) = draw(4, 10.0)
    task = CartPoleTask(*draw_tasks(5, environment))
    step, _, (state, force, task) = step_all(environment, state, force, task, double=True)
    for i in range(SAMPLES):
        _, reward, terminated = book_cartpole_step(environment, state, force, task, i)
        assert step.reward[i] == reward == 1.0  # also on the failing step
        assert step.terminated[i] == terminated
    assert 0.1 < step.terminated.mean() < 0.9  # both cases were tried


@pytest.mark.parametrize(
    ("state", "terminated"),
    [
        ((0.0, 0.0, math.radians(11.99), 0.0), False),
        ((0.0, 0.0, math.radians(12.01), 0.0), True),
        ((0.0, 0.0, -math.radians(12.01), 0.0), True),
        ((2.39, 0.0, 0.0, 0.0), False),
        ((2.41, 0.0, 0.0, 0.0), True),
        ((-2.41, 0.0, 0.0, 0.0), True),
        ((2.39, 1.0, 0.0, 0.0), True),  # 2.41 after the step
        ((2.41, -1.0, 0.0, 0.0), False),  # 2.39 after it: back in time, as Gymnasium has it
    ],
)
def test_balance_ends_out_of_bounds(state, terminated):
    step = CartPoleBalance().step(KEY, CartPoleState(*jnp.array(state)), jnp.zeros(1), CartPoleTask(0.1, 0.5))
    assert bool(step.terminated) is terminated


@pytest.mark.parametrize("push", [10.0, -10.0])
def test_a_constant_full_force_fails_within_four_steps_on_the_shortest_poles(push):
    environment = CartPoleBalance()
    tasks = environment.task_set(25).deal(agents=1, copies=1)
    state = CartPoleState(*jnp.zeros((4, 1, 25)))
    ended = []
    for _ in range(4):
        state, _, terminated, _ = batched_step(environment)(state, jnp.full((1, 25, 1), push), tasks)
        ended.append(terminated)
    shortest = tasks.half_length == jnp.float32(0.05)
    assert shortest.sum() == 5
    np.testing.assert_array_equal(jnp.stack(ended).any(0), shortest)


@either_precision
def test_swing_up_pays_by_the_tips_distance_and_the_angle(double, tolerance):
    environment = CartPoleSwingUp()
    state = CartPoleState(*draw(6, 3.0, 5.0, 12.0, 8.0))
    (force,) = draw(7, 10.0)
    task = CartPoleTask(*draw_tasks(8, environment))
    step, observation, (state, force, task) = step_all(environment, state, force, task, double)
    for i in range(SAMPLES):
        angle, length = state.angle[i], 2 * task.half_length[i]
        tip = np.array([state.position[i] + length * np.sin(angle), length * np.cos(angle)])
        distance = np.linalg.norm(tip - np.array([0.0, length]))
        assert_close(step.reward[i], 2 / (1 + np.exp(distance)) + np.cos(angle), tolerance)
    assert not step.terminated.any()
    after = [np.float64(component) for component in step.state]
    seen = np.stack([after[0], after[1], np.cos(after[2]), np.sin(after[2]), after[3]], axis=1)
    assert_close(observation, seen, tolerance)


@pytest.mark.parametrize(
    ("position", "angle", "reward"),
    [
        (0.0, 0.0, 2.0),  # upright at the centre: the most there is
        (0.0, math.pi, 2 / (1 + math.e**2) - 1),  # hanging: the tip of the 1 m pole is 2 m away
        (3.0, 0.0, 2 / (1 + math.e**3) + 1),
        (500.0, 0.0, 1.0),  # e^d overflows in single precision; the reward does not
    ],
)
def test_swing_up_rewards_worked_out_by_hand(position, angle, reward):
    state = CartPoleState(*jnp.array([position, 0.0, angle, 0.0]))
    step = CartPoleSwingUp().step(KEY, state, jnp.zeros(1), CartPoleTask(pole_mass=0.1, half_length=0.5))
    np.testing.assert_allclose(step.reward, reward, rtol=1e-6)  # single precision


def test_swing_up_never_ends_and_stays_finite_whatever_is_done():
    environment = CartPoleSwingUp()
    task = jax.tree.map(jnp.ravel, environment.task_set(25).deal(25))
    state = jax.vmap(environment.reset)(jax.random.split(jax.random.key(0), 25), task)

    def pump(state, _):
        # Pushing along the pole's own swing puts in as much energy as a force of 10 N can.
        action = 1e6 * jnp.sign(jnp.cos(state.angle) * state.angular_velocity)[:, None]
        step = jax.vmap(partial(environment.step, KEY))(state, -action, task)
        return step.state, (step.state, step.reward, step.terminated)

    _, (states, reward, terminated) = jax.lax.scan(pump, state, None, length=environment.max_steps)
    assert not terminated.any()
    assert all(jnp.isfinite(leaf).all() for leaf in (*states, reward))
    assert jnp.all(jnp.cos(states.angle).max(0) > 0.99)  # every pole can be swung up within the episode


def test_every_pendulum_task_needs_a_swing():
    environment = Pendulum()
    ratios = [
        2 * environment.max_torque / (task.mass * environment.gravity * task.length)
        for task in environment.task_set(25).tasks
    ]
    # The motor's torque over the pole's greatest weight moment, below 1: it cannot lift the pole slowly.
    np.testing.assert_allclose([min(ratios), max(ratios)], [0.28, 0.63], atol=0.006)


@pytest.mark.parametrize(
    ("environment", "centre", "half_range"),
    [
        (Pendulum(), [0.0, 0.0], [math.pi, 1.0]),
        (CartPoleSwingUp(), [0.0, 0.0, math.pi, 0.0], [0.05] * 4),
        (CartPoleSwingUp(initial_spread=0.0), [0.0, 0.0, math.pi, 0.0], [0.0] * 4),
        (CartPoleBalance(), [0.0] * 4, [0.05] * 4),
        (CartPoleBalance(initial_spread=0.2), [0.0] * 4, [0.2] * 4),
    ],
)
def test_initial_states_fill_their_box_independently(environment, centre, half_range):
    task = environment.task_set(1).tasks[0]
    keys = jax.random.split(jax.random.key(0), 4000)
    states = np.stack(jax.vmap(lambda key: environment.reset(key, task))(keys), axis=1) - np.float32(centre)
    half_range = np.asarray(half_range)
    assert np.all(np.abs(states) <= half_range + 1e-6)  # float32 at π
    # The largest of 4000 draws misses the end by 1 % with odds of 1e-9; a uniform draw's deviation is r/√3.
    assert np.all(np.abs(states).max(0) >= 0.99 * half_range)
    np.testing.assert_allclose(states.std(0), half_range / math.sqrt(3), rtol=0.03, atol=1e-6)
    if half_range.all():
        # Four standard errors of a correlation of 4000 pairs.
        assert np.all(np.abs(np.corrcoef(states.T) - np.eye(len(centre))) < 4 / math.sqrt(4000))


@every_environment
def test_it_declares_itself(environment, observation_size, bound):
    assert isinstance(environment, Environment)
    assert environment.max_steps == 200
    assert environment.observation_size == observation_size
    assert environment.action_space == Box(size=1, bound=bound)


@every_environment
def test_it_is_its_constants(environment, observation_size, bound):
    assert environment == type(environment)()
    assert hash(environment) == hash(type(environment)())
    assert environment != type(environment)(gravity=1.0)
    with pytest.raises(FrozenInstanceError):
        environment.gravity = 1.0


@every_environment
def test_it_runs_over_agents_and_environments(environment, observation_size, bound):
    tasks = environment.task_set(6).deal(agents=3, copies=2)
    state = reset_all(environment, tasks)
    action = jax.random.normal(jax.random.key(1), (3, 4, 1)) * 3 * bound
    step = batched_step(environment)(state, action, tasks)
    observation = jax.jit(jax.vmap(jax.vmap(environment.observe)))(step.state, tasks)
    assert observation.shape == (3, 4, observation_size)
    assert step.reward.shape == step.terminated.shape == (3, 4)
    assert step.terminated.dtype == bool
    assert jax.tree.structure(step.state) == jax.tree.structure(state)
    for leaf in jax.tree.leaves((step.state, step.reward, observation)):
        assert leaf.dtype == jnp.float32
        assert jnp.isfinite(leaf).all()


@functools.cache
def batched_step(environment):
    """The step of every environment of every agent."""
    return jax.jit(jax.vmap(jax.vmap(partial(environment.step, KEY))))


@functools.cache
def batched_reset(environment):
    return jax.jit(jax.vmap(jax.vmap(environment.reset)))


def reset_all(environment, tasks, seed=0):
    keys = jax.random.split(jax.random.key(seed), jax.tree.leaves(tasks)[0].shape)
    return batched_reset(environment)(keys, tasks)


@every_environment
def test_the_key_decides_and_nothing_else(environment, observation_size, bound):
    tasks = environment.task_set(6).deal(agents=3, copies=2)
    first, again, other = (reset_all(environment, tasks, seed) for seed in (0, 0, 1))
    action = jnp.ones((3, 4, 1))
    step = batched_step(environment)
    for ours, same in zip(
        jax.tree.leaves(step(first, action, tasks)), jax.tree.leaves(step(again, action, tasks)), strict=True
    ):
        np.testing.assert_array_equal(ours, same)
    for ours, different in zip(first, other, strict=True):
        assert not np.any(np.isclose(ours, different, rtol=0, atol=0))
        assert len(np.unique(ours)) == 12  # one key per environment gives each its own start


@every_environment
def test_a_force_beyond_the_bound_is_the_bound(environment, observation_size, bound):
    task = environment.task_set(1).tasks[0]
    state = environment.reset(jax.random.key(2), task)
    within, at, beyond = (
        environment.step(KEY, state, jnp.array([scale * bound]), task).state for scale in (0.9, 1.0, 30.0)
    )
    np.testing.assert_array_equal(np.stack(at), np.stack(beyond))
    assert not np.array_equal(np.stack(within), np.stack(at))


@every_environment
def test_every_parameter_of_a_task_matters(environment, observation_size, bound):
    tasks = environment.task_set(4).tasks  # low-low, low-high, high-low, high-high
    state = environment.reset(jax.random.key(3), tasks[0])
    after = [np.stack(environment.step(KEY, state, jnp.array([0.5 * bound]), task).state) for task in tasks]
    assert len({tuple(state) for state in after}) == 4


@pytest.mark.parametrize(
    ("environment", "single", "first", "second"),
    [
        (Pendulum(), PendulumTask(1.0, 1.0), [0.8, 0.9, 1.0, 1.1, 1.2], [0.8, 0.9, 1.0, 1.1, 1.2]),
        (CartPoleSwingUp(), CartPoleTask(0.5, 0.25), [0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0.4, 0.6, 0.8, 1.0]),
        (
            CartPoleBalance(),
            CartPoleTask(0.1, 0.5),
            [0.1, 0.325, 0.55, 0.775, 1.0],
            [0.05, 0.1625, 0.275, 0.3875, 0.5],
        ),
    ],
)
def test_the_papers_tasks(environment, single, first, second):
    assert environment.task_set(1) == TaskSet((single,))
    assert environment.task_set(25) == TaskSet(tuple(type(single)(a, b) for a in first for b in second))
    assert type(environment.task_set(25).tasks[0]) is type(single)


def test_the_papers_constants():
    pendulum, swing_up, balance = Pendulum(), CartPoleSwingUp(), CartPoleBalance()
    assert (pendulum.gravity, pendulum.timestep, pendulum.max_torque, pendulum.max_speed) == (10, 0.05, 2, 8)
    assert (swing_up.cart_mass, swing_up.gravity, swing_up.timestep, swing_up.max_force) == (
        0.5,
        9.8,
        0.02,
        10,
    )
    assert (balance.cart_mass, balance.gravity, balance.timestep, balance.max_force) == (1.0, 9.8, 0.02, 10)
    assert (balance.max_angle, balance.max_position) == (math.radians(12), 2.4)


@pytest.mark.parametrize(
    ("constructor", "names"),
    [
        (Pendulum, ["gravity", "timestep", "max_torque", "max_speed"]),
        (CartPoleSwingUp, ["cart_mass", "gravity", "timestep", "max_force"]),
        (CartPoleBalance, ["cart_mass", "gravity", "timestep", "max_force", "max_angle", "max_position"]),
    ],
)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_constant_that_is_not_positive_is_refused(constructor, names, value):
    for name in names:
        with pytest.raises(InputError, match=f"^{name} is {value}; it must be a finite number above 0$"):
            constructor(**{name: value})


@pytest.mark.parametrize("constructor", [CartPoleSwingUp, CartPoleBalance])
@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_a_negative_spread_is_refused(constructor, value):
    with pytest.raises(
        InputError, match=f"^initial_spread is {value}; it must be a finite number, 0 or above$"
    ):
        constructor(initial_spread=value)


@pytest.mark.parametrize("constructor", [Pendulum, CartPoleSwingUp, CartPoleBalance])
def test_a_time_limit_below_one_step_is_refused(constructor):
    with pytest.raises(InputError, match="max_steps is 0; it must be at least 1"):
        constructor(max_steps=0)


@pytest.mark.parametrize("environment", [Pendulum(), CartPoleSwingUp(), CartPoleBalance()], ids=repr)
def test_a_task_set_without_tasks_is_refused(environment):
    with pytest.raises(InputError, match="the number of tasks is 0; it must be at least 1"):
        environment.task_set(0)


@dataclass(frozen=True)
class Counting:
    """An environment that counts; what the tests change of it is wrong."""

    max_steps: int = 3
    observation_size: int = 1

    @property
    def action_space(self):
        return Box(size=1, bound=1.0)

    def task_set(self, count):
        return TaskSet((PendulumTask(1.0, 1.0),) * count)

    def reset(self, key, task):
        return jnp.zeros(())

    def observe(self, state, task):
        return jnp.stack([state])

    def step(self, key, state, action, task):
        return Step(state + action[0], -state, state > 2)


class Thawed(Counting):
    __hash__ = None


class Branching(Counting):
    def step(self, key, state, action, task):
        return Step(state + 1 if state > 0 else state, -state, state > 2)


class Rounding(Counting):
    def step(self, key, state, action, task):
        return Step(jnp.round(state).astype(int), -state, state > 2)


class Wordy(Counting):
    def step(self, key, state, action, task):
        return state, -state, state > 2


class Ending(Counting):
    def step(self, key, state, action, task):
        return Step(state, -state, state)


class Paid(Counting):
    def step(self, key, state, action, task):
        return Step(state, action, state > 2)


class Cut(Counting):
    def step(self, key, state, action, task):
        return Step(state, -state, state > 2, truncated=state)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (Counting(max_steps=0), "max_steps of Counting is 0"),
        (Counting(observation_size=2), r"observe returns float32\[1\]"),
        (Thawed(), "Thawed cannot be hashed .*frozen=True"),
        (Branching(), "Branching.step cannot be traced by JAX .*pure function of arrays"),
        (Rounding(), r"returns the state int32\[\], and reset float32\[\]"),
        (Wordy(), "Wordy.step returns a tuple"),
        (Ending(), r"returns the terminated float32\[\]"),
        (Paid(), r"returns the reward float32\[1\]"),
        (Cut(), r"returns the truncated float32\[\]"),
    ],
)
def test_environments_whose_methods_do_not_fit_are_refused(environment, sentence):
    task = PendulumTask(jnp.array(1.0), jnp.array(1.0))
    require_sound(Counting(), task)
    with pytest.raises(InputError, match=sentence):
        require_sound(environment, task)
