"""Messages survive their way to the bit, or as compression promises; whatever is no message is refused."""

import ast
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.stress import fuzz_wire

from gossamer.errors import InputError
from gossamer.network import compression, schema, wire
from gossamer.network.compression import COMPRESSIONS, Compressor, decompress, payload_bytes
from gossamer.network.schema import DTYPES, Schema
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

RUN = bytes.fromhex("000102030405060708090a0b0c0d0e0f")
PLAIN = {"b": np.array([1.0, -2.0], np.float32), "w": np.arange(6, dtype=np.float32).reshape(2, 3)}
HEADER_BYTES = 88
NAN_BITS = {"float16": 0x7C01, "bfloat16": 0x7F81, "float32": 0x7F800001, "float64": 0x7FF0000000000001}

steady = settings(
    deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
over_compressions = pytest.mark.parametrize("kind", COMPRESSIONS)
over_lossy = pytest.mark.parametrize("kind", COMPRESSIONS[1:])


class Pair(NamedTuple):
    actor: Any
    critic: Any


def header_of(kind=Kind.parameters, **fields):
    usual = {"run": RUN, "sender": 3, "incarnation": 5, "version": 7, "sent_at": 1.7e9}
    return Header(kind, **(usual | fields))


def expected_of(message, kind="none", limit=None):
    form = Schema.of(message)
    return Expected(RUN, form, kind, limit or message_bytes(form, kind) + 64)


def encoded(message, kind="none", **fields):
    form = Schema.of(message)
    return encode(header_of(**fields), form, kind, Compressor(kind, form).compress(form.leaves(message)))


def received(message, kind):
    """What arrives of a message that is the first of its sender."""
    return decode(encoded(message, kind), expected_of(message, kind))[1]


def repaired(data):
    body = bytes(data[:84]) + bytes(4) + bytes(data[88:])
    return body[:84] + struct.pack("<I", xxhash.xxh3_64_intdigest(body) & 0xFFFFFFFF) + body[88:]


def edited(data, offset, new, repair=True):
    changed = data[:offset] + new + data[offset + len(new) :]
    return repaired(changed) if repair else changed


def bits(leaf):
    return leaf.shape, leaf.dtype, leaf.tobytes()


def peak_of(call):
    """The most that a call allocated at once, in bytes."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    try:
        call()
    except Refused:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
    return peak


# --- any message survives -------------------------------------------------------------------------------------------


def any_bits(random, shape, dtype):
    """Finite numbers of all magnitudes alike, both zeros and subnormal ones among them."""
    size = int(np.prod(shape))
    leaf = np.frombuffer(random.bytes(size * dtype.itemsize), dtype)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        leaf = np.where(np.isfinite(leaf), leaf, np.zeros((), dtype))
    return np.where(random.random(size) < 0.1, -np.zeros((), dtype), leaf).reshape(shape)


def moderate(random, shape, dtype):
    """Numbers that every compression holds, with their residuals, and many that are equal or 0."""
    leaf = random.normal(size=shape) * 10.0 ** random.integers(-6, 4)
    return np.asarray(leaf * (random.random(shape) < 0.8)).astype(dtype)


ALL_TYPES = tuple(DTYPES.values())


@st.composite
def messages(draw, numbers=any_bits, dtypes=ALL_TYPES):
    """Trees of all kinds of containers; shapes without axes and without elements too."""
    shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
    leaves = st.tuples(shapes, st.sampled_from(dtypes), st.integers(0, 2**32)).map(
        lambda each: numbers(np.random.default_rng(each[2]), *each[:2])
    )
    return draw(
        st.recursive(
            leaves,
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=3), inner, max_size=3)
                | st.builds(Pair, inner, inner)
            ),
            max_leaves=6,
        )
    )


floats32 = messages(moderate, (np.dtype(np.float32),))


@steady
@given(messages())
def test_any_message_survives_to_the_bit_and_is_read_only(message):
    expected = expected_of(message)
    header, leaves = decode(encoded(message), expected)
    assert header == header_of()
    assert not any(leaf.flags.writeable for leaf in leaves)
    after = expected.schema.tree(leaves)
    assert jax.tree.structure(after) == jax.tree.structure(message)
    assert list(map(bits, jax.tree.leaves(after))) == list(map(bits, jax.tree.leaves(message)))


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@steady
@given(message=floats32)
def test_half_the_bits_are_the_nearest_of_that_type(kind, message):
    for before, after in zip(jax.tree.leaves(message), received(message, kind), strict=True):
        assert bits(after) == bits(np.asarray(before + 0.0).astype(kind).astype(np.float32))


@steady
@given(message=floats32)
def test_int8_is_within_half_a_step_of_which_the_largest_is_127(message):
    for before, after in zip(jax.tree.leaves(message), received(message, "int8"), strict=True):
        largest = np.abs(before).max(initial=0)
        # half a step, and the rounding of float32
        assert np.abs(after - before).max(initial=0) <= largest / 127 * (0.5 + 1e-4)
        assert np.abs(after).max(initial=0) == pytest.approx(largest, rel=1e-6)
        assert (after.shape, after.dtype, after.flags.writeable) == (before.shape, np.float32, False)


@over_compressions
@steady
@given(message=floats32)
def test_a_message_is_as_long_as_was_said_before(kind, message):
    form = Schema.of(message)
    size, leaves = form.size, len(form.paths)
    due = {"none": 4 * size, "float16": 2 * size, "bfloat16": 2 * size, "int8": size + 4 * leaves}[kind]
    assert payload_bytes(form, kind) == due
    assert message_bytes(form, kind) == len(encoded(message, kind)) == HEADER_BYTES + due


def test_a_farewell_is_a_header_alone():
    expected = expected_of(PLAIN, "int8")
    header = header_of(Kind.farewell, version=0)
    data = encode(header, expected.schema, "int8")
    assert len(data) == HEADER_BYTES
    assert decode(data, expected) == (header, [])


@pytest.mark.parametrize("kind", ["none", "int8"])
def test_the_same_bytes_are_read_wherever_they_lie(kind):
    message = (
        {"half": np.ones(3, np.float16), "single": np.arange(4, dtype=np.float32)}
        if kind == "none"
        else PLAIN
    )
    data, expected = encoded(message, kind), expected_of(message, kind)
    for shift in range(8):
        holder = bytearray(shift) + data
        header, leaves = decode(memoryview(holder)[shift:], expected)
        assert header == header_of()
        assert list(map(bits, leaves)) == list(map(bits, decode(data, expected)[1]))
        assert all(leaf.flags.aligned and not leaf.flags.writeable for leaf in leaves)
        del leaves


def test_numbers_that_were_not_compressed_are_copied_once_and_read_in_place():
    message = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
    form = Schema.of(message)
    (part,) = Compressor("none", form).compress([message])
    assert np.shares_memory(np.frombuffer(part, np.float32), message)
    assert peak_of(lambda: encode(header_of(), form, "none", [part])) < message_bytes(form, "none") + 10_000
    data = encode(header_of(), form, "none", [part])
    (leaf,) = decode(data, expected_of(message))[1]
    assert np.shares_memory(leaf, np.frombuffer(data, np.uint8))


# --- error feedback -------------------------------------------------------------------------------------------------


@over_lossy
@steady
@given(first=floats32, seeds=st.lists(st.integers(0, 2**32), min_size=1, max_size=6))
def test_what_was_sent_and_the_residual_sum_to_what_was_to_be_sent(kind, first, seeds):
    form = Schema.of(first)
    compressor, sent, due = Compressor(kind, form), 0.0, 0.0
    for seed in seeds:
        random = np.random.default_rng(seed)
        leaves = [moderate(random, shape, np.float32) for shape in form.shapes]
        payload = memoryview(b"".join(compressor.compress(leaves)))
        arrived = decompress(payload, form, kind)
        sent = sent + np.concatenate([np.zeros(0), *map(np.ravel, arrived)])
        due = due + np.concatenate([np.zeros(0), *map(np.ravel, leaves)])
    kept = np.concatenate([np.zeros(0), *map(np.ravel, compressor.residual)])
    assert [leaf.shape for leaf in compressor.residual] == list(form.shapes)
    # float32 rounding of x + e, once for each message
    np.testing.assert_allclose(sent + kept, due, rtol=1e-5, atol=1e-6 * np.abs(due).max(initial=1e-3))


@over_lossy
def test_the_mean_of_many_messages_of_one_value_is_that_value(kind):
    value = np.random.default_rng(0).normal(size=200).astype(np.float32)
    form = Schema.of(value)
    step = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "int8": 1 / 127}[kind] * np.abs(value).max()
    compressor, total, errors = Compressor(kind, form), np.zeros(200), {}
    for count in range(1, 1001):
        payload = memoryview(b"".join(compressor.compress([value])))
        total += decompress(payload, form, kind)[0]
        errors[count] = np.abs(total / count - value).max()
    for count, error in errors.items():
        assert error <= step / count + 1e-7  # and the rounding of float32
    assert errors[1] > 100 * errors[1000]


def test_int8_does_what_the_equations_say():
    """By hand: e = 0; C(3, 1, -0.5) under s = 3/127, then what is left is added."""
    value, scale = np.array([3.0, 1.0, -0.5], np.float32), np.float32(3 / 127)
    form = Schema.of(value)
    compressor = Compressor("int8", form)
    first, second = (b"".join(compressor.compress([value])) for _ in range(2))
    assert first == scale.tobytes() + bytes(np.array([127, 42, -21], np.int8))
    kept = value - scale * np.array([127, 42, -21], np.float32)
    total = value + kept
    again = np.float32(total.max() / 127)
    assert second == again.tobytes() + np.rint(total / again).astype(np.int8).tobytes()
    # 1/s = 42.33 and 42.67: what the first message had left out stands in the second.
    assert np.frombuffer(second, np.int8)[4:].tolist() == [127, 43, -21]


def test_nothing_and_next_to_nothing_are_sent_as_zero_and_kept():
    tiny = np.array([0.0, 1e-45, -4e-44], np.float32)
    form = Schema.of({"a": np.zeros(3, np.float32), "b": tiny})
    compressor = Compressor("int8", form)
    assert b"".join(compressor.compress([np.zeros(3, np.float32), tiny])) == bytes(2 * (4 + 3))
    np.testing.assert_array_equal(compressor.residual, [np.zeros(3), tiny])


def test_a_scale_that_is_rounded_down_overflows_nothing():
    value = np.array([190, -190, 1], np.float32) * np.float32(1e-45)
    (after,) = received(value, "int8")
    np.testing.assert_array_equal(after, np.array([127, -127, 1]) * np.float32(1e-45))


def test_a_compressor_without_compression_keeps_nothing():
    form = Schema.of(PLAIN)
    compressor = Compressor("none", form)
    compressor.compress(form.leaves(PLAIN))
    assert compressor.residual == []


# --- what a sender refuses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        ("float16", 7e4, r"leaf \['w'\] holds 70000, .* 'float16' holds at most 65504"),
        ("float16", -65505.0, r"leaf \['w'\] holds -65505, .* at most 65504"),
        ("bfloat16", 3.4e38, r"holds 3\.\d+e\+38, .* 'bfloat16' holds at most 3\.38953e\+38"),
        ("int8", -3.4028e38, r"holds -3\.\d+e\+38, .* 'int8' holds at most 3\.4e\+38"),
        *(
            (kind, np.nan, r"leaf \['w'\] holds nan; a message holds finite numbers only")
            for kind in COMPRESSIONS
        ),
        *((kind, -np.inf, r"leaf \['w'\] holds -inf; a message holds finite") for kind in COMPRESSIONS),
    ],
)
def test_a_value_that_does_not_survive_is_refused_and_leaves_no_trace(kind, value, says):
    form = Schema.of(PLAIN)
    compressor = Compressor(kind, form)
    compressor.compress(form.leaves(PLAIN))
    before = compressor.residual
    bad = PLAIN | {"w": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, value]], np.float32)}
    with pytest.raises(InputError, match=says):
        compressor.compress(form.leaves(bad))
    jax.tree.map(np.testing.assert_array_equal, before, compressor.residual)


@over_lossy
def test_the_largest_values_that_are_sent_are_also_received(kind):
    largest = {
        "float16": 65504.0,
        "bfloat16": float(ml_dtypes.finfo(ml_dtypes.bfloat16).max),
        "int8": 3.4e38,
    }[kind]
    value = np.array([largest, -largest, 1.0], np.float32)
    np.testing.assert_allclose(received(value, kind)[0][:2], value[:2], rtol=1e-6)


def test_a_residual_that_lifts_a_value_above_the_range_is_refused_and_not_sent_as_infinity():
    form = Schema.of(np.zeros(1, np.float32))
    compressor = Compressor("bfloat16", form)
    largest = np.float32(np.finfo(np.float32).max)
    for value in (largest, -largest):
        with pytest.raises(InputError, match=r"holds at most 3\.38953e"):
            compressor.compress([np.array([value])])


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@over_lossy
def test_only_float32_is_compressed(kind, dtype):
    form = Schema.of({"w": np.zeros(2, DTYPES[dtype])})
    says = rf"compression is '{kind}' and leaf \['w'\] is {dtype}; it must be 'none', or all leaves float32"
    for refuse in (
        lambda: Compressor(kind, form),
        lambda: payload_bytes(form, kind),
        lambda: Expected(RUN, form, kind, 1000),
    ):
        with pytest.raises(InputError, match=says):
            refuse()


@pytest.mark.parametrize(
    ("leaves", "says"),
    [
        ([PLAIN["b"]], "the message has 1 leaves"),
        ([PLAIN["b"], PLAIN["w"][0]], r"leaf \['w'\] is float32\[3\]"),
        ([PLAIN["b"].astype(np.float64), PLAIN["w"]], r"leaf \['b'\] is float64\[2\]"),
    ],
)
def test_leaves_of_another_schema_are_refused(leaves, says):
    form = Schema.of(PLAIN)
    for refuse in (Compressor("int8", form).compress, form.tree):
        with pytest.raises(InputError, match=says):
            refuse(leaves)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"run": b"short"}, "run has 5 bytes"),
        ({"sender": -1}, "sender is -1"),
        ({"sender": 2**32}, "sender is 4294967296"),
        ({"incarnation": 2**64}, "incarnation is 18446744073709551616"),
        ({"version": 0}, "version is 0"),
        ({"version": 2**63}, "version is 9223372036854775808"),
        ({"sent_at": float("nan")}, "sent_at is nan"),
        ({"sent_at": -1.0}, "sent_at is -1.0"),
    ],
)
def test_a_header_out_of_range_is_not_sent(fields, says):
    with pytest.raises(InputError, match=says):
        encoded(PLAIN, **fields)


def test_parts_of_another_length_are_not_sent():
    form = Schema.of(PLAIN)
    with pytest.raises(InputError, match="parts hold 0 bytes; a message of kind parameters holds 32"):
        encode(header_of(), form, "none")
    with pytest.raises(InputError, match="parts hold 32 bytes; a message of kind farewell holds 0"):
        encode(header_of(Kind.farewell), form, "none", Compressor("none", form).compress(form.leaves(PLAIN)))


@pytest.mark.parametrize(
    ("fields", "says"), [({"run": b""}, "run has 0 bytes"), ({"limit": 119}, "limit is 119")]
)
def test_what_is_expected_must_be_possible(fields, says):
    usual = {"run": RUN, "schema": Schema.of(PLAIN), "compression": "none", "limit": 120}
    assert Expected(**usual).payload == 32
    with pytest.raises(InputError, match=says):
        Expected(**(usual | fields))


def test_an_unknown_compression_is_refused():
    expected = expected_of(PLAIN)
    object.__setattr__(
        expected, "compression", "int16"
    )  # in tests the constructor itself refuses it, by its type
    with pytest.raises(
        InputError, match=r"^compression is 'int16'; it must be one of none, float16.*mean int8"
    ):
        expected.__post_init__()


# --- the header -----------------------------------------------------------------------------------------------------

GOLDEN = (
    "47534d52 0100 01 03 01 00000000000000 000102030405060708090a0b0c0d0e0f c0cddec80e7c29acafa40ec0679e8219"
    "0500000000000000 0700000000000000 00000040fc54d941 0a00000000000000 03000000"
)


def test_the_layout_is_what_it_was():
    message = {"w": np.array([[127, -127, 0], [1, 2, 3]], np.float32)}
    data = encoded(message, "int8")
    body = bytes.fromhex("0000803f 7f81 00 01 02 03")
    head = bytes.fromhex(GOLDEN)
    assert data[:84].hex(" ") == head.hex(" ")
    assert data[88:] == body
    assert data[84:88] == struct.pack("<I", xxhash.xxh3_64_intdigest(head + bytes(4) + body) & 0xFFFFFFFF)


VALID = encoded(PLAIN)

# One fault each, in the order of the checks: the reason, and what the detail says.
FAULTS = {
    "oversized": (VALID + bytes(65), "size", "has 185 bytes; at most 184 are accepted"),
    "no_bytes": (b"", "size", "has 0 bytes; its header alone has 88"),
    "part_of_a_header": (VALID[:87], "size", "has 87 bytes; its header alone has 88"),
    "other_magic": (edited(VALID, 0, b"RMSG"), "not_ours", "begins with b'RMSG'; it must be b'GSMR'"),
    "other_protocol": (edited(VALID, 4, b"\2\0"), "version", "the version of the format is 2; it must be 1"),
    "one_byte_missing": (VALID[:-1], "size", "31 bytes follow the header; it declares 32"),
    "declares_2_to_the_60": (
        edited(VALID, 72, struct.pack("<Q", 2**60)),
        "size",
        "declares 1152921504606846976",
    ),
    "one_byte_more": (
        VALID + b"\0",
        "size",
        "33 bytes follow the header; it declares 32",
    ),
    "declares_one_byte_less": (
        edited(VALID, 72, b"\x1f"),
        "size",
        "32 bytes follow the header; it declares 31",
    ),
    "longer_than_the_schema": (
        edited(VALID + bytes(4), 72, struct.pack("<Q", 36)),
        "size",
        "36 bytes follow the header; they must be 32",
    ),
    "shorter_than_the_schema": (edited(VALID[:-4], 72, struct.pack("<Q", 28)), "size", "they must be 32"),
    "farewell_with_numbers": (edited(VALID, 8, b"\2"), "size", "they must be 0"),
    "damaged_number": (edited(VALID, 100, b"\7", repair=False), "not_ours", "that of the bytes is"),
    "damaged_header": (edited(VALID, 56, b"\6", repair=False), "not_ours", "the checksum is"),
    "damaged_checksum": (edited(VALID, 84, bytes(4), repair=False), "not_ours", "the checksum is 00000000"),
    "other_run": (edited(VALID, 16, b"\xff"), "not_ours", "the run is ff01.*; it must be 0001"),
    "other_kind": (
        edited(VALID, 8, b"\3"),
        "not_ours",
        r"the kind is 3; it must be 1 \(parameters\) or 2 \(farewell\)",
    ),
    "other_schema": (edited(VALID, 32, bytes(16)), "schema", "the schema is 00000000.*; it must be"),
    "other_dtype": (edited(VALID, 6, b"\2"), "schema", "the type is number 2; it must be number 1"),
    "other_compression": (edited(VALID, 7, b"\1"), "schema", "is number 1; it must be number 0, none"),
    "no_compression": (edited(VALID, 7, b"\4"), "schema", "is number 4; it must be number 0, none"),
    "reserved": (
        edited(VALID, 15, b"\1"),
        "not_ours",
        "reserved bytes are 00000000000001; they must be 0",
    ),
    "version_0": (
        edited(VALID, 56, bytes(8)),
        "not_ours",
        r"the parameters' version is 0; it must be in \[1, 2\*\*63\)",
    ),
    "version_that_no_int64_counts": (
        edited(VALID, 56, struct.pack("<Q", 2**63)),
        "not_ours",
        "the parameters' version is 9223372036854775808",
    ),
    **{
        f"sent_at_{when}": (
            edited(VALID, 64, struct.pack("<d", when)),
            "not_ours",
            f"it was sent at {when}; ",
        )
        for when in (np.nan, np.inf, -np.inf, -1.0)
    },
    **{
        f"holds_{value}": (
            edited(VALID, 104, struct.pack("<f", value)),
            "not_finite",
            r"leaf \['w'\] holds NaN",
        )
        for value in (np.nan, np.inf, -np.inf)
    },
    "holds_nan_in_the_first": (
        edited(VALID, 88, struct.pack("<f", np.nan)),
        "not_finite",
        r"leaf \['b'\] holds",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_refused_for_its_reason(name):
    data, reason, says = FAULTS[name]
    expected = expected_of(PLAIN)
    assert decode(VALID, expected)[0] == header_of()
    with pytest.raises(Refused, match=rf"^{reason}: .*{says}") as refusal:
        decode(data, expected)
    assert refusal.value.reason is Reason(reason)
    assert str(refusal.value) == f"{reason}: {refusal.value.detail}"


def test_every_reason_that_decode_has_is_among_the_faults():
    assert {reason for _, reason, _ in FAULTS.values()} == fuzz_wire.REASONS
    assert set(Reason) - fuzz_wire.REASONS == {"sender", "stale"}


def test_faults_are_reported_in_the_order_of_the_checks():
    """A message in which every field is wrong is repaired field by field."""
    tiny, good = expected_of({"b": PLAIN["b"]}, limit=100), expected_of(PLAIN)
    wrong = bytearray(VALID)
    wrong[0:4], wrong[4:6], wrong[6], wrong[7], wrong[15] = b"RMSG", b"\2\0", 2, 9, 1
    wrong[16:32], wrong[32:48], wrong[72:80] = bytes(16), bytes(16), struct.pack("<Q", 2**60)
    wrong[8], wrong[100:104] = 3, struct.pack("<f", np.nan)

    def refused(says, expected=good):
        with pytest.raises(Refused, match=says):
            decode(bytes(wrong), expected)

    refused("size: the message has", tiny)
    for offset, size, says in (
        (0, 4, "not_ours: the message begins with"),
        (4, 2, "version: the version of the format"),
        (72, 8, "size: .* it declares"),
    ):
        refused(says)
        wrong[offset : offset + size] = VALID[offset : offset + size]
    refused("not_ours: the checksum")  # repaired from here on
    for offset, size, says in (
        (16, 16, "not_ours: the run"),
        (8, 1, "not_ours: the kind"),
        (32, 16, "schema: the schema"),
        (6, 1, "schema: the type"),
        (7, 1, "schema: the compression"),
        (15, 1, "not_ours: reserved bytes"),
    ):
        wrong = bytearray(repaired(wrong))
        refused(says)
        wrong[offset : offset + size] = VALID[offset : offset + size]
    wrong = bytearray(repaired(wrong))
    refused("not_finite: .* holds NaN")


def test_the_length_is_looked_at_before_the_checksum():
    short = edited(VALID[:-4], 72, struct.pack("<Q", 28), repair=False)
    with pytest.raises(Refused, match=r"^size: 28 bytes follow the header; they must be 32"):
        decode(short, expected_of(PLAIN))


def test_a_larger_network_is_refused_as_another_schema_and_not_for_its_length():
    theirs = PLAIN | {"w": np.zeros((2, 4), np.float32)}
    with pytest.raises(Refused, match=r"^schema"):
        decode(encoded(theirs), expected_of(PLAIN))


@pytest.mark.parametrize("name", NAN_BITS)
def test_a_signalling_nan_is_refused_without_a_warning(name):
    kind = "none" if name in ("float32", "float64") else name
    message = np.ones(3, np.float64 if name == "float64" else np.float32)
    size = DTYPES[name].itemsize
    data = edited(encoded(message, kind), HEADER_BYTES + size, NAN_BITS[name].to_bytes(size, "little"))
    with pytest.raises(Refused, match=r"^not_finite"):
        decode(data, expected_of(message, kind))


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, -1.0, -1e-45, 2.7e36, 3.4e38])
def test_a_scale_that_no_sender_gives_is_refused(scale):
    data = edited(encoded(PLAIN, "int8"), HEADER_BYTES + 6, struct.pack("<f", scale))
    with pytest.raises(
        Refused, match=r"^not_finite: the scale of leaf \['w'\] is .*; it must be a finite number"
    ):
        decode(data, expected_of(PLAIN, "int8"))


def test_a_scale_is_refused_if_only_minus_128_is_infinite_under_it():
    scale = np.float32(np.finfo(np.float32).max / 127.5)
    message = np.array([1.0, 1.0], np.float32)
    data = edited(encoded(message, "int8"), HEADER_BYTES, scale.tobytes())
    assert np.isfinite(decode(data, expected_of(message, "int8"))[1][0]).all()
    with pytest.raises(Refused, match=r"^not_finite"):
        decode(edited(data, HEADER_BYTES + 4, b"\x80"), expected_of(message, "int8"))


# --- whatever else comes --------------------------------------------------------------------------------------------


def test_the_limit_comes_first_and_nothing_is_allocated_for_what_is_refused():
    message = np.ones(1_000_000, np.float32)
    expected = expected_of(message, "int8", limit=2_000_000)
    data = encoded(message, "int8")
    assert peak_of(lambda: decode(data, expected)) >= 4_000_000
    faults = {
        "size: the message has": data + bytes(1_000_000),
        "not_ours: the message begins": edited(data, 0, b"?"),
        "size: .* it declares": edited(data, 72, struct.pack("<Q", 2**60)),
        "schema: the compression": edited(data, 7, b"\0"),
        "not_finite: ": edited(data, 88, struct.pack("<f", np.nan)),
    }
    for says, fault in faults.items():
        with pytest.raises(Refused, match=f"^{says}"):
            decode(fault, expected)
        assert peak_of(lambda fault=fault: decode(fault, expected)) < 10_000


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_a_fault_in_the_last_leaf_is_found_before_the_first_is_expanded(kind):
    message = [np.ones(1_000_000, np.float32), np.ones(1, np.float32)]
    expected = expected_of(message, kind)
    data = encoded(message, kind)
    bad = edited(data, len(data) - (2 if kind == "float16" else 5), b"\xff" * (2 if kind == "float16" else 4))
    with pytest.raises(Refused, match=r"^not_finite"):
        decode(bad, expected)
    assert peak_of(lambda: decode(bad, expected)) < expected.limit


@pytest.mark.parametrize("what", [PLAIN, "text", ["a"] * 100])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused(what, protocol):
    data = pickle.dumps(what, protocol)
    with pytest.raises(Refused, match=r"^(size|not_ours)"):
        decode(data, expected_of(PLAIN))
    with pytest.raises(Refused):
        decode(repaired(VALID[:88] + data), expected_of(PLAIN, limit=10_000))


def test_nothing_here_can_run_what_it_reads():
    for module in (compression, schema, wire):
        tree = ast.parse(Path(module.__file__).read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        imported = {
            name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in (
                [node.module] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            )
        }
        assert not imported & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "zenoh", "importlib"}
        assert not names & {"eval", "exec", "compile", "__import__"}


@over_compressions
@steady
@given(data=st.data())
def test_damage_with_a_repaired_checksum_is_refused_or_harmless(kind, data):
    message = data.draw(floats32)
    expected, valid = expected_of(message, kind), bytearray(encoded(message, kind))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(valid) - 1))
        valid[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    cut = data.draw(st.integers(HEADER_BYTES, len(valid)) | st.just(len(valid)))
    try:
        _, leaves = decode(repaired(valid[:cut]), expected)
    except Refused:
        return
    assert [leaf.shape for leaf in leaves] == list(expected.schema.shapes) or not leaves
    assert all(np.isfinite(leaf).all() for leaf in leaves)


@steady
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data):
    for start in (b"", VALID[:6], VALID[:88]):
        if start + data != VALID:
            with pytest.raises(Refused):
                decode(start + data, expected_of(PLAIN))


def test_random_and_damaged_messages_by_the_thousand():
    counts = fuzz_wire.fuzz(20_000, seed=1)
    assert sum(sum(counter.values()) for counter in counts.values()) == 20_000
    assert set(counts["nothing"]) == {fuzz_wire.ACCEPTED}
    assert set(counts["noise"]) <= {"not_ours", "size"}


def test_what_is_refused_takes_no_more_memory_than_the_limit():
    assert fuzz_wire.peaks(2_000, seed=1)["refused"] <= 1


# --- schemas --------------------------------------------------------------------------------------------------------


def test_a_schema_needs_shapes_and_types_only():
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), PLAIN)
    on_device = jax.tree.map(jnp.asarray, PLAIN)
    assert Schema.of(shapes) == Schema.of(PLAIN) == Schema.of(on_device)
    assert Schema.of(shapes).digest == Schema.of(PLAIN).digest


def test_leaves_of_the_device_come_to_the_host_as_they_are():
    form = Schema.of(PLAIN)
    leaves = form.leaves(jax.tree.map(jnp.asarray, PLAIN))
    assert all(type(leaf) is np.ndarray for leaf in leaves)
    jax.tree.map(np.testing.assert_array_equal, form.tree(leaves), PLAIN)


@pytest.mark.parametrize(
    "other",
    [
        {"b": PLAIN["b"]},
        {"b": PLAIN["b"], "v": PLAIN["w"]},
        {"b": PLAIN["b"], "w": PLAIN["w"].T},
        {"b": PLAIN["b"], "w": PLAIN["w"].astype(np.float64)},
        {"b": PLAIN["b"], "w": PLAIN["w"].astype(ml_dtypes.bfloat16)},
        Pair(PLAIN["b"], PLAIN["w"]),
        [],
    ],
)
def test_another_path_shape_or_type_has_another_digest(other):
    assert Schema.of(other).digest != Schema.of(PLAIN).digest
    assert len(Schema.of(other).digest) == 16
    with pytest.raises(Refused):
        decode(encoded(other), expected_of(PLAIN))


@pytest.mark.parametrize(
    ("leaf", "says"),
    [
        (np.zeros(2, np.int32), "int32"),
        (np.zeros(2, bool), "bool"),
        (np.zeros(2, np.complex64), "complex64"),
        (np.zeros(2, np.longdouble), "(float128|longdouble)"),
        (np.zeros(2, ml_dtypes.float8_e4m3), "float8_e4m3"),
        (np.zeros(2, object), "object"),
        (jax.random.key(0), "key<fry>"),
        (1.0, "float"),
        ("a", "str"),
    ],
)
def test_leaves_that_are_not_floating_are_refused(leaf, says):
    with pytest.raises(
        InputError, match=rf"^leaf \['x'\] is {says}; it must be an array of float32, float64"
    ):
        Schema.of({"x": leaf})


def test_a_message_of_another_structure_is_refused():
    with pytest.raises(InputError, match=r"the message is a tree .*; it must be"):
        Schema.of(PLAIN).leaves(list(PLAIN.values()))
    with pytest.raises(InputError, match="the message is float32"):
        Schema.of(np.zeros(2, np.float32)).leaves(np.zeros(3, np.float32))
