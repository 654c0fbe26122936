"""Evaluation of one row: the expressions of a request, each made a function once.

A value is an int, float, bool, str or bytes, whose kind the expression tells; None is a null.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, assert_never

from exo_stream.reduce import expressions as e
from exo_stream.reduce.key_values import bit_places, bits_between, decode_ordered
from exo_stream.reduce.kinds import kind_of, width_of
from exo_stream.reduce.scalar import Kind, Scalar, integer_bounds
from exo_stream.reduce.stored_row import CellTag, StoredRow

Value = int | float | str | bytes | None

Evaluate = Callable[[bytes, StoredRow], Value]
"""From a key and the cells of its value."""

DAY_UNITS: Final = {Kind.DATE32: 1, Kind.DATE64: 86_400_000, Kind.TIMESTAMP: 86_400_000_000}
"""How much of it is a day."""


class RowError(Exception):
    """The row cannot be evaluated: it is skipped."""


def needs_value(expression: e.Expression) -> bool:
    """Whether a row's value must be decoded for it."""
    match expression:
        case e.ValueField():
            return True
        case e.Arithmetic(left=left, right=right):
            return needs_value(left) or needs_value(right)
        case e.Lower(operand=operand) | e.DateTruncDay(operand=operand):
            return needs_value(operand)
        case _:
            return False


def evaluator(expression: e.Expression) -> Evaluate:
    """The function that evaluates it; it raises RowError for a row that is to be skipped."""
    match expression:
        case Scalar(value=value):
            return lambda _key, _cells: value
        case e.KeyField() | e.ZOrderKeyField() | e.ValueField():
            return _field(expression)
        case e.Arithmetic():
            return _arithmetic(expression)
        case e.Lower(operand=operand):
            return _lower(operand)
        case e.DateTruncDay(operand=operand):
            return _date_trunc_day(operand)
        case _:
            assert_never(expression)


def _field(field: e.Field) -> Evaluate:
    match field:
        case e.KeyField():
            return _key_field(field)
        case e.ZOrderKeyField():
            return _z_order_field(field)
        case e.ValueField():
            return _value_field(field)
    assert_never(field)


def _key_field(field: e.KeyField) -> Evaluate:
    kind, start = field.kind, field.bit_offset
    width = width_of(kind, field.fixed_size_binary_len)

    def evaluate(key: bytes, _cells: StoredRow) -> Value:
        bits = bits_between(key, start, 8 * width)
        if bits is None:
            raise RowError
        return _decoded(kind, bits.to_bytes(width, "big"))

    return evaluate


def _z_order_field(field: e.ZOrderKeyField) -> Evaluate:
    kind, start, widths = field.kind, field.bit_offset, field.field_widths
    width, count = widths[field.field_position], 8 * sum(widths)
    shifts = [count - 1 - place for place in bit_places(widths, field.field_position)]

    def evaluate(key: bytes, _cells: StoredRow) -> Value:
        bits = bits_between(key, start, count)
        if bits is None:
            raise RowError
        number = 0
        for shift in shifts:
            number = number << 1 | bits >> shift & 1
        return _decoded(kind, number.to_bytes(width, "big"))

    return evaluate


def _decoded(kind: Kind, data: bytes) -> Value:
    value = decode_ordered(kind, data)
    if value is None:
        raise RowError
    return value


CELLS: Final[dict[Kind, tuple[CellTag, ...]]] = {
    Kind.INT64: (CellTag.I64,),
    Kind.UINT64: (CellTag.U64,),
    Kind.FLOAT64: (CellTag.F64, CellTag.I64),
    Kind.BOOLEAN: (CellTag.BOOL,),
    Kind.UTF8: (CellTag.UTF8,),
    Kind.DATE32: (CellTag.I64,),
    Kind.DATE64: (CellTag.I64,),
    Kind.TIMESTAMP: (CellTag.I64,),
    Kind.DECIMAL128: (CellTag.BYTES,),
    Kind.FIXED_SIZE_BINARY: (CellTag.BYTES,),
    Kind.DECIMAL256: (CellTag.BYTES,),
}
"""Which cells a field of each kind can be read from."""


def _value_field(field: e.ValueField) -> Evaluate:
    index, nullable, tags = field.index, field.nullable, CELLS[field.kind]
    convert = _cell_conversion(field)

    def evaluate(_key: bytes, cells: StoredRow) -> Value:
        if index >= len(cells):
            raise RowError
        cell = cells[index]
        if cell is None:
            if nullable:
                return None
            raise RowError
        tag, value = cell
        if tag not in tags:
            raise RowError
        return value if convert is None else convert(value)  # type: ignore[return-value]  # a list has no such tag

    return evaluate


def _cell_conversion(field: e.ValueField) -> Callable[[Any], Value] | None:
    """What turns a cell's value into the field's, if it is not that already."""
    match field.kind:
        case Kind.FLOAT64:
            return float
        case Kind.DATE32:
            low, high = integer_bounds(Kind.DATE32)

            def within(value: int) -> int:
                if not low <= value <= high:
                    raise RowError
                return value

            return within
        case Kind.DECIMAL128 | Kind.DECIMAL256:
            width = width_of(field.kind, None)
            return lambda data: int.from_bytes(_exactly(data, width), "little", signed=True)
        case Kind.FIXED_SIZE_BINARY:
            length = width_of(field.kind, field.fixed_size_binary_len)
            return lambda data: _exactly(data, length)
        case _:
            return None


def _exactly(data: bytes, length: int) -> bytes:
    if len(data) != length:
        raise RowError
    return data


_Operation = Callable[[Any, Any], Any]
"""On two values of one kind, which the expression's kind is: mypy cannot know which."""

_OPERATIONS: Final[dict[e.Operator, _Operation]] = {
    e.Operator.ADD: lambda left, right: left + right,
    e.Operator.SUB: lambda left, right: left - right,
    e.Operator.MUL: lambda left, right: left * right,
    e.Operator.DIV: lambda left, right: left / right,
}


def _arithmetic(expression: e.Arithmetic) -> Evaluate:
    left, right = evaluator(expression.left), evaluator(expression.right)
    operation = _OPERATIONS[expression.operator]
    kind = kind_of(expression)
    low, high = (0, 0) if kind in (None, Kind.FLOAT64) else integer_bounds(kind)

    def evaluate(key: bytes, cells: StoredRow) -> Value:
        one, other = left(key, cells), right(key, cells)
        if one is None or other is None:
            return None
        if kind is None:
            raise RowError
        if kind is Kind.FLOAT64:
            if operation is _OPERATIONS[e.Operator.DIV] and other == 0:
                raise RowError
            result: float = operation(float(one), float(other))
            return result
        number: int = operation(one, other)
        if not low <= number <= high:
            raise RowError
        return number

    return evaluate


def _lower(operand: e.Expression) -> Evaluate:
    inner = evaluator(operand)

    def evaluate(key: bytes, cells: StoredRow) -> Value:
        value = inner(key, cells)
        if value is None:
            return None
        if not isinstance(value, str):
            raise RowError
        return value.lower()

    return evaluate


def _date_trunc_day(operand: e.Expression) -> Evaluate:
    inner = evaluator(operand)
    kind = kind_of(operand)
    day = None if kind is None else DAY_UNITS.get(kind)
    low = 0 if kind is None or day is None else integer_bounds(kind)[0]

    def evaluate(key: bytes, cells: StoredRow) -> Value:
        value = inner(key, cells)
        if value is None:
            return None
        if day is None:
            raise RowError
        assert isinstance(value, int), value
        truncated = value - value % day
        if truncated < low:
            raise RowError
        return truncated

    return evaluate
