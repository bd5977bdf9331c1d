from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.environments import CartPoleBalance, Pendulum, Step, TaskSet
from gossamer.errors import InputError
from gossamer.experience import Episodes
from gossamer.types import Box


class Countdown(NamedTuple):
    """A task: the number of steps until it terminates."""

    steps: Any


class CountdownEnvironment:
    """The state counts steps; the reward is the number of the step; ends after ``task.steps``."""

    max_steps = 5
    observation_size = 1
    action_space = Box(1, 1.0)

    def task_set(self, count):
        return TaskSet((Countdown(3.0),) * count)

    def reset(self, key, task):
        return jnp.zeros((), jnp.int32)

    def observe(self, state, task):
        return state.astype(jnp.float32)[None]

    def step(self, state, action, task):
        return Step(state + 1, (state + 1).astype(jnp.float32), state + 1 >= task.steps)


def still(key, observation):
    return jnp.zeros(1), jnp.zeros(())


def countdown(*steps, episodes=1):
    tasks = Countdown(jnp.array(steps))
    return Episodes(episodes).collect(CountdownEnvironment(), still, jax.random.key(0), tasks, ()).trajectory


def test_padding_begins_where_an_episode_ends():
    trajectory = countdown(2, 9)
    assert trajectory.mask.T.tolist() == [[True, True, False, False, False], [True] * 5]
    assert trajectory.reward.T.tolist() == [[1, 2, 0, 0, 0], [1, 2, 3, 4, 5]]
    # and the state stands still there
    assert trajectory.observation[:, 0, 0].tolist() == [0, 1, 2, 2, 2]


def test_termination_and_the_time_limit_are_two_facts():
    trajectory = countdown(2, 5, 9)
    assert np.argwhere(np.asarray(trajectory.terminated.T)).tolist() == [[0, 1], [1, 4]]
    assert np.argwhere(np.asarray(trajectory.truncated.T)).tolist() == [[2, 4]]


def test_the_next_observation_at_the_end_is_the_final_one():
    trajectory = countdown(2, 9)
    assert trajectory.observation[:, 1, 0].tolist() == [0, 1, 2, 3, 4]
    assert trajectory.next_observation[:, 1, 0].tolist() == [1, 2, 3, 4, 5]
    assert trajectory.next_observation[1, 0, 0] == 2


def test_episodes_of_one_environment_stand_side_by_side():
    trajectory = countdown(1, 3, episodes=2)
    assert trajectory.task.tolist() == [0, 0, 1, 1]
    assert trajectory.mask.sum(0).tolist() == [1, 1, 3, 3]


def test_equals_a_naive_loop_over_one_environment():
    """The scan against Python: same keys, one step at a time, stopping at the end of the episode."""
    environment = CartPoleBalance()
    tasks = jax.tree.map(lambda leaf: leaf[0], environment.task_set(4).deal(agents=1))
    key = jax.random.key(3)

    def act(act_key, observation):
        action = 5 * jax.random.normal(act_key, (1,)) - observation[:1]
        return action, action[0]

    trajectory = jax.jit(Episodes(1).collect, static_argnums=(0, 1))(environment, act, key, tasks, ()).trajectory
    reset_key, act_key = jax.random.split(key)
    act_keys = jax.random.split(act_key, (environment.max_steps, 4))
    for column in range(4):
        task = jax.tree.map(lambda leaf, column=column: leaf[column], tasks)
        state = environment.reset(jax.random.split(reset_key, 4)[column], task)
        for time in range(environment.max_steps):
            observation = environment.observe(state, task)
            action, _ = act(act_keys[time, column], observation)
            # float32; the scan and the loop are compiled apart, and the pole is unstable: errors grow
            np.testing.assert_allclose(trajectory.observation[time, column], observation, atol=1e-3)
            state, reward, terminated = environment.step(state, action, task)
            assert trajectory.reward[time, column] == reward
            if terminated:
                break
        assert trajectory.mask[:, column].sum() == time + 1


def test_episodes_start_differently():
    tasks = jax.tree.map(lambda leaf: leaf[0], Pendulum().task_set(1).deal(agents=1))
    trajectory = Episodes(3).collect(Pendulum(), still, jax.random.key(0), tasks, ()).trajectory
    assert len({float(x) for x in trajectory.observation[0, :, 0]}) == 3


def test_refuses_no_episode():
    with pytest.raises(InputError, match="episodes_per_environment is 0; it must be at least 1"):
        Episodes(0)
