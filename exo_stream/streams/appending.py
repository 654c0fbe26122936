"""Appending and closing: what is asked, in which order it is judged, and what is written.

Messages, the producer's numbers and the closing are one batch. Its first entry is the record of the
stream it is about; a subscription by name looks at no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cbor2

from exo_stream.decision import Answer, Decision, Need, Refuse, Unknown, Verdict, View, Write
from exo_stream.errors import ExoStreamError, ProducerFencedError, ProducerGapError
from exo_stream.limits import Limits
from exo_stream.model import Entry, Keyspace
from exo_stream.stream_errors import (
    ContentTypeMismatchError,
    InvalidProducerStateError,
    OffsetConflictError,
    StreamClosedError,
    StreamGoneError,
    StreamNotFoundError,
    StreamSeqConflictError,
    StreamTooLargeError,
)
from exo_stream.streams.accesses import Accesses
from exo_stream.streams.messages import data_key, encode
from exo_stream.streams.offset import POSITION_MAX, Offset
from exo_stream.streams.record import Record, producer_key
from exo_stream.streams.removal import found, need, removal, with_look
from exo_stream.streams.values import (
    AppendResult,
    ProducerAppendResult,
    StreamProducer,
    media_type,
)


@dataclass(frozen=True, slots=True)
class Append:
    """One append, checked: messages, or none and ``close``.

    ``content_type`` None leaves the type unchecked; ``expected`` is where the tail must be.
    """

    name: str
    messages: Sequence[bytes]
    content_type: str | None = None
    producer: StreamProducer | None = None
    close: bool = False
    seq: str | None = None
    expected: Offset | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer of a decision that wrote something and still did not do what was asked: that a
    stream has expired is durable before anybody is told.
    """

    error: ExoStreamError


@dataclass(frozen=True, slots=True)
class ProducerState:
    """What is remembered of a stream's producer: its epoch, and its highest seq in it."""

    epoch: int
    seq: int


Appended = AppendResult | ProducerAppendResult | Refused


def append(request: Append, accesses: Accesses, limits: Limits) -> Decision[Appended]:
    """How ingest decides on an append or a close."""

    def decide(view: View, now: int) -> Verdict[Appended]:
        record = live(view, request.name, accesses, now)
        if not isinstance(record, Record):
            return record
        state = _state(view, record, request.producer)
        if isinstance(state, Need):
            return state
        settled = _settled(request, record, state)
        if settled is not None:
            return settled
        objection = _objection(request, record, state) or _too_large(request, record, limits)
        if objection is not None:
            return Refuse(objection)
        return _written(request, record, now)

    return decide


def live(
    view: View, name: str, accesses: Accesses, now: int
) -> Record | Need | Refuse | Write[Refused]:
    """The stream of this name; or how to answer without it, which removes one that has expired."""
    record = found(view, name)
    if isinstance(record, Unknown):
        return need(name)
    if record is None:
        return Refuse(StreamNotFoundError(name))
    if record.deleted:
        return Refuse(StreamGoneError(name))
    if not accesses.expired(record, now):
        return record
    entries = removal(view, name, record, now)
    if isinstance(entries, Need):
        return entries
    return Write(entries, Refused(absence(name, record)))


def absence(name: str, record: Record) -> ExoStreamError:
    """What is said of a stream that ends now."""
    return StreamGoneError(name) if record.references else StreamNotFoundError(name)


def _state(
    view: View, record: Record, producer: StreamProducer | None
) -> ProducerState | Need | None:
    if producer is None:
        return None
    key = producer_key(record.incarnation, producer.id)
    row = view.row(Keyspace.STREAM_PRODUCER, key)
    if isinstance(row, Unknown):
        return Need(keys=[(int(Keyspace.STREAM_PRODUCER), key)])
    return None if row is None or row.value is None else decode_state(row.value)


def decode_state(value: bytes) -> ProducerState:
    """The state that a row of STREAM_PRODUCER holds."""
    return ProducerState(*cbor2.loads(value))


