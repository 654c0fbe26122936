"""The verbs of an application: the same values and errors from the handle and from the client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from exo_stream import Platform, Producer
from exo_stream.client import Client
from exo_stream.errors import (
    BatchEvictedError,
    ConflictError,
    CursorAheadError,
    ExoStreamError,
    InvalidRequestError,
    LimitExceededError,
    LogMismatchError,
    NotVisibleYetError,
    OutcomeUnknownError,
    ProducerFencedError,
    ProducerGapError,
)
from exo_stream.feed import CaughtUp, SnapshotBegin, SnapshotEnd, SnapshotPage
from exo_stream.limits import MIB, Limits
from exo_stream.model import SEQUENCE_MAX, Batch, Cursor, Entry, Keyspace, VersionedValue
from tests.network import connected_over, networked
from tests.worlds import OpenPlatform, in_memory, on_file

Verbs = Platform | Client
OpenVerbs = Callable[..., AbstractAsyncContextManager[Verbs]]


@pytest.fixture(params=["handle, memory", "handle, file", "client, memory"])
def open_verbs(request: pytest.FixtureRequest, tmp_path: Path) -> OpenVerbs:
    """Opens the same store each time, as who embeds it or as who connects to it."""
    who, where = request.param.split(", ")
    open_: OpenPlatform = in_memory() if where == "memory" else on_file(tmp_path / "feed.duckdb")

    @asynccontextmanager
    async def connected(**options: Any) -> AsyncIterator[Verbs]:
        async with open_(**options) as platform, networked(platform) as network:
            async with connected_over(network, limits=options.get("limits")) as client:
                yield client

    return open_ if who == "handle" else connected


def pairs(*keys: bytes) -> list[tuple[bytes, bytes]]:
    return [(key, b"value of " + key) for key in keys]


async def put_each(verbs: Verbs, *keys: bytes) -> None:
    for pair in pairs(*keys):
        await verbs.put_batch([pair])


EDGES = [b"", b"\x00", b"\x00\x00", b"a", b"a\x00", b"\xff", b"\xff\xff", b"\xff" * 254]


async def test_what_was_put_is_there_with_its_version(open_verbs: OpenVerbs) -> None:
    async with open_verbs() as verbs:
        assert await verbs.current_sequence() == 0
        assert await verbs.put_batch(pairs(b"a", b"b")) == 1
        assert await verbs.put_batch([(b"a", b"")]) == 2
        assert await verbs.get(b"a") == b""
        assert await verbs.get(b"never") is None
        assert await verbs.get_entry(b"a") == VersionedValue(b"", 2, 2)
        assert await verbs.get_entry(b"b") == VersionedValue(b"value of b", 1, 2)
        assert await verbs.get_entry(b"never") == VersionedValue(None, 0, 2)
        assert await verbs.delete_batch([b"a", b"never"]) == 3
        assert await verbs.get_entry(b"a") == VersionedValue(None, 0, 3)
        assert await verbs.current_sequence() == 3


async def test_every_key_and_value_at_the_edges(open_verbs: OpenVerbs) -> None:
    async with open_verbs() as verbs:
        puts = [(key, key * 3) for key in EDGES]
        await verbs.put_batch(reversed(puts))
        assert await verbs.get_many(EDGES) == puts
        assert await verbs.range_scan() == sorted(puts)
        batch = await verbs.get_batch(1)
        assert batch is not None
        assert [entry.key for entry in batch.entries] == EDGES[::-1]


@pytest.mark.slow
async def test_the_largest_value_comes_back_and_one_byte_more_is_refused(
    open_verbs: OpenVerbs,
) -> None:
    largest = bytes(range(256)) * (10 * MIB // 256)
    async with open_verbs() as verbs:
        with pytest.raises(LimitExceededError, match="value_bytes_max"):
            await verbs.put_batch([(b"k", largest + b"v")])
        await verbs.put_batch([(b"j", b""), (b"k", largest)])
        assert await verbs.get(b"k") == largest
        assert await verbs.range_scan() == [(b"j", b""), (b"k", largest)]
        async with verbs.subscribe(prefix=b"k") as feed:
            batch = await anext(feed)
        assert batch.entries == (Entry(Keyspace.STORE, b"k", largest),)


async def test_the_same_key_twice_the_last_wins_and_the_log_keeps_both(
    open_verbs: OpenVerbs,
) -> None:
    async with open_verbs() as verbs:
        await verbs.put_batch([(b"k", b"1"), (b"k", b"2")])
        assert await verbs.get(b"k") == b"2"
        await verbs.write(puts=[(b"k", b"3")], deletes=[b"k"])
        assert await verbs.get(b"k") is None
        first, second = await verbs.get_batch(1), await verbs.get_batch(2)
        assert first is not None
        assert second is not None
        assert [entry.value for entry in first.entries] == [b"1", b"2"]
        assert [entry.value for entry in second.entries] == [b"3", None]
        assert all(entry.keyspace == Keyspace.STORE for entry in second.entries)


async def test_requirements_are_met_or_name_the_key_and_its_version(open_verbs: OpenVerbs) -> None:
    async with open_verbs() as verbs:
        assert await verbs.write(puts=[(b"k", b"1")], require={b"k": "absent"}) == 1
        with pytest.raises(ConflictError) as conflict:
            await verbs.write(puts=[(b"k", b"2")], require={b"k": "absent"})
        assert (conflict.value.key, conflict.value.version) == (b"k", 1)
        assert await verbs.write(puts=[(b"k", b"2")], require={b"k": 1, b"x": 0}) == 2
        with pytest.raises(ConflictError):
            await verbs.write(puts=[(b"k", b"3")], require={b"k": 1})
        assert await verbs.write(deletes=[b"k"], require={b"k": "present"}) == 3
        with pytest.raises(ConflictError) as conflict:
            await verbs.write(deletes=[b"k"], require={b"k": "present"})
        assert conflict.value.version == 0
        assert await verbs.current_sequence() == 3


async def test_a_retried_write_takes_effect_once(open_verbs: OpenVerbs) -> None:
    async with open_verbs() as verbs:

        async def write(epoch: int, seq: int, **options: Any) -> int:
            producer = Producer(b"p", epoch, seq, **options)
            return await verbs.write(puts=[(b"k", b"%d" % seq)], producer=producer)

        assert [await write(1, 0), await write(1, 5), await write(1, 0)] == [1, 2, 1]
        assert await verbs.get(b"k") == b"5"
        with pytest.raises(ProducerFencedError) as fenced:
            await write(0, 9)
        assert fenced.value.current_epoch == 1
        with pytest.raises(ProducerGapError) as gap:
            await write(1, 7, contiguous=True)
        assert (gap.value.expected_seq, gap.value.received_seq) == (6, 7)
        await write(1, 300)
        with pytest.raises(OutcomeUnknownError):
            await write(1, 6)
        batch = await verbs.get_batch(1)
        assert batch is not None
        assert batch.entries == (Entry(Keyspace.STORE, b"k", b"0"),), "bookkeeping is nobody's"


async def test_many_are_got_in_the_order_asked_with_duplicates(open_verbs: OpenVerbs) -> None:
    async with open_verbs(limits=Limits(get_many_keys_max=5)) as verbs:
        await verbs.put_batch(pairs(b"a", b"b"))
        keys = [b"b", b"never", b"a", b"b"]
        assert [value for _, value in await verbs.get_many(keys)] == [
            b"value of b",
            None,
            b"value of a",
            b"value of b",
        ]
        assert await verbs.get_many([]) == []
        with pytest.raises(LimitExceededError, match="get_many_keys_max"):
            await verbs.get_many([b"a"] * 6)


@pytest.mark.parametrize("page_rows_max", [2, 4_096])
async def test_ranges_are_inclusive_in_both_directions(
    open_verbs: OpenVerbs, page_rows_max: int
) -> None:
    async with open_verbs(limits=Limits(page_rows_max=page_rows_max)) as verbs:
        await verbs.put_batch(pairs(b"a", b"b", b"c", b"d", b"e", b"f"))
        await verbs.delete_batch([b"c", b"e"])

        async def keys(*args: Any) -> list[bytes]:
            return [key for key, _ in await verbs.range_scan(*args)]

        assert await keys() == [b"a", b"b", b"d", b"f"]
        assert await keys(b"b", b"d") == [b"b", b"d"]
        assert await keys(b"b", b"d", 1) == [b"b"]
        assert await keys(b"b", b"d", 10, False) == [b"d", b"b"]
        assert await keys(b"b", b"", 2, False) == [b"f", b"d"]
        assert await keys(b"", b"b") == [b"a", b"b"]
        assert await keys(b"d", b"b") == []
        assert await keys(b"", b"", 0) == []
        assert await keys(b"ba", b"c") == []
        for forward in (True, False):
            async with verbs.scan(b"a", b"e", forward=forward) as scan:
                found = [key async for key, _ in scan]
            assert found == ([b"a", b"b", b"d"] if forward else [b"d", b"b", b"a"])


async def test_the_log_is_read_batch_by_batch_and_pruned(open_verbs: OpenVerbs) -> None:
    async with open_verbs() as verbs:
        assert await verbs.oldest_retained_batch() is None
        assert await verbs.get_batch(1) is None
        assert await verbs.prune_batch_log(5) == 0
        await put_each(verbs, b"a", b"b", b"c", b"d")
        assert await verbs.oldest_retained_batch() == 1
        assert await verbs.prune_batch_log(3) == 2
        assert await verbs.prune_batch_log(3) == 0
        assert await verbs.prune_batch_log(0) == 0
        assert await verbs.oldest_retained_batch() == 3
        with pytest.raises(BatchEvictedError) as evicted:
            await verbs.get_batch(2)
        assert evicted.value.oldest_retained == 3
        batch = await verbs.get_batch(3)
        assert batch is not None
        assert (batch.sequence, batch.cursor) == (3, Cursor(verbs.log_id, 3))
        assert batch.committed_at > 0
        assert await verbs.get(b"a") == b"value of a", "the table keeps what the log lets go"
        assert await verbs.prune_batch_log(SEQUENCE_MAX) == 2
        assert await verbs.oldest_retained_batch() is None
        await put_each(verbs, b"e")
        assert await verbs.oldest_retained_batch() == 5


async def test_a_read_waits_for_its_sequence_or_refuses_at_once(
    open_verbs: OpenVerbs, autojump_clock: MockClock
) -> None:
    async with open_verbs() as verbs, trio.open_nursery() as nursery:
        await put_each(verbs, b"a")
        with pytest.raises(NotVisibleYetError) as refused:
            await verbs.get(b"a", min_sequence=3, wait=False)
        assert (refused.value.frontier, refused.value.required) == (1, 3)
        found: list[Any] = []

        async def read() -> None:
            found.append((await verbs.get_entry(b"b", min_sequence=3)).sequence)
            found.append(await verbs.get_many([b"b"], min_sequence=3))
            found.append(await verbs.range_scan(b"b", min_sequence=3))

        nursery.start_soon(read)
        await trio.sleep(1)
        await put_each(verbs, b"b")
        await trio.sleep(1)
        assert found == []
        await put_each(verbs, b"c")
        await trio.sleep(1)
        assert found == [3, pairs(b"b"), pairs(b"b", b"c")]
        with trio.move_on_after(5) as waiting:
            await verbs.get(b"a", min_sequence=99)
        assert waiting.cancelled_caught


BAD_INPUT: dict[str, tuple[Callable[[Any], Any], type[ExoStreamError]]] = {
    "an empty batch": (lambda v: v.put_batch([]), InvalidRequestError),
    "a text key": (lambda v: v.put_batch([("k", b"")]), InvalidRequestError),
    "long key": (lambda v: v.put_batch([(b"k" * 255, b"")]), LimitExceededError),
    "value": (lambda v: v.put_batch([(b"", b"v" * 99)]), LimitExceededError),
    "one key to delete": (lambda v: v.delete_batch(b"k"), InvalidRequestError),
    "a requirement": (
        lambda v: v.write(deletes=[b"k"], require={b"k": "there"}),
        InvalidRequestError,
    ),
    "a producer": (
        lambda v: v.write(deletes=[b"k"], producer=Producer(b"", 0, 0)),
        InvalidRequestError,
    ),
    "a text to get": (lambda v: v.get("k"), InvalidRequestError),
    "a long key to get": (lambda v: v.get(b"k" * 255), LimitExceededError),
    "a number to get": (lambda v: v.get_many(5), InvalidRequestError),
    "sequence": (lambda v: v.get(b"k", min_sequence=-1), InvalidRequestError),
    "its type": (lambda v: v.get(b"k", min_sequence="9"), InvalidRequestError),
    "a limit": (lambda v: v.range_scan(b"", b"", -1), InvalidRequestError),
    "a start": (lambda v: v.range_scan(5), InvalidRequestError),
    "a batch below 0": (lambda v: v.get_batch(-1), InvalidRequestError),
    "a text for a batch": (lambda v: v.get_batch("1"), InvalidRequestError),
    "a cutoff below 0": (lambda v: v.prune_batch_log(-1), InvalidRequestError),
    "half a cutoff": (lambda v: v.prune_batch_log(1.5), InvalidRequestError),
}


async def test_bad_input_is_refused_in_one_sentence_and_harms_nothing(
    open_verbs: OpenVerbs,
) -> None:
    async with open_verbs(limits=Limits(value_bytes_max=50)) as verbs:
        for what, (ask, error) in BAD_INPUT.items():
            with pytest.raises(error) as refused:
                await ask(verbs)
                pytest.fail(what)
            assert type(refused.value) is error, what
            assert str(refused.value), what
            assert "\n" not in str(refused.value), what
        assert await verbs.put_batch([(b"k", b"v")]) == 1


async def followed(verbs: Verbs, newest: int, **options: Any) -> list[tuple[int, list[bytes]]]:
    """What a subscription delivers up to the batch ``newest``."""
    found: list[tuple[int, list[bytes]]] = []
    async with verbs.subscribe(**options) as feed:
        async for message in feed:
            if isinstance(message, Batch):
                found.append((message.sequence, [entry.key for entry in message.entries]))
                if message.sequence >= newest:
                    break
    return found


async def test_a_subscription_delivers_what_was_and_what_comes(
    open_verbs: OpenVerbs, autojump_clock: MockClock
) -> None:
    async with open_verbs() as verbs:
        await put_each(verbs, b"a", b"b", b"a2")
        every = [(1, [b"a"]), (2, [b"b"]), (3, [b"a2"])]
        assert await followed(verbs, 3) == every
        assert await followed(verbs, 3, start="oldest") == every
        assert await followed(verbs, 3, prefix=b"a") == [every[0], every[2]]
        assert await followed(verbs, 3, from_sequence=2) == every[1:]
        assert await followed(verbs, 3, last=1) == every[2:]
        assert await followed(verbs, 3, after=Cursor(verbs.log_id, 1)) == every[1:]
        assert await followed(verbs, 3, after=str(Cursor(verbs.log_id, 2))) == every[2:]
        found: list[Any] = []
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                found.extend(await followed(verbs, 5, start="now"))

            nursery.start_soon(follow)
            await trio.sleep(1)
            await put_each(verbs, b"c", b"d")
        assert found == [(4, [b"c"]), (5, [b"d"])]


async def test_a_snapshot_comes_first_and_its_cursor_last(open_verbs: OpenVerbs) -> None:
    async with open_verbs(limits=Limits(page_rows_max=2)) as verbs:
        await verbs.put_batch(pairs(b"a", b"b", b"c", b"d", b"other"))
        await verbs.delete_batch([b"b"])
        async with verbs.subscribe(prefix=b"", snapshot=True) as feed:
            kinds: list[Any] = []
            rows: list[bytes] = []
            async for message in feed.messages():
                kinds.append(type(message))
                if isinstance(message, SnapshotPage):
                    rows += [entry.key for entry in message.entries]
                if isinstance(message, SnapshotEnd):
                    assert message.cursor == Cursor(verbs.log_id, 2)
                if isinstance(message, CaughtUp):
                    break
            assert rows == [b"a", b"c", b"d", b"other"]
            assert kinds[0] is SnapshotBegin
            assert kinds[-2:] == [SnapshotEnd, CaughtUp]


async def test_a_cursor_that_cannot_be_resumed_from_is_told(open_verbs: OpenVerbs) -> None:
    async with open_verbs() as verbs:
        await put_each(verbs, b"a", b"b", b"c", b"d")
        await verbs.prune_batch_log(4)
        for cursor, error in [
            (Cursor(verbs.log_id, 1), BatchEvictedError),
            (Cursor(verbs.log_id, 9), CursorAheadError),
            (Cursor("f" * 32, 2), LogMismatchError),
        ]:
            with pytest.raises(error):
                async with verbs.subscribe(after=cursor) as feed:
                    await anext(feed)


async def test_a_cursor_is_moved_by_finishing_and_not_by_a_snapshot(open_verbs: OpenVerbs) -> None:
    async with open_verbs(limits=Limits(page_rows_max=1)) as verbs:
        await put_each(verbs, b"a", b"b")
        async with verbs.subscribe() as feed:
            assert feed.cursor == Cursor(verbs.log_id, 0)
            await anext(feed)
            assert feed.cursor == Cursor(verbs.log_id, 0)
            await anext(feed)
            assert feed.cursor == Cursor(verbs.log_id, 1)
        async with verbs.subscribe(snapshot=True) as feed:
            await anext(feed)
            assert feed.cursor is None, "or whoever resumes from it would skip the other rows"


async def test_everything_is_there_again_after_a_restart(open_verbs: OpenVerbs) -> None:
    async with open_verbs() as verbs:
        log_id = verbs.log_id
        await put_each(verbs, b"a", b"b", b"c")
        await verbs.write(deletes=[b"b"], producer=Producer(b"p", 0, 0))
        await verbs.prune_batch_log(2)
    async with open_verbs() as verbs:
        assert verbs.log_id == log_id
        assert await verbs.current_sequence() == 4
        assert await verbs.oldest_retained_batch() == 2
        assert await verbs.range_scan() == pairs(b"a", b"c")
        assert await verbs.write(deletes=[b"b"], producer=Producer(b"p", 0, 0)) == 4
        assert await followed(verbs, 4) == [(2, [b"b"]), (3, [b"c"]), (4, [b"b"])]
        assert await verbs.put_batch(pairs(b"d")) == 5


async def test_two_writers_and_two_followers_agree(open_verbs: OpenVerbs) -> None:
    async with open_verbs() as verbs, trio.open_nursery() as nursery:
        written: dict[int, bytes] = {}
        seen: list[list[tuple[int, list[bytes]]]] = []

        async def write(name: bytes) -> None:
            for number in range(30):
                key = name + b"%d" % number
                written[await verbs.put_batch([(key, b"")])] = key

        async def follow(**options: Any) -> None:
            seen.append(await followed(verbs, 60, **options))

        nursery.start_soon(follow)
        nursery.start_soon(follow)
        nursery.start_soon(write, b"a")
        nursery.start_soon(write, b"b")
    assert sorted(written) == list(range(1, 61))
    assert seen == [[(number, [written[number]]) for number in sorted(written)]] * 2
