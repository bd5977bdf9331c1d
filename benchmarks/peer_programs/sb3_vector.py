"""Our families as a vector environment of Stable-Baselines3: 25 tasks, one call of a compiled program for a step."""
# pyright: reportMissingImports=false
# It runs in a virtual environment of its own.

from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

FAMILIES = {"cartpole": "CartPoleBalance", "acrobot": "Acrobot"}


class TasksVecEnv(VecEnv):
    """Task i mod 25 in environment i. Actions of a Box are scaled from [-1, 1], as its guide recommends."""

    def __init__(self, environment: str, count: int, seed: int):
        self.environments = gymnasium.make_vec(
            f"gossamer_gymnasium:gossamer/{FAMILIES[environment]}-v0",
            num_envs=count,
            task=[index % 25 for index in range(count)],
            autoreset_mode="SameStep",
        )
        action = self.environments.single_action_space
        self.bound = None
        if isinstance(action, gymnasium.spaces.Box):
            self.bound, action = action.high, gymnasium.spaces.Box(-1.0, 1.0, action.shape)
        self.first_seed: int | None = seed
        super().__init__(count, self.environments.single_observation_space, action)

    def reset(self) -> np.ndarray:
        observation, _ = self.environments.reset(seed=self.first_seed)
        self.first_seed = None
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions if self.bound is None else self.bound * actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observation, reward, terminated, truncated, info = self.environments.step(self.actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for index in np.flatnonzero(terminated | truncated).tolist():
            infos[index] = {
                "terminal_observation": info["final_obs"][index],
                "TimeLimit.truncated": bool(truncated[index]),
            }
        return observation, reward.astype(np.float32), terminated | truncated, infos

    def close(self) -> None:
        self.environments.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.environments, attr_name, None) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("environments in one program have no attributes of their own")

    def env_method(self, method_name: str, *arguments: Any, indices: Any = None, **named: Any) -> list[Any]:
        raise NotImplementedError("environments in one program have no methods of their own")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]
