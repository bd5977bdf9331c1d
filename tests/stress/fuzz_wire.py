"""Does anything but a message pass as a message? Random bytes and damaged messages, by the million.

    python -m tests.stress.fuzz_wire [--inputs 1000000] [--seed 0] [--out benchmarks/results/fuzz_wire.json]

Each input is made from a valid message of one of five kinds, by one of eleven mutations, and every other one has its
checksum repaired, as somebody who wants to be heard would do. Whatever is given to ``decode`` is either refused, for
one of the reasons that it has, or accepted, and then the header and the leaves that it gave are encoded to the same
bytes again; a warning counts as an error. Some inputs are decoded once more with every allocation traced.
"""

import argparse
import json
import math
import resource
import struct
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import xxhash
from benchmarks.control import machine

from gossamer.network.compression import COMPRESSIONS, Compression, Compressor
from gossamer.network.schema import Schema
from gossamer.network.wire import (
    Expected,
    Header,
    Kind,
    Reason,
    Refused,
    decode,
    encode,
    message_bytes,
)

SLACK = (
    1 << 13
)  # bytes that a receiver accepts beyond those of a message, so that wrong lengths come to its header
NARROW, WIDE = 4, 4096
RUN = bytes(range(16))
ACCEPTED = "accepted"
REASONS = frozenset(Reason) - {Reason.sender, Reason.stale}  # those are the receiver's
TRACED = 20_000  # inputs
BLOCK = 1 << 16

HEADER_BYTES = 88
FIELDS = {
    "magic": (0, 4),
    "protocol": (4, 2),
    "dtype": (6, 1),
    "compression": (7, 1),
    "kind": (8, 1),
    "reserved": (9, 7),
    "run": (16, 16),
    "schema": (32, 16),
    "incarnation": (48, 8),
    "version": (56, 8),
    "sent_at": (64, 8),
    "length": (72, 8),
    "sender": (80, 4),
    "checksum": (84, 4),
}
"""Where each field of the header stands: offset and length in bytes. Not taken from what is tested here."""

FLOATS = (math.nan, math.inf, -math.inf, -1.0, -0.0, 0.0, 5e-324, 1.7e9, 1.7976931348623157e308)
SCALES = (math.nan, math.inf, -math.inf, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 2.6e36, 2.7e36, 3.4e38)
NOT_FINITE = {
    "<f4": (0x7FC00000, 0x7F800000, 0xFF800000, 0x7F800001),
    "<f8": (0x7FF8 << 48, 0x7FF0 << 48, 0xFFF0 << 48, (0x7FF0 << 48) + 1),
    "<f2": (0x7E00, 0x7C00, 0xFC00, 0x7C01),
    "bfloat16": (0x7FC0, 0x7F80, 0xFF80, 0x7F81),
}
"""Bits of NaN, infinity, -infinity and a NaN that signals."""


class Target(NamedTuple):
    """Who receives, and valid messages to it, the last of which is a farewell."""

    name: str
    expected: Expected
    messages: tuple[bytes, ...]


class Input(NamedTuple):
    """Bytes, to whom they go, and how they came about."""

    mutation: str
    repaired: bool
    target: Target
    data: bytes


class Draws:
    """Random integers, drawn from numpy by the block: one by one would take longer than decoding."""

    def __init__(self, seed: int):
        self._random = np.random.default_rng(seed)
        self._left: list[int] = []

    def below(self, count: int) -> int:
        """One of 0, ..., count - 1."""
        if not self._left:
            self._left = self._random.integers(0, 1 << 62, BLOCK).tolist()
        return self._left.pop() % count

    def of(self, choices: Any) -> Any:
        """One of some things."""
        return choices[self.below(len(choices))]

    def bytes(self, count: int) -> bytes:
        return self._random.bytes(count)


def targets(width: int) -> list[Target]:
    """All compressions of float32 leaves, and leaves of all types; one leaf is three by ``width``."""
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"bias": (4,), "empty": (0, 2), "gain": (), "weights": (3, width)}
    plain = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    types = (np.float16, np.float64, np.float32, ml_dtypes.bfloat16)
    mixed = {name: np.zeros(shape, kind) for (name, shape), kind in zip(shapes.items(), types, strict=True)}
    cases: list[tuple[str, Compression, Any]] = [(kind, kind, plain) for kind in COMPRESSIONS]
    return [
        _target(name, kind, example, random) for name, kind, example in [*cases, ("mixed", "none", mixed)]
    ]


def _target(name: str, kind: Compression, example: Any, random: np.random.Generator) -> Target:
    schema = Schema.of(example)
    compressor, messages = Compressor(kind, schema), []
    for version in range(1, 9):
        pairs = zip(schema.shapes, schema.dtypes, strict=True)
        leaves = [np.asarray(random.normal(size=shape)).astype(dtype) for shape, dtype in pairs]
        header = Header(Kind.parameters, RUN, version % 3, 1, version, 1.7e9 + version)
        messages.append(encode(header, schema, kind, compressor.compress(leaves)))
    messages.append(encode(Header(Kind.farewell, RUN, 0, 1, 8, 1.7e9), schema, kind))
    limit = message_bytes(schema, kind) + SLACK
    return Target(name, Expected(RUN, schema, kind, limit), tuple(messages))


