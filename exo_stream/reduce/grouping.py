"""Groups: which values are one group, and in which order groups stand."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Final, cast

from exo_stream.reduce.accumulators import total_order
from exo_stream.reduce.evaluation import Value
from exo_stream.reduce.request import GroupOrder, ReduceGroup
from exo_stream.reduce.scalar import INTEGER_BITS, Kind, Scalar

_NAN: Final = math.nan
"""The one that stands for all: equal to itself wherever identity is looked at first."""

_TAGS: Final = {
    Kind.INT64: 1,
    Kind.UINT64: 2,
    Kind.FLOAT64: 3,
    Kind.BOOLEAN: 4,
    Kind.UTF8: 5,
    Kind.DATE32: 6,
    Kind.DATE64: 7,
    Kind.TIMESTAMP: 8,
    Kind.DECIMAL128: 9,
    Kind.DECIMAL256: 10,
    Kind.FIXED_SIZE_BINARY: 11,
}


def canonical(value: Value) -> Value:
    """The value that stands for its group: 0.0 for both zeros, and one NaN."""
    if isinstance(value, float):
        return _NAN if math.isnan(value) else value + 0.0
    return value


def order_key(values: Sequence[Scalar | None]) -> bytes:
    """The bytes in whose order the Exoware store gives groups: for numbers no natural one."""
    return b"".join(map(_order_part, values))


def _order_part(scalar: Scalar | None) -> bytes:
    if scalar is None:
        return b"\x00\xff"
    return bytes([_TAGS[scalar.kind]]) + _raw(scalar) + b"\xff"


def _raw(scalar: Scalar) -> bytes:
    kind, value = scalar.kind, scalar.value
    if kind in INTEGER_BITS:
        bits, signed = INTEGER_BITS[kind]
        # A scalar's kind says what its value is.
        return cast("int", value).to_bytes(bits // 8, "big", signed=signed)
    if isinstance(value, float):
        return struct.pack(">d", value)
    if isinstance(value, bool):
        return bytes([value])
    data = value if isinstance(value, bytes) else str(value).encode()
    return struct.pack(">I", len(data)) + data


def in_order(
    groups: Sequence[ReduceGroup], order_by: Sequence[GroupOrder], limit: int | None
) -> tuple[ReduceGroup, ...]:
    """The first ``limit`` groups in the order asked for, or in that of the Exoware store."""
    ordered = sorted(groups, key=lambda group: order_key(group.group_values))
    for order in reversed(order_by):
        ordered.sort(key=lambda group, order=order: _rank(group, order), reverse=order.descending)  # type: ignore[misc]  # a loop variable, bound
    return tuple(ordered if limit is None else ordered[:limit])


def _rank(group: ReduceGroup, order: GroupOrder) -> tuple[bool, Value]:
    if order.group is not None:
        scalar = group.group_values[order.group]
    else:
        assert order.result is not None, order
        scalar = group.results[order.result]
    if scalar is None:
        return False, 0
    value = scalar.value
    return True, total_order(value) if isinstance(value, float) else value
