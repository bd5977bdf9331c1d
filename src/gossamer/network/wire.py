"""Messages as bytes: a header that says what is sent by whom, and the numbers. All other bytes are refused.

Bytes come from anybody. They are looked at and never run: there is no pickle, and no type, shape or length is believed
because a message says so. Who may speak under a name, and what was heard before, is decided where messages arrive.

The header is 88 bytes, little-endian, so that what follows it is aligned:

    bytes    field
    0-3      "GSMR"
    4-5      protocol, 1
    6        type of the leaves: 1 float32, 2 float64, 3 float16, 4 bfloat16, 0 where they differ or there are none
    7        compression: 0 none, 1 float16, 2 bfloat16, 3 int8
    8        kind: 1 parameters, 2 farewell
    9-15     reserved, 0
    16-31    run
    32-47    digest of the schema
    48-55    incarnation
    56-63    version
    64-71    seconds since 1970, float64
    72-79    length of what follows the header, in bytes
    80-83    sender
    84-87    lower half of XXH3-64 of all the header before it, four zeros, and what follows the header
"""

import enum
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from gossamer.errors import InputError, require_at_least, require_choice, require_non_negative, require_within
from gossamer.network.compression import (
    COMPRESSIONS,
    Compression,
    NotFinite,
    decompress,
    payload_bytes,
)
from gossamer.network.schema import DTYPES, Schema

try:
    import xxhash
except ModuleNotFoundError as error:
    raise InputError("the network needs xxhash; install it with: pip install 'gossamer[network]'") from error

MAGIC = b"GSMR"
PROTOCOL = 1
RUN_BYTES = 16


class Kind(enum.IntEnum):
    """What a message is."""

    parameters = 1
    """The parameters of its sender."""
    farewell = 2
    """Nothing more will come; no numbers follow the header."""


class Reason(enum.StrEnum):
    """Why a message was refused; the last three are for those who know what came before."""

    oversized = "oversized"
    """More bytes than are ever looked at."""
    truncated = "truncated"
    """Fewer bytes than a header has, or than it declares."""
    not_ours = "not_ours"
    """It does not begin as our messages do."""
    protocol = "protocol"
    """Another version of this format."""
    length = "length"
    """More bytes than the header declares, or not as many as the schema and the compression take."""
    checksum = "checksum"
    """Damaged on its way."""
    run = "run"
    """Of another run."""
    kind = "kind"
    """Of a kind that does not exist."""
    schema = "schema"
    """Of other leaves."""
    dtype = "dtype"
    """Of leaves of another type."""
    compression = "compression"
    """Compressed otherwise."""
    out_of_range = "out_of_range"
    """A field of the header that no sender gives: version, time, or what is reserved."""
    not_finite = "not_finite"
    """A value is NaN or infinite, or the scale of values is one that no sender gives."""
    sender = "sender"
    """Not from whom it says."""
    incarnation = "incarnation"
    """From a process that another one has replaced."""
    replayed = "replayed"
    """Heard before, or older than what was heard."""


class Refused(Exception):
    """A message that is not used.

    Args:
        reason: the kind of fault.
        detail: one sentence: what was found, and what was expected.

    Example:
        >>> raise Refused(Reason.run, "the run is 00; it must be 01")
        Traceback (most recent call last):
        gossamer.network.wire.Refused: run: the run is 00; it must be 01
    """

    def __init__(self, reason: Reason, detail: str):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Header(NamedTuple):
    """What a message says of itself."""

    kind: Kind
    run: bytes
    """Whose population, 16 bytes."""
    sender: int
    """Number of the agent, in [0, 2³²)."""
    incarnation: int
    """Number of the process that speaks for the agent, in [0, 2⁶⁴): one that comes later has a higher one."""
    version: int
    """Updates that the sender had made, in [0, 2⁶³); at least 1 with parameters."""
    sent_at: float
    """Seconds since 1970 on the sender's clock, finite, at least 0."""


@dataclass(frozen=True)
class Expected:
    """The messages of a run: all others are refused.

    Raises:
        InputError: ``run`` is not 16 bytes long, the schema has leaves that the compression does not take, or ``limit``
            is below the length of the messages that are expected.

    Example:
        >>> schema = Schema.of({"w": np.zeros((2, 3), np.float32)})
        >>> Expected(run=bytes(16), schema=schema, compression="none", limit=2**20).payload
        24
    """

    run: bytes
    schema: Schema
    compression: Compression
    limit: int
    """Largest message that is looked at, header included, in bytes."""

    def __post_init__(self) -> None:
        _require_run(self.run)
        require_choice("compression", self.compression, COMPRESSIONS)
        require_at_least("limit", self.limit, message_bytes(self.schema, self.compression))

    @cached_property
    def payload(self) -> int:
        """Length of what follows the header of a message with parameters, in bytes."""
        return payload_bytes(self.schema, self.compression)


