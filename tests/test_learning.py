"""Learning on an environment whose failure names the broken part: one step, the best action is the task's target."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from gossamer.algorithms import A2C, SiAC
from gossamer.environments import Step, TaskSet
from gossamer.experience import Episodes, Steps
from gossamer.experiment import Experiment
from gossamer.runtimes.build import build
from gossamer.runtimes.vectorised import initialise, run_chunk
from gossamer.types import Box, Discrete


class TargetTask(NamedTuple):
    target: float


@dataclass(frozen=True)
class Target:
    """One step; the reward is −(action − target)²; the targets of the tasks lie evenly around one."""

    max_steps: int = 1
    observation_size: int = 1
    action_space: Box = field(default=Box(1, 4.0))

    def task_set(self, count):
        return TaskSet(tuple(TargetTask(1.0 + offset - (count - 1) / 2) for offset in range(count)))

    def reset(self, key, task):
        return jnp.zeros(())

    def observe(self, state, task):
        return jnp.ones(1)

    def step(self, key, state, action, task):
        return Step(state, -((action[0] - task.target) ** 2), jnp.ones((), bool))


def learn(**changes):
    """The greedy action of every agent, and SiAC's critic's value, after learning."""
    siac = SiAC(
        hidden=(16,),
        actor_learning_rate=0.005,
        critic_learning_rate=0.01,
        entropy_coefficient=0.0,
    )
    experiment = Experiment(Target(), siac, Episodes(256), tasks=1, agents=1, topology="isolated")
    experiment = replace(experiment, **changes)
    parts = build(experiment)
    population = initialise(
        parts.algorithm,
        parts.seeds,
        parts.tasks,
        agents=experiment.agents,
        environment=parts.environment,
        experience=parts.experience,
    )
    population, _ = run_chunk(
        population,
        parts.algorithm,
        parts.mixer,
        parts.tasks,
        parts.seeds,
        jnp.asarray(600, jnp.int32),
        environment=parts.environment,
        experience=parts.experience,
        capacity=600,
        block=parts.block,
    )
    params = jax.tree.map(lambda leaf: leaf[0], population.learner.params)
    actions = jax.vmap(lambda agent: parts.algorithm.act_greedily(agent, jnp.ones(1)))(params)
    actions = actions.reshape(experiment.agents)
    if isinstance(parts.algorithm, A2C):
        return actions, None
    return actions, jax.vmap(lambda agent: parts.algorithm.value(agent.critic, jnp.ones(1)))(params)


@pytest.fixture(scope="module")
def alone():
    return learn()


def test_the_actor_finds_the_best_action(alone):
    actions, _ = alone
    # the policy still samples: its mean settles within a few hundredths
    assert abs(float(actions[0]) - 1.0) < 0.1


def test_the_critic_predicts_the_return(alone):
    _, values = alone
    # the return of a policy near its target is minus its small variance
    assert -0.5 < float(values[0]) < 0.1


def test_diffusion_agrees_on_the_best_compromise():
    """Three tasks with targets 0, 1, 2: the multitask objective (3) is best at their mean, for every agent."""
    actions, _ = learn(tasks=3, agents=3, topology="ring")
    assert jnp.abs(actions - 1.0).max() < 0.2
    assert actions.max() - actions.min() < 0.1


@pytest.mark.slow
def test_isolated_agents_specialise():
    actions, _ = learn(tasks=3, agents=3)
    assert jnp.abs(actions - jnp.array([0.0, 1.0, 2.0])).max() < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["transitions", "tasks"])
def test_a_centralised_learner_finds_the_compromise_too(weighting):
    siac = SiAC(hidden=(16,), actor_learning_rate=0.005, entropy_coefficient=0.0, weighting=weighting)
    actions, _ = learn(tasks=3, agents=1, algorithm=siac)
    assert abs(float(actions[0]) - 1.0) < 0.2


@dataclass(frozen=True)
class TargetChoice(Target):
    """The same with three actions, 0, 1 and 2."""

    action_space: Discrete = field(default=Discrete(3))

    def step(self, key, state, action, task):
        return Step(state, -((action - task.target) ** 2.0), jnp.ones((), bool))


@pytest.mark.parametrize(
    ("tasks", "choices", "network"),
    [
        pytest.param(1, [1], "separate", marks=pytest.mark.slow),
        pytest.param(1, [1], "shared", marks=pytest.mark.slow),
        pytest.param(3, [1, 1, 1], "separate", marks=pytest.mark.slow),
        (3, [1, 1, 1], "shared"),
    ],
)
def test_a2c_chooses_the_best_action(tasks, choices, network):
    """Alone for its own target, on a ring for the best compromise of targets 0, 1, 2."""
    environment = TargetChoice()
    a2c = A2C(hidden=(16,), network=network, learning_rate=0.003)
    actions, _ = learn(
        environment=environment,
        algorithm=a2c,
        experience=Steps(64),
        tasks=tasks,
        agents=tasks,
        topology="ring" if tasks > 1 else "isolated",
    )
    assert actions.tolist() == choices


@pytest.mark.slow
def test_a2c_with_a_gaussian_finds_the_best_action():
    a2c = A2C(hidden=(16,), learning_rate=0.003)
    actions, _ = learn(algorithm=a2c, experience=Steps(64))
    assert abs(float(actions[0]) - 1.0) < 0.2
