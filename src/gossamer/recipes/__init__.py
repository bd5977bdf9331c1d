"""Recipes: functions that return an ``Experiment``. ``RECIPES`` names those the command line offers."""

from collections.abc import Callable

from gossamer import catalogue
from gossamer.experiment import Experiment
from gossamer.recipes.a2c import (
    a2c,
    acrobot,
    acrobot_centralised,
    acrobot_specialised,
    centralised_a2c,
    diffusion,
    hopper_mass,
    hopper_mass_centralised,
    hopper_wind,
    hopper_wind_centralised,
    specialised_a2c,
)
from gossamer.recipes.control import (
    cartpole_balance,
    cartpole_balance_centralised,
    cartpole_balance_policy_gradient,
    cartpole_balance_power,
    cartpole_balance_reinforce,
    cartpole_swingup,
    cartpole_swingup_centralised,
    centralised,
    dist_mtps,
    pendulum,
    pendulum_centralised,
)
from gossamer.recipes.gala import (
    a3c,
    all_reduce_a2c,
    gala_a2c,
    gala_impala,
    gala_pong,
    impala,
    pong_a2c,
    pong_a3c,
    pong_impala,
)

RECIPES: dict[str, Callable[[], Experiment]] = {
    name: globals()[name.replace("-", "_")] for name in catalogue.RECIPES
}

__all__ = [
    "RECIPES",
    "a2c",
    "a3c",
    "acrobot",
    "acrobot_centralised",
    "acrobot_specialised",
    "all_reduce_a2c",
    "cartpole_balance",
    "cartpole_balance_centralised",
    "cartpole_balance_policy_gradient",
    "cartpole_balance_power",
    "cartpole_balance_reinforce",
    "cartpole_swingup",
    "cartpole_swingup_centralised",
    "centralised",
    "centralised_a2c",
    "diffusion",
    "dist_mtps",
    "gala_a2c",
    "gala_impala",
    "gala_pong",
    "hopper_mass",
    "hopper_mass_centralised",
    "hopper_wind",
    "hopper_wind_centralised",
    "impala",
    "pendulum",
    "pendulum_centralised",
    "pong_a2c",
    "pong_a3c",
    "pong_impala",
    "specialised_a2c",
]
