"""Accumulators: what one reducer remembers of the values it has been given.

Each can also be told what another way of computing found for many rows at once, so that a part
that SQL has added up and rows that were looked at one by one end in the same state.
"""

from __future__ import annotations

import struct
from typing import Final, Protocol, cast

from exo_stream.reduce.evaluation import Value
from exo_stream.reduce.kinds import kind_of
from exo_stream.reduce.request import ReduceOp, Reducer
from exo_stream.reduce.scalar import InvalidReduceError, Kind, Scalar, integer_bounds

_SIGN64: Final = 1 << 63


class Accumulator(Protocol):
    """The state of one reducer, of one group."""

    def add(self, value: Value) -> None:
        """Take in the value of one more row; None is a null."""

    def add_part(self, count: int, value: Value) -> None:
        """Take in ``count`` rows that have a value, and what they come to: their sum, or the
        extreme of them; without any it is None.
        """

    def result(self) -> Scalar | None:
        """What the values came to.

        Raises InvalidReduceError if that is no value of its kind any more.
        """

    @property
    def size(self) -> int:
        """The bytes it holds beyond itself."""


class Count:
    """How many values were not null."""

    size = 0

    def __init__(self) -> None:
        self._count = 0

    def add(self, value: Value) -> None:
        """Count one more."""
        self._count += value is not None

    def add_part(self, count: int, value: Value) -> None:  # noqa: ARG002  only the number counts
        """Count so many more."""
        self._count += count

    def result(self) -> Scalar:
        """The count, 0 without a row."""
        return Scalar(Kind.UINT64, self._count)


class Sum:
    """The sum of integers, exact while it grows, or of floats, added as they come."""

    size = 0

    def __init__(self, kind: Kind, field: str) -> None:
        self._kind = kind
        self._field = field
        self._sum: int | float | None = None

    def add(self, value: Value) -> None:
        """Add one more."""
        if value is None:
            return
        if type(value) is not (float if self._kind is Kind.FLOAT64 else int):
            raise InvalidReduceError(self._field, f"{value!r} is no {self._kind.name.lower()}")
        self._sum = value if self._sum is None else self._sum + value

    def add_part(self, count: int, value: Value) -> None:
        """Add the sum of so many."""
        if count:
            self.add(value)

    def result(self) -> Scalar | None:
        """The sum; None if there was nothing to add."""
        if self._sum is None or self._kind is Kind.FLOAT64:
            return None if self._sum is None else Scalar(self._kind, self._sum)
        low, high = integer_bounds(self._kind)
        if not low <= self._sum <= high:
            raise InvalidReduceError(
                self._field, f"the sum does not fit into a {self._kind.name.lower()}"
            )
        return Scalar(self._kind, self._sum)


class Average:
    """The arithmetic mean of numbers, of integers exact until it is rounded to a float."""

    size = 0

    def __init__(self) -> None:
        self._count = 0
        self._sum: int | float = 0

    def add(self, value: Value) -> None:
        """Take in one more."""
        if value is not None:
            self.add_part(1, value)

    def add_part(self, count: int, value: Value) -> None:
        """Take in so many and their sum."""
        if count:
            self._count += count
            # Only numbers are added up: check_request has seen to it.
            self._sum += cast("int | float", value)

    def result(self) -> Scalar | None:
        """The mean; None if there was nothing."""
        return Scalar(Kind.FLOAT64, self._sum / self._count) if self._count else None


class Extreme:
    """The least or the greatest value; floats in IEEE's total order, in which NaNs have a place."""

    def __init__(self, kind: Kind, field: str, *, greatest: bool) -> None:
        self._kind = kind
        self._field = field
        self._greatest = greatest
        self._value: Value = None
        self._rank: Value = None

    def add(self, value: Value) -> None:
        """Compare one more."""
        if value is None:
            return
        rank = total_order(value) if isinstance(value, float) else value
        if self._rank is None:
            self._value, self._rank = value, rank
            return
        if type(rank) is not type(self._rank):
            raise InvalidReduceError(self._field, f"{value!r} is no {self._kind.name.lower()}")
        if (rank > self._rank) if self._greatest else (rank < self._rank):  # type: ignore[operator]  # of one type
            self._value, self._rank = value, rank

    def add_part(self, count: int, value: Value) -> None:
        """Compare the extreme of so many."""
        if count:
            self.add(value)

    def result(self) -> Scalar | None:
        """The value; None if there was none."""
        return None if self._value is None else Scalar(self._kind, self._value)

    @property
    def size(self) -> int:
        """The bytes of the value."""
        return len(self._value) if isinstance(self._value, str | bytes) else 0


def total_order(value: float) -> int:
    """A number in whose order floats stand as IEEE 754 ``totalOrder`` has them."""
    bits: int
    (bits,) = struct.unpack(">q", struct.pack(">d", value))
    return bits if bits >= 0 else bits ^ (_SIGN64 - 1)


def from_total_order(rank: int) -> float:
    """The float that has this place."""
    bits = rank if rank >= 0 else rank ^ (_SIGN64 - 1)
    value: float
    (value,) = struct.unpack(">d", struct.pack(">q", bits))
    return value


def accumulator(reducer: Reducer, field: str) -> Accumulator:
    """A new state for ``reducer``, which stands in the request as ``field``."""
    op = reducer.op
    kind = None if reducer.expr is None else kind_of(reducer.expr)
    if op in (ReduceOp.COUNT_ALL, ReduceOp.COUNT_FIELD):
        return Count()
    if op is ReduceOp.AVG_FIELD:
        return Average()
    # Of an expression without a kind every value is a null, or an error of its row.
    kind = Kind.INT64 if kind is None else kind
    if op is ReduceOp.SUM_FIELD:
        return Sum(kind, field)
    return Extreme(kind, field, greatest=op is ReduceOp.MAX_FIELD)
