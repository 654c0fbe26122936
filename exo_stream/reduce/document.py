"""The written form of a request: JSON, with the fields' own names.

    {"reducers": [{"op": "count_all"},
                  {"op": "sum_field", "expr": {"value": {"index": 0, "kind": "int64"}}}],
     "group_by": [{"key": {"bit_offset": 64, "kind": "uint64"}}],
     "filter": {"checks": [{"field": {"value": {"index": 1, "kind": "utf8"}},
                            "constraint": {"string_eq": {"value": "paid"}}}]},
     "order_by": [{"result": 1, "descending": true}], "limit": 10}

An expression is an object with one name: ``key``, ``z_order_key``, ``value``, ``literal``, of two
others ``add``, ``sub``, ``mul`` or ``div``, and of one ``lower`` or ``date_trunc_day``. Bytes are
hexadecimal digits, and a float that is no number is "nan", "inf" or "-inf". Reading checks the
form; ``check_request`` checks the rest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final, TypeVar, cast

from exo_stream.documents import parsed
from exo_stream.reduce import constraints as c
from exo_stream.reduce import expressions as e
from exo_stream.reduce.checks import COMPARED, EXPRESSION_NODES_MAX
from exo_stream.reduce.request import GroupOrder, ReduceOp, Reducer, ReduceRequest
from exo_stream.reduce.scalar import InvalidReduceError, Kind, Scalar, shown

T = TypeVar("T")

Json = Mapping[str, object]

_FIELDS: Final[dict[str, type[e.Field]]] = {
    "key": e.KeyField,
    "z_order_key": e.ZOrderKeyField,
    "value": e.ValueField,
}
_CONSTRAINTS: Final[dict[str, type[c.Constraint]]] = {
    "string_eq": c.StringEq,
    "bool_eq": c.BoolEq,
    "fixed_size_binary_eq": c.FixedSizeBinaryEq,
    "int_range": c.IntRange,
    "uint64_range": c.Uint64Range,
    "float_range": c.FloatRange,
    "decimal128_range": c.Decimal128Range,
    "is_null": c.IsNull,
    "is_not_null": c.IsNotNull,
    "string_in": c.StringIn,
    "int_in": c.IntIn,
    "uint64_in": c.Uint64In,
    "fixed_size_binary_in": c.FixedSizeBinaryIn,
    "decimal256_range": c.Decimal256Range,
}
_NAMES: Final = {kind: name for name, kind in (*_FIELDS.items(), *_CONSTRAINTS.items())}
_OPERATORS: Final = {operator.value: operator for operator in e.Operator}
_KINDS: Final = {kind.name.lower(): kind for kind in Kind}
_OPS: Final = {op.name.lower(): op for op in ReduceOp}


def encode_request(request: ReduceRequest) -> bytes:
    """The request as a document."""
    document: dict[str, object] = {
        "reducers": [_reducer_object(reducer) for reducer in request.reducers],
        "group_by": [_expression_object(expression) for expression in request.group_by],
        "order_by": [_given(order) for order in request.order_by],
    }
    if request.filter is not None:
        checks = [_check_object(check) for check in request.filter.checks]
        document["filter"] = {"checks": checks, "contradiction": request.filter.contradiction}
    if request.limit is not None:
        document["limit"] = request.limit
    return json.dumps(document, separators=(",", ":")).encode()


def decode_request(document: bytes) -> ReduceRequest:
    """The request that ``document`` writes, its form checked.

    Raises InvalidReduceError for any bytes that are no such document, and never another exception.
    """
    try:
        read = parsed(document)
    except ValueError as error:
        raise InvalidReduceError("params", f"not a document: {error}") from None
    found = _object(read, "params", ReduceRequest)
    return ReduceRequest(
        _several(found, "reducers", _reducer),
        _several(found, "group_by", _expression),
        _filter(found["filter"]) if found.get("filter") is not None else None,
        _several(found, "order_by", _order),
        cast("int | None", found.get("limit")),  # of its form only; check_request looks at it
    )


def scalar_value(scalar: Scalar | None) -> object:
    """A scalar's value as JSON has it; None for a null."""
    return None if scalar is None else _plain(scalar.value)


