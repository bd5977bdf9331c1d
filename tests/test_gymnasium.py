"""Gymnasium environments: against Gymnasium's own stepped by hand, and everything that is refused."""

import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.environments.gymnasium import GymnasiumEnvironment, GymnasiumTask
from gossamer.environments.protocol import HostEnvironment
from gossamer.errors import InputError
from gossamer.runs.description import load_experiment
from gossamer.runs.folder import create_run
from gossamer.types import Box, Discrete

EVERY = np.ones(1, bool)
BOOKS = ["CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0", "Acrobot-v1"]


class Echo(gymnasium.Env):
    """Pays nothing and remembers the action it was given; its spaces are arguments."""

    def __init__(self, action, observation, complain=False):
        self.action_space, self.observation_space = action, observation
        if complain:
            warnings.warn("noisy", UserWarning, stacklevel=1)
            gymnasium.logger.warn("noisier")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.seen = seed, []
        self.observation_space.seed(3)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.seen.append(action)
        return self.observation_space.sample(), 0.0, False, False, {}


def needy(**_):
    raise gymnasium.error.DependencyNotInstalled('Box3D is not installed, run `pip install "box3d"`.')


SEVEN = spaces.Box(-1, 1, (7,))
TWO = spaces.Discrete(2)


@pytest.fixture
def register(monkeypatch):
    """Register an environment under an id of its own, for one test."""
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))

    def add(name, entry_point=Echo, max_episode_steps=5, action=TWO, observation=SEVEN, **more):
        kwargs = {"action": action, "observation": observation, **more}
        gymnasium.register(name, entry_point, max_episode_steps=max_episode_steps, kwargs=kwargs)
        return name

    return add


def streams(count, seed=0, agent=0):
    return np.array([[seed, agent, env] for env in range(count)])


def start(environment, count=1, **where):
    return environment.simulate(GymnasiumTask(np.zeros(count)), streams(count, **where))


def inner(simulators):
    return [environment.unwrapped for environment in simulators.environments]


def draw_actions(space, steps, simulators, seed=0):
    """Within the bounds, up to half as much again beyond them, for a Box; numbers from 0 for a Discrete."""
    generator = np.random.default_rng(seed)
    if isinstance(space, Discrete):
        return generator.integers(space.size, size=(steps, simulators))
    bound = 1.5 * space.bound
    return generator.uniform(-bound, bound, (steps, simulators, space.size)).astype(np.float32)


@pytest.mark.parametrize("name", BOOKS)
def test_episodes_equal_gymnasiums_stepped_by_hand(name):
    environment = GymnasiumEnvironment(name, time_limit=40)
    simulators, reference = start(environment), gymnasium.make(name, max_episode_steps=40)
    observation = simulators.reset(EVERY)[0]
    # The seed is ours to choose; the rest of the first episode, and the next ones, follow from it.
    np.testing.assert_array_equal(observation, reference.reset(seed=inner(simulators)[0].np_random_seed)[0])
    ends = 0
    for action in draw_actions(environment.action_space, 200, 1):
        given = action[0]
        if isinstance(reference.action_space, spaces.Box):
            given = np.clip(given, reference.action_space.low, reference.action_space.high)
        step = simulators.step(action, EVERY)
        seen, reward, terminated, truncated, _ = reference.step(given)
        np.testing.assert_array_equal(step.observation[0], np.float32(seen))
        assert (step.reward[0], step.terminated[0]) == (reward, terminated)
        assert step.truncated[0] == (truncated and not terminated)
        if terminated or truncated:
            ends += 1
            np.testing.assert_array_equal(simulators.reset(EVERY)[0], np.float32(reference.reset()[0]))
    assert ends >= 5


def test_the_observation_of_the_last_step_is_the_last_one_and_no_new_start():
    simulators = start(GymnasiumEnvironment("MountainCarContinuous-v0", time_limit=30))
    simulators.reset(EVERY)
    for _ in range(30):
        step = simulators.step(np.ones((1, 1), np.float32), EVERY)
    assert step.truncated[0]
    np.testing.assert_array_equal(step.observation[0], np.float32(inner(simulators)[0].state))
    assert step.observation[0, 1] != 0  # a new start stands still


