"""MuJoCo alone: the transitions of 25 Hoppers under random actions, stepped again without anything around them.

    python benchmarks/peer_programs/bare_physics.py hopper [--seconds 4]

The simulators are our environment's, threads included; what is left out is observations, rewards, the ends of
episodes, networks and learning. A step starts from a recorded state, so that the robots fall and stand as in training.
"""

from typing import Any

import numpy as np
from rate import arguments, print_rate

from gossamer.environments import HopperMass

SIMULATORS, RECORDED = 25, 500


def main() -> None:
    seconds = arguments(environment=("hopper",)).seconds
    environment = HopperMass()
    (masses,) = environment.task_set(SIMULATORS).deal(SIMULATORS)
    tasks = environment.task_set(SIMULATORS).tasks[0]._replace(mass_scale=np.ravel(masses))
    streams = np.stack([np.zeros(SIMULATORS), np.arange(SIMULATORS), np.zeros(SIMULATORS)], 1).astype(int)
    simulators: Any = environment.simulate(tasks, streams)
    states, actions = record(simulators)
    batch, everywhere = simulators._batch, np.ones(SIMULATORS, bool)
    control = batch.bind("ctrl")

    def advance(steps: int) -> int:
        times = -(-steps // SIMULATORS)
        for time in range(times):
            batch.state[:] = states[time % RECORDED]
            control[:] = actions[time % RECORDED]
            batch.step(everywhere, nstep=4)
        return times * SIMULATORS

    print_rate(advance, seconds, ("mujoco",))


def record(simulators: Any) -> tuple[np.ndarray, np.ndarray]:
    """States before, and actions of, some steps of a policy like an untrained one."""
    actions = np.random.default_rng(0).normal(size=(RECORDED, SIMULATORS, 3))
    states, ended = [], np.ones(SIMULATORS, bool)
    for action in actions:
        if ended.any():
            simulators.reset(ended)
        states.append(simulators.state().physics)
        step = simulators.step(action, np.ones(SIMULATORS, bool))
        ended = step.terminated | step.truncated
    return np.stack(states), actions


if __name__ == "__main__":
    main()
