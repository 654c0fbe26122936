"""Reading the table at a Version: memory first, then the runs from the newest to the oldest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Final

from exo_stream.model import Row
from exo_stream.payload import EncodedBatch
from exo_stream.storage import batch_log, sub_blocks
from exo_stream.storage.cache import SubBlock, SubBlockCache
from exo_stream.storage.database import ReadCursor, Rows
from exo_stream.storage.engine import COLD, Cold, Page, Reader, Retention, Version
from exo_stream.storage.page import Bounds, capture
from exo_stream.storage.scan import Place, Scan
from exo_stream.storage.version import TableVersion

_CACHED_ROWS_MAX: Final = 256
"""A page of so many rows is tried from the cache on the loop; a larger one costs it too much."""

_KEYS_MAX: Final = 64
"""Keys that look for their sub-blocks together: it bounds what one query brings."""

_BYTES_MAX: Final = 4 * 1024 * 1024
"""What the sub-blocks of such keys may have together; those of one key may have more."""

_new_row: Final[Callable[[type[Row], tuple[bytes, int, bytes | None]], Row]] = tuple.__new__
"""``Row`` itself is a Python function, and a tenth of the price of reading one."""

_Wanted = tuple[bytes, "Row | None", list[Place]]
"""A key, its row if that is newer than every block, and else where it may be."""


def places_of(version: TableVersion, key: bytes) -> Iterator[Place]:
    """The sub-blocks that may hold a row key, those of newer runs first."""
    for run in version.runs:
        block = run.block_of(key)
        at = None if block is None else block.sub_block_of(key)
        if block is not None and at is not None:
            yield block, at


def in_memtables(version: TableVersion, key: bytes) -> Row | None:
    """The row of a row key if it is newer than every block."""
    node = version.live.node(key, version.frontier)
    if node is None and version.frozen is not None:
        node = version.frozen.node(key, version.frontier)
    return None if node is None else _new_row(Row, (key, node[0], node[1]))


def lookup(
    version: TableVersion, key: bytes, cache: SubBlockCache, *, since: int = -1
) -> Row | Cold | None:
    """The row of a row key as far as memory can tell; with ``since``, unless it is in a block
    that was folded from no newer batch.
    """
    row = in_memtables(version, key)
    if row is not None:
        return row
    for block, at in places_of(version, key):
        if block.folded_through <= since:
            continue
        sub_block = cache.get(block.fences.ids[at])
        if sub_block is None:
            return COLD
        row = sub_block.row(key)
        if row is not None:
            return row
    return None


def changed(version: TableVersion, key: bytes, since: int, cache: SubBlockCache) -> bool | Cold:
    """Whether a batch after ``since`` wrote a row key, as far as memory can tell.

    Only blocks that were folded from newer batches are asked, and filters say no to most keys.
    """
    row = lookup(version, key, cache, since=since)
    if isinstance(row, Cold):
        return row
    return row is not None and row.sequence > since


def fetch(
    version: TableVersion,
    keys: Sequence[bytes],
    rows: Rows,
    cache: SubBlockCache,
    *,
    bytes_max: int | None = None,
    values: bool = True,
) -> list[Row | None]:
    """The rows of the first of these row keys, tombstones included: of all of them, or of as
    many as it takes to have ``bytes_max`` of values, about. Without ``values`` none is loaded.
    """
    found: dict[bytes, Row | None] = {}
    size = 0
    for part in _parts(version, dict.fromkeys(keys)):
        loaded = _rows(part, rows, cache, values=values)
        for key, row in zip([key for key, _, _ in part], loaded, strict=True):
            found[key] = row
            size += 0 if row is None or row.value is None else len(row.value)
        if bytes_max is not None and size >= bytes_max:
            break
    return [found[key] for key in takewhile(found.__contains__, keys)]


def _parts(version: TableVersion, keys: Iterable[bytes]) -> Iterator[list[_Wanted]]:
    """The keys in order, as many at a time as may look for their sub-blocks together."""
    part: list[_Wanted] = []
    seen: set[Place] = set()
    size = 0
    for key in keys:
        row = in_memtables(version, key)
        places = [] if row is not None else list(places_of(version, key))
        more = _size(place for place in places if place not in seen)
        if part and (len(part) == _KEYS_MAX or size + more > _BYTES_MAX):
            yield part
            part, seen, size, more = [], set(), 0, _size(places)
        part.append((key, row, places))
        seen.update(places)
        size += more
    if part:
        yield part


def _size(places: Iterable[Place]) -> int:
    return sum([block.fences.sizes[at] for block, at in places])


def _rows(
    part: Sequence[_Wanted], rows: Rows, cache: SubBlockCache, *, values: bool
) -> list[Row | None]:
    places = [place for _, _, places in part for place in places]
    if len(part) == 1 and _size(places) > _BYTES_MAX:
        # Large values of one key, an older one in each run: the first that is found will do.
        loads = (sub_blocks.load([place], rows, cache, values=values)[0] for place in places)
        return [_first(part[0][0], loads)]
    loaded = sub_blocks.load(places, rows, cache, values=values)
    decoded = dict(zip(places, loaded, strict=True))
    return [
        row if not candidates else _first(key, [decoded[place] for place in candidates])
        for key, row, candidates in part
    ]


def _first(key: bytes, candidates: Iterable[SubBlock]) -> Row | None:
    for sub_block in candidates:
        row = sub_block.row(key)
        if row is not None:
            return row
    return None


class TableReader:
    """A thread's own way into the file: the table at any pinned Version, and the log."""

    def __init__(self, cursor: ReadCursor, cache: SubBlockCache) -> None:
        self._cursor = cursor
        self._cache = cache

    def fetch(
        self,
        version: Version,
        keys: Sequence[bytes],
        *,
        bytes_max: int | None = None,
        values: bool = True,
    ) -> list[Row | None]:
        """[reader] The rows of the first of these row keys at ``version``, in few queries."""
        assert isinstance(version, TableVersion), version
        with self._cursor.transaction() as rows:
            return fetch(version, keys, rows, self._cache, bytes_max=bytes_max, values=values)

    def page(self, scan: Scan) -> Page:
        """[reader] The page that ``scan`` makes."""
        with self._cursor.transaction() as rows:
            page = scan.page(lambda places: sub_blocks.load(places, rows, self._cache))
        assert page is not None, scan
        return page

    @contextmanager
    def reading(self) -> Iterator[Rows]:
        """[reader] A read-only transaction, for those who speak SQL themselves."""
        with self._cursor.transaction() as rows:
            yield rows

    def log_page(
        self, after: int, *, through: int, batches_max: int, bytes_max: int
    ) -> list[EncodedBatch]:
        """[reader] The batches that follow ``after``, none above ``through``."""
        with self._cursor.transaction() as rows:
            return batch_log.page(
                rows, after, through=through, batches_max=batches_max, bytes_max=bytes_max
            )

    def sequence_at(self, committed_at: int) -> int:
        """[reader] The first retained sequence committed at or after this time."""
        with self._cursor.transaction() as rows:
            return batch_log.sequence_at(rows, committed_at)

    def cutoff(self, retention: Retention, now: int) -> int:
        """[reader] The floor that ``retention`` asks for at time ``now``."""
        with self._cursor.transaction() as rows:
            return batch_log.cutoff(rows, retention, now)

    def log_bytes(self, floor: int) -> int:
        """[reader] The payloads of every batch from ``floor`` on, together."""
        with self._cursor.transaction() as rows:
            return batch_log.payload_bytes(rows, floor)

    def interrupt(self) -> None:
        """Stop the query that is running, from any thread; it raises OverloadedError."""
        self._cursor.interrupt()


class TablePlan:
    """One page of a scan; what it needs of the memtables was copied when it was planned."""

    def __init__(self, version: TableVersion, bounds: Bounds, cache: SubBlockCache) -> None:
        self._memory = capture(version, bounds)
        self._runs = version.runs
        self._bounds = bounds
        self._page: Page | None = None
        if bounds.rows_max <= _CACHED_ROWS_MAX or not self._needs_blocks():
            self._page = self._scan().page(lambda places: sub_blocks.cached(places, cache))

    @property
    def in_memory(self) -> bool:
        """Whether memory had everything."""
        return self._page is not None

    def run(self, reader: Reader | None) -> Page:
        """The page. ``reader`` may be ``None`` only if ``in_memory``."""
        if self._page is not None:
            return self._page
        assert isinstance(reader, TableReader), reader
        return reader.page(self._scan())

    def _scan(self) -> Scan:
        return Scan(self._memory, self._runs, self._bounds)

    def _needs_blocks(self) -> bool:
        start, end = self._memory.start, self._memory.end
        return any(run.blocks_between(start, end) for run in self._runs)
