"""Creating a stream, empty or with messages, open or closed, from nothing or as a fork.

A fork shares its source's messages up to an offset: it refers to them, and the source counts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from exo_stream.decision import Answer, Decision, Need, Refuse, Unknown, Verdict, View, Write
from exo_stream.errors import ExoStreamError
from exo_stream.model import Entry, Keyspace
from exo_stream.stream_errors import (
    ContentTypeMismatchError,
    ForkFromTombstoneError,
    ForkOffsetBeyondTailError,
    OffsetEvictedError,
    StreamConfigMismatchError,
    StreamNotFoundError,
    StreamPathBlockedError,
)
from exo_stream.streams.accesses import Accesses
from exo_stream.streams.appending import Refused, with_messages
from exo_stream.streams.offset import Offset
from exo_stream.streams.record import Origin, Record, decode_record, stream_key
from exo_stream.streams.removal import found, need, removal, with_look
from exo_stream.streams.values import CreateResult, StreamConfig, media_type


@dataclass(frozen=True, slots=True)
class Create:
    """One creation, checked. ``messages`` are its first, and ``config.closed`` closes it."""

    name: str
    config: StreamConfig
    messages: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class ForkPoint:
    """Where a fork leaves its source, as it was looked up: nothing of it can have changed since,
    unless the source is another ``incarnation`` by now.

    ``offset`` None is the source's tail, wherever it is. ``through`` messages stand before it,
    ``copied`` are those of the sub-offset.
    """

    incarnation: int
    offset: int | None
    sub_offset: int = 0
    through: int = 0
    copied: Sequence[bytes] = ()


NOWHERE: Final = ForkPoint(0, None)
"""The point of a fork that is not looked up yet."""


@dataclass(frozen=True, slots=True)
class Fork:
    """One fork, checked; what is None of its configuration is the source's."""

    name: str
    source: str
    point: ForkPoint
    content_type: str | None = None
    ttl_seconds: int | None = None
    expires_at: int | None = None
    retention_seconds: int | None = None
    retention_bytes: int | None = None
    close: bool = False
    messages: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class LookAgain:
    """The answer when the source is another by now: look up the fork's point again."""


Created = CreateResult | Refused
Forked = CreateResult | Refused | LookAgain


def same_config(wanted: StreamConfig, record: Record) -> bool:
    """Whether a stream may be created again as ``wanted``: the same type, whatever its
    parameters, the same expiry and retention, and closed if and only if the stream is now.
    """
    config = record.config
    return (
        media_type(wanted.content_type) == media_type(config.content_type)
        and wanted.ttl_seconds == config.ttl_seconds
        and (wanted.ttl_seconds is not None or wanted.expires_at == config.expires_at)
        and wanted.closed == record.closed
        and wanted.retention_seconds == config.retention_seconds
        and wanted.retention_bytes == config.retention_bytes
    )


def created(record: Record, *, anew: bool) -> CreateResult:
    """What is told of a stream that was asked for."""
    return CreateResult(
        anew, Offset.at(record.tail), record.closed, record.config, record.incarnation
    )


def create(request: Create, accesses: Accesses) -> Decision[Created]:
    """How ingest decides on a creation."""

    def decide(view: View, now: int) -> Verdict[Created]:
        name = request.name
        before = _makes_way(view, name, accesses, now)
        match before:
            case Need() | Refuse() | Write():
                return before
            case Record():
                if not same_config(request.config, before):
                    return Refuse(StreamConfigMismatchError(name))
                return Answer(created(before, anew=False))
            case _:
                record = Record(
                    view.sequence, request.config, 0, 0, request.config.closed, False, now, now, now
                )
                return _born(name, record, request.messages, now, before)

    return decide


def fork(request: Fork, accesses: Accesses) -> Decision[Forked]:
    """How ingest decides on a fork."""

    def decide(view: View, now: int) -> Verdict[Forked]:
        before = _makes_way(view, request.name, accesses, now)
        if isinstance(before, Need | Refuse | Write):
            return before
        if isinstance(before, Record):
            return _forked_before(request, before)
        source = _source(view, request, accesses, now)
        if not isinstance(source, Record):
            return source
        record = _fork_record(request, source, view.sequence, now)
        others = _counted(request.source, source, before)
        return _born(
            request.name, record, request.messages, now, others, copied=request.point.copied
        )

    return decide


