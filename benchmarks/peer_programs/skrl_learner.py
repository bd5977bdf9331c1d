"""skrl's A2C on our 25 tasks, stepped as one Gymnasium vector environment, with networks like those of our agents.

Its own loop of training, without progress bar, TensorBoard and checkpoints, and for any number of steps.
"""
# pyright: reportMissingImports=false
# It runs in a virtual environment of its own.

from typing import Any

import gymnasium
import numpy as np
import torch
from skrl.agents.torch.a2c import A2C
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, GaussianMixin, Model
from torch import nn

FAMILIES = {"cartpole": "CartPoleBalance", "acrobot": "Acrobot"}
TASKS, WIDTH = 25, 64


class Critic(DeterministicMixin, Model):
    """Two hidden layers and a value."""

    def __init__(self, spaces: dict[str, Any]):
        Model.__init__(self, **spaces, device="cpu")
        DeterministicMixin.__init__(self)
        self.net = layers(self.num_observations, 1)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[torch.Tensor, dict[str, Any]]:
        return self.net(inputs["observations"]), {}


class GaussianActor(GaussianMixin, Model):
    """Two hidden layers, a mean and a deviation that does not depend on what is seen."""

    def __init__(self, spaces: dict[str, Any]):
        Model.__init__(self, **spaces, device="cpu")
        GaussianMixin.__init__(self)
        self.net = layers(self.num_observations, self.num_actions)
        self.log_std = nn.Parameter(torch.zeros(self.num_actions))

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[torch.Tensor, dict[str, Any]]:
        return self.net(inputs["observations"]), {"log_std": self.log_std}


class CategoricalActor(CategoricalMixin, Model):
    """Two hidden layers and a logit of each choice."""

    def __init__(self, spaces: dict[str, Any]):
        Model.__init__(self, **spaces, device="cpu")
        CategoricalMixin.__init__(self)
        self.net = layers(self.num_observations, self.num_actions)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[torch.Tensor, dict[str, Any]]:
        return self.net(inputs["observations"]), {}


class Learner:
    """An agent and the environments that it learns in.

    Its choices are skrl's defaults, but for bootstrapping at time limits, without which skrl carries returns over from
    one episode to the next.
    """

    def __init__(self, environment: str, horizon: int, seed: int):
        torch.manual_seed(seed)
        self.environments = wrap_env(tasks_of(environment, TASKS), wrapper="gymnasium", verbose=False)
        self.environments._seed = seed
        spaces = {
            "observation_space": self.environments.observation_space,
            "action_space": self.environments.action_space,
        }
        discrete = isinstance(self.environments.action_space, gymnasium.spaces.Discrete)
        self.agent = A2C(
            models={
                "policy": CategoricalActor(spaces) if discrete else GaussianActor(spaces),
                "value": Critic(spaces),
            },
            memory=RandomMemory(memory_size=horizon, num_envs=TASKS, device="cpu"),
            **spaces,
            device="cpu",
            cfg={
                "rollouts": horizon,
                "time_limit_bootstrap": True,
                "experiment": {"write_interval": 0, "checkpoint_interval": 0},
            },
        )
        self.agent.init()
        self.agent.enable_training_mode(True)
        self.horizon, self.steps = horizon, 0
        self.observation, _ = self.environments.reset()

    def advance(self, steps: int) -> int:
        """Whole updates of at least so many env-steps."""
        updates = -(-steps // (TASKS * self.horizon))
        for _ in range(updates * self.horizon):
            with torch.no_grad():
                action, _ = self.agent.act(self.observation, None, timestep=self.steps, timesteps=0)
                following, reward, terminated, truncated, info = self.environments.step(action)
                self.agent.record_transition(
                    observations=self.observation,
                    states=None,
                    actions=action,
                    rewards=reward,
                    next_observations=following,
                    next_states=None,
                    terminated=terminated,
                    truncated=truncated,
                    infos=info,
                    timestep=self.steps,
                    timesteps=0,
                )
            self.agent.post_interaction(timestep=self.steps, timesteps=0)
            self.agent.tracking_data.clear()  # nobody writes it anywhere
            self.observation, self.steps = following, self.steps + 1
        return updates * self.horizon * TASKS

    def mean_return(self, environments: Any, seed: int) -> float:
        """Of one greedy episode in each environment, undiscounted."""
        observation, _ = environments.reset(seed=seed)
        alive, earned = np.ones(environments.num_envs, bool), np.zeros(environments.num_envs)
        while alive.any():
            with torch.no_grad():
                output, _ = self.agent.policy.compute({"observations": torch.as_tensor(observation)})
            action = output.argmax(1) if isinstance(self.agent.policy, CategoricalActor) else output
            observation, reward, terminated, truncated, _ = environments.step(action.numpy())
            earned += np.where(alive, reward, 0.0)
            alive &= ~(terminated | truncated)
        return float(earned.mean())


def tasks_of(environment: str, count: int) -> Any:
    """Task i mod 25 in environment i; forces are given in [-1, 1]."""
    made = gymnasium.make_vec(
        f"gossamer_gymnasium:gossamer/{FAMILIES[environment]}-v0",
        num_envs=count,
        task=[index % TASKS for index in range(count)],
        autoreset_mode="SameStep",
    )
    if isinstance(made.single_action_space, gymnasium.spaces.Box):
        return gymnasium.wrappers.vector.RescaleAction(made, -1.0, 1.0)
    return made


def layers(inputs: int, outputs: int) -> nn.Sequential:
    """Two hidden layers of 64 with tanh."""
    widths = (nn.Linear(inputs, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh())
    return nn.Sequential(*widths, nn.Linear(WIDTH, outputs))
