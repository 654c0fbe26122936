"""Requests over keys that stand behind a prefix: every field of a key, so many bits further on."""

from __future__ import annotations

from dataclasses import replace

from exo_stream.reduce.checks import UINT16_MAX
from exo_stream.reduce.constraints import Check, Filter
from exo_stream.reduce.expressions import (
    Arithmetic,
    DateTruncDay,
    Expression,
    Field,
    Lower,
    ValueField,
)
from exo_stream.reduce.request import Reducer, ReduceRequest
from exo_stream.reduce.scalar import InvalidReduceError, Scalar


def shifted(request: ReduceRequest, bits: int) -> ReduceRequest:
    """A checked request, for keys before which ``bits`` more stand.

    Raises InvalidReduceError if a field would begin too far from the start.
    """
    filter_ = request.filter
    if filter_ is not None:
        checks = [Check(_field(check.field, bits), check.constraint) for check in filter_.checks]
        filter_ = Filter(tuple(checks), filter_.contradiction)
    return replace(
        request,
        reducers=tuple([_reducer(reducer, bits) for reducer in request.reducers]),
        group_by=tuple([_expression(expression, bits) for expression in request.group_by]),
        filter=filter_,
    )


def _reducer(reducer: Reducer, bits: int) -> Reducer:
    expr = None if reducer.expr is None else _expression(reducer.expr, bits)
    return Reducer(reducer.op, expr)


def _expression(expression: Expression, bits: int) -> Expression:
    match expression:
        case Scalar():
            return expression
        case Arithmetic(operator=operator, left=left, right=right):
            return Arithmetic(operator, _expression(left, bits), _expression(right, bits))
        case Lower(operand=operand):
            return Lower(_expression(operand, bits))
        case DateTruncDay(operand=operand):
            return DateTruncDay(_expression(operand, bits))
        case _:
            return _field(expression, bits)


def _field(field: Field, bits: int) -> Field:
    if isinstance(field, ValueField):
        return field
    offset = field.bit_offset + bits
    if offset > UINT16_MAX:
        raise InvalidReduceError("bit_offset", f"{offset} is more than {UINT16_MAX}")
    return replace(field, bit_offset=offset)
