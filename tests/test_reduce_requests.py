"""Requests to reduce: what is wrong with one and where, and how one is written."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exo_stream.reduce import checks
from exo_stream.reduce import constraints as c
from exo_stream.reduce.checks import check_request
from exo_stream.reduce.document import decode_request, encode_request, scalar_value
from exo_stream.reduce.expressions import (
    Arithmetic,
    Expression,
    KeyField,
    Lower,
    Operator,
    ValueField,
    ZOrderKeyField,
)
from exo_stream.reduce.kinds import kind_of, width_of
from exo_stream.reduce.request import GroupOrder, ReduceOp, Reducer, ReduceRequest
from exo_stream.reduce.scalar import InvalidReduceError, Kind, Scalar
from tests.reductions import requests

VALUE = ValueField(0, Kind.INT64)
COUNT = Reducer(ReduceOp.COUNT_ALL)


def nested(depth: int) -> Expression:
    expression: Expression = VALUE
    for _ in range(depth):
        expression = Lower(expression)
    return expression


def counted(expr: Expression) -> ReduceRequest:
    return ReduceRequest((Reducer(ReduceOp.COUNT_FIELD, expr),))


def checked(field: object, constraint: object) -> ReduceRequest:
    check = c.Check(cast("Any", field), cast("Any", constraint))
    return ReduceRequest((COUNT,), filter=c.Filter((check,)))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ReduceRequest(), "params"),
        (ReduceRequest((COUNT,) * (checks.REDUCERS_MAX + 1)), "reducers"),
        (ReduceRequest((), (VALUE,) * (checks.GROUP_BY_MAX + 1)), "group_by"),
        (ReduceRequest((Reducer(cast("ReduceOp", 9)),)), "reducers[0].op"),
        (ReduceRequest((COUNT, Reducer(ReduceOp.COUNT_ALL, VALUE))), "reducers[1].expr"),
        (ReduceRequest((Reducer(ReduceOp.MIN_FIELD),)), "reducers[0].expr"),
        (
            ReduceRequest((Reducer(ReduceOp.SUM_FIELD, ValueField(0, Kind.DATE32)),)),
            "reducers[0]",
        ),
        (
            ReduceRequest((Reducer(ReduceOp.AVG_FIELD, ValueField(0, Kind.DECIMAL128)),)),
            "reducers[0]",
        ),
        (counted(nested(checks.EXPRESSION_NODES_MAX)), "reducers[0].expr"),
        (counted(cast("Expression", 7)), "reducers[0].expr"),
        (counted(Scalar(Kind.INT64, 1.5)), "reducers[0].expr"),
        (ReduceRequest((), (KeyField(-1, Kind.INT64),)), "group_by[0].bit_offset"),
        (ReduceRequest((), (KeyField(1 << 16, Kind.INT64),)), "group_by[0].bit_offset"),
        (ReduceRequest((), (KeyField(0, cast("Kind", "x")),)), "group_by[0].kind"),
        (
            ReduceRequest((), (KeyField(0, Kind.FIXED_SIZE_BINARY),)),
            "group_by[0].fixed_size_binary_len",
        ),
        (ReduceRequest((), (KeyField(0, Kind.INT64, 8),)), "group_by[0].fixed_size_binary_len"),
        (
            ReduceRequest((), (KeyField(0, Kind.FIXED_SIZE_BINARY, 256),)),
            "group_by[0].fixed_size_binary_len",
        ),
        (ReduceRequest((), (ValueField(1 << 16, Kind.INT64),)), "group_by[0].index"),
        (
            ReduceRequest((), (ZOrderKeyField(0, 2, (8, 8), Kind.INT64),)),
            "group_by[0].field_position",
        ),
        (
            ReduceRequest((), (ZOrderKeyField(0, 0, (64, 64), Kind.INT64),)),
            "group_by[0].field_widths",
        ),
        (
            ReduceRequest((), (ZOrderKeyField(0, 0, (8, 256), Kind.INT64),)),
            "group_by[0].field_widths",
        ),
        (
            ReduceRequest((), (ZOrderKeyField(0, 0, (8,) * 256, Kind.INT64),)),
            "group_by[0].field_widths",
        ),
        (
            ReduceRequest((), (ZOrderKeyField(1 << 16, 0, (8,), Kind.INT64),)),
            "group_by[0].bit_offset",
        ),
        (checked(Lower(VALUE), c.IsNull()), "filter.checks[0].field"),
        (checked(VALUE, "x"), "filter.checks[0].constraint"),
        (checked(VALUE, c.IntRange(1 << 63)), "filter.checks[0].constraint"),
        (checked(VALUE, c.IntIn((1,) * (checks.VALUES_MAX + 1))), "filter.checks[0].constraint"),
        (checked(VALUE, c.IntIn((None,))), "filter.checks[0].constraint"),  # type: ignore[arg-type]  # what it refuses
        (checked(VALUE, c.FloatRange(c.FloatBound(1))), "filter.checks[0].constraint"),
        (checked(VALUE, c.Decimal128Range(1 << 127)), "filter.checks[0].constraint"),
        (
            ReduceRequest(
                (COUNT,), filter=c.Filter((c.Check(VALUE, c.IsNull()),) * (checks.CHECKS_MAX + 1))
            ),
            "filter.checks",
        ),
        (ReduceRequest((COUNT,), limit=1), "limit"),
        (ReduceRequest((COUNT,), (VALUE,), limit=-1), "limit"),
        (ReduceRequest((COUNT,), order_by=(GroupOrder(result=0),)), "order_by[0]"),
        (ReduceRequest((COUNT,), (VALUE,), order_by=(GroupOrder(),)), "order_by[0]"),
        (ReduceRequest((COUNT,), (VALUE,), order_by=(GroupOrder(0, 0),)), "order_by[0]"),
        (ReduceRequest((COUNT,), (VALUE,), order_by=(GroupOrder(group=1),)), "order_by[0].group"),
        (
            ReduceRequest((COUNT,), (VALUE,), order_by=(GroupOrder(result=1),)),
            "order_by[0].result",
        ),
        (ReduceRequest((COUNT,), (VALUE,), order_by=(GroupOrder(group=0),) * 321), "order_by"),
    ],
)
def test_what_is_wrong_is_said_with_its_field(request_: ReduceRequest, field: str) -> None:
    with pytest.raises(InvalidReduceError) as caught:
        check_request(request_)

    assert caught.value.field == field
    assert len(str(caught.value)) < 200
    assert caught.value.problem in str(caught.value)
    assert caught.value.code == "invalid_request"


JUNK: tuple[Any, ...] = (None, 3, -1, 1.5, True, "x", b"x", [], [None], (3,), {}, object(), COUNT)


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk)[:12])
def test_nothing_else_than_a_request_gets_past_whatever_its_type(junk: Any) -> None:
    grouped: list[Any] = [
        KeyField(junk, Kind.INT64), KeyField(0, junk), KeyField(0, Kind.FIXED_SIZE_BINARY, junk),
        ZOrderKeyField(0, 0, junk, Kind.INT64), ZOrderKeyField(0, junk, (8,), Kind.INT64),
        Arithmetic(Operator.ADD, junk, VALUE), Arithmetic(junk, VALUE, VALUE), Lower(junk),
        ValueField(junk, Kind.INT64), Scalar(junk, 1), junk, *(Scalar(kind, junk) for kind in Kind),
    ]  # fmt: skip
    constraints = [
        c.StringEq, c.BoolEq, c.FixedSizeBinaryEq, c.IntRange, c.Uint64Range, c.FloatRange,
        c.Decimal128Range, c.Decimal256Range, c.StringIn, c.IntIn, c.Uint64In, c.FixedSizeBinaryIn,
    ]  # fmt: skip
    requests = [
        junk,
        ReduceRequest(junk), ReduceRequest((junk,)), ReduceRequest((Reducer(junk),)),
        ReduceRequest((COUNT,), junk), ReduceRequest((COUNT,), (VALUE,), limit=junk),
        ReduceRequest((COUNT,), filter=junk), ReduceRequest((COUNT,), filter=c.Filter(junk)),
        ReduceRequest((COUNT,), filter=c.Filter((junk,))),
        ReduceRequest((COUNT,), order_by=junk), ReduceRequest((COUNT,), order_by=(junk,)),
        checked(junk, c.IsNull()), checked(VALUE, junk),
        checked(VALUE, c.FloatRange(c.FloatBound(junk))),
        *(ReduceRequest((COUNT,), (expression,)) for expression in grouped),
        *(checked(VALUE, kind(value)) for kind in constraints for value in (junk, (junk,))),
    ]  # fmt: skip
    refused = 0
    for request_ in requests:
        try:
            check_request(request_)
        except InvalidReduceError:
            refused += 1
    assert refused > len(requests) // 2


def test_an_expression_of_wrong_kinds_is_no_mistake_of_the_request() -> None:
    """Every row fails instead, and is skipped."""
    wrong = Arithmetic(Operator.ADD, VALUE, ValueField(0, Kind.UINT64))
    assert kind_of(wrong) is None
    assert kind_of(Lower(VALUE)) is None
    check_request(ReduceRequest((Reducer(ReduceOp.SUM_FIELD, wrong),)))
    assert width_of(Kind.UTF8, None) == 16


@pytest.mark.slow
@settings(max_examples=50)
@given(requests())
def test_what_is_written_is_read_again(request_: ReduceRequest) -> None:
    assert repr(decode_request(encode_request(request_))) == repr(request_)


def test_a_request_is_written_with_the_names_of_its_fields() -> None:
    request = ReduceRequest(
        (Reducer(ReduceOp.SUM_FIELD, Arithmetic(Operator.MUL, VALUE, Scalar(Kind.FLOAT64, 0.5))),),
        (KeyField(8, Kind.FIXED_SIZE_BINARY, 2),),
        c.Filter((c.Check(VALUE, c.FloatRange(c.FloatBound(float("nan"), inclusive=False))),)),
        (GroupOrder(result=0, descending=True),),
        3,
    )

    assert json.loads(encode_request(request)) == {
        "reducers": [
            {
                "op": "sum_field",
                "expr": {
                    "mul": [
                        {"value": {"index": 0, "kind": "int64", "nullable": False}},
                        {"literal": {"kind": "float64", "value": 0.5}},
                    ]
                },
            }
        ],
        "group_by": [
            {"key": {"bit_offset": 8, "kind": "fixed_size_binary", "fixed_size_binary_len": 2}}
        ],
        "filter": {
            "checks": [
                {
                    "field": {"value": {"index": 0, "kind": "int64", "nullable": False}},
                    "constraint": {
                        "float_range": {"minimum": {"value": "nan", "inclusive": False}}
                    },
                }
            ],
            "contradiction": False,
        },
        "order_by": [{"result": 0, "descending": True}],
        "limit": 3,
    }
    assert scalar_value(None) is None
    assert scalar_value(Scalar(Kind.FIXED_SIZE_BINARY, b"\xff")) == "ff"


Z_ORDER = '{"bit_offset": 0, "field_position": 0, "field_widths": 8, "kind": "int64"}'
BOUND = '{"float_range": {"minimum": {"value": 1, "inclusive": 0}}}'
FIELD = '{"value": {"index": 0, "kind": "int64"}}'


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ("", "params"),
        ("\xff", "params"),
        ("[" * 100_000, "params"),
        ("[]", "params"),
        ('{"reducers": [], "reducers": []}', "params"),
        ('{"having": 1}', "params.having"),
        ('{"reducers": 1}', "reducers"),
        ('{"reducers": [1]}', "reducers[0]"),
        ('{"reducers": [{}]}', "reducers[0].op"),
        ('{"reducers": [{"op": "median"}]}', "reducers[0].op"),
        ('{"reducers": [{"op": ["x"]}]}', "reducers[0].op"),
        ('{"reducers": [{"op": "min_field", "expr": {}}]}', "reducers[0].expr"),
        ('{"group_by": [{"value": {"kind": "int64"}}]}', "group_by[0].value.index"),
        ('{"group_by": [{"value": {"index": 0, "kind": "x"}}]}', "group_by[0].value.kind"),
        ('{"group_by": [{"column": {}}]}', "group_by[0].column"),
        (
            '{"group_by": [{"value": {"index": 0, "kind": "int64", "nullable": 1}}]}',
            "group_by[0].value.nullable",
        ),
        (
            '{"group_by": [{"z_order_key": Z_ORDER}]}',
            "group_by[0].z_order_key.field_widths",
        ),
        ('{"group_by": [{"add": [1]}]}', "group_by[0].add"),
        ('{"group_by": [{"literal": {"kind": "float64", "value": "x"}}]}', "group_by[0].literal"),
        (
            '{"group_by": [{"literal": {"kind": "fixed_size_binary", "value": 1}}]}',
            "group_by[0].literal",
        ),
        (
            '{"group_by": [' + '{"lower": ' * 257 + FIELD + "}" * 257 + "]}",
            "group_by[0]" + ".lower" * 257,
        ),
        ('{"filter": []}', "filter"),
        ('{"filter": {"contradiction": 1}}', "filter.contradiction"),
        ('{"filter": {"checks": [{"field": FIELD}]}}', "filter.checks[0].constraint"),
        (
            '{"filter": {"checks": [{"field": FIELD, "constraint": {"like": {}}}]}}',
            "filter.checks[0].constraint",
        ),
        (
            '{"filter": {"checks": [{"field": FIELD, "constraint": {"string_eq": {}}}]}}',
            "filter.checks[0].constraint.string_eq.value",
        ),
        (
            '{"filter": {"checks": [{"field": FIELD, "constraint": BOUND}]}}',
            "filter.checks[0].constraint.inclusive",
        ),
        ('{"order_by": [{"group": 0, "descending": 0}]}', "order_by[0].descending"),
    ],
)
def test_a_document_that_cannot_be_read_is_refused_with_its_field(
    document: str, field: str
) -> None:
    for name, meant in (("FIELD", FIELD), ("Z_ORDER", Z_ORDER), ("BOUND", BOUND)):
        document = document.replace(name, meant)
    with pytest.raises(InvalidReduceError) as caught:
        decode_request(document.encode("latin-1"))

    assert caught.value.field == field


def test_a_bound_that_is_null_is_open() -> None:
    document = (
        '{"reducers": [{"op": "count_all"}], "filter": {"checks": [{"field": FIELD,'
        ' "constraint": {"int_range": {"minimum": null, "maximum": 3}}}]}}'
    )

    request = decode_request(document.replace("FIELD", FIELD).encode())

    assert request.filter == c.Filter((c.Check(VALUE, c.IntRange(None, 3)),))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["reducers", "op", "expr", "value", "kind", "index", "filter", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=100)
@given(json_values, json_values)
def test_any_document_is_a_request_or_refused(one: object, other: object) -> None:
    document = {"reducers": [one], "group_by": [other], "limit": other}
    for each in (document, {"filter": {"checks": [{"field": one, "constraint": other}]}}, one):
        try:
            check_request(decode_request(json.dumps(each).encode()))
        except InvalidReduceError:
            continue