def inputs(count: int, seed: int, width: int = NARROW) -> Iterator[Input]:
    """So many inputs; the same again for the same seed."""
    draws, receivers, mutations = Draws(seed), targets(width), list(MUTATIONS.items())
    for _ in range(count):
        target = draws.of(receivers)
        name, mutate = draws.of(mutations)
        data = bytearray(draws.of(target.messages))
        data = mutate(draws, data, target, receivers)
        repaired = len(data) >= HEADER_BYTES and not draws.below(2)
        yield Input(name, repaired, target, bytes(repair(data) if repaired else data))


def repair(data: bytearray) -> bytearray:
    """Give some bytes the checksum of a message."""
    data[84:88] = bytes(4)
    data[84:88] = struct.pack("<I", xxhash.xxh3_64_intdigest(data) & 0xFFFFFFFF)
    return data


def _noise(draws: Draws, data: bytearray, target: Target, receivers: list[Target]) -> bytearray:
    return bytearray(draws.bytes(draws.below(300)))


def _nothing(draws: Draws, data: bytearray, target: Target, receivers: list[Target]) -> bytearray:
    return data


def _flipped(draws: Draws, data: bytearray, target: Target, receivers: list[Target]) -> bytearray:
    for _ in range(1 + draws.below(8)):
        data[draws.below(len(data))] ^= 1 << draws.below(8)
    return data


def _truncated(draws: Draws, data: bytearray, target: Target, receivers: list[Target]) -> bytearray:
    return _declared(draws, data[: draws.below(len(data))])


def _extended(draws: Draws, data: bytearray, target: Target, receivers: list[Target]) -> bytearray:
    return _declared(draws, data + draws.bytes(1 + draws.below(64)))


def _declared(draws: Draws, data: bytearray) -> bytearray:
    """With its true length in the header, or with the one that was there."""
    if len(data) >= HEADER_BYTES and draws.below(2):
        data[72:80] = struct.pack("<Q", len(data) - HEADER_BYTES)
    return data


def _oversized(draws: Draws, data: bytearray, target: Target, receivers: list[Target]) -> bytearray:
    limit = target.expected.limit
    return _declared(draws, data + bytes(limit + 1 - len(data) + draws.below(limit)))