def test_an_end_at_the_time_limit_is_terminated_and_not_truncated():
    simulators = start(GymnasiumEnvironment("CartPole-v1"))
    simulators.reset(EVERY)
    steps = 0
    terminated = np.zeros(1, bool)
    while not terminated[0]:
        terminated = simulators.step(np.ones(1, int), EVERY).terminated
        steps += 1
    limited = start(GymnasiumEnvironment("CartPole-v1", time_limit=steps))
    limited.reset(EVERY)
    ends = [limited.step(np.ones(1, int), EVERY)[2:4] for _ in range(steps)]
    assert [bool(terminated[0]) for terminated, _ in ends] == [False] * (steps - 1) + [True]
    assert not any(truncated[0] for _, truncated in ends)


@pytest.mark.parametrize("name", BOOKS)
def test_masked_simulators_stand_still(name):
    environment = GymnasiumEnvironment(name)
    simulators, alone = start(environment, 3), start(environment, 3)
    every, others = np.ones(3, bool), np.array([True, False, True])
    np.testing.assert_array_equal(simulators.reset(every), alone.reset(every))
    for action in draw_actions(environment.action_space, 4, 3):
        simulators.step(action, others)
    simulators.reset(np.array([True, False, False]))
    (action,) = draw_actions(environment.action_space, 1, 3, seed=1)
    one, other = simulators.step(action, every), alone.step(action, every)
    np.testing.assert_array_equal(one.observation[1], other.observation[1])
    assert not np.array_equal(one.observation[2], other.observation[2])


def test_streams_are_reproducible_and_distinct():
    environment = GymnasiumEnvironment("Pendulum-v1")

    def starts(**where):
        simulators = start(environment, 6, **where)
        return np.concatenate([simulators.reset(np.ones(6, bool)) for _ in range(3)])

    np.testing.assert_array_equal(starts(seed=1, agent=2), starts(seed=1, agent=2))
    everything = np.concatenate([starts(seed=seed, agent=agent) for seed in range(2) for agent in range(3)])
    assert len(np.unique(everything, axis=0)) == 108


def test_a_simulator_is_seeded_once(register):
    simulators = start(GymnasiumEnvironment(register("Echo-v0")), 2)
    simulators.reset(np.array([True, False]))
    first = inner(simulators)[0].seed
    simulators.reset(np.ones(2, bool))
    assert 0 <= first < 2**31
    assert inner(simulators)[0].seed is None
    assert inner(simulators)[1].seed not in (None, first)


@pytest.mark.parametrize("first", [0, -3, 5])
def test_discrete_actions_are_numbered_from_0(register, first):
    name = register("Echo-v0", action=spaces.Discrete(3, start=first))
    environment = GymnasiumEnvironment(name)
    assert environment.action_space == Discrete(3)
    simulators = start(environment)
    simulators.reset(EVERY)
    for action in range(3):
        simulators.step(np.array([action], np.int32), EVERY)
    assert inner(simulators)[0].seen == [first, first + 1, first + 2]


def test_a_symmetric_box_stays_and_is_clipped(register):
    name = register("Echo-v0", action=spaces.Box(-2, 2, (2, 2)))
    environment = GymnasiumEnvironment(name)
    assert environment.action_space == Box(size=4, bound=2.0)
    simulators = start(environment)
    simulators.reset(EVERY)
    simulators.step(np.array([[-3, -1.5, 0.5, 9]], np.float32), EVERY)
    np.testing.assert_array_equal(inner(simulators)[0].seen, [[[-2, -1.5], [0.5, 2]]])


