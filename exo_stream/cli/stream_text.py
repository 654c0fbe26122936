"""A followed stream as lines: a message a line for people, a change as one JSON object."""

from __future__ import annotations

from exo_stream.cli.wording import Json, batch_object, named
from exo_stream.feed import FeedMessage, SnapshotPage
from exo_stream.model import Batch, Entry, Keyspace
from exo_stream.streams.changes import StreamChange, stream_change


def change_object(message: Batch) -> Json:
    """A batch about a stream as ``follow --stream --json`` prints it."""
    change = stream_change(message)
    if change is None:
        return batch_object(message)
    return {
        "sequence": message.sequence,
        "cursor": str(message.cursor),
        "stream": change.name,
        "next_offset": None if change.next_offset is None else str(change.next_offset),
        "closed": change.closed,
        "deleted": change.deleted,
        "messages": [{"offset": str(m.offset), **named("data", m.data)} for m in change.messages],
    }


def presented(message: FeedMessage) -> FeedMessage:
    """A message whose entries are the names of streams with what was appended to each."""
    if isinstance(message, Batch):
        change = stream_change(message)
        entries = () if change is None else tuple(_lines(change))
        return Batch(message.sequence, message.committed_at, entries, message.log_id)
    if isinstance(message, SnapshotPage):
        entries = tuple([Entry(entry.keyspace, entry.key, b"") for entry in message.entries])
        return SnapshotPage(message.sequence, entries)
    return message


def _lines(change: StreamChange) -> list[Entry]:
    name = change.name.encode()
    if change.deleted:
        return [Entry(Keyspace.STREAM, name, None)]
    return [Entry(Keyspace.STREAM_DATA, name, message.data) for message in change.messages]