def _field(draws: Draws, data: bytearray, target: Target, receivers: list[Target]) -> bytearray:
    name = draws.of(tuple(FIELDS))
    offset, size = FIELDS[name]
    end = offset + size
    if name == "sent_at":
        data[offset:end] = struct.pack("<d", draws.of(FLOATS))
    elif name == "schema" and draws.below(2):
        data[offset:end] = draws.of(receivers).expected.schema.digest
    elif name == "length" and draws.below(2):
        data[offset:end] = struct.pack("<Q", max(0, len(data) - HEADER_BYTES - 1 + draws.below(3)))
    else:
        top = 1 << 8 * size
        edges = (0, 1, 2, 3, top // 2 - 1, top // 2, top - 2, top - 1, 1 << (7 * size), draws.below(top))
        data[offset:end] = draws.of(edges).to_bytes(size, "little")
    return data


def _value(draws: Draws, data: bytearray, target: Target, receivers: list[Target]) -> bytearray:
    """One of the numbers, where a leaf of that type could have it, is NaN or infinite."""
    kind = draws.of(tuple(NOT_FINITE))
    size = 2 if kind == "bfloat16" else int(kind[2])
    places = (len(data) - HEADER_BYTES) // size
    if places:
        offset = HEADER_BYTES + size * draws.below(places)
        data[offset : offset + size] = draws.of(NOT_FINITE[kind]).to_bytes(size, "little")
    return data


def _scale(draws: Draws, data: bytearray, target: Target, receivers: list[Target]) -> bytearray:
    """The scale of a leaf in a message of int8: 4 bytes in front of each of 4, 0, 1, 12."""
    offset = HEADER_BYTES + draws.of((0, 8, 12, 17))
    if len(data) >= offset + 4:
        data[offset : offset + 4] = struct.pack("<f", draws.of(SCALES))
    return data


def _codec(draws: Draws, data: bytearray, target: Target, receivers: list[Target]) -> bytearray:
    """What is right for another receiver, or just the code that says so."""
    if draws.below(2):
        return bytearray(draws.of(draws.of(receivers).messages))
    data[7] = draws.below(5)
    return data


def _spliced(draws: Draws, data: bytearray, target: Target, receivers: list[Target]) -> bytearray:
    """The beginning of one message and the end of another."""
    other, cut = draws.of(draws.of(receivers).messages), draws.below(len(data))
    return _declared(draws, data[:cut] + other[cut:])


MUTATIONS: dict[str, Callable[[Draws, bytearray, Target, list[Target]], bytearray]] = {
    "noise": _noise,
    "nothing": _nothing,
    "bits_flipped": _flipped,
    "truncated": _truncated,
    "extended": _extended,
    "oversized": _oversized,
    "field": _field,
    "value": _value,
    "scale": _scale,
    "codec": _codec,
    "spliced": _spliced,
}


def outcome(given: Input) -> str:
    """What becomes of an input: accepted, or the reason for which it is refused.

    Raises:
        AssertionError: something else was raised, or what was accepted is no message.
    """
    try:
        header, leaves = decode(given.data, given.target.expected)
    except Refused as refusal:
        return refusal.reason
    except BaseException as error:
        raise AssertionError(f"{given.mutation} of {given.target.name}: {given.data.hex()}") from error
    said = f"{given.mutation} of {given.target.name} was accepted: {given.data.hex()}"
    assert given.repaired or given.data in given.target.messages, said
    assert encoded_again(given, header, leaves) == given.data, said
    return ACCEPTED


def encoded_again(given: Input, header: Header, leaves: list[np.ndarray]) -> bytes:
    """The message that says the same; scales of int8 are those that were sent, since they are not in the leaves."""
    expected, parts = given.target.expected, []
    if expected.compression != "int8":
        narrow = None if expected.compression == "none" else np.dtype(expected.compression)
        parts = [memoryview(leaf.astype(narrow or leaf.dtype).tobytes()) for leaf in leaves]
        return encode(header, expected.schema, expected.compression, parts)
    offset = HEADER_BYTES
    for leaf in leaves:
        (scale,) = struct.unpack_from("<f", given.data, offset)
        sent = np.frombuffer(given.data, np.int8, leaf.size, offset + 4)
        # All values are 0 under the scale 0, whatever was sent.
        quotient = (
            np.rint(leaf.reshape(-1) / scale) if scale else np.where(leaf.reshape(-1) == 0, sent, np.nan)
        )
        values = quotient.astype(np.int8).tobytes() if np.isfinite(quotient).all() else b""
        parts += [memoryview(given.data[offset : offset + 4]), memoryview(values)]
        offset += 4 + leaf.size
    return encode(header, expected.schema, expected.compression, parts)


def fuzz(count: int, seed: int) -> dict[str, Counter[str]]:
    """How often each thing became of the inputs, by mutation.

    Raises:
        AssertionError: as ``outcome``, or a reason was never given.
    """
    counts = {name: Counter[str]() for name in MUTATIONS}
    for given in inputs(count, seed):
        counts[given.mutation][outcome(given)] += 1
    came, due = set().union(*counts.values()), REASONS | {ACCEPTED}
    assert came == due, f"{', '.join(sorted(came ^ due))}: came and was not due, or was due and never came"
    return counts


def peaks(count: int, seed: int) -> dict[str, float]:
    """The most that was allocated at once while an input was decoded, relative to the limit of its receiver.

    Leaves are so large here that what a message becomes when it is read exceeds the limit, under float16 and int8.

    Raises:
        AssertionError: a refused one took more than the limit.
    """
    most = {"refused": 0.0, "accepted": 0.0}
    tracemalloc.start()
    for each in inputs(count, seed, WIDE):
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        try:
            decode(each.data, each.target.expected)
            became = "accepted"
        except Refused:
            became = "refused"
        taken = tracemalloc.get_traced_memory()[1] - before
        most[became] = max(most[became], taken / each.target.expected.limit)
    tracemalloc.stop()
    assert most["refused"] <= 1, (
        f"{most['refused']:.2f} times the limit was allocated for a message that was refused"
    )
    return most


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fuzz_wire.json"))
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    fuzz(TRACED, arguments.seed + 1)  # so that what is loaded once does not count as growth
    resident, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    counts = fuzz(arguments.inputs, arguments.seed)
    seconds = time.perf_counter() - started
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident
    total = sum(counts.values(), Counter[str]())
    result = {
        "command": f"python -m tests.stress.fuzz_wire --inputs {arguments.inputs} --seed {arguments.seed}",
        "machine": machine(),
        "inputs": arguments.inputs,
        "seed": arguments.seed,
        "seconds": seconds,
        "accepted": total.pop(ACCEPTED),
        "refused": dict(total.most_common()),
        "message_and_limit_bytes": {
            each.name: [len(each.messages[0]), each.expected.limit] for each in targets(NARROW)
        },
        "peak_allocated_over_limit": {"inputs": TRACED, **peaks(TRACED, arguments.seed)},
        "resident_growth_kilobytes": growth,
        "by_mutation": {name: dict(counter.most_common()) for name, counter in counts.items()},
    }
    for name, counter in counts.items():
        print(f"{name:<14}", ", ".join(f"{reason} {count:,}" for reason, count in counter.most_common()))
    print(
        f"{arguments.inputs:,} inputs in {seconds:.0f} s, {result['accepted']:,} accepted, all others refused"
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{arguments.out}")


if __name__ == "__main__":
    main()
