"""Our A2C on Pong: learners in threads that gossip on a directed ring (GALA), or one of them by itself.

    python benchmarks/peer_programs/gossamer_pong.py pong 1|4 4|16|64 [--horizon 5] [--seconds 4]

The numbers are those of learners, and of simulators of each of them.
"""

import os
from dataclasses import replace
from typing import Any

import jax
from rate import arguments, print_rate

from gossamer.environments import Atari
from gossamer.experience import Steps
from gossamer.recipes import gala_a2c
from gossamer.runtimes.agent_step import spread_alone
from gossamer.runtimes.build import build
from gossamer.runtimes.choice import runtime_of
from gossamer.system.compilation import keep_memory_mapped


def main() -> None:
    chosen = arguments(environment=("pong",), learners=("1", "4"), simulators=("4", "16", "64"))
    keep_memory_mapped()  # as the command line does
    learners, simulators = int(chosen.learners), int(chosen.simulators)
    pong = Atari("pong", threads=max(1, (os.cpu_count() or 1) // learners))
    experiment = replace(gala_a2c(pong, learners, simulators), experience=Steps(chosen.horizon))
    parts = build(experiment)
    runtime = runtime_of(experiment, parts)
    population, every = runtime.start(), experiment.record_every
    compile_records(parts.algorithm, population.learner, learners)
    steps_per_round = learners * simulators * chosen.horizon

    def advance(steps: int) -> int:
        nonlocal population
        population, reports = runtime.advance(population, -(-steps // steps_per_round), every)
        return sum(int(report.record.agents.env_steps.sum()) for report in reports)

    print_rate(advance, chosen.seconds, ("gossamer", "jax", "ale-py", "numpy"))
    runtime.close()


def compile_records(algorithm: Any, learner: Any, learners: int) -> None:
    """Compile what records need before the threads start: updates made meanwhile would be counted as measured."""
    apart = [jax.tree.map(lambda leaf, i=index: leaf[0, i], learner) for index in range(learners)]
    jax.block_until_ready(spread_alone(tuple(algorithm.message(each) for each in apart)))


if __name__ == "__main__":
    main()
