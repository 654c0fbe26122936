"""Whether a reduce can be carried out: what is wrong with it, and where."""

from __future__ import annotations

from typing import Final, assert_never, cast

from exo_stream.reduce import constraints as c
from exo_stream.reduce import expressions as e
from exo_stream.reduce.kinds import AVERAGED, SUMMED, kind_of, width_of
from exo_stream.reduce.request import GroupOrder, ReduceOp, Reducer, ReduceRequest
from exo_stream.reduce.scalar import (
    FIXED_SIZE_BINARY_BYTES_MAX,
    InvalidReduceError,
    Kind,
    Scalar,
    check_scalar,
    shown,
)

REDUCERS_MAX: Final = 256
GROUP_BY_MAX: Final = 64
CHECKS_MAX: Final = 256
VALUES_MAX: Final = 10_000
"""What one constraint may list."""
EXPRESSION_NODES_MAX: Final = 256
"""Of one expression; it bounds the depth as well."""
UINT16_MAX: Final = 0xFFFF
UINT8_MAX: Final = 0xFF
LIMIT_MAX: Final = 0xFFFF_FFFF


def check_request(request: ReduceRequest) -> None:
    """Raise InvalidReduceError if ``request`` cannot be carried out, naming what is wrong."""
    _check_is(request, ReduceRequest, "params")
    _check_several(request.reducers, REDUCERS_MAX, "reducers")
    _check_several(request.group_by, GROUP_BY_MAX, "group_by")
    if not request.reducers and not request.group_by:
        raise InvalidReduceError("params", "there is neither a reducer nor anything to group by")
    for index, reducer in enumerate(request.reducers):
        _check_reducer(reducer, f"reducers[{index}]")
    for index, expression in enumerate(request.group_by):
        _check_expression(expression, f"group_by[{index}]")
    if request.filter is not None:
        _check_filter(request.filter)
    _check_several(request.order_by, GROUP_BY_MAX + REDUCERS_MAX, "order_by")
    for index, order in enumerate(request.order_by):
        _check_order(order, request, f"order_by[{index}]")
    _check_limit(request)


def _check_filter(predicate: c.Filter) -> None:
    _check_is(predicate, c.Filter, "filter")
    _check_several(predicate.checks, CHECKS_MAX, "filter.checks")
    for index, check in enumerate(predicate.checks):
        _check_check(check, f"filter.checks[{index}]")


def _check_limit(request: ReduceRequest) -> None:
    limit = request.limit
    if limit is None:
        return
    if not request.group_by:
        raise InvalidReduceError("limit", "only groups can be limited")
    if type(limit) is not int or not 0 <= limit <= LIMIT_MAX:
        raise InvalidReduceError("limit", f"a limit is a number from 0 to {LIMIT_MAX}")


def _check_order(order: GroupOrder, request: ReduceRequest, field: str) -> None:
    _check_is(order, GroupOrder, field)
    if (order.group is None) == (order.result is None):
        raise InvalidReduceError(field, "an order is by one group value or by one result")
    if order.group is not None:
        _check_index(order.group, len(request.group_by), f"{field}.group")
    if order.result is not None:
        _check_index(order.result, len(request.reducers), f"{field}.result")
    if not request.group_by:
        raise InvalidReduceError(field, "only groups can be ordered")


def _check_index(index: int, count: int, field: str) -> None:
    if type(index) is not int or not 0 <= index < count:
        raise InvalidReduceError(field, f"{shown(index)} is none of {count}")


def _check_reducer(reducer: Reducer, field: str) -> None:
    _check_is(reducer, Reducer, field)
    op, expr = reducer.op, reducer.expr
    if not isinstance(op, ReduceOp):
        raise InvalidReduceError(f"{field}.op", f"{op!r} is no operation")
    if op is ReduceOp.COUNT_ALL:
        if expr is not None:
            raise InvalidReduceError(f"{field}.expr", "count_all takes no expression")
        return
    if expr is None:
        raise InvalidReduceError(f"{field}.expr", f"{op.name.lower()} needs an expression")
    _check_expression(expr, f"{field}.expr")
    able = {ReduceOp.SUM_FIELD: SUMMED, ReduceOp.AVG_FIELD: AVERAGED}.get(op)
    kind = kind_of(expr)
    if able is not None and kind is not None and kind not in able:
        raise InvalidReduceError(field, f"{op.name.lower()} cannot add up {kind.name.lower()}")


def _check_expression(expression: e.Expression, field: str) -> None:
    nodes = [expression]
    for seen, node in enumerate(nodes):  # it grows while it is read
        if seen >= EXPRESSION_NODES_MAX:
            raise InvalidReduceError(
                field, f"an expression has at most {EXPRESSION_NODES_MAX} parts"
            )
        match node:
            case e.KeyField() | e.ZOrderKeyField() | e.ValueField():
                _check_field(node, field)
            case Scalar():
                check_scalar(node, field)
            case e.Arithmetic(operator=operator, left=left, right=right):
                _check_is(operator, e.Operator, field)
                nodes += (left, right)
            case e.Lower(operand=operand) | e.DateTruncDay(operand=operand):
                nodes.append(operand)
            case _:
                raise InvalidReduceError(field, f"{shown(node)} is no expression")


