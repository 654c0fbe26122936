"""Reductions as messages: every expression, constraint and value, there and back."""

from __future__ import annotations

from typing import Any

import pytest

from exo_stream.protocol.connect.generated import query_pb2 as pb
from exo_stream.protocol.connect.reductions import reduce_request, reduce_response
from exo_stream.reduce import constraints as c
from exo_stream.reduce.expressions import (
    Arithmetic,
    DateTruncDay,
    KeyField,
    Lower,
    Operator,
    ValueField,
    ZOrderKeyField,
)
from exo_stream.reduce.request import ReduceGroup, ReduceOp, Reducer, ReduceRequest, ReduceResult
from exo_stream.reduce.scalar import InvalidReduceError, Kind, Scalar

VALUES: list[tuple[dict[str, Any], Scalar]] = [
    ({"int64_value": -5}, Scalar(Kind.INT64, -5)),
    ({"uint64_value": 1 << 63}, Scalar(Kind.UINT64, 1 << 63)),
    ({"float64_value": 1.5}, Scalar(Kind.FLOAT64, 1.5)),
    ({"boolean_value": True}, Scalar(Kind.BOOLEAN, value=True)),
    ({"utf8_value": "é"}, Scalar(Kind.UTF8, "é")),
    ({"date32_value": -1}, Scalar(Kind.DATE32, -1)),
    ({"date64_value": 86_400_000}, Scalar(Kind.DATE64, 86_400_000)),
    ({"timestamp_value": 7}, Scalar(Kind.TIMESTAMP, 7)),
    ({"decimal128_value": b"\xff" * 15 + b"\xfe"}, Scalar(Kind.DECIMAL128, -2)),
    ({"fixed_size_binary_value": b"ab"}, Scalar(Kind.FIXED_SIZE_BINARY, b"ab")),
    ({"decimal256_value": b"\xfe" + b"\xff" * 31}, Scalar(Kind.DECIMAL256, -2)),
]
CELL = {"value": {"index": 1, "kind": 0, "nullable": True}}
FIELD = ValueField(1, Kind.INT64, nullable=True)


def params(**fields: Any) -> pb.ReduceParams:
    return pb.ReduceParams(**fields)


@pytest.mark.parametrize(("message", "scalar"), VALUES, ids=str)
def test_every_kind_of_value_comes_and_goes(message: dict[str, Any], scalar: Scalar) -> None:
    request = reduce_request(params(group_by=[{"literal": message}]))
    assert request == ReduceRequest(group_by=(scalar,))
    [result] = reduce_response(ReduceResult(results=(scalar,))).results
    assert result == pb.RangeReduceResult(value=message)


@pytest.mark.parametrize(
    ("expr", "expression"),
    [
        ({"field": CELL}, FIELD),
        ({"field": {"key": {"bit_offset": 9, "kind": 4}}}, KeyField(9, Kind.UTF8)),
        (
            {"field": {"key": {"kind": 9, "fixed_size_binary_len": 3}}},
            KeyField(0, Kind.FIXED_SIZE_BINARY, 3),
        ),
        (
            {"field": {"key": {"kind": 1, "fixed_size_binary_len": 3}}},
            KeyField(0, Kind.UINT64),
        ),
        (
            {"field": {"z_order_key": {"bit_offset": 4, "field_position": 1,
                                       "field_widths": [8, 2], "kind": 1}}},
            ZOrderKeyField(4, 1, (8, 2), Kind.UINT64),
        ),
        ({"lower": {"literal": {"utf8_value": "A"}}}, Lower(Scalar(Kind.UTF8, "A"))),
        ({"date_trunc_day": {"field": CELL}}, DateTruncDay(FIELD)),
        *(
            (
                {name: {"left": {"field": CELL}, "right": {"literal": {"int64_value": 2}}}},
                Arithmetic(operator, FIELD, Scalar(Kind.INT64, 2)),
            )
            for name, operator in (
                ("add", Operator.ADD), ("sub", Operator.SUB),
                ("mul", Operator.MUL), ("div", Operator.DIV),
            )
        ),
    ],
    ids=str,
)  # fmt: skip
def test_every_expression_is_read(expr: dict[str, Any], expression: Any) -> None:
    request = reduce_request(params(reducers=[{"op": 2, "expr": expr}]))
    assert request.reducers == (Reducer(ReduceOp.SUM_FIELD, expression),)


