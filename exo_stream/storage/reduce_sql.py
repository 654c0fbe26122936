"""A reduce as SQL: as far as its fields and expressions can be read where the rows are.

The query counts, adds up and compares the rows of one layout, group by group, and tells apart
those that do not fit it, which ``Reduction`` then looks at one by one. Both agree: a property
test holds them together.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, assert_never

from exo_stream.reduce import constraints as c
from exo_stream.reduce import expressions as e
from exo_stream.reduce.accumulators import from_total_order
from exo_stream.reduce.evaluation import CELLS, DAY_UNITS, Value
from exo_stream.reduce.kinds import kind_of, width_of
from exo_stream.reduce.predicate import Compared, is_about
from exo_stream.reduce.reduction import Part, Reduction
from exo_stream.reduce.request import ReduceOp, Reducer, ReduceRequest
from exo_stream.reduce.scalar import Kind, Scalar
from exo_stream.reduce.stored_row import CellTag
from exo_stream.storage.database import Rows
from exo_stream.storage.row_layout import Columns, Layout, LayoutReader, Place, blob, number

STEPS_MAX: Final = 64
"""Parts of expressions in one request, beyond which rows are looked at one by one."""

_TYPES: Final = {
    Kind.INT64: "BIGINT",
    Kind.UINT64: "UBIGINT",
    Kind.DATE32: "INTEGER",
    Kind.DATE64: "BIGINT",
    Kind.TIMESTAMP: "BIGINT",
}
_OPERATORS: Final = {
    e.Operator.ADD: "+",
    e.Operator.SUB: "-",
    e.Operator.MUL: "*",
    e.Operator.DIV: "/",
}
_SIGN: Final = {4: "(-2147483648)::INTEGER", 8: "(-9223372036854775808)::BIGINT"}
_DECIMALS: Final = (Kind.DECIMAL128, Kind.DECIMAL256)


def is_pushable(request: ReduceRequest) -> bool:
    """Whether SQL can do it: whether it can read every field, and every expression over them."""
    checks = request.filter.checks if request.filter is not None else ()
    operands = [reducer.expr for reducer in request.reducers if reducer.expr is not None]
    expressions = [*request.group_by, *operands, *(check.field for check in checks)]
    parts = [part for expression in expressions for part in _parts(expression)]
    return len(parts) <= STEPS_MAX and all(map(_is_readable, parts))


def _parts(expression: e.Expression) -> list[e.Expression]:
    parts = [expression]
    for part in parts:  # it grows while it is read
        match part:
            case e.Arithmetic(left=left, right=right):
                parts += (left, right)
            case e.Lower(operand=operand) | e.DateTruncDay(operand=operand):
                parts.append(operand)
            case _:
                pass
    return parts


def _is_readable(part: e.Expression) -> bool:
    match part:
        case e.KeyField(kind=kind, bit_offset=offset):
            return kind not in (Kind.UTF8, *_DECIMALS) and offset % 8 == 0
        case e.ValueField(kind=kind):
            return kind not in _DECIMALS
        case Scalar(kind=kind):
            return kind not in _DECIMALS
        case e.ZOrderKeyField() | e.Lower():
            return False
        case e.Arithmetic() | e.DateTruncDay():
            return kind_of(part) is not None


@dataclass(frozen=True, slots=True)
class _Column:
    """A value in SQL: its name, and how its kind is kept (see ``_kept``)."""

    name: str
    kind: Kind


class ReduceQuery:
    """The query of one request over rows of one layout; ``layout`` is None if no value is read."""

    def __init__(self, request: ReduceRequest, layout: Layout | None) -> None:
        self._columns = Columns()
        self._places = None if layout is None else LayoutReader(layout, self._columns)
        self._conditions: list[str] = []
        self._needs: list[str] = []
        self._known: dict[e.Expression, _Column] = {}
        checks = request.filter.checks if request.filter is not None else ()
        for check in checks:
            self._require(*self._check(check))
        self._groups = [self._grouped(expression) for expression in request.group_by]
        self._parts = [self._part(reducer) for reducer in request.reducers]
        fits = "true" if self._places is None else self._places.fits
        passes = " AND ".join([f"({condition})" for condition in self._conditions]) or "true"
        self._class = self._columns.add(
            f"(CASE WHEN NOT {fits} THEN {_MISFIT} WHEN coalesce({passes}, false) THEN {_PASSES}"
            f" ELSE {_DROPPED} END)",
            *(self._needs if self._places is None else [*self._needs, fits]),
        )

    def run(self, source: str, parameters: dict[str, object], rows: Rows, into: Reduction) -> bool:
        """Reduce the keys and values that ``source`` selects; whether some did not fit."""
        groups = [
            f"CASE WHEN {self._class} = {_PASSES} THEN {group.name} END AS g{at}"
            for at, group in enumerate(self._groups)
        ]
        names = [f"g{at}" for at in range(len(groups))]
        inner = f"SELECT *{''.join(f', {group}' for group in groups)} FROM ({self._whole(source)})"  # noqa: S608  our own SQL, in which a value is a literal
        outer = ", ".join([self._class, *names])
        sums = "".join([f", {sql}" for part in self._parts for sql in part.sql])
        query = (
            f"SELECT {outer}, sum(octet_length(key) + octet_length(value))::HUGEINT{sums}"  # noqa: S608  our own SQL, in which a value is a literal
            f" FROM ({inner}) GROUP BY {outer}"
        )
        return self._take(rows.fetch(query, parameters), into)

    def misfits(self, source: str) -> str:
        """The query for the keys and values of those that did not fit."""
        return f"SELECT key, value FROM ({self._whole(source)}) WHERE {self._class} = {_MISFIT}"  # noqa: S608  our own SQL, in which a value is a literal

    def _whole(self, source: str) -> str:
        return self._columns.over(source)

    def _take(self, found: Sequence[tuple[Any, ...]], into: Reduction) -> bool:
        size = 0
        has_misfits = False
        count = len(self._groups)
        for class_, *values in found:
            if class_ == _MISFIT:
                has_misfits = True
                continue
            size += values[count]
            if class_ == _PASSES:
                group = [
                    _kept_group(column.kind, value)
                    for column, value in zip(self._groups, values, strict=False)
                ]
                rest = iter(values[count + 1 :])
                into.add_part(group, [part.read(rest) for part in self._parts])
        into.count_read(size)
        return has_misfits

    def _require(self, condition: str, *needs: str) -> None:
        self._conditions.append(condition)
        self._needs += needs

    def _grouped(self, expression: e.Expression) -> _Column:
        column = self._value(expression)
        if column.kind is not Kind.FLOAT64:
            return column
        # Equal floats may be different, and one that is none equals nothing: their bits do.
        bits = f"TRY_CAST(TRY_CAST({column.name} AS BIT) AS BIGINT)"
        return _Column(self._columns.add(bits, column.name), column.kind)

    def _part(self, reducer: Reducer) -> _Part:
        if reducer.expr is None:
            return _Part(("count(*)",), lambda _: None)
        column = self._value(reducer.expr)
        name, count = column.name, f"count({column.name})"
        match reducer.op:
            case ReduceOp.COUNT_ALL | ReduceOp.COUNT_FIELD:
                return _Part((count,), lambda _: None)
            case ReduceOp.SUM_FIELD | ReduceOp.AVG_FIELD:
                return _Part((count, f"sum({name})"), lambda value: value)
            case ReduceOp.MIN_FIELD | ReduceOp.MAX_FIELD:
                extreme = "max" if reducer.op is ReduceOp.MAX_FIELD else "min"
                if column.kind is Kind.FLOAT64:
                    bits = self._grouped(reducer.expr).name
                    flipped = f"xor({bits}, 9223372036854775807)"
                    rank = f"CASE WHEN {bits} >= 0 THEN {bits} ELSE {flipped} END"
                    name = self._columns.add(f"({rank})", bits)
                return _Part((count, f"{extreme}({name})"), partial(_kept_extreme, column.kind))
            case _:
                assert_never(reducer.op)

    def _value(self, expression: e.Expression) -> _Column:
        """The value of an expression, each computed once; row errors become conditions."""
        known = self._known.get(expression)
        if known is None:
            known = self._known[expression] = self._computed(expression)
        return known

    def _computed(self, expression: e.Expression) -> _Column:
        kind = kind_of(expression)
        assert kind is not None, expression
        match expression:
            case Scalar():
                return _Column(self._columns.add(_literal(expression)), kind)
            case e.KeyField():
                return _Column(self._key_field(expression), kind)
            case e.ValueField():
                return _Column(self._value_field(expression), kind)
            case e.Arithmetic():
                return _Column(self._arithmetic(expression, kind), kind)
            case e.DateTruncDay(operand=operand):
                return _Column(self._date_trunc_day(operand, kind), kind)
            case e.ZOrderKeyField() | e.Lower():
                raise AssertionError(expression)
            case _:
                assert_never(expression)

    def _key_field(self, field: e.KeyField) -> str:
        kind, first = field.kind, field.bit_offset // 8
        width = width_of(kind, field.fixed_size_binary_len)
        self._require(f"octet_length(key) >= {first + width}")
        body = f"array_slice(key, {first + 1}, {first + width})" if width else blob(b"")
        add = self._columns.add
        match kind:
            case Kind.UINT64:
                return add(number(body, "UBIGINT"))
            case Kind.FLOAT64:
                bits = add(number(body, "BIGINT"))
                flipped = f"xor({bits}, CASE WHEN {bits} < 0 THEN {_SIGN[8]} ELSE -1 END)"
                return add(f"TRY_CAST(TRY_CAST({flipped} AS BIT) AS DOUBLE)", bits)
            case Kind.BOOLEAN:
                return add(f"({body} <> {blob(bytes(1))})")
            case Kind.FIXED_SIZE_BINARY:
                return add(body)
            case _:
                return add(f"xor({number(body, _TYPES[kind])}, {_SIGN[width]})")

    def _value_field(self, field: e.ValueField) -> str:
        assert self._places is not None, field
        places = self._places.places
        place = places[field.index] if field.index < len(places) else None
        if place is None or place.column.tag not in CELLS[field.kind]:
            # A cell of another type is an error of its row, and so is one that is not there.
            is_null = "false" if place is None or place.null is None else place.null
            self._require(is_null if field.nullable else "false", *_names(place, is_null))
            return self._columns.add(f"NULL::{_sql_type(field.kind)}")
        body = f"array_slice(value, {place.start}, {place.end})"
        value = self._columns.add(self._cell(field, place.column.tag, body), *place.needs)
        if place.null is not None:
            if not field.nullable:
                self._require(f"NOT {place.null}", place.null)
            value = self._columns.add(
                f"(CASE WHEN NOT {place.null} THEN {value} END)", value, place.null
            )
        if field.kind in (Kind.DATE32, Kind.FIXED_SIZE_BINARY):
            allowed = f" OR {place.null}" if place.null is not None else ""
            self._require(f"{value} IS NOT NULL{allowed}", value, *_names(place, place.null))
        return value

    def _cell(self, field: e.ValueField, tag: CellTag | None, body: str) -> str:
        match field.kind:
            case Kind.UTF8:
                return body
            case Kind.BOOLEAN:
                return f"({body} = {blob(bytes([1]))})"
            case Kind.FIXED_SIZE_BINARY:
                length = field.fixed_size_binary_len
                return f"(CASE WHEN octet_length({body}) = {length} THEN {body} END)"
            case Kind.FLOAT64:
                type_ = "DOUBLE" if tag is CellTag.F64 else "BIGINT"
                return f"{number(body, type_)}::DOUBLE"
            case Kind.DATE32:
                return f"TRY_CAST({number(body, 'BIGINT')} AS INTEGER)"
            case _:
                return number(body, _TYPES[field.kind])

    def _arithmetic(self, expression: e.Arithmetic, kind: Kind) -> str:
        left, right = self._value(expression.left).name, self._value(expression.right).name
        type_ = "DOUBLE" if kind is Kind.FLOAT64 else "HUGEINT"
        operation = f"{left}::{type_} {_OPERATORS[expression.operator]} {right}::{type_}"
        if expression.operator is e.Operator.DIV:
            operation = f"CASE WHEN {right} <> 0 THEN {operation} END"
        return self._checked(operation, kind, left, right)

    def _date_trunc_day(self, operand: e.Expression, kind: Kind) -> str:
        value, day = self._value(operand).name, DAY_UNITS[kind]
        wide = f"{value}::HUGEINT"
        return self._checked(f"{wide} - (({wide} % {day}) + {day}) % {day}", kind, value)

    def _checked(self, operation: str, kind: Kind, *operands: str) -> str:
        """What it comes to; where that is no value of its kind, the row is one to be skipped."""
        result = self._columns.add(f"TRY_CAST(TRY({operation}) AS {_sql_type(kind)})", *operands)
        nulls = " OR ".join([f"{operand} IS NULL" for operand in operands])
        self._require(f"{result} IS NOT NULL OR {nulls}", result, *operands)
        return result

    def _check(self, check: c.Check) -> tuple[str, str]:
        column = self._value(check.field)
        name, constraint = column.name, check.constraint
        if isinstance(constraint, c.IsNull | c.IsNotNull):
            negated = "NOT " if isinstance(constraint, c.IsNotNull) else ""
            return f"{name} IS {negated}NULL", name
        if not is_about(constraint, column.kind):
            return "false", name
        return _condition(name, constraint), name


_DROPPED: Final = 0
_PASSES: Final = 1
_MISFIT: Final = 2


@dataclass(frozen=True, slots=True)
class _Part:
    """What SQL computes for one reducer: a count, and perhaps what the values come to."""

    sql: tuple[str, ...]
    kept: Callable[[Any], Value]

    def read(self, values: Iterator[Any]) -> Part:
        """The part, from the next columns of a row."""
        count = next(values)
        found = next(values) if len(self.sql) > 1 else None
        return count, None if found is None else self.kept(found)


def _condition(name: str, constraint: Compared) -> str:
    match constraint:
        case c.StringEq() | c.BoolEq() | c.FixedSizeBinaryEq():
            return f"{name} = {_operand(constraint.value)}"
        case c.FloatRange(minimum=low, maximum=high):
            bounds = [(low, ">"), (high, "<")]
            tests = [
                f"{name} {sign}{'=' if end.inclusive else ''} {_operand(end.value)}"
                f" AND NOT isnan({name}) AND NOT isnan({_operand(end.value)})"
                for end, sign in bounds
                if end is not None
            ]
        case c.StringIn() | c.IntIn() | c.Uint64In() | c.FixedSizeBinaryIn():
            listed = ", ".join([_operand(value) for value in constraint.values])
            return f"{name} IN ({listed})" if listed else "false"
        case c.IntRange() | c.Uint64Range() | c.Decimal128Range() | c.Decimal256Range():
            ends = [(constraint.minimum, ">="), (constraint.maximum, "<=")]
            tests = [f"{name} {sign} {end}" for end, sign in ends if end is not None]
        case _:
            assert_never(constraint)
    return " AND ".join(tests) or f"{name} IS NOT NULL"


def _operand(value: float | str | bytes) -> str:
    match value:
        case float():
            return f"TRY_CAST(TRY_CAST({blob(struct.pack('>d', value))} AS BIT) AS DOUBLE)"
        case bytes():
            return blob(value)
        case str():
            return blob(value.encode())
        case _:
            return str(value)


def _literal(scalar: Scalar) -> str:
    return f"({_operand(scalar.value)})::{_sql_type(scalar.kind)}"


def _sql_type(kind: Kind) -> str:
    types = {Kind.FLOAT64: "DOUBLE", Kind.BOOLEAN: "BOOLEAN"}
    return _TYPES.get(kind) or types.get(kind) or "BLOB"


def _names(place: Place | None, *names: str | None) -> tuple[str, ...]:
    """Of these, those that are columns."""
    needs = () if place is None else place.needs
    return tuple([name for name in names if name is not None and name in needs])


def _kept_group(kind: Kind, value: Any) -> Value:
    if kind is Kind.FLOAT64 and value is not None:
        (number_,) = struct.unpack(">d", struct.pack(">q", value))
        return float(number_)
    return _kept(kind, value)


def _kept_extreme(kind: Kind, value: Any) -> Value:
    return from_total_order(value) if kind is Kind.FLOAT64 else _kept(kind, value)


def _kept(kind: Kind, value: Any) -> Value:
    found: Value = value.decode() if kind is Kind.UTF8 and value is not None else value
    return found
