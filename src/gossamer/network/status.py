"""How the agents of a run are, asked of themselves: who lives, how old what they heard is, how far apart they are."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Table
from rich.text import Text

from gossamer.errors import InputError
from gossamer.experiment import Experiment
from gossamer.network.access import Access, Credentials, zenoh_config
from gossamer.network.agent import load_membership
from gossamer.network.answer import read_answer
from gossamer.network.compression import Compression
from gossamer.network.credentials import check
from gossamer.network.launcher import KEYS, OBSERVER, agent_folder, load_launch
from gossamer.network.membership import Fleet
from gossamer.network.refusals import printable
from gossamer.network.schema import Schema
from gossamer.network.session import Session
from gossamer.network.wire import Expected, Refused, decode, message_bytes
from gossamer.runs import checkpoints
from gossamer.runs.folder import read_config
from gossamer.runtimes.agent_step import spread_alone
from gossamer.runtimes.build import build


@dataclass(frozen=True)
class FleetStatus:
    """What agents have answered."""

    answers: dict[str, dict[str, Any]]
    """What each said of itself, by name; who did not answer is missing."""
    consensus_distance: float | None
    """Root mean square distance of their newest messages to the mean of these; None with fewer than two."""
    silent: tuple[str, ...] = field(default_factory=tuple)
    """Who did not answer."""
    unreachable: tuple[str, ...] = field(default_factory=tuple)
    """Who has no address, and cannot be asked."""
    saved: dict[str, int | None] = field(default_factory=dict)
    """The newest saved round of each agent whose folder lies in the launch's; None if it has saved none."""
    rounds: int = 0
    """How many there are to do."""


def ask_run(
    run: Path, seconds: float = 3.0, keys: Path | None = None, observer: str = OBSERVER
) -> FleetStatus:
    """The status of all agents, from the folder of a launch or of one agent of a fleet.

    Args:
        run: the folder.
        seconds: how long answers are waited for, at most.
        keys: folder with the observer's certificate; a launch has one of its own.
        observer: the name in that certificate.

    Raises:
        InputError: the folder holds neither, or the certificate is missing or invalid.
    """
    if "agent" not in read_config(run):
        experiment, fleet, how = load_launch(run)
        folder, compression = run / KEYS if how.tls else None, how.compression
    else:
        experiment, membership = load_membership(run)
        folder, fleet, compression = keys, membership.fleet, membership.compression
        if keys is None and membership.keys is not None:
            raise InputError(
                f"keys is missing; the agents of {run} talk by TLS, give a folder with {observer}.pem and its key"
            )
    credentials = None if folder is None else Credentials.of(check(folder, observer))
    status = ask(experiment, fleet, compression, credentials, observer, seconds)
    return replace(status, saved=_saved(run, fleet), rounds=experiment.rounds)


def ask(
    experiment: Experiment,
    fleet: Fleet,
    compression: Compression,
    credentials: Credentials | None,
    observer: str,
    seconds: float = 3.0,
) -> FleetStatus:
    """Ask all agents of a fleet that have an address.

    Args:
        experiment: that of the fleet.
        fleet: names and addresses.
        compression: how its messages are written.
        credentials: of the observer; None for plaintext.
        observer: the name in its certificate.
        seconds: how long answers are waited for, at most.

    Raises:
        InputError: the fleet has no address, or the certificates are invalid.
    """
    if not fleet.addresses:
        raise InputError("no agent of the fleet has an address; without addresses there is no agent to ask")
    parts = build(experiment)
    learner = jax.eval_shape(parts.algorithm.init, jax.random.key(0))
    schema = Schema.of(jax.eval_shape(parts.algorithm.message, learner))
    limit = message_bytes(schema, compression)
    expected = Expected(bytes.fromhex(fleet.run), schema, compression, limit)
    access = None if credentials is None else Access(fleet.run, observer, fleet.names, (observer,))
    insecure = credentials is None
    config = zenoh_config(
        (), tuple(fleet.addresses.values()), credentials, access, insecure, max(limit, _LEAST_LIMIT)
    )
    session = Session(config)
    try:
        answers = _answers(session, fleet, seconds)
        messages = _messages(session, fleet, expected, min(seconds, 1.0)) if len(answers) > 1 else []
    finally:
        session.close()
    distance = None
    if len(messages) > 1:
        distance = float(jax.device_get(spread_alone(tuple(messages))[0]))
    missing = [name for name in fleet.names if name not in answers]
    silent = tuple(name for name in missing if name in fleet.addresses)
    return FleetStatus(
        answers, distance, silent, tuple(name for name in missing if name not in fleet.addresses)
    )


