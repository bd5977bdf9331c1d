"""Counts of the messages that an agent has refused, by reason and sender.

Counting only informs: the message was refused before it is counted here.
"""

import logging
import threading
from collections import Counter

_log = logging.getLogger(__name__)


class Refusals:
    """Thread-safe counters that log the first, second, fourth, eighth, ... refusal of each kind.

    Beyond a thousand pairs of reason and sender, further senders are counted as "others", so that changing names cannot
    fill the memory.

    Args:
        agent: name of the agent that refuses, for the log.

    Example:
        >>> refusals = Refusals("ada")
        >>> for _ in range(3):
        ...     refusals.refuse("stale", "bob", "the version is 3; 4 was received before")
        >>> refusals.counts()
        {'stale': {'bob': 3}}
    """

    def __init__(self, agent: str = "this agent"):
        self._agent = agent
        self._lock = threading.Lock()
        self._times: Counter[tuple[str, str]] = Counter()

    def refuse(self, reason: str, sender: str, detail: str = "") -> None:
        """Count one refusal.

        Args:
            reason: one of a small fixed set.
            sender: name that the message came under.
            detail: for the log only.
        """
        with self._lock:
            if len(self._times) >= _MOST_PAIRS and (reason, sender) not in self._times:
                sender = "others"
            self._times[reason, sender] += 1
            times = self._times[reason, sender]
        if times & (times - 1) == 0:
            shown = printable(f": {detail}" if detail else "")
            _log.warning(
                "%s refused %s (%s, %d times so far)%s", self._agent, printable(sender), reason, times, shown
            )

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of refusals by reason, then by sender."""
        with self._lock:
            known = dict(self._times)
        counts: dict[str, dict[str, int]] = {}
        for (reason, sender), times in sorted(known.items()):
            counts.setdefault(str(reason), {})[sender] = times
        return counts


def printable(text: str) -> str:
    r"""Escape and shorten text chosen by others, so that it cannot forge log lines, fill a log, or control a terminal.

    Example:
        >>> printable("a name\nand a line")
        'a name\\nand a line'
    """
    short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in short)


_MOST_PAIRS = 1000
_LONGEST = 500  # characters
