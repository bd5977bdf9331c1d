"""The loop of one agent among peers: collect and adapt, send, take what has come, combine, report, leave.

The same loop runs in a thread beside the others and on a machine of its own. It knows no algorithm, no simulator and
no transport: they are a ``Part`` and a ``Post``.
"""

import logging
import math
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from gossamer.runtimes.clock import Clock
from gossamer.runtimes.inbox import Envelope, Held, Inbox
from gossamer.schedules import Links, Schedule
from gossamer.schedules.adaptive_timeout import AdaptiveTimeout
from gossamer.schedules.combine_rules import is_stale, is_usable, may_combine, return_missing_to_self
from gossamer.types import Message

_log = logging.getLogger(__name__)


@runtime_checkable
class AgentStep(Protocol):
    """What one agent does by itself."""

    def adapt(self, learner: Any, done: int) -> tuple[Any, Any]:
        """Collect and adapt, in round ``done`` + 1: the adapted learner, and what there is to report."""
        ...

    def message(self, learner: Any) -> Message:
        """What peers may see of a learner. It is theirs from then on: its buffers are never donated."""
        ...

    def combine(self, learner: Any, messages: Sequence[Message], weights: Float[np.ndarray, " peer"]) -> Any:
        """The learner after averaging; slot 0 is its own message."""
        ...


@runtime_checkable
class Transport(Protocol):
    """How messages travel."""

    def send(self, envelope: Envelope) -> tuple[int, int]:
        """Hand a message to the links to all out-peers, without waiting: how many it was given to, how many lost it."""
        ...

    def leave(self, agent: int) -> None:
        """Tell the out-peers that nothing more will come."""
        ...


@runtime_checkable
class Gate(Protocol):
    """Where agents stand still between two rounds."""

    def enter(self, done: int) -> bool:
        """Wait until one that has made ``done`` rounds may begin the next; False if all must end."""
        ...

    def hurries(self) -> bool:
        """Whether waits for messages should end, because all agents are to stand still."""
        ...


@runtime_checkable
class MessageMonitor(Protocol):
    """Who sees what happens to parameters, in the order in which it happens."""

    def moment(self) -> AbstractContextManager[object]:
        """Nothing else happens anywhere while it lasts."""
        ...

    def change(self, before: Message, after: Message) -> float:
        """By how much an agent's own doing has changed its parameters; asked outside of any moment."""
        ...

    def adapted(self, agent: int, version: int, change: float, after: Message) -> None:
        """An agent's parameters have changed by its own doing, and it is about to send them."""
        ...

    def received(self, receiver: int, sender: int, version: int) -> None:
        """A message has come to an inbox."""
        ...

    def combined(
        self, agent: int, own: float, heard: Sequence[tuple[int, int, float]], after: Message
    ) -> None:
        """They became own · x + Σ weight · message, over triples (sender, version, weight)."""
        ...


