"""The Storage methods of the streams face, over what every face stands on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, TypeVar

import trio

from exo_stream.decision import Decision, Verdict, View, Write
from exo_stream.errors import PausedError, StoreError, UnsupportedError
from exo_stream.ground import Ground
from exo_stream.model import Keyspace, row_key
from exo_stream.payload import ENTRY_BYTES
from exo_stream.stream_errors import (
    EmptyAppendError,
    OffsetEvictedError,
    StreamGoneError,
    StreamNotFoundError,
)
from exo_stream.streams import checks, ending
from exo_stream.streams.accesses import Accesses
from exo_stream.streams.appending import Append, Refused, absence, append
from exo_stream.streams.creation import NOWHERE, Create, Fork, LookAgain, create, fork
from exo_stream.streams.forking import fork_point
from exo_stream.streams.offset import START, Offset, Where, offset_of
from exo_stream.streams.reading import Reader, cut_page
from exo_stream.streams.record import Record, decode_record, stream_key
from exo_stream.streams.subscriptions.subscriptions import Subscriptions
from exo_stream.streams.upkeep import Upkeep
from exo_stream.streams.values import (
    AppendResult,
    CreateResult,
    HeadResult,
    ProducerAppendResult,
    ReadResult,
    StreamConfig,
    StreamPage,
    StreamProducer,
    media_type,
)
from exo_stream.streams.watching import StreamFeed, Watch

T = TypeVar("T")

BINARY: Final = StreamConfig()
LIST_MAX: Final = 1_000

ENTRIES: Final = 8
"""As many as an append makes at most, generously."""


class Streams:
    """Appendable, readable, closable streams of messages: the Storage methods of Durable Streams.

    A write has taken effect when its method returns, whole or not at all, and is durable. A call
    that is cancelled before the writer took it up never happens; what became of one that was
    cancelled later, a retry as the same producer tells.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._reads = ground.sources.reads
        self.limits = ground.sources.limits
        self.accesses = Accesses(ground.clock())
        self.upkeep = Upkeep(ground, self.accesses)
        self.subscriptions = Subscriptions(ground, self.accesses, self.upkeep)

    async def create_stream(self, name: str, config: StreamConfig = BINARY) -> CreateResult:
        """Create an empty stream, closed if ``config`` says so.

        If it exists with the same configuration it is left as it is; StreamConfigMismatchError if
        with another. Also raises InvalidStreamNameError, StreamPathBlockedError.
        """
        return await self.create_stream_with_data(name, config)

    async def create_stream_with_data(
        self,
        name: str,
        config: StreamConfig = BINARY,
        messages: Sequence[bytes] = (),
        *,
        close: bool = False,
    ) -> CreateResult:
        """Create a stream with its first messages, and close it, in one step.

        If it exists with the same configuration, its messages stand and these are ignored.
        """
        self._check(name)
        config = checks.checked_config(config)
        if close:
            config = replace(config, closed=True)
        request = Create(name, config, checks.checked_messages(messages, self.limits))
        answer = await self._decide(create(request, self.accesses), _size(request.messages))
        assert isinstance(answer, CreateResult)
        return answer

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
        """Create a stream that begins with what ``source`` has before ``offset``, its tail if None.

        They share those messages, so it costs the same whatever their number. ``sub_offset`` takes
        so many bytes more, or JSON values, of the one append that follows; ``messages`` come
        after. What is None of its configuration is the source's. Raises as ``create_stream``, and
        StreamNotFoundError, ForkFromTombstoneError, ContentTypeMismatchError,
        ForkOffsetBeyondTailError, InvalidOffsetError, OffsetEvictedError.
        """
        self._check(name)
        checks.check_name(source)
        given = checks.checked_config(
            StreamConfig(
                content_type or BINARY.content_type,
                ttl_seconds,
                expires_at,
                bool(close),
                retention_seconds,
                retention_bytes,
            )
        )
        request = Fork(
            name,
            source,
            NOWHERE,
            content_type,
            given.ttl_seconds,
            given.expires_at,
            given.retention_seconds,
            given.retention_bytes,
            bool(close),
            checks.checked_messages(messages, self.limits),
        )
        checks.check_number("sub_offset", sub_offset)
        return await self._fork(request, None if offset is None else offset_of(offset), sub_offset)

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
        """Append one message; the answer's ``start_offset`` is where it begins.

        See ``batch_append``.
        """
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
        """Append all messages or none, and ``close`` the stream in the same step.

        ``content_type`` must be the stream's, if it is given; ``seq`` greater than the one before,
        byte by byte; ``expected_offset`` the stream's tail. Raises StreamNotFoundError,
        StreamGoneError, StreamClosedError, ContentTypeMismatchError, StreamSeqConflictError,
        OffsetConflictError, EmptyAppendError or StreamTooLargeError, in that order.
        """
        request = self._asked(
            name,
            messages,
            content_type=content_type,
            seq=seq,
            expected=expected_offset,
            close=close,
        )
        if not request.messages:
            raise EmptyAppendError("an append has at least one message")
        answer = await self._decide(self._append(request), _size(request.messages))
        assert isinstance(answer, AppendResult)
        return answer

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
        """Append, close, or both, so that a retry with the same numbers takes effect once.

        Judged in this order: ProducerFencedError, then a duplicate, StreamClosedError,
        InvalidProducerStateError or ProducerGapError, and what ``batch_append`` raises. What is
        refused leaves the producer's numbers as they were.
        """
        checks.check_producer(producer, self.limits)
        request = self._asked(
            name,
            messages,
            content_type=content_type,
            producer=producer,
            seq=seq,
            expected=expected_offset,
            close=close,
        )
        if not request.messages and not close:
            raise EmptyAppendError("an append has at least one message, or closes the stream")
        answer = await self._decide(self._append(request), _size(request.messages))
        assert isinstance(answer, ProducerAppendResult)
        return answer

    async def close_stream(self, name: str) -> AppendResult:
        """Close a stream: nothing can be appended any more. Closing it again changes nothing."""
        request = self._asked(name, (), close=True)
        answer = await self._decide(self._append(request), _size(()))
        assert isinstance(answer, AppendResult)
        return answer

    async def read(
        self, name: str, offset: Where = START, *, bytes_max: int | None = None
    ) -> ReadResult:
        """What follows ``offset``, up to ``bytes_max`` bytes of messages (4 MiB unless told).

        A page of JSON ends between two values, one of text between two characters; a JSON value
        that is larger comes alone. Raises StreamNotFoundError, StreamGoneError, OffsetEvictedError
        or InvalidOffsetError.
        """
        where = offset_of(offset)
        bound = self.limits.page_bytes_max if bytes_max is None else bytes_max
        checks.check_count("bytes_max", bound)
        bound = min(bound, self.limits.page_bytes_max)
        reader, record = await self._found(name, touch=True)
        with reader:
            start = where.within(record.tail)
            if start < record.low and where != START:
                raise OffsetEvictedError(str(Offset.at(record.low)))
            start = max(start, record.low)
            config = record.config
            page = cut_page(
                await reader.messages(record, start, bytes_max=bound),
                start,
                bound,
                divisible=not config.is_json,
                text=media_type(config.content_type).startswith("text/"),
            )
            end = page[-1].end if page else start
            return ReadResult(
                name,
                config,
                record.incarnation,
                Offset.at(start),
                Offset.at(end),
                end == record.tail,
                record.closed,
                reader.version.frontier,
                tuple(page),
            )

    async def head(self, name: str) -> HeadResult:
        """What there is to know of a stream without reading it; its time to live runs on."""
        reader, record = await self._found(name, touch=False)
        with reader:
            return self._head(name, record, reader.version.frontier)

    async def exists(self, name: str) -> bool:
        """Whether there is such a stream, neither deleted nor expired."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            await self.head(name)
        except (StreamNotFoundError, StreamGoneError):
            return False
        return True

    async def delete(self, name: str) -> None:
        """Delete a stream. While forks share its messages it is gone, and its name is blocked.

        Raises StreamNotFoundError or StreamGoneError.
        """
        self._check(name)
        await self._decide(ending.delete(name, self.accesses), frees=True)

    def subscribe(self, name: str, offset: Where = START) -> StreamFeed:
        """What follows ``offset``, then every append as it comes, until the stream is closed.

        Use it as ``async with streams.subscribe(name) as feed: async for read in feed: …``.
        """
        self._check(name)

        async def read(at: Offset) -> ReadResult:
            return await self.read(name, at)

        return StreamFeed(self.watch(name), read, offset_of(offset))

    def watch(self, name: str) -> Watch:
        """Be told when to read a stream again; costs nothing while nothing happens to it."""
        return Watch(self._ground.sources.interest, name)

    async def list_streams(
        self, prefix: str = "", *, after: str = "", limit: int = LIST_MAX
    ) -> StreamPage:
        """Streams whose names begin with ``prefix``, in their bytewise order, behind ``after``.

        At most ``limit`` of them, up to 1,000; ``resume`` of the answer is the next ``after``.
        """
        self._supported()
        checks.check_listing(prefix, after, limit)
        low = max(stream_key(prefix), stream_key(after) + b"\x00" if after else b"")
        start: bytes | None = row_key(Keyspace.STREAM, low)
        end = row_key(Keyspace.STREAM, stream_key(prefix) + b"\xff")
        found: list[HeadResult] = []
        with await self._held() as reader:
            version, now = reader.version, self._ground.clock()
            while start is not None and len(found) < min(limit, LIST_MAX):
                rows_max = min(limit, LIST_MAX) - len(found)
                page = await self._reads.page(version, start, end, rows_max=rows_max, forward=True)
                for row in page.rows:
                    record = decode_record(row.value or b"")
                    if not record.deleted and not self.accesses.expired(record, now):
                        name = row.key[1:].decode()
                        found.append(self._head(name, record, version.frontier))
                start = page.resume
        return StreamPage(tuple(found), found[-1].name if found and start is not None else None)

    async def cleanup_expired_streams(self) -> int:
        """Remove every stream that has expired; answer how many there were.

        Upkeep does so by itself, within about a second of a stream's expiry.
        """
        self._supported()
        return await self.upkeep.sweep()

    async def _fork(self, request: Fork, where: Offset | None, sub_offset: int) -> CreateResult:
        while True:
            with await self._held() as reader:
                now = self._ground.clock()
                point = await fork_point(
                    reader, request, where, sub_offset, accesses=self.accesses, now=now
                )
            asked = replace(request, point=point)
            size = _size([*request.messages, *point.copied])
            answer = await self._decide(fork(asked, self.accesses), size)
            if isinstance(answer, CreateResult):
                return answer
            assert isinstance(answer, LookAgain)

    def _asked(
        self,
        name: str,
        messages: Sequence[bytes],
        *,
        content_type: str | None = None,
        producer: StreamProducer | None = None,
        seq: str | None = None,
        expected: Where | None = None,
        close: bool,
    ) -> Append:
        self._check(name)
        checks.check_seq(seq)
        if content_type is not None:
            checks.check_content_type(content_type)
        return Append(
            name,
            checks.checked_messages(messages, self.limits),
            content_type,
            producer,
            bool(close),
            seq,
            checks.checked_expected(expected),
        )

    def _append(self, request: Append) -> Decision[AppendResult | ProducerAppendResult | Refused]:
        return append(request, self.accesses, self.limits)

    async def _decide(self, decide: Decision[T], size: int = 0, *, frees: bool = False) -> T:
        """The answer of the writer, or its refusal raised; upkeep hears of what is to be done."""
        noted: list[bytes] = []

        def noting(view: View, now: int) -> Verdict[T]:
            verdict = decide(view, now)
            noted.clear()
            if isinstance(verdict, Write):
                for keyspace, key, value in verdict.entries:
                    if keyspace == Keyspace.STREAM_UPKEEP and value is not None:
                        noted.append(key)
            return verdict

        try:
            answer = await self._ground.decide(noting, size=size, frees=frees)
        except trio.Cancelled:
            self.upkeep.doubt()
            raise
        if noted:
            self.upkeep.note(noted)
        if isinstance(answer, Refused):
            raise answer.error
        return answer

    async def _held(self) -> Reader:
        """Reads of the current Version, which is held until the reader is left."""
        return Reader(self._reads, await self._ground.version(), holds=True)

    async def _found(self, name: str, *, touch: bool) -> tuple[Reader, Record]:
        """The stream as it is now, held; an access if it is to ``touch`` it."""
        self._check(name)
        while True:
            reader = await self._held()
            try:
                record = await self._live(reader, name)
                now = self._ground.clock()
                if record is not None and touch and self.accesses.touch(record, now):
                    await self._renew(name, record)
            except BaseException:
                reader.leave()
                raise
            if record is not None:
                return reader, record
            reader.leave()

    async def _live(self, reader: Reader, name: str) -> Record | None:
        """The stream; None if it seemed to have expired and was accessed meanwhile."""
        record = await reader.record(name)
        if record is None:
            raise StreamNotFoundError(name)
        if record.deleted:
            raise StreamGoneError(name)
        if not self.accesses.expired(record, self._ground.clock()):
            return record
        # Durable before it is told, where that can be: no crash brings back what was gone.
        with suppress(StoreError, PausedError):
            if not await self._decide(
                ending.expire(name, record.incarnation, self.accesses), frees=True
            ):
                return None
        raise absence(name, record)

    async def _renew(self, name: str, record: Record) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        # Reads go on while writes are refused; a crash then would make it expire earlier.
        with suppress(StoreError, PausedError):
            renew = ending.renew(name, record.incarnation, self.accesses)
            await self._ground.decide(renew, frees=True)

    def _head(self, name: str, record: Record, sequence: int) -> HeadResult:
        return HeadResult(
            name,
            record.config,
            record.incarnation,
            Offset.at(record.tail),
            Offset.at(record.low),
            record.closed,
            record.held,
            record.messages - record.low_messages,
            record.created_at,
            record.updated_at,
            self.accesses.expires_at(record),
            sequence,
        )

    def _check(self, name: str) -> None:
        self._supported()
        checks.check_name(name)

    def _supported(self) -> None:
        if self._reads.engine.own_sequences:
            raise UnsupportedError("this backend has only the nine methods, and no streams")


def _size(messages: Sequence[bytes]) -> int:
    """What an append holds in memory while it waits, in bytes."""
    return sum(map(len, messages)) + ENTRIES * ENTRY_BYTES
