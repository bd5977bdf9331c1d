"""A session of Eclipse Zenoh: publishers, subscribers, tokens and questions. Nothing here knows what bytes mean.

This is the one file that imports zenoh, beside the reading of its log.
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

Receive: TypeAlias = Callable[[str, bytes], None]  # the key and the bytes


class Publisher:
    """What one agent says under one key.

    Args:
        publisher: Zenoh's.
    """

    def __init__(self, publisher: Any):
        self._publisher = publisher

    def put(self, data: bytes) -> None:
        """Hand bytes to the network. Where it is congested they wait or are lost, as the publisher was told to."""
        self._publisher.put(data)

    @property
    def is_heard(self) -> bool:
        """Whether anybody subscribes to the key."""
        return bool(self._publisher.matching_status.matching)


class Session:
    """A place on the network, until it is closed.

    Args:
        config: Zenoh's configuration, a value for each key.

    Raises:
        InputError: Zenoh does not take the configuration, or cannot listen where it says.
    """

    def __init__(self, config: Mapping[str, Any]):
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
        """A publisher that drops what cannot go out, or waits.

        Args:
            key: what is spoken under.
            lossless: whether ``put`` waits where the network is congested.
        """
        congestion = zenoh.CongestionControl.BLOCK if lossless else zenoh.CongestionControl.DROP
        declared = self._session.declare_publisher(key, congestion_control=congestion)
        self._declared.append(declared)
        return Publisher(declared)

    def subscribe(self, key: str, receive: Receive, lossless: bool) -> None:
        """Call ``receive`` with what is said under a key, in a thread of its own.

        Args:
            key: what is listened to.
            receive: must not raise.
            lossless: keep all that comes until it is received; else only the newest, which overwrites the one before.
        """
        handler = zenoh.handlers.FifoChannel(_MOST_WAITING) if lossless else zenoh.handlers.RingChannel(1)
        subscriber = self._session.declare_subscriber(key, handler)
        self._declared.append(subscriber)
        thread = threading.Thread(target=_pump, args=(subscriber, receive), daemon=True, name=f"hears {key}")
        self._threads.append(thread)
        thread.start()

    def declare_token(self, key: str) -> Callable[[], None]:
        """Show a key to all who watch, as long as this process lives; what is returned withdraws it."""
        token = self._session.liveliness().declare_token(key)
        return token.undeclare

    def watch_tokens(self, key: str, appeared: Callable[[str], None], gone: Callable[[str], None]) -> None:
        """Be told of tokens that match a key, those included that were there before."""

        def heard(sample: Any) -> None:
            (appeared if sample.kind == zenoh.SampleKind.PUT else gone)(str(sample.key_expr))

        self._declared.append(self._session.liveliness().declare_subscriber(key, heard, history=True))

    def tokens(self, key: str, seconds: float) -> list[str]:
        """The tokens that match a key now.

        Args:
            key: what they must match.
            seconds: how long answers are waited for.
        """
        replies = self._session.liveliness().get(key, timeout=seconds)
        return [str(reply.ok.key_expr) for reply in replies if reply.ok is not None]

    def answer(self, key: str, reply: Callable[[], bytes | None]) -> None:
        """Answer whoever asks under a key; with nothing where ``reply()`` is None."""

        def asked(query: Any) -> None:
            with query:
                data = reply()
                if data is not None:
                    query.reply(key, data)

        self._declared.append(self._session.declare_queryable(key, asked))

    def ask(self, key: str, seconds: float) -> dict[str, bytes]:
        """What everybody answers who answers under a key, by key.

        Args:
            key: what is asked for; may have wildcards.
            seconds: how long answers are waited for.
        """
        replies = self._session.get(
            key, target=zenoh.QueryTarget.ALL, consolidation=zenoh.ConsolidationMode.NONE, timeout=seconds
        )
        return {str(reply.ok.key_expr): bytes(reply.ok.payload) for reply in replies if reply.ok is not None}

    def close(self) -> None:
        """Leave the network."""
        self._session.close()  # withdraws all that was declared, and ends the waiting of those that listen
        for thread in self._threads:
            thread.join()


def _pump(subscriber: Any, receive: Receive) -> None:
    """Until the session is closed, which ends the wait with an error."""
    while True:
        try:
            sample = subscriber.recv()
        except zenoh.ZError:
            return
        receive(str(sample.key_expr), bytes(sample.payload))


_MOST_WAITING = (
    256  # messages of one sender that a receiver in step keeps; more would have to wait on the link
)