@given(
    low=st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3),
    width=st.lists(st.floats(0.125, 100, width=32), min_size=3, max_size=3),
)
@settings(deadline=None, max_examples=30)
def test_any_other_box_is_reached_linearly_from_plus_minus_1(low, width):
    low = np.float32(low)
    box = spaces.Box(low, low + np.float32(width))
    simulated = Echo(box, SEVEN)
    simulated.spec = gymnasium.envs.registration.EnvSpec("Echo-v0", max_episode_steps=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gymnasium, "make", lambda *_, **__: simulated)
        simulators = start(GymnasiumEnvironment("Echo-v0"))
    simulators.reset(EVERY)
    scale = np.float64([-7, -1, -0.5, 0, 1, 2])
    for value in scale:
        simulators.step(np.full((1, 3), value, np.float32), EVERY)
    middle, half = np.float64(box.high + box.low) / 2, np.float64(box.high - box.low) / 2
    symmetric = np.all(middle == 0) and len(set(half)) == 1
    expected = np.clip(scale[:, None] * (1 if symmetric else half) + middle, box.low, box.high)
    # Rounding in single precision, of numbers up to 200.
    np.testing.assert_allclose(simulated.seen, expected, atol=5e-5)


@pytest.mark.parametrize(
    ("observation", "size"),
    [
        (spaces.Box(0, 255, (4, 3, 2), np.uint8), 24),
        (spaces.Box(-np.inf, np.inf, (3,), np.float64), 3),
        (spaces.Box(0, 1, ()), 1),
        (spaces.Discrete(4), 4),
        (spaces.Discrete(4, start=-2), 4),
    ],
)
def test_observations_are_flat_single_precision_vectors(register, observation, size):
    environment = GymnasiumEnvironment(register("Echo-v0", observation=observation))
    simulators = start(environment)
    seen = simulators.reset(EVERY)
    observation.seed(3)
    expected = observation.sample()
    if isinstance(observation, spaces.Discrete):
        expected = np.eye(size)[expected - observation.start]
    assert seen.dtype == np.float32
    assert environment.observation_size == size
    np.testing.assert_array_equal(seen[0], np.ravel(np.float32(expected)))


def test_arguments_reach_the_constructor():
    environment = GymnasiumEnvironment("Pendulum-v1", arguments=(("g", 3.5),))
    assert inner(start(environment))[0].g == 3.5


@pytest.mark.parametrize(("name", "limit"), [("CartPole-v1", 500), ("Pendulum-v1", 200)])
def test_the_time_limit_is_the_registered_one_or_the_one_given(name, limit):
    assert GymnasiumEnvironment(name).max_steps == limit
    assert GymnasiumEnvironment(name, time_limit=7).max_steps == 7


def test_a_given_time_limit_serves_an_environment_without(register):
    name = register("Endless-v0", max_episode_steps=None)
    simulators = start(GymnasiumEnvironment(name, time_limit=2))
    simulators.reset(EVERY)
    assert [bool(simulators.step(np.zeros(1, int), EVERY).truncated[0]) for _ in range(2)] == [False, True]


@pytest.mark.parametrize("name", BOOKS)
def test_keeps_the_contract(name):
    environment = GymnasiumEnvironment(name)
    assert isinstance(environment, HostEnvironment)
    assert environment == GymnasiumEnvironment(name)
    tasks = environment.task_set(2).deal(agents=1)
    simulators = environment.simulate(GymnasiumTask(tasks.number[0]), streams(2))
    every = np.ones(2, bool)
    seen = simulators.reset(every)
    step = simulators.step(draw_actions(environment.action_space, 1, 2)[0], every)
    assert seen.shape == step.observation.shape == (2, environment.observation_size)
    assert (seen.dtype, step.reward.dtype) == (np.float32, np.float64)
    assert step.terminated.dtype == step.truncated.dtype == bool
    assert simulators.state() is None
    with pytest.raises(NotImplementedError, match="cannot be restored"):
        simulators.restore(None)
    simulators.close()


def test_environments_are_made_in_silence(register, capfd):
    name = register("Noisy-v0", complain=True)
    start(GymnasiumEnvironment(name), 2)  # a warning would be an error here
    start(GymnasiumEnvironment("CartPole-v0"))  # out of date, which gymnasium says
    assert capfd.readouterr() == ("", "")


