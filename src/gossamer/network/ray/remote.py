"""One agent on its node: the process that Ray begins, and what it answers."""

import contextlib
import logging
import os
import shutil
import socket
import stat
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from gossamer.errors import InputError
from gossamer.experiment import Experiment
from gossamer.network.agent import PROCESS, run_member
from gossamer.network.launcher import KEYS
from gossamer.network.membership import Membership
from gossamer.network.mirror import Changes, Held, changes_of, take_over
from gossamer.network.ray.connection import import_ray
from gossamer.system.signals import Interrupted, Stop

_log = logging.getLogger(__name__)


class Seat(NamedTuple):
    """Where an agent was placed, and can be reached."""

    host: str
    endpoint: str


State: TypeAlias = Literal["running", "finished", "stopped", "failed"]


class News(NamedTuple):
    """What an agent's process tells of itself."""

    state: State
    message: str
    """Why it is not running."""
    said: bytes
    """Of its log."""
    changes: Changes | None
    """Of its folder; None before it has opened its files."""


class RemoteAgent:
    """The process of one agent, in which Ray runs the methods; several at once.

    Every method may be called again when its answer was lost.

    Args:
        run: the run on the network.
        name: of the agent.
        tls: whether it will talk by TLS.
        host: the address that it listens at; by default its node's.
    """

    def __init__(self, run: str, name: str, tls: bool, host: str | None):
        self._run, self._name, self._tls, self._host = run, name, tls, host
        self._held: socket.socket | None = None
        self._seat: Seat | None = None
        self._stop, self._ended, self._once = Stop(), threading.Event(), threading.Lock()
        self._state: State = "running"
        self._message, self._thread, self._process = "", None, None

    def prepare(self) -> Seat:
        """Find a folder and a free port on the node. The port is held until the agent needs it."""
        with self._once:
            if self._seat is None:
                root = Path(tempfile.gettempdir()) / f"gossamer-{self._run}"
                root.mkdir(mode=0o700, exist_ok=True)
                _require_own(root)
                for earlier in root.glob(f"{self._name}-*"):
                    shutil.rmtree(earlier, ignore_errors=True)  # of a process that died; its key is in there
                self._home = Path(tempfile.mkdtemp(prefix=f"{self._name}-", dir=root))
                host = self._host or _node_address()
                self._held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
                self._held.bind((host, 0))
                shown = f"[{host}]" if ":" in host else host
                protocol = "tls" if self._tls else "tcp"
                self._seat = Seat(host, f"{protocol}/{shown}:{self._held.getsockname()[1]}")
            return self._seat

    def begin(
        self, experiment: Experiment, membership: Membership, keys: Mapping[str, bytes], start: Changes | None
    ) -> None:
        """Begin to be the agent.

        Args:
            experiment: whose classes can be imported on this node.
            membership: which agent it is; its folder of keys is made here.
            keys: files of that folder, by name; none where plaintext is spoken.
            start: what its folder holds at the beginning.
        """
        with self._once:
            if self._thread is not None:
                return
            if keys:
                membership = replace(membership, keys=str(self._home / KEYS))
                _write_private(self._home / KEYS, keys)
            if start is not None:
                take_over(self._folder, start)
            self._process = self._process_file()
            self._set_up()
            self._thread = threading.Thread(
                target=self._live, args=(experiment, membership), daemon=True, name="agent"
            )
            self._thread.start()

    def poll(self, held: Held, said: int) -> News:
        """What is new, within half a second, or once the agent has ended: then it is the last.

        Args:
            held: what the copy of its folder has of this life.
            said: bytes of its log that are known.
        """
        self._ended.wait(_BETWEEN)
        # Asked first: what comes after the end is complete.
        state = self._state
        # Its own file of the process is the last that an agent opens. Before, files may still be cut to where its
        # checkpoint stands; from then on they only grow.
        opened = self._process_file() != self._process
        changes = changes_of(self._folder, held) if opened else None
        with self._output.open("rb") as file:
            file.seek(said)
            return News(state, self._message, file.read(), changes)

    def stop(self) -> None:
        """Ask the agent to save itself and leave."""
        self._stop.requested = True

    def clear(self) -> None:
        """Remove what it wrote on its node; the last of the run there leaves nothing."""
        shutil.rmtree(self._home, ignore_errors=True)
        with contextlib.suppress(OSError):  # another agent's folder is in there
            self._home.parent.rmdir()

    @property
    def _folder(self) -> Path:
        return self._home / "agent"

    @property
    def _output(self) -> Path:
        return self._home / "agent.log"

    def _process_file(self) -> bytes | None:
        path = self._folder / PROCESS
        return path.read_bytes() if path.exists() else None

    def _set_up(self) -> None:
        """What is true of the process as a whole, which is the agent's alone."""
        handler = logging.FileHandler(self._output)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.INFO)

    def _live(self, experiment: Experiment, membership: Membership) -> None:
        assert self._held is not None, "it was prepared"
        self._held.close()
        try:
            run_member(experiment, membership, self._folder, self._stop)
            self._state = "finished"
        except Interrupted as end:
            self._message, self._state = str(end), "stopped"
        except Exception as error:
            _log.exception("%s ended", self._name)
            self._message, self._state = f"{type(error).__name__}: {error}", "failed"
        self._ended.set()


def _node_address() -> str:
    return str(import_ray().util.get_node_ip_address())


def _require_own(folder: Path) -> None:
    """Another user who made the folder could read the keys that it will hold, and plant compiled code."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise InputError(f"{folder} belongs to somebody else, or others may look into it; remove it")


def _write_private(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, content in files.items():
        # The mode is right from the first moment: after a chmod it may be too late.
        with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)


_BETWEEN = 0.5  # seconds between two answers about what is new
