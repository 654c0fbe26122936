"""Sessions: no read shows an older state than the first one did."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream.errors import InvalidRequestError, NotVisibleYetError, StoreError
from exo_stream.model import VersionedValue
from exo_stream.read_session import ReadSession
from exo_stream.reduce.request import ReduceOp, Reducer, ReduceRequest
from exo_stream.reduce.scalar import Kind, Scalar
from exo_stream.storage.memory_engine import MemoryEngine
from exo_stream.storage.trait_backend import TraitBackend
from tests.handles import Handle, both_handles
from tests.worlds import in_memory

COUNT = ReduceRequest((Reducer(ReduceOp.COUNT_ALL),))


handle = both_handles()


async def test_a_session_starts_without_a_floor_and_the_first_read_fixes_it(
    handle: Handle,
) -> None:
    session = handle.session()
    assert session.floor is None
    sequence = await handle.put_batch([(b"k", b"1")])

    assert await session.get(b"k") == b"1"
    assert session.floor == sequence
    await handle.put_batch([(b"k", b"2")])
    assert await session.get(b"k") == b"2"
    assert session.floor == sequence


async def test_every_kind_of_read_fixes_the_floor(handle: Handle) -> None:
    await handle.put_batch([(b"a", b"1"), (b"b", b"2")])

    session = handle.session()
    assert await session.get_entry(b"a") == VersionedValue(b"1", 1, 1)
    assert session.floor == 1
    session = handle.session()
    assert await session.get_many([b"b", b"x", b"b"]) == [(b"b", b"2"), (b"x", None), (b"b", b"2")]
    assert session.floor == 1
    session = handle.session()
    assert await session.range_scan(limit=1, forward=False) == [(b"b", b"2")]
    assert session.floor == 1
    session = handle.session()
    assert (await session.reduce(COUNT)).results == (Scalar(Kind.UINT64, 2),)
    assert session.floor == 1
    session = handle.session()
    async with session.scan(limit=1) as rows:
        assert session.floor == 1
        assert [pair async for pair in rows] == [(b"a", b"1")]
    session = handle.session()
    assert await session.get_many([]) == []
    assert session.floor == 1


async def test_a_session_with_an_explicit_sequence_refuses_an_older_state(handle: Handle) -> None:
    session = handle.session(10_000_000, wait=False)

    for read in (session.get(b"k"), session.range_scan(), session.reduce(COUNT)):
        with pytest.raises(NotVisibleYetError) as caught:
            await read
        assert caught.value.required == 10_000_000
    with pytest.raises(NotVisibleYetError):
        async with session.scan():
            raise AssertionError("it is not entered")
    with pytest.raises(InvalidRequestError):
        handle.session(-1)


async def test_a_session_waits_for_its_floor(handle: Handle) -> None:
    session = handle.session(2)
    await handle.put_batch([(b"k", b"1")])

    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await session.get(b"k") == b"2"

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await handle.put_batch([(b"k", b"2")])


class Answers:
    """Answers reads of values as it is told, one after another."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.go_on = trio.Event()
        self.fails = False

    async def read_values(
        self,
        keys: Sequence[bytes],
        *,
        min_sequence: int,
        wait: bool,  # noqa: ARG002  a reader's signature
    ) -> tuple[int, list[bytes | None]]:
        self.asked.append(min_sequence)
        await self.go_on.wait()
        if self.fails:
            self.fails = False
            raise StoreError("once")
        return 7, [None for _ in keys]


async def test_one_read_fixes_the_floor_while_the_others_wait() -> None:
    reader = Answers()
    session = ReadSession(reader, None, wait=True)  # type: ignore[arg-type]  # of the five, one is read

    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.get, b"a")
        nursery.start_soon(session.get, b"b")
        await wait_all_tasks_blocked()
        assert reader.asked == [0]
        reader.go_on.set()

    assert reader.asked == [0, 7]


async def test_a_first_read_that_fails_leaves_the_floor_open() -> None:
    reader = Answers()
    reader.fails = True
    reader.go_on.set()
    session = ReadSession(reader, None, wait=True)  # type: ignore[arg-type]  # all of a reader that it asks

    with pytest.raises(StoreError):
        await session.get(b"a")
    assert session.floor is None
    await session.get(b"a")
    assert session.floor == 7


async def test_a_session_over_a_backend_of_nine_methods(autojump_clock: MockClock) -> None:
    """It cannot hold snapshots, but reads and reduces are served at a sequence."""
    async with in_memory(TraitBackend(MemoryEngine()))() as platform:
        await platform.put_batch([(b"a", b"1"), (b"b", b"2")])
        session = platform.session()

        assert await session.range_scan() == [(b"a", b"1"), (b"b", b"2")]
        assert (await session.reduce(COUNT)).results == (Scalar(Kind.UINT64, 2),)
        assert session.floor == 1
