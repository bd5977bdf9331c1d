"""Combinations one after the other, on the device: for algorithms whose agents hear what was just decided.

Who has its turn was decided by ``schedules``; here it is done to arrays. Written for one seed; ``vmap`` adds that axis.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gossamer.algorithms.protocol import Cyclic
from gossamer.runtimes.mailbox import Delivery
from gossamer.schedules import Links
from gossamer.types import Learner, Message, NeighbourMessage


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class CycleMailbox:
    """Whom every agent hears, and where in each neighbour's letter its own part stands."""

    neighbour: Any  # Int[Array, "agent slot"]
    place: Any  # Int[Array, "agent slot"]: the agent's slot among its neighbour's
    linked: Any  # Bool[Array, "agent slot"]
    later: Any  # Bool[Array, "agent slot"]: whether the neighbour's turn comes after the agent's

    @classmethod
    def of(cls, links: Links) -> "CycleMailbox":
        """Slots in the order of the neighbours' numbers, as many as the agent with most of them needs.

        Example:
            >>> mailbox = CycleMailbox.of(Links.of((np.full((3, 3), 1 / 3),)))
            >>> mailbox.neighbour.tolist(), mailbox.place.tolist()
            ([[1, 2], [0, 2], [0, 1]], [[0, 0], [0, 1], [1, 1]])
        """
        heard = [links.sender[links.receiver == agent].tolist() for agent in range(links.agents)]
        shape = (links.agents, most_neighbours(links))
        neighbour, place, linked = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, bool)
        for agent, senders in enumerate(heard):
            neighbour[agent, : len(senders)] = senders
            place[agent, : len(senders)] = [heard[sender].index(agent) for sender in senders]
            linked[agent, : len(senders)] = True
        later = linked & (neighbour > np.arange(links.agents)[:, None])
        return cls(*map(jax.device_put, (neighbour, place, linked, later)))

    def init(self, message: Message) -> tuple[()]:
        """Nothing is under way between two cycles."""
        return ()

    def combine(self, algorithm: Cyclic, learners: Learner, now: Delivery) -> Learner:
        """Every agent that has its turn combines, in the order of their numbers, with its neighbours' newest letters.

        Args:
            algorithm: what every agent learns with.
            learners: leaves ``[agent, ...]``, adapted.
            now: who has its turn.
        """

        def visit(learners: Learner, agent: Array) -> tuple[Learner, None]:
            letters: NeighbourMessage = jax.vmap(algorithm.message)(learners)
            neighbour = self.neighbour[agent]
            heard = NeighbourMessage(
                jax.tree.map(lambda leaf: leaf[neighbour], letters.to_all),
                jax.tree.map(lambda leaf: leaf[neighbour, self.place[agent]], letters.to_each),
            )
            before = jax.tree.map(lambda leaf: leaf[agent], learners)
            after = algorithm.combine_in_cycle(before, heard, self.linked[agent], self.later[agent])
            return jax.tree.map(
                lambda leaf, old, new: leaf.at[agent].set(jnp.where(now.combines[agent], new, old)),
                learners,
                before,
                after,
            ), None

        learners, _ = jax.lax.scan(visit, learners, jnp.arange(len(self.neighbour)))
        return learners


def most_neighbours(links: Links) -> int:
    """Of any agent, itself not counted.

    Example:
        >>> most_neighbours(Links.of((np.full((3, 3), 1 / 3),)))
        2
    """
    return int(np.bincount(links.receiver, minlength=links.agents).max(initial=0))
