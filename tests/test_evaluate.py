import importlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from gossamer import evaluate, train
from gossamer.environments import Acrobot, CartPoleBalance
from gossamer.errors import InputError
from gossamer.evaluation.evaluate import Evaluation, table, tasks_named, write_evaluation
from gossamer.experience import Steps
from gossamer.runs.restore import restore_population
from gossamer.runtimes.build import build, initial_population
from small import FixedStart, OnHost, small_experiment


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(small_experiment(seeds=2, rounds=2), tmp_path_factory.mktemp("evaluate") / "run")


def test_every_agent_plays_every_task(run):
    evaluation = evaluate(run, episodes=3)
    assert evaluation.returns.shape == (2, 5, 25, 3)
    assert evaluation.trained.sum(0).tolist() == [1] * 25
    assert evaluation.returns.min() >= 1
    assert evaluation.returns.max() <= 20


def test_columns_against_numpy(run):
    evaluation = evaluate(run, episodes=3)
    returns = evaluation.returns
    np.testing.assert_allclose(evaluation.all[4], returns[:, :, 4].mean(), rtol=1e-6)
    own = int(np.argmax(evaluation.trained[:, 4]))
    np.testing.assert_allclose(evaluation.own[4], returns[:, own, 4].mean(), rtol=1e-6)
    np.testing.assert_allclose(evaluation.worst_agent[4], returns[:, :, 4].mean(-1).min(), rtol=1e-6)


def test_a_greedy_episode_equals_a_naive_loop(run):
    evaluation = evaluate(run, episodes=2, seed=5)
    experiment, parts, population = restore_population(run)
    params = jax.tree.map(lambda leaf: leaf[1, 3], population.learner.params)
    tasks = jax.tree.map(lambda leaf: leaf[0], parts.task_set.deal(agents=1))
    reset_key, _ = jax.random.split(jax.random.key(5))
    task = jax.tree.map(lambda leaf: leaf[7], tasks)
    state = parts.environment.reset(jax.random.split(reset_key, 50)[15], task)
    total = 0.0
    for _ in range(experiment.environment.max_steps):
        action = parts.algorithm.act_greedily(params, parts.environment.observe(state, task))
        state, reward, terminated, _ = parts.environment.step(reset_key, state, action, task)
        total += float(reward)
        if terminated:
            break
    assert evaluation.returns[1, 3, 7, 1] == total


def test_sampled_differs_from_greedy_and_the_seed_fixes_both(run):
    greedy, sampled = evaluate(run, episodes=2), evaluate(run, episodes=2, greedy=False)
    assert not np.array_equal(greedy.returns, sampled.returns)
    np.testing.assert_array_equal(sampled.returns, evaluate(run, episodes=2, greedy=False).returns)


def test_large_populations_are_sampled(tmp_path):
    run = train(small_experiment(agents=50, rounds=1), tmp_path / "run")
    evaluation = evaluate(run, episodes=1)
    assert len(evaluation.agent) == 25
    assert (evaluation.agent[0], evaluation.agent[-1]) == (0, 49)


def test_table_and_file_say_the_same(run, tmp_path):
    evaluation = evaluate(run, episodes=2)
    data = json.loads(write_evaluation(evaluation, tmp_path / "evaluation.json").read_text())
    lines = table(evaluation).splitlines()
    assert len(lines) == 1 + 25 + 1 + 1
    assert f"{data['mean_over_tasks']:.1f}" in lines[-2]
    low, high = data["interval_over_seeds"]
    assert lines[-1] == f"all agents, 95 % interval over 2 seeds: {low:.1f} to {high:.1f}"
    assert low <= data["mean_over_tasks"] <= high
    assert data["tasks"][0] in lines[1]


def test_tasks_nobody_evaluated_was_trained_on_have_no_own_return(run):
    evaluation = evaluate(run, episodes=1)
    alone = evaluation._replace(trained=evaluation.trained & (np.arange(25) > 0))
    assert np.isnan(alone.own[0])
    assert "–" in table(alone).splitlines()[1]


def test_refuses(run, tmp_path):
    with pytest.raises(InputError, match="episodes is 0; it must be at least 1"):
        evaluate(run, episodes=0)
    with pytest.raises(InputError, match="is not a run folder"):
        evaluate(tmp_path)


def test_columns_against_a_table_made_by_hand():
    """Two seeds, two agents, two tasks, one episode."""
    returns = np.array([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 10.0]]])[..., None]
    trained = np.array([[True, False], [False, True]])
    evaluation = Evaluation(CartPoleBalance().task_set(2), np.arange(2), trained, returns)
    assert evaluation.own.tolist() == [3.0, 7.0]
    assert evaluation.all.tolist() == [4.0, 5.5]
    assert evaluation.worst_agent.tolist() == [1.0, 2.0]
    np.testing.assert_allclose(evaluation.deviation, [np.std([1, 3, 5, 7]), np.std([2, 4, 6, 10])])


@pytest.mark.parametrize("greedy", [True, False])
def test_episodes_on_the_host_equal_those_on_the_device(monkeypatch, greedy):
    """Where nothing is drawn; sampled actions are drawn from other keys, and only their returns' range is alike."""

    module = importlib.import_module(
        "gossamer.evaluation.evaluate"
    )  # the package has a function of that name

    def returns(environment):
        experiment = small_experiment(environment=environment, experience=Steps(2), seeds=2)
        parts = build(experiment)
        population = initial_population(parts.algorithm, experiment, parts.mailbox, parts.tasks)
        monkeypatch.setattr(module, "restore_population", lambda run, best: (experiment, parts, population))
        return evaluate(Path("anywhere"), episodes=2, greedy=greedy).returns

    device, host = returns(FixedStart()), returns(OnHost())
    assert device.shape == host.shape == (2, 5, 25, 2)
    if greedy:
        np.testing.assert_array_equal(device, host)
    assert np.ptp(host) > 0
    assert abs(device.mean() - host.mean()) < 0.5


def test_zero_shot_on_tasks_in_words(run):
    names = ["pole_mass=0.2,half_length=1", "half_length=0.05,pole_mass=1"]
    unseen = tasks_named(CartPoleBalance(), names)
    assert [tuple(task) for task in unseen.tasks] == [(0.2, 1.0), (1.0, 0.05)]
    evaluation = evaluate(run, episodes=2, task_set=unseen)
    assert evaluation.returns.shape == (2, 5, 2, 2)
    assert np.isnan(evaluation.own).all()
    assert evaluation.all[1] < evaluation.all[0]  # the short, heavy pole falls first


def test_held_out_tasks_by_name():
    easy, hard = Acrobot().held_out().values()
    named = tasks_named(Acrobot(), ["hard", "easy"])
    assert named.tasks == (*hard.tasks, *easy.tasks)


@pytest.mark.parametrize(
    ("environment", "name", "sentence"),
    [
        (Acrobot(), "medium", "'medium' is no task"),
        (CartPoleBalance(), "pole_mass=1", "'pole_mass=1' is no task"),
        (CartPoleBalance(), "pole_mass=1,half_length=long", "'pole_mass=1,half_length=long' is no task"),
    ],
)
def test_refuses_what_is_no_task(environment, name, sentence):
    with pytest.raises(InputError, match=sentence):
        tasks_named(environment, [name])
