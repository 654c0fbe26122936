"""Reduces over both handles: the scenarios that the Exoware store passes, named after them."""

from __future__ import annotations

import math
import struct
from typing import Final

import pytest

from exo_stream.errors import InvalidRequestError, LimitExceededError, NotVisibleYetError
from exo_stream.read_stats import ReadStats
from exo_stream.reduce.constraints import Check, Filter, IntRange, IsNull
from exo_stream.reduce.expressions import KeyField, ValueField
from exo_stream.reduce.request import (
    GroupOrder,
    ReduceGroup,
    ReduceOp,
    Reducer,
    ReduceRequest,
)
from exo_stream.reduce.scalar import InvalidReduceError, Kind, Scalar
from exo_stream.reduce.stored_row import Cell, CellTag, encode_row
from tests.handles import Handle, both_handles

VALUE: Final = ValueField(0, Kind.INT64)
NULLABLE: Final = ValueField(0, Kind.INT64, nullable=True)
FAMILY: Final = KeyField(0, Kind.FIXED_SIZE_BINARY, 1)
COUNT: Final = Reducer(ReduceOp.COUNT_ALL)


handle = both_handles()


def int64(value: int | None) -> bytes:
    return encode_row([None if value is None else Cell(CellTag.I64, value)])


def uint64(value: int) -> Scalar:
    return Scalar(Kind.UINT64, value)


async def put(handle: Handle, **values: int | None) -> int:
    return await handle.put_batch([(name.encode(), int64(v)) for name, v in values.items()])


def over(*ops: ReduceOp) -> ReduceRequest:
    return ReduceRequest(tuple(Reducer(op, VALUE) for op in ops))


async def test_reduce_count_all(handle: Handle) -> None:
    await put(handle, a=1, b=2, c=3)

    result = await handle.reduce(ReduceRequest((COUNT,)))

    assert result.results == (uint64(3),)
    assert result.groups == ()
    assert result.sequence == 1


async def test_reduce_sum_int64(handle: Handle) -> None:
    await put(handle, a=10, b=20, c=30)

    result = await handle.reduce(over(ReduceOp.SUM_FIELD))

    assert result.results == (Scalar(Kind.INT64, 60),)


async def test_reduce_count_min_and_max(handle: Handle) -> None:
    await put(handle, a=10, b=20, c=30)
    request = ReduceRequest((COUNT, *over(ReduceOp.MIN_FIELD, ReduceOp.MAX_FIELD).reducers))

    result = await handle.reduce(request)

    assert result.results == (uint64(3), Scalar(Kind.INT64, 10), Scalar(Kind.INT64, 30))


async def test_reduce_grouped_count_by_a_key_field(handle: Handle) -> None:
    await put(handle, a1=1, a2=2, b1=3)

    result = await handle.reduce(ReduceRequest((COUNT,), (FAMILY,)))

    assert result.results == ()
    assert result.groups == (
        ReduceGroup((Scalar(Kind.FIXED_SIZE_BINARY, b"a"),), (uint64(2),)),
        ReduceGroup((Scalar(Kind.FIXED_SIZE_BINARY, b"b"),), (uint64(1),)),
    )


async def test_reduce_of_no_rows_counts_0_and_has_no_extremes(handle: Handle) -> None:
    ops = (ReduceOp.COUNT_FIELD, ReduceOp.SUM_FIELD, ReduceOp.MIN_FIELD, ReduceOp.AVG_FIELD)

    result = await handle.reduce(over(*ops))

    assert result.results == (uint64(0), None, None, None)
    assert result.read_stats == ReadStats(0)
    assert (await handle.reduce(ReduceRequest((COUNT,), (FAMILY,)))).groups == ()


