"""How long an agent waits for a message of a peer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gossamer.errors import require_non_negative, require_positive

_ENOUGH = 8  # gaps; of fewer, the deviation may be next to nothing by chance


@dataclass(frozen=True)
class AdaptiveTimeout:
    """How long an agent waits for an in-peer: median + ``deviations`` · MAD of the gaps between its messages.

    MAD is the median absolute deviation from the median. The gaps are those of the last 32 messages of that peer.

    Raises:
        InputError: a value below 0, or a first deadline of 0.

    Example:
        >>> AdaptiveTimeout(deviations=10.0, least=0.0).deadline([1.0, 1.0, 1.5, 2.0] * 2)
        3.75
        >>> AdaptiveTimeout(first=30.0).deadline([])
        30.0
    """

    deviations: float = 10.0
    """Deviations beyond the median gap that an agent waits for a message, >= 0."""
    least: float = 0.5
    """Shortest deadline, in seconds, >= 0."""
    first: float = 120.0
    """Deadline while fewer than eight gaps are known, in seconds, > 0: the first update compiles."""

    def __post_init__(self) -> None:
        require_non_negative("deviations", self.deviations)
        require_non_negative("least", self.least)
        require_positive("first", self.first)

    def deadline(self, gaps: Sequence[float]) -> float:
        """Seconds to wait for a message of a peer whose messages came with these gaps."""
        if len(gaps) < _ENOUGH:
            return self.first
        median = float(np.median(gaps))
        deviation = float(np.median(np.abs(np.asarray(gaps) - median)))
        return max(self.least, median + self.deviations * deviation)
