"""Requests as SQL: every sort of field, expression, constraint and reducer, on one small file."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from exo_stream.limits import Limits
from exo_stream.model import Entry, Keyspace
from exo_stream.reduce import constraints as c
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
from exo_stream.reduce.key_values import encode_ordered
from exo_stream.reduce.reduction import Reduction
from exo_stream.reduce.request import ReduceOp, Reducer, ReduceRequest
from exo_stream.reduce.scalar import Kind, Scalar
from exo_stream.reduce.stored_row import Cell, CellTag, StoredRow, encode_row
from exo_stream.storage.duckdb_engine import DuckDBEngine, open_duckdb_engine
from exo_stream.storage.reduce_sql import STEPS_MAX, is_pushable
from exo_stream.storage.table_reduce import TableReduce
from tests.tables import work, write
from tests.test_table_reduce import HIGH, LOW, SMALL, by_hand, outcome

INFINITE = float("inf")
FLOATS = (0.5, -0.0, math.nan, -INFINITE, 2.0, 1e308)
KINDS = (
    Kind.INT64,
    Kind.UINT64,
    Kind.FLOAT64,
    Kind.BOOLEAN,
    Kind.UTF8,
    Kind.DATE32,
    Kind.DATE64,
    Kind.TIMESTAMP,
    Kind.FIXED_SIZE_BINARY,
)
CELL_OF = {
    Kind.UINT64: 1,
    Kind.FLOAT64: 2,
    Kind.BOOLEAN: 3,
    Kind.UTF8: 4,
    Kind.FIXED_SIZE_BINARY: 5,
}
"""Which cell of a row has it; an integer is in the first."""


def key(number: int) -> bytes:
    parts = (
        Scalar(Kind.INT64, number - 6),
        Scalar(Kind.FLOAT64, FLOATS[number % len(FLOATS)]),
        Scalar(Kind.DATE32, -number),
        Scalar(Kind.BOOLEAN, number % 2 == 0),
    )
    return b"".join(map(encode_ordered, parts))[: 21 if number % 7 else 15]


def cells(number: int) -> StoredRow:
    row: StoredRow = [
        Cell(CellTag.I64, (number - 6) * (1 << 40 if number % 5 == 0 else 1)),
        Cell(CellTag.U64, number),
        Cell(CellTag.F64, FLOATS[number % len(FLOATS)]),
        Cell(CellTag.BOOL, number % 3 == 0),
        Cell(CellTag.UTF8, "äÖ"[: number % 3] * number),
        Cell(CellTag.BYTES, b"ab"[: 2 - (number % 4 == 3)]),
    ]
    if number % 4 == 1:
        row[number % 6] = None
    return row


TABLE = {key(number): encode_row(cells(number)) for number in range(40)}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBEngine]:
    path = tmp_path_factory.mktemp("reduced") / "x.duckdb"
    engine = open_duckdb_engine(path, limits=SMALL)
    pairs = list(TABLE.items())
    for at in range(0, 40, 8):
        write(engine, [Entry(Keyspace.STORE, *pair) for pair in pairs[at : at + 8]])
        work(engine)
    yield engine
    engine.close()


def agree(engine: DuckDBEngine, request: ReduceRequest) -> object:
    assert is_pushable(request)
    reducing = engine.open_reduce(engine.version, LOW, HIGH, Reduction(request, Limits()))
    assert isinstance(reducing, TableReduce)
    found = outcome(engine, reducing)
    assert found == by_hand(TABLE, request)
    return found


def value_field(kind: Kind, *, nullable: bool = True) -> ValueField:
    length = 2 if kind is Kind.FIXED_SIZE_BINARY else None
    return ValueField(CELL_OF.get(kind, 0), kind, nullable, length)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nullable", [True, False])
def test_value_fields_are_reduced_and_grouped(
    engine: DuckDBEngine, kind: Kind, *, nullable: bool
) -> None:
    field = value_field(kind, nullable=nullable)
    ops = [ReduceOp.COUNT_FIELD, ReduceOp.MIN_FIELD, ReduceOp.MAX_FIELD]
    if kind in (Kind.INT64, Kind.UINT64, Kind.FLOAT64):
        ops += [ReduceOp.SUM_FIELD, ReduceOp.AVG_FIELD]
    reducers = (Reducer(ReduceOp.COUNT_ALL), *(Reducer(op, field) for op in ops))

    found = str(agree(engine, ReduceRequest(reducers)))
    assert not found.startswith("([Scalar(kind=<Kind.UINT64: 1>, value=0)"), found
    agree(engine, ReduceRequest(reducers, (field,)))


@pytest.mark.parametrize(
    "field",
    [
        KeyField(0, Kind.INT64),
        KeyField(0, Kind.UINT64),
        KeyField(64, Kind.FLOAT64),
        KeyField(128, Kind.DATE32),
        KeyField(160, Kind.BOOLEAN),
        KeyField(0, Kind.TIMESTAMP),
        KeyField(8, Kind.FIXED_SIZE_BINARY, 9),
        KeyField(168, Kind.FIXED_SIZE_BINARY, 0),
        KeyField(800, Kind.INT64),
        ValueField(9, Kind.INT64, nullable=True),
        ValueField(4, Kind.INT64, nullable=True),
        ValueField(4, Kind.INT64),
        ValueField(0, Kind.FLOAT64, nullable=True),
    ],
)
def test_key_fields_and_cells_of_other_types(engine: DuckDBEngine, field: Field) -> None:
    ops = (ReduceOp.COUNT_FIELD, ReduceOp.MIN_FIELD, ReduceOp.MAX_FIELD)

    agree(engine, ReduceRequest(tuple(Reducer(op, field) for op in ops)))
    agree(engine, ReduceRequest((Reducer(ReduceOp.COUNT_ALL),), (field,)))


INT, UINT, REAL = (value_field(kind) for kind in (Kind.INT64, Kind.UINT64, Kind.FLOAT64))


@pytest.mark.parametrize(
    "expression",
    [
        Arithmetic(Operator.ADD, INT, Scalar(Kind.INT64, (1 << 63) - 3)),
        Arithmetic(Operator.MUL, INT, INT),
        Arithmetic(Operator.SUB, UINT, Scalar(Kind.UINT64, 20)),
        Arithmetic(Operator.MUL, UINT, Scalar(Kind.UINT64, (1 << 64) - 1)),
        Arithmetic(Operator.DIV, INT, INT),
        Arithmetic(Operator.DIV, REAL, Scalar(Kind.FLOAT64, -0.0)),
        Arithmetic(Operator.MUL, REAL, REAL),
        Arithmetic(Operator.ADD, REAL, Arithmetic(Operator.SUB, UINT, UINT)),
        DateTruncDay(value_field(Kind.DATE64)),
        DateTruncDay(value_field(Kind.DATE32)),
        DateTruncDay(Scalar(Kind.TIMESTAMP, -(1 << 63))),
        Scalar(Kind.UTF8, "it's"),
        Scalar(Kind.BOOLEAN, value=True),
    ],
)
def test_expressions(engine: DuckDBEngine, expression: Expression) -> None:
    agree(engine, ReduceRequest((Reducer(ReduceOp.MAX_FIELD, expression),)))
    agree(engine, ReduceRequest((Reducer(ReduceOp.COUNT_ALL),), (expression,)))


@pytest.mark.parametrize(
    ("constraint", "field"),
    [
        (c.IsNull(), INT),
        (c.IsNotNull(), INT),
        (c.StringEq("ä"), value_field(Kind.UTF8)),
        (c.StringIn(("ä", "")), value_field(Kind.UTF8)),
        (c.StringIn(()), value_field(Kind.UTF8)),
        (c.BoolEq(value=True), value_field(Kind.BOOLEAN)),
        (c.FixedSizeBinaryEq(b"ab"), value_field(Kind.FIXED_SIZE_BINARY)),
        (c.FixedSizeBinaryIn((b"ab",)), value_field(Kind.FIXED_SIZE_BINARY)),
        (c.IntRange(-3, 5), INT),
        (c.IntRange(), INT),
        (c.IntIn((-1, 2)), value_field(Kind.DATE32)),
        (c.Uint64Range(3, (1 << 64) - 1), UINT),
        (c.Uint64In((3, 4)), UINT),
        (c.FloatRange(c.FloatBound(0.0), c.FloatBound(2.0, inclusive=False)), REAL),
        (c.FloatRange(c.FloatBound(math.nan)), REAL),
        (c.FloatRange(), REAL),
        (c.Decimal128Range(0), INT),
        (c.StringEq("ä"), INT),
        (c.IntRange(0), KeyField(0, Kind.INT64)),
    ],
)
def test_constraints(engine: DuckDBEngine, constraint: c.Constraint, field: Field) -> None:
    filter_ = c.Filter((c.Check(field, constraint),))

    agree(engine, ReduceRequest((Reducer(ReduceOp.COUNT_ALL),), filter=filter_))


@pytest.mark.parametrize(
    "expression",
    [
        Lower(value_field(Kind.UTF8)),
        KeyField(0, Kind.UTF8),
        KeyField(3, Kind.INT64),
        ValueField(0, Kind.DECIMAL128),
        Scalar(Kind.DECIMAL256, 1),
        ZOrderKeyField(0, 0, (8,), Kind.INT64),
        Arithmetic(Operator.ADD, INT, UINT),
        Arithmetic(Operator.ADD, INT, Arithmetic(Operator.ADD, UINT, UINT)),
        DateTruncDay(INT),
    ],
)
def test_what_sql_cannot_read_is_left_to_the_pages(
    engine: DuckDBEngine, expression: Expression
) -> None:
    request = ReduceRequest((Reducer(ReduceOp.MIN_FIELD, expression),))

    assert not is_pushable(request)
    reducing = engine.open_reduce(engine.version, LOW, HIGH, Reduction(request, Limits()))
    assert outcome(engine, reducing) == by_hand(TABLE, request)


def test_a_request_of_very_many_parts_is_not_made_sql() -> None:
    field = value_field(Kind.INT64)
    several = tuple(Reducer(ReduceOp.COUNT_FIELD, field) for _ in range(STEPS_MAX))

    assert is_pushable(ReduceRequest(several))
    assert not is_pushable(ReduceRequest(several, (field,)))
