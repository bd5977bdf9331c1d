"""Random numbers that depend on what they are for, and on nothing else: not on order, nor on how many are drawn.

Every draw is a hash of (seed, purpose, ids, version), so that any runtime may ask for any of them at any time.
"""

import functools
import zlib
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from gossamer.schedules.durations import parse_duration
from gossamer.schedules.schedule import Schedule

Numbers: TypeAlias = int | np.integer | Int[np.ndarray, "..."]  # one or many, which broadcast

SHORTEST = 1e-6  # a duration, in units of time: long enough that adding it to 10⁹ still makes a difference


def uniform(seed: int, purpose: str, *numbers: Numbers) -> Float[np.ndarray, "..."]:
    """Uniform draws in [0, 1), one per broadcast element of ``numbers`` (integers of 64 bits).

    A chain h ← splitmix64(h ⊕ n) over the numbers n, starting from seed and purpose.

    Example:
        >>> uniform(0, "coin", np.arange(3)).round(3).tolist()
        [0.49, 0.383, 0.826]
    """
    state = _origin(seed, purpose)
    with np.errstate(over="ignore"):  # arithmetic modulo 2⁶⁴, of which numpy warns for scalars only
        for number in numbers:
            state = _scrambled(state ^ np.asarray(number).astype(np.uint64))
        return np.asarray((state >> np.uint64(11)) * 2.0**-53)


def link_fails(
    schedule: Schedule, seed: int, sender: Numbers, receiver: Numbers, version: Numbers
) -> Bool[np.ndarray, "..."]:
    """Whether the sender's message of that version is lost on its way to the receiver.

    Symmetric failures are keyed by the unordered pair, so that both directions lose the same versions.

    Example:
        >>> schedule = Schedule(link_failure=0.5)
        >>> there, back = link_fails(schedule, 0, 1, 2, np.arange(9)), link_fails(schedule, 0, 2, 1, np.arange(9))
        >>> (there == back).all()
        np.True_
    """
    if schedule.link_failure == 0:
        return np.zeros(np.broadcast_shapes(*map(np.shape, (sender, receiver, version))), bool)
    if schedule.failures == "symmetric":
        sender, receiver = np.minimum(sender, receiver), np.maximum(sender, receiver)
    return np.asarray(uniform(seed, "link", sender, receiver, version) < schedule.link_failure)


def compute_duration(
    schedule: Schedule, seed: int, agent: Numbers, update: Numbers
) -> Float[np.ndarray, "..."]:
    """Units of time that the agent's update takes, the first being number 0; asleep times included.

    compute time × factor of a slow agent × G, where G ≥ 1 is geometric with the probability ``wake_probability``.
    At least 1e-6.

    Example:
        >>> compute_duration(Schedule(slow_agents=((2, 3.0),)), 0, np.arange(4), 0).tolist()
        [1.0, 1.0, 3.0, 1.0]
    """
    duration = _durations(schedule.compute_time, seed, "compute time", agent, update)
    if schedule.slow_agents:
        duration = duration * _slowness(schedule.slow_agents, agent)
    if schedule.wake_probability < 1:
        u = uniform(seed, "wake_probability", agent, update)
        duration = duration * (1 + np.floor(np.log1p(-u) / np.log1p(-schedule.wake_probability)))
    return np.asarray(np.maximum(duration, SHORTEST))


def latency_of(
    schedule: Schedule, seed: int, sender: Numbers, receiver: Numbers, version: Numbers
) -> Float[np.ndarray, "..."]:
    """Units of time that the sender's message of that version takes to the receiver.

    Example:
        >>> latency_of(Schedule(latency="constant:value=2"), 0, 0, 1, np.arange(3)).tolist()
        [2.0, 2.0, 2.0]
    """
    return _durations(schedule.latency, seed, "latency", sender, receiver, version)


def _durations(spec: str, seed: int, purpose: str, *numbers: Numbers) -> Float[np.ndarray, "..."]:
    duration = parse_duration(spec)
    if duration.sure is not None:
        return np.full(np.broadcast_shapes(*map(np.shape, numbers)), duration.sure)
    return duration.draw(uniform(seed, purpose, *numbers))


def _slowness(slow_agents: tuple[tuple[int, float], ...], agent: Numbers) -> Float[np.ndarray, "..."]:
    slow, factor = _sorted_factors(slow_agents)
    place = np.minimum(np.searchsorted(slow, agent), len(slow) - 1)
    return np.where(slow[place] == agent, factor[place], 1.0)


@functools.lru_cache(maxsize=16)
def _sorted_factors(
    slow_agents: tuple[tuple[int, float], ...],
) -> tuple[Int[np.ndarray, " slow"], Float[np.ndarray, " slow"]]:
    slow, factor = zip(*sorted(slow_agents), strict=True)
    return np.array(slow, np.int64), np.array(factor, float)


@functools.lru_cache(maxsize=256)
def _origin(seed: int, purpose: str) -> UInt64[np.ndarray, ""]:
    with np.errstate(over="ignore"):
        start = np.asarray(seed % 2**64, np.uint64)
        return np.asarray(_scrambled(_scrambled(start) ^ np.uint64(zlib.crc32(purpose.encode()))))


def _scrambled(x: UInt64[np.ndarray, "..."] | np.uint64) -> UInt64[np.ndarray, "..."] | np.uint64:
    """One output of splitmix64 (Steele, Lea and Flood 2014), a bijection of 64 bits."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
