from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gossamer.environments import CartPoleBalance, Pendulum
from gossamer.errors import InputError
from gossamer.experience import Episodes, Steps
from small import Countdown, CountdownEnvironment


def still(key, observation, carry):
    return jnp.zeros(1), jnp.zeros(()), carry


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


@dataclass(frozen=True)
class Noisy(CountdownEnvironment):
    """Each reward is a random number; an episode is cut after two steps, before both of its limits."""

    def step(self, key, state, action, task):
        step = super().step(key, state, action, task)
        return step._replace(reward=jax.random.uniform(key), truncated=step.state >= 2)


@pytest.mark.parametrize("experience", [Episodes(2), Steps(4)], ids=["episodes", "steps"])
def test_every_step_has_a_key_that_no_action_or_start_has(experience):
    def uniform(key, observation, carry):
        return jax.random.uniform(key, (1,)), jnp.zeros(()), carry

    tasks = Countdown(jnp.array([5, 5]))
    state = experience.init(Noisy(), jax.random.key(1), tasks)
    first, again, other = (
        experience.collect(Noisy(), uniform, jax.random.key(seed), tasks, state).trajectory
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.reward, again.reward)
    drawn = np.concatenate([each.reward[each.mask] for each in (first, other)])
    actions = np.concatenate([each.action[..., 0][each.mask] for each in (first, other)])
    assert len(np.unique([drawn, actions])) == 2 * len(drawn) == 32


def test_an_environment_may_cut_an_episode_itself():
    tasks = Countdown(jnp.array([2, 5]))
    episodes = Episodes(1).collect(Noisy(), still, jax.random.key(0), tasks, ())
    assert episodes.trajectory.mask.sum(0).tolist() == [2, 2]
    assert episodes.trajectory.terminated[1].tolist() == [True, False]  # termination goes before truncation
    assert episodes.trajectory.truncated[1].tolist() == [False, True]
    assert episodes.finished.episodes.tolist() == [1, 1]
    state = Steps(5).init(Noisy(), jax.random.key(0), tasks)
    steps = Steps(5).collect(Noisy(), still, jax.random.key(0), tasks, state)
    assert steps.trajectory.truncated[:, 1].tolist() == [False, True, False, True, False]
    assert steps.trajectory.observation[:, 1, 0].tolist() == [0, 1, 0, 1, 0]
    assert steps.finished.lengths.tolist() == [4, 4]


def test_equals_a_naive_loop_over_one_environment():
    """The scan against Python: same keys, one step at a time, stopping at the end of the episode."""
    environment = CartPoleBalance()
    tasks = jax.tree.map(lambda leaf: leaf[0], environment.task_set(4).deal(agents=1))
    key = jax.random.key(3)

    def act(act_key, observation, carry=()):
        action = 5 * jax.random.normal(act_key, (1,)) - observation[:1]
        return action, action[0], carry

    trajectory = jax.jit(Episodes(1).collect, static_argnums=(0, 1))(
        environment, act, key, tasks, ()
    ).trajectory
    reset_key, act_key = jax.random.split(key)
    act_keys = jax.random.split(act_key, (environment.max_steps, 4))
    for column in range(4):
        task = jax.tree.map(lambda leaf, column=column: leaf[column], tasks)
        state = environment.reset(jax.random.split(reset_key, 4)[column], task)
        for time in range(environment.max_steps):
            observation = environment.observe(state, task)
            action, _, _ = act(act_keys[time, column], observation)
            # float32; the scan and the loop are compiled apart, and the pole is unstable: errors grow
            np.testing.assert_allclose(trajectory.observation[time, column], observation, atol=1e-3)
            state, reward, terminated, _ = environment.step(key, state, action, task)
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


def count_down(steps, tasks, state=None):
    environment, tasks = CountdownEnvironment(), Countdown(jnp.array(tasks))
    if state is None:
        state = Steps(steps).init(environment, jax.random.key(0), tasks)
    return Steps(steps).collect(environment, still, jax.random.key(1), tasks, state)


def test_steps_go_on_across_the_ends_of_episodes():
    trajectory = count_down(7, (2.0, 9.0)).trajectory
    assert trajectory.reward.T.tolist() == [[1, 2, 1, 2, 1, 2, 1], [1, 2, 3, 4, 5, 1, 2]]
    assert np.flatnonzero(trajectory.terminated[:, 0]).tolist() == [1, 3, 5]
    assert not trajectory.terminated[:, 1].any()
    assert np.flatnonzero(trajectory.truncated[:, 1]).tolist() == [4]
    assert not trajectory.truncated[:, 0].any()
    assert trajectory.mask.all()
    # the transition that ended an episode holds the final observation, the next one begins the next
    assert trajectory.next_observation[:, 0, 0].tolist() == [1, 2, 1, 2, 1, 2, 1]
    assert trajectory.observation[:, 0, 0].tolist() == [0, 1, 0, 1, 0, 1, 0]


def test_steps_report_whole_episodes_where_they_end():
    first = count_down(7, (2.0, 9.0))
    assert first.finished.episodes.tolist() == [3, 1]
    assert first.finished.returns.tolist() == [9, 15]
    assert first.finished.lengths.tolist() == [6, 5]
    # the episode that began in the first batch counts whole in the second
    second = count_down(3, (2.0, 9.0), first.state)
    assert second.finished.episodes.tolist() == [2, 1]
    assert second.finished.returns.tolist() == [6, 15]
    assert second.finished.lengths.tolist() == [4, 5]
    assert second.trajectory.reward.T.tolist() == [[2, 1, 2], [3, 4, 5]]


def test_steps_equal_a_naive_loop_over_one_environment():
    """The scan against Python over ends of episodes, with the same keys."""
    environment, count, steps = CartPoleBalance(max_steps=9), 3, 40
    tasks = jax.tree.map(lambda leaf: leaf[0], environment.task_set(4).deal(agents=1))
    tasks = jax.tree.map(lambda leaf: leaf[:count], tasks)

    def act(act_key, observation, carry=()):
        action = 5 * jax.random.normal(act_key, (1,)) - observation[:1]
        return action, action[0], carry

    state = Steps(steps).init(environment, jax.random.key(0), tasks)
    key = jax.random.key(3)
    collect = jax.jit(Steps(steps).collect, static_argnums=(0, 1))
    trajectory = collect(environment, act, key, tasks, state).trajectory
    reset_key, act_key = jax.random.split(key)
    reset_keys = jax.random.split(reset_key, (steps, count))
    act_keys = jax.random.split(act_key, (steps, count))
    step = jax.jit(environment.step)
    for column in range(count):
        task = jax.tree.map(lambda leaf, column=column: leaf[column], tasks)
        standing, elapsed = jax.tree.map(lambda leaf, c=column: leaf[c], state.states), 0
        for time in range(steps):
            observation = environment.observe(standing, task)
            # float32; the scan and the loop are compiled apart, errors grow within nine steps only
            np.testing.assert_allclose(trajectory.observation[time, column], observation, atol=1e-4)
            action, _, _ = act(act_keys[time, column], observation)
            standing, _, terminated, _ = step(key, standing, action, task)
            elapsed += 1
            assert trajectory.terminated[time, column] == terminated
            assert trajectory.truncated[time, column] == (not terminated and elapsed == 9)
            if terminated or elapsed == 9:
                standing, elapsed = environment.reset(reset_keys[time, column], task), 0
    assert trajectory.terminated.any()
    assert trajectory.truncated.any()


def test_refuses_no_step():
    with pytest.raises(InputError, match="steps is 0; it must be at least 1"):
        Steps(0)
