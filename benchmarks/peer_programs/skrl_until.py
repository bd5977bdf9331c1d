"""skrl's A2C on our 25 tasks, until its one policy does well on their mean; 16 steps an update, its default.

python benchmarks/peer_programs/skrl_until.py cartpole|acrobot --target 190 --every 10000 --limit 300 [--seed 0]
"""
# pyright: reportMissingImports=false
# It runs in a virtual environment of its own.

from typing import Any

import torch
from skrl_learner import FAMILIES, TASKS, Learner, tasks_of
from until import EPISODES, Training, arguments, print_until


def main() -> None:
    chosen = arguments(environment=tuple(FAMILIES))
    torch.set_num_threads(1)  # networks as small as these are slower on two
    print_until(
        lambda: training(chosen.environment, chosen.seed),
        chosen,
        ("skrl", "torch", "gymnasium", "jax", "numpy"),
    )


def training(environment: str, seed: int) -> Training:
    """Of one learner with an environment of each task."""
    learner = Learner(environment, horizon=16, seed=seed)
    tested: list[Any] = []
    evaluations = iter(range(10**9))

    def evaluate() -> float:
        if not tested:  # made here, so that training's clock does not count it
            tested.append(tasks_of(environment, TASKS * EPISODES))
        return learner.mean_return(tested[0], seed=1_000_000 * (seed + 1) + 1_000 * next(evaluations))

    return Training(learner.advance, evaluate)


if __name__ == "__main__":
    main()
