"""The parts of our A2C on 16 games of Pong by themselves: emulation, or the network.

    python benchmarks/peer_programs/bare_pong.py pong simulators|vectorised|network [--horizon 5] [--seconds 4]

``simulators`` are our environment's and ``vectorised`` is ale-py's own AtariVectorEnv, both under random actions;
``network`` acts and learns on fixed frames.
"""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rate import Advance, arguments, print_rate

from gossamer.environments import Atari
from gossamer.recipes.gala import table_2
from gossamer.runtimes.agent_step import Turn, act_alone, learn_alone
from gossamer.system.compilation import keep_memory_mapped
from gossamer.types import Collected, Finished, Trajectory

SIMULATORS, RECORDED = 16, 500


def main() -> None:
    chosen = arguments(environment=("pong",), part=("simulators", "vectorised", "network"))
    keep_memory_mapped()  # as the command line does
    if chosen.part == "network":
        advance = repeat(a_round(chosen.horizon), SIMULATORS * chosen.horizon)
    else:
        advance = repeat({"simulators": our_simulators, "vectorised": vectorised}[chosen.part](), SIMULATORS)
    print_rate(advance, chosen.seconds, ("ale-py", "jax", "numpy"))


def repeat(work: Callable[[], Any], steps_each: int) -> Advance:
    """Work that makes so many env-steps each time, as often as needed."""

    def advance(steps: int) -> int:
        times = -(-steps // steps_each)
        for _ in range(times):
            work()
        return times * steps_each

    return advance


def our_simulators() -> Callable[[], None]:
    """A step of all games; a new one, or a new life, where an episode ended."""
    environment = Atari("pong", threads=os.cpu_count() or 1)
    streams = np.stack([np.zeros(SIMULATORS), np.zeros(SIMULATORS), np.arange(SIMULATORS)], 1).astype(int)
    simulators, everywhere = environment.simulate((), streams), np.ones(SIMULATORS, bool)
    simulators.reset(everywhere)
    actions = random_actions()

    def step() -> None:
        taken = simulators.step(next(actions), everywhere)
        ended = taken.terminated | taken.truncated
        if ended.any():
            simulators.reset(ended)

    return step


def vectorised() -> Callable[[], None]:
    from ale_py.vector_env import AtariVectorEnv

    games: Any = AtariVectorEnv("pong", SIMULATORS, num_threads=os.cpu_count() or 1)
    games.reset(seed=0)
    actions = random_actions()
    return lambda: games.step(next(actions))


def random_actions() -> Any:
    drawn = np.random.default_rng(0).integers(0, 6, (RECORDED, SIMULATORS), dtype=np.int32)
    while True:
        yield from drawn


def a_round(horizon: int) -> Callable[[], None]:
    """As many forward passes as there are steps, and an update on all of them."""
    a2c, draw = table_2(Atari("pong"), learners=1), np.random.default_rng(0)
    learner = jax.jit(a2c.init)(jax.random.key(0))
    shape = (horizon + 1, SIMULATORS, a2c.spaces.observation_size)
    frames = jnp.asarray(draw.integers(0, 256, shape, dtype=np.uint8))
    trajectory = Trajectory.padding(horizon, SIMULATORS)._replace(
        observation=frames[:-1],
        next_observation=frames[1:],
        action=jnp.asarray(draw.integers(0, 6, (horizon, SIMULATORS))),
        mask=jnp.ones((horizon, SIMULATORS), bool),
    )
    collected = Collected((), trajectory, Finished(*(jnp.zeros(SIMULATORS) for _ in Finished._fields)))
    seen = list(frames[:-1])

    def work() -> None:
        for step, observation in enumerate(seen):
            np.asarray(act_alone(a2c, learner.params, Turn(0, 0, 0), step, observation)[0])
        jax.block_until_ready(learn_alone(a2c, learner, collected, Turn(0, 0, 0)))

    return work


if __name__ == "__main__":
    main()
