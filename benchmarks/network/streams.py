"""Messages as fast as possible from one process to another: by gossamer, by Zenoh alone, and by plain sockets."""

import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import zenoh

from benchmarks.network.station import Place, Station, network_config, parameters
from benchmarks.network.together import Start
from gossamer.network.credentials import check
from gossamer.runtimes.clock import MonotonicClock
from gossamer.runtimes.inbox import Envelope, Inbox

BUFFER = 4 << 20  # bytes, of plain sockets: larger ones Linux does not give by default
WAIT_SECONDS = 120.0


@dataclass(frozen=True)
class End:
    """One end of a stream: the first agent of two sends, the other receives."""

    contender: str
    place: Place
    messages: int
    """That are measured."""
    warm_up: int
    """Messages before those, at least 1."""

    @property
    def sends(self) -> bool:
        return self.place.number == 0


class Streamed(NamedTuple):
    """What an end tells, of each message."""

    seconds: float
    busy: float  # processor seconds of the process


def live(end: End, start: Start) -> Streamed:
    """Be one end."""
    contender = CONTENDERS[end.contender]
    return (contender.send if end.sends else contender.receive)(end, start)


class _Watch:
    """Counts messages, and tells of those after the warm-up."""

    def __init__(self, end: End):
        self._first, self._last = end.warm_up, end.warm_up + end.messages
        self._count, self._ended = 0, threading.Event()

    def count(self) -> None:
        """One more."""
        self._count += 1
        if self._count == self._first:
            self._began, self._began_busy = time.perf_counter(), time.process_time()
        if self._count == self._last:
            messages = self._last - self._first
            seconds, busy = time.perf_counter() - self._began, time.process_time() - self._began_busy
            self._streamed = Streamed(seconds / messages, busy / messages)
            self._ended.set()

    def streamed(self) -> Streamed:
        """Once all have been counted.

        Raises:
            RuntimeError: that takes too long.
        """
        if not self._ended.wait(WAIT_SECONDS):
            raise RuntimeError(f"{self._count} of {self._last} messages came")
        return self._streamed


def _send_all(end: End, start: Start, send: Callable[[int], object]) -> Streamed:
    """Calls ``send`` with the numbers from 1 on, then waits until all has come."""
    total = end.warm_up + end.messages
    start()
    began, began_busy = time.perf_counter(), time.process_time()
    for number in range(1, total + 1):
        send(number)
    start()
    return Streamed((time.perf_counter() - began) / total, (time.process_time() - began_busy) / total)


class _CountingInbox(Inbox):
    """Nobody reads it: it counts what comes."""

    def __init__(self, end: End):
        super().__init__((1 - end.place.number,), MonotonicClock())
        self.watch = _Watch(end)

    def put(self, envelope: Envelope) -> bool:
        kept = super().put(envelope)
        self.watch.count()
        return kept


def _send_as_agent(end: End, start: Start) -> Streamed:
    message, number = parameters(end.place.size), end.place.number
    with closing(Station(end.place, _CountingInbox(end))) as station:
        station.wait_for_all(WAIT_SECONDS)
        return _send_all(
            end,
            start,
            lambda version: station.transport.send(Envelope(number, version, time.monotonic(), message)),
        )


def _receive_as_agent(end: End, start: Start) -> Streamed:
    inbox = _CountingInbox(end)
    with closing(Station(end.place, inbox)) as station:
        station.wait_for_all(WAIT_SECONDS)
        start()
        streamed = inbox.watch.streamed()
        start()
        return streamed


def _send_by_zenoh(end: End, start: Start) -> Streamed:
    data = os.urandom(end.place.message_bytes)
    with _zenoh(end) as session:
        publisher = session.declare_publisher(_key(end), congestion_control=zenoh.CongestionControl.BLOCK)
        until = time.monotonic() + WAIT_SECONDS
        while not publisher.matching_status.matching and time.monotonic() < until:
            time.sleep(0.01)
        return _send_all(end, start, lambda _: publisher.put(data))


def _receive_by_zenoh(end: End, start: Start) -> Streamed:
    watch = _Watch(end)
    with _zenoh(end) as session:
        subscriber = session.declare_subscriber(_key(end), zenoh.handlers.FifoChannel(256))
        start()
        for _ in range(end.warm_up + end.messages):
            subscriber.recv()
            watch.count()
        start()
        return watch.streamed()


@contextmanager
def _zenoh(end: End) -> Any:
    """A session configured as an agent's."""
    config = zenoh.Config()
    for key, value in network_config(end.place).items():
        config.insert_json5(key, json.dumps(value))
    with zenoh.open(config) as session:
        yield session


def _key(end: End) -> str:
    return end.place.fleet.space.message(end.place.fleet.names[0], 0)


def _send_by_socket(end: End, start: Start) -> Streamed:
    data = os.urandom(end.place.message_bytes)
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            with _socket() as plain:
                plain.connect(_address(end))
                with _secured(plain, end) as stream:
                    return _send_all(end, start, lambda _: stream.sendall(data))
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def _receive_by_socket(end: End, start: Start) -> Streamed:
    watch, view = _Watch(end), memoryview(bytearray(end.place.message_bytes))
    with _socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(_address(end))
        listening.listen()
        plain, _ = listening.accept()
    with _secured(plain, end) as stream:
        start()
        for _ in range(end.warm_up + end.messages):
            read = 0
            while read < len(view):
                count = stream.recv_into(view[read:])
                if not count:
                    raise RuntimeError("the other end has closed the stream")
                read += count
            watch.count()
        start()
        return watch.streamed()


def _socket() -> socket.socket:
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    return plain


def _address(end: End) -> tuple[str, int]:
    host, _, port = end.place.fleet.addresses[end.place.fleet.names[1]].partition("/")[2].rpartition(":")
    return host, int(port)


def _secured(plain: socket.socket, end: End) -> socket.socket:
    """TLS 1.3 with both ends known, if there are certificates."""
    if end.place.keys is None:
        return plain
    files = check(Path(end.place.keys), end.place.name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if end.sends else ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(files.authority)
    context.load_cert_chain(files.certificate, files.key)
    if end.sends:
        return context.wrap_socket(plain, server_hostname=_address(end)[0])
    return context.wrap_socket(plain, server_side=True)


@dataclass(frozen=True)
class Contender:
    """A way to send messages, and what to do at either end."""

    send: Callable[[End, Start], Streamed]
    receive: Callable[[End, Start], Streamed]
    tls: bool


CONTENDERS: Mapping[str, Contender] = {
    f"{title}{', TLS' if tls else ''}": Contender(send, receive, tls)
    for tls in (False, True)
    for title, send, receive in (
        ("socket", _send_by_socket, _receive_by_socket),
        ("Zenoh", _send_by_zenoh, _receive_by_zenoh),
        ("gossamer", _send_as_agent, _receive_as_agent),
    )
}
