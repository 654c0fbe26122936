"""What upkeep decides: a look at a stream whose time has come, and letting go of what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cbor2

from exo_stream.decision import Answer, Decision, Need, Unknown, Verdict, View, Write
from exo_stream.model import Entry, Keyspace
from exo_stream.streams.accesses import Accesses
from exo_stream.streams.messages import Stored
from exo_stream.streams.record import SECOND, Origin, Record
from exo_stream.streams.removal import (
    found,
    look_key,
    need,
    release,
    remainder,
    remainder_key,
    removal,
    with_look,
)


@dataclass(frozen=True, slots=True)
class Trim:
    """What retention lets go of, as it was looked up: nothing of that can have changed since,
    unless the stream's ``low`` is no longer what it ``was``.

    ``doomed`` are rows of its own, the last of them ending at ``trimmed``.
    """

    was: int
    low: int
    low_messages: int
    oldest_at: int
    doomed: Sequence[bytes] = ()
    trimmed: int = 0


def evicted(record: Record, stored: Sequence[Stored], now: int) -> Trim:
    """How far retention has come in the oldest appends of a stream, which are ``stored``.

    Whole appends only; the newest is let go of by age alone, however large it is.
    """
    config = record.config
    low, low_messages, oldest_at = record.low, record.low_messages, record.oldest_at
    for part in stored:
        oldest_at = part.committed_at
        too_old = (
            config.retention_seconds is not None
            and part.committed_at + config.retention_seconds * SECOND <= now
        )
        too_much = (
            config.retention_bytes is not None
            and record.tail - low > config.retention_bytes
            and part.end <= record.last_start
        )
        if not (too_old or too_much):
            break
        low, low_messages = part.end, part.through
    return Trim(record.low, low, low_messages, oldest_at, trimmed=record.trimmed)


def look(
    name: str, at: int, incarnation: int, accesses: Accesses, trim: Trim | None
) -> Decision[bool]:
    """How ingest decides on a look: the stream has expired, or something of it is let go of, or
    it is to be looked at later. The answer is whether it has expired.
    """
    key = look_key(at, incarnation)
    done = Entry(Keyspace.STREAM_UPKEEP, key, None)

    def decide(view: View, now: int) -> Verdict[bool]:
        pending = view.row(Keyspace.STREAM_UPKEEP, key)
        if isinstance(pending, Unknown):
            return Need(keys=[(int(Keyspace.STREAM_UPKEEP), key)])
        if pending is None or pending.value is None:
            return Answer(answer=False)
        record = found(view, name)
        if isinstance(record, Unknown):
            return need(name)
        if record is None or record.deleted or record.incarnation != incarnation:
            return Write([done], answer=False)
        if accesses.expired(record, now):
            entries = removal(view, name, record, now)
            return entries if isinstance(entries, Need) else Write([*entries, done], answer=True)
        expiry = accesses.earliest_expiry(record, now)
        return _looked_at(name, record, at, trim=trim, expiry=expiry, now=now)

    return decide


def _looked_at(
    name: str, record: Record, at: int, *, trim: Trim | None, expiry: int | None, now: int
) -> Write[bool]:
    doomed: list[Entry] = []
    if trim is not None and trim.was == record.low:
        record = record._replace(
            low=trim.low, low_messages=trim.low_messages, oldest_at=trim.oldest_at
        )
        if not record.references:
            record = record._replace(trimmed=trim.trimmed)
            doomed = [Entry(Keyspace.STREAM_DATA, key, None) for key in trim.doomed]
    done = Entry(Keyspace.STREAM_UPKEEP, look_key(at, record.incarnation), None)
    looks: list[Entry] = []
    if record.look_at == at:
        due = [time for time in (expiry, record.trim_due_at(now)) if time is not None]
        record, looks = with_look(name, record._replace(look_at=0), min(due, default=None))
    return Write([record.entry(name), *doomed, done, *looks], answer=False)


def let_go(incarnation: int) -> Decision[None]:
    """How what is left of a removed fork lets go of its source."""
    key = remainder_key(incarnation)

    def decide(view: View, now: int) -> Verdict[None]:
        row = view.row(Keyspace.STREAM_UPKEEP, key)
        if isinstance(row, Unknown):
            return Need(keys=[(int(Keyspace.STREAM_UPKEEP), key)])
        origin = None if row is None or row.value is None else read_remainder(row.value)
        if origin is None:
            return Answer(None)
        released = release(view, origin, now)
        if isinstance(released, Need):
            return released
        entries, left = released
        return Write([*entries, remainder(incarnation, left)], None)

    return decide


def read_remainder(value: bytes) -> Origin | None:
    """Whom a removed stream has still to let go of."""
    held = cbor2.loads(value)
    return None if held is None else Origin(held[0], held[1], 0, 0)


def drop(incarnation: int, doomed: Sequence[tuple[int, bytes]], *, last: bool) -> Decision[None]:
    """How rows of a removed stream are deleted, which nobody else writes any more; with the
    ``last`` of them what is left of it.
    """
    entries = [Entry(keyspace, key, None) for keyspace, key in doomed]
    if last:
        entries.append(Entry(Keyspace.STREAM_UPKEEP, remainder_key(incarnation), None))
    return lambda _view, _now: Write(entries, None)
