"""Values in keys: bytes whose order is the order of the values, alone or with bits interleaved."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import cast

from exo_stream.reduce.kinds import width_of
from exo_stream.reduce.scalar import INTEGER_BITS, InvalidReduceError, Kind, Scalar, check_scalar

_SIGN64 = 1 << 63
_ALL64 = (1 << 64) - 1


def encode_ordered(scalar: Scalar) -> bytes:
    """The bytes of a value in a key.

    Raises InvalidReduceError for what is no such value, or a text that does not fit.
    """
    check_scalar(scalar, "value")
    kind, value = scalar.kind, scalar.value
    if kind in INTEGER_BITS:
        bits, signed = INTEGER_BITS[kind]
        # What check_scalar found it to be.
        number = cast("int", value) + (1 << bits - 1 if signed else 0)
        return number.to_bytes(bits // 8, "big")
    if isinstance(value, float):
        (number,) = struct.unpack(">Q", struct.pack(">d", value))
        return struct.pack(">Q", number ^ (_ALL64 if number & _SIGN64 else _SIGN64))
    if isinstance(value, bool):
        return bytes([value])
    if isinstance(value, bytes):
        return value
    text, width = str(value).encode(), width_of(kind, None)
    if len(text) > width or b"\x00" in text:
        raise InvalidReduceError("value", f"a utf8 in a key is at most {width} bytes, none of 0")
    return text.ljust(width, b"\x00")


def decode_ordered(kind: Kind, data: bytes) -> int | float | str | bytes | None:
    """The value that ``data``, of the kind's width, holds in a key; None if it is no value."""
    if kind in INTEGER_BITS:
        bits, signed = INTEGER_BITS[kind]
        return int.from_bytes(data, "big") - (1 << bits - 1 if signed else 0)
    if kind is Kind.FLOAT64:
        number = int.from_bytes(data, "big")
        number ^= _SIGN64 if number & _SIGN64 else _ALL64
        value: float
        (value,) = struct.unpack(">d", struct.pack(">Q", number))
        return value
    if kind is Kind.BOOLEAN:
        return data != b"\x00"
    if kind is Kind.FIXED_SIZE_BINARY:
        return data
    try:
        return data.partition(b"\x00")[0].decode()
    except UnicodeDecodeError:
        return None


def interleave(fields: Sequence[bytes]) -> bytes:
    """The bits of all fields in turn, the highest first; one that is used up is passed over."""
    bits = [_bits(field) for field in fields]
    longest = max(map(len, bits), default=0)
    turns = [column[at] for at in range(longest) for column in bits if at < len(column)]
    return _from_bits("".join(turns))


def bit_places(widths: Sequence[int], position: int) -> list[int]:
    """Where the bits of the field number ``position`` stand among the interleaved ones."""
    places: list[int] = []
    place = 0
    for at in range(8 * max(widths)):
        for index, width in enumerate(widths):
            if at < 8 * width:
                if index == position:
                    places.append(place)
                place += 1
    return places


def bits_between(key: bytes, start: int, count: int) -> int | None:
    """The ``count`` bits of ``key`` after the first ``start``; None if it is shorter."""
    past = 8 * len(key) - start - count
    if past < 0:
        return None
    return int.from_bytes(key, "big") >> past & (1 << count) - 1


def _bits(data: bytes) -> str:
    return format(int.from_bytes(data, "big"), f"0{8 * len(data)}b") if data else ""


def _from_bits(bits: str) -> bytes:
    return int(bits, 2).to_bytes(len(bits) // 8, "big") if bits else b""
