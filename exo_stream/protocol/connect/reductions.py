"""What a Reduce asks for, from its messages, and its results as messages."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final, TypeVar, assert_never

from exo_stream.protocol.connect.generated import query_pb2 as pb
from exo_stream.reduce import constraints as c
from exo_stream.reduce import expressions as e
from exo_stream.reduce.request import ReduceGroup, ReduceOp, Reducer, ReduceRequest, ReduceResult
from exo_stream.reduce.scalar import InvalidReduceError, Kind, Scalar

E = TypeVar("E", bound=IntEnum)

_VALUE_FIELDS: Final = {
    Kind.INT64: "int64_value",
    Kind.UINT64: "uint64_value",
    Kind.FLOAT64: "float64_value",
    Kind.BOOLEAN: "boolean_value",
    Kind.UTF8: "utf8_value",
    Kind.DATE32: "date32_value",
    Kind.DATE64: "date64_value",
    Kind.TIMESTAMP: "timestamp_value",
    Kind.DECIMAL128: "decimal128_value",
    Kind.FIXED_SIZE_BINARY: "fixed_size_binary_value",
    Kind.DECIMAL256: "decimal256_value",
}
KIND_OF_FIELD: Final = {name: kind for kind, name in _VALUE_FIELDS.items()}
_OPERATORS: Final = {operator.value: operator for operator in e.Operator}
_EQUALS: Final[dict[str, Callable[[Any], c.Constraint]]] = {
    "string_eq": c.StringEq,
    "bool_eq": c.BoolEq,
    "fixed_size_binary_eq": c.FixedSizeBinaryEq,
}
_MEMBERS: Final[dict[str, Callable[[Any], c.Constraint]]] = {
    "string_in": c.StringIn,
    "int_in": c.IntIn,
    "uint64_in": c.Uint64In,
    "fixed_size_binary_in": c.FixedSizeBinaryIn,
}
_NULLS: Final[dict[str, c.Constraint]] = {"is_null": c.IsNull(), "is_not_null": c.IsNotNull()}
_OPS: Final = frozenset(pb.RangeReduceOp.values())


def reduce_request(params: pb.ReduceParams) -> ReduceRequest:
    """The reduce that these parameters ask for, not yet checked as a whole.

    Raises InvalidReduceError where something is missing, unknown or of the wrong size.
    """
    return ReduceRequest(
        reducers=tuple(
            _reducer(spec, f"reducers[{index}]") for index, spec in enumerate(params.reducers)
        ),
        group_by=tuple(
            _expression(expr, f"group_by[{index}]") for index, expr in enumerate(params.group_by)
        ),
        filter=_filter(params.filter) if params.HasField("filter") else None,
    )


def _reducer(spec: pb.RangeReducerSpec, field: str) -> Reducer:
    if spec.op not in _OPS:
        raise InvalidReduceError(f"{field}.op", f"{spec.op} is no operation")
    expr = _expression(spec.expr, f"{field}.expr") if spec.HasField("expr") else None
    return Reducer(ReduceOp(spec.op), expr)


def _expression(expr: pb.KvExpr, field: str) -> e.Expression:
    name = expr.WhichOneof("expr")
    if name is None:
        raise InvalidReduceError(field, "an expression is needed")
    where, part = f"{field}.{name}", getattr(expr, name)
    if name in _OPERATORS:
        left = _expression(part.left, f"{where}.left")
        return e.Arithmetic(_OPERATORS[name], left, _expression(part.right, f"{where}.right"))
    if name == "field":
        return _field(part, where)
    if name == "literal":
        return _scalar(part, where)
    operand = _expression(part, where)
    return e.Lower(operand) if name == "lower" else e.DateTruncDay(operand)


def _field(ref: pb.KvFieldRef, field: str) -> e.Field:
    match ref.WhichOneof("field"):
        case "key":
            key = ref.key
            kind = _known(Kind, key.kind, f"{field}.key.kind")
            return e.KeyField(key.bit_offset, kind, _length(kind, key.fixed_size_binary_len))
        case "z_order_key":
            z = ref.z_order_key
            kind = _known(Kind, z.kind, f"{field}.z_order_key.kind")
            length = _length(kind, z.fixed_size_binary_len)
            widths = tuple(z.field_widths)
            return e.ZOrderKeyField(z.bit_offset, z.field_position, widths, kind, length)
        case "value":
            cell = ref.value
            kind = _known(Kind, cell.kind, f"{field}.value.kind")
            length = _length(kind, cell.fixed_size_binary_len)
            return e.ValueField(cell.index, kind, cell.nullable, length)
        case None:
            raise InvalidReduceError(field, "a field is needed: of the key or of the value")
        case unreachable:
            assert_never(unreachable)


def _length(kind: Kind, length: int) -> int | None:
    return length if kind is Kind.FIXED_SIZE_BINARY else None


def _known(enum: type[E], number: int, field: str) -> E:
    try:
        return enum(number)
    except ValueError:
        raise InvalidReduceError(field, f"{number} is no {enum.__name__.lower()}") from None


def _scalar(message: pb.KvReducedValue, field: str) -> Scalar:
    name = message.WhichOneof("value")
    if name is None:
        raise InvalidReduceError(field, "a value is needed")
    kind = KIND_OF_FIELD[name]
    value = getattr(message, name)
    if kind is Kind.DECIMAL128:
        value = _decimal128(value, field)
    elif kind is Kind.DECIMAL256:
        value = _decimal256(value, field)
    return Scalar(kind, value)


def _decimal128(value: bytes, field: str) -> int:
    if len(value) != 16:
        raise InvalidReduceError(field, f"a decimal128 has 16 bytes, not {len(value)}")
    return int.from_bytes(value, "big", signed=True)


def _decimal256(value: bytes, field: str) -> int:
    if len(value) != 32:
        raise InvalidReduceError(field, f"a decimal256 has 32 bytes, not {len(value)}")
    return int.from_bytes(value, "little", signed=True)


def _filter(predicate: pb.KvPredicate) -> c.Filter:
    checks: list[c.Check] = []
    for index, check in enumerate(predicate.checks):
        where = f"filter.checks[{index}]"
        of = _field(check.field, f"{where}.field")
        checks.append(c.Check(of, _constraint(check.constraint, f"{where}.constraint")))
    return c.Filter(tuple(checks), predicate.contradiction)


def _constraint(message: pb.KvPredicateConstraint, field: str) -> c.Constraint:
    name = message.WhichOneof("constraint")
    if name is None:
        raise InvalidReduceError(field, "a constraint is needed")
    part = getattr(message, name)
    if name in _EQUALS:
        return _EQUALS[name](part)
    if name in _MEMBERS:
        return _MEMBERS[name](tuple(part.values))
    if name in _NULLS:
        return _NULLS[name]
    return _range(part, name, f"{field}.{name}")


def _range(bounds: Any, name: str, field: str) -> c.Constraint:
    least = bounds.min if bounds.HasField("min") else None
    greatest = bounds.max if bounds.HasField("max") else None
    if name == "int_range":
        return c.IntRange(least, greatest)
    if name == "uint64_range":
        return c.Uint64Range(least, greatest)
    if name == "float_range":
        return c.FloatRange(_float_bound(least), _float_bound(greatest))
    read = _decimal128 if name == "decimal128_range" else _decimal256
    low = None if least is None else read(least, f"{field}.min")
    high = None if greatest is None else read(greatest, f"{field}.max")
    kind = c.Decimal128Range if name == "decimal128_range" else c.Decimal256Range
    return kind(low, high)


def _float_bound(message: pb.KvPredicateConstraint.FloatBound | None) -> c.FloatBound | None:
    return None if message is None else c.FloatBound(message.value, message.inclusive)


def reduce_response(result: ReduceResult) -> pb.ReduceResponse:
    """The results, or the groups, as a message."""
    response = pb.ReduceResponse()
    for scalar in result.results:
        _fill(response.results.add(), scalar)
    for group in result.groups:
        _fill_group(response.groups.add(), group)
    return response


def _fill_group(message: pb.RangeReduceGroup, group: ReduceGroup) -> None:
    """A null has a flag and no value: a decoder that expects one finds what it expects."""
    for value in group.group_values:
        message.group_values_present.append(value is not None)
        if value is not None:
            _set(message.group_values.add(), value)
    for scalar in group.results:
        _fill(message.results.add(), scalar)


def _fill(message: pb.RangeReduceResult, scalar: Scalar | None) -> None:
    if scalar is not None:
        _set(message.value, scalar)


def _set(message: pb.KvReducedValue, scalar: Scalar) -> None:
    value = scalar.value
    if scalar.kind is Kind.DECIMAL128:
        assert isinstance(value, int)
        value = value.to_bytes(16, "big", signed=True)
    elif scalar.kind is Kind.DECIMAL256:
        assert isinstance(value, int)
        value = value.to_bytes(32, "little", signed=True)
    setattr(message, _VALUE_FIELDS[scalar.kind], value)