def message_bytes(schema: Schema, compression: Compression) -> int:
    """Exact length of a message with parameters, header included, in bytes.

    Raises:
        InputError: the schema has leaves that the compression does not take.

    Example:
        >>> message_bytes(Schema.of(np.zeros(10, np.float32)), "int8")
        102
    """
    return _HEADER.size + payload_bytes(schema, compression)


def encode(
    header: Header, schema: Schema, compression: Compression, parts: Sequence[memoryview] = ()
) -> bytes:
    """A message. The bytes of header and leaves are allocated once.

    Args:
        header: what it says of itself.
        schema: of the run's messages; a farewell names it too.
        compression: of the run's messages.
        parts: what ``Compressor(compression, schema).compress`` gave; nothing with a farewell.

    Raises:
        InputError: a field of the header out of its range, or parts that are not as long as the schema, the compression
            and the kind take.

    Example:
        >>> from gossamer.network.compression import Compressor
        >>> schema = Schema.of({"w": np.zeros((2, 3), np.float32)})
        >>> parts = Compressor("none", schema).compress([np.ones((2, 3), np.float32)])
        >>> header = Header(Kind.parameters, bytes(16), sender=4, incarnation=1, version=7, sent_at=1.7e9)
        >>> data = encode(header, schema, "none", parts)
        >>> decode(data, Expected(bytes(16), schema, "none", limit=1000))[1]
        [array([[1., 1., 1.], [1., 1., 1.]], dtype=float32)]
    """
    _require_header(header)
    length, due = sum(part.nbytes for part in parts), _length_of(header.kind, schema, compression)
    if length != due:
        raise InputError(
            f"parts hold {length} bytes; a message of kind {header.kind.name} holds {due} of them"
        )
    fields = _Fields(
        magic=MAGIC,
        protocol=PROTOCOL,
        dtype=_dtype_code(schema),
        compression=COMPRESSIONS.index(compression),
        kind=header.kind,
        reserved=_RESERVED,
        run=header.run,
        schema=schema.digest,
        incarnation=header.incarnation,
        version=header.version,
        sent_at=header.sent_at,
        length=length,
        sender=header.sender,
        checksum=0,
    )
    checksum = _checksum(_HEADER.pack(*fields), *parts)
    return b"".join([_HEADER.pack(*fields[:-1], checksum), *parts])


def decode(data: bytes | memoryview, expected: Expected) -> tuple[Header, list[np.ndarray]]:
    """What a message says of itself, and its leaves, in the order of the schema; none of a farewell.

    Its size is looked at before anything else, and all of it before the first array larger than its bytes is made.

    Args:
        data: any bytes. They must not change as long as the leaves are in use, which share their memory where they can.
        expected: the messages that are accepted.

    Returns:
        The header, and read-only arrays of the schema's shapes and types, all values of which are finite.

    Raises:
        Refused: the message is not one that is expected. Nothing else is raised for any bytes.

    Example:
        >>> expected = Expected(bytes(16), Schema.of(np.zeros(2, np.float32)), "none", limit=1000)
        >>> decode(b"What is this?", expected)
        Traceback (most recent call last):
        gossamer.network.wire.Refused: truncated: the message has 13 bytes; its header alone has 88
    """
    size = memoryview(data).nbytes
    if size > expected.limit:
        raise Refused(
            Reason.oversized, f"the message has {size} bytes; at most {expected.limit} are accepted"
        )
    if size < _HEADER.size:
        raise Refused(Reason.truncated, f"the message has {size} bytes; its header alone has {_HEADER.size}")
    view = memoryview(data).cast("B")
    fields = _Fields._make(_HEADER.unpack_from(view))
    _refuse_foreign(fields)
    _refuse_wrong_length(fields, size - _HEADER.size, expected)
    _refuse_damaged(fields, view)
    _refuse_unexpected(fields, expected)
    _refuse_out_of_range(fields)
    kind = Kind(fields.kind)
    header = Header(kind, fields.run, fields.sender, fields.incarnation, fields.version, fields.sent_at)
    if kind is Kind.farewell:
        return header, []
    try:
        return header, decompress(view[_HEADER.size :], expected.schema, expected.compression)
    except NotFinite as fault:
        raise Refused(Reason.not_finite, str(fault)) from None


class _Fields(NamedTuple):
    """The header as it stands in the bytes; whatever it says."""

    magic: bytes
    protocol: int
    dtype: int
    compression: int
    kind: int
    reserved: bytes
    run: bytes
    schema: bytes
    incarnation: int
    version: int
    sent_at: float
    length: int
    sender: int
    checksum: int