CONSTRAINTS: list[tuple[dict[str, Any], c.Constraint]] = [
    ({"string_eq": "x"}, c.StringEq("x")),
    ({"bool_eq": False}, c.BoolEq(value=False)),
    ({"fixed_size_binary_eq": b"x"}, c.FixedSizeBinaryEq(b"x")),
    ({"int_range": {"min": -1}}, c.IntRange(-1, None)),
    ({"int_range": {"max": 0}}, c.IntRange(None, 0)),
    ({"uint64_range": {"min": 0, "max": 1}}, c.Uint64Range(0, 1)),
    ({"float_range": {}}, c.FloatRange()),
    (
        {"float_range": {"min": {"value": 1.0}, "max": {"value": 2.0, "inclusive": True}}},
        c.FloatRange(c.FloatBound(1.0, inclusive=False), c.FloatBound(2.0, inclusive=True)),
    ),
    ({"decimal128_range": {"min": b"\0" * 15 + b"\x05"}}, c.Decimal128Range(5, None)),
    ({"decimal256_range": {"max": b"\x05" + b"\0" * 31}}, c.Decimal256Range(None, 5)),
    ({"is_null": False}, c.IsNull()),
    ({"is_not_null": False}, c.IsNotNull()),
    ({"string_in": {"values": ["a"]}}, c.StringIn(("a",))),
    ({"int_in": {"values": [1, -1]}}, c.IntIn((1, -1))),
    ({"uint64_in": {"values": [1]}}, c.Uint64In((1,))),
    ({"fixed_size_binary_in": {"values": [b"a"]}}, c.FixedSizeBinaryIn((b"a",))),
]


@pytest.mark.parametrize(("message", "constraint"), CONSTRAINTS, ids=str)
def test_every_constraint_is_read(message: dict[str, Any], constraint: c.Constraint) -> None:
    check = {"field": CELL, "constraint": message}
    request = reduce_request(params(filter={"checks": [check], "contradiction": True}))
    assert request.filter == c.Filter((c.Check(FIELD, constraint),), contradiction=True)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"reducers": [{"op": 5}]}, "reducers[0].op"),
        ({"reducers": [{"op": 1, "expr": {}}]}, "reducers[0].expr"),
        ({"group_by": [{"add": {"left": {"field": CELL}}}]}, "group_by[0].add.right"),
        ({"group_by": [{"lower": {}}]}, "group_by[0].lower"),
        ({"group_by": [{"field": {}}]}, "group_by[0].field"),
        ({"group_by": [{"literal": {}}]}, "group_by[0].literal"),
        ({"group_by": [{"field": {"key": {"kind": 11}}}]}, "group_by[0].field.key.kind"),
        (
            {"group_by": [{"field": {"value": {"kind": 11}}}]},
            "group_by[0].field.value.kind",
        ),
        (
            {"group_by": [{"literal": {"decimal128_value": b"short"}}]},
            "group_by[0].literal",
        ),
        (
            {"group_by": [{"literal": {"decimal256_value": b"short"}}]},
            "group_by[0].literal",
        ),
        ({"filter": {"checks": [{"field": CELL}]}}, "filter.checks[0].constraint"),
        ({"filter": {"checks": [{}]}}, "filter.checks[0].field"),
        (
            {"filter": {"checks": [
                {"field": CELL, "constraint": {"decimal256_range": {"min": b""}}}
            ]}},
            "filter.checks[0].constraint.decimal256_range.min",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_missing_unknown_or_too_wide_is_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidReduceError) as caught:
        reduce_request(params(**fields))
    assert caught.value.field == field


def test_a_null_of_a_group_has_a_flag_and_no_value() -> None:
    one, two = Scalar(Kind.INT64, 1), Scalar(Kind.UTF8, "b")
    groups = (ReduceGroup((None, two), (one, None)), ReduceGroup((one, two), ()))
    message = reduce_response(ReduceResult(groups=groups))

    first, second = message.groups
    assert list(first.group_values_present) == [False, True]
    assert list(first.group_values) == [pb.KvReducedValue(utf8_value="b")]
    assert list(second.group_values_present) == [True, True]
    assert [value.WhichOneof("value") for value in second.group_values] == [
        "int64_value",
        "utf8_value",
    ]
    assert [result.HasField("value") for result in first.results] == [True, False]
    assert not message.results


def test_no_value_is_an_absent_one() -> None:
    [result] = reduce_response(ReduceResult(results=(None,))).results
    assert not result.HasField("value")
