"""Diff-PPO, the worked algorithm of the site: it keeps the contract of all others, is short, and learns."""

import inspect
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from examples.diff_ppo import DiffPPO

import test_contract
from gossamer import InputError
from gossamer.types import Estimate
from small import rebound
from test_contract import KEY, SPACES, trajectory

ROOT = Path(__file__).parents[1]
PPO = DiffPPO(hidden=(8, 8)).bind(SPACES)
CHECKS = {
    name: check
    for name, check in vars(test_contract).items()
    if name.startswith("test_") and "algorithm" in inspect.signature(check).parameters
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_keeps_the_contract(check):
    check(PPO)


def test_steps_go_through_all_epochs_and_padding_changes_nothing():
    rows = trajectory(PPO, time=6, env=2)
    real = jnp.array([[True, True]] * 4 + [[True, False]] * 2)
    padded = rows._replace(mask=real, reward=jnp.where(real, rows.reward, 0.0))
    other = padded._replace(action=jnp.where(real[..., None], rows.action, 3.0))
    adapt = jax.jit(lambda learner, rows: PPO.adapt(learner, rows, KEY)[0])
    learner = PPO.init(KEY)
    adapted, same = adapt(learner, padded), adapt(learner, other)
    jax.tree.map(np.testing.assert_array_equal, adapted, same)
    assert adapted.optimiser[0].count == PPO.optimiser_steps == 16


@pytest.mark.parametrize(("advantage", "loss", "pulls"), [(1.0, -1.2, False), (-1.0, 1.5, True)])
def test_a_good_action_gains_nothing_beyond_the_clip_and_a_bad_one_still_loses(advantage, loss, pulls):
    """Equation 7 at a ratio of 1.5 with ε = 0.2."""
    params, row = PPO.init(KEY).params, jax.tree.map(lambda leaf: leaf[0], trajectory(PPO, time=1, env=1))
    likely = PPO.policy(params, row.observation).log_prob(row.action)
    row = row._replace(log_prob=likely - jnp.log(1.5))
    estimate = Estimate(jnp.full(1, advantage), jnp.zeros(1))

    @jax.jit
    @jax.value_and_grad
    def surrogate(params):
        return PPO.loss(params, row, estimate)[1]["policy_loss"]

    value, gradient = surrogate(params)
    assert float(value) == pytest.approx(loss, rel=1e-5)  # float32
    assert bool(jnp.any(gradient["log_scale"] != 0)) == pulls


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"minibatches": 0}, "minibatches is 0"),
        ({"clip": 0.0}, "clip is 0.0"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"trace_decay": 1.5}, "trace_decay is 1.5"),
    ],
)
def test_refuses_what_lies_outside_its_range(changes, message):
    with pytest.raises(InputError, match=message):
        replace(PPO, **changes)


def test_refuses_more_minibatches_than_transitions():
    with pytest.raises(InputError, match="minibatches is 99; a round has only 15 transitions"):
        rebound(PPO, minibatches=99).adapt(PPO.init(KEY), trajectory(PPO), KEY)


PROGRAM = """
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import test_learning
from examples.diff_ppo import DiffPPO

from gossamer import Experiment, train
from gossamer.experience import Steps
from gossamer.runs.restore import restore_population

environment = getattr(test_learning, sys.argv[1])()
for rate in (0.003, 1e-9):
    ppo = DiffPPO(hidden=(16,), learning_rate=rate)
    run = train(
        Experiment(
            environment, ppo, Steps(64), tasks=3, agents=3, topology="ring", rounds=200, checkpoint_every=200
        ),
        Path(sys.argv[2]) / str(rate),
    )
    _, parts, population = restore_population(run)
    agents = jax.tree.map(lambda leaf: leaf[0], population.learner.params)
    print(jax.vmap(lambda agent: parts.algorithm.act_greedily(agent, jnp.ones(1)))(agents).ravel().tolist())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("environment", "tolerance"), [("Target", 0.2), ("TargetChoice", 0.0)])
def test_learns_the_best_compromise_of_a_ring_and_does_not_without_steps(environment, tolerance, tmp_path):
    """Targets 0, 1 and 2, so 1 is best for all; `train` in an interpreter of its own, as a reader runs it."""
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, environment, tmp_path],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    learned, unlearned = (np.array(json.loads(line)) for line in done.stdout.splitlines()[-2:])
    assert np.abs(learned - 1).max() <= tolerance
    assert np.abs(unlearned - 1).max() > 0.5
