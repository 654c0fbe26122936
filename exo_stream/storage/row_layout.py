"""The layout of stored rows, guessed from a few of them and then checked in SQL for each.

Rows of one table mostly have the same cells, so SQL can read them at known places. What does not
fit the guess is told apart, never read wrongly: a row that fits decodes as ``decode_row`` has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from exo_stream.reduce.stored_row import Cell, CellTag, StoredRow, StoredRowError, decode_row

CELLS_MAX: Final = 32
"""Of a row that SQL reads; it takes a step or more for each."""

SHORT_MAX: Final = 127
"""The longest text whose length is one byte."""

_WIDTHS: Final = {CellTag.I64: 8, CellTag.U64: 8, CellTag.F64: 8, CellTag.BOOL: 1}


@dataclass(frozen=True, slots=True)
class Column:
    """The cells of one index: their tag, None if all of them were null; whether some were; and
    whether a text needs two bytes for its length.
    """

    tag: CellTag | None
    has_nulls: bool
    is_long: bool = False


Layout = tuple[Column, ...]


def guessed(values: Sequence[bytes]) -> Layout | None:
    """The layout that most of these rows have; None if SQL cannot read it."""
    rows: list[StoredRow] = []
    for value in values:
        try:
            rows.append(decode_row(value))
        except StoredRowError:
            continue
    if not rows:
        return None
    [(count, _)] = Counter(map(len, rows)).most_common(1)
    if count > CELLS_MAX:
        return None
    columns = [_column([row[at] for row in rows if len(row) == count]) for at in range(count)]
    return None if any(column.tag is CellTag.LIST for column in columns) else tuple(columns)


def _column(cells: StoredRow) -> Column:
    tags = Counter(cell.tag for cell in cells if cell is not None)
    common = tags.most_common(1)
    tag = CellTag(common[0][0]) if common else None
    longest = max([_length(cell) for cell in cells if cell is not None], default=0)
    return Column(tag, any(cell is None for cell in cells), longest > SHORT_MAX)


def _length(cell: Cell) -> int:
    if isinstance(cell.value, str):
        return len(cell.value.encode())
    return len(cell.value) if isinstance(cell.value, bytes) else 0


class Columns:
    """Columns computed from one another, in as few nested queries as that takes."""

    def __init__(self) -> None:
        self._levels: list[list[str]] = []
        self._level_of: dict[str, int] = {}
        self.steps = 0

    def add(self, sql: str, *needs: str) -> str:
        """Add a column; answer its name. ``needs`` are the names of columns that it uses."""
        level = max([0, *(self._level_of.get(name, -1) + 1 for name in needs)])
        name = f"c{self.steps}"
        self.steps += 1
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(f"{sql} AS {name}")
        self._level_of[name] = level
        return name

    def over(self, source: str) -> str:
        """The query of ``source`` with all columns added."""
        for level in self._levels:
            source = f"SELECT *, {', '.join(level)} FROM ({source})"  # noqa: S608  our own names
        return source


@dataclass(frozen=True, slots=True)
class Place:
    """Where SQL finds the body of a cell, both ends included and counted from 1.

    ``null`` is the condition of its being null, None if that never is.
    """

    column: Column
    null: str | None
    start: str
    end: str
    needs: tuple[str, ...]


class LayoutReader:
    """Reads rows of one layout: ``places`` of the cells, and ``fits``, whether a row has them."""

    def __init__(self, layout: Layout, columns: Columns) -> None:
        self._columns = columns
        self._conditions = [f"array_slice(value, 1, 1) = {blob(bytes([len(layout)]))}"]
        self._needs: list[str] = []
        self._next = _Position("", 2)
        self.places = [self._place(column) for column in layout]
        self._require(f"octet_length(value) >= {self._next.plus(-1)}", *self._next.needs)
        fits = " AND ".join(self._conditions)
        self.fits = columns.add(f"coalesce({fits}, false)", *self._needs)

    def _require(self, condition: str, *needs: str) -> None:
        self._conditions.append(condition)
        self._needs += needs

    def _place(self, column: Column) -> Place:
        at = self._next
        null = f"array_slice(value, {at.plus(0)}, {at.plus(0)}) = {blob(bytes(1))}"
        if column.tag is None:
            self._require(null, *at.needs)
            self._next = at.moved(1)
            return Place(column, "true", "1", "0", ())
        if not column.has_nulls:
            condition, start, end, needs = self._body(column, column.tag, at)
            self._require(condition, *needs)
            return Place(column, None, start, end, needs)
        is_null = self._columns.add(f"({null})", *at.needs)
        condition, start, end, needs = self._body(column, column.tag, at)
        self._require(f"({is_null} OR ({condition}))", is_null, *needs)
        after = self._next
        moved = self._columns.add(
            f"(CASE WHEN {is_null} THEN {at.plus(1)} ELSE {after.plus(0)} END)",
            *(is_null, *at.needs, *after.needs),
        )
        self._next = _Position(moved, 0)
        return Place(column, is_null, start, end, (is_null, *needs))

    def _body(
        self, column: Column, tag: CellTag, at: _Position
    ) -> tuple[str, str, str, tuple[str, ...]]:
        """The condition of a cell that is not null, the ends of its body, and what both need."""
        head = f"array_slice(value, {at.plus(0)}, {at.plus(1)}) = {blob(bytes([1, tag]))}"
        if tag in _WIDTHS:
            start, end = at.plus(2), at.plus(1 + _WIDTHS[tag])
            if tag is CellTag.BOOL:
                body = f"array_slice(value, {start}, {end})"
                head += f" AND {body} IN ({blob(bytes([0]))}, {blob(bytes([1]))})"
            self._next = at.moved(2 + _WIDTHS[tag])
            return head, start, end, at.needs
        start, end, counted = self._counted(at, is_long=column.is_long)
        self._next = _Position(end, 1)
        condition = f"{head} AND {counted}"
        if tag is CellTag.UTF8:
            condition += f" AND TRY(decode(array_slice(value, {start}, {end}))) IS NOT NULL"
        return condition, start, end, (start, end, *at.needs)

    def _counted(self, at: _Position, *, is_long: bool) -> tuple[str, str, str]:
        """The ends of a body whose length stands before it, and whether that is as expected."""
        add = self._columns.add
        one = add(number(f"array_slice(value, {at.plus(2)}, {at.plus(2)})", "UTINYINT"), *at.needs)
        self._needs.append(one)
        if not is_long:
            start = at.plus(3)
            end = add(f"({start} - 1 + {one}::INTEGER)", one, *at.needs)
            return start, end, f"{one} <= {SHORT_MAX}"
        two = add(number(f"array_slice(value, {at.plus(3)}, {at.plus(3)})", "UTINYINT"), *at.needs)
        self._needs.append(two)
        is_short = f"{one} <= {SHORT_MAX}"
        start = add(
            f"(CASE WHEN {is_short} THEN {at.plus(3)} ELSE {at.plus(4)} END)", one, *at.needs
        )
        length = (
            f"CASE WHEN {is_short} THEN {one} ELSE {one}::INTEGER - 128 + 128 * {two}::INTEGER END"
        )
        end = add(f"({start} - 1 + ({length}))", one, two, start)
        return start, end, f"({is_short} OR {two} BETWEEN 1 AND {SHORT_MAX})"


class _Position(NamedTuple):
    """A place in a row: a column, if it is not the same in all rows, plus a number."""

    base: str
    offset: int

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.base,) if self.base else ()

    def plus(self, more: int) -> str:
        offset = self.offset + more
        return f"({self.base} + ({offset}))" if self.base else str(offset)

    def moved(self, more: int) -> _Position:
        return _Position(self.base, self.offset + more)


def blob(data: bytes) -> str:
    """``data`` as SQL."""
    return "'" + "".join([f"\\x{byte:02x}" for byte in data]) + "'::BLOB"


def number(body: str, type_: str) -> str:
    """The number that the big-endian bytes of ``body`` are; NULL if there are none."""
    return f"TRY_CAST(TRY_CAST({body} AS BIT) AS {type_})"
