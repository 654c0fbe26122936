"""What follows from kinds alone: how wide their values are, and what an expression yields."""

from __future__ import annotations

from typing import Final

from exo_stream.reduce.expressions import (
    Arithmetic,
    DateTruncDay,
    Expression,
    Lower,
    Operator,
)
from exo_stream.reduce.scalar import Kind

SUMMED: Final = frozenset({Kind.INT64, Kind.UINT64, Kind.FLOAT64, Kind.DECIMAL128, Kind.DECIMAL256})
"""The kinds that can be added up."""

AVERAGED: Final = frozenset({Kind.INT64, Kind.UINT64, Kind.FLOAT64})
"""The kinds that have an average; that of a decimal would need its scale, which nobody knows."""

_NUMBERS: Final = AVERAGED
_DATES: Final = frozenset({Kind.DATE32, Kind.DATE64, Kind.TIMESTAMP})

_WIDTHS: Final = {
    Kind.INT64: 8,
    Kind.UINT64: 8,
    Kind.FLOAT64: 8,
    Kind.BOOLEAN: 1,
    Kind.UTF8: 16,
    Kind.DATE32: 4,
    Kind.DATE64: 8,
    Kind.TIMESTAMP: 8,
    Kind.DECIMAL128: 16,
    Kind.DECIMAL256: 32,
}


def width_of(kind: Kind, fixed_size_binary_len: int | None) -> int:
    """The bytes that a value takes in a key."""
    if kind is Kind.FIXED_SIZE_BINARY:
        assert fixed_size_binary_len is not None
        return fixed_size_binary_len
    return _WIDTHS[kind]


def kind_of(expression: Expression) -> Kind | None:
    """The kind of every value an expression can have; None if it can have none but null.

    An expression of the wrong kinds is no mistake of the request: each row fails, and is skipped.
    """
    match expression:
        case Arithmetic(operator=operator, left=left, right=right):
            return _arithmetic_kind(operator, kind_of(left), kind_of(right))
        case Lower(operand=operand):
            return Kind.UTF8 if kind_of(operand) is Kind.UTF8 else None
        case DateTruncDay(operand=operand):
            kind = kind_of(operand)
            return kind if kind in _DATES else None
        case _:
            return expression.kind


def _arithmetic_kind(operator: Operator, left: Kind | None, right: Kind | None) -> Kind | None:
    if left not in _NUMBERS or right not in _NUMBERS:
        return None
    if Kind.FLOAT64 in (left, right):
        return Kind.FLOAT64
    if left is not right:
        return None
    return Kind.FLOAT64 if operator is Operator.DIV else left
