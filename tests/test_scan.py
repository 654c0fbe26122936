"""Scans: every pair once, in order, as it was, however slowly it is read."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, assert_checkpoints

from exo_stream.errors import InvalidRequestError, SnapshotExpiredError
from exo_stream.limits import Limits
from exo_stream.scan import PAIR_BYTES, Scan, bounds
from tests.worlds import FaultyEngine, in_memory, put_one_by_one

KEYS = st.binary(max_size=2).map(lambda key: bytes(byte % 4 * 85 for byte in key))


@given(KEYS, KEYS, KEYS)
def test_both_ends_are_inclusive_and_an_empty_end_is_unbounded(
    start: bytes, end: bytes, key: bytes
) -> None:
    low, high = bounds(start, end)
    assert (low <= b"\x00" + key < high) == (start <= key and (not end or key <= end))


async def test_a_scan_shows_the_table_as_it_was_when_it_was_entered() -> None:
    async with in_memory()(limits=Limits(page_rows_max=2)) as platform:
        await put_one_by_one(platform, [b"a", b"b", b"c", b"d", b"e"])
        async with platform.scan() as scan:
            assert scan.sequence == 5
            found = [await anext(scan)]
            await platform.write(puts=[(b"aa", b"new"), (b"c", b"new")], deletes=[b"d", b"e"])
            found += [pair async for pair in scan]
            assert found == [(key, b"value of " + key) for key in (b"a", b"b", b"c", b"d", b"e")]
            with pytest.raises(StopAsyncIteration):
                await anext(scan)
            assert await scan.next_page() is None
        assert platform.sources.snapshots.floors() == []
        async with platform.scan(forward=False) as scan:
            assert [key async for key, _ in scan] == [b"c", b"b", b"aa", b"a"]


@settings(max_examples=50)
@given(st.sets(KEYS), KEYS, KEYS, st.booleans(), st.integers(1, 3))
def test_a_scan_is_the_range_it_was_asked_for(
    keys: set[bytes], start: bytes, end: bytes, forward: bool, rows_max: int
) -> None:
    async def live() -> None:
        async with in_memory()(limits=Limits(page_rows_max=rows_max)) as platform:
            await put_one_by_one(platform, sorted(keys))
            expected = sorted(key for key in keys if start <= key and (not end or key <= end))
            expected = expected if forward else expected[::-1]
            async with platform.scan(start, end, forward=forward) as scan:
                assert [key async for key, _ in scan] == expected
            pairs = await platform.range_scan(start, end, 3, forward)
            assert [key for key, _ in pairs] == expected[:3]

    trio.run(live)


async def test_a_scan_read_too_slowly_expires(autojump_clock: MockClock) -> None:
    limits = Limits(page_rows_max=1, snapshot_seconds_max=10)
    async with in_memory()(limits=limits) as platform:
        await put_one_by_one(platform, [b"a", b"b"])
        async with platform.scan() as scan:
            assert await anext(scan) == (b"a", b"value of a")
            await trio.sleep(12)
            with pytest.raises(SnapshotExpiredError):
                await anext(scan)


async def test_a_scan_that_expires_amid_deleted_keys_says_so() -> None:
    """One step over them is many pages, and other writes come between."""
    async with in_memory()(limits=Limits(page_rows_max=1)) as platform:
        keys = [b"%04d" % number for number in range(2_000)]
        await platform.put_batch([(key, b"") for key in keys])
        await platform.delete_batch(keys)
        async with platform.scan() as rows, trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(SnapshotExpiredError):
                    await rows.next_page(1)

            nursery.start_soon(read)
            await trio.lowlevel.checkpoint()
            rows.close()
            await platform.put_batch([(b"a", b"")])


async def test_bounds_that_cannot_be_are_refused_before_anything_is_held() -> None:
    async with in_memory()() as platform:
        with pytest.raises(InvalidRequestError):
            platform.scan(b"k" * 255)
        with pytest.raises(AssertionError, match="inside its async with block"):
            _ = platform.scan().sequence
        with pytest.raises(AssertionError, match="inside its async with block"):
            await anext(platform.scan())


async def test_a_cancelled_step_skips_nothing() -> None:
    engine = FaultyEngine()
    async with in_memory(engine)(limits=Limits(page_rows_max=2)) as platform:
        await put_one_by_one(platform, [b"%d" % number for number in range(9)])
        found: list[bytes] = []
        async with platform.scan() as scan:
            while len(found) < 9:
                with trio.CancelScope() as scope:
                    if len(found) % 2 == 0:
                        scope.cancel()
                    found.append((await anext(scan))[0])
                if scope.cancelled_caught:
                    found.append((await anext(scan))[0])
        assert found == [b"%d" % number for number in range(9)]


@settings(max_examples=50)
@given(
    st.sets(KEYS), st.integers(0, 9) | st.none(), st.booleans(), st.integers(1, 3), st.integers(1)
)
def test_pages_of_few_bytes_give_the_same_and_only_more_than_one_holds_a_snapshot(
    keys: set[bytes], limit: int | None, forward: bool, rows_max: int, bytes_max: int
) -> None:
    async def live() -> None:
        async with in_memory()(limits=Limits(page_rows_max=rows_max)) as platform:
            await put_one_by_one(platform, sorted(keys))
            sources = platform.sources
            expected = sorted(keys, reverse=not forward)[:limit]
            scan = Scan(
                sources.reads, sources.snapshots, *bounds(b"", b""), forward=forward, limit=limit
            )
            pages = [await scan.first_page(bytes_max)]
            assert len(sources.snapshots.floors()) == (not scan.is_read)
            await platform.delete_batch([b"x", *keys])
            while (page := await scan.next_page(bytes_max)) is not None:
                pages.append(page)
            scan.close()
            assert [key for page in pages for key, _ in page] == expected
            assert all(len(page) <= rows_max for page in pages)
            for page in pages:
                sizes = [1 + len(key) + len(value) + PAIR_BYTES for key, value in page]
                assert len(page) <= 1 or sum(sizes) <= bytes_max
            assert sources.snapshots.floors() == []

    trio.run(live)


async def test_a_page_is_bounded_in_bytes_if_nobody_says_how_large_it_may_be() -> None:
    async with in_memory()(limits=Limits(page_bytes_max=1)) as platform:
        await put_one_by_one(platform, [b"a", b"b", b"c"])
        async with platform.scan() as scan:
            pages = [await scan.next_page() for _ in range(4)]
    assert pages == [[(key, b"value of " + key)] for key in (b"a", b"b", b"c")] + [None]


async def test_a_range_without_rows_is_one_page_however_much_was_deleted() -> None:
    async with in_memory()(limits=Limits(page_rows_max=1, snapshots_max=0)) as platform:
        keys = [b"a", b"b", b"c"]
        await put_one_by_one(platform, keys)
        await platform.delete_batch(keys)
        sources = platform.sources
        scan = Scan(sources.reads, sources.snapshots, *bounds(b"", b""), forward=True)
        assert await scan.first_page(100) == []
        assert scan.is_read
        assert scan.sequence == 4


async def test_a_first_page_that_nobody_waits_for_holds_nothing() -> None:
    engine = FaultyEngine()
    async with in_memory(engine)(limits=Limits(page_rows_max=1)) as platform:
        await put_one_by_one(platform, [b"a", b"b"])
        sources = platform.sources
        scan = Scan(sources.reads, sources.snapshots, *bounds(b"", b""), forward=True)
        with trio.CancelScope() as scope:
            scope.cancel()
            await scan.first_page(100)
        assert scope.cancelled_caught
        scan.close()
        assert sources.snapshots.floors() == []
        assert engine._pins.frontiers == []


async def test_a_range_of_nothing_lets_others_run_too() -> None:
    async with in_memory()() as platform:
        with assert_checkpoints():
            assert await platform.range_scan(limit=0) == []
