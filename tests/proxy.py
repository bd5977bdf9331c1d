"""A network that is slow and comes apart, for tests: TCP through a port of its own for every pair that connects.

It knows bytes only, neither messages nor agents' names beyond those of the pairs.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Literal, TypeAlias, TypeVar, get_args

Pair: TypeAlias = tuple[str, str]  # who connects, and who listens
Cut: TypeAlias = Literal["stall", "close"]

T = TypeVar("T")


class Proxy:
    """Forwards bytes between pairs on loopback, both ways, each chunk after a delay drawn from U(0, ``most_ms``).

    Order is kept: a chunk leaves no earlier than the one before it, so that where chunks are many the delay of most is
    near ``most_ms``. What one read gives is a chunk. Each direction of a pair has random numbers of its own. A
    direction in which ``_MOST_WAITING`` chunks wait reads no more, as a full buffer of the kernel's would not.

    There are two ways to cut a pair:

    stall: bytes stand still, unnoticed by both ends until they miss them; a connection is accepted, as the kernel's
        queue does, but comes to nothing. Healing lets all go on that is still connected then: what stood still
        arrives, late, as retransmissions would.
    close: connections are reset, and so is every new one at once.

    Args:
        targets: host and port of the listener of each pair.
        most_ms: longest delay of a chunk, in milliseconds, >= 0.
        seed: of the delays.

    Example:
        >>> with Proxy({("ada", "bob"): ("127.0.0.1", 7447)}, most_ms=50) as proxy:
        ...     proxy.cut([("ada", "bob")], "stall")
        ...     proxy.heal()
    """

    def __init__(self, targets: Mapping[Pair, tuple[str, int]], most_ms: float = 0.0, seed: int = 0):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="proxy")
        self._links = {
            pair: _Link(target, most_ms / 1000, f"{seed} {pair}") for pair, target in targets.items()
        }

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._do(_all_of, [link.start for link in self._links.values()])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(_all_of, [link.end for link in self._links.values()])
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def port(self, pair: Pair) -> int:
        """Where on 127.0.0.1 the one who connects finds the other."""
        return self._links[pair].port

    def cut(self, pairs: Iterable[Pair], how: Cut) -> None:
        """Cut some pairs, until ``heal``.

        Args:
            pairs: which; each as it connects.
            how: stall or close.
        """
        if how not in get_args(Cut):
            raise ValueError(f"how is {how!r}; it must be stall or close")
        links = [self._links[pair] for pair in pairs]
        self._do(_all_of, [link.stall if how == "stall" else link.reset for link in links])

    def heal(self) -> None:
        """Let everything through again."""
        self._do(_all_of, [link.heal for link in self._links.values()])

    def traffic(self, pair: Pair) -> dict[str, Any]:
        """What a pair has had so far.

        Returns:
            accepted: how many connections ever came; open: how many of them there are, or wait; connections: how many
            ever reached the listener; bytes; and mean_delay_ms of a chunk.
        """
        link = self._links[pair]
        mean = 1000 * link.delayed / link.chunks if link.chunks else 0.0
        return {
            "accepted": link.accepted,
            "open": link.open,
            "connections": link.connections,
            "bytes": link.bytes,
            "mean_delay_ms": mean,
        }

    def _do(self, action: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        async def act() -> T:
            return await action(*arguments)

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(_LONGEST)


class _Link:
    """One pair: where it is listened for, and all its connections."""

    def __init__(self, target: tuple[str, int], most: float, seed: str):
        self._target, self._most = target, most
        # Strings: unlike those of tuples, their hashes are the same in every process.
        self._random = [random.Random(f"{seed} {way}") for way in ("there", "back")]
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._refuses = False
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.accepted, self.connections, self.chunks, self.bytes, self.delayed = 0, 0, 0, 0, 0.0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def end(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._end_connections()
        await self._server.wait_closed()

    async def stall(self) -> None:
        self._flows.clear()

    async def reset(self) -> None:
        self._refuses = True
        await self._end_connections()

    async def heal(self) -> None:
        self._refuses = False
        self._flows.set()

    async def _end_connections(self) -> None:
        for writer in self._writers:
            _reset(writer)
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            _reset(writer)
            return
        self.accepted += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = _Way(self, reader, self._most, self._random[0])
        with self._held(writer):
            try:
                async with asyncio.TaskGroup() as group:
                    reading = group.create_task(there.read())
                    flowing = group.create_task(self._flows.wait())
                    await asyncio.wait((reading, flowing), return_when=asyncio.FIRST_COMPLETED)
                    if not self._flows.is_set():  # gone before anybody could be reached
                        flowing.cancel()
                        return
                    far_reader, far_writer = await asyncio.open_connection(*self._target)
                    self.connections += 1
                    back = _Way(self, far_reader, self._most, self._random[1])
                    with self._held(far_writer):
                        group.create_task(back.read())
                        await asyncio.gather(there.write(far_writer), back.write(writer))
            except* OSError:
                pass  # either end is gone, which closes the other

    @contextmanager
    def _held(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            writer.close()
            self._writers.discard(writer)

    @property
    def open(self) -> int:
        return len(self._connections)

    def count(self, size: int, delay: float) -> None:
        self.chunks += 1
        self.bytes += size
        self.delayed += delay

    async def flows(self) -> None:
        await self._flows.wait()


class _Way:
    """One direction of one connection: chunks, each with the time from which on it may leave; an empty one ends it."""

    def __init__(self, link: _Link, reader: asyncio.StreamReader, most: float, draws: random.Random):
        self._link, self._reader, self._most, self._random = link, reader, most, draws
        self._waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MOST_WAITING)
        self._last = 0.0
        self.ended = False

    async def read(self) -> None:
        while not self.ended:
            try:
                chunk = await self._reader.read(_CHUNK)
            except OSError:
                chunk = b""  # a reset takes its time too, and passes no cut
            now = asyncio.get_running_loop().time()
            self._last = max(self._last, now + self._random.uniform(0.0, self._most))
            self.ended = not chunk
            self._link.count(len(chunk), self._last - now)
            await self._waiting.put((self._last, chunk))

    async def write(self, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            leaves, chunk = await self._waiting.get()
            await asyncio.sleep(max(leaves - loop.time(), 0.0))
            await self._link.flows()
            if not chunk:
                writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that the other end sees that it was broken off."""
    connection = writer.get_extra_info("socket")
    with suppress(OSError):  # it may be closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _all_of(actions: Iterable[Callable[[], Awaitable[None]]]) -> None:
    for action in actions:
        await action()


_CHUNK = 65536
_MOST_WAITING = 256
_LONGEST = 30.0  # seconds for what takes milliseconds
