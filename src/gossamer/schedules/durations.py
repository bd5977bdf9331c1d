"""How long something takes: named distributions that turn a uniform draw into a duration.

The caller draws the number. One unit of time is the duration of a typical update.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from gossamer.errors import InputError, require_at_least, require_non_negative, require_positive
from gossamer.specs import parse_spec

Draws: TypeAlias = Float[np.ndarray, "..."]  # in [0, 1)


@dataclass(frozen=True)
class Constant:
    """Always ``value``.

    Raises:
        InputError: ``value`` is negative or not finite.

    Example:
        >>> Constant(2.0).draw(np.array([0.1, 0.9])).tolist()
        [2.0, 2.0]
    """

    value: float

    def __post_init__(self) -> None:
        require_non_negative("constant: value", self.value)

    @property
    def sure(self) -> float | None:
        """The one duration there is, or None if they vary."""
        return float(self.value)

    @property
    def can_be_zero(self) -> bool:
        """Whether a draw may be 0."""
        return self.value == 0

    def draw(self, u: Draws) -> Draws:
        """The duration at the quantile ``u``."""
        return np.full(np.shape(u), float(self.value))


@dataclass(frozen=True)
class Uniform:
    """Anything between ``low`` and ``high``.

    Raises:
        InputError: ``low`` is negative, or ``high`` not above it and finite.

    Example:
        >>> Uniform(1.0, 3.0).draw(np.array([0.0, 0.5])).tolist()
        [1.0, 2.0]
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        require_non_negative("uniform: low", self.low)
        require_non_negative("uniform: high", self.high)
        if self.high <= self.low:
            raise InputError(f"uniform: high is {self.high:g}; it must be above low, here {self.low:g}")

    @property
    def sure(self) -> float | None:
        """None: durations vary."""
        return None

    @property
    def can_be_zero(self) -> bool:
        """Whether a draw may be 0."""
        return self.low == 0

    def draw(self, u: Draws) -> Draws:
        """The duration at the quantile ``u``."""
        return np.asarray(self.low + u * (self.high - self.low))


@dataclass(frozen=True)
class Integers:
    """A whole number from 0 to ``most``, all equally likely.

    Raises:
        InputError: ``most`` is negative.

    Example:
        >>> Integers(3).draw(np.array([0.0, 0.25, 0.99])).tolist()
        [0.0, 1.0, 3.0]
    """

    most: int

    def __post_init__(self) -> None:
        require_at_least("integers: most", self.most, 0)

    @property
    def sure(self) -> float | None:
        """0 where that is the most, else None: durations vary."""
        return 0.0 if self.most == 0 else None

    @property
    def can_be_zero(self) -> bool:
        """Always."""
        return True

    def draw(self, u: Draws) -> Draws:
        """The duration at the quantile ``u``."""
        return np.asarray(np.floor(u * (self.most + 1)))


@dataclass(frozen=True)
class Exponential:
    """Without memory, above 0: the time to the next of events that come at a rate of 1 / ``mean``.

    Raises:
        InputError: ``mean`` is not positive and finite.

    Example:
        >>> Exponential(2.0).draw(np.array([0.5])).round(3).tolist()
        [1.386]
    """

    mean: float

    def __post_init__(self) -> None:
        require_positive("exponential: mean", self.mean)

    @property
    def sure(self) -> float | None:
        """None: durations vary."""
        return None

    @property
    def can_be_zero(self) -> bool:
        """Never."""
        return False

    def draw(self, u: Draws) -> Draws:
        """The duration at the quantile ``u``; never 0."""
        return np.asarray(-self.mean * np.log1p(-_inside(u)))


@dataclass(frozen=True)
class Lognormal:
    """Mostly near ``median``, sometimes far above: median · e^(sigma · z) with a standard normal z.

    Raises:
        InputError: ``median`` is not positive and finite, or ``sigma`` not at least 0 and finite.

    Example:
        >>> Lognormal(2.0, 0.5).draw(np.array([0.5])).round(9).tolist()
        [2.0]
    """

    median: float
    sigma: float

    def __post_init__(self) -> None:
        require_positive("lognormal: median", self.median)
        require_non_negative("lognormal: sigma", self.sigma)

    @property
    def sure(self) -> float | None:
        """The median where sigma is 0, else None: durations vary."""
        return float(self.median) if self.sigma == 0 else None

    @property
    def can_be_zero(self) -> bool:
        """Never."""
        return False

    def draw(self, u: Draws) -> Draws:
        """The duration at the quantile ``u``; never 0."""
        from scipy.special import ndtri

        return np.asarray(self.median * np.exp(self.sigma * ndtri(_inside(u))))


Duration: TypeAlias = Constant | Uniform | Integers | Exponential | Lognormal

DURATIONS: Mapping[str, type[Duration]] = MappingProxyType(
    {kind.__name__.lower(): kind for kind in (Constant, Uniform, Integers, Exponential, Lognormal)}
)


@functools.lru_cache(maxsize=256)
def parse_duration(spec: str) -> Duration:
    """The duration that ``name:parameter=value,…`` stands for.

    Raises:
        InputError: unknown name (with the nearest ones), unknown, ill-typed, missing or impossible parameter.

    Example:
        >>> parse_duration("uniform:low=0.5,high=1.5")
        Uniform(low=0.5, high=1.5)
        >>> parse_duration("uniform:low=0.5")
        Traceback (most recent call last):
        gossamer.errors.InputError: 'uniform:low=0.5' lacks low, high; uniform takes low (float), high (float)
    """
    kind, arguments = parse_spec(spec, DURATIONS, "duration")
    return kind(**arguments)


def _inside(u: Draws) -> Draws:
    """Off 0, where a duration would be 0, and off 1, where it would be infinite."""
    return np.asarray(np.clip(u, 2.0**-53, 1 - 2.0**-53))
