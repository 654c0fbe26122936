"""What a batch of a followed stream says, as a value: what was appended, and what else happened."""

from __future__ import annotations

from dataclasses import dataclass

from exo_stream.model import Batch, Entry, Keyspace
from exo_stream.streams.messages import decode, read_key
from exo_stream.streams.offset import Offset
from exo_stream.streams.record import decode_record
from exo_stream.streams.values import StreamMessage


@dataclass(frozen=True, slots=True)
class StreamChange:
    """One batch about the stream ``name``: created, appended to, closed, accessed or deleted.

    ``messages`` is what it appended. ``next_offset`` is the stream's tail then, None if it was
    ``deleted``; of a fork it begins with what was its source's.
    """

    name: str
    messages: tuple[StreamMessage, ...]
    next_offset: Offset | None
    closed: bool
    deleted: bool


def stream_change(batch: Batch) -> StreamChange | None:
    """What ``batch`` says of the stream that it is about; None if it is about none."""
    if not batch.entries or batch.entries[0].keyspace != Keyspace.STREAM:
        return None
    record, *others = batch.entries
    name = record.key.decode()
    if record.value is None:
        return StreamChange(name, (), None, closed=False, deleted=True)
    now = decode_record(record.value)
    messages = tuple([message for entry in others for message in _appended(entry)])
    return StreamChange(name, messages, Offset.at(now.tail), now.closed, now.deleted)


def _appended(entry: Entry) -> list[StreamMessage]:
    if entry.keyspace != Keyspace.STREAM_DATA or entry.value is None:
        return []
    _, end = read_key(entry.key)
    return [StreamMessage(Offset.at(at), data) for at, data in decode(end, entry.value).messages()]
