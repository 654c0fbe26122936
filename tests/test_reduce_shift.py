"""Reduces in a namespace: the fields of its keys stand behind its prefix."""

from __future__ import annotations

import struct

import pytest

from exo_stream.errors import NotVisibleYetError
from exo_stream.keys import KeyCodec
from exo_stream.reduce.constraints import Check, Filter, IsNotNull
from exo_stream.reduce.expressions import (
    Arithmetic,
    DateTruncDay,
    KeyField,
    Lower,
    Operator,
    ValueField,
    ZOrderKeyField,
)
from exo_stream.reduce.request import ReduceOp, Reducer, ReduceRequest
from exo_stream.reduce.scalar import InvalidReduceError, Kind, Scalar
from exo_stream.reduce.shift import shifted
from tests.handles import Handle, both_handles

NUMBER = KeyField(0, Kind.UINT64)
VALUE = ValueField(0, Kind.INT64)


handle = both_handles()


def test_offsets_are_shifted_wherever_they_stand() -> None:
    """The store's own: 9 becomes 14, and 12 becomes 17."""
    z_order = ZOrderKeyField(12, 0, (8,), Kind.INT64)

    def request(key: KeyField, z_key: ZOrderKeyField) -> ReduceRequest:
        total = Arithmetic(
            Operator.ADD, z_key, Arithmetic(Operator.MUL, Scalar(Kind.INT64, 1), VALUE)
        )
        return ReduceRequest(
            (Reducer(ReduceOp.COUNT_ALL), Reducer(ReduceOp.SUM_FIELD, total)),
            (Lower(key), DateTruncDay(key)),
            Filter((Check(key, IsNotNull()), Check(VALUE, IsNotNull()))),
            limit=3,
        )

    before = request(KeyField(9, Kind.UTF8), z_order)
    after = request(KeyField(14, Kind.UTF8), ZOrderKeyField(17, 0, (8,), Kind.INT64))
    assert shifted(before, 5) == after
    assert shifted(ReduceRequest((), (VALUE,)), 5) == ReduceRequest((), (VALUE,))


def test_an_offset_that_becomes_too_large_is_refused() -> None:
    far = ReduceRequest((), (KeyField(0xFFFF, Kind.BOOLEAN),))

    assert shifted(far, 0) == far
    with pytest.raises(InvalidReduceError):
        shifted(far, 1)


@pytest.mark.parametrize("part", [b"orders/", KeyCodec(4, 5), KeyCodec(16, 0xBEEF)])
async def test_a_namespace_reduces_its_own_keys(handle: Handle, part: bytes | KeyCodec) -> None:
    space = handle.namespace(part)
    request = ReduceRequest((Reducer(ReduceOp.COUNT_ALL), Reducer(ReduceOp.SUM_FIELD, NUMBER)))
    await handle.put_batch([(b"a", b""), (b"\xff", b""), (space.encode(struct.pack(">Q", 3)), b"")])
    await space.put_batch([(struct.pack(">Q", number), b"") for number in (4, 5)])

    result = await space.reduce(request)
    assert result.results == (Scalar(Kind.UINT64, 3), Scalar(Kind.UINT64, 12))
    some = await space.reduce(request, struct.pack(">Q", 4), struct.pack(">Q", 4))
    assert some.results == (Scalar(Kind.UINT64, 1), Scalar(Kind.UINT64, 4))
    none = await space.reduce(request, b"b", b"a", min_sequence=2)
    assert none.results == (Scalar(Kind.UINT64, 0), None)
    with pytest.raises(NotVisibleYetError):
        await space.reduce(request, min_sequence=9, wait=False)
