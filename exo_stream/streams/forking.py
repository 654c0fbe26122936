"""Where a fork leaves its source, looked up before the writer is asked.

What stands before a stream's tail never changes, so what is found here still holds when the fork is
decided, unless the source is another stream of that name by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import trio

from exo_stream.stream_errors import (
    ForkFromTombstoneError,
    ForkOffsetBeyondTailError,
    InvalidOffsetError,
    OffsetEvictedError,
    StreamNotFoundError,
)
from exo_stream.streams.accesses import Accesses
from exo_stream.streams.creation import NOWHERE, Fork, ForkPoint
from exo_stream.streams.messages import Stored
from exo_stream.streams.offset import Offset
from exo_stream.streams.reading import Reader
from exo_stream.streams.record import Record


async def fork_point(
    reader: Reader,
    request: Fork,
    where: Offset | None,
    sub_offset: int,
    *,
    accesses: Accesses,
    now: int,
) -> ForkPoint:
    """The point at ``where``, the tail if None, and ``sub_offset`` of the append behind it.

    If there is a stream of the fork's name the point is only what was asked: the decision compares
    it, and the source may be gone by then. Raises as ``Streams.create_fork`` does.
    """
    if sub_offset and (where is None or where.is_now):
        raise InvalidOffsetError("nothing follows the tail, so there is nothing to cut")
    own, source = await reader.record(request.name), request.source
    if own is not None and not own.deleted and not accesses.expired(own, now):
        return _as_asked(own, where, sub_offset)
    record = await reader.record(source)
    if record is None:
        raise StreamNotFoundError(source)
    if record.deleted:
        raise ForkFromTombstoneError(source)
    if accesses.expired(record, now):
        raise StreamNotFoundError(source)
    if where is None or where.is_now:
        return ForkPoint(record.incarnation, None)
    if where > Offset.at(record.tail):
        raise ForkOffsetBeyondTailError(f"the source's tail is at {Offset.at(record.tail)}")
    if where.position < record.low:
        if where.position:
            raise OffsetEvictedError(str(Offset.at(record.low)))
        where = Offset.at(record.low)
    through = await _through(reader, record, where.position)
    copied = await _copied(reader, record, where.position, sub_offset) if sub_offset else ()
    return ForkPoint(record.incarnation, where.position, sub_offset, through, copied)


def _as_asked(own: Record, where: Offset | None, sub_offset: int) -> ForkPoint:
    """A point to compare with that of a fork which is there already; to fork there, look again."""
    if where is None or where.is_now:
        return replace(NOWHERE, sub_offset=sub_offset)
    position = where.position
    if not position and own.origin is not None and own.origin.offset <= own.low:
        # The start was the oldest that the source still had.
        position = own.origin.offset
    return replace(NOWHERE, offset=position, sub_offset=sub_offset)


async def _through(reader: Reader, record: Record, position: int) -> int:
    """How many messages stand before ``position``; a JSON value is never cut."""
    await trio.lowlevel.checkpoint_if_cancelled()
    if position == record.tail:
        return record.messages
    if position == record.low:
        return record.low_messages
    covering = await _append_behind(reader, record, position - 1)
    before = covering.until(position, divisible=True)
    assert before is not None, position
    if record.config.is_json and sum(end == position for end, _ in covering.messages()) == 0:
        raise InvalidOffsetError("that offset is inside of a JSON value")
    return before.through


async def _copied(
    reader: Reader, record: Record, position: int, sub_offset: int
) -> Sequence[bytes]:
    """The first ``sub_offset`` bytes, or JSON values, of the append behind ``position``."""
    if position == record.tail:
        raise InvalidOffsetError("nothing follows that offset, so there is nothing to cut")
    divisible = not record.config.is_json
    behind = (await _append_behind(reader, record, position)).after(position, divisible=divisible)
    available = behind.end - behind.start if divisible else behind.count
    if sub_offset > available:
        unit = "bytes" if divisible else "values"
        raise InvalidOffsetError(f"the append behind that offset has only {available} {unit}")
    if not divisible:
        return tuple(data for _, data in list(behind.messages())[:sub_offset])
    return (b"".join(data for _, data in behind.messages())[:sub_offset],)


async def _append_behind(reader: Reader, record: Record, position: int) -> Stored:
    [first, *_] = await reader.messages(record, position, bytes_max=1)
    return first
