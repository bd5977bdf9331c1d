"""Who takes part in a run, and where: the names and addresses of all agents, and one agent's place among them."""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from gossamer.errors import InputError, require_choice
from gossamer.network.compression import COMPRESSIONS, Compression
from gossamer.network.credentials import OBSERVER, require_name
from gossamer.network.topics import Topics
from gossamer.schedules import Links

Beginning: TypeAlias = Literal["own", "newest", "neighbours"]


@dataclass(frozen=True)
class Fleet:
    """The agents of a run, the same in the configuration of each.

    Raises:
        InputError: a bad or repeated name, addresses of agents that there are not, or a bad run.

    Example:
        >>> fleet = Fleet.named("garden", ("ada", "bob"))
        >>> fleet.number("bob"), fleet.run
        (1, '2bedf32ee2a675b6dcad98fed85d3b24')
    """

    run: str
    """Name of the run on the network, 32 hexadecimal digits: agents of other runs do not hear it."""
    names: tuple[str, ...]
    """Names of the agents, by number."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Where agents can be reached, by name, as tcp/HOST:PORT or tls/HOST:PORT; those behind a firewall have none."""
    observers: tuple[str, ...] = ()
    """Names of those who may ask how agents are, and begin with observer-."""

    def __post_init__(self) -> None:
        Topics(self.run)
        for name in self.names:
            require_name("names", name)
            if name.startswith(OBSERVER):
                raise InputError(f"names has {name!r}; names that begin with {OBSERVER!r} are of observers")
        for name in self.observers:
            require_name("observers", name)
            if not name.startswith(OBSERVER):
                raise InputError(f"observers has {name!r}; their names begin with {OBSERVER!r}")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise InputError(f"names has {repeated[0]!r} twice; each agent has a name of its own")
        unknown = sorted(set(self.addresses) - set(self.names))
        if unknown:
            raise InputError(f"addresses has {unknown[0]!r}; the agents are {', '.join(self.names)}")

    @classmethod
    def named(cls, title: str, names: tuple[str, ...], **more: Any) -> "Fleet":
        """With a run that follows from a title, so that agents agree on it without having talked."""
        digest = hashlib.blake2b("\n".join((title, *names)).encode(), digest_size=16).hexdigest()
        return cls(digest, names, **more)

    @property
    def space(self) -> Topics:
        """The keys of the run."""
        return Topics(self.run)

    def number(self, name: str) -> int:
        """The number of an agent.

        Raises:
            InputError: there is none of that name.
        """
        require_choice("name", name, self.names)
        return self.names.index(name)

    def require_agents(self, agents: int) -> None:
        """Refuse an experiment of another number of agents.

        Raises:
            InputError: there are not as many names.
        """
        if len(self.names) != agents:
            raise InputError(f"the fleet has {len(self.names)} names; agents is {agents}, and each needs one")

    def neighbours(self, links: Links, name: str) -> tuple[str, ...]:
        """The names of those that an agent hears or is heard by, in any phase."""
        agent = self.number(name)
        numbers = {*links.sender[links.receiver == agent].tolist()}
        numbers |= {*links.receiver[links.sender == agent].tolist()}
        return tuple(self.names[number] for number in sorted(numbers))


@dataclass(frozen=True)
class Membership:
    """One agent's place in a fleet.

    Raises:
        InputError: an unknown name or choice.
    """

    fleet: Fleet
    name: str
    listen: tuple[str, ...]
    """Where it listens: endpoints such as tls/0.0.0.0:7447."""
    connect: tuple[str, ...] = ()
    """Where it finds others; the caller adds the addresses of its neighbours that it knows."""
    keys: str | None = None
    """Folder with its certificate and key, from gossamer keys; None: plaintext, on this machine only."""
    insecure: bool = False
    """Whether plaintext may leave the machine."""
    compression: Compression = "none"
    """How messages are written; the same for all agents."""
    begins_with: Beginning = "newest"
    """Where it begins: with its own checkpoint, if it has one; with the newer of that and what its neighbours have; or
    with what the neighbour that is furthest has."""

    def __post_init__(self) -> None:
        self.fleet.number(self.name)
        require_choice("compression", self.compression, COMPRESSIONS)
        require_choice("begins_with", self.begins_with, get_args(Beginning))

    @property
    def number(self) -> int:
        """The agent's number in the topology."""
        return self.fleet.number(self.name)

    def data(self) -> dict[str, Any]:
        """As plain data, for ``config.json``.

        Example:
            >>> here = Membership(Fleet("00" * 16, ("ada", "bob")), "bob", ("tcp/127.0.0.1:1",))
            >>> Membership.of_data(here.data()) == here
            True
        """
        fleet = {
            **asdict(self.fleet),
            "names": list(self.fleet.names),
            "observers": list(self.fleet.observers),
        }
        return {**asdict(self), "fleet": fleet, "listen": list(self.listen), "connect": list(self.connect)}

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> "Membership":
        """From what ``data`` gave."""
        lists = ("listen", "connect")
        fleet = {**data["fleet"], **{name: tuple(data["fleet"][name]) for name in ("names", "observers")}}
        return cls(**{**data, **{name: tuple(data[name]) for name in lists}, "fleet": Fleet(**fleet)})


def default_names(agents: int) -> tuple[str, ...]:
    """agent-0, agent-1, ...

    Example:
        >>> default_names(2)
        ('agent-0', 'agent-1')
    """
    return tuple(f"agent-{number}" for number in range(agents))


def read_fleet(path: Path) -> Fleet:
    r"""A fleet from a TOML file: a title, a table of agents with their addresses, and names of observers.

    Raises:
        InputError: there is no such file, or it says something else.

    Example:
        >>> import tempfile
        >>> text = 'title = "garden"\n[agents]\nada = "tls/10.0.0.1:7447"\nbob = ""\n'
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "fleet.toml"
        ...     _ = path.write_text(text)
        ...     fleet = read_fleet(path)
        >>> fleet.names, dict(fleet.addresses)
        (('ada', 'bob'), {'ada': 'tls/10.0.0.1:7447'})
    """
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a TOML file of a fleet") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML file: {error}") from error
    unknown = sorted(set(data) - {"title", "agents", "observers"})
    if unknown:
        raise InputError(f"{path} has {unknown[0]!r}; it may have title, agents and observers")
    title, agents = data.get("title"), data.get("agents")
    if not isinstance(title, str) or not title:
        raise InputError(f"{path} has title {title!r}; it must be a text, the same for all agents of the run")
    if (
        not isinstance(agents, dict)
        or not agents
        or not all(isinstance(each, str) for each in agents.values())
    ):
        raise InputError(
            f"{path} has no table [agents] of names and addresses; it must have one, with an empty "
            "address for an agent that cannot be reached"
        )
    observers = data.get("observers", [])
    if not isinstance(observers, list) or not all(isinstance(each, str) for each in observers):
        raise InputError(f"{path} has observers {observers!r}; they must be a list of names")
    addresses = {name: address for name, address in agents.items() if address}
    return Fleet.named(title, tuple(agents), addresses=addresses, observers=tuple(observers))
