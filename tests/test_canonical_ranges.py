"""Ranges and prefixes of the state, against a sorted dict.

X5 and X6 are defects of the original: it resumes a chunk behind the keys that extend its last
one, loops at 0xFF, gives foreign keys for a prefix that ends in it, and has a snapshot for each
chunk.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from exo_stream.canonical.changes import Changes
from exo_stream.canonical.ranges import after_prefix
from exo_stream.canonical.store import CanonicalStore
from exo_stream.errors import InvalidRequestError, SnapshotExpiredError
from exo_stream.limits import Limits
from tests.worlds import in_memory, on_file

BYTES = st.lists(st.sampled_from([0, 1, 0x61, 0xFE, 0xFF]), max_size=4).map(bytes)
KEYS = BYTES.filter(bool)
TABLES = st.dictionaries(KEYS, BYTES, max_size=25)


def expected(
    table: dict[bytes, bytes], start: bytes, end: bytes | None, *, reverse: bool, limit: int | None
) -> list[tuple[bytes, bytes]]:
    pairs = [(k, v) for k, v in table.items() if k >= start and (end is None or k < end)]
    return sorted(pairs, reverse=reverse)[:limit]


async def fill(canonical: CanonicalStore, table: dict[bytes, bytes | None]) -> None:
    await canonical.submit(Changes(list(table.items())))


@pytest.mark.slow
@settings(max_examples=150)
@given(
    table=TABLES,
    start=BYTES,
    end=st.none() | BYTES,
    prefix=BYTES,
    reverse=st.booleans(),
    limit=st.none() | st.integers(0, 6),
    page=st.integers(1, 3),
)
def test_x5_ranges_and_prefixes_are_those_of_a_sorted_dict(
    *,
    table: dict[bytes, bytes],
    start: bytes,
    end: bytes | None,
    prefix: bytes,
    reverse: bool,
    limit: int | None,
    page: int,
) -> None:
    async def main() -> None:
        async with in_memory()(limits=Limits(page_rows_max=page)) as platform:
            canonical = platform.canonical
            await fill(canonical, dict(table))
            found = canonical.range(start, end, reverse=reverse, limit=limit)
            wanted = expected(table, start, end, reverse=reverse, limit=limit)
            assert [pair async for pair in found] == wanted
            keys = canonical.range(start, end, reverse=reverse, limit=limit).keys_only()
            assert [key async for key in keys] == [key for key, _ in wanted]
            under = sorted([p for p in table.items() if p[0].startswith(prefix)], reverse=reverse)
            assert [
                pair async for pair in canonical.scan_prefix(prefix, reverse=reverse, limit=limit)
            ] == under[:limit]
            assert not platform.sources.snapshots._leased

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.slow
@settings(max_examples=100)
@given(
    table=TABLES,
    own=st.dictionaries(KEYS, st.none() | BYTES, max_size=12),
    page=st.integers(1, 3),
)
def test_x5_the_whole_state_with_ones_own_writes_is_their_union(
    table: dict[bytes, bytes], own: dict[bytes, bytes | None], page: int
) -> None:
    async def main() -> None:
        async with in_memory()(limits=Limits(page_rows_max=page)) as platform:
            await fill(platform.canonical, dict(table))
            async with platform.canonical.write_txn() as txn:
                for key, value in own.items():
                    if value is None:
                        txn.del_state(key)
                    else:
                        txn.put_state(key, value)
                union = {k: v for k, v in {**table, **own}.items() if v is not None}
                assert [pair async for pair in await txn.iter_state()] == sorted(union.items())

    trio.run(main, clock=MockClock(autojump_threshold=0))


@given(prefix=BYTES, key=BYTES)
def test_x5_what_follows_a_prefix_is_above_its_keys_and_below_all_others(
    prefix: bytes, key: bytes
) -> None:
    above = after_prefix(prefix)
    in_range = key >= prefix and (above is None or key < above)
    assert in_range == key.startswith(prefix)


async def test_x5_a_prefix_of_0xff_gives_its_own_keys_only() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        keys = [b"\xfe\xff", b"\xff", b"\xff\xff", b"\xff\xff\x00", b"\x01", b"a\xff\x01", b"b"]
        await fill(canonical, dict.fromkeys(keys, b""))
        assert [k async for k in canonical.scan_prefix(b"\xff").keys_only()] == [
            b"\xff", b"\xff\xff", b"\xff\xff\x00",
        ]  # fmt: skip
        assert [k async for k in canonical.scan_prefix(b"a\xff").keys_only()] == [b"a\xff\x01"]
        assert [k async for k in canonical.scan_prefix(b"", limit=1).keys_only()] == [b"\x01"]


async def test_x6_a_scan_is_one_snapshot_whatever_is_written_beside_it() -> None:
    async with in_memory()(limits=Limits(page_rows_max=2)) as platform:
        canonical = platform.canonical
        await fill(canonical, {b"%02d" % n: b"old" for n in range(20)})
        seen = []
        async for key, value in canonical.range():
            seen.append((key, value))
            number = len(seen)
            await fill(canonical, {b"%02d" % (19 - number): None, b"%02d+" % number: b"new"})
        assert seen == [(b"%02d" % n, b"old") for n in range(20)]


@pytest.mark.slow
async def test_x6_on_a_file_too_while_it_is_folded(tmp_path: Path) -> None:
    limits = Limits(page_rows_max=3, memtable_entries_max=40)
    async with on_file(tmp_path / "file")(limits=limits) as platform:
        canonical = platform.canonical
        await fill(canonical, {b"%02d" % n: b"old" for n in range(30)})
        forward, backward = [], []
        async with canonical.range() as rows, canonical.range(reverse=True).keys_only() as keys:
            async for key, value in rows:
                forward.append((key, value))
                backward.append(await keys.next())
                await fill(canonical, {b"%02d" % (len(forward) % 30): b"new"})
        assert forward == [(b"%02d" % n, b"old") for n in range(30)]
        assert backward == [b"%02d" % n for n in range(29, -1, -1)]


async def test_a_scan_that_is_left_holds_nothing() -> None:
    async with in_memory()(limits=Limits(page_rows_max=1)) as platform:
        canonical = platform.canonical
        await fill(canonical, {b"a": b"1", b"b": b"2", b"c": b"3"})
        async with canonical.range() as rows:
            assert await rows.next() == (b"a", b"1")
            assert len(platform.sources.snapshots._leased) == 1
        assert not platform.sources.snapshots._leased
        assert await rows.next() is None
        limited = canonical.range(limit=2)
        assert [await limited.next(), await limited.next()] == [(b"a", b"1"), (b"b", b"2")]
        assert not platform.sources.snapshots._leased, "at its last pair, not one step later"
        keys = canonical.range().keys_only()
        assert await keys.next() == b"a"
        keys.close()
        assert await keys.next() is None


async def test_a_scan_that_is_read_too_slowly_expires(autojump_clock: MockClock) -> None:
    async with in_memory()(limits=Limits(page_rows_max=1)) as platform:
        await fill(platform.canonical, {b"a": b"1", b"b": b"2"})
        rows = platform.canonical.range()
        await rows.next()
        await trio.sleep(platform.limits.snapshot_seconds_max + 2)
        with pytest.raises(SnapshotExpiredError):
            await rows.next()


async def test_a_range_is_made_of_bytes_and_a_limit_is_a_number() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        for start, end, limit in (("a", None, None), (b"a", "b", None), (b"", None, -1)):
            with pytest.raises(InvalidRequestError):
                canonical.range(start, end, limit=limit)  # type: ignore[arg-type]  # what is refused
        with pytest.raises(InvalidRequestError):
            canonical.range(limit=True)
        with pytest.raises(InvalidRequestError):
            canonical.scan_prefix("a")  # type: ignore[arg-type]  # what is refused
        assert [pair async for pair in canonical.range(bytes(2_000), limit=5)] == []
