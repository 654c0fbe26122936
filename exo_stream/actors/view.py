"""What a decision sees: the current Version, plus what its group has decided before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from exo_stream.actors.reads import Reads
from exo_stream.decision import UNKNOWN, KeyRange, Need, Unknown
from exo_stream.model import Entry, Row, row_key
from exo_stream.storage.engine import Cold, Version


class _Span(NamedTuple):
    """Where a range lies in the table, and from which end it is read."""

    start: bytes
    end: bytes
    reverse: bool

    @classmethod
    def of(cls, wanted: KeyRange) -> _Span:
        """The span of a range of one keyspace."""
        start, end = row_key(wanted.keyspace, wanted.start), row_key(wanted.keyspace, wanted.end)
        return cls(start, end, wanted.reverse)


class GroupView:
    """The view of one group's decisions; it lives from the group's first decision to its COMMIT.

    What it fetched stays true as long as the Version is the current one, and only ingest, which
    is busy with this group, changes that.
    """

    def __init__(self, reads: Reads, version: Version) -> None:
        self.sequence = version.frontier + 1
        self._reads = reads
        self._version = version
        self._written: dict[bytes, Row] = {}
        self._unindexed: list[tuple[int, Sequence[Entry]]] = []
        self._fetched: dict[bytes, Row | None] = {}
        self._versions: dict[bytes, int] = {}
        self._ranges: dict[_Span, tuple[list[Row], bool]] = {}

    def write(self, entries: Sequence[Entry]) -> None:
        """Count ``entries`` as written by batch ``sequence``; the next decision gets the next."""
        self._unindexed.append((self.sequence, entries))
        self.sequence += 1

    def row(self, keyspace: int, key: bytes) -> Row | Unknown | None:
        """The row of a key, a tombstone included; None if there is none."""
        self._index()
        wanted = row_key(keyspace, key)
        if wanted in self._written:
            return self._written[wanted]
        if wanted in self._fetched:
            return self._fetched[wanted]
        found = self._reads.engine.lookup(self._version, wanted)
        return UNKNOWN if isinstance(found, Cold) else found

    def changed(self, keyspace: int, key: bytes, since: int) -> bool | Unknown:
        """Whether a batch after ``since`` wrote the key."""
        self._index()
        wanted = row_key(keyspace, key)
        if wanted in self._written:
            return True
        if wanted in self._fetched:
            row = self._fetched[wanted]
            return row is not None and row.sequence > since
        found = self._reads.engine.changed(self._version, wanted, since)
        return UNKNOWN if isinstance(found, Cold) else found

    def version(self, keyspace: int, key: bytes) -> int | Unknown:
        """The sequence of the key's last write, 0 if it is absent."""
        row = self.row(keyspace, key)
        if isinstance(row, Unknown):
            return self._versions.get(row_key(keyspace, key), UNKNOWN)
        return _version(row)

    def rows(self, wanted: KeyRange) -> list[Row] | Unknown:
        """The live rows of a range in key order, from its end on if it is in reverse."""
        span = _Span.of(wanted)
        if span not in self._ranges:
            return UNKNOWN
        fetched, complete = self._ranges[span]
        merged = {row.key: row for row in fetched}
        # Past the last row of an incomplete range the order of what follows is not known.
        last = fetched[-1].key if fetched else b""
        merged |= {
            key: row
            for key, row in self._written_between(span).items()
            if complete or (key >= last if span.reverse else key <= last)
        }
        keys = sorted(merged, reverse=span.reverse)
        live = [merged[key] for key in keys if merged[key].value is not None]
        if len(live) < wanted.limit and not complete:
            return UNKNOWN
        return live[: wanted.limit]

    async def fetch(self, needs: Sequence[Need]) -> None:
        """Bring what ``needs`` names into memory."""
        keys = list({row_key(*key) for need in needs for key in need.keys})
        if keys:
            rows = await self._reads.rows(self._version, keys)
            self._fetched.update(zip(keys, rows, strict=True))
        keys = list({row_key(*key) for need in needs for key in need.versions})
        if keys:
            rows = await self._reads.rows(self._version, keys, values=False)
            self._versions.update(zip(keys, map(_version, rows), strict=True))
        for wanted in {wanted for need in needs for wanted in need.ranges}:
            await self._fetch_range(_Span.of(wanted), wanted.limit)

    async def _fetch_range(self, span: _Span, limit: int) -> None:
        # What the group has deleted in the range hides as many rows: fetch that many more.
        limit += len(self._written_between(span))
        rows: list[Row] = []
        low, high, more = span.start, span.end, True
        while more and len(rows) < limit:
            page = await self._reads.page(
                self._version, low, high, rows_max=limit - len(rows), forward=not span.reverse
            )
            rows.extend(page.rows)
            more = page.resume is not None
            if page.resume is not None:
                low, high = (low, page.resume) if span.reverse else (page.resume, high)
        self._ranges[span] = (rows, not more)

    def _written_between(self, span: _Span) -> dict[bytes, Row]:
        self._index()
        return {key: row for key, row in self._written.items() if span.start <= key < span.end}

    def _index(self) -> None:
        # Most groups are plain puts that nobody asks about; they are never indexed.
        if not self._unindexed:
            return
        written = self._written
        for sequence, entries in self._unindexed:
            for keyspace, key, value in entries:
                whole = row_key(keyspace, key)
                written[whole] = Row(whole, sequence, value)
        self._unindexed.clear()


def _version(row: Row | None) -> int:
    return 0 if row is None or row.value is None else row.sequence
