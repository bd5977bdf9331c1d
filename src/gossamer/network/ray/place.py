"""Which Ray places agents, and what it keeps for each."""

import re
from dataclasses import dataclass

from gossamer.errors import InputError, require_non_negative, require_positive


@dataclass(frozen=True)
class Cluster:
    """Which Ray places agents, and what each agent gets.

    Raises:
        InputError: an address of another form, or resources that Ray does not divide so.

    Example:
        >>> Cluster(gpus_per_agent=1.5)
        Traceback (most recent call last):
        gossamer.errors.InputError: gpus_per_agent is 1.5; above 1 it must be a whole number
    """

    address: str | None = None
    """Of a Ray that runs: HOST:PORT of its head, or auto for the one that this machine is a node of. By default what
    RAY_ADDRESS says; without it a Ray of this machine's own is started, and ended with the run."""
    cpus_per_agent: float = 1.0
    """CPU cores that Ray keeps for each agent, >= 0; parts of one may be shared."""
    gpus_per_agent: float = 0.0
    """GPUs that Ray keeps for each agent, >= 0; parts of one may be shared. With 0 agents use the CPU only."""
    wait_seconds: float = 600.0
    """How long an agent waits for a place, > 0; then it counts as dead."""
    insecure: bool = False
    """Whether agents may send plaintext from node to node: anybody on the way can read and forge it."""

    def __post_init__(self) -> None:
        if self.address is not None:
            require_address("address", self.address)
        for name in ("cpus_per_agent", "gpus_per_agent"):
            value = getattr(self, name)
            require_non_negative(name, value)
            if value > 1 and value % 1:
                raise InputError(f"{name} is {value}; above 1 it must be a whole number")
        require_positive("wait_seconds", self.wait_seconds)


def require_address(name: str, address: str) -> None:
    """Refuse what cannot be the address of a Ray.

    Raises:
        InputError: it is of another form.
    """
    if address != "auto" and not _ADDRESS.fullmatch(address):
        raise InputError(
            f"{name} is {address!r}; it must be HOST:PORT of a Ray's head, or auto, on a machine that is a node of it"
        )


_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")
