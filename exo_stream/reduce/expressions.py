"""Fields of a row and expressions over them: values without behaviour, checked as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from exo_stream.reduce.scalar import Kind, Scalar


@dataclass(frozen=True, slots=True)
class KeyField:
    """A value of fixed width in the key, ``bit_offset`` bits after the key's first bit."""

    bit_offset: int
    kind: Kind
    fixed_size_binary_len: int | None = None
    """The bytes of a FIXED_SIZE_BINARY, and only of that."""


@dataclass(frozen=True, slots=True)
class ZOrderKeyField:
    """One of several values whose bits are interleaved in the key, from ``bit_offset`` on.

    ``field_widths`` are the bytes of all of them; ``field_position`` tells which one is meant.
    """

    bit_offset: int
    field_position: int
    field_widths: tuple[int, ...]
    kind: Kind
    fixed_size_binary_len: int | None = None


@dataclass(frozen=True, slots=True)
class ValueField:
    """The cell number ``index`` of the stored row that the value is.

    A null cell of a field that is not ``nullable`` makes the row one to be skipped.
    """

    index: int
    kind: Kind
    nullable: bool = False
    fixed_size_binary_len: int | None = None


Field = KeyField | ZOrderKeyField | ValueField


class Operator(Enum):
    """The arithmetic of two operands; a division always gives a FLOAT64."""

    ADD = "add"
    SUB = "sub"
    MUL = "mul"
    DIV = "div"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Two operands and what to do with them: of one integer kind, or floats among numbers."""

    operator: Operator
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Lower:
    """The lower-case form of a UTF8."""

    operand: Expression


@dataclass(frozen=True, slots=True)
class DateTruncDay:
    """A date or timestamp with its time of day cut off, rounded towards the past."""

    operand: Expression


Expression = Field | Scalar | Arithmetic | Lower | DateTruncDay