def _check_field(field: e.Field, path: str) -> None:
    _check_binary_len(field.kind, field.fixed_size_binary_len, path)
    match field:
        case e.KeyField(bit_offset=bit_offset):
            _check_number(bit_offset, UINT16_MAX, f"{path}.bit_offset")
        case e.ZOrderKeyField(bit_offset=bit_offset):
            _check_number(bit_offset, UINT16_MAX, f"{path}.bit_offset")
            _check_z_order(field, path)
        case e.ValueField(index=index):
            _check_number(index, UINT16_MAX, f"{path}.index")
        case _:
            assert_never(field)


def _check_z_order(field: e.ZOrderKeyField, path: str) -> None:
    _check_several(field.field_widths, UINT8_MAX, f"{path}.field_widths")
    for width in field.field_widths:
        _check_number(width, UINT8_MAX, f"{path}.field_widths")
    _check_index(field.field_position, len(field.field_widths), f"{path}.field_position")
    expected = width_of(field.kind, field.fixed_size_binary_len)
    if field.field_widths[field.field_position] != expected:
        raise InvalidReduceError(
            f"{path}.field_widths", f"a {field.kind.name.lower()} is {expected} bytes wide"
        )


def _check_binary_len(kind: Kind, length: int | None, path: str) -> None:
    if not isinstance(kind, Kind):
        raise InvalidReduceError(f"{path}.kind", f"{kind!r} is no kind")
    if (kind is Kind.FIXED_SIZE_BINARY) != (length is not None):
        raise InvalidReduceError(
            f"{path}.fixed_size_binary_len", "a fixed_size_binary has it, and nothing else"
        )
    if length is not None:
        _check_number(length, FIXED_SIZE_BINARY_BYTES_MAX, f"{path}.fixed_size_binary_len")


def _check_check(check: c.Check, path: str) -> None:
    _check_is(check, c.Check, path)
    if not isinstance(check.field, e.KeyField | e.ZOrderKeyField | e.ValueField):
        raise InvalidReduceError(f"{path}.field", f"{shown(check.field)} is no field")
    _check_field(check.field, f"{path}.field")
    for scalar in _operands(check.constraint, f"{path}.constraint"):
        check_scalar(scalar, f"{path}.constraint")


def _operands(constraint: c.Constraint, path: str) -> list[Scalar]:
    """What a constraint compares with, each as a scalar of the type it must have."""
    values: tuple[object, ...]
    match constraint:
        case c.StringEq() | c.BoolEq() | c.FixedSizeBinaryEq():
            values = (constraint.value,)
        case c.IntRange() | c.Uint64Range() | c.Decimal128Range() | c.Decimal256Range():
            values = (constraint.minimum, constraint.maximum)
        case c.FloatRange():
            ends = [end for end in (constraint.minimum, constraint.maximum) if end is not None]
            for end in ends:
                _check_is(end, c.FloatBound, path)
            values = tuple(end.value for end in ends)
        case c.IsNull() | c.IsNotNull():
            values = ()
        case c.StringIn() | c.IntIn() | c.Uint64In() | c.FixedSizeBinaryIn():
            _check_several(constraint.values, VALUES_MAX, path)
            values = constraint.values
        case _:
            raise InvalidReduceError(path, f"{shown(constraint)} is no constraint")
    is_range = isinstance(constraint, _RANGES)
    kind = COMPARED.get(type(constraint), Kind.INT64)
    return [
        # As it comes; whoever asked for them checks each.
        Scalar(kind, cast("int | float | str | bytes", value))
        for value in values
        if value is not None or not is_range
    ]


_RANGES: Final = (c.IntRange, c.Uint64Range, c.FloatRange, c.Decimal128Range, c.Decimal256Range)
"""What may leave a bound open."""

COMPARED: Final[dict[type, Kind]] = {
    c.StringEq: Kind.UTF8,
    c.BoolEq: Kind.BOOLEAN,
    c.FixedSizeBinaryEq: Kind.FIXED_SIZE_BINARY,
    c.FloatRange: Kind.FLOAT64,
    c.IntRange: Kind.INT64,
    c.Uint64Range: Kind.UINT64,
    c.Decimal128Range: Kind.DECIMAL128,
    c.Decimal256Range: Kind.DECIMAL256,
    c.StringIn: Kind.UTF8,
    c.IntIn: Kind.INT64,
    c.Uint64In: Kind.UINT64,
    c.FixedSizeBinaryIn: Kind.FIXED_SIZE_BINARY,
}
"""The kind that a constraint's own values have."""


def _check_number(number: int, most: int, field: str) -> None:
    if type(number) is not int or not 0 <= number <= most:
        raise InvalidReduceError(field, f"{shown(number)} is no number from 0 to {most}")


def _check_is(part: object, kind: type, field: str) -> None:
    if not isinstance(part, kind):
        raise InvalidReduceError(field, f"{shown(part)} is no {kind.__name__}")


def _check_several(parts: object, most: int, field: str) -> None:
    if not isinstance(parts, tuple | list):
        raise InvalidReduceError(field, f"{shown(parts)} is no tuple")
    if len(parts) > most:
        raise InvalidReduceError(field, f"at most {most}, but these are {len(parts)}")
