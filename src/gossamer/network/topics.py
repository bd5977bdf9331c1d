"""Where on the network each agent of a run speaks: key expressions, one part for each thing it says."""

import re
from dataclasses import dataclass

from gossamer.errors import InputError

_RUN = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Topics:
    """The keys of one run.

    Raises:
        InputError: ``run`` is not 32 hexadecimal digits.

    Example:
        >>> space = Topics("00" * 16)
        >>> space.message("robot-7", 0)[-17:], space.alive("robot-7", 3)[-15:]
        ('message/robot-7/0', 'alive/robot-7/3')
        >>> space.said_by(space.alive("robot-7", 3))
        ('robot-7', 3)
    """

    run: str

    def __post_init__(self) -> None:
        if not _RUN.fullmatch(self.run):
            raise InputError(f"run is {self.run!r}; it must be 32 hexadecimal digits")

    def message(self, name: str, phase: int) -> str:
        """What an agent sends to those that hear it in a phase of the graph."""
        return f"gossamer/{self.run}/message/{name}/{phase}"

    def alive(self, name: str, incarnation: int | str = "*") -> str:
        """The token of a process that lives; by default those of all processes of a name, which may be ``*``."""
        return f"gossamer/{self.run}/alive/{name}/{incarnation}"

    def status(self, name: str = "*") -> str:
        """Where an agent answers how it is; by default where all do."""
        return f"gossamer/{self.run}/status/{name}"

    def newest(self, name: str = "*") -> str:
        """Where an agent answers with its newest message; by default where all do."""
        return f"gossamer/{self.run}/newest/{name}"

    def said_by(self, key: str) -> tuple[str, int]:
        """Name and number at the end of a key of a message (its phase) or a token (its incarnation)."""
        _, _, _, name, number = key.split("/")
        return name, int(number)
