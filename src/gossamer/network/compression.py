"""The numbers of a message as bytes: as they are, in half the bits, or in a quarter of them.

What compression takes from one message is added to the next (error feedback: Seide et al. 2014; Karimireddy et al.
2019). Nothing here knows of headers, or of who sends what to whom.

Leaves stand one after another without gaps, little-endian, each in C order. Under none they keep their own types, which
the schema pins. The others compress float32, and nothing else: float16 and bfloat16 leaves are as small already, and
float64 says that rounding matters. Under int8 a leaf is q ∈ [-127, 127] with one scale s, for s · q; s is a float32 in
front of the leaf's bytes.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

import ml_dtypes
import numpy as np

from gossamer.errors import InputError, require_choice
from gossamer.network.schema import Schema, name_of

Compression: TypeAlias = Literal["none", "float16", "bfloat16", "int8"]

COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)


class NotFinite(ValueError):
    """Bytes hold a value, or a scale, that is no number which a sender gives."""


def payload_bytes(schema: Schema, kind: Compression) -> int:
    """Exact length of a message's numbers on the wire, in bytes.

    Raises:
        InputError: as ``require_compressible``.

    Example:
        >>> schema = Schema.of([np.zeros((10, 10), np.float32), np.zeros((), np.float32)])
        >>> {kind: payload_bytes(schema, kind) for kind in COMPRESSIONS}
        {'none': 404, 'float16': 202, 'bfloat16': 202, 'int8': 109}
    """
    require_compressible(schema, kind)
    scales = _FLOAT32.itemsize * len(schema.sizes) if kind == "int8" else 0
    types = _types(schema, kind)
    return scales + sum(size * dtype.itemsize for size, dtype in zip(schema.sizes, types, strict=True))


def require_compressible(schema: Schema, kind: Compression) -> None:
    """Refuse an unknown compression, and one of leaves that are not float32.

    Raises:
        InputError: it is refused.
    """
    require_choice("compression", kind, COMPRESSIONS)
    for path, dtype in zip(schema.paths, schema.dtypes, strict=True):
        if kind != "none" and dtype != np.float32:
            raise InputError(
                f"compression is {kind!r} and {name_of(path)} is {dtype.name}; "
                "it must be 'none', or all leaves float32"
            )


class Compressor:
    """Makes bytes of the messages of one sender, each with what compression took from those before it.

    It sends C(x + e) and keeps e ← (x + e) − C(x + e), so that all that was sent and e sum to all that was to be sent.
    e is that of a message which everybody received; one that is lost on its way is lost here too. Under none there is
    no e, and the bytes are those of the leaves themselves.

    Args:
        kind: the compression C.
        schema: of the messages.

    Raises:
        InputError: the schema has leaves that ``kind`` does not compress.

    Example:
        >>> compressor = Compressor("int8", Schema.of(np.zeros(2, np.float32)))
        >>> message = [np.array([254.0, 0.75], np.float32)]
        >>> scale, values = compressor.compress(message)
        >>> scale.tobytes() == np.float32(2).tobytes(), list(values.cast("b")), compressor.residual
        (True, [127, 0], [array([0.  , 0.75], dtype=float32)])
        >>> scale, values = compressor.compress(message)
        >>> list(values.cast("b")), compressor.residual
        ([127, 1], [array([ 0. , -0.5], dtype=float32)])
    """

    def __init__(self, kind: Compression, schema: Schema):
        require_compressible(schema, kind)
        self._kind: Compression = kind
        self._schema = schema
        # Flat, since a sum of arrays without axes is no array.
        self._residual = [] if kind == "none" else [np.zeros(size, np.float32) for size in schema.sizes]

    @property
    def residual(self) -> list[np.ndarray]:
        """e, leaf by leaf: what is still to be sent. Nothing under none."""
        if self._kind == "none":
            return []
        shapes = self._schema.shapes
        return [kept.reshape(shape).copy() for kept, shape in zip(self._residual, shapes, strict=True)]

    def compress(self, leaves: Sequence[np.ndarray]) -> list[memoryview]:
        """The bytes of one message, in pieces that belong one after another.

        Under none they share the memory of the leaves.

        Raises:
            InputError: the leaves are not of the schema, hold NaN or infinity, or are too large for the compression
                (above 65504 for float16, about 3.4e38 for the others). Nothing is kept of such a message.
        """
        self._schema.require_leaves(leaves)
        if self._kind == "none":
            self._require_held(leaves)
            return [_to_wire(leaf) for leaf in leaves]
        with np.errstate(over="ignore"):  # infinity is refused just below, and says which leaf
            totals = [leaf.reshape(-1) + kept for leaf, kept in zip(leaves, self._residual, strict=True)]
        self._require_held(totals)
        packed = [_pack(total, self._kind) for total in totals]
        self._residual = [total - _unpack(each, _FLOAT32) for total, each in zip(totals, packed, strict=True)]
        return [part for each in packed for part in _parts(each)]

    def _require_held(self, leaves: Sequence[np.ndarray]) -> None:
        for path, leaf in zip(self._schema.paths, leaves, strict=True):
            if self._kind == "none" and np.isfinite(leaf).all():
                continue  # it fits, and to look for the largest takes three times as long
            value, most = _largest(leaf), _most(leaf.dtype, self._kind)
            if not np.isfinite(value):
                raise InputError(f"{name_of(path)} holds {value}; a message holds finite numbers only")
            if abs(value) > most:
                others = "'bfloat16', 'int8' or 'none'" if self._kind == "float16" else "'none'"
                raise InputError(
                    f"{name_of(path)} holds {value:.9g}, and compression {self._kind!r} holds at most {most:.6g}; "
                    f"choose {others}"
                )


def decompress(payload: memoryview, schema: Schema, kind: Compression) -> list[np.ndarray]:
    """The leaves whose bytes these are, read-only; without a copy where none is needed.

    All values are looked at before the first array larger than its bytes is made.

    Args:
        payload: ``payload_bytes(schema, kind)`` bytes, which must not change as long as the leaves are in use.
        schema: of the leaves.
        kind: how they were compressed.

    Raises:
        NotFinite: a value is NaN or infinite, or a scale is, or it is below 0, or it makes a value infinite.

    Example:
        >>> schema = Schema.of({"w": np.zeros(2, np.float32)})
        >>> decompress(memoryview(np.array([1.5, -2.0], np.float16).tobytes()), schema, "float16")
        [array([ 1.5, -2. ], dtype=float32)]
    """
    packed = _split(payload, schema, kind)
    for path, each in zip(schema.paths, packed, strict=True):
        _require_finite(path, each)
    leaves = [
        _unpack(each, dtype).reshape(shape)
        for each, dtype, shape in zip(packed, schema.dtypes, schema.shapes, strict=True)
    ]
    for leaf in leaves:
        leaf.flags.writeable = False
    return leaves


class _Packed(NamedTuple):
    """A leaf on the wire, flat."""

    values: np.ndarray
    scale: np.float32 | None  # that of int8


_FLOAT32 = np.dtype(np.float32)
_NARROW = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int8": np.dtype(np.int8),
}
_INT8_MOST = 127
# A little below float32's own limit: rounding s may lift 127 · s above max|x|.
_LARGEST_SCALED = 3.4e38


def _types(schema: Schema, kind: Compression) -> tuple[np.dtype, ...]:
    """Of the values of each leaf on the wire."""
    return schema.dtypes if kind == "none" else (_NARROW[kind],) * len(schema.dtypes)


def _most(dtype: np.dtype, kind: Compression) -> float:
    """The largest magnitude that survives."""
    return _LARGEST_SCALED if kind == "int8" else float(ml_dtypes.finfo(_NARROW.get(kind, dtype)).max)


def _largest(leaf: np.ndarray) -> float:
    """The value of the largest magnitude, 0 of an empty leaf, NaN if there is one."""
    with np.errstate(invalid="ignore"):  # a signalling NaN
        low, high = float(leaf.min(initial=0)), float(leaf.max(initial=0))
    return high if high >= -low else low


def _pack(total: np.ndarray, kind: Compression) -> _Packed:
    if kind != "int8":
        return _Packed(total.astype(_NARROW[kind]), None)
    scale = np.float32(abs(_largest(total)) / _INT8_MOST)
    if scale == 0:  # all is 0, or too small for a float32 to scale
        return _Packed(np.zeros(total.shape, np.int8), scale)
    # The smallest scales are rounded by up to a half, so that the quotient may exceed the range.
    values = np.clip(np.rint(total / scale), -_INT8_MOST, _INT8_MOST)
    return _Packed(values.astype(np.int8), scale)


def _unpack(packed: _Packed, dtype: np.dtype) -> np.ndarray:
    """What the receiver reads."""
    values = packed.values
    if packed.scale is not None:
        return np.multiply(values, packed.scale, dtype=dtype)
    if values.dtype != dtype:
        return values.astype(dtype)
    return values if values.flags.aligned else values.copy()


def _parts(packed: _Packed) -> list[memoryview]:
    scale = [] if packed.scale is None else [_to_wire(np.array(packed.scale))]
    return [*scale, _to_wire(packed.values)]


def _split(payload: memoryview, schema: Schema, kind: Compression) -> list[_Packed]:
    """Views of the leaves' bytes."""
    found, offset = [], 0
    for size, dtype in zip(schema.sizes, _types(schema, kind), strict=True):
        scale = None
        if kind == "int8":
            scale = _from_wire(payload, _FLOAT32, 1, offset)[0]
            offset += _FLOAT32.itemsize
        found.append(_Packed(_from_wire(payload, dtype, size, offset), scale))
        offset += size * dtype.itemsize
    return found


