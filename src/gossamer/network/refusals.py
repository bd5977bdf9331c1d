"""What an agent has refused, counted by reason and by whom.

Counting decides nothing: whatever is counted here was refused before.
"""

import logging
import threading
from collections import Counter

_log = logging.getLogger(__name__)


class Refusals:
    """Counts what was refused, and writes the first, second, fourth, eighth, ... of each kind to the log.

    Safe for any number of threads. Beyond a thousand different ones all the rest are counted as of "others", so that
    nobody can fill the memory by changing names.

    Args:
        agent: whose they are, for the log.

    Example:
        >>> refusals = Refusals("ada")
        >>> for _ in range(3):
        ...     refusals.refuse("checksum", "bob", "damaged on its way")
        >>> refusals.counts()
        {'checksum': {'bob': 3}}
    """

    def __init__(self, agent: str = "this agent"):
        self._agent = agent
        self._lock = threading.Lock()
        self._times: Counter[tuple[str, str]] = Counter()

    def refuse(self, reason: str, who: str, detail: str = "") -> None:
        """One more.

        Args:
            reason: one of a few words.
            who: an agent's name, or an address.
            detail: goes to the log only.
        """
        with self._lock:
            if len(self._times) >= _MOST and (reason, who) not in self._times:
                who = "others"
            self._times[reason, who] += 1
            times = self._times[reason, who]
        if times & (times - 1) == 0:
            said = printable(f": {detail}" if detail else "")
            _log.warning(
                "%s refused %s (%s, %d times so far)%s", self._agent, printable(who), reason, times, said
            )

    def counts(self) -> dict[str, dict[str, int]]:
        """How often, by reason and then by whom."""
        with self._lock:
            known = dict(self._times)
        counts: dict[str, dict[str, int]] = {}
        for (reason, who), times in sorted(known.items()):
            counts.setdefault(str(reason), {})[who] = times
        return counts


def printable(text: str) -> str:
    r"""What others have chosen, so that it cannot look like lines of a log, fill it, or steer a terminal.

    Example:
        >>> printable("a name\nand a line")
        'a name\\nand a line'
    """
    short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in short)


_MOST = 1000
_LONGEST = 500
