"""Where a fork leaves its source, looked up before the writer is asked.

What stands before a stream's tail never changes, so what is found here still holds when the fork is
decided, unless the source is another stream of that name by then.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from exo_stream.stream_errors import (
    ForkFromTombstoneError,
    ForkOffsetBeyondTailError,
    InvalidOffsetError,
    OffsetEvictedError,
    StreamNotFoundError,
)
from exo_stream.streams.accesses import Accesses
from exo_stream.streams.creation import ForkPoint
from exo_stream.streams.messages import Stored
from exo_stream.streams.offset import Offset
from exo_stream.streams.reading import Reader
from exo_stream.streams.record import Record


async def fork_point(
    reader: Reader,
    source: str,
    where: Offset | None,
    sub_offset: int,
    *,
    accesses: Accesses,
    now: int,
) -> ForkPoint:
    """The point at ``where``, the tail if None, and ``sub_offset`` of the append behind it.

    Raises as ``Streams.create_fork`` does.
    """
    record = await reader.record(source)
    if record is None:
        raise StreamNotFoundError(source)
    if record.deleted:
        raise ForkFromTombstoneError(source)
    if accesses.expired(record, now):
        raise StreamNotFoundError(source)
    if where is None or where.is_now:
        if sub_offset:
            raise InvalidOffsetError("nothing follows the tail, so there is nothing to cut")
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
