"""Scalars: one typed value, as a field holds it, a literal names it and a result gives it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from exo_stream.errors import InvalidRequestError


class InvalidReduceError(InvalidRequestError):
    """A reduce breaks a rule; ``field`` is the path of what breaks it.

    It crosses the wire as the ``invalid_request`` it is.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class Kind(IntEnum):
    """The type of a field's values, under the numbers of the Exoware store.

    ``DATE32`` counts days, ``DATE64`` milliseconds and ``TIMESTAMP`` microseconds since the Unix
    epoch; decimals are their unscaled integers.
    """

    INT64 = 0
    UINT64 = 1
    FLOAT64 = 2
    BOOLEAN = 3
    UTF8 = 4
    DATE32 = 5
    DATE64 = 6
    TIMESTAMP = 7
    DECIMAL128 = 8
    FIXED_SIZE_BINARY = 9
    DECIMAL256 = 10


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value and its kind: an int, but a float, bool, str or bytes where the kind says so."""

    kind: Kind
    value: int | float | str | bytes


INTEGER_BITS: Final = {
    Kind.INT64: (64, True),
    Kind.UINT64: (64, False),
    Kind.DATE32: (32, True),
    Kind.DATE64: (64, True),
    Kind.TIMESTAMP: (64, True),
    Kind.DECIMAL128: (128, True),
    Kind.DECIMAL256: (256, True),
}
"""The kinds whose values are integers: how wide, and whether signed."""

FIXED_SIZE_BINARY_BYTES_MAX: Final = 255

_TYPES: Final = {
    Kind.FLOAT64: float,
    Kind.BOOLEAN: bool,
    Kind.UTF8: str,
    Kind.FIXED_SIZE_BINARY: bytes,
}


def integer_bounds(kind: Kind) -> tuple[int, int]:
    """The least and the greatest value of an integer kind."""
    bits, signed = INTEGER_BITS[kind]
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def check_scalar(scalar: Scalar, field: str) -> None:
    """Raise InvalidReduceError if the value is none of its kind."""
    kind, value = scalar.kind, scalar.value
    if not isinstance(kind, Kind):
        raise InvalidReduceError(field, f"{shown(kind)} is no kind")
    if kind in INTEGER_BITS:
        low, high = integer_bounds(kind)
        if type(value) is not int or not low <= value <= high:
            raise InvalidReduceError(field, f"{shown(value)} is no {kind.name.lower()}")
        return
    if type(value) is not _TYPES[kind]:
        raise InvalidReduceError(field, f"{shown(value)} is no {kind.name.lower()}")
    if isinstance(value, bytes) and len(value) > FIXED_SIZE_BINARY_BYTES_MAX:
        raise InvalidReduceError(
            field, f"a fixed_size_binary has at most {FIXED_SIZE_BINARY_BYTES_MAX} bytes"
        )
    if isinstance(value, str) and not _is_unicode(value):
        raise InvalidReduceError(field, "a lone surrogate is no utf8")


def shown(value: object) -> str:
    """A value for a message, which may quote what a stranger sent."""
    return repr(value)[:80]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
