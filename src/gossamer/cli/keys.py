"""``gossamer keys``: the authority of a fleet and the certificates of its agents."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from gossamer.catalogue import PROGRAM
from gossamer.cli.parse import parse
from gossamer.errors import InputError, nearest


def keys_command(arguments: list[str]) -> None:
    """Make a run's authority (keys init) and the certificates of its agents (keys issue)."""
    usage = (
        f"usage: {PROGRAM} keys init FOLDER --title TITLE [--days DAYS]\n"
        f"       {PROGRAM} keys issue FOLDER --names NAME ... [--addresses HOST ...] [--days DAYS]\n\n"
        "init makes authority.pem and authority.key, which never leaves this folder. issue makes NAME.pem and\n"
        "NAME.key of agents, and of observers, whose names begin with observer-; copy them and authority.pem to\n"
        "the device."
    )
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage)
        return
    action, *rest = arguments
    actions = {"init": _init_keys, "issue": _issue_keys}
    if action not in actions:
        raise InputError(f"{action!r} is no action of keys; {nearest(action, list(actions))}")
    actions[action](rest)


def _init_keys(arguments: list[str]) -> None:
    @dataclass(frozen=True)
    class Options:
        """Make the authority of a run."""

        folder: tyro.conf.Positional[Path]
        """Where; made if it is missing."""
        title: str
        """Name of the run in the authority's certificate."""
        days: float = 365.0
        """How long it is valid."""

    options = parse(Options, arguments, "keys init")
    from gossamer.network.credentials import create_authority, require_name

    require_name("title", options.title)
    print(create_authority(options.folder, options.title, options.days))


def _issue_keys(arguments: list[str]) -> None:
    @dataclass(frozen=True)
    class Options:
        """Make certificates and keys."""

        folder: tyro.conf.Positional[Path]
        """Of the authority."""
        names: tuple[str, ...]
        """Of agents, or of observers."""
        addresses: tuple[str, ...] = ("127.0.0.1", "localhost")
        """Names and numbers under which the device is reached."""
        days: float = 365.0
        """How long they are valid."""

    options = parse(Options, arguments, "keys issue")
    from gossamer.network.credentials import issue, require_name

    for name in options.names:
        require_name("name", name)  # all of them, before a certificate of the first is made
    for name in options.names:
        print(issue(options.folder, name, options.addresses, options.days))
