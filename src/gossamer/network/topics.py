"""Zenoh key expressions of a run: one topic for each agent and each kind of message."""

import re
from dataclasses import dataclass

from gossamer.errors import InputError

_RUN = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Topics:
    """The topics of one run.

    Raises:
        InputError: If ``run`` is not 32 hexadecimal digits in lower case.

    Example:
        >>> topics = Topics("00" * 16)
        >>> topics.message("robot-7", 0)[-17:], topics.alive("robot-7", 3)[-15:]
        ('message/robot-7/0', 'alive/robot-7/3')
        >>> topics.said_by(topics.alive("robot-7", 3))
        ('robot-7', 3)
    """

    run: str

    def __post_init__(self) -> None:
        if not _RUN.fullmatch(self.run):
            raise InputError(f"run is {self.run!r}; it must be 32 hexadecimal digits in lower case")

    def message(self, name: str, phase: int) -> str:
        """Topic of an agent's messages to its out-peers in one phase of the graph."""
        return f"gossamer/{self.run}/message/{name}/{phase}"

    def alive(self, name: str, incarnation: int | str = "*") -> str:
        """Liveliness token of one process of an agent; by default of all its processes. The name may be ``*``."""
        return f"gossamer/{self.run}/alive/{name}/{incarnation}"

    def status(self, name: str = "*") -> str:
        """Topic under which an agent answers with its status; by default that of all agents."""
        return f"gossamer/{self.run}/status/{name}"

    def newest(self, name: str = "*") -> str:
        """Topic under which an agent answers with its newest message; by default that of all agents."""
        return f"gossamer/{self.run}/newest/{name}"

    def said_by(self, key: str) -> tuple[str, int]:
        """Name and number at the end of a message's topic (its phase) or of a token (its incarnation)."""
        _, _, _, name, number = key.split("/")
        return name, int(number)
