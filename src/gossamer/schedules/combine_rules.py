"""Which messages an agent may combine, and where the weight of the others goes.

Pure functions over edges, for one agent (``receiver`` is 0 throughout) as for all; when they are asked, and what
has arrived by then, is the runtime's. ``push_sum`` weights are the sender's, and only its messages come here.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from gossamer.schedules.schedule import Schedule

Edges = Bool[np.ndarray, " edge"]


def is_usable(schedule: Schedule, received: Edges, unread: Edges, age: Any, alive: Edges) -> Edges:
    """Whether the message in the inbox of an edge may be combined.

    Args:
        schedule: the rule and its age limit.
        received: a message is in the inbox.
        unread: it was not combined yet.
        age: updates of the receiver less the version of the message, Int[edge].
        alive: the sender is present.

    Example:
        >>> no, yes = np.array([False]), np.array([True])
        >>> is_usable(Schedule("whatever_arrived"), yes, no, np.array([1]), yes).tolist()
        [False]
        >>> is_usable(Schedule("most_recent"), yes, no, np.array([1]), yes).tolist()
        [True]
        >>> is_usable(Schedule("most_recent", staleness=0), yes, no, np.array([1]), yes).tolist()
        [False]
    """
    if (
        schedule.rule == "push_sum"
    ):  # a missing message would be lost mass: a sum counts agents that have left since
        return unread
    if schedule.rule != "most_recent":
        return alive & unread
    if schedule.staleness is None:
        return alive & received
    return alive & received & (age <= schedule.staleness)


def is_stale(schedule: Schedule, age: Int[np.ndarray, " edge"], expected: Edges) -> Edges:
    """Whether the receiver must wait for a fresher message on an edge, until one comes or its deadline passes.

    Args:
        schedule: the rule and its age limit.
        age: updates of the receiver less the version of the message; where there is none, its updates since it
            joined, so that no agent waits for a first message during its first L updates.
        expected: the sender is present, and the receiver's present phase gives it a weight.

    Example:
        >>> is_stale(Schedule("most_recent", staleness=5), np.array([5, 6]), np.array([True, True])).tolist()
        [False, True]
    """
    if schedule.staleness is None:
        return np.zeros_like(expected)
    return expected & (age > schedule.staleness)


def may_combine(
    schedule: Schedule, unread: Edges, expected: Edges, receiver: Int[np.ndarray, " edge"], agents: int
) -> Bool[np.ndarray, " agent"]:
    """Whether each agent combines at all: under ``all_in_peers`` only if every message expected is there.

    Example:
        >>> yes = np.array([True, True])
        >>> may_combine(Schedule("all_in_peers"), np.array([True, False]), yes, np.array([0, 1]), 3).tolist()
        [True, False, True]
    """
    may = np.ones(agents, bool)
    if schedule.rule == "all_in_peers":
        may[receiver[expected & ~unread]] = False
    return may


def return_missing_to_self(
    weight: Float[np.ndarray, " edge"],
    own: Float[np.ndarray, " agent"],
    usable: Edges,
    receiver: Int[np.ndarray, " edge"],
) -> tuple[Float[np.ndarray, " edge"], Float[np.ndarray, " agent"]]:
    """Weights of the edges and of the agents' own parameters: rows sum to one if they did before.

    Example:
        >>> weight, own = np.array([0.25, 0.25]), np.array([0.5])
        >>> return_missing_to_self(weight, own, np.array([True, False]), np.array([0, 0]))
        (array([0.25, 0.  ]), array([0.75]))
    """
    kept = np.where(usable, weight, 0.0)
    return kept, own + np.bincount(receiver, weight - kept, minlength=len(own))
