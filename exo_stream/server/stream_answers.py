"""The Storage methods, as one connection asks for them."""

from __future__ import annotations

from typing import assert_never

import trio

from exo_stream.errors import LimitExceededError
from exo_stream.protocol import stream_messages as s
from exo_stream.streams.messages import Stored
from exo_stream.streams.setups import config_of, setup_of
from exo_stream.streams.streams import Streams
from exo_stream.streams.values import (
    CreateResult,
    HeadResult,
    ProducerAppendResult,
    StreamProducer,
)

DESCRIPTION_BYTES = 2_048
"""What one stream takes in a list, at most."""
STORED_BYTES = 64
"""What an append takes in an answer beside its messages and their lengths, at most."""


async def answered(
    streams: Streams, request: s.StreamRequest, *, frame_bytes: int
) -> s.StreamReply:
    """The answer to a request about streams; raises what the streams raise.

    A read brings about ``frame_bytes`` of messages at most, or one larger message.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    match request:
        case s.CreateStream() | s.ForkStream():
            return _created(request.id, await _create(streams, request))
        case s.AppendStream():
            return await _appended(streams, request)
        case s.ReadStream():
            return await _read(streams, request, frame_bytes)
        case s.HeadStream() | s.ListStreams():
            return await _told_of(streams, request, frame_bytes)
        case s.DeleteStream(id_, name):
            await streams.delete(name)
            return s.StreamDeleted(id_)
        case s.CleanUpStreams(id_):
            return s.StreamsCleanedUp(id_, await streams.cleanup_expired_streams())
        case _:
            assert_never(request)


def size_of(reply: s.StreamReply) -> int:
    """About how many bytes the answer has on the wire, never fewer."""
    match reply:
        case s.StreamRead(stored=stored):
            parts = [len(part.joined) + len(part.lengths) + STORED_BYTES for part in stored]
            return DESCRIPTION_BYTES + sum(parts)
        case s.StreamsListed(streams=streams):
            return DESCRIPTION_BYTES * (1 + len(streams))
        case _:
            return DESCRIPTION_BYTES


async def _told_of(
    streams: Streams, request: s.HeadStream | s.ListStreams, frame_bytes: int
) -> s.StreamHead | s.StreamsListed:
    if isinstance(request, s.HeadStream):
        return s.StreamHead(request.id, _description(await streams.head(request.name)))
    most = max(1, frame_bytes // DESCRIPTION_BYTES)
    limit = min(request.limit, most)
    page = await streams.list_streams(request.prefix, after=request.after, limit=limit)
    return s.StreamsListed(request.id, tuple(map(_description, page.streams)), page.resume)


async def _create(streams: Streams, request: s.CreateStream | s.ForkStream) -> CreateResult:
    setup = request.setup
    if isinstance(request, s.CreateStream):
        return await streams.create_stream_with_data(
            request.name, config_of(setup), request.messages
        )
    return await streams.create_fork(
        request.name,
        request.source,
        offset=request.offset,
        sub_offset=request.sub_offset,
        content_type=setup.content_type,
        ttl_seconds=setup.ttl_seconds,
        expires_at=setup.expires_at,
        retention_seconds=setup.retention_seconds,
        retention_bytes=setup.retention_bytes,
        messages=request.messages,
        close=setup.closed,
    )


async def _appended(streams: Streams, request: s.AppendStream) -> s.StreamAppended:
    if request.producer is not None:
        told = await streams.append_with_producer(
            request.name,
            request.messages,
            request.content_type,
            StreamProducer(*request.producer),
            close=request.close,
            seq=request.seq,
            expected_offset=request.expected_offset,
        )
        return _numbered(request.id, told)
    if request.close and not request.messages:
        result = await streams.close_stream(request.name)
    else:
        result = await streams.batch_append(
            request.name,
            request.messages,
            request.content_type,
            seq=request.seq,
            expected_offset=request.expected_offset,
            close=request.close,
        )
    return s.StreamAppended(
        request.id, str(result.start_offset), str(result.next_offset), result.closed
    )


def _numbered(id_: int, result: ProducerAppendResult) -> s.StreamAppended:
    return s.StreamAppended(
        id_,
        None,
        str(result.next_offset),
        result.closed,
        result.duplicate,
        result.epoch,
        result.seq,
    )


async def _read(streams: Streams, request: s.ReadStream, frame_bytes: int) -> s.StreamRead:
    bytes_max = frame_bytes if request.bytes_max is None else min(request.bytes_max, frame_bytes)
    result = await streams.read(request.name, request.offset, bytes_max=bytes_max)
    reply = s.StreamRead(
        request.id,
        setup_of(result.config),
        result.incarnation,
        str(result.start_offset),
        str(result.next_offset),
        result.up_to_date,
        result.closed,
        result.sequence,
        tuple(map(_stored, result.stored)),
    )
    bound, size = streams.limits.message_bytes_max, size_of(reply)
    if size > bound:
        raise LimitExceededError("message_bytes_max", bound, size)
    return reply


def _stored(part: Stored) -> s.StoredAppend:
    return s.StoredAppend(
        part.end, part.committed_at, part.through, part.packed_lengths(), part.joined
    )


def _created(id_: int, result: CreateResult) -> s.StreamCreated:
    return s.StreamCreated(
        id_,
        result.created,
        str(result.next_offset),
        result.closed,
        setup_of(result.config),
        result.incarnation,
    )


def _description(head: HeadResult) -> s.StreamDescription:
    return s.StreamDescription(
        head.name,
        setup_of(head.config),
        head.incarnation,
        str(head.next_offset),
        str(head.oldest_offset),
        head.closed,
        head.total_bytes,
        head.message_count,
        head.created_at,
        head.updated_at,
        head.expires_at,
        head.sequence,
    )
