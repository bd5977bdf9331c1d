"""skrl's A2C on our 25 tasks, through their Gymnasium vector environment.

python benchmarks/peer_programs/skrl_a2c.py acrobot|cartpole [--horizon 16] [--seconds 4]
"""
# pyright: reportMissingImports=false
# It runs in a virtual environment of its own.

from rate import arguments, print_rate
from skrl_learner import FAMILIES, Learner


def main() -> None:
    chosen = arguments(environment=tuple(FAMILIES))
    learner = Learner(chosen.environment, chosen.horizon, seed=0)
    print_rate(learner.advance, chosen.seconds, ("skrl", "torch", "gymnasium", "jax", "numpy"))


if __name__ == "__main__":
    main()