def _require_finite(path: str, packed: _Packed) -> None:
    if packed.scale is not None:
        most = max(int(packed.values.max(initial=0)), -int(packed.values.min(initial=0)), _INT8_MOST)
        # In float64, in which the product is exact.
        if not 0 <= float(packed.scale) * most <= float(np.finfo(np.float32).max):
            raise NotFinite(
                f"the scale of {name_of(path)} is {packed.scale}; it must be a finite number, 0 or above, "
                "by which no value becomes infinite"
            )
        return
    with np.errstate(invalid="ignore"):  # a signalling NaN
        finite = np.isfinite(packed.values).all()
    if not finite:
        raise NotFinite(f"{name_of(path)} holds NaN or infinity; a message holds finite numbers only")


def _to_wire(values: np.ndarray) -> memoryview:
    """The same bits as little-endian integers: a buffer of bfloat16 there is not."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return flat.view(f"u{flat.itemsize}").astype(f"<u{flat.itemsize}", copy=False).view(np.uint8).data


def _from_wire(payload: memoryview, dtype: np.dtype, count: int, offset: int) -> np.ndarray:
    bits = np.frombuffer(payload, f"<u{dtype.itemsize}", count, offset)
    return bits.astype(f"u{dtype.itemsize}", copy=False).view(dtype)
