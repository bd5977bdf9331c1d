"""Recipes: functions that return an ``Experiment``. ``RECIPES`` names those the command line offers."""

from collections.abc import Callable

from gossamer.experiment import Experiment
from gossamer.recipes.a2c import (
    acrobot,
    acrobot_centralised,
    acrobot_specialised,
    centralised_a2c,
    diffusion,
    specialised_a2c,
)
from gossamer.recipes.control import (
    cartpole_balance,
    cartpole_balance_centralised,
    cartpole_swingup,
    cartpole_swingup_centralised,
    centralised,
    pendulum,
    pendulum_centralised,
)

RECIPES: dict[str, Callable[[], Experiment]] = {
    recipe.__name__.replace("_", "-"): recipe
    for recipe in (
        acrobot,
        acrobot_centralised,
        acrobot_specialised,
        cartpole_balance,
        cartpole_balance_centralised,
        cartpole_swingup,
        cartpole_swingup_centralised,
        pendulum,
        pendulum_centralised,
    )
}

__all__ = [
    "RECIPES",
    "acrobot",
    "acrobot_centralised",
    "acrobot_specialised",
    "cartpole_balance",
    "cartpole_balance_centralised",
    "cartpole_swingup",
    "cartpole_swingup_centralised",
    "centralised",
    "centralised_a2c",
    "diffusion",
    "pendulum",
    "pendulum_centralised",
    "specialised_a2c",
]
