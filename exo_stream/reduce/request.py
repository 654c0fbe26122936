"""What a reduce asks for, and what it answers: values without behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from exo_stream.read_stats import ReadStats
from exo_stream.reduce.constraints import Filter
from exo_stream.reduce.expressions import Expression
from exo_stream.reduce.scalar import Scalar


class ReduceOp(IntEnum):
    """What a reducer does, under the numbers of the Exoware store; AVG_FIELD is beyond it.

    A count is a UINT64, and 0 if nothing counted; an average is a FLOAT64; the others keep the
    kind of their expression, and like an average they have no value if nothing contributed.
    """

    COUNT_ALL = 0
    COUNT_FIELD = 1
    SUM_FIELD = 2
    MIN_FIELD = 3
    MAX_FIELD = 4
    AVG_FIELD = 5


@dataclass(frozen=True, slots=True)
class Reducer:
    """One operation over the values of an expression that are not null; COUNT_ALL has none."""

    op: ReduceOp
    expr: Expression | None = None


@dataclass(frozen=True, slots=True)
class GroupOrder:
    """By what groups are ordered: the value number ``group`` or the result number ``result``.

    A null, or a result without a value, comes before everything. Groups that are equal in it
    keep the order of the Exoware store among themselves.
    """

    group: int | None = None
    result: int | None = None
    descending: bool = False


@dataclass(frozen=True, slots=True)
class ReduceRequest:
    """Reducers over the rows that pass ``filter``, for all of them or for each group.

    Rows that cannot be read as the expressions want are skipped, in everything. ``order_by``
    and ``limit`` say in which order groups are given, and how many.
    """

    reducers: tuple[Reducer, ...] = ()
    group_by: tuple[Expression, ...] = ()
    filter: Filter | None = None
    order_by: tuple[GroupOrder, ...] = ()
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class ReduceGroup:
    """One group: the values it has in common, and its results; None is a null."""

    group_values: tuple[Scalar | None, ...]
    results: tuple[Scalar | None, ...]


@dataclass(frozen=True, slots=True)
class ReduceResult:
    """The results of all rows, or with ``group_by`` the groups and no results beside them.

    ``sequence`` is the state it was computed at, one for the whole range.
    """

    results: tuple[Scalar | None, ...] = ()
    groups: tuple[ReduceGroup, ...] = ()
    sequence: int = 0
    read_stats: ReadStats = field(default_factory=ReadStats)
