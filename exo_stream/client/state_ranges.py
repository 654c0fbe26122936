"""The state of a server's canonical store, page by page: a snapshot held there, ranges of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Self

import trio
from sortedcontainers import SortedDict

from exo_stream.canonical.ranges import KeyIter, Pair, check_bounds, read_stretch, with_own
from exo_stream.client.call import Call, Retry
from exo_stream.client.link import Link
from exo_stream.protocol import canonical_messages as c
from exo_stream.protocol import messages as m

PAGE_ROWS_MAX: Final = 4_096
"""The server gives fewer if they are large."""


class RemoteSnapshot:
    """The store as it was at one sequence, held by the server for one connection.

    When that is lost, whoever reads it is told so by SnapshotExpiredError.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._call = Call(lambda id_, _: c.OpenSnapshot(id_))
        self._opened: c.SnapshotOpened | None = None

    async def open(self) -> None:
        """Have the server hold it."""
        try:
            self._take(await self._link.ask(self._call))
        except BaseException:
            # Cancelled in the moment in which the answer came: nobody else would let go of it.
            if self._call.reply is not None:
                self._take(self._call.reply)
                self.close()
            raise

    @property
    def opened(self) -> c.SnapshotOpened:
        """What the server said of it."""
        assert self._opened is not None, "a snapshot is opened before it is read"
        return self._opened

    @property
    def connection(self) -> int:
        """The number of the connection it is held for."""
        return self._call.connection

    def close(self) -> None:
        """Have the server let go of it."""
        if self._opened is not None:
            let_go(self._link, self._opened.id, self.connection)

    def _take(self, reply: m.Reply) -> None:
        assert isinstance(reply, c.SnapshotOpened), reply
        self._opened = reply


def let_go(link: Link, snapshot: int, number: int) -> None:
    """Have the server let go of a snapshot that it holds for connection ``number``."""
    connection = link.connection
    if connection is not None and connection.number == number:
        connection.note(m.ScanClose(snapshot))


class RemoteStateIter:
    """The pairs with ``start <= key < end``, all of one moment; ``keys_only()`` gives no values.

    More than one page is read on a snapshot that the server holds until the last step, ``close``
    or the end of its ``async with`` block. Raises SnapshotExpiredError if it is read too slowly,
    or the connection is lost between two pages. ``check`` raises once what it belongs to is over.
    """

    def __init__(
        self,
        link: Link,
        start: bytes,
        end: bytes | None,
        *,
        reverse: bool = False,
        limit: int | None = None,
        snapshot: RemoteSnapshot | None = None,
        own: Mapping[bytes, bytes | None] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        check_bounds(start, end, limit)
        self._link = link
        self._start = start
        self._end = end
        self._reverse = reverse
        self._left = limit
        self._own: SortedDict[bytes, bytes | None] = SortedDict(own or {})
        self._keys_only = False
        self._check = check
        self._belongs_to = snapshot
        self._held = 0
        self._connection = 0
        if snapshot is not None:
            self._held, self._connection = snapshot.opened.id, snapshot.connection
        self._page: deque[Pair] = deque()
        self._more = limit != 0 and (end is None or start < end)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Pair:
        pair = await self.next()
        if pair is None:
            raise StopAsyncIteration
        return pair

    async def next(self) -> Pair | None:
        """The next pair, None at the end."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check()
        while not self._page:
            if not self._more:
                self.close()
                await trio.lowlevel.checkpoint()
                return None
            await self._read()
        pair = self._page.popleft()
        if self._left is not None:
            self._left -= 1
            if not self._left:
                self.close()
        return pair

    def keys_only(self) -> KeyIter:
        """The keys alone; the values do not travel."""
        self._keys_only = True
        return KeyIter(self)

    def close(self) -> None:
        """Have the server let go of what it holds; there is nothing more to come."""
        self._more = False
        self._page.clear()
        self._let_go()

    def _let_go(self) -> None:
        if self._belongs_to is None and self._held:
            let_go(self._link, self._held, self._connection)
            self._held = 0

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def _read(self) -> None:
        held, start, end, most = self._held, self._start, self._end, self._most()
        reverse, keys_only = self._reverse, self._keys_only
        call = Call(
            lambda id_, _: c.ScanState(id_, held, start, end, reverse, most, keys_only),
            retry=Retry.NEVER if held else Retry.READ,
            size=len(start) + len(end or b""),
            connection=self._connection,
        )
        try:
            reply = await self._link.ask(call)
        except BaseException:
            if isinstance(call.reply, c.StateRows) and call.reply.snapshot == call.reply.id:
                let_go(self._link, call.reply.id, call.connection)
            raise
        assert isinstance(reply, c.StateRows), reply
        self._take(reply, call.connection)

    def _most(self) -> int:
        """No more than are wanted; own deletions may hide some of them."""
        if self._left is None:
            return PAGE_ROWS_MAX
        return min(PAGE_ROWS_MAX, self._left + len(self._own))

    def _take(self, reply: c.StateRows, connection: int) -> None:
        pairs = self._merged(reply)
        if self._left is not None:
            del pairs[self._left :]
        self._page.extend(pairs)
        if reply.resume is None:
            self._more = False
            self._let_go()
            return
        self._held, self._connection = reply.snapshot, connection
        if self._reverse:
            self._end = reply.resume
        else:
            self._start = reply.resume

    def _merged(self, reply: c.StateRows) -> list[Pair]:
        found: dict[bytes, bytes | None] = {
            key: b"" if value is None else value for key, value in reply.rows
        }
        if self._own:
            forward = not self._reverse
            stretch = read_stretch(self._start, self._end, reply.resume, forward=forward)
            found = with_own(found, self._own, stretch, forward=forward)
        return [(key, value) for key, value in found.items() if value is not None]
