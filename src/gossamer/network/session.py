"""A session of Eclipse Zenoh: publishers, subscribers, liveliness tokens and queries. Payloads are opaque bytes here.

No other module imports zenoh.
"""

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from gossamer.errors import InputError

try:
    import zenoh
except ModuleNotFoundError as missing:
    raise InputError(
        "the network needs eclipse-zenoh; install it with: pip install 'gossamer[network]'"
    ) from missing

Receive: TypeAlias = Callable[[str, bytes], None]  # topic and payload


class Publisher:
    """Publishes under one topic.

    Args:
        publisher: Zenoh's.
    """

    def __init__(self, publisher: Any):
        self._publisher = publisher

    def put(self, data: bytes) -> None:
        """Hand a message to the network. Under congestion it blocks or is dropped, as chosen for this publisher."""
        self._publisher.put(data)

    @property
    def is_heard(self) -> bool:
        """Whether the topic has a subscriber."""
        return bool(self._publisher.matching_status.matching)


class Session:
    """A connection to the network, until it is closed.

    Zenoh logs to the standard output: its errors, or what the variable RUST_LOG selects.

    Args:
        config: Zenoh's configuration, a value for each key.

    Raises:
        InputError: If Zenoh rejects the configuration, or cannot listen at an endpoint.
    """

    def __init__(self, config: Mapping[str, Any]):
        # Only the first call in a process has an effect. Warnings are left out: Zenoh writes one for each connection
        # that it refuses, so that anyone could fill a disk.
        zenoh.init_log_from_env_or("error")
        settings = zenoh.Config()
        try:
            for key, value in config.items():
                settings.insert_json5(key, json.dumps(value))
            self._session = zenoh.open(settings)
        except zenoh.ZError as error:
            raise InputError(f"the network could not be opened: {str(error).splitlines()[0]}") from error
        self._declared: list[Any] = []
        self._threads: list[threading.Thread] = []

    def publisher(self, key: str, lossless: bool) -> Publisher:
        """Declare a publisher.

        Args:
            key: its topic.
            lossless: whether ``put`` blocks under congestion; otherwise it drops the message.
        """
        congestion = zenoh.CongestionControl.BLOCK if lossless else zenoh.CongestionControl.DROP
        declared = self._session.declare_publisher(key, congestion_control=congestion)
        self._declared.append(declared)
        return Publisher(declared)

    def subscribe(self, key: str, receive: Receive, lossless: bool) -> None:
        """Call ``receive`` with each message of a topic, in a thread of its own.

        Args:
            key: the topic.
            receive: must not raise.
            lossless: whether all messages are kept until ``receive`` takes them; otherwise only the newest.
        """
        handler = zenoh.handlers.FifoChannel(_MOST_WAITING) if lossless else zenoh.handlers.RingChannel(1)
        subscriber = self._session.declare_subscriber(key, handler)
        self._declared.append(subscriber)
        thread = threading.Thread(
            target=_pump, args=(subscriber, receive), daemon=True, name=f"receive {key}"
        )
        self._threads.append(thread)
        thread.start()

    def declare_token(self, key: str) -> Callable[[], None]:
        """Declare a liveliness token, visible while this process lives.

        Returns:
            A function that withdraws the token; so does its garbage collection, so it must be kept.
        """
        token = self._session.liveliness().declare_token(key)
        return token.undeclare

    def watch_tokens(self, key: str, appeared: Callable[[str], None], gone: Callable[[str], None]) -> None:
        """Call back for each token that matches a key, including those that exist already."""

        def notify(sample: Any) -> None:
            (appeared if sample.kind == zenoh.SampleKind.PUT else gone)(str(sample.key_expr))

        self._declared.append(self._session.liveliness().declare_subscriber(key, notify, history=True))

    def tokens(self, key: str, seconds: float) -> list[str]:
        """Tokens that match a key now.

        Args:
            key: may have wildcards.
            seconds: timeout of the query.
        """
        replies = self._session.liveliness().get(key, timeout=seconds)
        return [str(reply.ok.key_expr) for reply in replies if reply.ok is not None]

    def answer(self, key: str, reply: Callable[[], bytes | None]) -> None:
        """Answer queries for a key with ``reply()``, or with nothing if that is None."""

        def handle(query: Any) -> None:
            with query:
                data = reply()
                if data is not None:
                    query.reply(key, data)

        self._declared.append(self._session.declare_queryable(key, handle))

    def ask(self, key: str, seconds: float) -> dict[str, bytes]:
        """Query all that answer for a key; return their answers by key.

        Args:
            key: may have wildcards.
            seconds: timeout of the query.
        """
        replies = self._session.get(
            key, target=zenoh.QueryTarget.ALL, consolidation=zenoh.ConsolidationMode.NONE, timeout=seconds
        )
        return {str(reply.ok.key_expr): bytes(reply.ok.payload) for reply in replies if reply.ok is not None}

    def close(self) -> None:
        """Leave the network."""
        self._session.close()  # also undeclares everything, which ends the subscribers' threads
        for thread in self._threads:
            thread.join()


def _pump(subscriber: Any, receive: Receive) -> None:
    while True:
        try:
            sample = subscriber.recv()
        except zenoh.ZError:  # the session is closed
            return
        receive(str(sample.key_expr), bytes(sample.payload))


_MOST_WAITING = 256  # messages of one sender that a lossless subscriber keeps; further ones block the link
