"""The wire format: a header that identifies a message, followed by raw numbers.

Bytes may come from anyone. They are parsed and never executed: there is no pickle, and a type, shape or length that a
message declares is compared with what the run expects before it is used. Whether a sender may use a name, and whether
a message is new, is decided by the receiver.

The header has 88 bytes, little-endian, so that the numbers behind it are aligned:

    bytes    field
    0-3      "GSMR"
    4-5      version of the format, 1
    6        type of the leaves: 1 float32, 2 float64, 3 float16, 4 bfloat16, 0 if they differ or there are none
    7        compression: 0 none, 1 float16, 2 bfloat16, 3 int8
    8        kind: 1 parameters, 2 farewell
    9-15     reserved, 0
    16-31    run
    32-47    digest of the schema
    48-55    incarnation
    56-63    version of the parameters
    64-71    seconds since 1970, float64
    72-79    length of the payload (what follows the header), in bytes
    80-83    sender
    84-87    lower half of XXH3-64 over the header up to here, four zeros, and the payload
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
    """Kinds of messages."""

    parameters = 1
    """The sender's parameters."""
    farewell = 2
    """The sender's last message; it has no payload."""


class Reason(enum.StrEnum):
    """Why a message was refused; the detail of ``Refused`` says which check failed."""

    not_ours = "not_ours"
    """Not an intact message of this run: other first bytes, checksum or run, or a header that no sender writes."""
    version = "version"
    """Another version of the wire format."""
    schema = "schema"
    """Leaves of another structure, type or compression."""
    size = "size"
    """Above the limit, or not as long as the header declares or the schema requires."""
    sender = "sender"
    """The header names another agent than the topic; only a receiver can tell."""
    stale = "stale"
    """From a process that was replaced, or not newer than what was received; only a receiver can tell."""
    not_finite = "not_finite"
    """A value is NaN or infinite, or the scale of an int8 leaf is one that no sender writes."""


class Refused(Exception):
    """A message that must not be used.

    Args:
        reason: the category, for counting.
        detail: what was found and what was expected, for the log.

    Example:
        >>> raise Refused(Reason.not_ours, "the run is 00; it must be 01")
        Traceback (most recent call last):
        gossamer.network.wire.Refused: not_ours: the run is 00; it must be 01
    """

    def __init__(self, reason: Reason, detail: str):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Header(NamedTuple):
    """What a message declares about itself."""

    kind: Kind
    run: bytes
    """Identifier of the run, 16 bytes."""
    sender: int
    """Number of the agent, in [0, 2³²)."""
    incarnation: int
    """Number of the agent's process, in [0, 2⁶⁴); higher for a later process."""
    version: int
    """Updates that the sender had made, in [0, 2⁶³); at least 1 with parameters."""
    sent_at: float
    """Seconds since 1970 on the sender's clock, finite, at least 0."""


@dataclass(frozen=True)
class Expected:
    """What ``decode`` accepts; everything else is refused.

    Raises:
        InputError: If ``run`` is not 16 bytes long, the compression does not support the schema's leaves, or ``limit``
            is smaller than a message of this schema.

    Example:
        >>> schema = Schema.of({"w": np.zeros((2, 3), np.float32)})
        >>> Expected(run=bytes(16), schema=schema, compression="none", limit=2**20).payload
        24
    """

    run: bytes
    schema: Schema
    compression: Compression
    limit: int
    """Largest accepted message, header included, in bytes."""

    def __post_init__(self) -> None:
        _require_run(self.run)
        require_choice("compression", self.compression, COMPRESSIONS)
        require_at_least("limit", self.limit, message_bytes(self.schema, self.compression))

    @cached_property
    def payload(self) -> int:
        """Length of the payload of a message with parameters, in bytes."""
        return payload_bytes(self.schema, self.compression)


def message_bytes(schema: Schema, compression: Compression) -> int:
    """Exact length of a message with parameters, header included, in bytes.

    Raises:
        InputError: If the compression does not support the schema's leaves.

    Example:
        >>> message_bytes(Schema.of(np.zeros(10, np.float32)), "int8")
        102
    """
    return _HEADER.size + payload_bytes(schema, compression)


