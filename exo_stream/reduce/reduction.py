"""A reduction under way: rows go in, one by one or many at once; groups and results come out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from exo_stream.errors import LimitExceededError
from exo_stream.limits import Limits
from exo_stream.read_stats import ReadStats
from exo_stream.reduce.accumulators import Accumulator, accumulator
from exo_stream.reduce.evaluation import RowError, Value, evaluator, needs_value
from exo_stream.reduce.grouping import canonical, in_order
from exo_stream.reduce.kinds import kind_of
from exo_stream.reduce.predicate import predicate
from exo_stream.reduce.request import ReduceGroup, ReduceRequest, ReduceResult
from exo_stream.reduce.scalar import Kind, Scalar
from exo_stream.reduce.stored_row import StoredRow, StoredRowError, decode_row

GROUP_BYTES: Final = 512
"""What a group costs in memory beside its values and its reducers."""

REDUCER_BYTES: Final = 128

Part = tuple[int, Value]
"""For one reducer: how many rows had a value, and what those came to."""


class Reduction:
    """What a checked request has come to so far.

    Rows that cannot be evaluated, or do not pass, are skipped in everything, but were read. What
    it holds grows with the groups, whose number and size ``limits`` bound.
    """

    def __init__(self, request: ReduceRequest, limits: Limits) -> None:
        self.request = request
        self._limits = limits
        self._group_by = [evaluator(expression) for expression in request.group_by]
        self._operands = [
            _one if reducer.expr is None else evaluator(reducer.expr)
            for reducer in request.reducers
        ]
        self._passes = None if request.filter is None else predicate(request.filter)
        self._groups: dict[tuple[Value, ...], list[Accumulator]] = {}
        self._bytes = 0
        self._read_bytes = 0
        self.needs_value = _needs_value(request)
        """Whether what a value cannot be decoded to excludes its row."""
        if not request.group_by:
            self._state(())

    def add_rows(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Take in keys and their values.

        Raises LimitExceededError if there are too many groups.
        """
        for key, value in rows:
            self._read_bytes += len(key) + len(value)
            self._add(key, value)
        self._check_size()

    def add_part(self, group: Sequence[Value], parts: Sequence[Part]) -> None:
        """Take in what many rows of one group came to, a part for each reducer."""
        state = self._state(tuple(map(canonical, group)))
        for accumulated, (count, value) in zip(state, parts, strict=True):
            accumulated.add_part(count, value)

    def count_read(self, size: int) -> None:
        """So many bytes of keys and values were read, besides what ``add_rows`` was given."""
        self._read_bytes += size
        self._check_size()

    def result(self, sequence: int) -> ReduceResult:
        """What it came to at ``sequence``.

        Raises InvalidReduceError if a sum does not fit into its kind.
        """
        stats = ReadStats(self._read_bytes)
        if not self.request.group_by:
            [state] = self._groups.values()
            return ReduceResult(_results(state), (), sequence, stats)
        kinds = [kind_of(expression) for expression in self.request.group_by]
        groups = [
            ReduceGroup(tuple(map(_scalar, kinds, values)), _results(state))
            for values, state in self._groups.items()
        ]
        ordered = in_order(groups, self.request.order_by, self.request.limit)
        return ReduceResult((), ordered, sequence, stats)

    def _add(self, key: bytes, value: bytes) -> None:
        try:
            cells: StoredRow = decode_row(value) if self.needs_value else []
            if self._passes is not None and not self._passes(key, cells):
                return
            group = tuple([canonical(evaluate(key, cells)) for evaluate in self._group_by])
            operands = [evaluate(key, cells) for evaluate in self._operands]
        except (RowError, StoredRowError):
            return
        for accumulated, operand in zip(self._state(group), operands, strict=True):
            accumulated.add(operand)

    def _state(self, group: tuple[Value, ...]) -> list[Accumulator]:
        state = self._groups.get(group)
        if state is None:
            state = [
                accumulator(reducer, f"reducers[{index}]")
                for index, reducer in enumerate(self.request.reducers)
            ]
            self._groups[group] = state
            self._bytes += GROUP_BYTES + REDUCER_BYTES * len(state)
            self._bytes += sum([len(value) for value in group if isinstance(value, str | bytes)])
            if len(self._groups) > self._limits.reduce_groups_max:
                raise LimitExceededError(
                    "reduce_groups_max", self._limits.reduce_groups_max, len(self._groups)
                )
        return state

    def _check_size(self) -> None:
        size = self._bytes
        if self._holds_values:
            size += sum([state.size for group in self._groups.values() for state in group])
        if size > self._limits.reduce_bytes_max:
            raise LimitExceededError("reduce_bytes_max", self._limits.reduce_bytes_max, size)

    @property
    def _holds_values(self) -> bool:
        """Whether an extreme may be long."""
        kinds = {None if r.expr is None else kind_of(r.expr) for r in self.request.reducers}
        return bool(kinds & {Kind.UTF8, Kind.FIXED_SIZE_BINARY})


def _needs_value(request: ReduceRequest) -> bool:
    fields = [check.field for check in request.filter.checks] if request.filter else []
    operands = [reducer.expr for reducer in request.reducers if reducer.expr is not None]
    return any(map(needs_value, [*fields, *request.group_by, *operands]))


def _one(_key: bytes, _cells: StoredRow) -> Value:
    return 1


def _results(state: Sequence[Accumulator]) -> tuple[Scalar | None, ...]:
    return tuple([accumulated.result() for accumulated in state])


def _scalar(kind: Kind | None, value: Value) -> Scalar | None:
    if value is None:
        return None
    assert kind is not None, value
    return Scalar(kind, value)
