"""Random rows and random requests over them, and values whose NaNs are equal."""

from __future__ import annotations

import math
import struct
from typing import Any

from hypothesis import strategies as st

from exo_stream.reduce import constraints as c
from exo_stream.reduce.checks import check_request
from exo_stream.reduce.expressions import (
    Arithmetic,
    DateTruncDay,
    Expression,
    Field,
    KeyField,
    Lower,
    Operator,
    ValueField,
    ZOrderKeyField,
)
from exo_stream.reduce.kinds import AVERAGED, SUMMED, kind_of, width_of
from exo_stream.reduce.request import GroupOrder, ReduceOp, Reducer, ReduceRequest, ReduceResult
from exo_stream.reduce.scalar import Kind, Scalar
from exo_stream.reduce.stored_row import Cell, CellTag, encode_row

INTEGERS = [0, 1, -1, 2, 7, 86_400_000, (1 << 31) - 1, -(1 << 31), (1 << 63) - 1, -(1 << 63)]
INFINITE = float("inf")
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 3.0, INFINITE, -INFINITE, math.nan, 1e308, -math.nan, 5e-324]
"""Sums of what is finite here are exact enough in any order, or infinite."""
TEXTS = ["", "a", "A", "ÄÖ", "\x00", "x" * 127, "y" * 128, "z" * 300]

_VALUES: dict[CellTag, list[Any]] = {
    CellTag.I64: INTEGERS,
    CellTag.U64: [0, 1, (1 << 64) - 1],
    CellTag.F64: FLOATS,
    CellTag.BOOL: [False, True],
    CellTag.UTF8: TEXTS,
    CellTag.BYTES: [b"", b"ab", b"\xff" * 16, bytes(32)],
    CellTag.LIST: [(Cell(CellTag.I64, 1),)],
}


def _alike(tag: CellTag | None) -> st.SearchStrategy[Cell | None]:
    if tag is None:
        return st.none()
    return st.sampled_from([Cell(tag, value) for value in _VALUES[tag]])


tags = st.none() | st.sampled_from([*list(CellTag)[:6], *list(CellTag)])
cells = tags.flatmap(_alike)


@st.composite
def row_values(draw: st.DrawFn) -> st.SearchStrategy[bytes]:
    """Values that are mostly rows of one table, now and then another row, or none at all."""
    shape = draw(st.lists(tags, max_size=4))
    alike = st.tuples(
        *[_alike(tag) | (st.none() if draw(st.booleans()) else st.nothing()) for tag in shape]
    ).map(encode_row)
    strange = st.one_of(
        st.binary(max_size=12),
        st.lists(cells, max_size=4).map(encode_row),
        alike.map(lambda row: row[:-1]),
        alike.map(lambda row: row + b"\x00"),
        alike.map(lambda row: row.replace(b"\x04\x01", b"\x04\x81\x00")),
        alike.map(lambda row: row.replace(b"a", b"\xff")),
    )
    return st.one_of(alike, alike, alike, strange)


keys = st.one_of(
    st.binary(max_size=3),
    st.sampled_from(INTEGERS).map(lambda n: struct.pack(">Q", n + (1 << 63)) + b"\x01"),
    st.sampled_from(FLOATS).map(lambda x: struct.pack(">d", x) + b"ab"),
    st.binary(min_size=9, max_size=18),
)

_COMMON = (Kind.INT64, Kind.UINT64, Kind.FLOAT64, Kind.BOOLEAN, Kind.UTF8, Kind.DATE32)
kinds = st.sampled_from([*_COMMON * 4, *Kind])


@st.composite
def fields(draw: st.DrawFn) -> Field:
    """A field of any sort, mostly one that some rows have."""
    kind = draw(kinds)
    length = draw(st.sampled_from([0, 1, 2])) if kind is Kind.FIXED_SIZE_BINARY else None
    sort = draw(st.integers(0, 19))
    if sort == 19:
        widths = (width_of(kind, length), draw(st.sampled_from([0, 1])))
        return ZOrderKeyField(draw(st.sampled_from([0, 3])), 0, widths, kind, length)
    if sort >= 14:
        return KeyField(draw(st.sampled_from([*[0] * 6, 8, 64, 5])), kind, length)
    return ValueField(draw(st.integers(0, 4)), kind, draw(st.booleans()), length)


literals = st.one_of(
    st.sampled_from(INTEGERS).map(lambda value: Scalar(Kind.INT64, value)),
    st.sampled_from([0, 3, (1 << 64) - 1]).map(lambda value: Scalar(Kind.UINT64, value)),
    st.sampled_from(FLOATS).map(lambda value: Scalar(Kind.FLOAT64, value)),
    st.just(Scalar(Kind.UTF8, "Ä'")),
    st.just(Scalar(Kind.DATE64, 86_399_999)),
)

expressions: st.SearchStrategy[Expression] = st.recursive(
    st.one_of(fields(), fields(), literals),
    lambda inner: st.one_of(
        *[st.builds(Arithmetic, st.sampled_from(list(Operator)), inner, inner)] * 3,
        st.builds(Lower, inner),
        st.builds(DateTruncDay, inner),
    ),
    max_leaves=3,
)