async def test_reduce_with_a_filter_sums_only_what_passes(handle: Handle) -> None:
    await put(handle, a=10, b=20, c=30)
    filter_ = Filter((Check(VALUE, IntRange(15)),))
    request = ReduceRequest((Reducer(ReduceOp.SUM_FIELD, VALUE),), filter=filter_)

    assert (await handle.reduce(request)).results == (Scalar(Kind.INT64, 50),)


async def test_a_contradiction_lets_nothing_pass_and_reads_nothing(handle: Handle) -> None:
    await put(handle, a=10)

    result = await handle.reduce(ReduceRequest((COUNT,), filter=Filter(contradiction=True)))

    assert result.results == (uint64(0),)
    assert result.read_stats == ReadStats(0)


async def test_count_field_leaves_out_nulls_and_nulls_are_a_group(handle: Handle) -> None:
    await put(handle, a=None, b=2, c=None)
    request = ReduceRequest((COUNT, Reducer(ReduceOp.COUNT_FIELD, NULLABLE)), (NULLABLE,))

    groups = (await handle.reduce(request)).groups

    assert groups == (
        ReduceGroup((None,), (uint64(2), uint64(0))),
        ReduceGroup((Scalar(Kind.INT64, 2),), (uint64(1), uint64(1))),
    )


async def test_a_row_that_cannot_be_decoded_is_in_no_reducer_if_one_needs_its_value(
    handle: Handle,
) -> None:
    await handle.put_batch([(b"a", b"no row"), (b"b", int64(None)), (b"c", int64(3))])

    assert (await handle.reduce(ReduceRequest((COUNT,)))).results == (uint64(3),)
    needing = ReduceRequest((COUNT, Reducer(ReduceOp.SUM_FIELD, VALUE)))
    assert (await handle.reduce(needing)).results == (uint64(1), Scalar(Kind.INT64, 3))
    filtered = ReduceRequest((COUNT,), filter=Filter((Check(NULLABLE, IsNull()),)))
    assert (await handle.reduce(filtered)).results == (uint64(1),)


async def test_reduce_reads_a_range_with_both_ends_and_deletions_left_out(handle: Handle) -> None:
    await put(handle, a=1, b=2, c=3, d=4)
    await handle.delete_batch([b"c"])

    result = await handle.reduce(over(ReduceOp.SUM_FIELD), b"b", b"d")

    assert result.results == (Scalar(Kind.INT64, 6),)
    assert result.read_stats == ReadStats(2 * (1 + len(int64(2))))
    assert (await handle.reduce(over(ReduceOp.SUM_FIELD), b"d", b"b")).results == (None,)


async def test_read_statistics_count_rows_that_a_filter_drops(handle: Handle) -> None:
    await put(handle, a=10, b=20)
    request = ReduceRequest((COUNT,), filter=Filter((Check(VALUE, IntRange(15)),)))

    result = await handle.reduce(request)

    assert result.read_stats == ReadStats(2 * (1 + len(int64(10))))


async def test_a_sum_that_overflows_is_the_fault_of_the_request(handle: Handle) -> None:
    """Trap 7: a mistake of the client is no internal error, which it would try again."""
    await put(handle, a=(1 << 63) - 1, b=1)

    with pytest.raises(InvalidRequestError, match=r"reducers\[0\]: the sum does not fit"):
        await handle.reduce(over(ReduceOp.SUM_FIELD))
    await put(handle, c=-1)
    assert (await handle.reduce(over(ReduceOp.SUM_FIELD))).results == (
        Scalar(Kind.INT64, (1 << 63) - 1),
    )


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ReduceRequest(), "params"),
        (ReduceRequest((Reducer(ReduceOp.COUNT_ALL, VALUE),)), "reducers[0].expr"),
        (ReduceRequest((Reducer(ReduceOp.SUM_FIELD),)), "reducers[0].expr"),
        (over(ReduceOp.SUM_FIELD), ""),
        (
            ReduceRequest((Reducer(ReduceOp.SUM_FIELD, ValueField(0, Kind.UTF8)),)),
            "reducers[0]",
        ),
        (ReduceRequest((COUNT,), limit=1), "limit"),
    ],
)
async def test_reduce_requests_that_break_a_rule_are_refused(
    handle: Handle, request_: ReduceRequest, field: str
) -> None:
    """Trap 7 again: none without reducers, count_all with an expression, others without."""
    if not field:
        assert (await handle.reduce(request_)).results == (None,)
        return
    with pytest.raises(InvalidReduceError) as caught:
        await handle.reduce(request_)
    assert caught.value.field == field


