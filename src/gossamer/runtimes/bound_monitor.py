"""Sees what happens to the parameters of peers, as it happens, and certifies how far apart they can be.

Events are recorded one at a time, under a lock; the computations themselves run side by side.
"""

import math
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager

import jax

from gossamer.diagnostics.consensus_bound import ConsensusBound, Verdict
from gossamer.runtimes.agent_step import change_alone, norm_alone, spread_alone
from gossamer.types import Message


class BoundMonitor:
    """The books of a population of peers: who changed by how much, and who combined what.

    Args:
        messages: of all agents, at first.
        kept: how many messages of an agent may still be combined though newer ones have been sent.

    Example:
        >>> import jax.numpy as jnp
        >>> certifier = BoundMonitor([{"w": jnp.zeros(2)}, {"w": jnp.zeros(2)}])
        >>> moved = {"w": jnp.array([3.0, 4.0])}
        >>> change = certifier.change({"w": jnp.zeros(2)}, moved)
        >>> with certifier.moment():
        ...     certifier.adapted(0, 1, change, moved)
        >>> verdict = certifier.verdict()
        >>> verdict.distance, round(verdict.bound, 6), verdict.holds
        (2.5, 2.5, True)
    """

    def __init__(self, messages: Sequence[Message], kept: int = 4):
        self._newest = list(messages)
        distance, _ = jax.device_get(spread_alone(tuple(messages)))
        self._certificate = ConsensusBound(len(messages), float(distance), kept)
        self._diverged = False  # an agent's parameters became NaN or infinite: there is no bound from then on
        # One thread both sends, which is a moment, and tells of what arrives thereby.
        self._lock = threading.RLock()

    def moment(self) -> AbstractContextManager[object]:
        """Nothing else happens anywhere while it lasts."""
        return self._lock

    def change(self, before: Message, after: Message) -> float:
        """By how much an agent's own doing has changed its parameters; computed outside of any moment."""
        return float(change_alone(before, after))

    def adapted(self, agent: int, version: int, change: float, after: Message) -> None:
        """An agent's parameters have changed by its own doing, and it is about to send them."""
        self._diverged |= not math.isfinite(change)
        self._newest[agent] = after
        if not self._diverged:
            self._certificate.adapted(agent, version, change)

    def received(self, receiver: int, sender: int, version: int) -> None:
        """A message has come to an inbox."""
        if not self._diverged:
            self._certificate.received(receiver, sender, version)

    def combined(
        self, agent: int, own: float, heard: Sequence[tuple[int, int, float]], after: Message
    ) -> None:
        """An agent's parameters became own · x + Σ weight · message."""
        self._newest[agent] = after
        if not self._diverged:
            self._certificate.combined(agent, own, heard)

    def verdict(self) -> Verdict:
        """How far apart the agents are now, and how far they can be."""
        with self._lock:
            messages = tuple(self._newest)
            bound = self._certificate.verdict(0.0)
        distance, _ = jax.device_get(spread_alone(messages))
        norm = max(float(norm_alone(message)) for message in messages)
        return bound._replace(distance=float(distance), slack=self._certificate.rounding(norm))