@st.composite
def read_by_sql(draw: st.DrawFn, kind: Kind | None = None) -> Field:
    """A field that SQL can read, of one kind or another."""
    if kind is None:
        kind = draw(st.sampled_from([*_COMMON, Kind.DATE64, Kind.FIXED_SIZE_BINARY]))
    length = draw(st.sampled_from([0, 1, 2])) if kind is Kind.FIXED_SIZE_BINARY else None
    if kind is not Kind.UTF8 and draw(st.integers(0, 3)) == 0:
        return KeyField(draw(st.sampled_from([0, 0, 0, 8, 64])), kind, length)
    return ValueField(draw(st.integers(0, 3)), kind, draw(st.booleans()), length)


@st.composite
def computed_by_sql(draw: st.DrawFn) -> Expression:
    """Arithmetic of two numbers, or a date cut to its day."""
    if draw(st.integers(0, 4)) == 0:
        return DateTruncDay(draw(read_by_sql(draw(st.sampled_from([Kind.DATE32, Kind.DATE64])))))
    kind = draw(st.sampled_from([Kind.INT64, Kind.UINT64, Kind.FLOAT64]))
    operands = st.one_of(
        read_by_sql(kind), read_by_sql(kind), literals.filter(lambda scalar: scalar.kind is kind)
    )
    left: Expression = draw(operands)
    if draw(st.booleans()):
        left = Arithmetic(draw(st.sampled_from(list(Operator)[:3])), left, draw(operands))
    right = draw(operands)
    if kind is Kind.FLOAT64 and draw(st.booleans()):
        right = draw(read_by_sql(draw(st.sampled_from([Kind.INT64, Kind.UINT64]))))
    return Arithmetic(draw(st.sampled_from(list(Operator))), left, right)


sql_expressions: st.SearchStrategy[Expression] = st.one_of(
    read_by_sql(), read_by_sql(), literals, computed_by_sql()
)


def _bounds(values: list[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.sampled_from(values)


constraints: st.SearchStrategy[c.Constraint] = st.one_of(
    st.sampled_from([c.IsNull(), c.IsNotNull(), c.BoolEq(value=True), c.StringIn(())]),
    st.builds(c.StringEq, st.sampled_from(TEXTS)),
    st.builds(c.FixedSizeBinaryEq, st.sampled_from([b"", b"ab"])),
    st.builds(c.IntRange, _bounds(INTEGERS), _bounds(INTEGERS)),
    st.builds(c.Uint64Range, _bounds([0, 2]), _bounds([1, (1 << 64) - 1])),
    st.builds(
        c.FloatRange,
        st.none() | st.builds(c.FloatBound, st.sampled_from(FLOATS), st.booleans()),
        st.none() | st.builds(c.FloatBound, st.sampled_from(FLOATS), st.booleans()),
    ),
    st.builds(c.Decimal128Range, _bounds([0]), _bounds([1 << 100])),
    st.builds(c.Decimal256Range, _bounds([0]), _bounds([1 << 200])),
    st.builds(c.StringIn, st.tuples(st.sampled_from(TEXTS), st.sampled_from(TEXTS))),
    st.builds(c.IntIn, st.tuples(st.sampled_from(INTEGERS), st.sampled_from(INTEGERS))),
    st.builds(c.Uint64In, st.just((0, 1, (1 << 64) - 1))),
    st.builds(c.FixedSizeBinaryIn, st.just((b"", b"ab", b"a"))),
)


@st.composite
def reducers(draw: st.DrawFn, some: st.SearchStrategy[Expression]) -> Reducer:
    """Any that is allowed."""
    expr = draw(some)
    kind = kind_of(expr)
    allowed = [ReduceOp.COUNT_FIELD, ReduceOp.MIN_FIELD, ReduceOp.MAX_FIELD]
    if kind is None or kind in SUMMED:
        allowed.append(ReduceOp.SUM_FIELD)
    if kind is None or kind in AVERAGED:
        allowed.append(ReduceOp.AVG_FIELD)
    return draw(
        st.sampled_from([Reducer(ReduceOp.COUNT_ALL), *(Reducer(op, expr) for op in allowed)])
    )


@st.composite
def requests(draw: st.DrawFn, *, by_sql: bool = False) -> ReduceRequest:
    """Any that is allowed; ``by_sql`` only those that SQL can do."""
    values = sql_expressions if by_sql else expressions
    some = tuple(draw(st.lists(reducers(values), max_size=3)))
    group_by = tuple(draw(st.lists(values, min_size=not some, max_size=2)))
    checked = read_by_sql() if by_sql else fields()
    checks = draw(st.lists(st.builds(c.Check, checked, constraints), max_size=2))
    filter_ = draw(st.sampled_from([None, c.Filter(tuple(checks)), c.Filter(tuple(checks))]))
    order_by = (GroupOrder(group=0, descending=draw(st.booleans())),) if group_by else ()
    limit = draw(st.none() | st.integers(0, 3)) if group_by else None
    request = ReduceRequest(some, group_by, filter_, draw(st.sampled_from([(), order_by])), limit)
    check_request(request)
    return request


def comparable(result: ReduceResult) -> object:
    """The result, with all its floats as text: one NaN equals another, and 0.1 + 0.2 is 0.3."""
    return (
        [_comparable(scalar) for scalar in result.results],
        [
            ([_comparable(s) for s in group.group_values], [_comparable(s) for s in group.results])
            for group in result.groups
        ],
        result.read_stats,
    )


def _comparable(scalar: Scalar | None) -> object:
    if scalar is None or not isinstance(scalar.value, float):
        return scalar
    return f"{scalar.value + 0.0:.12g}"
