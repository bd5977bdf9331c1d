"""What advances a population by some rounds, and what it reports; folders and progress are not its."""

from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from jaxtyping import Int

from gossamer.runtimes.vectorised import Population, RoundRecord

Resume: TypeAlias = Literal["exact", "learner-exact"]


class Traffic(NamedTuple):
    """Messages of some rounds, per seed: handed to links, lost on them, combined; ages in updates."""

    sent: Int[np.ndarray, " seed"]
    lost: Int[np.ndarray, " seed"]
    combined: Int[np.ndarray, " seed"]
    total_age: Int[np.ndarray, " seed"]
    oldest: Int[np.ndarray, " seed"]

    @classmethod
    def none(cls, seeds: int) -> "Traffic":
        """No message."""
        return cls(*(np.zeros(seeds, np.int64) for _ in cls._fields))

    def and_then(self, later: "Traffic") -> "Traffic":
        """That of both stretches of rounds."""
        sums = (a + b for a, b in zip(self[:-1], later[:-1], strict=True))
        return Traffic(*sums, oldest=np.maximum(self.oldest, later.oldest))


class Report(NamedTuple):
    """What happened in some successive rounds that share a record; leaves ``[seed, ...]`` on the host."""

    rounds: int
    record: RoundRecord
    traffic: Traffic

    def and_then(self, later: "Report") -> "Report":
        """The report of both stretches of rounds."""
        record = RoundRecord(
            agents=jax.tree.map(np.add, self.record.agents, later.record.agents),
            consensus_distance=later.record.consensus_distance,
            finite=self.record.finite & later.record.finite,
        )
        return Report(self.rounds + later.rounds, record, self.traffic.and_then(later.traffic))


@runtime_checkable
class Engine(Protocol):
    """How a population of one experiment moves on."""

    @property
    def resumes(self) -> Resume:
        """Whether all of a run goes on exactly from a checkpoint, or only its learners."""
        ...

    def start(self) -> Population:
        """The population before its first round."""
        ...

    def most_rounds(self, every: int) -> int:
        """How many rounds one call of ``advance`` may be asked for."""
        ...

    def advance(self, population: Population, rounds: int, every: int) -> tuple[Population, list[Report]]:
        """Some rounds on, and a report for each stretch between multiples of ``every``, the ends included."""
        ...

    def saved(self, population: Population) -> Population:
        """The population with all that a checkpoint must hold."""
        ...

    def restore(self, population: Population) -> Population:
        """Go on from what ``saved`` gave."""
        ...

    def close(self) -> None:
        """Let go of simulators."""
        ...


def stretches(done: int, rounds: int, every: int) -> list[int]:
    """Lengths of the stretches of rounds between multiples of ``every``.

    Example:
        >>> stretches(done=3, rounds=6, every=4)
        [1, 4, 1]
    """
    ends = [*range((done // every + 1) * every, done + rounds, every), done + rounds]
    return np.diff([done, *ends]).tolist()