def _given(value: Any) -> dict[str, object]:
    """The fields of a value that are not None."""
    every = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return {name: plain for name, plain in every.items() if plain is not None}


def _plain(value: object) -> object:
    match value:
        case Kind():
            return value.name.lower()
        case bytes():
            return value.hex()
        case float() if not math.isfinite(value):
            return str(value)
        case tuple():
            return [_plain(item) for item in value]
        case c.FloatBound():
            return _given(value)
        case _:
            return value


def _reducer_object(reducer: Reducer) -> dict[str, object]:
    written: dict[str, object] = {"op": reducer.op.name.lower()}
    if reducer.expr is not None:
        written["expr"] = _expression_object(reducer.expr)
    return written


def _check_object(check: c.Check) -> dict[str, object]:
    constraint = {_NAMES[type(check.constraint)]: _given(check.constraint)}
    return {"field": _expression_object(check.field), "constraint": constraint}


def _expression_object(expression: e.Expression) -> dict[str, object]:
    match expression:
        case e.Arithmetic(operator=operator, left=left, right=right):
            return {operator.value: [_expression_object(left), _expression_object(right)]}
        case e.Lower(operand=operand):
            return {"lower": _expression_object(operand)}
        case e.DateTruncDay(operand=operand):
            return {"date_trunc_day": _expression_object(operand)}
        case Scalar():
            return {"literal": _given(expression)}
        case _:
            return {_NAMES[type(expression)]: _given(expression)}


