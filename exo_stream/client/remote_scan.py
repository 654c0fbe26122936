"""A scan over the wire: read as lazily as its user wants, on one snapshot of the server."""

from __future__ import annotations

from collections import deque
from typing import Self

import trio

from exo_stream.client.call import Call, Retry
from exo_stream.client.link import Link
from exo_stream.protocol import messages as m
from exo_stream.read_stats import ReadStats


class RemoteScan:
    """Every pair of a range in key order, or against it, as the table was when it was entered.

    Raises SnapshotExpiredError when it is read too slowly, when too many are being read, or when
    the connection is lost after the first page: the snapshot went with it.
    """

    def __init__(
        self,
        link: Link,
        start: bytes,
        end: bytes,
        *,
        limit: int | None = None,
        forward: bool = True,
        min_sequence: int = 0,
        wait: bool = True,
    ) -> None:
        self._link = link
        self._first = Call(
            lambda id_, _: m.Scan(id_, start, end, limit, forward, min_sequence, wait),
            size=len(start) + len(end),
        )
        self._page: deque[tuple[bytes, bytes]] = deque()
        self._rows: m.Rows | None = None
        self._scan = 0
        self._read_bytes = 0

    async def __aenter__(self) -> Self:
        try:
            self._take(await self._link.ask(self._first))
        except BaseException:
            # Cancelled in the moment in which the answer came: the server holds a snapshot for it.
            reply = self._first.reply
            if reply is not None:
                self._take(reply)
                self._let_go()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._let_go()
        await trio.lowlevel.cancel_shielded_checkpoint()

    @property
    def sequence(self) -> int:
        """The sequence number whose state it shows."""
        assert self._rows is not None, "a scan is used inside its async with block"
        return self._rows.sequence

    @property
    def read_stats(self) -> ReadStats:
        """What it has read so far: the pairs of its pages."""
        return ReadStats(self._read_bytes)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[bytes, bytes]:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._page:
            page = await self.next_page()
            if page is None:
                raise StopAsyncIteration
            self._page.extend(page)
        return self._page.popleft()

    async def next_page(self) -> list[tuple[bytes, bytes]] | None:
        """Some more pairs, perhaps none yet; None when all have been given."""
        assert self._rows is not None, "a scan is used inside its async with block"
        if self._page:
            await trio.lowlevel.checkpoint()
            page = list(self._page)
            self._page.clear()
            return page
        if not self._rows.more:
            await trio.lowlevel.checkpoint()
            return None
        call = Call(
            lambda id_, _: m.ScanNext(id_, self._scan),
            retry=Retry.NEVER,
            connection=self._first.connection,
        )
        self._take(await self._link.ask(call))
        return await self.next_page()

    def _let_go(self) -> None:
        connection = self._link.connection
        is_same = connection is not None and connection.number == self._first.connection
        if connection is not None and is_same and self._rows is not None and self._rows.more:
            connection.note(m.ScanClose(self._scan))

    def _take(self, reply: m.Reply) -> None:
        assert isinstance(reply, m.Rows), reply
        if self._rows is None:
            self._scan = reply.id
        self._rows = reply
        self._page.extend(reply.rows)
        self._read_bytes += ReadStats.of_pairs(reply.rows).read_bytes
