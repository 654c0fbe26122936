"""How a stream ends: removed at once, or kept as a tombstone for the forks that share its messages.

Its messages are deleted later, in slices: a *remainder* in the upkeep keyspace says that they are
still to be deleted, and is written with the removal.
"""

from __future__ import annotations

from typing import Final

import cbor2

from exo_stream.decision import Need, Unknown, View
from exo_stream.model import Entry, Keyspace
from exo_stream.streams.record import Origin, Record, decode_record, stream_key

LEVELS_MAX: Final = 4
"""Ancestors that one decision lets go of; those behind them are the remainders' to let go of."""

LOOK: Final = b"\x01"
REMAINDER: Final = b"\x00"
"""What a key of STREAM_UPKEEP begins with."""


def look_key(at: int, incarnation: int) -> bytes:
    """The key that has upkeep look at a stream at a time, in microseconds."""
    return LOOK + at.to_bytes(8, "big") + incarnation.to_bytes(8, "big")


def read_look_key(key: bytes) -> tuple[int, int]:
    """The time and the incarnation that a look's key holds."""
    return int.from_bytes(key[1:9], "big"), int.from_bytes(key[9:], "big")


def remainder_key(incarnation: int) -> bytes:
    """The key of what is left of a removed stream."""
    return REMAINDER + incarnation.to_bytes(8, "big")


def remainder(incarnation: int, origin: Origin | None) -> Entry:
    """That an incarnation's messages are to be deleted, and ``origin`` to be let go of first."""
    value = cbor2.dumps(None if origin is None else [origin.name, origin.incarnation])
    return Entry(Keyspace.STREAM_UPKEEP, remainder_key(incarnation), value)


def found(view: View, name: str) -> Record | Unknown | None:
    """The record of ``name`` as a decision sees it, whatever its state."""
    row = view.row(Keyspace.STREAM, stream_key(name))
    if isinstance(row, Unknown):
        return row
    return None if row is None or row.value is None else decode_record(row.value)


def need(name: str) -> Need:
    """Fetch the record of ``name`` and call again."""
    return Need(keys=[(int(Keyspace.STREAM), stream_key(name))])


def with_look(name: str, record: Record, due: int | None) -> tuple[Record, list[Entry]]:
    """The record, and the entry that has upkeep look at it when something is ``due``, unless it
    will do so earlier anyway.
    """
    if due is None or (record.look_at and record.look_at <= due):
        return record, []
    key = look_key(due, record.incarnation)
    entry = Entry(Keyspace.STREAM_UPKEEP, key, name.encode())
    return record._replace(look_at=due), [entry]


def removal(
    view: View, name: str, record: Record, now: int, *, replaced: bool = False
) -> list[Entry] | Need:
    """The entries that end a stream: it is absent, or a tombstone while forks share its messages.

    When it is ``replaced``, another record is written under its name in the same batch.
    """
    if record.references:
        return [record._replace(deleted=True).entry(name)]
    entries = [] if replaced else [Entry(Keyspace.STREAM, stream_key(name), None)]
    released = release(view, record.origin, now)
    if isinstance(released, Need):
        return released
    more, left = released
    return [*entries, *more, remainder(record.incarnation, left)]


def release(
    view: View, origin: Origin | None, now: int
) -> tuple[list[Entry], Origin | None] | Need:
    """The entries by which a removed fork lets go of its source, and that of its own source if
    it was kept for the fork alone; and whom the last of them has still to let go of.
    """
    if origin is None:
        return [], None
    entries: list[Entry] = []
    for _ in range(LEVELS_MAX):
        source = found(view, origin.name)
        if isinstance(source, Unknown):
            return need(origin.name)
        assert source is not None, origin
        assert source.incarnation == origin.incarnation, (source.incarnation, origin)
        assert source.references > 0, origin
        left = source._replace(references=source.references - 1)
        if not left.deleted or left.references:
            left, looks = with_look(
                origin.name, left, None if left.deleted else left.trim_due_at(now)
            )
            return [*entries, left.entry(origin.name), *looks], None
        entries.append(Entry(Keyspace.STREAM, stream_key(origin.name), None))
        if source.origin is None:
            return [*entries, remainder(source.incarnation, None)], None
        entries.append(remainder(source.incarnation, None))
        origin = source.origin
    return entries, origin
