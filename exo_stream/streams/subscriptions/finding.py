"""Finding: all streams that a subscription has to do with, page by page, as they are now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import trio

from exo_stream.ground import Ground
from exo_stream.model import Keyspace, Row, row_key
from exo_stream.streams.accesses import Accesses
from exo_stream.streams.record import Record, decode_record, stream_key
from exo_stream.streams.subscriptions.globs import literal_prefix, matches
from exo_stream.streams.subscriptions.record import (
    BORN_LATER,
    SUBSCRIPTION,
    Link,
    StreamInfo,
    Subscription,
    decode_link,
    decode_subscription,
    info,
    link_key,
    read_link_key,
    subscription_key,
)


class Found(NamedTuple):
    """One page: what is told of its streams, links to streams that are no more, and the ``after``
    of the next page, None at the end.
    """

    streams: Sequence[StreamInfo]
    stale: Sequence[str]
    resume: str | None


class Finding:
    """Looks things up at the current Version; every page at that of its time."""

    def __init__(self, ground: Ground, accesses: Accesses) -> None:
        self._ground = ground
        self._reads = ground.sources.reads
        self._accesses = accesses

    async def subscription(self, subscription_id: str) -> Subscription | None:
        """The subscription with this id."""
        key = row_key(Keyspace.STREAM_SUBSCRIPTION, subscription_key(subscription_id))
        [row] = await self._rows([key])
        return None if row is None or row.value is None else decode_subscription(row.value)

    async def ids(self) -> list[str]:
        """The ids of all subscriptions."""
        end = bytes([SUBSCRIPTION[0] + 1])
        rows = await self._all(Keyspace.STREAM_SUBSCRIPTION, SUBSCRIPTION, end)
        return [row.key[2:].decode() for row in rows]

    async def ends(self, pattern: str | None, names: Sequence[str]) -> list[tuple[str, Link]]:
        """Links to the ends of all streams that a new subscription would have to do with."""
        links: dict[str, Link] = {}
        if pattern is not None:
            resume: str | None = ""
            while resume is not None:
                records, resume = await self._records(pattern, resume)
                for name, record in records.items():
                    links[name] = Link(False, record.incarnation, record.tail)
        keys = [row_key(Keyspace.STREAM, stream_key(name)) for name in names]
        for name, row in zip(names, await self._rows(keys), strict=True):
            named = self._live(row)
            links[name] = (
                Link(True, 0, None) if named is None else Link(True, named.incarnation, named.tail)
            )
        return list(links.items())

    async def explicit(self, subscription_id: str) -> list[str]:
        """The names of the streams that were named to it."""
        links = await self._links(subscription_id, "", None)
        return [name for name, link in links.items() if link.is_explicit]

    async def page(self, subscription_id: str, subscription: Subscription, after: str) -> Found:
        """Some streams behind ``after``, in the order of their names.

        First come all that were named, with the first page; then those that the pattern means.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        pattern = subscription.config.pattern
        streams: list[StreamInfo] = []
        if not after:
            streams = await self._named(subscription_id)
        if pattern is None:
            return Found(streams, (), None)
        records, resume = await self._records(pattern, after)
        links = await self._links(subscription_id, after, resume)
        stale: list[str] = []
        for name, link in links.items():
            if name not in records and not link.is_explicit:
                stale.append(name)
        for name, record in records.items():
            link = links.get(name, BORN_LATER)
            if not link.is_explicit:
                streams.append(info(name, link, record))
        return Found(streams, stale, resume)

    async def _named(self, subscription_id: str) -> list[StreamInfo]:
        links = await self._links(subscription_id, "", None)
        named = {name: link for name, link in links.items() if link.is_explicit}
        keys = [row_key(Keyspace.STREAM, stream_key(name)) for name in named]
        rows = await self._rows(keys)
        return [
            info(name, link, self._live(row))
            for (name, link), row in zip(named.items(), rows, strict=True)
        ]

    async def _records(self, pattern: str, after: str) -> tuple[dict[str, Record], str | None]:
        """Some streams behind ``after`` that the pattern means, and where to go on."""
        prefix = literal_prefix(pattern)
        low = max(stream_key(prefix), stream_key(after) + b"\x00" if after else b"")
        rows, more = await self._page(
            row_key(Keyspace.STREAM, low), row_key(Keyspace.STREAM, stream_key(prefix) + b"\xff")
        )
        found: dict[str, Record] = {}
        for row in rows:
            name = row.key[1:].decode()
            record = self._live(row)
            if record is not None and matches(pattern, name):
                found[name] = record
        # The next page begins behind the last name of this one, whether or not that matched.
        return found, rows[-1].key[1:].decode() if rows and more is not None else None

    def _live(self, row: Row | None) -> Record | None:
        if row is None or row.value is None:
            return None
        record = decode_record(row.value)
        if record.deleted or self._accesses.expired(record, self._ground.clock()):
            return None
        return record

    async def _links(
        self, subscription_id: str, after: str, through: str | None
    ) -> dict[str, Link]:
        low = link_key(subscription_id, after) + (b"\x00" if after else b"")
        high = link_key(subscription_id, "" if through is None else through)
        high += b"\xff" if through is None else b"\x00"
        rows = await self._all(Keyspace.STREAM_SUBSCRIPTION, low, high)
        return {read_link_key(row.key[1:])[1]: decode_link(row.value or b"") for row in rows}

    async def _all(self, keyspace: int, low: bytes, high: bytes) -> list[Row]:
        await trio.lowlevel.checkpoint_if_cancelled()
        rows: list[Row] = []
        resume: bytes | None = row_key(keyspace, low)
        end = row_key(keyspace, high)
        while resume is not None:
            some, resume = await self._page(resume, end)
            rows += some
        return rows

    async def _rows(self, keys: Sequence[bytes]) -> list[Row | None]:
        if not keys:
            await trio.lowlevel.checkpoint()
            return []
        version = await self._ground.version()
        self._reads.engine.pin(version)
        try:
            rows = await self._reads.rows(version, keys)
        finally:
            self._reads.engine.unpin(version)
        return rows

    async def _page(self, low: bytes, high: bytes) -> tuple[list[Row], bytes | None]:
        """Some rows, at least one if there are any, and where to go on."""
        version = await self._ground.version()
        rows: list[Row] = []
        resume: bytes | None = low
        self._reads.engine.pin(version)
        try:
            while resume is not None and not rows:
                page = await self._reads.page(
                    version,
                    resume,
                    high,
                    rows_max=self._reads.limits.page_rows_max,
                    forward=True,
                )
                rows, resume = page.rows, page.resume
        finally:
            self._reads.engine.unpin(version)
        return rows, resume