async def test_a_range_bound_that_is_too_long_is_refused(handle: Handle) -> None:
    with pytest.raises(InvalidRequestError):
        await handle.reduce(ReduceRequest((COUNT,)), b"k" * 255)


async def test_groups_stand_in_the_order_of_the_exoware_store(handle: Handle) -> None:
    values = [0, 1, 5, (1 << 63) - 1, -(1 << 63), -1]
    await handle.put_batch([(b"%d" % n, int64(value)) for n, value in enumerate(reversed(values))])

    groups = (await handle.reduce(ReduceRequest((COUNT,), (VALUE,)))).groups

    assert [group.group_values[0] for group in groups] == [Scalar(Kind.INT64, v) for v in values]


async def test_groups_in_an_order_of_ones_own_and_only_the_first(handle: Handle) -> None:
    await put(handle, a1=1, a2=2, b1=9, c1=4, c2=-4)
    total = Reducer(ReduceOp.SUM_FIELD, VALUE)
    request = ReduceRequest(
        (total,), (FAMILY,), order_by=(GroupOrder(result=0, descending=True),), limit=2
    )

    groups = (await handle.reduce(request)).groups

    assert [group.results[0] for group in groups] == [Scalar(Kind.INT64, 9), Scalar(Kind.INT64, 3)]


async def test_an_average_is_a_float(handle: Handle) -> None:
    await put(handle, a=1, b=2)

    assert (await handle.reduce(over(ReduceOp.AVG_FIELD))).results == (Scalar(Kind.FLOAT64, 1.5),)


async def test_zeros_are_one_group_and_nans_are_one_group(handle: Handle) -> None:
    floats = [0.0, -0.0, math.nan, -math.nan, 1.0]
    await handle.put_batch(
        [(b"%d" % n, encode_row([Cell(CellTag.F64, value)])) for n, value in enumerate(floats)]
    )
    by = ValueField(0, Kind.FLOAT64)

    groups = (await handle.reduce(ReduceRequest((COUNT,), (by,)))).groups

    found = {
        struct.pack(">d", group.group_values[0].value): group.results[0]
        for group in groups
        if group.group_values[0] is not None and isinstance(group.group_values[0].value, float)
    }
    assert found == {
        struct.pack(">d", 0.0): uint64(2),
        struct.pack(">d", 1.0): uint64(1),
        struct.pack(">d", math.nan): uint64(2),
    }


async def test_reduce_refuses_at_once_what_is_not_visible_yet_if_asked_to(handle: Handle) -> None:
    await put(handle, a=1)

    with pytest.raises(NotVisibleYetError) as caught:
        await handle.reduce(ReduceRequest((COUNT,)), min_sequence=5, wait=False)
    assert (caught.value.frontier, caught.value.required) == (1, 5)
    assert (await handle.reduce(ReduceRequest((COUNT,)), min_sequence=1)).sequence == 1


@pytest.mark.slow
async def test_more_groups_than_are_allowed_are_refused_with_the_limit(handle: Handle) -> None:
    limit = 65_536
    pairs = [(b"%d" % n, int64(n)) for n in range(limit + 1)]
    await handle.put_batch(pairs)

    with pytest.raises(LimitExceededError) as caught:
        await handle.reduce(ReduceRequest((COUNT,), (VALUE,)))
    assert (caught.value.limit, caught.value.bound) == ("reduce_groups_max", limit)