def _several(found: Json, name: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
    return tuple(
        [read(item, f"{name}[{at}]") for at, item in enumerate(_list(found.get(name, []), name))]
    )


def _reducer(read: object, path: str) -> Reducer:
    found = _object(read, path, Reducer, required=("op",))
    expr = found.get("expr")
    op = _one_of(_OPS, found["op"], f"{path}.op")
    return Reducer(op, None if expr is None else _expression(expr, f"{path}.expr"))


def _order(read: object, path: str) -> GroupOrder:
    found = _object(read, path, GroupOrder)
    descending = _flag(found.get("descending", False), f"{path}.descending")
    # Of their form only: check_request looks at what they are.
    group, result = (cast("int | None", found.get(name)) for name in ("group", "result"))
    return GroupOrder(group, result, descending)


def _filter(read: object) -> c.Filter:
    found = _object(read, "filter", c.Filter)
    contradiction = _flag(found.get("contradiction", False), "filter.contradiction")
    checks = _list(found.get("checks", []), "filter.checks")
    return c.Filter(
        tuple([_check(item, f"filter.checks[{at}]") for at, item in enumerate(checks)]),
        contradiction,
    )


def _check(read: object, path: str) -> c.Check:
    found = _object(read, path, c.Check, required=("field", "constraint"))
    field = _expression(found["field"], f"{path}.field")
    # Any other expression is refused by check_request.
    return c.Check(cast("e.Field", field), _constraint(found["constraint"], f"{path}.constraint"))


def _constraint(read: object, path: str) -> c.Constraint:
    name, body = _named(read, path)
    class_ = _one_of(_CONSTRAINTS, name, path)
    found = _object(body, f"{path}.{name}", class_, required=_required(class_))
    kind = COMPARED.get(class_, Kind.INT64)
    values = {
        field: _float_bound(value, path)
        if class_ is c.FloatRange
        else tuple(_scalar_value(kind, item, path) for item in _list(value, path))
        if field == "values"
        else _scalar_value(kind, value, path)
        for field, value in found.items()
        if value is not None
    }
    # The names are those of its fields: _object has seen to it.
    return cast("Callable[..., c.Constraint]", class_)(**values)


def _float_bound(read: object, path: str) -> c.FloatBound:
    found = _object(read, path, c.FloatBound, required=("value",))
    # Or what JSON had in its place, which check_request refuses.
    value = cast("float", _scalar_value(Kind.FLOAT64, found["value"], path))
    return c.FloatBound(value, _flag(found.get("inclusive", True), f"{path}.inclusive"))


def _expression(read: object, path: str, nodes: int = EXPRESSION_NODES_MAX) -> e.Expression:
    name, body = _named(read, path)
    path = f"{path}.{name}"
    if not nodes:
        raise InvalidReduceError(path, f"an expression has at most {EXPRESSION_NODES_MAX} parts")
    if name in _OPERATORS:
        operands = _list(body, path)
        if len(operands) != 2:
            raise InvalidReduceError(path, "it has two operands")
        left, right = (_expression(operand, path, nodes - 1) for operand in operands)
        return e.Arithmetic(_OPERATORS[name], left, right)
    if name == "lower":
        return e.Lower(_expression(body, path, nodes - 1))
    if name == "date_trunc_day":
        return e.DateTruncDay(_expression(body, path, nodes - 1))
    if name == "literal":
        found = _object(body, path, Scalar, required=("kind", "value"))
        kind = _one_of(_KINDS, found["kind"], f"{path}.kind")
        return Scalar(kind, _scalar_value(kind, found["value"], path))
    return _field(_one_of(_FIELDS, name, path), body, path)


def _field(class_: type[e.Field], body: object, path: str) -> e.Field:
    found = dict(_object(body, path, class_, required=_required(class_)))
    found["kind"] = _one_of(_KINDS, found["kind"], f"{path}.kind")
    if "field_widths" in found:
        found["field_widths"] = tuple(_list(found["field_widths"], f"{path}.field_widths"))
    if "nullable" in found:
        _flag(found["nullable"], f"{path}.nullable")
    # The names are those of its fields; what they hold, check_request looks at.
    return class_(**cast("dict[str, Any]", found))


def _scalar_value(kind: Kind, value: object, path: str) -> int | float | str | bytes:
    """The value as its kind has it, as far as JSON writes it in another way.

    A cast asserts nothing here: what is no such value raises, or check_request refuses it.
    """
    try:
        if kind is Kind.FLOAT64 and type(value) in (int, str):
            return float(cast("str", value))
        if kind is Kind.FIXED_SIZE_BINARY:
            return bytes.fromhex(cast("str", value))
    except (ValueError, TypeError, OverflowError):
        raise InvalidReduceError(path, f"{shown(value)} is no {kind.name.lower()}") from None
    return cast("int | float | str", value)


def _required(class_: type[e.Field | c.Constraint]) -> tuple[str, ...]:
    """The fields without which it cannot be made."""
    optional = {"nullable", "fixed_size_binary_len", "minimum", "maximum"}
    return tuple(field.name for field in fields(class_) if field.name not in optional)


def _named(read: object, path: str) -> tuple[str, object]:
    if not isinstance(read, dict) or len(read) != 1:
        raise InvalidReduceError(path, "an object with one name is expected")
    [(name, body)] = read.items()
    return name, body


def _object(read: object, path: str, class_: type, required: tuple[str, ...] = ()) -> Json:
    if not isinstance(read, dict):
        raise InvalidReduceError(path, "an object is expected")
    allowed = {field.name for field in fields(class_)}
    for name in read:
        if name not in allowed:
            raise InvalidReduceError(f"{path}.{name}", "there is no such field")
    for name in required:
        if read.get(name) is None:
            raise InvalidReduceError(f"{path}.{name}", "it is missing")
    return read


def _list(read: object, path: str) -> list[Any]:
    if not isinstance(read, list):
        raise InvalidReduceError(path, "a list is expected")
    return read


def _flag(read: object, path: str) -> bool:
    if not isinstance(read, bool):
        raise InvalidReduceError(path, "true or false is expected")
    return read


def _one_of(known: Mapping[str, T], name: object, path: str) -> T:
    if not isinstance(name, str) or name not in known:
        raise InvalidReduceError(path, f"{shown(name)} is none of {', '.join(known)}")
    return known[name]
