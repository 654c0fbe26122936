"""The same verbs, values and errors, whether a program holds the platform or a client of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from exo_stream.errors import (
    BatchEvictedError,
    ConflictError,
    CursorAheadError,
    ExoStreamError,
    InvalidRequestError,
    LimitExceededError,
    LogMismatchError,
    NotVisibleYetError,
    ProducerFencedError,
    ProducerGapError,
)
from exo_stream.feed import CaughtUp, FeedMessage, SnapshotBegin, SnapshotEnd, SnapshotPage
from exo_stream.model import Batch, Cursor, Entry, VersionedValue
from exo_stream.producers import Producer
from tests.handles import Handle, both_handles

handle = both_handles()


async def until_caught_up(feed: Any) -> list[FeedMessage]:
    found: list[FeedMessage] = []
    async for message in feed.messages():
        found.append(message)
        if isinstance(message, CaughtUp):
            break
    return found


async def test_what_is_put_is_got(handle: Handle) -> None:
    assert await handle.current_sequence() == 0
    assert await handle.oldest_retained_batch() is None

    sequence = await handle.put_batch([(b"b", b"2"), (b"a", b"1"), (b"a", b"3"), (b"", b"")])

    assert sequence == 1
    assert await handle.get(b"a", min_sequence=sequence) == b"3"
    assert await handle.get(b"") == b""
    assert await handle.get(b"absent") is None
    assert await handle.get_entry(b"b") == VersionedValue(b"2", 1, 1)
    assert await handle.get_entry(b"absent") == VersionedValue(None, 0, 1)
    assert await handle.get_many([b"b", b"absent", b"b"]) == [
        (b"b", b"2"),
        (b"absent", None),
        (b"b", b"2"),
    ]
    assert await handle.get_many([]) == []
    assert await handle.current_sequence() == 1
    assert await handle.oldest_retained_batch() == 1


async def test_what_is_deleted_is_gone_from_the_table_and_stays_in_the_log(handle: Handle) -> None:
    await handle.put_batch([(b"a", b"1")])

    assert await handle.delete_batch([b"a", b"never"]) == 2

    assert await handle.get(b"a") is None
    batch = await handle.get_batch(2)
    assert batch is not None
    assert batch.entries == (Entry(0, b"a", None), Entry(0, b"never", None))
    assert batch.cursor == Cursor(handle.log_id, 2)
    assert await handle.get_batch(3) is None


async def test_a_mixed_write_is_one_batch(handle: Handle) -> None:
    await handle.write(puts=[(b"a", b"1"), (b"b", b"1")], deletes=[b"a"])

    batch = await handle.get_batch(1)
    assert batch is not None
    assert [(e.key, e.value) for e in batch.entries] == [
        (b"a", b"1"),
        (b"b", b"1"),
        (b"a", None),
    ]
    assert await handle.get(b"a") is None


async def test_preconditions_hold_or_name_the_key(handle: Handle) -> None:
    await handle.write(puts=[(b"a", b"1")], require={b"a": "absent"})
    await handle.write(puts=[(b"a", b"2")], require={b"a": "present", b"b": "absent"})
    await handle.write(puts=[(b"a", b"3")], require={b"a": 2, b"b": 0})

    with pytest.raises(ConflictError) as caught:
        await handle.write(puts=[(b"a", b"4")], require={b"a": 2})

    assert (caught.value.key, caught.value.version) == (b"a", 3)
    assert not caught.value.retryable
    assert await handle.current_sequence() == 3


async def test_a_producer_writes_once(handle: Handle) -> None:
    def numbered(seq: int, epoch: int = 1, *, contiguous: bool = False) -> Producer:
        return Producer(b"p", epoch, seq, contiguous)

    put = [(b"k", b"v")]
    assert await handle.write(puts=put, producer=numbered(0)) == 1
    assert await handle.write(puts=put, producer=numbered(1)) == 2
    assert await handle.write(puts=put, producer=numbered(0)) == 1
    with pytest.raises(ProducerFencedError) as fenced:
        await handle.write(puts=put, producer=numbered(2, epoch=0))
    assert fenced.value.current_epoch == 1
    with pytest.raises(ProducerGapError) as gap:
        await handle.write(puts=put, producer=numbered(5, contiguous=True))
    assert (gap.value.expected_seq, gap.value.received_seq) == (2, 5)
    assert await handle.current_sequence() == 2


async def test_ranges(handle: Handle) -> None:
    await handle.put_batch([(b"%d" % n, b"v%d" % n) for n in range(1, 6)])
    await handle.delete_batch([b"3"])

    async def keys(*arguments: Any, **options: Any) -> list[bytes]:
        return [key for key, _ in await handle.range_scan(*arguments, **options)]

    assert await keys() == [b"1", b"2", b"4", b"5"]
    assert await keys(b"2", b"4") == [b"2", b"4"]
    assert await keys(b"2", b"4", 1) == [b"2"]
    assert await keys(b"2", b"", 10, False) == [b"5", b"4", b"2"]
    assert await keys(b"", b"", 2, False) == [b"5", b"4"]
    assert await keys(limit=0) == []
    assert await keys(b"9") == []
    assert await handle.range_scan(b"1", b"1") == [(b"1", b"v1")]
    async with handle.scan(b"2", forward=False) as rows:
        await handle.put_batch([(b"6", b"late")])
        assert rows.sequence == 2
        assert [pair async for pair in rows] == [(b"5", b"v5"), (b"4", b"v4"), (b"2", b"v2")]


async def test_a_read_waits_for_its_sequence_or_is_refused_at_once(
    handle: Handle, autojump_clock: MockClock
) -> None:
    with pytest.raises(NotVisibleYetError) as caught:
        await handle.get(b"a", min_sequence=1, wait=False)
    assert (caught.value.frontier, caught.value.required) == (0, 1)
    got: list[Any] = []

    async def read(call: Any) -> None:
        got.append(await call)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, handle.get(b"a", min_sequence=1))
        nursery.start_soon(read, handle.get_many([b"a"], min_sequence=1))
        nursery.start_soon(read, handle.range_scan(min_sequence=1))
        await trio.sleep(1)
        assert not got
        await handle.put_batch([(b"a", b"1")])

    assert sorted(map(str, got)) == sorted(map(str, [b"1", [(b"a", b"1")], [(b"a", b"1")]]))


async def test_what_is_pruned_is_evicted_for_everybody(handle: Handle) -> None:
    for number in range(5):
        await handle.put_batch([(b"%d" % number, b"v")])

    assert await handle.prune_batch_log(4) == 3
    assert await handle.prune_batch_log(2) == 0

    assert await handle.oldest_retained_batch() == 4
    assert await handle.get(b"0") == b"v"
    with pytest.raises(BatchEvictedError) as caught:
        await handle.get_batch(2)
    assert caught.value.oldest_retained == 4
    with pytest.raises(BatchEvictedError) as caught:
        async with handle.subscribe(from_sequence=2):
            pass
    assert caught.value.oldest_retained == 4


STARTS: dict[str, tuple[dict[str, Any], int]] = {
    "nothing": ({}, 1),
    "the oldest": ({"start": "oldest"}, 1),
    "now": ({"start": "now"}, 6),
    "a sequence": ({"from_sequence": 3}, 3),
    "the last two": ({"last": 2}, 4),
    "the last hundred": ({"last": 100}, 1),
    "a time": ({"since_time": datetime(2020, 1, 1, tzinfo=UTC)}, 1),
}


@pytest.mark.parametrize(("options", "first"), STARTS.values(), ids=STARTS.keys())
async def test_a_feed_begins_where_it_is_told(
    handle: Handle, options: dict[str, Any], first: int
) -> None:
    for number in range(5):
        await handle.put_batch([(b"%d" % number, b"v")])

    async with handle.subscribe(**options) as feed:
        assert feed.cursor == Cursor(handle.log_id, first - 1)
        messages = await until_caught_up(feed)
        await handle.put_batch([(b"new", b"v")])
        new = await feed.__anext__()

    assert [m.sequence for m in messages if isinstance(m, Batch)] == list(range(first, 6))
    assert isinstance(new, Batch)
    assert new.sequence == 6


async def test_a_feed_resumes_after_its_cursor(handle: Handle) -> None:
    for number in range(5):
        await handle.put_batch([(b"%d" % number, b"v")])
    async with handle.subscribe() as feed:
        async for batch in feed:
            if cast("Batch", batch).sequence == 3:
                break
        assert feed.cursor == Cursor(handle.log_id, 2), "the third is not finished"

    for after in (feed.cursor, str(feed.cursor)):
        async with handle.subscribe(after=after, snapshot=True) as resumed:
            assert cast("Batch", await resumed.__anext__()).sequence == 3


async def test_a_feed_of_a_prefix_sees_matching_entries_only(handle: Handle) -> None:
    await handle.put_batch([(b"user/1", b"a"), (b"other", b"b"), (b"user/2", b"c")])
    await handle.put_batch([(b"other", b"d")])
    await handle.delete_batch([b"user/1"])

    async with handle.subscribe(prefix=b"user/") as feed:
        messages = await until_caught_up(feed)

    batches = [m for m in messages if isinstance(m, Batch)]
    assert [(b.sequence, [e.key for e in b.entries]) for b in batches] == [
        (1, [b"user/1", b"user/2"]),
        (3, [b"user/1"]),
    ]
    assert messages[-1] == CaughtUp(Cursor(handle.log_id, 3))


async def test_a_snapshot_then_what_follows(handle: Handle) -> None:
    await handle.put_batch([(b"a/1", b"1"), (b"a/2", b"2"), (b"b", b"3")])
    await handle.delete_batch([b"a/1"])

    async with handle.subscribe(prefix=b"a/", snapshot=True) as feed:
        messages = await until_caught_up(feed)
        await handle.put_batch([(b"a/3", b"4")])
        batch = await feed.__anext__()

    rows = (Entry(0, b"a/2", b"2"),)
    end = Cursor(handle.log_id, 2)
    assert messages == [SnapshotBegin(2), SnapshotPage(2, rows), SnapshotEnd(end), CaughtUp(end)]
    assert isinstance(batch, Batch)
    assert batch.sequence == 3


async def test_iterating_gives_pages_and_batches(handle: Handle) -> None:
    await handle.put_batch([(b"a", b"1")])

    async with handle.subscribe(snapshot=True) as feed:
        assert feed.cursor is None
        page = await feed.__anext__()
        await handle.put_batch([(b"b", b"2")])
        batch = await feed.__anext__()
        assert feed.cursor == Cursor(handle.log_id, 1)

    assert page == SnapshotPage(1, (Entry(0, b"a", b"1"),))
    assert isinstance(batch, Batch)


WRONG: dict[str, tuple[Any, type[ExoStreamError]]] = {
    "no entries": (lambda h: h.put_batch([]), InvalidRequestError),
    "no keys": (lambda h: h.delete_batch([]), InvalidRequestError),
    "a text as a key": (lambda h: h.put_batch([("k", b"v")]), InvalidRequestError),
    "nothing as a value": (lambda h: h.put_batch([(b"k", None)]), InvalidRequestError),
    "no pairs": (lambda h: h.put_batch([b"kvw"]), InvalidRequestError),
    "not even several": (lambda h: h.put_batch(7), InvalidRequestError),
    "one key for several": (lambda h: h.delete_batch(b"k"), InvalidRequestError),
    "a long key": (lambda h: h.put_batch([(b"k" * 255, b"v")]), LimitExceededError),
    "a large value": (
        lambda h: h.put_batch([(b"k", b"v" * (10 << 20) + b"v")]),
        LimitExceededError,
    ),
    "an odd requirement": (
        lambda h: h.write(puts=[(b"k", b"v")], require={b"k": "maybe"}),
        InvalidRequestError,
    ),
    "requirements that are none": (
        lambda h: h.write(puts=[(b"k", b"v")], require=[b"k"]),
        InvalidRequestError,
    ),
    "a producer without a name": (
        lambda h: h.write(puts=[(b"k", b"v")], producer=Producer(b"", 0, 0)),
        InvalidRequestError,
    ),
    "a text to get": (lambda h: h.get("k"), InvalidRequestError),
    "a long key to get": (lambda h: h.get(b"k" * 255), LimitExceededError),
    "too many keys": (lambda h: h.get_many([b"k"] * 10_001), LimitExceededError),
    "a negative limit": (lambda h: h.range_scan(limit=-1), InvalidRequestError),
    "a negative sequence": (lambda h: h.get_batch(-1), InvalidRequestError),
    "a long start": (lambda h: h.range_scan(b"k" * 255), LimitExceededError),
    "a fraction of a sequence": (lambda h: h.prune_batch_log(1.5), InvalidRequestError),
}


@pytest.mark.parametrize(("call", "error"), WRONG.values(), ids=WRONG.keys())
async def test_bad_input_is_refused_and_nothing_happens(
    handle: Handle, call: Any, error: type[ExoStreamError]
) -> None:
    with pytest.raises(error):
        await call(handle)

    assert await handle.current_sequence() == 0


WRONG_STARTS: dict[str, tuple[dict[str, Any], type[ExoStreamError]]] = {
    "two starts": ({"last": 1, "start": "now"}, InvalidRequestError),
    "an unknown start": ({"start": "yesterday"}, InvalidRequestError),
    "a cursor that is none": ({"after": "nonsense"}, InvalidRequestError),
    "a time without a zone": ({"since_time": datetime(2020, 1, 1)}, InvalidRequestError),  # noqa: DTZ001  what is refused
    "a text as a prefix": ({"prefix": "a"}, InvalidRequestError),
    "sequence 0": ({"from_sequence": 0}, InvalidRequestError),
    "another log": ({"after": Cursor("f" * 32, 1)}, LogMismatchError),
    "beyond the end": ({"from_sequence": 9}, CursorAheadError),
}


@pytest.mark.parametrize(("options", "error"), WRONG_STARTS.values(), ids=WRONG_STARTS.keys())
async def test_a_feed_that_cannot_begin_says_why(
    handle: Handle, options: dict[str, Any], error: type[ExoStreamError]
) -> None:
    with pytest.raises(error):
        async with handle.subscribe(**options):
            pass

    assert await handle.put_batch([(b"k", b"v")]) == 1


async def test_information(handle: Handle) -> None:
    await handle.put_batch([(b"k", b"v")])

    info = await handle.info()

    assert (info.log_id, info.frontier, info.oldest) == (handle.log_id, 1, 1)
    assert info.statistics.memtable_entries >= 1
    assert info.statistics.path == ":memory:"
