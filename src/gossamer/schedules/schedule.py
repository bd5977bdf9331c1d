"""What may depart from lockstep, as plain data: combine rule, failing links, durations, absent agents.

Nothing here draws a number or knows a graph.
"""

import math
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Literal, TypeAlias, get_args

from gossamer.errors import InputError, require_at_least, require_choice, require_non_negative, require_within
from gossamer.schedules.durations import Duration, parse_duration

Rule: TypeAlias = Literal["most_recent", "all_in_peers", "whatever_arrived", "push_sum", "cycle"]
Failures: TypeAlias = Literal["symmetric", "one_sided"]


@dataclass(frozen=True)
class Schedule:
    """How a population departs from lockstep; the defaults do not. One unit of time is a typical update.

    A duration is ``constant:value=``, ``uniform:low=,high=``, ``integers:most=`` (0 to most, equally likely),
    ``exponential:mean=`` or ``lognormal:median=,sigma=``.

    Raises:
        InputError: a value outside its range, ``staleness`` with a rule other than most_recent, a compute
            time that can be 0, an agent named twice in ``slow_agents``, overlapping absences of an agent, or
            anything but absences with the rule cycle.

    Example:
        >>> Schedule().synchronous, Schedule(link_failure=0.2).synchronous
        (True, False)
        >>> Schedule(latency="integers:most=3", in_flight=3).rule
        'whatever_arrived'
    """

    rule: Rule = "whatever_arrived"
    """Which messages are combined, and what happens to the weight of a missing one; cycle is ADMM's order."""

    staleness: int | None = None
    """Oldest message most_recent uses, in updates; it waits for fresher ones. None: any age, never waits."""

    deadline: float = 10.0
    """Longest wait for a fresh message, in units of time; then the weight of that edge returns to self."""

    link_failure: float = 0.0
    """Probability that a link loses a message, drawn anew for each."""

    failures: Failures = "symmetric"
    """Whether both directions of a link fail together, or each alone."""

    wake_probability: float = 1.0
    """Probability that an agent wakes in a compute time: an update takes a geometric number of them."""

    compute_time: str = "constant:value=1"
    """Duration of an update, above 0."""

    latency: str = "constant:value=0"
    """Duration of a message's way."""

    slow_agents: tuple[tuple[int, float], ...] = ()
    """Pairs (agent, factor): its updates take so many times as long."""

    absences: tuple[tuple[int, float, float | None], ...] = ()
    """Triples (agent, leaves, returns), in units of time; returns None: never, leaves 0: joins late."""

    in_flight: int = 4
    """How many messages of an agent its links remember besides the newest; older ones on their way are lost."""

    def __post_init__(self) -> None:
        require_choice("rule", self.rule, get_args(Rule))
        require_choice("failures", self.failures, get_args(Failures))
        _check_staleness(self.staleness, self.rule)
        require_non_negative("deadline", self.deadline)
        require_within("link_failure", self.link_failure, 0, 1)
        if not 0 < self.wake_probability <= 1:
            raise InputError(
                f"wake_probability is {self.wake_probability}; it must be a probability above 0, at most 1"
            )
        if _duration("compute_time", self.compute_time).can_be_zero:
            raise InputError(f"compute_time is {self.compute_time!r}, which can be 0; give one above 0")
        _duration("latency", self.latency)
        _check_slow_agents(self.slow_agents)
        _check_absences(self.absences)
        require_at_least("in_flight", self.in_flight, 0)
        _check_cycle(self)

    @property
    def synchronous(self) -> bool:
        """Whether all agents move in lockstep and hear every message at once.

        Then all rules are the plain synchronous round, but for ``push_sum``, whose weights are the sender's, and
        ``cycle``, in which agents combine one after the other.
        """
        return (
            self.link_failure == 0
            and self.wake_probability == 1
            and parse_duration(self.compute_time).sure is not None
            and parse_duration(self.latency).sure == 0
            and all(factor == 1 for _, factor in self.slow_agents)
            and not self.absences
        )

    @property
    def in_step(self) -> bool:
        """Whether agents that move in their own time all wait for their neighbours in every round.

        Example:
            >>> Schedule("most_recent", staleness=0).in_step, Schedule("most_recent", staleness=5).in_step
            (True, False)
        """
        return self.synchronous and self.rule == "most_recent" and self.staleness == 0


def _check_cycle(schedule: Schedule) -> None:
    if schedule.rule != "cycle":
        return
    for field in fields(Schedule):
        given = getattr(schedule, field.name)
        if field.name not in ("rule", "absences") and given != field.default:
            raise InputError(
                f"{field.name} is {given!r}, but under the rule cycle agents wait for each other and messages arrive "
                f"at once; only absences may depart from it"
            )


def _check_staleness(staleness: int | None, rule: str) -> None:
    if staleness is None:
        return
    require_at_least("staleness", staleness, 0)
    if rule != "most_recent":
        raise InputError(
            f"staleness is {staleness}, but rule {rule} has no age limit; give the rule most_recent, or no "
            "limit (--staleness None)"
        )


def _duration(name: str, spec: str) -> Duration:
    try:
        return parse_duration(spec)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _check_slow_agents(slow_agents: tuple[tuple[int, float], ...]) -> None:
    named: set[int] = set()
    for agent, factor in slow_agents:
        require_at_least("slow_agents: agent", agent, 0)
        if agent in named:
            raise InputError(f"slow_agents names agent {agent} twice; give each agent one factor")
        if not 0 < factor < math.inf:
            raise InputError(
                f"slow_agents: the factor of agent {agent} is {factor}; it must be finite and above 0"
            )
        named.add(agent)


def _check_absences(absences: tuple[tuple[int, float, float | None], ...]) -> None:
    for agent, leaves, returns in absences:
        require_at_least("absences: agent", agent, 0)
        require_non_negative(f"absences: the leaving time of agent {agent}", leaves)
        if returns is not None and not leaves < returns < math.inf:
            raise InputError(
                f"absences: agent {agent} leaves at {leaves:g} and returns at {returns:g}; it must return"
                " later, at a finite time, or None for never"
            )
    for one, other in pairwise(sorted(absences, key=lambda absence: absence[:2])):
        if one[0] == other[0] and (one[2] is None or other[1] <= one[2]):
            raise InputError(
                f"absences: agent {one[0]} leaves at {other[1]:g} while it is still away since {one[1]:g};"
                " absences of an agent must lie apart"
            )
