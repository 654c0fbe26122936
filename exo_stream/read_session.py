"""A session of reads: none of them shows an older state than the first one did."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Protocol, TypeVar

import trio

from exo_stream.errors import InvalidRequestError
from exo_stream.model import SEQUENCE_MAX, VersionedValue
from exo_stream.reduce.request import ReduceRequest, ReduceResult

T = TypeVar("T")
Pair = tuple[bytes, bytes]


class PairsAtSequence(Protocol):
    """A scan that has been entered."""

    @property
    def sequence(self) -> int:
        """The sequence number whose state it shows."""

    def __aiter__(self) -> AsyncIterator[Pair]: ...


class Reader(Protocol):
    """What a session reads from: a platform, or a client of one."""

    async def get_entry(self, key: bytes, *, min_sequence: int, wait: bool) -> VersionedValue: ...

    async def read_values(
        self, keys: Sequence[bytes], *, min_sequence: int, wait: bool
    ) -> tuple[int, list[bytes | None]]: ...

    async def read_range(
        self,
        start: bytes,
        end: bytes,
        limit: int,
        forward: bool,
        *,
        min_sequence: int,
        wait: bool,
    ) -> tuple[int, list[Pair]]: ...

    def scan(
        self,
        start: bytes,
        end: bytes,
        *,
        forward: bool,
        limit: int | None,
        min_sequence: int,
        wait: bool,
    ) -> AbstractAsyncContextManager[PairsAtSequence]: ...

    async def reduce(
        self, request: ReduceRequest, start: bytes, end: bytes, *, min_sequence: int, wait: bool
    ) -> ReduceResult: ...


class ReadSession:
    """Reads that never go back behind the first: its sequence is the ``floor`` of the others.

    The floor is fixed by the first read that succeeds, or given. It does not rise with later
    ones. Until it is fixed, one read goes at a time. A read whose floor is not visible yet, as
    after a change of servers, waits; without ``wait`` it raises NotVisibleYetError at once.
    """

    def __init__(self, reader: Reader, floor: int | None, *, wait: bool) -> None:
        if floor is not None and (type(floor) is not int or not 0 <= floor <= SEQUENCE_MAX):
            raise InvalidRequestError("a sequence number is an unsigned 64-bit integer")
        self.floor = floor
        self._reader = reader
        self._wait = wait
        self._first = trio.Lock()

    async def get(self, key: bytes) -> bytes | None:
        """The key's latest value, None if it is absent."""
        [value] = await self._read(partial(self._reader.read_values, [key]))
        return value

    async def get_entry(self, key: bytes) -> VersionedValue:
        """The key's value, its version, and the sequence number this was read at."""

        async def read(*, min_sequence: int, wait: bool) -> tuple[int, VersionedValue]:
            entry = await self._reader.get_entry(key, min_sequence=min_sequence, wait=wait)
            return entry.sequence, entry

        return await self._read(read)

    async def get_many(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes | None]]:
        """Each asked key with its value, in the order asked, duplicates kept, at one sequence."""
        values = await self._read(partial(self._reader.read_values, keys))
        return list(zip(keys, values, strict=True))

    async def range_scan(
        self, start: bytes = b"", end: bytes = b"", limit: int = 1000, forward: bool = True
    ) -> list[Pair]:
        """Up to ``limit`` pairs in key order, or against it, all at one sequence."""
        return await self._read(partial(self._reader.read_range, start, end, limit, forward))

    async def reduce(
        self, request: ReduceRequest, start: bytes = b"", end: bytes = b""
    ) -> ReduceResult:
        """What ``request`` makes of a range, all at one sequence."""

        async def read(*, min_sequence: int, wait: bool) -> tuple[int, ReduceResult]:
            result = await self._reader.reduce(
                request, start, end, min_sequence=min_sequence, wait=wait
            )
            return result.sequence, result

        return await self._read(read)

    @asynccontextmanager
    async def scan(
        self,
        start: bytes = b"",
        end: bytes = b"",
        *,
        forward: bool = True,
        limit: int | None = None,
    ) -> AsyncIterator[PairsAtSequence]:
        """All pairs of a range, lazily, on one snapshot; its floor is fixed when it is entered."""

        async with AsyncExitStack() as stack:

            async def enter(*, min_sequence: int, wait: bool) -> tuple[int, PairsAtSequence]:
                scan = self._reader.scan(
                    start, end, forward=forward, limit=limit, min_sequence=min_sequence, wait=wait
                )
                rows = await stack.enter_async_context(scan)
                return rows.sequence, rows

            yield await self._read(enter)

    async def _read(self, read: Callable[..., Awaitable[tuple[int, T]]]) -> T:
        if self.floor is None:
            async with self._first:
                if self.floor is None:
                    self.floor, value = await read(min_sequence=0, wait=self._wait)
                    return value
        _, value = await read(min_sequence=self.floor, wait=self._wait)
        return value
