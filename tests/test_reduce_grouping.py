"""The groups of a reduce: in which order they stand when nobody asks for another."""

from __future__ import annotations

from typing import Any

from exo_stream.reduce.grouping import order_key
from exo_stream.reduce.scalar import Kind, Scalar


def test_groups_stand_in_the_order_of_their_bytes() -> None:
    """Not the natural one: the reference gives these."""

    def in_order(kind: Kind, values: list[Any]) -> list[Any]:
        return sorted(values, key=lambda value: order_key([Scalar(kind, value)]))

    integers = [-1, -(1 << 63), (1 << 63) - 1, 5, 1, 0]
    assert in_order(Kind.INT64, integers) == integers[::-1]
    floats = [-1.5, -0.5, 1.5, 0.5, 0.0]
    assert in_order(Kind.FLOAT64, floats) == floats[::-1]
    assert in_order(Kind.UTF8, ["abc", "aa", "b", "a", ""]) == ["", "a", "b", "aa", "abc"]
    assert in_order(Kind.FIXED_SIZE_BINARY, [b"b", b"a"]) == [b"a", b"b"]
    assert in_order(Kind.BOOLEAN, [True, False]) == [False, True]
    assert (
        order_key([None]) < order_key([Scalar(Kind.INT64, 0)]) < order_key([Scalar(Kind.UTF8, "")])
    )
