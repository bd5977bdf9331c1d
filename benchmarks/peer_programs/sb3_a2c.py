"""Stable-Baselines3's A2C on 25 environments, with networks like those of our agents.

    python benchmarks/peer_programs/sb3_a2c.py acrobot|hopper|cartpole dummy|subprocesses|ours
        [--horizon 5] [--seconds 4]

``dummy`` and ``subprocesses`` have Gymnasium's environments, ``ours`` our 25 tasks as one vector environment.
"""
# pyright: reportMissingImports=false
# It runs in a virtual environment of its own.

from rate import arguments, print_rate
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

ENVIRONMENTS = {"acrobot": "Acrobot-v1", "hopper": "Hopper-v5", "cartpole": "CartPole-v1"}
VECTORISED = {"dummy": DummyVecEnv, "subprocesses": SubprocVecEnv}


def main() -> None:
    chosen = arguments(environment=tuple(ENVIRONMENTS), vectorised=(*VECTORISED, "ours"))
    environments = environments_of(chosen.environment, chosen.vectorised)
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


def environments_of(environment: str, vectorised: str) -> VecEnv:
    if vectorised == "ours":
        from sb3_vector import TasksVecEnv  # it loads JAX, which the others do without

        return TasksVecEnv(environment, count=25, seed=0)
    return make_vec_env(ENVIRONMENTS[environment], n_envs=25, seed=0, vec_env_cls=VECTORISED[vectorised])


if __name__ == "__main__":
    main()
