"""What advances a population by some rounds, and what it reports; folders and progress are not its."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float, Int

from gossamer.diagnostics.consensus_bound import Verdict
from gossamer.runtimes.rounds import AgentRound
from gossamer.runtimes.vectorised import Population, RoundRecord

Resume: TypeAlias = Literal["exact", "learner-exact"]


AGES = 16  # from this age on messages are counted together


class Traffic(NamedTuple):
    """Messages of some rounds, per seed: handed to links, lost on them, combined; ages in updates.

    ``ages[s, a]`` counts those combined at age a; the last column those of its age or older.
    """

    sent: Int[np.ndarray, " seed"]
    lost: Int[np.ndarray, " seed"]
    combined: Int[np.ndarray, " seed"]
    total_age: Int[np.ndarray, " seed"]
    oldest: Int[np.ndarray, " seed"]
    ages: Int[np.ndarray, "seed age"]

    @classmethod
    def of(
        cls, sent: Int[np.ndarray, " seed"], lost: Int[np.ndarray, " seed"], ages: Sequence[np.ndarray]
    ) -> "Traffic":
        """With the ages of all messages that each seed combined.

        Example:
            >>> traffic = Traffic.of(np.array([5]), np.array([1]), [np.array([0, 2, 2, 40])])
            >>> traffic.combined.tolist(), traffic.total_age.tolist(), traffic.oldest.tolist()
            ([4], [44], [40])
            >>> traffic.ages[0, :3].tolist(), traffic.ages[0, -1]
            ([1, 0, 2], np.int64(1))
        """
        return cls(
            sent,
            lost,
            combined=np.array([len(each) for each in ages], np.int64),
            total_age=np.array([each.sum() for each in ages], np.int64),
            oldest=np.array([each.max(initial=0) for each in ages], np.int64),
            ages=np.stack([np.bincount(np.minimum(each, AGES), minlength=AGES + 1) for each in ages]),
        )

    @classmethod
    def none(cls, seeds: int) -> "Traffic":
        """No message."""
        nothing = np.zeros(seeds, np.int64)
        return cls.of(nothing, nothing, [np.zeros(0, np.int64)] * seeds)

    def and_then(self, later: "Traffic") -> "Traffic":
        """That of both stretches of rounds."""
        sums = (a + b for a, b in zip(self, later, strict=True))
        return Traffic(*sums)._replace(oldest=np.maximum(self.oldest, later.oldest))


class Waiting(NamedTuple):
    """How long agents waited for messages of their peers, in seconds; and messages that came too late."""

    total: float = 0.0
    longest: float = 0.0
    expired: int = 0

    def and_before(self, earlier: "Waiting | None") -> "Waiting":
        """That of both stretches of rounds.

        Example:
            >>> Waiting(1.0, 0.75, 2).and_before(Waiting(0.5, 0.5, 0))
            Waiting(total=1.5, longest=0.75, expired=2)
        """
        if earlier is None:
            return self
        return Waiting(
            self.total + earlier.total, max(self.longest, earlier.longest), self.expired + earlier.expired
        )


class Report(NamedTuple):
    """What happened in some successive rounds that share a record; leaves ``[seed, ...]`` on the host.

    ``certificate`` says how far apart the agents were at the end and how far they could be, where that is certified;
    ``correlation`` how alike the last gradients of agents were, where that is asked for; ``waiting`` how long agents
    that move in their own time stood still for messages.
    """

    rounds: int
    record: RoundRecord
    traffic: Traffic
    certificate: Verdict | None = None
    correlation: Float[np.ndarray, "agent agent"] | None = None
    waiting: Waiting | None = None

    def and_then(self, later: "Report") -> "Report":
        """The report of both stretches of rounds."""
        record = RoundRecord(
            agents=_sum(self.record.agents, later.record.agents),
            consensus_distance=later.record.consensus_distance,
            finite=self.record.finite & later.record.finite,
        )
        traffic = self.traffic.and_then(later.traffic)
        waiting = later.waiting and later.waiting.and_before(self.waiting)
        return later._replace(
            rounds=self.rounds + later.rounds, record=record, traffic=traffic, waiting=waiting
        )


@runtime_checkable
class Runtime(Protocol):
    """How a population of one experiment moves on."""

    @property
    def resumes(self) -> Resume:
        """Whether all of a run resumes exactly from a checkpoint, or only its learners."""
        ...

    def start(self) -> Population:
        """The population before its first round."""
        ...

    def most_rounds(self, every: int) -> int:
        """How many rounds one call of ``advance`` may be asked for."""
        ...

    def advance(self, population: Population, rounds: int, every: int) -> tuple[Population, list[Report]]:
        """Advance some rounds, with a report for each stretch between multiples of ``every``, the ends included.

        An agent that is a process advances fewer rounds if it is stopped meanwhile.
        """
        ...

    def saved(self, population: Population) -> Population:
        """The population with all that a checkpoint must hold."""
        ...

    def restore(self, population: Population) -> Population:
        """Resume from what ``saved`` returned."""
        ...

    def close(self) -> None:
        """Let go of simulators."""
        ...


def _sum(one: AgentRound, other: AgentRound) -> AgentRound:
    """Of reports of which one may lack scalars, where it counts no update."""
    known, more = one.info, other.info
    info = {name: known.get(name, 0.0) + more.get(name, 0.0) for name in (*known, *(more.keys() - known))}
    sums = jax.tree.map(np.add, one._replace(info={}), other._replace(info={}))
    return sums._replace(info=info)


def stretches(done: int, rounds: int, every: int) -> list[int]:
    """Lengths of the stretches of rounds between multiples of ``every``.

    Example:
        >>> stretches(done=3, rounds=6, every=4)
        [1, 4, 1]
    """
    ends = [*range((done // every + 1) * every, done + rounds, every), done + rounds]
    return np.diff([done, *ends]).tolist()
