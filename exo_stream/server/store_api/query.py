"""store.query.v1: reading keys and ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import trio

from exo_stream.errors import LimitExceededError, NotVisibleYetError
from exo_stream.limits import STORE_KEY_BYTES_MAX
from exo_stream.model import Keyspace, row_key
from exo_stream.platform import Platform
from exo_stream.protocol.connect.call import Call
from exo_stream.protocol.connect.failure import invalid, unpadded
from exo_stream.protocol.connect.generated.query_pb2 import (
    TRAVERSAL_MODE_FORWARD,
    TRAVERSAL_MODE_REVERSE,
    Detail,
    GetManyFrame,
    GetManyRequest,
    GetRequest,
    GetResponse,
    RangeFrame,
    RangeRequest,
)
from exo_stream.scan import PAIR_BYTES, Pair, Scan, bounds
from exo_stream.server.budget import Share
from exo_stream.server.port import Port
from exo_stream.server.request import BodyWriter, Request
from exo_stream.server.store_api.answering import AnyMethod, Method, Piece, Reply, wait_room
from exo_stream.server.store_api.failures import QUERY
from exo_stream.snapshots import Snapshot, Snapshots
from exo_stream.storage.engine import Version

DETAIL_HEADER: Final = "x-store-query-detail-bin"
"""Where a read was served, and what it read: a header, or metadata at a stream's end."""


def detail_value(sequence: int, read_bytes: int) -> str:
    """The detail as a header has it."""
    return unpadded(Detail(sequence_number=sequence, read_stats={"read_bytes": read_bytes}))


def check_key(key: bytes, field: str) -> None:
    """Raise CallError unless ``key`` is short enough."""
    if len(key) > STORE_KEY_BYTES_MAX:
        raise invalid(
            "INVALID_KEY_LENGTH",
            QUERY,
            field,
            f"a key has at most {STORE_KEY_BYTES_MAX} bytes, this one has {len(key)}",
            {"max_key_len": str(STORE_KEY_BYTES_MAX)},
        )


def checked_get(message: GetRequest) -> GetRequest:
    """The request, if it can be served. Raises CallError, as the other two do."""
    check_key(message.key, "key")
    message.DiscardUnknownFields()
    return message


def checked_get_many(message: GetManyRequest) -> GetManyRequest:
    """The request, if it can be served."""
    if not message.keys:
        raise invalid("INVALID_BATCH", QUERY, "keys", "at least one key is needed")
    for index, key in enumerate(message.keys):
        check_key(key, f"keys[{index}]")
    _check_batch_size(message.batch_size)
    message.DiscardUnknownFields()
    return message


def checked_range(message: RangeRequest) -> RangeRequest:
    """The request, if it can be served."""
    check_key(message.start, "start")
    check_key(message.end, "end")
    _check_batch_size(message.batch_size)
    if message.mode not in {TRAVERSAL_MODE_FORWARD, TRAVERSAL_MODE_REVERSE}:
        raise invalid(
            "INVALID_TRAVERSAL_MODE",
            QUERY,
            "mode",
            f"{message.mode} is neither 0 (forward) nor 1 (reverse)",
        )
    message.DiscardUnknownFields()
    return message


def _check_batch_size(batch_size: int) -> None:
    if not batch_size:
        raise invalid("INVALID_BATCH_SIZE", QUERY, "batch_size", "a frame needs room for a row")


class Query:
    """Answers the query service, but for Reduce."""

    def __init__(self, platform: Platform, port: Port) -> None:
        self._platform = platform
        self._port = port

    def methods(self) -> Mapping[str, AnyMethod]:
        """What it answers, by path."""
        size = self._port.limits.connect_request_bytes_max
        service = "/store.query.v1.Service"
        return {
            f"{service}/Get": Method(
                GetRequest, checked_get, QUERY, size, answer=self.get, is_safe=True
            ),
            f"{service}/GetMany": Method(
                GetManyRequest,
                checked_get_many,
                QUERY,
                size,
                stream=self.get_many,
                keeps_request=True,
            ),
            f"{service}/Range": Method(RangeRequest, checked_range, QUERY, size, stream=self.range),
        }

    async def get(self, asked: GetRequest) -> Reply:
        """The key's value, or none."""
        [entry] = await self._platform.get_entries(
            [asked.key], min_sequence=asked.min_sequence_number, wait=False
        )
        value = entry.value
        size = 0 if value is None else len(value)
        detail = detail_value(entry.sequence, len(asked.key) + size)
        return Reply(Piece(lambda: GetResponse(value=value), size), ((DETAIL_HEADER, detail),))

    def get_many(self, asked: GetManyRequest, _: Request) -> ManyPieces:
        """Each key's value, in the order asked."""
        return ManyPieces(self._platform, asked)

    def range(self, asked: RangeRequest, _: Request) -> RangePieces:
        """The rows of a range, in key order or against it."""
        return RangePieces(self._platform, asked)


class _Leases:
    """Versions held for the calls that read them: bounded in time and memory, not in number.

    They could be counted, but then those who read slowly would keep the others from reading.
    """

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots

    def open(self) -> Snapshot:
        raise AssertionError("a call enters a scan by its first page")

    def hold(self, version: Version) -> Snapshot:
        self._snapshots.expire()
        return self._snapshots.lease(version)


