"""What Zenoh refuses by itself: it says so in its log only, which is read here while an agent runs.

No other part of the log is interpreted.
"""

import contextlib
import logging
import os
import re
import secrets
import sys
import threading
from collections.abc import Iterator
from enum import StrEnum
from types import TracebackType
from typing import TextIO

from gossamer.errors import InputError
from gossamer.network.refusals import Refusals, printable
from gossamer.system.processes import environment_variables

_log = logging.getLogger(__name__)

UNKNOWN = "an unknown address"
"""Whoever connected and was refused before it showed a valid certificate: Zenoh does not say from where."""


class Reason(StrEnum):
    """Why Zenoh refuses: all but the last two end a handshake, after which nothing was sent or heard."""

    not_tls = "not_tls"
    """What came is not TLS 1.3: plaintext, an older version, or noise."""
    no_certificate = "no_certificate"
    """None was shown."""
    foreign_certificate = "foreign_certificate"
    """Of another authority, of another address than was connected to, or damaged."""
    expired_certificate = "expired_certificate"
    """Too old, or not valid yet; a connection ends too when its certificate expires."""
    broken_off = "broken_off"
    """Whoever connected went away in the middle, or was too slow."""
    declined = "declined"
    """The other side refused ours."""
    not_admitted = "not_admitted"
    """A valid certificate, of a name that is not of this run: nothing is sent to it, or heard from it."""
    not_its_own = "not_its_own"
    """Of a name of this run, which has said what only others may say."""


class ZenohLog:
    """Reads Zenoh's log in an agent's own process, and counts what Zenoh refuses.

    Zenoh has no other way to tell: no event, no counter. It writes its log to the file descriptor of the standard
    output, and the log is set up once in the life of a process. So this must be entered before anybody else sets it up,
    and before the first session; and left after the last. Meanwhile ``sys.stdout`` goes where it went before, and so
    does, line by line, what others write to the descriptor.

    A name that was refused is as certain as a certificate. But who has a certificate of the run can put lines of its
    own into the log, by keys that contain line breaks: what is counted here informs, and decides nothing.

    Args:
        refusals: where they are counted.
    """

    def __init__(self, refusals: Refusals):
        self._reader = LogReader(refusals)
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> "ZenohLog":
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Begin to read.

        Raises:
            InputError: no package ``eclipse-zenoh``, or the log is read already.
        """
        try:
            import zenoh
        except ModuleNotFoundError as error:
            raise InputError(
                "the network needs eclipse-zenoh; install it with: pip install 'gossamer[network]'"
            ) from error
        if not _reading.acquire(blocking=False):
            raise InputError("Zenoh's log is read already; in one process only one agent can do that")
        with contextlib.ExitStack() as stack:
            stack.callback(_reading.release)
            real = stack.enter_context(_diverted(self._reader))
            stack.enter_context(_python_stdout(real))
            self._opened = stack.pop_all()
        with environment_variables(RUST_LOG=_directives(os.environ.get("RUST_LOG")), NO_COLOR="1"):
            zenoh.init_log_from_env_or(_directives(None))  # that, if what the user has set is none

    def close(self) -> None:
        """Read what was written until now, and leave the standard output as it was. All sessions must be closed."""
        self._opened.close()


_reading = threading.Lock()
_STDOUT = 1


@contextlib.contextmanager
def _diverted(reader: "LogReader") -> Iterator[int]:
    """Everything that is written to the standard output's descriptor goes through a reader; gives the real one."""
    real = os.dup(_STDOUT)
    source, sink = os.pipe()
    _enlarge(sink)
    sys.stdout.flush()
    os.dup2(sink, _STDOUT)
    os.close(sink)
    end = secrets.token_bytes(16).hex().encode() + b"\n"  # nobody else can write it
    thread = threading.Thread(target=_pump, args=(source, real, reader, end), name="Zenoh's log", daemon=True)
    thread.start()
    try:
        yield real
    finally:
        # No end of file tells the thread to stop: processes that were begun meanwhile keep the pipe open.
        os.write(_STDOUT, end)
        os.dup2(real, _STDOUT)
        thread.join()
        os.close(source)
        os.close(real)


def _pump(source: int, real: int, reader: "LogReader", end: bytes) -> None:
    with open(source, "rb", closefd=False) as lines:
        for line in lines:
            if line.endswith(end):
                _write(real, line.removesuffix(end))  # the beginning of a line that nobody has finished
                return
            try:
                ours = reader.read(line.decode(errors="replace").rstrip("\n"))
            except Exception:  # a full pipe that nobody reads stops Zenoh
                _log.exception("a line of Zenoh's log was not understood")
                ours = True
            if not ours:
                _write(real, line)


