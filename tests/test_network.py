"""What one agent takes from the network and gives to it, without a network; and a session of it, on loopback."""

import pickle
import queue
import struct
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import xxhash

from gossamer.mixing import uniform, weigh
from gossamer.network.compression import Compressor
from gossamer.network.receiver import Receiver
from gossamer.network.refusals import Refusals
from gossamer.network.schema import Schema
from gossamer.network.send_queue import NetworkTransport, SenderIdentity, SendQueue
from gossamer.network.topics import Topics
from gossamer.network.wire import Expected, Header, Kind, decode, encode, message_bytes
from gossamer.runtimes.clock import MonotonicClock
from gossamer.runtimes.inbox import Envelope, Inbox
from gossamer.schedules import Links, Schedule
from gossamer.schedules.draws import link_fails
from gossamer.topologies import named

RUN = "0f" * 16
TOPICS = Topics(RUN)
SCHEMA = Schema.of({"w": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)})
EXPECTED = Expected(bytes.fromhex(RUN), SCHEMA, "none", message_bytes(SCHEMA, "none"))
ALICE, BOB, CAROL = 0, 1, 2  # Alice hears Bob and Carol
NUMBERS = {"bob": BOB, "carol": CAROL}
DEADLINE = 20.0  # seconds; reached only where something is broken


def values(number):
    return {"w": np.full((2, 3), number, np.float32), "b": np.full(2, number, np.float32)}


def written(
    number=1.0, version=1, sender=BOB, incarnation=1, kind=Kind.parameters, schema=SCHEMA, message=None
):
    parts = ()
    if kind is Kind.parameters:
        parts = Compressor("none", schema).compress(
            schema.leaves(values(number) if message is None else message)
        )
    header = Header(kind, bytes.fromhex(RUN), sender, incarnation, version, sent_at=1.7e9)
    return encode(header, schema, "none", parts)


def repaired(data):
    """The message with a checksum that is right."""
    checksum = xxhash.xxh3_64_intdigest(data[:84] + bytes(4) + data[88:]) & 0xFFFFFFFF
    return data[:84] + struct.pack("<I", checksum) + data[88:]


def edited(data, offset, new):
    return data[:offset] + new + data[offset + len(new) :]


class Alice:
    """An agent's inbox and receiver."""

    def __init__(self, schedule=None, seed=0):
        self.inbox = Inbox([BOB, CAROL], MonotonicClock())
        self.refusals = Refusals("alice")
        self.receiver = Receiver(
            ALICE,
            self.inbox,
            EXPECTED,
            TOPICS,
            NUMBERS,
            frozenset(NUMBERS.values()),
            schedule or Schedule("most_recent"),
            seed,
            self.refusals,
        )

    def hears(self, data, name="bob"):
        self.receiver.receive(TOPICS.message(name, 0), data)

    def present(self):
        return self.inbox.look().present.tolist()

    def versions(self):
        return self.inbox.look().version.tolist()


def test_a_message_comes_to_the_inbox():
    alice = Alice()
    alice.hears(written(number=3.0, version=7))
    assert alice.versions() == [7, 0]
    np.testing.assert_array_equal(alice.inbox.newest()[BOB]["w"], np.full((2, 3), 3.0))
    assert alice.receiver.last()[BOB].version == 7
    assert alice.refusals.counts() == {}


OTHER = Schema.of({"w": np.zeros((3, 2), np.float32), "b": np.zeros(2, np.float32)})


