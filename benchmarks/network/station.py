"""An agent's place on the network without its learning: the parts that ``gossamer.fleet`` puts together, no more."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.mixing import uniform, weigh
from gossamer.network.access import Access, Credentials, zenoh_config
from gossamer.network.credentials import check
from gossamer.network.membership import Fleet
from gossamer.network.receiver import Receiver
from gossamer.network.refusals import Refusals
from gossamer.network.schema import Schema
from gossamer.network.send_queue import NetworkTransport, SenderIdentity, SendQueue
from gossamer.network.session import Session
from gossamer.network.wire import Expected, message_bytes
from gossamer.runtimes.inbox import Inbox
from gossamer.runtimes.peer import Neighbourhood
from gossamer.schedules import Links, Schedule
from gossamer.topologies import named

LEAVES = 8
IN_STEP = Schedule("most_recent", staleness=0)
NEVER_WAITS = Schedule("most_recent")


@dataclass(frozen=True)
class Place:
    """Who somebody is, whom it talks to, and how large messages are."""

    fleet: Fleet
    name: str
    topology: str
    schedule: Schedule
    size: int
    """Bytes of the numbers in a message."""
    keys: str | None
    """Folder of certificates; None: plaintext."""

    @property
    def number(self) -> int:
        """Its number among the agents."""
        return self.fleet.number(self.name)

    @property
    def neighbours(self) -> tuple[str, ...]:
        """Names of those it talks to."""
        return self.fleet.neighbours(self.links, self.name)

    @property
    def message_bytes(self) -> int:
        """Length of a message as it is sent."""
        return message_bytes(Schema.of(parameters(self.size)), "none")

    @property
    def links(self) -> Links:
        """The whole graph, every neighbour believed alike."""
        return Links.of(weigh(named(self.topology, len(self.fleet.names)), uniform))


def parameters(size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random parameters of that many bytes, in some leaves."""
    numbers = np.random.default_rng(seed).standard_normal(size // 4, np.float32)
    return {f"layer {number}": leaf for number, leaf in enumerate(np.array_split(numbers, LEAVES))}


def network_config(place: Place) -> dict[str, Any]:
    """Zenoh's configuration for an agent."""
    fleet, credentials, access = place.fleet, None, None
    if place.keys is not None:
        credentials = Credentials.of(check(Path(place.keys), place.name))
        access = Access(fleet.run, place.name, (place.name, *place.neighbours))
    # Of two neighbours the later connects to the earlier.
    earlier = [each for each in place.neighbours if fleet.number(each) < place.number]
    return zenoh_config(
        [fleet.addresses[place.name]],
        [fleet.addresses[each] for each in earlier],
        credentials,
        access,
        largest_message=place.message_bytes,
    )


class Station:
    """One agent's way in and out; closed by ``close``.

    Args:
        place: whose it is.
        inbox: what has come for it; its places are those of the agent's neighbourhood.
    """

    def __init__(self, place: Place, inbox: Inbox):
        fleet, links, number, schedule = place.fleet, place.links, place.number, place.schedule
        heard = frozenset(Neighbourhood.of(links, number).senders)
        schema, run = Schema.of(parameters(place.size)), bytes.fromhex(fleet.run)
        self.refusals = Refusals(place.name)
        self.session = Session(network_config(place))
        self.receiver = Receiver(
            number,
            inbox,
            Expected(run, schema, "none", place.message_bytes),
            fleet.space,
            {name: fleet.number(name) for name in place.neighbours},
            heard,
            schedule,
            0,
            self.refusals,
        )
        incarnation, key = time.time_ns(), fleet.space.message(place.name, 0)
        self.send_queue = SendQueue(
            SenderIdentity(number, run, incarnation, schema, "none"),
            [self.session.publisher(key, lossless=schedule.in_step)],
            schedule.in_step,
        )
        for name in place.neighbours:
            if fleet.number(name) in heard:
                self.session.subscribe(fleet.space.message(name, 0), self.receiver.receive, schedule.in_step)
            self.session.watch_tokens(fleet.space.alive(name), self.receiver.appeared, self.receiver.gone)
        withdraw = self.session.declare_token(fleet.space.alive(place.name, incarnation))
        self.transport = NetworkTransport(
            self.send_queue, links, number, schedule, 0, self.receiver.present, lambda: None, withdraw
        )

    def wait_for_all(self, seconds: float) -> None:
        """Until every neighbour is there.

        Raises:
            RuntimeError: some are not in time.
        """
        missing = self.receiver.wait_for_all(time.monotonic() + seconds, lambda: False)
        if missing:
            raise RuntimeError(
                f"agents {sorted(missing)} did not come; refused were {self.refusals.counts()}"
            )

    def close(self) -> None:
        """Leave the network."""
        self.send_queue.silence()
        self.session.close()