def table(status: FleetStatus) -> Table:
    """A line for each agent."""
    shown = Table(title=_title(status))
    for name in ("agent", "host", "round", "hears (age of the last message)", "refused", "unsent"):
        shown.add_column(name)
    for name, answer in sorted(status.answers.items()):
        shown.add_row(
            name,
            Text(f"{printable(answer['host'])} ({answer['pid']})"),
            f"{answer['round']}/{answer['rounds']}",
            Text(
                ", ".join(_edge(printable(each), edge) for each, edge in answer["hears"].items()) or "nobody"
            ),
            Text(
                ", ".join(
                    f"{printable(reason)} {sum(who.values())}" for reason, who in answer["refused"].items()
                )
                or "-"
            ),
            str(answer["unsent"] or "-"),
        )
    for name in status.silent:
        shown.add_row(name, "no answer", _progress_saved(status, name), "", "", "")
    for name in status.unreachable:
        shown.add_row(name, "has no address, and cannot be asked", "", "", "", "")
    return shown


def _saved(run: Path, fleet: Fleet) -> dict[str, int | None]:
    """Of the agents of a launch; of a fleet's agent on this machine nothing is known of the others' folders."""
    folders = {name: agent_folder(run, name) for name in fleet.names}
    return {
        name: max(checkpoints.rounds(folder / "checkpoints"), default=None)
        for name, folder in folders.items()
        if folder.is_dir()
    }


def _progress_saved(status: FleetStatus, name: str) -> str:
    if name not in status.saved:
        return ""
    newest = status.saved[name]
    return "nothing saved yet" if newest is None else f"saved at {newest}/{status.rounds}"


def _title(status: FleetStatus) -> str:
    known = len(status.answers) + len(status.silent) + len(status.unreachable)
    distance = (
        "" if status.consensus_distance is None else f", consensus distance {status.consensus_distance:.4g}"
    )
    return f"{len(status.answers)} of {known} agents answer{distance}"


def _edge(name: str, edge: dict[str, Any]) -> str:
    if edge["round"] is None or edge["age_seconds"] is None:
        return f"{name}: {'nothing yet' if edge['present'] else 'not there'}"
    gone = "" if edge["present"] else ", gone"
    return f"{name}: {edge['age_seconds']:.1f} s, round {edge['round']}{gone}"


def _answers(session: Session, fleet: Fleet, seconds: float) -> dict[str, dict[str, Any]]:
    """Asked again until all have answered: connections may not stand yet."""
    until, found = time.monotonic() + seconds, {}
    while True:
        for key, data in session.ask(fleet.space.status(), min(1.0, seconds)).items():
            name = key.rpartition("/")[2]
            if name in fleet.names and (answer := read_answer(data)) is not None:
                found[name] = answer
        if found.keys() >= set(fleet.addresses) or time.monotonic() >= until:
            return found
        time.sleep(_BETWEEN)


def _messages(session: Session, fleet: Fleet, expected: Expected, seconds: float) -> list[Any]:
    found = []
    for data in session.ask(fleet.space.newest(), seconds).values():
        try:
            _, leaves = decode(data, expected)
        except Refused:
            continue  # what an agent says that is no message is no part of any mean
        found.append(expected.schema.tree([np.array(leaf) for leaf in leaves]))
    return found


_BETWEEN = 0.1  # seconds between two questions
_LEAST_LIMIT = 65536  # bytes: answers about an agent's status must pass