class Update(NamedTuple):
    """What happened to one agent in one round."""

    agent: int
    version: int
    report: Any
    sent: int
    lost: int
    ages: Int[np.ndarray, " combined"]  # in updates, of the messages that were combined
    expired: int  # messages that were waited for in vain
    waited: float  # seconds


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Whom one agent hears and how much it believes them, by phase; places are those of its inbox.

    Example:
        >>> links = Links.of((np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]]),))
        >>> ring = Neighbourhood.of(links, agent=0)
        >>> ring.senders, ring.receivers, ring.weight.tolist(), ring.own.tolist()
        ((1,), (2,), [[0.5]], [0.5])
    """

    agent: int
    senders: tuple[int, ...]
    receivers: tuple[int, ...]
    weight: Float[np.ndarray, "phase edge"]
    own: Float[np.ndarray, " phase"]

    @classmethod
    def of(cls, links: Links, agent: int) -> "Neighbourhood":
        """The part of a graph that one agent sees."""
        heard, told = links.receiver == agent, links.sender == agent
        return cls(
            agent,
            tuple(links.sender[heard].tolist()),
            tuple(links.receiver[told].tolist()),
            links.weight[:, heard],
            links.own[:, agent],
        )

    def weights(self, version: int) -> tuple[Float[np.ndarray, " edge"], Float[np.ndarray, " 1"]]:
        """Of the edges and of itself, in the phase of an agent with so many updates."""
        phase = (version - 1) % len(self.own)
        return self.weight[phase], self.own[phase : phase + 1]


class Peer:
    """One agent among peers, from joining to leaving.

    Args:
        neighbourhood: whom it hears.
        part: what it does by itself.
        inbox: what has come for it; its places are those of the neighbourhood.
        post: how its messages travel.
        clock: of its waiting.
        schedule: the combine rule, its age limit, and how much slower than it must this agent is.
        patience: how long it waits where the rule makes it wait; None: until the gate hurries, which suits peers that
            cannot fail in silence.
        lockstep: whether it combines messages of just its own version, as if all agents moved at once.
        witness: is told of every adaptation and combination; none by default.
    """

    def __init__(
        self,
        neighbourhood: Neighbourhood,
        part: AgentStep,
        inbox: Inbox,
        post: Transport,
        clock: Clock,
        schedule: Schedule,
        patience: AdaptiveTimeout | None,
        lockstep: bool = False,
        witness: MessageMonitor | None = None,
    ):
        self._neighbourhood, self._part, self._inbox, self._post = neighbourhood, part, inbox, post
        self._clock, self._schedule, self._patience = clock, schedule, patience
        self._lockstep, self._witness = lockstep, witness
        self._slowness = dict(schedule.slow_agents).get(neighbourhood.agent, 1.0)
        self._missed = np.zeros(len(neighbourhood.senders), np.int64)
        self._joined = 0

    def rounds(
        self, learner: Any, done: int, rounds: int, gate: Gate
    ) -> Generator[tuple[Update, Any], None, None]:
        """Make all rounds, or as many as the gate allows; after each, yield an ``Update`` and the learner.

        The peers are told that it leaves, whatever ends the loop.

        Args:
            learner: where it begins.
            done: updates that it has made.
            rounds: updates after which it leaves.
            gate: asked before every round.
        """
        self._joined = done
        try:
            while done < rounds and gate.enter(done):
                learner, update = self._round(learner, done, gate)
                done = update.version
                yield update, learner
        finally:
            self._post.leave(self._neighbourhood.agent)

    def take_over(self, learner: Any, done: int) -> tuple[Any, int]:
        """What a late joiner begins with: the newest message that it holds, and as many updates as that had.

        The lowest number of several equally new; its own parameters if it has heard no neighbour.
        """
        with self._moment():
            held, messages = self._inbox.take(_newest)
            if not messages:
                return learner, done
            place = int(_newest(held).argmax())
            version = int(held.version[place])
            own = self._part.message(learner)
            learner = self._part.combine(learner, [own, *messages], np.array([0.0, 1.0]))
            self._tell_combined(0.0, [(self._neighbourhood.senders[place], version, 1.0)], learner)
        return learner, max(done, version)

    def _round(self, learner: Any, done: int, gate: Gate) -> tuple[Any, Update]:
        began = self._clock.now()
        before = self._part.message(learner) if self._witness else None
        learner, report = self._part.adapt(learner, done)
        if self._slowness > 1:
            self._clock.sleep((self._slowness - 1) * (self._clock.now() - began))
        version, message = done + 1, self._part.message(learner)
        change = self._witness.change(before, message) if self._witness else 0.0
        with self._moment():
            if self._witness:
                self._witness.adapted(self._neighbourhood.agent, version, change, message)
            sent, lost = self._post.send(
                Envelope(self._neighbourhood.agent, version, self._clock.now(), message)
            )
        ready = self._clock.now()
        expired = self._wait_for_fresh(version, gate)
        waited = self._clock.now() - ready
        learner, ages = self._combine(learner, message, version)
        update = Update(self._neighbourhood.agent, version, report, sent, lost, ages, expired, waited)
        return learner, update

    def _wait_for_fresh(self, version: int, gate: Gate) -> int:
        """Until no message is older than the limit, or the deadline; how many are missing then."""
        if self._schedule.staleness is None:
            if self._schedule.rule == "all_in_peers" and self._patience:
                self._give_up_silent(self._patience)
            return 0
        upto = self._upto(version)
        stale = self._stale(self._inbox.look(upto), version)
        if not stale.any():
            return 0
        held = self._inbox.wait_for(
            lambda held: gate.hurries() or not self._stale(held, version).any(),
            self._inbox.deadline(self._patience, stale) if self._patience else math.inf,
            upto,
        )
        stale = self._stale(held, version)
        if gate.hurries():
            return int(stale.sum())
        self._inbox.give_up(stale)
        self._say_missing(
            stale, f"within {self._schedule.staleness} updates of its own update {version} in time"
        )
        return int(stale.sum())

    def _stale(self, held: Held, version: int) -> Bool[np.ndarray, " edge"]:
        weight, _ = self._neighbourhood.weights(version)
        expected = (weight > 0) & held.present & ~held.left
        return is_stale(self._schedule, self._age(held, version), expected)

    def _age(self, held: Held, version: int) -> Int[np.ndarray, " edge"]:
        """Updates less the version held, or, where nothing is held, since the agent joined."""
        return version - np.where(held.received, held.version, self._joined)

    def _upto(self, version: int) -> float:
        return version if self._lockstep else math.inf

    def _give_up_silent(self, patience: AdaptiveTimeout) -> None:
        """Where no wait ends by a deadline, a peer that was not heard for so long is not waited for either."""
        held = self._inbox.look()
        silent = self._inbox.overdue(patience) & held.present & ~held.unread
        if silent.any():
            self._inbox.give_up(silent)
            self._say_missing(silent, "for the length of its deadline")

    def _combine(
        self, learner: Any, message: Message, version: int
    ) -> tuple[Any, Int[np.ndarray, " combined"]]:
        upto, (weight, own) = self._upto(version), self._neighbourhood.weights(version)
        with self._moment():
            held, heard = self._inbox.take(lambda held: self._usable(held, weight > 0, version), upto)
            used = self._usable(held, weight > 0, version)
            if heard:
                weight, own = return_missing_to_self(weight, own, used, np.zeros(len(used), np.int64))
                weights = np.concatenate([own, weight[used]])
                learner = self._part.combine(learner, [message, *heard], weights)
                self._tell_combined(float(own[0]), self._triples(held, used, weight), learner)
        return learner, np.maximum(version - held.version[used], 0)

    def _usable(self, held: Held, weighs: Any, version: int) -> Bool[np.ndarray, " edge"]:
        expected = weighs & held.present
        usable = is_usable(self._schedule, held.received, held.unread, self._age(held, version), held.present)
        agent = np.zeros(len(expected), np.int64)
        return usable & expected & may_combine(self._schedule, held.unread, expected, agent, 1)[0]

    def _triples(self, held: Held, used: Any, weight: Any) -> list[tuple[int, int, float]]:
        """Sender, version and weight of what was combined."""
        senders = np.array(self._neighbourhood.senders)[used].tolist()
        return list(zip(senders, held.version[used].tolist(), weight[used].tolist(), strict=True))

    def _tell_combined(self, own: float, heard: Sequence[tuple[int, int, float]], learner: Any) -> None:
        if self._witness:
            agent = self._neighbourhood.agent
            self._witness.combined(agent, own, heard, self._part.message(learner))

    def _moment(self) -> AbstractContextManager[object]:
        return self._witness.moment() if self._witness else nullcontext()

    def _say_missing(self, places: Any, when: str) -> None:
        """A line for each edge, of repeated ones the first, second, fourth, eighth, ... only."""
        self._missed += places
        for place in np.flatnonzero(places).tolist():
            times = int(self._missed[place])
            if times & (times - 1) == 0:
                _log.warning(
                    "agent %d got no message of agent %d %s (%d times so far); its weight returns to self until it "
                    "is heard of again",
                    self._neighbourhood.agent,
                    self._neighbourhood.senders[place],
                    when,
                    times,
                )


def _newest(held: Held) -> Bool[np.ndarray, " edge"]:
    """The place of the newest message; the first of several equally new."""
    version = np.where(held.received, held.version, -1)
    return held.received & (np.arange(len(version)) == version.argmax() if len(version) else True)
