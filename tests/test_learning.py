"""Learning on an environment whose failure names the broken part: one step, the best action is the task's target."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from gossamer.algorithms import SiAC
from gossamer.environments import Step, TaskSet
from gossamer.experience import Episodes
from gossamer.experiment import Experiment, build
from gossamer.runtimes import initialise, run_chunk
from gossamer.types import Box, Spaces


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

    def step(self, state, action, task):
        return Step(state, -((action[0] - task.target) ** 2), jnp.ones((), bool))


def learn(**changes):
    """The greedy action of every agent, and the critic's value, after learning."""
    environment = Target()
    siac = SiAC(
        Spaces(1, environment.action_space),
        hidden=(16,),
        actor_learning_rate=0.005,
        critic_learning_rate=0.01,
        entropy_coefficient=0.0,
    )
    experiment = Experiment(environment, siac, Episodes(256), tasks=1, agents=1, topology="isolated")
    experiment = replace(experiment, **changes)
    parts = build(experiment)
    population = initialise(parts.algorithm, parts.seeds, agents=experiment.agents)
    population, _ = run_chunk(
        population,
        parts.algorithm,
        parts.mixer,
        parts.tasks,
        parts.seeds,
        jnp.asarray(600, jnp.int32),
        environment=environment,
        experience=parts.experience,
        capacity=600,
        block=parts.block,
    )
    params = jax.tree.map(lambda leaf: leaf[0], population.learner.params)
    actions = jax.vmap(lambda agent: parts.algorithm.act_greedily(agent, jnp.ones(1)))(params)
    values = jax.vmap(lambda agent: parts.algorithm.value(agent.critic, jnp.ones(1)))(params)
    return actions[:, 0], values


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


def test_isolated_agents_specialise():
    actions, _ = learn(tasks=3, agents=3)
    assert jnp.abs(actions - jnp.array([0.0, 1.0, 2.0])).max() < 0.2


@pytest.mark.parametrize("weighting", ["transitions", "tasks"])
def test_a_centralised_learner_finds_the_compromise_too(weighting):
    spaces = Spaces(1, Target().action_space)
    siac = SiAC(spaces, hidden=(16,), actor_learning_rate=0.005, entropy_coefficient=0.0, weighting=weighting)
    actions, _ = learn(tasks=3, agents=1, algorithm=siac)
    assert abs(float(actions[0]) - 1.0) < 0.2