def encode(
    header: Header, schema: Schema, compression: Compression, parts: Sequence[memoryview] = ()
) -> bytes:
    """Serialise a message, copying the payload once.

    Args:
        header: what the message declares about itself.
        schema: that of the run; a farewell carries its digest too.
        compression: that of the run.
        parts: result of ``Compressor(compression, schema).compress``; empty for a farewell.

    Raises:
        InputError: If a field of the header is out of range, or the parts do not have the length that the schema, the
            compression and the kind require.

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
    length, required = sum(part.nbytes for part in parts), _length_of(header.kind, schema, compression)
    if length != required:
        raise InputError(
            f"parts hold {length} bytes; a message of kind {header.kind.name} holds {required} of them"
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
    """Parse a message into its header and leaves, in the schema's order; a farewell has no leaves.

    The size is checked first, and all checks precede the first allocation that is larger than the message.

    Args:
        data: any bytes. They must not change while the leaves are in use, which share their memory where possible.
        expected: what is accepted.

    Returns:
        The header, and read-only arrays of the schema's shapes and types; all values are finite.

    Raises:
        Refused: If the message is not as expected. No input raises anything else.

    Example:
        >>> expected = Expected(bytes(16), Schema.of(np.zeros(2, np.float32)), "none", limit=1000)
        >>> decode(b"What is this?", expected)
        Traceback (most recent call last):
        gossamer.network.wire.Refused: size: the message has 13 bytes; its header alone has 88
    """
    size = memoryview(data).nbytes
    if size > expected.limit:
        raise Refused(Reason.size, f"the message has {size} bytes; at most {expected.limit} are accepted")
    if size < _HEADER.size:
        raise Refused(Reason.size, f"the message has {size} bytes; its header alone has {_HEADER.size}")
    view = memoryview(data).cast("B")
    fields = _Fields._make(_HEADER.unpack_from(view))
    _refuse_other_format(fields)
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
    """The header as it was sent, before any check."""

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
_VERSIONS = 2**63  # so that an int64 can hold every version


def _checksum(*pieces: bytes | memoryview) -> int:
    """Detect damage, not forgery. A CRC-32 takes nearly twenty times as long."""
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


def _refuse_other_format(fields: _Fields) -> None:
    if fields.magic != MAGIC:
        raise Refused(Reason.not_ours, f"the message begins with {fields.magic!r}; it must be {MAGIC!r}")
    if fields.protocol != PROTOCOL:
        raise Refused(
            Reason.version, f"the version of the format is {fields.protocol}; it must be {PROTOCOL}"
        )


def _refuse_wrong_length(fields: _Fields, actual: int, expected: Expected) -> None:
    if actual != fields.length:
        raise Refused(Reason.size, f"{actual} bytes follow the header; it declares {fields.length}")
    required = _required_length(fields, expected)
    if required is not None and actual != required:
        raise Refused(Reason.size, f"{actual} bytes follow the header; they must be {required}")


def _required_length(fields: _Fields, expected: Expected) -> int | None:
    """Payload length that schema and compression require; None if they are not ours, which a later check reports."""
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
            Reason.not_ours, f"the checksum is {fields.checksum:08x}; that of the bytes is {checksum:08x}"
        )


def _refuse_unexpected(fields: _Fields, expected: Expected) -> None:
    """Refuse an intact message of another run, kind or schema."""
    if fields.run != expected.run:
        raise Refused(Reason.not_ours, f"the run is {fields.run.hex()}; it must be {expected.run.hex()}")
    if fields.kind not in tuple(Kind):
        raise Refused(
            Reason.not_ours, f"the kind is {fields.kind}; it must be 1 (parameters) or 2 (farewell)"
        )
    digest = expected.schema.digest
    if fields.schema != digest:
        raise Refused(Reason.schema, f"the schema is {fields.schema.hex()}; it must be {digest.hex()}")
    dtype = _dtype_code(expected.schema)
    if fields.dtype != dtype:
        raise Refused(Reason.schema, f"the type is number {fields.dtype}; it must be number {dtype}")
    compression = COMPRESSIONS.index(expected.compression)
    if fields.compression != compression:
        raise Refused(
            Reason.schema,
            f"the compression is number {fields.compression}; it must be number {compression}, "
            f"{expected.compression}",
        )


def _refuse_out_of_range(fields: _Fields) -> None:
    """Refuse an intact header that ``encode`` would not write."""
    if fields.reserved != _RESERVED:
        raise Refused(Reason.not_ours, f"reserved bytes are {fields.reserved.hex()}; they must be 0")
    least = _least_version(fields.kind)
    if not least <= fields.version < _VERSIONS:
        raise Refused(
            Reason.not_ours, f"the parameters' version is {fields.version}; it must be in [{least}, 2**63)"
        )
    if not 0 <= fields.sent_at < math.inf:
        raise Refused(
            Reason.not_ours, f"it was sent at {fields.sent_at}; that must be a finite number, at least 0"
        )
