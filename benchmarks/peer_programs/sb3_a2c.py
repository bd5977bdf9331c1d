"""Stable-Baselines3's A2C on 25 environments of Gymnasium, with networks like those of our agents.

python benchmarks/peer_programs/sb3_a2c.py acrobot|hopper dummy|subprocesses [--horizon 5] [--seconds 4]
"""
# pyright: reportMissingImports=false
# It runs in a virtual environment of its own.

from rate import arguments, print_rate
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

ENVIRONMENTS = {"acrobot": "Acrobot-v1", "hopper": "Hopper-v5"}
VECTORISED = {"dummy": DummyVecEnv, "subprocesses": SubprocVecEnv}


def main() -> None:
    chosen = arguments(environment=tuple(ENVIRONMENTS), vectorised=tuple(VECTORISED))
    environments = make_vec_env(
        ENVIRONMENTS[chosen.environment], n_envs=25, seed=0, vec_env_cls=VECTORISED[chosen.vectorised]
    )
    networks = {"net_arch": [64, 64]}
    learner = A2C(
        "MlpPolicy", environments, n_steps=chosen.horizon, policy_kwargs=networks, seed=0, device="cpu"
    )

    def advance(steps: int) -> int:
        before = learner.num_timesteps
        learner.learn(steps, reset_num_timesteps=False)
        return learner.num_timesteps - before

    print_rate(advance, chosen.seconds, ("stable_baselines3", "torch", "gymnasium", "mujoco", "numpy"))
    environments.close()


if __name__ == "__main__":
    main()
