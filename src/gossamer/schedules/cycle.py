"""The course of events where agents combine one after the other, in a cycle that visits all (distributed ADMM).

Nothing here holds or sees parameters.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool

from gossamer.errors import InputError
from gossamer.schedules.links import Links
from gossamer.schedules.schedule import Schedule
from gossamer.schedules.simulation import Wave, require_known_agents


class Cycle:
    """Events of a population whose agents combine in the order of their numbers; a wave is a cycle, or part of one.

    All present agents collect and adapt together once the cycle before is closed. Then agent 0 combines and tells its
    neighbours, then agent 1, and so on. Where it is the turn of an agent that is absent the cycle stands still, and
    no agent adapts or combines until it returns: a wave then holds what it can, nothing as a rule. Wave k is at time k.

    Args:
        schedule: who is absent and when.
        links: the edges; their weights are of no account.

    Raises:
        InputError: an absent agent that does not exist, all agents leave, the graph varies in time, or lacks a link in
            both directions between two agents that follow upon each other.

    Example:
        >>> ring = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1]]) / 3
        >>> cycle = Cycle(Schedule(rule="cycle", absences=((1, 2.0, 4.0),)), Links.of((ring,)))
        >>> [cycle.wave().combines.tolist() for _ in range(4)]
        [[True, True, True], [True, False, False], [False, False, False], [False, True, True]]
    """

    def __init__(self, schedule: Schedule, links: Links):
        require_known_agents(schedule, links.agents)
        _require_cycle(links)
        self._schedule, self._links = schedule, links
        self._waves = 0
        self._next = 0  # whose turn it is
        self._version = np.zeros(links.agents, np.int64)

    def wave(self) -> Wave:
        """The next wave; there always is one."""
        self._waves += 1
        time, agents, edges = float(self._waves), self._links.agents, self._links.edges
        present = np.array([self._is_present(agent, time) for agent in range(agents)])
        adapts = present & (self._next == 0)
        self._version += adapts
        combines = self._visit(present)
        sender, receiver = self._links.sender, self._links.receiver
        heard = combines[receiver]
        nothing = np.zeros(edges, bool)
        return Wave(
            time=time,
            adapts=adapts,
            combines=combines,
            adapted_at=np.where(adapts, time, np.nan),
            combined_at=np.where(combines, time, np.nan),
            version=self._version.copy(),
            slot=np.zeros(agents, np.int64),
            take=np.full(edges, -1),
            weight=np.zeros(edges),
            own=np.ones(agents),
            # who comes later in the order has its turn of this cycle yet to come
            age=np.where(heard, (sender > receiver).astype(np.int64), -1),
            sent=combines[sender],
            lost=nothing,
            overtaken=nothing.copy(),
            expired=nothing.copy(),
        )

    def skip(self, waves: int) -> None:
        """Drop the first ``waves`` waves, which a run that resumes from a checkpoint has done already."""
        for _ in range(waves):
            self.wave()

    def _visit(self, present: Bool[np.ndarray, " agent"]) -> Bool[np.ndarray, " agent"]:
        absent = np.flatnonzero(~present[self._next :])
        end = self._next + int(absent[0]) if len(absent) else len(present)
        combines = np.zeros(len(present), bool)
        combines[self._next : end] = True
        self._next = end % len(present)
        return combines

    def _is_present(self, agent: int, time: float) -> bool:
        return not any(
            who == agent and leaves <= time and (returns is None or time < returns)
            for who, leaves, returns in self._schedule.absences
        )


def _require_cycle(links: Links) -> None:
    if links.period > 1:
        raise InputError(f"the graph has {links.period} phases; under the rule cycle it must stay the same")
    known: set[tuple[Any, Any]] = set(zip(links.receiver.tolist(), links.sender.tolist(), strict=True))
    for agent in range(links.agents if links.agents > 1 else 0):
        following = (agent + 1) % links.agents
        if not {(agent, following), (following, agent)} <= known:
            raise InputError(
                f"agents {agent} and {following} are not linked both ways; under the rule cycle each agent hands over "
                "to the next one and the last to the first, as in the topologies ring and complete"
            )