class _Read:
    """A streamed read: what it has read so far, and at which sequence."""

    endless = False

    def __init__(self, platform: Platform, min_sequence: int) -> None:
        self._sources = platform.sources
        self._limits = platform.limits
        self._leases = _Leases(platform.sources.snapshots)
        self._min_sequence = min_sequence
        self._sequence: int | None = None
        self._read_bytes = 0

    @property
    def metadata(self) -> Mapping[str, Sequence[str]]:
        if self._sequence is None:
            return {}
        return {DETAIL_HEADER: [detail_value(self._sequence, self._read_bytes)]}

    def offer_seat(self, call: Call, writer: BodyWriter) -> None:
        """There is nothing that the fan-out could write."""

    def _check_visible(self) -> None:
        frontier = self._sources.frontier.visible
        if frontier < self._min_sequence:
            raise NotVisibleYetError(frontier, self._min_sequence)


class RangePieces(_Read):
    """The frames of a range: lazily, all of one state, each bounded in rows and bytes."""

    def __init__(self, platform: Platform, asked: RangeRequest) -> None:
        super().__init__(platform, asked.min_sequence_number)
        low, high = bounds(asked.start, asked.end)
        self._frame_rows = min(asked.batch_size, self._limits.page_rows_max)
        self._scan = Scan(
            self._sources.reads,
            self._leases,
            low,
            high,
            forward=asked.mode == TRAVERSAL_MODE_FORWARD,
            limit=asked.limit if asked.HasField("limit") else None,
        )

    async def next(self, share: Share) -> Sequence[Piece] | None:
        """The frames of one page; the last rows of it may make a smaller one."""
        await wait_room(share, 2 * self._limits.page_bytes_max)
        if self._sequence is None:
            self._check_visible()
            rows = await self._scan.first_page(self._limits.page_bytes_max)
            self._sequence = self._scan.sequence
        else:
            rows = await self._scan.next_page(self._limits.page_bytes_max) or []
        if not rows:
            return None
        runs = [rows[at : at + self._frame_rows] for at in range(0, len(rows), self._frame_rows)]
        return [self._piece(run) for run in runs]

    def _piece(self, rows: Sequence[Pair]) -> Piece:
        size = sum(len(key) + len(value) for key, value in rows)
        self._read_bytes += size

        def build() -> RangeFrame:
            frame = RangeFrame()
            add = frame.results.add
            for key, value in rows:
                add(key=key, value=value)
            return frame

        return Piece(build, size + PAIR_BYTES * len(rows))

    def close(self) -> None:
        """Let go of the state it reads."""
        self._scan.close()


class ManyPieces(_Read):
    """The frames of many look-ups: all of one state, each bounded in keys and bytes."""

    def __init__(self, platform: Platform, asked: GetManyRequest) -> None:
        super().__init__(platform, asked.min_sequence_number)
        self._keys = list(asked.keys)
        self._done = 0
        self._frame_keys = min(asked.batch_size, self._limits.page_rows_max)
        self._version: Version | None = None
        self._snapshot: Snapshot | None = None

    async def next(self, share: Share) -> Sequence[Piece] | None:
        """One frame; fewer keys than asked where their values are large."""
        if self._done == len(self._keys):
            await trio.lowlevel.checkpoint()
            return None
        await wait_room(share, 2 * self._limits.page_bytes_max)
        if self._version is None:
            return [await self._first()]
        assert self._snapshot is not None
        return [await self._frame(self._snapshot.check())]

    async def _first(self) -> Piece:
        """The first frame; only if there is more it holds a snapshot from then on."""
        self._check_visible()
        engine = self._sources.reads.engine
        self._version = version = engine.version
        self._sequence = version.frontier
        engine.pin(version)
        try:
            piece = await self._frame(version)
            if self._done < len(self._keys):
                self._snapshot = self._leases.hold(version)
        finally:
            engine.unpin(version)
        return piece

    async def _frame(self, version: Version) -> Piece:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            keys = self._keys[self._done : self._done + self._frame_keys]
            try:
                rows = await self._sources.reads.rows(
                    version,
                    [row_key(Keyspace.STORE, key) for key in keys],
                    bytes_max=self._limits.page_bytes_max,
                )
            except LimitExceededError:
                # Nobody knows how large values are before they are read; one is never too large.
                self._frame_keys = max(1, len(keys) // 4)
                continue
            self._done += len(keys)
            return self._piece(keys, [None if row is None else row.value for row in rows])

    def _piece(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> Piece:
        size = sum(map(len, keys)) + sum(len(value or b"") for value in values)
        self._read_bytes += size

        def build() -> GetManyFrame:
            frame = GetManyFrame()
            add = frame.results.add
            for key, value in zip(keys, values, strict=True):
                add(key=key, value=value)
            return frame

        return Piece(build, size + PAIR_BYTES * len(keys))

    def close(self) -> None:
        """Let go of the state it reads."""
        if self._snapshot is not None:
            self._snapshot.close()
