"""The course of events under a schedule, in virtual time, grouped in waves that a runtime can run as one program.

Nothing here holds or sees parameters: their values never influence who acts when.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from gossamer.errors import InputError, require_at_least
from gossamer.schedules.combine_rules import is_stale, is_usable, may_combine, return_missing_to_self
from gossamer.schedules.draws import compute_duration, latency_of, link_fails
from gossamer.schedules.links import Links
from gossamer.schedules.schedule import Schedule


class Wave(NamedTuple):
    """What happens between two moments, in this order: adapt, write messages, take messages, combine.

    Everybody has at most one update in a wave. ``weight`` and ``own`` are W[receiver, sender] and W[i, i]; their
    rows sum to one, those of agents that do not combine being (0, ..., 1). Under ``push_sum`` they are what the
    sender of a message gave away and kept, and sum to one over an agent's own and its outgoing edges.
    """

    time: float  # of the first event, in units of time; none falls after the next wave's
    adapts: Bool[np.ndarray, " agent"]
    combines: Bool[np.ndarray, " agent"]
    adapted_at: Float[np.ndarray, " agent"]  # time; nan where it does not
    combined_at: Float[np.ndarray, " agent"]
    version: Int[np.ndarray, " agent"]  # updates so far, this wave's included
    slot: Int[np.ndarray, " agent"]  # where in its ring an agent that adapts writes its message
    take: Int[np.ndarray, " edge"]  # the slot of the sender's ring to copy into the edge's inbox; -1: none
    weight: Float[np.ndarray, " edge"]
    own: Float[np.ndarray, " agent"]
    age: Int[np.ndarray, " edge"]  # in updates, of each message that is combined, at least 0; -1: none is
    sent: Bool[np.ndarray, " edge"]
    lost: Bool[np.ndarray, " edge"]  # by a link that failed, or a receiver that left
    overtaken: Bool[np.ndarray, " edge"]  # dropped from the ring by newer messages before it was taken
    expired: Bool[np.ndarray, " edge"]  # the deadline passed without a message fresh enough


class Simulation:
    """Seeded events of a population: the same arguments give the same waves, always.

    An agent collects and adapts, sends its message, combines at the same instant unless it must wait for fresher
    messages, and starts again. A wave holds all events before the first moment at which somebody could adapt or
    combine for a second time, or somebody leaves or returns. Of events at one instant the order is: leave,
    return, adapt, arrive, combine.

    A message is in the sender's ring of ``in_flight`` + 1 until as many newer ones were written there. A wave
    writes before it takes, and takes what arrived by the receiver's combination, so that a message may have
    arrived since the last one and yet be overtaken: ``in_flight`` should be at least the latency in updates of
    the sender, rounded up. Messages that would reach an absent agent are dropped.

    Who returns forgets its inbox and takes over the newest message of the in-neighbour that has sent the newest
    one (the lowest number if several did), at once and unfailingly: a wave of its own, with weight 1 on that
    edge. Its version becomes that message's if that is larger. It keeps its own parameters where no neighbour
    is present or has ever sent, and under ``push_sum`` also its inbox.

    Args:
        schedule: what departs from lockstep.
        links: the edges and their weights.
        seed: of all draws.

    Raises:
        InputError: a negative seed, a slow or absent agent that does not exist, or a population that all leave.

    Example:
        >>> links = Links.of((np.array([[0.5, 0.5], [0.5, 0.5]]),))
        >>> wave = Simulation(Schedule(), links, seed=0).wave()
        >>> wave.time, wave.adapts.tolist(), wave.take.tolist(), wave.weight.tolist()
        (1.0, [True, True], [1, 1], [0.5, 0.5])
        >>> wave = Simulation(Schedule(link_failure=1.0), links, seed=0).wave()
        >>> wave.lost.tolist(), wave.weight.tolist(), wave.own.tolist()
        ([True, True], [0.0, 0.0], [1.0, 1.0])
    """

    def __init__(self, schedule: Schedule, links: Links, seed: int):
        require_at_least("seed", seed, 0)
        require_known_agents(schedule, links.agents)
        self.schedule, self.links, self.seed = schedule, links, seed
        self._start_agents()
        self._start_edges()

    def wave(self) -> Wave:
        """The next wave; there always is one."""
        while True:
            start = float(min(self._adapting.min(), self._releasing.min()))
            if self._membership_times[self._membership_next] > start:
                return self._act(start)
            wave = self._change_membership()
            if wave is not None:
                return wave

    def skip(self, waves: int) -> None:
        """Drop the first ``waves`` waves, which a run that resumes from a checkpoint has done already."""
        for _ in range(waves):
            self.wave()

    def _start_agents(self) -> None:
        agents = self.links.agents
        self._version = np.zeros(agents, np.int64)
        self._posted = np.zeros(agents, np.int64)  # version of the newest message
        self._joined = np.zeros(agents, np.int64)  # version on joining last
        self._present = np.ones(agents, bool)
        self._waiting = np.zeros(agents, bool)  # adapted, not yet combined
        self._adapted = np.zeros(agents)
        self._adapting = np.empty(agents)  # time of the next adaptation; inf while absent or waiting
        self._releasing = np.full(agents, np.inf)  # time at which a waiting agent combines, as known so far
        self._ahead = np.empty(agents)  # duration of the update that follows the next combination
        self._floor = 0.0  # nothing happens before
        self._join(np.arange(agents), np.zeros(agents))
        changes = _membership_changes(self.schedule)
        self._membership = changes
        self._membership_times = [*sorted(changes), math.inf]
        self._membership_next = 0

    def _start_edges(self) -> None:
        edges, ring = self.links.edges, self.schedule.in_flight + 1
        self._every_edge = np.arange(edges)
        self._inbox = np.zeros(edges, np.int64)  # version of the newest message that was taken
        self._received = np.zeros(edges, bool)
        self._unread = np.zeros(edges, bool)
        self._alive = np.ones(edges, bool)
        self._dropped = np.zeros(edges, bool)  # by a receiver that left, not yet reported
        self._message = np.zeros((ring, edges), np.int64)  # version in each slot of the sender's ring
        self._arrival = np.full((ring, edges), np.inf)  # its time of arrival; inf: not sent, or lost

    def _act(self, start: float) -> Wave:
        horizon = self._horizon(start)
        adapts = self._adapting < horizon
        self._adapt(adapts)
        sent, lost, overtaken = self._send(adapts)
        weight, own, expected = self._weights_of_phase()
        releasing = self._release(expected)
        combines = releasing < horizon
        take = self._take(np.where(combines, releasing, np.nextafter(horizon, -np.inf)))
        age = self._age()
        expired = is_stale(self.schedule, age, expected) & combines[self.links.receiver]
        used, mixing = self._use(combines, expected, age)
        if self.schedule.rule == "push_sum":
            weight, own = self._weights_of_senders(adapts, sent)
        else:
            weight, own = return_missing_to_self(weight, own, used, self.links.receiver)
            own[~mixing] = 1.0
        wave = Wave(
            time=start,
            adapts=adapts,
            combines=mixing,
            adapted_at=np.where(adapts, self._adapted, np.nan),
            combined_at=np.where(mixing, releasing, np.nan),
            version=self._version.copy(),
            slot=self._version % len(self._message),
            take=take,
            weight=weight,
            own=own,
            age=np.where(used, np.maximum(age, 0), -1),
            sent=sent,
            lost=lost,
            overtaken=overtaken,
            expired=expired,
        )
        self._go_on(combines, releasing)
        return wave

    def _horizon(self, start: float) -> float:
        """The first moment at which somebody could adapt or combine again, or leaves or returns."""
        earliest = np.where(self._waiting, start, self._adapting) + self._ahead
        return float(min(earliest.min(), self._membership_times[self._membership_next]))

    def _adapt(self, adapts: Bool[np.ndarray, " agent"]) -> None:
        self._version += adapts
        np.copyto(self._posted, self._version, where=adapts)
        np.copyto(self._adapted, self._adapting, where=adapts)
        self._adapting[adapts] = np.inf
        self._waiting |= adapts

    def _send(self, adapts: Bool[np.ndarray, " agent"]) -> tuple[Any, Any, Any]:
        """Write messages into the rings; which edges have sent, lost, and dropped an older one."""
        edge = np.flatnonzero(adapts[self.links.sender])
        sender, receiver = self.links.sender[edge], self.links.receiver[edge]
        version = self._version[sender]
        slot = version % len(self._message)
        sends = (self._weight_in_phase(version, edge) > 0) & self._present[receiver]
        fails = sends & link_fails(self.schedule, self.seed, sender, receiver, version)
        arrival = self._adapted[sender] + latency_of(self.schedule, self.seed, sender, receiver, version)
        pending = (self._arrival[slot, edge] < np.inf) & (self._message[slot, edge] > self._inbox[edge])
        self._message[slot, edge] = version
        self._arrival[slot, edge] = np.where(sends & ~fails, arrival, np.inf)
        sent, lost, overtaken = np.zeros((3, self.links.edges), bool)
        sent[edge], lost[edge], overtaken[edge] = sends, fails, pending
        return sent, lost | self._reported_drops(), overtaken

    def _reported_drops(self) -> Bool[np.ndarray, " edge"]:
        dropped, self._dropped = self._dropped, np.zeros(self.links.edges, bool)
        return dropped

    def _weights_of_phase(self) -> tuple[Any, Any, Bool[np.ndarray, " edge"]]:
        """Weights of edges and self in every receiver's phase, and where a present sender has one."""
        weight = self._weight_in_phase(self._version[self.links.receiver], self._every_edge)
        phase = (self._version - 1) % self.links.period
        own = self.links.own[phase, np.arange(self.links.agents)]
        return weight, own, (weight > 0) & self._alive

    def _weight_in_phase(self, version: Any, edge: Int[np.ndarray, " some"]) -> Float[np.ndarray, " some"]:
        if self.links.period == 1:
            return self.links.weight[0, edge]
        return self.links.weight[(version - 1) % self.links.period, edge]

    def _release(self, expected: Bool[np.ndarray, " edge"]) -> Float[np.ndarray, " agent"]:
        """When every waiting agent combines, if no message is sent any more: inf for all others."""
        earliest = np.maximum(self._adapted, self._floor)
        if self.schedule.staleness is not None:
            stale = is_stale(self.schedule, self._age(), expected) & self._waiting[self.links.receiver]
            edge = np.flatnonzero(stale)
            receiver = self.links.receiver[edge]
            oldest = self._version[receiver] - self.schedule.staleness
            fresh = np.where(self._message[:, edge] >= oldest, self._arrival[:, edge], np.inf).min(axis=0)
            np.maximum.at(earliest, receiver, fresh)
            earliest = np.minimum(earliest, self._adapted + self.schedule.deadline)
        return np.where(self._waiting, earliest, np.inf)

    def _take(self, until: Float[np.ndarray, " agent"]) -> Int[np.ndarray, " edge"]:
        """Put into every inbox the newest message that arrived by a time of the receiver's."""
        arrived = self._arrival <= np.where(self._present, until, -np.inf)[self.links.receiver]
        newest = np.where(arrived, self._message, 0).max(axis=0)
        new = newest > self._inbox
        np.copyto(self._inbox, newest, where=new)
        self._received |= new
        self._unread |= new
        return np.where(new, newest % len(self._message), -1)

    def _age(self) -> Int[np.ndarray, " edge"]:
        """Updates of the receiver less the version in the inbox, or, where that is empty, since it joined."""
        since = np.where(self._received, self._inbox, self._joined[self.links.receiver])
        return self._version[self.links.receiver] - since

    def _use(self, combines: Any, expected: Any, age: Any) -> tuple[Any, Any]:
        """Which messages are combined, and who combines; they are read from now on."""
        usable = is_usable(self.schedule, self._received, self._unread, age, self._alive)
        receiver = self.links.receiver
        mixing = combines & may_combine(self.schedule, self._unread, expected, receiver, len(combines))
        # a push_sum message was weighed by its sender, whatever the receiver's phase
        wanted = usable if self.schedule.rule == "push_sum" else usable & expected
        used = wanted & mixing[receiver]
        self._unread &= ~used
        return used, mixing

    def _weights_of_senders(self, adapts: Any, sent: Any) -> tuple[Any, Any]:
        """1 / (1 + messages sent) on each of them and to oneself: columns sum to one (Kempe et al. 2003)."""
        share = 1 / (1 + np.bincount(self.links.sender[sent], minlength=len(adapts)))
        return np.where(sent, share[self.links.sender], 0.0), share

    def _go_on(self, combines: Bool[np.ndarray, " agent"], at: Float[np.ndarray, " agent"]) -> None:
        self._waiting &= ~combines
        self._releasing = np.where(combines, np.inf, at)
        agent = np.flatnonzero(combines)
        self._begin_update(agent, at[agent])

    def _begin_update(self, agent: Int[np.ndarray, " some"], at: Float[np.ndarray, " some"]) -> None:
        self._adapting[agent] = at + self._ahead[agent]
        self._ahead[agent] = compute_duration(self.schedule, self.seed, agent, self._version[agent] + 1)

    def _join(self, agent: Int[np.ndarray, " some"], at: Float[np.ndarray, " some"]) -> None:
        self._joined[agent] = self._version[agent]
        self._ahead[agent] = compute_duration(self.schedule, self.seed, agent, self._version[agent])
        self._begin_update(agent, at)

    def _change_membership(self) -> Wave | None:
        """Leaves and returns of one instant; a wave only if somebody takes over a message."""
        time = self._membership_times[self._membership_next]
        leaves, returns = self._membership[time]
        self._membership_next += 1
        self._floor = time
        for agent, until in leaves:
            self._leave(agent, time, until)
        takes = {agent: self._best_edge(agent) for agent in returns}  # before anybody who returns is present
        for agent in returns:
            self._return(agent, time, takes[agent])
        self._alive = self._present[self.links.sender]
        self._releasing = self._release(self._weights_of_phase()[2])
        copied = np.array([edge for edge in takes.values() if edge is not None], np.int64)
        return self._takeover(time, copied) if len(copied) else None

    def _leave(self, agent: int, time: float, until: float) -> None:
        self._present[agent] = self._waiting[agent] = False
        self._adapting[agent] = np.inf
        edges = self._in_edges(agent)
        arrival, newer = self._arrival[:, edges], self._message[:, edges] > self._inbox[edges]
        missed = (time <= arrival) & (arrival < until)
        self._dropped[edges] |= (missed & newer).any(axis=0)
        arrival[missed if self.schedule.rule == "push_sum" else arrival < until] = np.inf

    def _return(self, agent: int, time: float, take: int | None) -> None:
        self._present[agent] = True
        if self.schedule.rule != "push_sum":
            edges = self._in_edges(agent)
            self._received[edges] = self._unread[edges] = False
        if take is not None:
            self._received[take] = True
            self._inbox[take] = self._posted[self.links.sender[take]]
            self._version[agent] = max(self._version[agent], self._inbox[take])
        self._join(np.array([agent]), np.array([time]))

    def _best_edge(self, agent: int) -> int | None:
        """The edge from the present neighbour whose message is newest; None if none is new enough to take over."""
        edges = self._in_edges(agent)
        sender = self.links.sender[edges]
        posted = np.where(self._present[sender], self._posted[sender], 0)
        if self.schedule.rule == "push_sum" or not posted.any():
            return None
        limit = self.schedule.staleness
        if limit is not None and self._version[agent] - posted.max() > limit:
            return None
        return edges.start + int(posted.argmax())

    def _in_edges(self, agent: int) -> slice:
        first, last = np.searchsorted(self.links.receiver, [agent, agent + 1])
        return slice(int(first), int(last))

    def _takeover(self, time: float, edge: Int[np.ndarray, " some"]) -> Wave:
        """The wave in which agents that return copy the message of one edge each."""
        receiver, (agents, edges) = self.links.receiver[edge], (self.links.agents, self.links.edges)
        combines, own, weight = np.zeros(agents, bool), np.ones(agents), np.zeros(edges)
        take, age, nothing = np.full(edges, -1), np.full(edges, -1), np.zeros(edges, bool)
        combines[receiver], own[receiver], weight[edge] = True, 0.0, 1.0
        take[edge] = self._inbox[edge] % len(self._message)
        age[edge] = self._version[receiver] - self._inbox[edge]
        return Wave(
            time=time,
            adapts=np.zeros(agents, bool),
            combines=combines,
            adapted_at=np.full(agents, np.nan),
            combined_at=np.where(combines, time, np.nan),
            version=self._version.copy(),
            slot=self._version % len(self._message),
            take=take,
            weight=weight,
            own=own,
            age=age,
            sent=nothing,
            lost=self._reported_drops(),
            overtaken=nothing.copy(),
            expired=nothing.copy(),
        )


def require_known_agents(schedule: Schedule, agents: int) -> None:
    """Refuse slow or absent agents that do not exist, and a population that all leave.

    Raises:
        InputError: there is one, or they do.
    """
    for name, named in (("slow_agents", schedule.slow_agents), ("absences", schedule.absences)):
        strangers = [entry[0] for entry in named if entry[0] >= agents]
        if strangers:
            raise InputError(f"{name} names agent {strangers[0]}; it must be among 0 to {agents - 1}")
    gone = {agent for agent, _, returns in schedule.absences if returns is None}
    if len(gone) == agents:
        raise InputError(f"absences: all {agents} agents leave for ever; at least one must stay or return")


def _membership_changes(schedule: Schedule) -> dict[float, tuple[list[tuple[int, float]], list[int]]]:
    """By time: who leaves until when, and who returns."""
    changes: dict[float, tuple[list[tuple[int, float]], list[int]]] = {}
    for agent, leaves, returns in schedule.absences:
        until = math.inf if returns is None else float(returns)
        changes.setdefault(float(leaves), ([], []))[0].append((agent, until))
        if returns is not None:
            changes.setdefault(until, ([], []))[1].append(agent)
    return changes
