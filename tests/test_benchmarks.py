"""What benchmarks make of their measurements; nothing is timed here."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import dist_mtps, gala, pong
from benchmarks.successive import SuccessiveSiAC

from gossamer.algorithms import SiAC
from gossamer.diagnostics.energy import PowerReading
from gossamer.types import Box, Spaces, Trajectory

RATES = {
    "stable-baselines3, dummy": [100.0, 50.0, 80.0],
    "stable-baselines3, subprocesses": [90.0, 45.0, 60.0],
    "ours": [240.0, 130.0, 160.0],
}


def test_a_ratio_is_the_median_over_turns_to_the_fastest_of_the_others():
    judged = pong.judge(pong.Target("ours", "stable-baselines3", 2.5), RATES)
    assert judged["to"] == "stable-baselines3, dummy"
    assert judged["ratio_each"] == [2.4, 2.6, 2.0]
    assert judged["ratio"] == 2.4
    assert not judged["holds"]


def test_every_target_names_contenders_that_run():
    names = [each.name for each in pong.contenders()]
    for target in pong.TARGETS:
        assert target.contender in names
        assert any(name.startswith(target.other) for name in names)


def test_figures_are_rates_and_energy_per_frame_of_the_game():
    training = gala.Training(np.array([300, 100]), np.array([3.0, 1.0]), 2.0, 3.0, mean_age=0.5)
    reading = PowerReading(2.0, 80.0, 200.0, 400.0, None, "CPU: nobody is there to be asked")
    figures = gala.figures(training, reading)
    assert figures["env_steps_per_second"] == 200
    assert figures["frames_per_second"] == 800
    assert figures["frames_per_second_per_learner"] == [600, 200]
    assert figures["processors_busy"] == 1.5
    assert figures["device_joules_per_frame"] == 0.25
    assert figures["processor_joules_per_frame"] is None


def test_an_untouched_part_of_a_result_is_kept_and_one_that_never_ran_says_so(tmp_path):
    path = tmp_path / "gala.json"
    gala.store(path, {"kind": "cpu", "name": "frames_per_second", "rows": [1]})
    assert json.loads(path.read_text()) == {"cpu": {"frames_per_second": {"rows": [1]}}, "device": "not run"}
    gala.store(path, {"kind": "device", "name": "pong_to", "rows": [2]})
    assert json.loads(path.read_text()) == {
        "cpu": {"frames_per_second": {"rows": [1]}},
        "device": {"pong_to": {"rows": [2]}},
    }


def row(episodes: int, mean: float | None, seconds: float = 0.0) -> dict:
    return {
        "episodes": episodes,
        "episodic_return": mean,
        "env_steps": 10 * seconds,
        "time": {"seconds": seconds},
    }


def test_a_score_is_reached_by_the_last_hundred_episodes_and_not_by_fewer():
    rows = [row(60, 21.0, 1), row(0, None, 2), row(40, 11.0, 3), row(100, 20.0, 4), row(100, 0.0, 5)]
    outcome = gala.outcome(rows, score=18.0)
    assert (outcome["reached"], outcome["seconds"], outcome["frames"]) == (True, 4, 160)
    assert outcome["return_of_last_100_episodes"] == 20.0
    assert gala.reached(rows[:3], 18.0) is None
    assert gala.outcome(rows[:2], 18.0)["return_of_last_100_episodes"] is None


@pytest.mark.parametrize("name", gala.METHODS)
def test_every_method_has_all_simulators(name):
    pytest.importorskip("ale_py")
    experiment = gala.METHODS[name].experiment(simulators=64, threads=None, precision="bfloat16")
    assert experiment.agents * experiment.copies == 64
    assert experiment.algorithm.precision == "bfloat16"


def test_an_update_for_each_transition_is_that_many_steps_of_adam():
    spaces = Spaces(observation_size=3, action=Box(size=1, bound=2.0))
    plain, successive = (kind(hidden=(8,)).bind(spaces) for kind in (SiAC, SuccessiveSiAC))
    learner, keys = plain.init(jax.random.key(0)), jax.random.split(jax.random.key(1), 3)
    lived = 3
    trajectory = Trajectory.padding(5, 1, observation=3, action=1)._replace(
        observation=jax.random.normal(keys[0], (5, 1, 3)),
        action=jax.random.normal(keys[1], (5, 1, 1)),
        reward=jax.random.normal(keys[2], (5, 1)),
        terminated=jnp.arange(5)[:, None] == lived - 1,
        mask=jnp.arange(5)[:, None] < lived,
    )
    estimate, expected = jax.jit(plain.estimate)(learner.params, trajectory), learner
    one_step = jax.jit(lambda now, one, known: plain.apply(now, plain.gradient_of(now.params, one, known)[0]))
    for t in range(lived):
        columns = trajectory._replace(task=None), estimate
        one, known = jax.tree.map(lambda leaf, t=t: leaf[t : t + 1], columns)
        expected = one_step(expected, one._replace(task=trajectory.task), known)
    found, info = jax.jit(successive.adapt)(learner, trajectory, jax.random.key(2))
    assert all(np.isfinite(value) for value in info.values())
    assert found.updates == 1
    # three steps of 0.01 at most, in float32
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), found.params, expected.params)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4), found.optimiser, expected.optimiser
    )


def test_a_pattern_search_walks_beyond_where_it_began():
    """Of a quadratic about penalty 1 and 4 columns, from far away; it stops where no neighbour is better."""

    def score(choice):
        return {"greedy": -(np.log10(choice["penalty"]) ** 2) - (choice["latent"] - 4) ** 2}

    tried = dist_mtps.pattern_search({"latent": 1, "penalty": 0.01}, score)
    assert (tried[0]["latent"], tried[0]["penalty"]) == (4, 1.0)
    values = [row["greedy"] for row in tried]
    assert values == sorted(values, reverse=True)
    choices = {(row["latent"], row["penalty"]) for row in tried}
    assert len(choices) == len(tried) < dist_mtps.MOST
    assert {(3, 1.0), (5, 1.0), (4, 3.2), (4, 0.32)} <= choices  # all around the best