def test_what_is_asked_of_an_environment_leaves_none_open(register, monkeypatch):
    closed = []
    monkeypatch.setattr(Echo, "close", lambda self: closed.append(self))
    environment = GymnasiumEnvironment(register("Closing-v0"))
    assert len(closed) == 1
    assert (environment.observation_size, environment.max_steps) == (7, 5)
    simulators = start(environment, 3)
    assert len(closed) == 1
    simulators.close()
    assert len(closed) == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"env_id": "CartPol-v1"}, "env_id is 'CartPol-v1'"),
        ({"env_id": "CartPole-v9"}, r"env_id is 'CartPole-v9', .*versioned environments: \[ `v0`, `v1` \]"),
        ({"env_id": "Taxi-v3"}, "env_id is 'Taxi-v3', .*Please use `Taxi-v4` instead"),
        ({"env_id": "a b"}, "env_id is 'a b'"),
        (
            {"env_id": "no_such_module:Some-v0"},
            "env_id is .*, which needs more than is installed: No module named",
        ),
        ({"env_id": "CartPole-v1", "arguments": (("colour", 1),)}, r"arguments are \(\('colour', 1\),\)"),
        (
            {"env_id": "CartPole-v1", "arguments": (("max_episode_steps", 1),)},
            "arguments are .*, which CartPole-v1 does not accept: .*'max_episode_steps'",
        ),
        ({"env_id": "CartPole-v1", "time_limit": 0}, "time_limit is 0"),
        ({"env_id": "Blackjack-v1", "time_limit": 9}, "the observations of Blackjack-v1 are Tuple"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(arguments, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        GymnasiumEnvironment(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "observation",
    [
        spaces.Dict({"a": SEVEN}),
        spaces.Tuple((SEVEN, TWO)),
        spaces.MultiBinary(3),
        spaces.MultiDiscrete([2, 3]),
        spaces.Text(3),
    ],
)
def test_other_observations_are_refused(register, observation):
    with pytest.raises(
        InputError, match=r"^the observations of Echo-v0 are .*; accepted are Box, of any shape"
    ):
        GymnasiumEnvironment(register("Echo-v0", observation=observation))


@pytest.mark.parametrize(
    "action",
    [
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Dict({"a": SEVEN}),
        spaces.Box(-np.inf, np.inf, (2,)),
        spaces.Box(0, np.inf, (2,)),
        spaces.Box(0, 5, (2,), np.int32),
    ],
)
def test_other_actions_are_refused(register, action):
    with pytest.raises(
        InputError, match=r"^the actions of Echo-v0 are .*, and Box of floats with finite bounds$"
    ):
        GymnasiumEnvironment(register("Echo-v0", action=action))


def test_an_environment_without_time_limit_is_refused(register):
    name = register("Endless-v0", max_episode_steps=None)
    with pytest.raises(
        InputError, match=r"^env_id is 'Endless-v0', which has no time limit of its own; give time_l"
    ):
        GymnasiumEnvironment(name)


def test_a_missing_package_of_an_environment_is_named(register):
    name = register("Needy-v0", entry_point=needy)
    with pytest.raises(InputError, match=r"needs more than is installed: Box3D .*`pip install \"box3d\"`$"):
        GymnasiumEnvironment(name)


def test_gymnasium_missing_is_one_sentence_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(
        InputError, match=r"; the extra gymnasium has it: pip install -e '\.\[gymnasium\]' in the clone$"
    ):
        GymnasiumEnvironment("CartPole-v1", time_limit=11)


def test_no_task_is_refused():
    with pytest.raises(InputError, match="the number of tasks is 0; it must be at least 1"):
        GymnasiumEnvironment("CartPole-v1").task_set(0)


@pytest.mark.parametrize("field", ["env_id", "id"])
def test_a_run_folder_imports_no_environment(tmp_path, monkeypatch, field):
    (tmp_path / "hostile_tasks.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    environment = {"class": "gossamer.GymnasiumEnvironment", field: "hostile_tasks:Task-v0"}
    create_run(tmp_path / "run", {"experiment": {"class": "gossamer.Experiment", "environment": environment}})
    with pytest.raises(InputError, match="if you trust it, add --import hostile_tasks"):
        load_experiment(tmp_path / "run")
