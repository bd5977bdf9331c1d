"""Fully decentralised deep reinforcement learning: agents that combine only with their neighbours on a graph."""

from gossamer.analysis import plot
from gossamer.errors import InputError
from gossamer.evaluate import Evaluation, evaluate
from gossamer.experiment import Experiment, build
from gossamer.policy import Policy, load_policy
from gossamer.train import Interrupted, NonFiniteParameters, resume, train

__all__ = [
    "Evaluation",
    "Experiment",
    "InputError",
    "Interrupted",
    "NonFiniteParameters",
    "Policy",
    "build",
    "evaluate",
    "load_policy",
    "plot",
    "resume",
    "train",
]
