"""Reducing rows one by one: fields, expressions, constraints, reducers and groups."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, Final

import pytest

from exo_stream.errors import LimitExceededError
from exo_stream.limits import Limits
from exo_stream.read_stats import ReadStats
from exo_stream.reduce import constraints as c
from exo_stream.reduce.accumulators import (
    Average,
    Count,
    Extreme,
    Sum,
    from_total_order,
    total_order,
)
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
from exo_stream.reduce.grouping import canonical
from exo_stream.reduce.key_values import encode_ordered, interleave
from exo_stream.reduce.kinds import kind_of
from exo_stream.reduce.reduction import Reduction
from exo_stream.reduce.request import GroupOrder, ReduceOp, Reducer, ReduceRequest
from exo_stream.reduce.scalar import InvalidReduceError, Kind, Scalar
from exo_stream.reduce.stored_row import Cell, CellTag, StoredRow, encode_row

COUNT: Final = Reducer(ReduceOp.COUNT_ALL)
INFINITE: Final = float("inf")


def i64(value: int) -> Cell:
    return Cell(CellTag.I64, value)


def f64(value: float) -> Cell:
    return Cell(CellTag.F64, value)


def utf8(value: str) -> Cell:
    return Cell(CellTag.UTF8, value)


def binary(value: bytes) -> Cell:
    return Cell(CellTag.BYTES, value)


def evaluated(expression: Expression, row: StoredRow | bytes = b"", key: bytes = b"") -> object:
    """What an expression makes of one row, by the groups it makes: "skipped", or a value."""
    reduction = Reduction(ReduceRequest((), (expression,)), Limits())
    reduction.add_rows([(key, row if isinstance(row, bytes) else encode_row(row))])
    groups = reduction.result(1).groups
    if not groups:
        return "skipped"
    [scalar] = groups[0].group_values
    if scalar is None:
        return None
    assert scalar.kind is kind_of(expression)
    return scalar.value


def passes(constraint: c.Constraint, field: Field, row: StoredRow, key: bytes = b"") -> bool:
    request = ReduceRequest((COUNT,), filter=c.Filter((c.Check(field, constraint),)))
    reduction = Reduction(request, Limits())
    reduction.add_rows([(key, encode_row(row))])
    return reduction.result(1).results == (Scalar(Kind.UINT64, 1),)


# --- fields -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind.INT64, -3),
        (Kind.UINT64, 1 << 63),
        (Kind.FLOAT64, -1.5),
        (Kind.BOOLEAN, True),
        (Kind.UTF8, "id"),
        (Kind.DATE32, -1),
        (Kind.DATE64, 7),
        (Kind.TIMESTAMP, 8),
        (Kind.DECIMAL128, -(1 << 100)),
        (Kind.DECIMAL256, 1 << 200),
    ],
)
@pytest.mark.parametrize("shift", [0, 8, 3])
def test_a_key_field_begins_at_a_bit_of_the_whole_key(kind: Kind, value: Any, shift: int) -> None:
    """Trap 9: the offset is that of the physical key, not of a payload in it."""
    data = encode_ordered(Scalar(kind, value))
    whole = 8 * (len(data) + 2)
    key = (int.from_bytes(data, "big") << (16 - shift)).to_bytes(whole // 8, "big")

    assert evaluated(KeyField(shift, kind), key=key) == value
    assert evaluated(KeyField(whole, kind), key=key) == "skipped"


def test_a_binary_field_has_the_length_it_says() -> None:
    assert evaluated(KeyField(8, Kind.FIXED_SIZE_BINARY, 2), key=b"abcd") == b"bc"
    assert evaluated(KeyField(32, Kind.FIXED_SIZE_BINARY, 0), key=b"abcd") == b""
    field = ValueField(0, Kind.FIXED_SIZE_BINARY, fixed_size_binary_len=2)
    assert evaluated(field, [binary(b"ab")]) == b"ab"
    assert evaluated(field, [binary(b"abc")]) == "skipped"


def test_a_text_in_a_key_that_is_no_text_skips_its_row() -> None:
    assert evaluated(KeyField(0, Kind.UTF8), key=b"\xff" * 16) == "skipped"


def test_z_order_fields_are_found_among_the_bits() -> None:
    """Trap 9: the widths are bytes."""
    numbers = [Scalar(Kind.INT64, -5), Scalar(Kind.DATE32, 9)]
    key = b"p" + interleave([encode_ordered(number) for number in numbers])
    first = ZOrderKeyField(8, 0, (8, 4), Kind.INT64)
    second = ZOrderKeyField(8, 1, (8, 4), Kind.DATE32)

    assert evaluated(first, key=key) == -5
    assert evaluated(second, key=key) == 9
    assert evaluated(second, key=key[:-1]) == "skipped"
    assert passes(c.IntRange(9, 9), second, [], key)
    assert not passes(c.IntRange(10), second, [], key)


@pytest.mark.parametrize(
    ("kind", "cell", "value"),
    [
        (Kind.INT64, i64(-1), -1),
        (Kind.UINT64, Cell(CellTag.U64, 1 << 63), 1 << 63),
        (Kind.FLOAT64, f64(0.5), 0.5),
        (Kind.FLOAT64, i64(3), 3.0),
        (Kind.BOOLEAN, Cell(CellTag.BOOL, False), False),
        (Kind.UTF8, utf8("ä"), "ä"),
        (Kind.DATE32, i64(5), 5),
        (Kind.DATE32, i64((1 << 31) - 1), (1 << 31) - 1),
        (Kind.DATE32, i64(1 << 31), "skipped"),
        (Kind.DATE64, i64(1 << 40), 1 << 40),
        (Kind.TIMESTAMP, i64(1 << 41), 1 << 41),
        (Kind.DECIMAL128, binary((-9).to_bytes(16, "little", signed=True)), -9),
        (Kind.DECIMAL128, binary(b"short"), "skipped"),
        (Kind.DECIMAL256, binary((9).to_bytes(32, "little")), 9),
        (Kind.INT64, f64(1.0), "skipped"),
        (Kind.UTF8, binary(b"a"), "skipped"),
        (Kind.INT64, None, "skipped"),
    ],
)
def test_a_value_field_is_read_from_a_cell_of_its_type(
    kind: Kind, cell: Cell | None, value: object
) -> None:
    assert evaluated(ValueField(1, kind), [None, cell]) == value
    assert evaluated(ValueField(2, kind), [None, cell]) == "skipped"
    nullable = ValueField(0, kind, nullable=True)
    assert evaluated(nullable, [None]) is None
    assert evaluated(nullable, b"no row") == "skipped"


# --- expressions ------------------------------------------------------------------------------

INT = ValueField(0, Kind.INT64, nullable=True)
FLOAT = ValueField(1, Kind.FLOAT64, nullable=True)
UINT = ValueField(2, Kind.UINT64, nullable=True)


@pytest.mark.parametrize(
    ("operator", "left", "right", "expected"),
    [
        (Operator.ADD, INT, INT, 14),
        (Operator.SUB, INT, Scalar(Kind.INT64, 9), -2),
        (Operator.MUL, INT, Scalar(Kind.INT64, 3), 21),
        (Operator.DIV, INT, Scalar(Kind.INT64, 2), 3.5),
        (Operator.ADD, INT, FLOAT, 7.5),
        (Operator.MUL, UINT, FLOAT, 2.0),
        (Operator.SUB, UINT, UINT, 0),
        (Operator.ADD, INT, Scalar(Kind.INT64, (1 << 63) - 1), "skipped"),
        (Operator.SUB, Scalar(Kind.UINT64, 1), UINT, "skipped"),
        (Operator.ADD, INT, UINT, "skipped"),
        (Operator.ADD, INT, Scalar(Kind.UTF8, "x"), "skipped"),
        (Operator.DIV, INT, Scalar(Kind.INT64, 0), "skipped"),
        (Operator.DIV, FLOAT, Scalar(Kind.FLOAT64, 0.0), "skipped"),
        (Operator.DIV, FLOAT, Scalar(Kind.FLOAT64, -0.0), "skipped"),
        (Operator.MUL, Scalar(Kind.FLOAT64, 1e308), Scalar(Kind.FLOAT64, 1e308), INFINITE),
    ],
)
def test_arithmetic(
    operator: Operator, left: Expression, right: Expression, expected: object
) -> None:
    row: StoredRow = [i64(7), f64(0.5), Cell(CellTag.U64, 4)]

    assert evaluated(Arithmetic(operator, left, right), row) == expected


def test_an_operand_that_is_null_makes_a_null_and_no_error() -> None:
    row: StoredRow = [None, f64(1.0), None]

    assert evaluated(Arithmetic(Operator.ADD, INT, FLOAT), row) is None
    assert evaluated(Arithmetic(Operator.ADD, FLOAT, INT), row) is None
    assert evaluated(Arithmetic(Operator.ADD, INT, UINT), row) is None
    assert evaluated(Lower(ValueField(0, Kind.UTF8, nullable=True)), row) is None
    assert evaluated(DateTruncDay(ValueField(0, Kind.DATE64, nullable=True)), row) is None


def test_lower_is_of_texts_only_and_knows_unicode() -> None:
    assert evaluated(Lower(ValueField(0, Kind.UTF8)), [utf8("ÄB")]) == "äb"
    assert evaluated(Lower(INT), [i64(1)]) == "skipped"


@pytest.mark.parametrize(
    ("kind", "value", "day"),
    [
        (Kind.DATE32, -3, -3),
        (Kind.DATE64, 86_400_001, 86_400_000),
        (Kind.DATE64, -1, -86_400_000),
        (Kind.TIMESTAMP, 86_400_000_000 - 1, 0),
        (Kind.TIMESTAMP, 3 * 86_400_000_000 + 1, 3 * 86_400_000_000),
        (Kind.TIMESTAMP, -(1 << 63), "skipped"),
        (Kind.INT64, 5, "skipped"),
    ],
)
def test_a_date_is_cut_to_its_day(kind: Kind, value: int, day: object) -> None:
    assert evaluated(DateTruncDay(ValueField(0, kind)), [i64(value)]) == day


# --- constraints ------------------------------------------------------------------------------

TEXT = ValueField(0, Kind.UTF8, nullable=True)
BOOL = ValueField(0, Kind.BOOLEAN, nullable=True)
BINARY = ValueField(0, Kind.FIXED_SIZE_BINARY, nullable=True, fixed_size_binary_len=2)
REAL = ValueField(0, Kind.FLOAT64, nullable=True)
NATURAL = ValueField(0, Kind.UINT64, nullable=True)
DAY = ValueField(0, Kind.DATE32, nullable=True)
DECIMAL = ValueField(0, Kind.DECIMAL128, nullable=True)
WIDE = ValueField(0, Kind.DECIMAL256, nullable=True)


@pytest.mark.parametrize(
    ("constraint", "field", "in_", "out"),
    [
        (c.StringEq("a"), TEXT, utf8("a"), utf8("A")),
        (c.BoolEq(value=True), BOOL, Cell(CellTag.BOOL, True), Cell(CellTag.BOOL, False)),
        (c.FixedSizeBinaryEq(b"ab"), BINARY, binary(b"ab"), binary(b"ba")),
        (c.IntRange(1, 3), INT, i64(1), i64(4)),
        (c.IntRange(None, 3), INT, i64(-9), i64(4)),
        (c.IntRange(2), DAY, i64(2), i64(1)),
        (c.Uint64Range(1, 3), NATURAL, Cell(CellTag.U64, 3), Cell(CellTag.U64, 0)),
        (c.FloatRange(c.FloatBound(1.0), c.FloatBound(2.0)), REAL, f64(2.0), f64(2.5)),
        (c.FloatRange(c.FloatBound(1.0, inclusive=False)), REAL, f64(1.5), f64(1.0)),
        (c.FloatRange(None, c.FloatBound(2.0, inclusive=False)), REAL, f64(-1.0), f64(2.0)),
        (c.FloatRange(c.FloatBound(-INFINITE)), REAL, f64(0.0), f64(math.nan)),
        (
            c.Decimal128Range(-1, 1),
            DECIMAL,
            binary(bytes(16)),
            binary((2).to_bytes(16, "little")),
        ),
        (c.Decimal256Range(2), WIDE, binary((2).to_bytes(32, "little")), binary(bytes(32))),
        (c.StringIn(("a", "b")), TEXT, utf8("b"), utf8("c")),
        (c.IntIn((1, 2)), INT, i64(2), i64(3)),
        (c.Uint64In((1, 2)), NATURAL, Cell(CellTag.U64, 2), Cell(CellTag.U64, 3)),
        (c.FixedSizeBinaryIn((b"ab",)), BINARY, binary(b"ab"), binary(b"xx")),
    ],
)
def test_a_row_passes_what_it_satisfies_and_a_null_passes_nothing(
    constraint: c.Constraint, field: Field, in_: Cell, out: Cell
) -> None:
    assert passes(constraint, field, [in_])
    assert not passes(constraint, field, [out])
    assert not passes(constraint, field, [None])
    other = ValueField(0, Kind.INT64 if field.kind is Kind.UTF8 else Kind.UTF8)
    assert not passes(constraint, other, [utf8("a") if other.kind is Kind.UTF8 else i64(1)])


DAYS = [ValueField(0, kind) for kind in (Kind.DATE32, Kind.DATE64, Kind.TIMESTAMP)]


@pytest.mark.parametrize(
    ("constraint", "fields", "among"),
    [
        (c.IntRange(1, 3), [INT, *DAYS], {1, 2, 3}),
        (c.IntRange(maximum=1), [INT, *DAYS], {-1, 0, 1}),
        (c.IntRange(3), [INT, *DAYS], {3, 4}),
        (c.IntIn((1, 3)), [INT, *DAYS], {1, 3}),
        (c.Uint64Range(1, 3), [NATURAL], {1, 2, 3}),
        (c.Uint64Range(maximum=1), [NATURAL], {0, 1}),
        (c.Decimal128Range(-1, 1), [DECIMAL], {-1, 0, 1}),
        (c.Decimal256Range(-1, 1), [WIDE], {-1, 0, 1}),
        (c.Decimal256Range(maximum=0), [WIDE], {-1, 0}),
        (c.FloatRange(c.FloatBound(1), c.FloatBound(3)), [REAL], {1, 2, 3}),
        (
            c.FloatRange(c.FloatBound(1, inclusive=False), c.FloatBound(3, inclusive=False)),
            [REAL],
            {2},
        ),
    ],
)
def test_the_ends_of_a_range_are_in_it_unless_it_says_otherwise(
    constraint: c.Constraint, fields: Sequence[ValueField], among: set[int]
) -> None:
    def cell(kind: Kind, number: int) -> Cell:
        match kind:
            case Kind.UINT64:
                return Cell(CellTag.U64, number)
            case Kind.FLOAT64:
                return f64(number)
            case Kind.DECIMAL128 | Kind.DECIMAL256:
                width = 16 if kind is Kind.DECIMAL128 else 32
                return binary(number.to_bytes(width, "little", signed=True))
            case _:
                return i64(number)

    for field in fields:
        numbers = range(0 if field.kind is Kind.UINT64 else -1, 5)
        assert {n for n in numbers if passes(constraint, field, [cell(field.kind, n)])} == among


def test_nulls_can_be_asked_for() -> None:
    assert passes(c.IsNull(), INT, [None])
    assert not passes(c.IsNull(), INT, [i64(1)])
    assert passes(c.IsNotNull(), INT, [i64(1)])
    assert not passes(c.IsNotNull(), INT, [None])
    assert passes(c.FloatRange(), REAL, [f64(math.nan)])


def test_a_field_that_cannot_be_read_does_not_pass_and_all_checks_must() -> None:
    assert not passes(c.IsNull(), ValueField(9, Kind.INT64, nullable=True), [i64(1)])
    two = (c.Check(INT, c.IntRange(1)), c.Check(INT, c.IntRange(None, 2)))
    reduction = Reduction(ReduceRequest((COUNT,), filter=c.Filter(two)), Limits())
    reduction.add_rows([(b"", encode_row([i64(number)])) for number in range(5)])

    assert reduction.result(1).results == (Scalar(Kind.UINT64, 2),)


def test_a_contradiction_passes_nothing() -> None:
    request = ReduceRequest((COUNT,), filter=c.Filter(contradiction=True))
    reduction = Reduction(request, Limits())
    reduction.add_rows([(b"", b"")])

    assert reduction.result(1).results == (Scalar(Kind.UINT64, 0),)


# --- reducers and groups ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind.DECIMAL128, Kind.DECIMAL256])
def test_decimals_are_summed_and_have_their_own_bounds(kind: Kind) -> None:
    width = 16 if kind is Kind.DECIMAL128 else 32
    most = (1 << 8 * width - 1) - 1
    request = ReduceRequest((Reducer(ReduceOp.SUM_FIELD, ValueField(0, kind)),))
    reduction = Reduction(request, Limits())
    values = [most, 1, -2]
    rows = [binary(value.to_bytes(width, "little", signed=True)) for value in values]
    reduction.add_rows([(b"", encode_row([row])) for row in rows[:2]])

    with pytest.raises(InvalidReduceError, match="does not fit"):
        reduction.result(1)
    reduction.add_rows([(b"", encode_row([rows[2]]))])
    assert reduction.result(1).results == (Scalar(kind, most - 1),)


def test_a_sum_may_be_the_least_there_is_and_a_group_of_zeros_has_no_sign() -> None:
    total = Sum(Kind.INT64, "")
    total.add(-(1 << 63))
    assert total.result() == Scalar(Kind.INT64, -(1 << 63))
    assert repr(canonical(-0.0)) == "0.0"


def test_extremes_of_floats_stand_in_total_order() -> None:
    floats = [0.0, -0.0, math.nan, -INFINITE, 5e-324]
    for extreme, expected in ((ReduceOp.MIN_FIELD, -INFINITE), (ReduceOp.MAX_FIELD, math.nan)):
        reduction = Reduction(ReduceRequest((Reducer(extreme, REAL),)), Limits())
        reduction.add_rows([(b"", encode_row([f64(number)])) for number in floats])
        [scalar] = reduction.result(1).results
        assert scalar is not None
        assert repr(scalar.value) == repr(expected)
    assert sorted(floats, key=total_order)[1:3] == [0.0, 0.0]
    assert struct.pack(">d", sorted(floats, key=total_order)[1]) == struct.pack(">d", -0.0)
    assert [from_total_order(total_order(number)) for number in floats[3:]] == floats[3:]


def test_values_of_another_type_are_refused_by_what_adds_and_compares_them() -> None:
    """Trap 7: where the Exoware store adopts the first value unchecked, nothing is."""
    total = Sum(Kind.INT64, "reducers[0]")
    with pytest.raises(InvalidReduceError):
        total.add("text")
    with pytest.raises(InvalidReduceError):
        Sum(Kind.FLOAT64, "reducers[0]").add(1)
    least = Extreme(Kind.INT64, "reducers[0]", greatest=False)
    least.add(1)
    with pytest.raises(InvalidReduceError):
        least.add("text")


def test_parts_count_like_the_rows_they_stand_for() -> None:
    count, total, mean = Count(), Sum(Kind.INT64, ""), Average()
    most = Extreme(Kind.INT64, "", greatest=True)
    for accumulator in (count, total, mean, most):
        accumulator.add(None)
        accumulator.add_part(0, None)
    assert [total.result(), mean.result(), most.result()] == [None, None, None]

    for accumulator in (count, total, mean, most):
        accumulator.add(2)
        accumulator.add_part(3, 7)
    assert count.result() == Scalar(Kind.UINT64, 4)
    assert total.result() == Scalar(Kind.INT64, 9)
    assert mean.result() == Scalar(Kind.FLOAT64, 9 / 4)
    assert most.result() == Scalar(Kind.INT64, 7)
    assert (count.size, total.size, mean.size, most.size) == (0, 0, 0, 0)


def test_reducers_over_what_never_has_a_value_have_no_results() -> None:
    never = Arithmetic(Operator.ADD, INT, UINT)
    ops = [op for op in ReduceOp if op is not ReduceOp.COUNT_ALL]
    reduction = Reduction(ReduceRequest(tuple(Reducer(op, never) for op in ops)), Limits())
    reduction.add_rows([(b"", encode_row([None, None, None]))])

    assert reduction.result(1).results == (Scalar(Kind.UINT64, 0), None, None, None, None)


def test_an_order_of_ones_own_has_nulls_before_everything() -> None:
    def groups(*order_by: GroupOrder, limit: int | None = None) -> list[object]:
        request = ReduceRequest((Reducer(ReduceOp.MIN_FIELD, REAL),), (INT,), None, order_by, limit)
        reduction = Reduction(request, Limits())
        for number, value in ((1, 0.5), (-1, -0.0), (2, 0.5), (None, 0.0)):
            cell = None if number is None else i64(number)
            # REAL reads cell 0 as well: an integer is a float there.
            reduction.add_rows([(b"", encode_row([cell, f64(value)]))])
        values = [group.group_values[0] for group in reduction.result(1).groups]
        return [None if scalar is None else scalar.value for scalar in values]

    assert groups() == [None, 1, 2, -1]
    assert groups(GroupOrder(group=0)) == [None, -1, 1, 2]
    assert groups(GroupOrder(group=0, descending=True)) == [2, 1, -1, None]
    assert groups(GroupOrder(result=0, descending=True), limit=2) == [2, 1]
    assert groups(limit=0) == []


def test_what_a_reduction_holds_is_bounded() -> None:
    few = Limits(reduce_groups_max=2)
    reduction = Reduction(ReduceRequest((), (KeyField(0, Kind.FIXED_SIZE_BINARY, 1),)), few)
    reduction.add_rows([(b"a", b""), (b"b", b""), (b"a", b"")])
    with pytest.raises(LimitExceededError) as caught:
        reduction.add_rows([(b"c", b"")])
    assert caught.value.limit == "reduce_groups_max"

    small = Limits(reduce_bytes_max=2_000)
    longest = ReduceRequest((Reducer(ReduceOp.MAX_FIELD, TEXT),))
    reduction = Reduction(longest, small)
    reduction.add_rows([(b"", encode_row([utf8("a" * 1_000)]))])
    with pytest.raises(LimitExceededError) as caught:
        reduction.add_rows([(b"", encode_row([utf8("b" * 2_000)]))])
    assert caught.value.limit == "reduce_bytes_max"

    reduction = Reduction(ReduceRequest((), (TEXT,)), small)
    with pytest.raises(LimitExceededError):
        reduction.add_rows([(b"", encode_row([utf8("b" * 2_000)]))])


def test_every_row_that_is_read_counts_as_read() -> None:
    reduction = Reduction(ReduceRequest((Reducer(ReduceOp.SUM_FIELD, INT),)), Limits())
    reduction.add_rows([(b"key", b"no row")])
    reduction.count_read(10)

    assert reduction.result(3).read_stats == ReadStats(19)
    assert ReadStats(1) + ReadStats(2) == ReadStats(3)
    assert ReadStats.of_pairs([(b"ab", b"c"), (b"miss", None)]) == ReadStats(7)


def test_count_all_needs_no_value_and_counts_what_cannot_be_decoded() -> None:
    family = KeyField(0, Kind.FIXED_SIZE_BINARY, 1)
    passes_family = c.Filter((c.Check(family, c.FixedSizeBinaryEq(b"a")),))
    assert not Reduction(ReduceRequest((COUNT,), (family,), passes_family), Limits()).needs_value
    for expression in (Lower(TEXT), Arithmetic(Operator.ADD, Scalar(Kind.INT64, 1), INT)):
        request = ReduceRequest((Reducer(ReduceOp.COUNT_FIELD, expression),))
        assert Reduction(request, Limits()).needs_value
