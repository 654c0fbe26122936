"""Reading a stream at a Version: its own rows, and those it shares with what it was forked from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import trio

from exo_stream.actors.reads import Reads
from exo_stream.model import Keyspace, Row, row_key
from exo_stream.storage.engine import Version
from exo_stream.streams.messages import Stored, data_key, decode
from exo_stream.streams.record import Record, decode_record, stream_key

RECENT_MAX: Final = 32
"""Appends that a reader may be behind and still be served key by key, from memory."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Messages of one incarnation, up to ``until``."""

    incarnation: int
    until: int


class Reader:
    """The reads of one Version, which whoever made it has pinned, or which it ``holds`` itself
    until it is left.
    """

    __slots__ = ("_holds", "_reads", "version")

    def __init__(self, reads: Reads, version: Version, *, holds: bool = False) -> None:
        self._reads = reads
        self._holds = holds
        self.version = version
        if holds:
            reads.engine.pin(version)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Let go of the Version, if it is this reader's to let go of."""
        if self._holds:
            self._reads.engine.unpin(self.version)

    async def record(self, name: str) -> Record | None:
        """The record under this name, whatever its state."""
        key = row_key(Keyspace.STREAM, stream_key(name))
        [row] = await self._reads.rows(self.version, [key])
        return None if row is None or row.value is None else decode_record(row.value)

    async def messages(self, record: Record, start: int, *, bytes_max: int) -> list[Stored]:
        """What follows ``start``: some of it, up to about ``bytes_max``, at least one append."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if start >= record.tail:
            return []
        recent = self._recent(record, start, bytes_max)
        if recent is not None:
            return recent
        stored: list[Stored] = []
        end = start + bytes_max
        for segment in await self._segments(record, start):
            while start < min(segment.until, end):
                stored += await self._page(segment, start, end - start)
                if stored[-1].end > segment.until:
                    # It ends inside an append of its owner, but never inside a JSON value.
                    cut = stored.pop().until(segment.until, divisible=True)
                    assert cut is not None, segment
                    stored.append(cut)
                start = stored[-1].end
        return stored

    def _recent(self, record: Record, start: int, bytes_max: int) -> list[Stored] | None:
        """The last appends, looked up from the tail backward, each where the one after it
        begins; None if memory does not have them, or they are too many.
        """
        if start < record.base:
            return None
        found: list[Stored] = []
        end = record.tail
        for _ in range(RECENT_MAX):
            key = row_key(Keyspace.STREAM_DATA, data_key(record.incarnation, end))
            row = self._reads.engine.lookup(self.version, key)
            if not isinstance(row, Row):
                return None
            assert row.value is not None, key
            stored = decode(end, row.value)
            found.append(stored)
            end = stored.start
            if end <= start:
                found.reverse()
                return found
            if record.tail - end >= bytes_max:
                return None
        return None

    async def _segments(self, record: Record, start: int) -> list[Segment]:
        """Whose messages stand after ``start``, in their order."""
        await trio.lowlevel.checkpoint_if_cancelled()
        segments: list[Segment] = []
        until, owner = record.tail, record
        while True:
            if owner.base < until:
                segments.append(Segment(owner.incarnation, until))
            if start >= owner.base or owner.origin is None:
                break
            until = min(until, owner.base)
            origin = owner.origin
            ancestor = await self.record(origin.name)
            assert ancestor is not None, origin
            assert ancestor.incarnation == origin.incarnation, origin
            owner = ancestor
        segments.reverse()
        return segments

    async def _page(self, segment: Segment, start: int, bytes_max: int) -> list[Stored]:
        """The next rows of a segment; there is at least one."""
        low = data_key(segment.incarnation, start + 1)
        rows = await self._rows(low, data_key(segment.incarnation, segment.until + 1), bytes_max)
        if not rows:
            # It ends inside an append of its owner.
            rows = await self._rows(low, data_key(segment.incarnation + 1, 0), 1)
        assert rows, (segment, start)
        return [decode(int.from_bytes(row.key[-8:], "big"), row.value or b"") for row in rows]

    async def _rows(self, low: bytes, high: bytes, bytes_max: int) -> list[Row]:
        await trio.lowlevel.checkpoint_if_cancelled()
        resume: bytes | None = row_key(Keyspace.STREAM_DATA, low)
        end = row_key(Keyspace.STREAM_DATA, high)
        rows: list[Row] = []
        while resume is not None and not rows:
            page = await self._reads.page(
                self.version,
                resume,
                end,
                rows_max=self._reads.limits.page_rows_max,
                bytes_max=bytes_max,
                forward=True,
            )
            rows, resume = page.rows, page.resume
        return rows


def cut_page(
    stored: list[Stored], start: int, bytes_max: int, *, divisible: bool, text: bool
) -> list[Stored]:
    """Of what was read what stands after ``start``, and no more than fits into ``bytes_max``."""
    page: list[Stored] = []
    left = bytes_max
    for part in stored:
        rest = part.after(start, divisible=divisible) if part.start < start else part
        if left <= 0:
            break
        if rest.end - rest.start > left:
            if not page or divisible:
                page.append(rest.page(left, divisible=divisible, text=text))
            break
        page.append(rest)
        left -= rest.end - rest.start
    return page
