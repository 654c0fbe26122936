"""The filter of a request: whether a row passes, each check made a function once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, assert_never

from exo_stream.reduce import constraints as c
from exo_stream.reduce.checks import COMPARED
from exo_stream.reduce.evaluation import RowError, evaluator
from exo_stream.reduce.scalar import Kind
from exo_stream.reduce.stored_row import StoredRow

Passes = Callable[[bytes, StoredRow], bool]
"""From a key and the cells of its value."""

Compared = (
    c.StringEq
    | c.BoolEq
    | c.FixedSizeBinaryEq
    | c.IntRange
    | c.Uint64Range
    | c.FloatRange
    | c.Decimal128Range
    | c.Decimal256Range
    | c.StringIn
    | c.IntIn
    | c.Uint64In
    | c.FixedSizeBinaryIn
)
"""The constraints that compare a value with their own."""

INTEGERS: Final = frozenset({Kind.INT64, Kind.DATE32, Kind.DATE64, Kind.TIMESTAMP})
"""The kinds that a constraint on integers is about."""


def predicate(filter_: c.Filter) -> Passes:
    """The function that tells whether a row passes; a row that cannot be read does not."""
    if filter_.contradiction:
        return lambda _key, _cells: False
    checks = [(evaluator(check.field), test(check)) for check in filter_.checks]

    def passes(key: bytes, cells: StoredRow) -> bool:
        try:
            return all(holds(evaluate(key, cells)) for evaluate, holds in checks)
        except RowError:
            return False

    return passes


def is_about(constraint: Compared, kind: Kind) -> bool:
    """Whether values of ``kind`` can satisfy the constraint at all."""
    compared = COMPARED[type(constraint)]
    return kind in INTEGERS if compared is Kind.INT64 else kind is compared


def test(check: c.Check) -> Callable[[Any], bool]:
    """The function that tells whether a value of the field satisfies the constraint.

    It takes Any: that the value is of the constraint's type is what ``is_about`` asks before.
    """
    constraint = check.constraint
    if isinstance(constraint, c.IsNull):
        return lambda value: value is None
    if isinstance(constraint, c.IsNotNull):
        return lambda value: value is not None
    if not is_about(constraint, check.field.kind):
        return lambda _value: False
    return _comparison(constraint)


def _comparison(constraint: Compared) -> Callable[[Any], bool]:
    match constraint:
        case c.StringEq() | c.BoolEq() | c.FixedSizeBinaryEq():
            wanted = constraint.value
            return lambda value: value == wanted
        case c.FloatRange():
            return _float_range(constraint)
        case c.StringIn() | c.IntIn() | c.Uint64In() | c.FixedSizeBinaryIn():
            several = frozenset[Any](constraint.values)
            return lambda value: value in several
        case c.IntRange() | c.Uint64Range() | c.Decimal128Range() | c.Decimal256Range():
            return _range(constraint)
    assert_never(constraint)


def _range(
    constraint: c.IntRange | c.Uint64Range | c.Decimal128Range | c.Decimal256Range,
) -> Callable[[Any], bool]:
    low, high = constraint.minimum, constraint.maximum
    return lambda value: (
        value is not None and (low is None or value >= low) and (high is None or value <= high)
    )


def _float_range(constraint: c.FloatRange) -> Callable[[Any], bool]:
    low, high = constraint.minimum, constraint.maximum

    def holds(value: float | None) -> bool:
        if value is None:
            return False
        if low is not None and not (value > low.value or (low.inclusive and value == low.value)):
            return False
        return high is None or value < high.value or (high.inclusive and value == high.value)

    return holds