def _write(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody reads our output any more: no reason to stop Zenoh
        while data:
            data = data[os.write(descriptor, data) :]


def _enlarge(pipe: int) -> None:
    """Zenoh waits while the pipe is full, and this process may be busy for some time."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 20)  # pyright: ignore[reportAttributeAccessIssue]


@contextlib.contextmanager
def _python_stdout(real: int) -> Iterator[None]:
    """What Python prints does not go through the reader: it stays in order, and a terminal stays a terminal."""
    before = sys.stdout
    if not _writes_to(before, _STDOUT):
        yield
        return
    with open(
        os.dup(real),
        "w",
        encoding=before.encoding,
        errors=before.errors,
        buffering=1 if before.isatty() else -1,
    ) as after:
        sys.stdout = after
        _move_handlers(before, after)
        try:
            yield
        finally:
            _move_handlers(after, before)
            if sys.stdout is after:
                sys.stdout = before


def _writes_to(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (OSError, ValueError, AttributeError):
        return False


def _move_handlers(before: TextIO, after: TextIO) -> None:
    """Else the thread that reads the pipe would wait to write to it, once it is full."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is before:
            handler.setStream(after)


_ACCESS = "zenoh::net::routing::interceptor::access_control"
_CONNECTING = "zenoh::net::runtime::orchestrator"
_TLS = "zenoh_link_tls::unicast"
_OPENING = "zenoh_transport::unicast::establishment"


def _directives(given: str | None) -> str:
    """How much Zenoh tells: what the user wants to know, and what is counted."""
    ours = f"{_ACCESS}=trace,{_CONNECTING}=debug,{_TLS}=debug,{_OPENING}=debug"
    return f"{given or 'warn'},{ours}"


class LogReader:
    """Tells refusals from the rest, line by line. Of the rest, warnings and errors go to Python's log.

    Args:
        refusals: where they are counted.

    Example:
        >>> refusals = Refusals("ada")
        >>> reader = LogReader(refusals)
        >>> reader.read(
        ...     "2026-11-22T02:13:07.958330Z  WARN acc-0 ThreadId(05) zenoh_link_tls::unicast: "
        ...     "peer sent no certificates. Hint: increase the system open file limit."
        ... )
        True
        >>> refusals.counts(), reader.read("update 7")
        ({'no_certificate': {'an unknown address': 1}}, False)
    """

    def __init__(self, refusals: Refusals):
        self._refusals = refusals
        self._names: dict[str, str] = {}  # in certificates, by address of the connection
        self._sources: dict[str, str] = {}  # names, by Zenoh's identifier of the peer
        self._strangers: dict[str, str] = {}  # identifiers of peers that nobody has admitted
        self._foreseen: dict[str, _Foreseen] = {}  # by thread

    def read(self, line: str) -> bool:
        """Take in one line; False if it is not Zenoh's."""
        match = _LINE.fullmatch(_COLOUR.sub("", line))
        if not match:
            return False
        level, thread, target, text = match.group("level", "thread", "target", "text")
        if target == _ACCESS:
            understood = self._read_access(thread, text)
        elif target == _CONNECTING:
            understood = self._read_connecting(text)
        elif target == _TLS:
            understood = self._read_tls(text)
        elif target.startswith(_OPENING):
            understood = self._read_opening(text)
        else:
            understood = self._read_expiry(text)
        if not understood and (_LEVELS[level] >= logging.WARNING or not target.startswith(_COUNTED)):
            _log.log(_LEVELS[level], "Zenoh: %s: %s", target, printable(text))
        return True

    def _read_access(self, thread: str, text: str) -> bool:
        if match := _FORESEEING.fullmatch(text):
            self._foreseen[thread] = _Foreseen(match["key"])
            return True
        if match := _ADMITTED.fullmatch(text):
            action, key = match["action"], match["key"]
            if source := _SUBJECT.search(match["subject"] or ""):
                _remember(self._sources, match["peer"], source["name"])
            foreseen = self._foreseen.get(thread)
            if foreseen and foreseen.has(action, key):
                return True
            self._foreseen.pop(thread, None)
            if match["verdict"] == "unauthorized" and match["flow"] == "ingress":
                who = self._sources.get(match["peer"], UNKNOWN)
                self._refusals.refuse(Reason.not_its_own, who, f"{action} on {key}")
            return True
        if match := _STRANGER.match(text):
            _remember(self._strangers, match["peer"], "")
            return True
        return False

    def _read_tls(self, text: str) -> bool:
        if match := _ACCEPTED.fullmatch(text):
            _remember(self._names, match["address"], match["name"])
            return True
        reason = _why_no_handshake(text)
        if reason is None or not text.endswith(_HINT):
            return False
        self._refusals.refuse(reason, UNKNOWN, text.removesuffix(_HINT))
        return True

    def _read_connecting(self, text: str) -> bool:
        if not (match := _UNABLE.fullmatch(text)):
            return False
        reason = _why_no_handshake(match["why"])
        # A peer that is not there yet, or ends, breaks off too.
        if reason is None or reason is Reason.broken_off:
            return False
        self._refusals.refuse(reason, match["address"], match["why"])
        return True

    def _read_opening(self, text: str) -> bool:
        if not (match := _OPENED.match(text)):
            return False
        peer, address = match["client"] or match["server"], match["address"]
        who = self._who(address)
        _remember(self._sources, peer, who)
        if peer in self._strangers:
            del self._strangers[peer]
            self._refusals.refuse(Reason.not_admitted, who, "its certificate is valid, but not of this run")
        return True

    def _read_expiry(self, text: str) -> bool:
        if not (match := _EXPIRY.fullmatch(text)):
            return False
        self._refusals.refuse(
            Reason.expired_certificate, self._who(match["address"]), "it expired while connected"
        )
        return True

    def _who(self, address: str) -> str:
        """By the certificate if it is known, else the host."""
        return self._names.get(address) or address.rpartition(":")[0]


class _Foreseen:
    """Verdicts that Zenoh reaches ahead, of all that could ever be said under a key, in this order."""

    def __init__(self, key: str):
        self._key, self._place = key, -1

    def has(self, action: str, key: str) -> bool:
        if key != self._key or action not in _ACTIONS:
            return False
        place = _ACTIONS.index(action)
        if place - self._place not in (0, 1):  # the same again for another network interface
            return False
        self._place = place
        return True


_ACTIONS = (
    "Query",
    "Reply",
    "Put",
    "Delete",
    "Declare/Undeclare Subscriber",
    "Declare/Undeclare Queryable",
    "Declare/Undeclare Liveliness Token",
    "Liveliness Query",
    "Declare Liveliness Subscriber",
)
_LEVELS = {
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
}
_COUNTED = (_ACCESS, _CONNECTING, _TLS, _OPENING)
_HINT = ". Hint: increase the system open file limit."  # whatever the reason
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT[0-9:.]+Z +(?P<level>TRACE|DEBUG|INFO|WARN|ERROR) +(?:\S+ +)?ThreadId\((?P<thread>\d+)\) "
    r"(?:\S.*?\}: )?(?P<target>[a-z0-9_]+(?:::[a-z0-9_]+)*): (?P<text>.*)",
    re.DOTALL,
)
_FORESEEING = re.compile(r"ACL \((?:in|e)gress\): caching permissions for `(?P<key>.*)` \.\.\.", re.DOTALL)
_ADMITTED = re.compile(
    r"(?:Using cached result: )?(?P<peer>[0-9a-f]+)(?: on (?P<subject>\S+))? is (?P<verdict>(?:un)?authorized) to "
    r"(?P<action>[A-Za-z/ ]+) \((?P<flow>ingress|egress)\) on (?P<key>.*)",
    re.DOTALL,
)
_SUBJECT = re.compile(r"CertCommonName\((?P<name>[^)]*)\)")
_STRANGER = re.compile(r"(?P<peer>[0-9a-f]+) did not match any configured ACL subject")
_ACCEPTED = re.compile(r"Accepted TLS connection on \S+: (?P<address>\S+)\. Common Name: (?P<name>\S+)\.")
_UNABLE = re.compile(
    r"Unable to connect to (?:configured peer )?[a-z]+/(?P<address>[^?#! ]+)\S*! (?P<why>.*)"
)
_OPENED = re.compile(
    r"New transport link (?:accepted from (?P<client>[0-9a-f]+) to|opened from [0-9a-f]+ to (?P<server>[0-9a-f]+))"
    r".*?\bdst: [a-z]+/(?P<address>[^,\s]+),"
)
_EXPIRY = re.compile(r"Closing TLS link \S+ => (?P<address>\S+) : remote certificate chain expired")
_WHY = (
    (Reason.expired_certificate, "invalid peer certificate: certificate (?:expired|not valid yet)"),
    (Reason.foreign_certificate, "invalid peer certificate"),
    (Reason.no_certificate, "peer sent no certificates"),
    (Reason.declined, "received fatal alert"),
    (Reason.not_tls, "received corrupt message|received unexpected|peer is incompatible|peer misbehaved"),
    (Reason.broken_off, "tls handshake eof|Connection reset by peer|[Tt]imeout|Broken pipe"),
)


def _why_no_handshake(text: str) -> Reason | None:
    return next((reason for reason, pattern in _WHY if re.search(pattern, text)), None)


def _remember(known: dict[str, str], key: str, value: str) -> None:
    """Of no more than some: who connects again and again must not fill the memory."""
    known.pop(key, None)
    known[key] = value
    if len(known) > _MOST:
        del known[next(iter(known))]


_MOST = 1000