_HEADER = struct.Struct("<4sHBBB7s16s16sQQdQII")
_CHECKSUM = struct.Struct("<I")
_RESERVED = bytes(7)
_MIXED = 0
_DTYPE_CODES = {dtype: code for code, dtype in enumerate(DTYPES.values(), start=_MIXED + 1)}
_VERSIONS = 2**63  # those that an int64 can count


def _checksum(*pieces: bytes | memoryview) -> int:
    """Against damage, not against forgery. A CRC-32 takes nearly twenty times as long."""
    digest = xxhash.xxh3_64()
    for piece in pieces:
        digest.update(piece)
    return digest.intdigest() & 0xFFFFFFFF


def _dtype_code(schema: Schema) -> int:
    types = set(schema.dtypes)
    return _DTYPE_CODES[types.pop()] if len(types) == 1 else _MIXED


def _length_of(kind: int, schema: Schema, compression: Compression) -> int:
    return 0 if kind == Kind.farewell else payload_bytes(schema, compression)


def _least_version(kind: int) -> int:
    return 1 if kind == Kind.parameters else 0


def _require_run(run: bytes) -> None:
    if len(run) != RUN_BYTES:
        raise InputError(f"run has {len(run)} bytes; it must have {RUN_BYTES}")


def _require_header(header: Header) -> None:
    _require_run(header.run)
    require_within("sender", header.sender, 0, 2**32 - 1)
    require_within("incarnation", header.incarnation, 0, 2**64 - 1)
    require_within("version", header.version, _least_version(header.kind), _VERSIONS - 1)
    require_non_negative("sent_at", header.sent_at)


def _refuse_foreign(fields: _Fields) -> None:
    if fields.magic != MAGIC:
        raise Refused(Reason.not_ours, f"the message begins with {fields.magic!r}; it must be {MAGIC!r}")
    if fields.protocol != PROTOCOL:
        raise Refused(Reason.protocol, f"the protocol is {fields.protocol}; it must be {PROTOCOL}")


def _refuse_wrong_length(fields: _Fields, actual: int, expected: Expected) -> None:
    if actual != fields.length:
        raise Refused(
            Reason.truncated if actual < fields.length else Reason.length,
            f"{actual} bytes follow the header; it declares {fields.length}",
        )
    due = _length_due(fields, expected)
    if due is not None and actual != due:
        raise Refused(Reason.length, f"{actual} bytes follow the header; they must be {due}")


def _length_due(fields: _Fields, expected: Expected) -> int | None:
    """What the schema and the compression take, if they are ours: others are refused later, and by their name."""
    if fields.kind == Kind.farewell:
        return 0
    ours = fields.schema == expected.schema.digest and fields.compression == COMPRESSIONS.index(
        expected.compression
    )
    return expected.payload if ours and fields.kind == Kind.parameters else None


def _refuse_damaged(fields: _Fields, view: memoryview) -> None:
    checksum = _checksum(view[: _HEADER.size - _CHECKSUM.size], bytes(_CHECKSUM.size), view[_HEADER.size :])
    if fields.checksum != checksum:
        raise Refused(
            Reason.checksum, f"the checksum is {fields.checksum:08x}; that of the bytes is {checksum:08x}"
        )


def _refuse_unexpected(fields: _Fields, expected: Expected) -> None:
    """A message may be sound, and not for us."""
    if fields.run != expected.run:
        raise Refused(Reason.run, f"the run is {fields.run.hex()}; it must be {expected.run.hex()}")
    if fields.kind not in tuple(Kind):
        raise Refused(Reason.kind, f"the kind is {fields.kind}; it must be 1 (parameters) or 2 (farewell)")
    digest = expected.schema.digest
    if fields.schema != digest:
        raise Refused(Reason.schema, f"the schema is {fields.schema.hex()}; it must be {digest.hex()}")
    dtype = _dtype_code(expected.schema)
    if fields.dtype != dtype:
        raise Refused(Reason.dtype, f"the type is number {fields.dtype}; it must be number {dtype}")
    compression = COMPRESSIONS.index(expected.compression)
    if fields.compression != compression:
        raise Refused(
            Reason.compression,
            f"the compression is number {fields.compression}; it must be number {compression}, "
            f"{expected.compression}",
        )


def _refuse_out_of_range(fields: _Fields) -> None:
    if fields.reserved != _RESERVED:
        raise Refused(Reason.out_of_range, f"reserved bytes are {fields.reserved.hex()}; they must be 0")
    least = _least_version(fields.kind)
    if not least <= fields.version < _VERSIONS:
        raise Refused(
            Reason.out_of_range, f"the version is {fields.version}; it must lie in [{least}, 2**63)"
        )
    if not 0 <= fields.sent_at < math.inf:
        raise Refused(
            Reason.out_of_range, f"it was sent at {fields.sent_at}; that must be a finite number, 0 or above"
        )
