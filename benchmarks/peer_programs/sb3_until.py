"""Stable-Baselines3's A2C or PPO on our 25 tasks, until its one policy does well on their mean.

    python benchmarks/peer_programs/sb3_until.py cartpole|acrobot a2c|ppo --target 190 --every 10000 --limit 300

A2C has its defaults. PPO's default of 2,048 steps in each environment would be 51,200 for an update; it has 64, batches
of 400 and 10 epochs. Networks are those of our agents, 2×64.
"""
# pyright: reportMissingImports=false
# It runs in a virtual environment of its own.

from typing import Any

import numpy as np
import torch
from sb3_vector import FAMILIES, TasksVecEnv
from stable_baselines3 import A2C, PPO
from until import EPISODES, Training, arguments, print_until

ALGORITHMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "a2c": (A2C, {}),
    "ppo": (PPO, {"n_steps": 64, "batch_size": 400, "n_epochs": 10}),
}
TASKS = 25


def main() -> None:
    chosen = arguments(environment=tuple(FAMILIES), algorithm=tuple(ALGORITHMS))
    torch.set_num_threads(1)  # networks as small as these are slower on two
    print_until(
        lambda: training(chosen.environment, chosen.algorithm, chosen.seed),
        chosen,
        ("stable_baselines3", "torch", "gymnasium", "jax", "numpy"),
    )


def training(environment: str, algorithm: str, seed: int) -> Training:
    """Of one learner with an environment of each task."""
    kind, choices = ALGORITHMS[algorithm]
    environments = TasksVecEnv(environment, TASKS, seed)
    networks = {"net_arch": [64, 64]}
    learner = kind("MlpPolicy", environments, policy_kwargs=networks, seed=seed, device="cpu", **choices)
    tested: list[TasksVecEnv] = []

    def advance(steps: int) -> int:
        before = learner.num_timesteps
        learner.learn(steps, reset_num_timesteps=False)
        return learner.num_timesteps - before

    def evaluate() -> float:
        if not tested:  # made here, so that training's clock does not count it
            tested.append(TasksVecEnv(environment, TASKS * EPISODES, 1_000_000 + seed))
        return mean_return(learner, tested[0])

    return Training(advance, evaluate)


def mean_return(learner: Any, environments: TasksVecEnv) -> float:
    """Of one greedy episode in each environment, undiscounted."""
    observation = environments.reset()
    alive, earned = np.ones(environments.num_envs, bool), np.zeros(environments.num_envs)
    while alive.any():
        action, _ = learner.predict(observation, deterministic=True)
        observation, reward, ended, _ = environments.step(action)
        earned += np.where(alive, reward, 0.0)
        alive &= ~ended
    return float(earned.mean())


if __name__ == "__main__":
    main()
