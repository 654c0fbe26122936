"""Values in keys: vectors, order, and interleaving there and back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exo_stream.reduce.key_values import (
    bit_places,
    bits_between,
    decode_ordered,
    encode_ordered,
    interleave,
)
from exo_stream.reduce.scalar import InvalidReduceError, Kind, Scalar, integer_bounds

INTEGER_KINDS = [
    Kind.INT64,
    Kind.UINT64,
    Kind.DATE32,
    Kind.DATE64,
    Kind.TIMESTAMP,
    Kind.DECIMAL128,
    Kind.DECIMAL256,
]


def ordered(value: int) -> bytes:
    return encode_ordered(Scalar(Kind.INT64, value))


@pytest.mark.parametrize(
    ("fields", "woven"),
    [
        (["ff", "00"], "aaaa"),
        (["0f00", "f0"], "55aa00"),
        ([ordered(2).hex(), ordered(1).hex()], "c0000000000000000000000000000009"),
        (["80010203", "aabb", "cc"], "e5065045470203"),
        (["", "ff"], "ff"),
        ([], ""),
    ],
)
def test_bits_are_interleaved_as_the_exoware_store_has_them(fields: list[str], woven: str) -> None:
    assert interleave([bytes.fromhex(field) for field in fields]).hex() == woven


@settings(max_examples=25)
@given(st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=4))
def test_what_is_interleaved_is_found_again(fields: list[bytes]) -> None:
    woven = interleave(fields)
    widths = [len(field) for field in fields]

    for position, field in enumerate(fields):
        bits = [bits_between(woven, place, 1) for place in bit_places(widths, position)]
        assert "".join(map(str, bits)) == format(
            int.from_bytes(field, "big"), f"0{8 * len(field)}b"
        )


def test_bits_past_the_end_are_none() -> None:
    assert bits_between(b"\xf0", 0, 4) == 0xF
    assert bits_between(b"\xf0", 4, 4) == 0
    assert bits_between(b"\xf0", 4, 5) is None
    assert bits_between(b"", 0, 0) == 0


@pytest.mark.parametrize("kind", INTEGER_KINDS)
@settings(max_examples=25)
@given(data=st.data())
def test_the_order_of_bytes_is_the_order_of_integers(kind: Kind, data: st.DataObject) -> None:
    low, high = integer_bounds(kind)
    numbers = st.integers(low, high) | st.sampled_from([low, high])
    one, other = data.draw(numbers), data.draw(numbers)
    encoded = [encode_ordered(Scalar(kind, number)) for number in (one, other)]

    assert (encoded[0] < encoded[1]) == (one < other)
    assert decode_ordered(kind, encoded[0]) == one


@settings(max_examples=25)
@given(st.floats(), st.floats())
def test_the_order_of_bytes_is_the_order_of_floats(one: float, other: float) -> None:
    encoded = [encode_ordered(Scalar(Kind.FLOAT64, number)) for number in (one, other)]

    if one < other:
        assert encoded[0] < encoded[1]
    assert repr(decode_ordered(Kind.FLOAT64, encoded[0])) == repr(one)


def test_other_kinds_in_keys() -> None:
    assert encode_ordered(Scalar(Kind.BOOLEAN, True)) == b"\x01"
    assert decode_ordered(Kind.BOOLEAN, b"\x02") is True
    assert encode_ordered(Scalar(Kind.FIXED_SIZE_BINARY, b"ab")) == b"ab"
    assert decode_ordered(Kind.FIXED_SIZE_BINARY, b"ab") == b"ab"
    assert encode_ordered(Scalar(Kind.UTF8, "é")) == "é".encode().ljust(16, b"\x00")
    assert decode_ordered(Kind.UTF8, b"ab\x00c") == "ab"
    assert decode_ordered(Kind.UTF8, b"\xff\x00") is None
    assert math.isnan(float(decode_ordered(Kind.FLOAT64, b"\xff" * 8) or 0))


@pytest.mark.parametrize(
    "scalar",
    [
        Scalar(Kind.UTF8, "x" * 17),
        Scalar(Kind.UTF8, "a\x00"),
        Scalar(Kind.UTF8, "\ud800"),
        Scalar(Kind.INT64, 1 << 63),
        Scalar(Kind.INT64, True),
        Scalar(Kind.FLOAT64, 1),
        Scalar(Kind.FIXED_SIZE_BINARY, b"x" * 256),
    ],
)
def test_what_cannot_stand_in_a_key_is_refused(scalar: Scalar) -> None:
    with pytest.raises(InvalidReduceError):
        encode_ordered(scalar)
