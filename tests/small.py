"""Experiments small enough for a test, shared by those that need a whole run."""

from dataclasses import replace

from gossamer.environments import CartPoleBalance
from gossamer.experiment import Experiment
from gossamer.recipes import cartpole_balance


def small_experiment(**changes) -> Experiment:
    """Cart-pole balance with tiny networks and short episodes, on a ring."""
    recipe = cartpole_balance()
    small = replace(
        recipe,
        environment=CartPoleBalance(max_steps=20),
        algorithm=replace(recipe.algorithm, hidden=(8, 8)),
        agents=5,
        topology="ring",
        rounds=6,
        checkpoint_every=2,
    )
    return replace(small, **changes)