# One attack each: what arrives under Bob's topic, the reason for which it is refused, and what the log says of it.
ATTACKS = {
    "truncated": (written(version=2)[:-1], "size", "31 bytes follow the header; it declares 32"),
    "oversized": (written(version=2) + bytes(EXPECTED.limit), "size", "at most 120 are accepted"),
    "damaged": (written(version=2)[:-1] + b"\x01", "not_ours", "the checksum is"),
    "not_a_message": (
        pickle.dumps({"w": np.zeros((2, 3))})[:100].ljust(100, b"."),
        "not_ours",
        "the message begins with",
    ),
    "of_another_run": (
        repaired(written(version=2).replace(bytes.fromhex(RUN), bytes(16))),
        "not_ours",
        "the run is 0000",
    ),
    "of_another_format": (repaired(edited(written(version=2), 4, b"\2")), "version", "the format is 2"),
    "of_another_schema": (
        written(
            version=2,
            schema=OTHER,
            message={"w": np.zeros((3, 2), np.float32), "b": np.zeros(2, np.float32)},
        ),
        "schema",
        "the schema is",
    ),
    "not_finite": (
        repaired(edited(written(version=2), 88, struct.pack("<f", np.nan))),
        "not_finite",
        "holds NaN",
    ),
    "under_anothers_name": (
        written(version=2, sender=CAROL),
        "sender",
        "the sender is number 2; it came from bob, number 1",
    ),
    "replayed": (written(version=1), "stale", "the parameters' version is 1; 1 was received before"),
    "of_a_replaced_process": (
        written(version=2, incarnation=0),
        "stale",
        "the incarnation is 0; 1 has replaced it",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_refused_changes_nothing_and_is_counted(attack, caplog):
    data, reason, detail = ATTACKS[attack]
    alice = Alice()
    alice.hears(written(number=3.0, version=1))
    before = alice.inbox.newest()[BOB]["w"].copy()
    alice.hears(data)
    assert alice.refusals.counts() == {reason: {"bob": 1}}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"alice refused bob ({reason}, 1 times so far)" in caplog.text
    assert detail in caplog.text
    np.testing.assert_array_equal(alice.inbox.newest()[BOB]["w"], before)
    assert alice.versions() == [1, 0]
    alice.hears(written(number=4.0, version=2))
    assert alice.versions() == [2, 0]


def test_who_is_not_there_is_not_waited_for_until_it_comes():
    alice = Alice()
    assert alice.present() == [False, False]
    alice.receiver.appeared(TOPICS.alive("bob", 1))
    assert alice.present() == [True, False]
    assert alice.receiver.present() == {BOB}
    alice.receiver.gone(TOPICS.alive("bob", 1))
    assert alice.present() == [False, False]
    alice.receiver.appeared(TOPICS.alive("bob", 1))  # a link was down, and is up again
    assert alice.present() == [True, False]
    alice.receiver.appeared(TOPICS.alive("mallory", 1))
    alice.receiver.gone(TOPICS.alive("mallory", 1))
    assert alice.receiver.present() == {BOB}


def test_the_end_of_an_old_process_says_nothing_of_the_new_one():
    alice = Alice()
    alice.receiver.appeared(TOPICS.alive("bob", 5))
    alice.receiver.appeared(TOPICS.alive("bob", 6))
    alice.receiver.gone(TOPICS.alive("bob", 5))
    assert alice.present() == [True, False]


def test_a_new_process_counts_anew_and_the_old_one_is_heard_no_more():
    alice = Alice()
    alice.hears(written(number=1.0, version=90, incarnation=5))
    alice.hears(written(number=2.0, version=40, incarnation=6))
    assert alice.versions() == [40, 0]
    alice.hears(written(number=3.0, version=91, incarnation=5))
    assert alice.versions() == [40, 0]
    assert alice.refusals.counts() == {"stale": {"bob": 1}}


def test_a_farewell_ends_it_and_the_last_message_counts_once():
    alice = Alice()
    alice.receiver.appeared(TOPICS.alive("bob", 1))
    alice.hears(written(version=3))
    alice.hears(written(version=3, kind=Kind.farewell))
    assert alice.present() == [True, False]  # unread
    alice.inbox.take(lambda held: held.received)
    assert alice.present() == [False, False]


def test_an_answer_may_come_once_more_by_itself():
    alice = Alice()
    alice.receiver.receive_answer(TOPICS.newest("bob"), written(version=4), last=4)
    alice.hears(written(version=4))
    assert alice.versions() == [4, 0]
    assert alice.refusals.counts() == {}
    alice.hears(written(version=3))
    assert alice.refusals.counts() == {"stale": {"bob": 1}}


def test_an_answer_from_beyond_the_last_round_is_refused():
    alice = Alice()
    alice.receiver.receive_answer(TOPICS.newest("bob"), written(version=2**62), last=100)
    assert alice.versions() == [0, 0]
    assert alice.refusals.counts() == {"not_ours": {"bob": 1}}


def test_who_only_hears_an_agent_answers_it_too():
    """On a directed graph; its parameters have no place there, and it has done nothing wrong."""
    inbox, refusals = Inbox([BOB], MonotonicClock()), Refusals("alice")
    schedule = Schedule("most_recent")
    receiver = Receiver(ALICE, inbox, EXPECTED, TOPICS, NUMBERS, frozenset([BOB]), schedule, 0, refusals)
    carol = written(version=4, sender=CAROL)
    receiver.receive_answer(TOPICS.newest("carol"), carol, last=100)
    receiver.receive_answer(TOPICS.newest("bob"), written(version=3), last=100)
    assert inbox.look().version.tolist() == [3]
    assert refusals.counts() == {}


def test_a_message_that_comes_after_its_senders_end_counts_once_and_nobody_waits_for_more():
    alice = Alice()
    alice.receiver.appeared(TOPICS.alive("bob", 1))
    alice.hears(written(version=1))
    alice.receiver.gone(TOPICS.alive("bob", 1))
    alice.hears(written(version=2))
    assert alice.present() == [True, False]  # unread
    alice.inbox.take(lambda held: held.received)
    assert alice.present() == [False, False]


def test_what_a_replaced_process_has_sent_never_counts_after_the_new_one_has_appeared(monkeypatch):
    """Even if both are heard of at the same moment: whoever is second waits for the other's end."""
    alice, put = Alice(), Inbox.put
    newcomer = threading.Thread(target=alice.receiver.appeared, args=[TOPICS.alive("bob", 2)])

    def put_while_the_new_process_appears(inbox, envelope):
        if envelope.version == 1000:
            newcomer.start()
            newcomer.join(0.2)
        return put(inbox, envelope)

    monkeypatch.setattr(Inbox, "put", put_while_the_new_process_appears)
    alice.receiver.appeared(TOPICS.alive("bob", 1))
    alice.hears(written(version=1000, incarnation=1))
    newcomer.join(DEADLINE)
    alice.hears(written(version=1, incarnation=2))
    assert alice.versions() == [1, 0]


def test_failing_links_lose_just_the_messages_that_the_sender_counts():
    schedule = Schedule("most_recent", link_failure=0.5)
    alice, seen = Alice(schedule, seed=3), []
    for version in range(1, 41):
        alice.hears(written(version=version))
        seen.append(alice.versions()[0] == version)
    lost = [bool(link_fails(schedule, 3, BOB, np.array([ALICE]), version)[0]) for version in range(1, 41)]
    assert seen == [not each for each in lost]
    assert 10 < sum(lost) < 30


def test_all_neighbours_are_waited_for():
    alice = Alice()
    alice.receiver.appeared(TOPICS.alive("bob", 1))
    assert alice.receiver.wait_for_all(time.monotonic(), lambda: False) == {CAROL}
    later = threading.Timer(0.05, alice.receiver.appeared, [TOPICS.alive("carol", 1)])
    later.start()
    assert alice.receiver.wait_for_all(time.monotonic() + DEADLINE, lambda: False) == set()
    later.join()


def test_whoever_asks_is_told_which_process_speaks():
    alice = Alice()
    assert alice.receiver.incarnations() == {}
    alice.hears(written(incarnation=5))
    alice.receiver.appeared(TOPICS.alive("bob", 6))
    assert alice.receiver.incarnations() == {BOB: 6}


class Recorder:
    """A publisher that keeps what it is given, and can be made to take its time."""

    def __init__(self):
        self.said, self.free = queue.Queue(), threading.Event()
        self.free.set()

    def put(self, data):
        assert self.free.wait(DEADLINE)
        self.said.put(decode(data, EXPECTED))

    def next(self):
        return self.said.get(timeout=DEADLINE)


IDENTITY = SenderIdentity(BOB, bytes.fromhex(RUN), 9, SCHEMA, "none")


def envelope(version):
    return Envelope(BOB, version, 0.0, values(float(version)))


def test_a_newer_message_takes_the_place_of_one_that_waits():
    publisher = Recorder()
    send_queue = SendQueue(IDENTITY, [publisher], lockstep=False)
    publisher.free.clear()
    assert send_queue.put(envelope(1))
    while send_queue.waiting:
        assert threading.Event().wait(0.001) is False
    assert [send_queue.put(envelope(version)) for version in (2, 3, 4)] == [True, False, False]
    publisher.free.set()
    send_queue.close(DEADLINE)
    headers = [publisher.next()[0] for _ in range(2)]
    assert [(header.kind, header.version) for header in headers] == [
        (Kind.parameters, 1),
        (Kind.parameters, 4),
    ]
    assert publisher.said.empty()
    assert {(header.sender, header.incarnation) for header in headers} == {(BOB, 9)}


def test_in_lockstep_every_message_goes_out_in_its_phase():
    even, odd = Recorder(), Recorder()
    send_queue = SendQueue(IDENTITY, [even, odd], lockstep=True)
    for version in range(1, 6):
        assert send_queue.put(envelope(version))
    send_queue.close(DEADLINE)
    assert [even.next()[0].version for _ in range(3)] == [1, 3, 5]
    assert [odd.next()[0].version for _ in range(2)] == [2, 4]
    assert even.next()[0].kind is odd.next()[0].kind is Kind.farewell
    np.testing.assert_array_equal(decode(send_queue.newest(), EXPECTED)[1][0], np.full(2, 5.0))


def test_a_silenced_queue_says_nothing_more():
    publisher = Recorder()
    send_queue = SendQueue(IDENTITY, [publisher], lockstep=True)
    send_queue.put(envelope(1))
    assert publisher.next()[0].version == 1
    send_queue.silence()
    send_queue.put(envelope(2))
    send_queue.close(DEADLINE)
    assert publisher.said.empty()


def test_a_message_that_cannot_be_sent_ends_nothing(caplog):
    publisher = Recorder()
    send_queue = SendQueue(IDENTITY, [publisher], lockstep=True)
    send_queue.put(Envelope(BOB, 1, 0.0, {"another": np.zeros(1, np.float32)}))
    send_queue.put(envelope(2))
    assert publisher.next()[0].version == 2
    assert "update 1 of agent 1 was not sent" in caplog.text


class Silence:
    """Where bytes go and nobody is."""

    def put(self, data):
        pass


def test_what_cannot_be_sent_is_counted_told_seldom_and_lost(caplog):
    """Parameters beyond the range of float16: every message fails from then on."""
    links = Links.of(weigh(named("ring", 3), uniform))
    send_queue = SendQueue(replace(IDENTITY, compression="float16"), [Silence()], lockstep=True)
    transport = NetworkTransport(
        send_queue, links, BOB, Schedule(), 0, lambda: frozenset({0, 2}), lambda: None, lambda: None
    )
    counts = []
    for version in range(1, 9):
        counts.append(transport.send(Envelope(BOB, version, 0.0, values(1.0 if version == 1 else 1e6))))
        until = time.monotonic() + DEADLINE
        while send_queue.failed < version - 1:
            assert time.monotonic() < until
            time.sleep(0.001)
    assert counts == [(2, 0)] * 2 + [(2, 2)] * 6  # of each failure the next message tells
    told = [record for record in caplog.records if "was not sent" in record.message]
    assert [record.args[2] for record in told] == [1, 2, 4]
    assert all("compression 'float16' holds at most 65504" in record.message for record in told)
    assert not any(record.exc_info for record in told)


def test_the_transport_counts_who_hears_and_joins_once():
    links = Links.of(weigh(named("directed_ring", 3), uniform))
    receiver = int(links.receiver[links.sender == BOB][0])
    schedule = Schedule("most_recent", link_failure=0.5)
    publisher, told = Recorder(), []
    send_queue = SendQueue(IDENTITY, [publisher], lockstep=True)
    present = {receiver}
    transport = NetworkTransport(
        send_queue,
        links,
        BOB,
        schedule,
        0,
        lambda: frozenset(present),
        lambda: told.append("join"),
        lambda: told.append("leave"),
    )
    counts = [transport.send(envelope(version)) for version in range(1, 21)]
    lost = [int(link_fails(schedule, 0, BOB, np.array([receiver]), version)[0]) for version in range(1, 21)]
    assert counts == [(1, each) for each in lost]
    present.clear()
    assert transport.send(envelope(21)) == (0, 0)
    transport.leave(BOB)
    assert told == ["join", "leave"]


def test_sessions_hear_each_other_and_close():
    """Tokens, messages, questions, on loopback without certificates."""
    pytest.importorskip("zenoh", reason="the network needs the extra gossamer[network]")
    from gossamer.network.access import zenoh_config
    from gossamer.network.launcher import local_addresses
    from gossamer.network.session import Session

    address = local_addresses(("alice",), tls=False)["alice"]
    first = Session(zenoh_config((address,), (), None, None))
    second = Session(zenoh_config((), (address,), None, None))
    heard = queue.Queue()
    try:
        second.watch_tokens(
            TOPICS.alive("alice"), lambda key: heard.put(("up", key)), lambda key: heard.put(("down", key))
        )
        withdraw = first.declare_token(TOPICS.alive("alice", 1))
        assert heard.get(timeout=DEADLINE) == ("up", TOPICS.alive("alice", 1))
        second.subscribe(TOPICS.message("alice", 0), lambda key, data: heard.put((key, data)), lossless=True)
        publisher = first.publisher(TOPICS.message("alice", 0), lossless=True)
        until = time.monotonic() + DEADLINE
        while not publisher.is_heard:
            assert time.monotonic() < until
        for number in range(3):
            publisher.put(bytes([number]))
        assert [heard.get(timeout=DEADLINE)[1] for _ in range(3)] == [b"\0", b"\1", b"\2"]
        first.answer(TOPICS.newest("alice"), lambda: b"newest")
        answers, until = {}, time.monotonic() + DEADLINE
        while not answers:  # the other session may not know yet that somebody answers
            assert time.monotonic() < until
            answers = second.ask(TOPICS.newest(), DEADLINE)
        assert answers == {TOPICS.newest("alice"): b"newest"}
        assert second.tokens(TOPICS.alive("*"), DEADLINE) == [TOPICS.alive("alice", 1)]
        withdraw()
        assert heard.get(timeout=DEADLINE) == ("down", TOPICS.alive("alice", 1))
    finally:
        second.close()
        first.close()
