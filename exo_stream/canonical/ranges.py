"""Ranges of the state: pairs in key order or against it, page by page, on one snapshot."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol, Self

import trio
from sortedcontainers import SortedDict

from exo_stream.actors.reads import Reads
from exo_stream.canonical.state import READS_PER_CHECKPOINT
from exo_stream.errors import InvalidRequestError, InvalidStateError
from exo_stream.model import Keyspace, row_key
from exo_stream.storage.engine import Page, Version

Pair = tuple[bytes, bytes]

_LOW: Final = row_key(Keyspace.STATE, b"")
_HIGH: Final = row_key(Keyspace.STATE + 1, b"")


def after_prefix(prefix: bytes) -> bytes | None:
    """The least key above every key that starts with ``prefix``; None if there is no such key.

    A prefix that ends in 0xFF is followed by no key of its own length: what counts is the last
    byte that can still grow.
    """
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


def check_bounds(start: bytes, end: bytes | None, limit: int | None) -> None:
    """Raise InvalidRequestError unless this is a range."""
    if type(start) is not bytes or (end is not None and type(end) is not bytes):
        raise InvalidRequestError("the bounds of a range are bytes, or None for no end")
    if limit is not None and (type(limit) is not int or limit < 0):
        raise InvalidRequestError("a limit is a number from 0 on")


class StateIter:
    """The pairs with ``start <= key < end``, all of one moment; ``keys_only()`` gives no values.

    It holds its snapshot from its first step to its last, to ``close`` or to the end of its
    ``async with`` block, and no longer than ``snapshot_seconds_max``; then it raises
    SnapshotExpiredError. One that belongs to a transaction ends with it.
    """

    def __init__(
        self,
        reads: Reads,
        version: Callable[[], Version],
        start: bytes,
        end: bytes | None,
        *,
        reverse: bool = False,
        limit: int | None = None,
        own: Mapping[bytes, bytes | None] | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        check_bounds(start, end, limit)
        self._reads = reads
        self._version = version
        self._low = _LOW + start
        self._high = _HIGH if end is None else max(_LOW + end, self._low)
        self._forward = not reverse
        self._left = limit
        self._own: SortedDict[bytes, bytes | None] = SortedDict(
            {_LOW + key: value for key, value in (own or {}).items()}
        )
        self._close = close
        self._page: deque[Pair] = deque()
        self._more = self._low < self._high and limit != 0
        self._steps = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Pair:
        pair = await self.next()
        if pair is None:
            raise StopAsyncIteration
        return pair

    async def next(self) -> Pair | None:
        """The next pair, None at the end."""
        self._steps += 1
        if self._page and self._steps % READS_PER_CHECKPOINT:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        while not self._page:
            if not self._more:
                self.close()
                return None
            await self._read()
        pair = self._page.popleft()
        if self._left is not None:
            self._left -= 1
            self._more = self._more and self._left > 0
        if not self._more and not self._page:
            self._close()
        return pair

    def keys_only(self) -> KeyIter:
        """The keys alone."""
        return KeyIter(self)

    def close(self) -> None:
        """Let go of what it holds; there is nothing more to come."""
        self._more = False
        self._page.clear()
        self._close()

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def _read(self) -> None:
        rows_max = self._reads.limits.page_rows_max
        page = await self._reads.page(
            self._version(),
            self._low,
            self._high,
            rows_max=rows_max if self._left is None else max(1, min(rows_max, self._left)),
            forward=self._forward,
        )
        pairs = self._merged(page)
        if self._left is not None:
            del pairs[self._left :]
        self._page.extend(pairs)
        if page.resume is None:
            self._more = False
        elif self._forward:
            self._low = page.resume
        else:
            self._high = page.resume

    def _merged(self, page: Page) -> list[Pair]:
        found = {row.key: row.value for row in page.rows}
        if self._own:
            stretch = read_stretch(self._low, self._high, page.resume, forward=self._forward)
            found = with_own(found, self._own, stretch, forward=self._forward)
        return [(key[1:], value) for key, value in found.items() if value is not None]


def read_stretch(
    low: bytes, high: bytes | None, resume: bytes | None, *, forward: bool
) -> tuple[bytes, bytes | None]:
    """The keys, from one up to another, that a page of ``low <= key < high`` speaks for."""
    if resume is None:
        return low, high
    return (low, resume) if forward else (resume, high)


def with_own(
    found: Mapping[bytes, bytes | None],
    own: SortedDict[bytes, bytes | None],
    stretch: tuple[bytes, bytes | None],
    *,
    forward: bool,
) -> dict[bytes, bytes | None]:
    """A page, with what a transaction itself has written in the same stretch of keys; in order."""
    low, high = stretch
    mine = {key: own[key] for key in own.irange(low, high, (True, False))}
    return dict(sorted({**found, **mine}.items(), reverse=not forward))


class Pairs(Protocol):
    """A range of the state, near or far."""

    async def __anext__(self) -> Pair: ...

    async def next(self) -> Pair | None: ...

    def close(self) -> None: ...


class KeyIter:
    """The keys of a range, without their values."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        key, _ = await anext(self._pairs)
        return key

    async def next(self) -> bytes | None:
        """The next key, None at the end."""
        pair = await self._pairs.next()
        return None if pair is None else pair[0]

    def close(self) -> None:
        """Let go of what it holds."""
        self._pairs.close()

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await trio.lowlevel.cancel_shielded_checkpoint()


def over(what: str) -> InvalidStateError:
    """What a transaction that has ended says."""
    return InvalidStateError(f"this {what} is over")
