"""Stable-Baselines3's A2C with its CnnPolicy on 16 games of Pong, which its own wrappers prepare.

    python benchmarks/peer_programs/sb3_pong.py pong dummy|subprocesses 1|2 [--horizon 5] [--seconds 4]

The last choice is the number of PyTorch's threads. Network and optimiser are GALA's: 1.7 million parameters, RMSProp.
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
    chosen = arguments(environment=("pong",), vectorised=tuple(VECTORISED), threads=("1", "2"))
    torch.set_num_threads(int(chosen.threads))
    gymnasium.register_envs(ale_py)
    games = make_atari_env(
        "PongNoFrameskip-v4", n_envs=SIMULATORS, seed=0, vec_env_cls=VECTORISED[chosen.vectorised]
    )
    environments = VecFrameStack(games, n_stack=4)
    learner = A2C(
        "CnnPolicy",
        environments,
        n_steps=chosen.horizon,
        ent_coef=0.01,
        rms_prop_eps=0.01,
        use_rms_prop=True,
        seed=0,
        device="cpu",
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