def _settled(
    request: Append, record: Record, state: ProducerState | None
) -> Answer[Appended] | Refuse | None:
    """The answer to what was done before, or is fenced: neither looks at the stream."""
    producer = request.producer
    if producer is None:
        if record.closed and request.close and not request.messages:
            tail = Offset.at(record.tail)
            return Answer(AppendResult(tail, tail, closed=True))
        return None
    if state is None:
        return None
    if producer.epoch < state.epoch:
        return Refuse(ProducerFencedError(state.epoch))
    if producer.epoch > state.epoch or producer.seq > state.seq:
        return None
    tail = Offset.at(record.tail)
    return Answer(ProducerAppendResult(True, state.epoch, state.seq, tail, record.closed))


def _objection(
    request: Append, record: Record, state: ProducerState | None
) -> ExoStreamError | None:
    tail = str(Offset.at(record.tail))
    if record.closed:
        return StreamClosedError(tail)
    if request.producer is not None:
        objection = _out_of_turn(request.producer, state)
        if objection is not None:
            return objection
    content_type = record.config.content_type
    if (
        request.messages
        and request.content_type is not None
        and media_type(request.content_type) != media_type(content_type)
    ):
        return ContentTypeMismatchError(content_type)
    # Byte by byte, which for text is the order of UTF-8.
    if (
        request.seq is not None
        and record.last_seq is not None
        and request.seq.encode() <= record.last_seq.encode()
    ):
        return StreamSeqConflictError(tail, record.last_seq)
    if request.expected is not None and request.expected != Offset.at(record.tail):
        return OffsetConflictError(tail)
    return None


def _out_of_turn(producer: StreamProducer, state: ProducerState | None) -> ExoStreamError | None:
    if state is None:
        return ProducerGapError(0, producer.seq) if producer.seq else None
    if producer.epoch > state.epoch:
        if producer.seq:
            return InvalidProducerStateError(
                f"a new epoch begins with seq 0, not with {producer.seq}"
            )
        return None
    if producer.seq > state.seq + 1:
        return ProducerGapError(state.seq + 1, producer.seq)
    return None


def _too_large(request: Append, record: Record, limits: Limits) -> StreamTooLargeError | None:
    total = record.held + sum(map(len, request.messages))
    bound = min(limits.stream_bytes_max, POSITION_MAX - record.low)
    return StreamTooLargeError("stream_bytes_max", bound, total) if total > bound else None


def _written(request: Append, record: Record, now: int) -> Write[Appended]:
    producer = request.producer
    changed, data = with_messages(record, request.messages, now)
    changed = changed._replace(
        closed=request.close,
        last_seq=record.last_seq if request.seq is None else request.seq,
        updated_at=now,
        touched_at=now,
    )
    changed, looks = with_look(request.name, changed, changed.trim_due_at(now))
    entries = [changed.entry(request.name), *data, *looks]
    start, tail = Offset.at(record.tail), Offset.at(changed.tail)
    if producer is None:
        return Write(entries, AppendResult(start, tail, changed.closed))
    key = producer_key(record.incarnation, producer.id)
    state = cbor2.dumps([producer.epoch, producer.seq])
    entries.append(Entry(Keyspace.STREAM_PRODUCER, key, state))
    return Write(
        entries,
        ProducerAppendResult(False, producer.epoch, producer.seq, tail, changed.closed),
    )


def with_messages(
    record: Record, messages: Sequence[bytes], now: int
) -> tuple[Record, list[Entry]]:
    """The record after an append, and the entry that keeps what was appended, if anything was."""
    if not messages:
        return record, []
    changed = record._replace(
        tail=record.tail + sum(map(len, messages)),
        messages=record.messages + len(messages),
        last_start=record.tail,
        oldest_at=now if record.low == record.tail else record.oldest_at,
    )
    key = data_key(record.incarnation, changed.tail)
    value = encode(messages, committed_at=now, through=changed.messages)
    return changed, [Entry(Keyspace.STREAM_DATA, key, value)]
