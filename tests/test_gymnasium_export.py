"""Our families as Gymnasium's environments: the same trajectories, Gymnasium's contract, and bad input."""

import importlib
import subprocess
import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils import seeding
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import gossamer_gymnasium
from gossamer import environments
from gossamer.errors import InputError
from gossamer_gymnasium.environments import TaskEnv, TasksVectorEnv, _advance

# A new family joins by adding a line: a task by its parameters, and a time limit that random actions reach.
FAMILIES = {
    "Pendulum": ({"mass": 0.9, "length": 1.1}, 7),
    "CartPoleSwingUp": ({"pole_mass": 0.2, "half_length": 0.4}, 7),
    "CartPoleBalance": ({"pole_mass": 0.3, "half_length": 0.1}, 9),
    "Acrobot": ({"length": 1.3, "mass": 0.6, "inertia": 0.7}, 7),
    "HopperMass": ({"mass_scale": 0.8}, 15),
    "HopperWind": ({"wind_x": -3.0, "wind_y": 2.0}, 15),
}
ON_DEVICE = [name for name in FAMILIES if not name.startswith("Hopper")]
every_family = pytest.mark.parametrize("name", FAMILIES)
# Single precision rounds to 6e-8; a program for one instance and one for many may order operations differently, and
# a few dozen steps of a swinging Acrobot multiply the difference.
TOLERANCE = 1e-4


def identity(name):
    return f"gossamer_gymnasium:gossamer/{name}-v0"


def make(name, **arguments):
    return gymnasium.make(identity(name), **arguments)


def drawn(environment, steps, seed=0):
    environment.action_space.seed(seed)
    return [environment.action_space.sample() for _ in range(steps)]


def played(environment, actions, seed):
    """What one environment shows, with a new episode wherever one has ended."""
    seen = [environment.reset(seed=seed)[0]]
    facts = []
    for action in actions:
        observation, *fact, _ = environment.step(action)
        seen.append(observation)
        facts.append(fact)
        if fact[1] or fact[2]:
            seen.append(environment.reset()[0])
    return np.array(seen), np.array(facts, float)


def book(environment, task, actions, number):
    """The same from the environment's own functions, by a loop."""
    seen, facts, episode, elapsed = [], [], 0, 0

    def start():
        key = jax.random.fold_in(jax.random.key(number), episode)
        state = environment.reset(key, task)
        seen.append(environment.observe(state, task))
        return state

    state = start()
    for action in actions:
        state, reward, terminated, _ = environment.step(jax.random.key(0), state, jnp.asarray(action), task)
        elapsed += 1
        truncated = not terminated and elapsed == environment.max_steps
        seen.append(environment.observe(state, task))
        facts.append((reward, terminated, truncated))
        if terminated or truncated:
            episode, elapsed = episode + 1, 0
            state = start()
    return np.array(seen), np.array(facts, float)