def _makes_way(
    view: View, name: str, accesses: Accesses, now: int
) -> Record | Need | Refuse | Write[Refused] | list[Entry]:
    """The live stream of this name; or the entries that remove one which has expired."""
    record = found(view, name)
    if isinstance(record, Unknown):
        return need(name)
    if record is None:
        return []
    if record.deleted:
        return Refuse(StreamPathBlockedError(name))
    if not accesses.expired(record, now):
        return record
    entries = removal(view, name, record, now, replaced=True)
    if record.references and not isinstance(entries, Need):
        return Write(entries, Refused(StreamPathBlockedError(name)))
    return entries


def _forked_before(request: Fork, record: Record) -> Answer[Forked] | Refuse:
    """The same fork again? If no offset is given, wherever its source's tail may be by now."""
    origin, point = record.origin, request.point
    wanted = _config(request, record.config)
    if (
        origin is None
        or origin.name != request.source
        or (point.offset is not None and point.offset != origin.offset)
        or point.sub_offset != origin.sub_offset
        or not same_config(replace(wanted, closed=request.close), record)
    ):
        return Refuse(StreamConfigMismatchError(request.name))
    return Answer(created(record, anew=False))


def _counted(name: str, source: Record, before: Sequence[Entry]) -> list[Entry]:
    """The entries ``before``, and the source with one more fork: one fewer by then if what made
    way was a fork of it too.
    """
    key = (Keyspace.STREAM, stream_key(name))
    others = [entry for entry in before if (entry.keyspace, entry.key) != key]
    for entry in before:
        if (entry.keyspace, entry.key) == key and entry.value is not None:
            source = decode_record(entry.value)
    return [source._replace(references=source.references + 1).entry(name), *others]


def _config(request: Fork, inherited: StreamConfig) -> StreamConfig:
    own_expiry = request.ttl_seconds is not None or request.expires_at is not None
    return StreamConfig(
        content_type=request.content_type or inherited.content_type,
        ttl_seconds=request.ttl_seconds if own_expiry else inherited.ttl_seconds,
        expires_at=request.expires_at if own_expiry else inherited.expires_at,
        closed=request.close,
        retention_seconds=inherited.retention_seconds
        if request.retention_seconds is None
        else request.retention_seconds,
        retention_bytes=inherited.retention_bytes
        if request.retention_bytes is None
        else request.retention_bytes,
    )


def _source(
    view: View, request: Fork, accesses: Accesses, now: int
) -> Record | Need | Refuse | Answer[Forked]:
    name, point = request.source, request.point
    source = found(view, name)
    if isinstance(source, Unknown):
        return need(name)
    if source is not None and source.deleted:
        return Refuse(ForkFromTombstoneError(name))
    if source is None or accesses.expired(source, now):
        return Refuse(StreamNotFoundError(name))
    if source.incarnation != point.incarnation:
        return Answer(LookAgain())
    objection = _unfit(request, source)
    return source if objection is None else Refuse(objection)


def _unfit(request: Fork, source: Record) -> ExoStreamError | None:
    """Why the source cannot be forked like that."""
    point, content_type = request.point, source.config.content_type
    if request.content_type is not None and media_type(request.content_type) != media_type(
        content_type
    ):
        return ContentTypeMismatchError(content_type)
    if point.offset is not None and point.offset > source.tail:
        return ForkOffsetBeyondTailError("the source ends before that offset")
    if point.offset is not None and point.offset < source.low:
        return OffsetEvictedError(str(Offset.at(source.low)))
    return None


def _fork_record(request: Fork, source: Record, incarnation: int, now: int) -> Record:
    point = request.point
    offset = source.tail if point.offset is None else point.offset
    through = source.messages if point.offset is None else point.through
    return Record(
        incarnation,
        _config(request, source.config),
        offset,
        through,
        request.close,
        False,
        now,
        now,
        now,
        base=offset,
        low=source.low,
        low_messages=source.low_messages,
        trimmed=offset,
        last_start=offset,
        oldest_at=source.oldest_at,
        origin=Origin(request.source, source.incarnation, offset, point.sub_offset),
    )


def _born(
    name: str,
    record: Record,
    messages: Sequence[bytes],
    now: int,
    others: Sequence[Entry],
    *,
    copied: Sequence[bytes] = (),
) -> Write[CreateResult]:
    """The batch that begins a stream: its record, then its messages, then what else changes."""
    record, own = with_messages(record, copied, now)
    record, initial = with_messages(record, messages, now)
    due = [at for at in (record.expires_at(now), record.trim_due_at(now)) if at is not None]
    record, looks = with_look(name, record, min(due, default=None))
    entries = [record.entry(name), *own, *initial, *looks, *others]
    return Write(entries, created(record, anew=True))
