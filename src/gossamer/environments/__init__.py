"""Device environments: families of control tasks as pure functions, stepped by ``gossamer.experience``."""

from gossamer.environments.cartpole import CartPoleBalance, CartPoleState, CartPoleSwingUp, CartPoleTask
from gossamer.environments.pendulum import Pendulum, PendulumState, PendulumTask
from gossamer.environments.protocol import Environment, Step
from gossamer.environments.tasks import TaskSet

__all__ = [
    "CartPoleBalance",
    "CartPoleState",
    "CartPoleSwingUp",
    "CartPoleTask",
    "Environment",
    "Pendulum",
    "PendulumState",
    "PendulumTask",
    "Step",
    "TaskSet",
]
