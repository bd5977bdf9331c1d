"""rejax's PPO as A2C, which it does not have: one epoch and one minibatch, on 25 environments of gymnax's.

python benchmarks/peer_programs/rejax_ppo.py acrobot|cartpole [--horizon 5] [--seconds 4]
"""
# pyright: reportMissingImports=false
# It runs in a virtual environment of its own.

import jax
from rate import arguments, print_rate
from rejax import PPO

ENVIRONMENTS = 25
NAMES = {"acrobot": "Acrobot-v1", "cartpole": "CartPole-v1"}


def main() -> None:
    chosen = arguments(environment=tuple(NAMES))
    steps_per_update = ENVIRONMENTS * chosen.horizon
    algorithm = PPO.create(
        env=NAMES[chosen.environment],
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
        num_envs=ENVIRONMENTS,
        num_steps=chosen.horizon,
        num_epochs=1,
        num_minibatches=1,
        learning_rate=7e-4,
        gae_lambda=1.0,
        max_grad_norm=0.5,
    )

    # The body of its own ``train`` without evaluations, and for any number of steps.
    @jax.jit
    def train(state, iterations):
        return jax.lax.fori_loop(0, iterations, lambda _, now: algorithm.train_iteration(now), state)

    state = jax.jit(algorithm.init_state)(jax.random.key(0))

    def advance(steps: int) -> int:
        nonlocal state
        iterations = -(-steps // steps_per_update)
        state = jax.block_until_ready(train(state, iterations))
        return iterations * steps_per_update

    print_rate(advance, chosen.seconds, ("rejax", "gymnax", "jax", "flax", "numpy"))


if __name__ == "__main__":
    main()
