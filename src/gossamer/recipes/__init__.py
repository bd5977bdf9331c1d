"""Recipes: functions that return an ``Experiment``. ``RECIPES`` names those the command line offers."""

from collections.abc import Callable

from gossamer.experiment import Experiment
from gossamer.recipes.control import cartpole_balance, cartpole_swingup, centralised, pendulum

RECIPES: dict[str, Callable[[], Experiment]] = {
    "cartpole-balance": cartpole_balance,
    "cartpole-balance-centralised": lambda: centralised(cartpole_balance()),
    "cartpole-swingup": cartpole_swingup,
    "cartpole-swingup-centralised": lambda: centralised(cartpole_swingup()),
    "pendulum": pendulum,
    "pendulum-centralised": lambda: centralised(pendulum()),
}

__all__ = ["RECIPES", "cartpole_balance", "cartpole_swingup", "centralised", "pendulum"]
