"""Stable-Baselines3's A2C with its CnnPolicy on 16 games of Pong, prepared as its zoo of trained agents does.

    python benchmarks/peer_programs/sb3_pong.py dummy|subprocesses 1|2 [--horizon 5] [--seconds 4]

The second argument is the number of PyTorch's threads. Its network is GALA's (1.7 million parameters), its optimiser
RMSProp; a step is 4 frames of the game.
"""
# pyright: reportMissingImports=false
# It runs in a virtual environment of its own.

import ale_py
import gymnasium
import torch
from rate import arguments, print_rate
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack

SIMULATORS = 16
VECTORISED = {"dummy": DummyVecEnv, "subprocesses": SubprocVecEnv}


def main() -> None:
    chosen = arguments(vectorised=tuple(VECTORISED), threads=("1", "2"))
    torch.set_num_threads(int(chosen.threads))
    gymnasium.register_envs(ale_py)
    games = make_atari_env(
        "PongNoFrameskip-v4", n_envs=SIMULATORS, seed=0, vec_env_cls=VECTORISED[chosen.vectorised]
    )
    environments = VecFrameStack(games, n_stack=4)
    learner = A2C(
        "CnnPolicy", environments, n_steps=chosen.horizon, ent_coef=0.01, vf_coef=0.25, seed=0, device="cpu"
    )

    def advance(steps: int) -> int:
        before = learner.num_timesteps
        learner.learn(steps, reset_num_timesteps=False)
        return learner.num_timesteps - before

    packages = ("stable_baselines3", "torch", "gymnasium", "ale-py", "opencv-python-headless", "numpy")
    print_rate(advance, chosen.seconds, packages)
    environments.close()


if __name__ == "__main__":
    main()
