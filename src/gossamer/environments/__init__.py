"""Families of tasks: on the device as pure functions, on the host as running simulators."""

from gossamer.environments.acrobot import Acrobot, AcrobotState, AcrobotTask
from gossamer.environments.atari import Atari, AtariTask
from gossamer.environments.cartpole import CartPoleBalance, CartPoleState, CartPoleSwingUp, CartPoleTask
from gossamer.environments.gymnasium import GymnasiumEnvironment, GymnasiumTask
from gossamer.environments.hopper import HopperMass, HopperMassTask, HopperWind, HopperWindTask
from gossamer.environments.pendulum import Pendulum, PendulumState, PendulumTask
from gossamer.environments.protocol import (
    Environment,
    HostEnvironment,
    HostStep,
    Pixels,
    Simulators,
    Step,
    spaces_of,
)
from gossamer.environments.tasks import TaskSet

__all__ = [
    "Acrobot",
    "AcrobotState",
    "AcrobotTask",
    "Atari",
    "AtariTask",
    "CartPoleBalance",
    "CartPoleState",
    "CartPoleSwingUp",
    "CartPoleTask",
    "Environment",
    "GymnasiumEnvironment",
    "GymnasiumTask",
    "HopperMass",
    "HopperMassTask",
    "HopperWind",
    "HopperWindTask",
    "HostEnvironment",
    "HostStep",
    "Pendulum",
    "PendulumState",
    "PendulumTask",
    "Pixels",
    "Simulators",
    "Step",
    "TaskSet",
    "spaces_of",
]
