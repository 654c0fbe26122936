"""The Storage methods of a server's streams, from afar: the same methods, values and errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, TypeVar

import trio

from exo_stream.client.call import Call, Retry
from exo_stream.client.link import Link
from exo_stream.client.remote_feed import RemoteFeed
from exo_stream.errors import (
    BatchEvictedError,
    CursorAheadError,
    LogMismatchError,
    RemoteProtocolError,
)
from exo_stream.model import Batch
from exo_stream.protocol import stream_messages as s
from exo_stream.selectors import StreamSelector
from exo_stream.starts import Now
from exo_stream.stream_errors import (
    EmptyAppendError,
    InvalidOffsetError,
    StreamGoneError,
    StreamNotFoundError,
)
from exo_stream.streams import checks
from exo_stream.streams.messages import unpacked
from exo_stream.streams.offset import START, Offset, Where, offset_of
from exo_stream.streams.setups import config_of, setup_of
from exo_stream.streams.values import (
    DEFAULT_CONTENT_TYPE,
    AppendResult,
    CreateResult,
    HeadResult,
    ProducerAppendResult,
    ReadResult,
    StreamConfig,
    StreamPage,
    StreamProducer,
)
from exo_stream.streams.watching import StreamFeed

R = TypeVar("R")

LIST_MAX: Final = 1_000

MESSAGE_BYTES: Final = 9
"""What a message needs on the wire besides itself, at most."""


class RemoteStreams:
    """The streams of a server, as if they were a platform's of this program.

    A call whose connection is lost is made again if that cannot make a difference: reads,
    creations, closing, and appends of a producer. Another append, or a deletion, that may have
    arrived raises OutcomeUnknownError.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._limits = link.limits

    async def create_stream(self, name: str, config: StreamConfig | None = None) -> CreateResult:
        """Create an empty stream, as ``Streams.create_stream`` does."""
        return await self.create_stream_with_data(name, config)

    async def create_stream_with_data(
        self,
        name: str,
        config: StreamConfig | None = None,
        messages: Sequence[bytes] = (),
        *,
        close: bool = False,
    ) -> CreateResult:
        """Create a stream with its first messages, and close it, in one step.

        Made again on a new connection, it finds what it has created itself: then ``created`` is
        false.
        """
        checks.check_name(name)
        config = checks.checked_config(StreamConfig() if config is None else config)
        own = checks.checked_messages(messages, self._limits)
        setup = setup_of(config)._replace(closed=config.closed or bool(close))
        call = Call(lambda id_, _: s.CreateStream(id_, name, setup, own), size=_size(own))
        return _created(await self._ask(call, s.StreamCreated))

    async def create_fork(
        self,
        name: str,
        source: str,
        *,
        offset: Where | None = None,
        sub_offset: int = 0,
        content_type: str | None = None,
        ttl_seconds: int | None = None,
        expires_at: int | None = None,
        retention_seconds: int | None = None,
        retention_bytes: int | None = None,
        messages: Sequence[bytes] = (),
        close: bool = False,
    ) -> CreateResult:
        """Create a stream that begins with what another has, as ``Streams.create_fork`` does."""
        checks.check_name(name)
        checks.check_name(source)
        given = checks.checked_config(
            StreamConfig(
                content_type or DEFAULT_CONTENT_TYPE,
                ttl_seconds,
                expires_at,
                bool(close),
                retention_seconds,
                retention_bytes,
            )
        )
        own = checks.checked_messages(messages, self._limits)
        where = None if offset is None else str(offset_of(offset))
        sub = min(checks.check_number("sub_offset", sub_offset) or 0, checks.TIME_MAX)
        setup = setup_of(given)._replace(content_type=content_type)
        call = Call(
            lambda id_, _: s.ForkStream(id_, name, source, where, sub, setup, own),
            size=_size(own),
        )
        return _created(await self._ask(call, s.StreamCreated))

    async def append(
        self,
        name: str,
        data: bytes,
        content_type: str | None = None,
        *,
        seq: str | None = None,
        expected_offset: Where | None = None,
        close: bool = False,
    ) -> AppendResult:
        """Append one message; the answer's ``start_offset`` is where it begins."""
        return await self.batch_append(
            name, [data], content_type, seq=seq, expected_offset=expected_offset, close=close
        )

    async def batch_append(
        self,
        name: str,
        messages: Sequence[bytes],
        content_type: str | None = None,
        *,
        seq: str | None = None,
        expected_offset: Where | None = None,
        close: bool = False,
    ) -> AppendResult:
        """Append all messages or none, and ``close`` the stream in the same step."""
        own = checks.checked_messages(messages, self._limits)
        if not own:
            raise EmptyAppendError("an append has at least one message")
        reply = await self._append(
            s.AppendStream(
                0, name, own, content_type, None, bool(close), seq, _expected(expected_offset)
            ),
            Retry.ONCE,
        )
        return _appended(reply)

    async def append_with_producer(
        self,
        name: str,
        messages: Sequence[bytes],
        content_type: str | None,
        producer: StreamProducer,
        *,
        close: bool = False,
        seq: str | None = None,
        expected_offset: Where | None = None,
    ) -> ProducerAppendResult:
        """Append, close, or both, so that a retry with the same numbers takes effect once."""
        checks.check_producer(producer, self._limits)
        own = checks.checked_messages(messages, self._limits)
        if not own and not close:
            raise EmptyAppendError("an append has at least one message, or closes the stream")
        numbers = s.StreamNumbers(producer.id, producer.epoch, producer.seq)
        expected = _expected(expected_offset)
        reply = await self._append(
            s.AppendStream(0, name, own, content_type, numbers, bool(close), seq, expected),
            Retry.READ,
        )
        if reply.epoch is None or reply.seq is None:
            raise RemoteProtocolError("an append of a producer without its numbers")
        return ProducerAppendResult(
            reply.duplicate, reply.epoch, reply.seq, _offset(reply.next_offset), reply.closed
        )

    async def close_stream(self, name: str) -> AppendResult:
        """Close a stream: nothing can be appended any more. Closing it again changes nothing."""
        return _appended(await self._append(s.AppendStream(0, name, (), close=True), Retry.READ))

    async def read(
        self, name: str, offset: Where = START, *, bytes_max: int | None = None
    ) -> ReadResult:
        """What follows ``offset``, a frame of it at most, or one larger message."""
        checks.check_name(name)
        token = str(offset_of(offset))
        bound = None
        if bytes_max is not None:
            checks.check_count("bytes_max", bytes_max)
            bound = min(bytes_max, checks.TIME_MAX)
        call = Call(lambda id_, _: s.ReadStream(id_, name, token, bound))
        reply = await self._ask(call, s.StreamRead)
        return ReadResult(
            name,
            config_of(reply.setup),
            reply.incarnation,
            _offset(reply.start_offset),
            _offset(reply.next_offset),
            reply.up_to_date,
            reply.closed,
            reply.sequence,
            tuple([unpacked(*part) for part in reply.stored]),
        )

    async def head(self, name: str) -> HeadResult:
        """What there is to know of a stream without reading it."""
        checks.check_name(name)
        call = Call(lambda id_, _: s.HeadStream(id_, name))
        return _head((await self._ask(call, s.StreamHead)).stream)

    async def exists(self, name: str) -> bool:
        """Whether there is such a stream, neither deleted nor expired."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            await self.head(name)
        except (StreamNotFoundError, StreamGoneError):
            return False
        return True

    async def delete(self, name: str) -> None:
        """Delete a stream, as ``Streams.delete`` does."""
        checks.check_name(name)
        call = Call(lambda id_, _: s.DeleteStream(id_, name), retry=Retry.ONCE)
        await self._ask(call, s.StreamDeleted)

    def subscribe(self, name: str, offset: Where = START) -> StreamFeed:
        """What follows ``offset``, then every append as it comes, until the stream is closed.

        Use it as ``async with streams.subscribe(name) as feed: async for read in feed: …``.
        """
        checks.check_name(name)

        async def read(at: Offset) -> ReadResult:
            return await self.read(name, at)

        return StreamFeed(RemoteWatch(self._link, name), read, offset_of(offset))

    async def list_streams(
        self, prefix: str = "", *, after: str = "", limit: int = LIST_MAX
    ) -> StreamPage:
        """Streams whose names begin with ``prefix``, in their bytewise order, behind ``after``."""
        checks.check_listing(prefix, after, limit)
        call = Call(lambda id_, _: s.ListStreams(id_, prefix, after, min(limit, LIST_MAX)))
        reply = await self._ask(call, s.StreamsListed)
        return StreamPage(tuple(map(_head, reply.streams)), reply.resume)

    async def cleanup_expired_streams(self) -> int:
        """Remove every stream that has expired; answer how many there were."""
        call = Call(lambda id_, _: s.CleanUpStreams(id_))
        return (await self._ask(call, s.StreamsCleanedUp)).streams

    async def _append(self, request: s.AppendStream, retry: Retry) -> s.StreamAppended:
        checks.check_name(request.name)
        checks.check_seq(request.seq)
        if request.content_type is not None:
            checks.check_content_type(request.content_type)
        call = Call(
            lambda id_, _: replace(request, id=id_), retry=retry, size=_size(request.messages)
        )
        return await self._ask(call, s.StreamAppended)

    async def _ask(self, call: Call, kind: type[R]) -> R:
        reply = await self._link.ask(call)
        assert isinstance(reply, kind), reply  # the session has seen to it
        return reply


class RemoteWatch:
    """Told of every batch about one stream, through a subscription; only a hint."""

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._selector = StreamSelector(name)
        self._feed: RemoteFeed | None = None

    async def begin(self) -> None:
        """Listen from here on."""
        feed = RemoteFeed(
            self._link, self._selector, Now(), slow="catch_up", heartbeat_seconds=None
        )
        await feed.__aenter__()
        self._feed = feed

    async def end(self) -> None:
        """Listen no more."""
        await trio.lowlevel.checkpoint_if_cancelled()
        feed, self._feed = self._feed, None
        if feed is not None:
            await feed.__aexit__(None, None, None)

    async def wait(self) -> None:
        """Return when something happened since the last ``wait``."""
        assert self._feed is not None, "a watch is used inside its block"
        try:
            while not isinstance(await self._feed.next_message(), Batch):
                pass
        except (BatchEvictedError, CursorAheadError, LogMismatchError):
            # What happened meanwhile is not told any more: listen anew, and read.
            await self.end()
            await self.begin()


def _expected(offset: Where | None) -> str | None:
    expected = checks.checked_expected(offset)
    return None if expected is None else str(expected)


def _offset(token: str) -> Offset:
    try:
        return Offset.parse(token)
    except InvalidOffsetError as error:
        raise RemoteProtocolError(str(error)) from None


def _created(reply: s.StreamCreated) -> CreateResult:
    return CreateResult(
        reply.created,
        _offset(reply.next_offset),
        reply.closed,
        config_of(reply.setup),
        reply.incarnation,
    )


def _appended(reply: s.StreamAppended) -> AppendResult:
    if reply.start_offset is None:
        raise RemoteProtocolError("an append that begins nowhere")
    return AppendResult(_offset(reply.start_offset), _offset(reply.next_offset), reply.closed)


def _head(stream: s.StreamDescription) -> HeadResult:
    return HeadResult(
        stream.name,
        config_of(stream.setup),
        stream.incarnation,
        _offset(stream.next_offset),
        _offset(stream.oldest_offset),
        stream.closed,
        stream.total_bytes,
        stream.message_count,
        stream.created_at,
        stream.updated_at,
        stream.expires_at,
        stream.sequence,
    )


def _size(messages: Sequence[bytes]) -> int:
    return sum(map(len, messages)) + MESSAGE_BYTES * len(messages)