@pytest.mark.parametrize("by", ["number", "parameters", "standard"])
@pytest.mark.parametrize("name", ON_DEVICE)
def test_trajectories_are_those_of_our_functions(name, by):
    parameters, limit = FAMILIES[name]
    ours = getattr(environments, name)(max_steps=limit)
    if by == "number":
        given, task = 7, ours.task_set(25).tasks[7]
    elif by == "parameters":
        given, task = parameters, type(ours.task_set(1).tasks[0])(**parameters)
    else:
        given, task = None, ours.task_set(1).tasks[0]
    theirs = make(name, task=given, max_steps=limit)
    actions = drawn(theirs, 3 * limit)
    seen, facts = played(theirs, actions, seed=5)
    number = int(seeding.np_random(5)[0].integers(2**31))
    expected_seen, expected_facts = book(ours, task, actions, number)
    assert len(expected_seen) > len(actions) + 3  # episodes ended
    np.testing.assert_allclose(seen, expected_seen, rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(facts, expected_facts, rtol=TOLERANCE, atol=TOLERANCE)
    assert theirs.observation_space == gymnasium.spaces.Box(-np.inf, np.inf, (ours.observation_size,))


@pytest.mark.parametrize("name", ["HopperMass", "HopperWind"])
def test_hopper_is_our_simulator(name):
    pytest.importorskip("mujoco")
    parameters, limit = FAMILIES[name]
    ours = getattr(environments, name)(max_steps=limit)
    kind = type(ours.task_set(1).tasks[0])
    number = int(seeding.np_random(5)[0].integers(2**31))
    task = kind(*(np.array([value]) for value in parameters.values()))
    simulators = ours.simulate(task, np.array([(number, 0, 0)]))
    theirs = make(name, task=parameters, max_steps=limit)
    one = np.ones(1, bool)
    np.testing.assert_array_equal(theirs.reset(seed=5)[0], simulators.reset(one)[0])
    ends = 0
    for action in drawn(theirs, 4 * limit):
        expected = simulators.step(action[None], one)
        observation, reward, terminated, truncated, _ = theirs.step(action)
        np.testing.assert_array_equal(observation, expected.observation[0])
        assert (reward, terminated, truncated) == tuple(column[0] for column in expected[1:4])
        if terminated or truncated:
            ends += 1
            np.testing.assert_array_equal(theirs.reset()[0], simulators.reset(one)[0])
    assert ends >= 2
    simulators.close()
    theirs.close()


# Positions without bounds are recommended against, and forces in N; both are the families' own.
@pytest.mark.filterwarnings("ignore:.*A Box observation space m:UserWarning")
@pytest.mark.filterwarnings("ignore:.*For Box action spaces, we recommend:UserWarning")
@every_family
def test_it_passes_gymnasiums_checks(name):
    if name.startswith("Hopper"):
        pytest.importorskip("mujoco")
    check_env(make(name, task=3).unwrapped)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@every_family
def test_many_are_as_many_singles(name, mode):
    if name.startswith("Hopper"):
        pytest.importorskip("mujoco")
    limit = FAMILIES[name][1]
    many = gymnasium.make_vec(
        identity(name), num_envs=3, task=(0, 12, 24), autoreset_mode=mode, max_steps=limit
    )
    assert isinstance(many.unwrapped, TasksVectorEnv)
    singles = SyncVectorEnv(
        [lambda task=task: make(name, task=task, max_steps=limit) for task in (0, 12, 24)],
        autoreset_mode=mode,
        observation_mode="same",
    )
    assert many.single_action_space == singles.single_action_space
    assert many.observation_space == singles.observation_space
    assert many.action_space == singles.action_space
    assert many.metadata["autoreset_mode"] is mode
    ends = 0
    np.testing.assert_allclose(many.reset(seed=11)[0], singles.reset(seed=11)[0], rtol=TOLERANCE)
    for step, actions in enumerate(drawn(many, 3 * limit)):
        if step == 2 * limit:
            np.testing.assert_allclose(many.reset()[0], singles.reset()[0], rtol=TOLERANCE)
        *ours, our_info = many.step(actions)
        *theirs, their_info = singles.step(actions)
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(mine, other, rtol=TOLERANCE, atol=TOLERANCE)
            assert mine.dtype == other.dtype
        assert set(our_info) == set(their_info)
        if "final_obs" in our_info:
            np.testing.assert_array_equal(our_info["_final_obs"], their_info["_final_obs"])
            for index in np.flatnonzero(our_info["_final_obs"]):
                last, same = our_info["final_obs"][index], their_info["final_obs"][index]
                np.testing.assert_allclose(last, same, rtol=TOLERANCE, atol=TOLERANCE)
        ends += (ours[2] | ours[3]).sum()
    assert ends >= 3
    many.close()
    singles.close()


def test_25_environments_of_a_family_compile_one_step():
    each = [make("Pendulum", task=task, gravity=3.5) for task in range(25)]
    before = _advance._cache_size()
    for environment in each:
        environment.reset(seed=0)
        environment.step(environment.action_space.high)
    assert _advance._cache_size() == before + 1


def test_the_seed_decides_and_nothing_else():
    environment = make("CartPoleBalance", task=3)
    first, again, other = (environment.reset(seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first, other, rtol=0, atol=0).any()
    environment.reset(seed=1)
    assert not np.isclose(first, environment.reset()[0], rtol=0, atol=0).any()  # the next episode
    unseeded = [make("CartPoleBalance").reset()[0] for _ in range(2)]
    assert not np.isclose(*unseeded, rtol=0, atol=0).any()
    many = TasksVectorEnv("CartPoleBalance", num_envs=2)
    start, _ = many.reset()
    assert not np.isclose(start[0], start[1], rtol=0, atol=0).any()


def test_an_episode_that_ends_at_the_limit_is_not_cut():
    def facts(**limit):
        environment = make("CartPoleBalance", task={"pole_mass": 0.1, "half_length": 0.05}, **limit)
        environment.reset(seed=0)
        steps = []
        while not steps or not (steps[-1][0] or steps[-1][1]):
            steps.append(environment.step(environment.action_space.high)[2:4])
        return steps

    free = facts()
    assert free[-1] == (True, False)
    assert facts(max_steps=len(free)) == free
    assert facts(max_steps=len(free) - 1) == [*free[:-2], (False, True)]
    many = gymnasium.make_vec(identity("CartPoleBalance"), num_envs=1, max_episode_steps=3)
    many.reset(seed=0)
    assert [many.step(np.zeros((1, 1)))[3].item() for _ in range(3)] == [False, False, True]


def test_registering_loads_neither_jax_nor_gossamer():
    program = (
        "import sys, gymnasium, gossamer_gymnasium as g\n"
        "assert all(f'gossamer/{name}-v0' in gymnasium.registry for name in g.FAMILIES)\n"
        "assert not {'jax', 'gossamer'} & set(sys.modules)\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr


def test_every_control_family_is_registered():
    ours = {
        name
        for name in environments.__all__
        if isinstance(made := getattr(environments, name), type) and hasattr(made, "task_set")
    }
    ours -= {"Environment", "HostEnvironment"}  # protocols
    ours -= {"Atari", "GymnasiumEnvironment"}  # Gymnasium has them
    assert set(gossamer_gymnasium.FAMILIES) == ours == set(FAMILIES)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"task": 25}, "task is 25"),
        ({"task": -1}, "task is -1"),
        ({"task": True}, "task is True"),
        ({"task": 1.5}, "task is 1.5"),
        ({"task": "3"}, "task is '3'"),
        ({"task": 4, "tasks": 4}, "task is 4"),
        ({"task": 0, "tasks": 0}, "tasks is 0"),
        ({"task": {"pole_mass": 0.1}}, "task is {'pole_mass': 0.1}"),
        ({"task": {"pole_mass": 0.1, "half_length": "long"}}, "a task's half_length is 'long'"),
        ({"task": {"pole_mass": 0.1, "half_length": 0}}, "a task's half_length is 0"),
        ({"mass": 3}, "constants are {'mass': 3}"),
        ({"gravity": "9"}, "constants are {'gravity': '9'}"),
        ({"gravity": -1.0}, "gravity is -1.0"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(arguments, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        make("CartPoleBalance", **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_envs": 3, "task": [0, 1]}, "task holds 2 tasks"),
        ({"num_envs": 2, "task": [0, 25]}, "task is 25"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"autoreset_mode": "Disabled"}, "autoreset_mode is 'Disabled'"),
        ({"max_episode_steps": 0}, "max_steps is 0"),
    ],
)
def test_bad_input_of_many_is_refused_in_one_sentence(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        gymnasium.make_vec(identity("CartPoleBalance"), **arguments)


@pytest.mark.parametrize(
    ("name", "action"),
    [
        *(("Acrobot", action) for action in (3, -1, 1.5, [1], "up")),
        *(("Pendulum", action) for action in (1.0, [1.0, 1.0], [np.nan], ["up"])),
    ],
)
def test_an_action_that_is_none_is_refused(name, action):
    environment = TaskEnv(name)
    environment.reset(seed=0)
    with pytest.raises(InputError, match=r"^the action is .*; it must be an element of (Discrete|Box)"):
        environment.step(action)


def test_actions_beyond_the_bound_count_as_the_bound():
    seen = []
    for force in (10.0, 30.0):
        environment = TaskEnv("CartPoleBalance")
        environment.reset(seed=0)
        seen.append(environment.step([force])[0])
    np.testing.assert_array_equal(*seen)


def test_an_unknown_family_is_refused():
    with pytest.raises(InputError, match=r"^family is 'Pendulom'; .* \(did you mean Pendulum\?\)$"):
        TaskEnv("Pendulom")


def test_a_step_before_a_reset_is_refused():
    with pytest.raises(gymnasium.error.ResetNeeded):
        TaskEnv("Pendulum").step([0.0])
    with pytest.raises(gymnasium.error.ResetNeeded):
        TasksVectorEnv("Pendulum").step([[0.0]])


def test_gymnasium_missing_is_one_sentence_that_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "gossamer_gymnasium")
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(
        InputError, match=r"; the extra gymnasium has it: pip install -e '\.\[gymnasium\]' in the clone$"
    ):
        importlib.import_module("gossamer_gymnasium")
