"""The scenarios of Exoware's store, on an embedded handle, our wire, and the store's own API.

Those of its range contract, its end-to-end tests and its stream tests, under their own names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream import Platform
from exo_stream.client import Client
from exo_stream.errors import (
    BatchEvictedError,
    InvalidRequestError,
    NotVisibleYetError,
)
from exo_stream.keys import KeyCodec, MatchKey
from exo_stream.model import Batch
from exo_stream.policies.policy import (
    DropAll,
    GreaterThan,
    GreaterThanOrEqual,
    KeepLatest,
    KeysScope,
    OrderBy,
    OrderEncoding,
    Policy,
    SequenceScope,
)
from exo_stream.protocol.connect.codec import Codec
from exo_stream.reduce.constraints import Check, Filter, IntRange
from exo_stream.reduce.expressions import KeyField, ValueField
from exo_stream.reduce.request import ReduceOp, Reducer, ReduceRequest
from exo_stream.reduce.scalar import Kind, Scalar
from exo_stream.reduce.stored_row import Cell, CellTag, encode_row
from exo_stream.selectors import ExactValue, ValueFilter, ValuePrefix, ValueRegex
from tests.connect_caller import Caller, served
from tests.connect_store import ConnectStore
from tests.network import connected_over, networked
from tests.worlds import in_memory

Store = Platform | Client | ConnectStore

EVERYTHING = MatchKey(0, 0, "(?s).*")


@asynccontextmanager
async def embedded() -> AsyncIterator[Store]:
    async with in_memory()() as platform:
        yield platform


@asynccontextmanager
async def over_our_wire() -> AsyncIterator[Store]:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            yield client


@asynccontextmanager
async def over_connect(codec: Codec, encoding: str) -> AsyncIterator[Store]:
    async with in_memory()() as platform, served(platform) as (_, dial):
        yield ConnectStore(Caller(dial, codec, encoding=encoding))


WORLDS: dict[str, Callable[[], AbstractAsyncContextManager[Store]]] = {
    "embedded": embedded,
    "our wire": over_our_wire,
    "Connect, binary": lambda: over_connect(Codec.PROTO, "zstd"),
    "Connect, JSON": lambda: over_connect(Codec.JSON, "gzip"),
}


@pytest.fixture(params=WORLDS)
async def store(request: pytest.FixtureRequest, autojump_clock: MockClock) -> AsyncIterator[Store]:
    async with WORLDS[request.param]() as store:
        yield store


def pairs(batch: Batch | None) -> list[tuple[bytes, bytes]]:
    """A batch as Exoware shows it: without deletions."""
    assert batch is not None
    return [(entry.key, entry.value) for entry in batch.entries if entry.value is not None]


async def put_keys(store: Store, *keys: bytes) -> int:
    return await store.put_batch([(key, b"value of " + key) for key in keys])


async def keys(store: Store, *arguments: Any, **options: Any) -> list[bytes]:
    return [key for key, _ in await store.range_scan(*arguments, **options)]


async def take(feed: Any, count: int) -> list[Batch]:
    found: list[Batch] = []
    with trio.fail_after(600):
        while len(found) < count:
            batch = await feed.__anext__()
            if isinstance(batch, Batch) and pairs(batch):
                found.append(batch)
    return found


# The range contract of its engine.


async def test_get_missing_returns_none(store: Store) -> None:
    assert await store.get(b"missing", wait=False) is None


async def test_get_returns_value_after_put(store: Store) -> None:
    sequence = await store.put_batch([(b"k", b"v"), (b"", b"of the empty key"), (b"e", b"")])
    assert await store.get(b"k", min_sequence=sequence, wait=False) == b"v"
    assert await store.get(b"", wait=False) == b"of the empty key"
    assert await store.get(b"e", wait=False) == b""


async def test_no_key_is_reserved(store: Store) -> None:
    await store.put_batch([(b"__simulator_seq__", b"mine")])
    assert await store.get(b"__simulator_seq__", wait=False) == b"mine"
    assert await keys(store) == [b"__simulator_seq__"]


async def test_sequences_are_one_two(store: Store) -> None:
    assert [await put_keys(store, b"a"), await put_keys(store, b"a")] == [1, 2]


async def test_range_inclusive_end(store: Store) -> None:
    await put_keys(store, b"a", b"b", b"c", b"d")
    assert await keys(store, b"b", b"c") == [b"b", b"c"]
    assert await keys(store, b"b", b"bz") == [b"b"]


async def test_range_empty_end_is_unbounded(store: Store) -> None:
    await put_keys(store, b"a", b"\xff" * 254)
    assert await keys(store) == [b"a", b"\xff" * 254]
    assert await keys(store, b"b") == [b"\xff" * 254]


async def test_range_limits(store: Store) -> None:
    await put_keys(store, b"a", b"b", b"c", b"d", b"e")
    assert await keys(store, b"", b"", 3) == [b"a", b"b", b"c"]
    assert await keys(store, b"", b"", 0) == []
    assert await keys(store, b"x", b"z", 3) == []
    assert await keys(store, b"c", b"a") == []
    assert await keys(store, b"c", b"c") == [b"c"]


async def test_range_reverse(store: Store) -> None:
    await put_keys(store, b"a", b"b", b"c", b"d", b"e")
    assert await keys(store, b"b", b"d", forward=False) == [b"d", b"c", b"b"]
    assert await keys(store, b"", b"", 2, forward=False) == [b"e", b"d"]
    assert await keys(store, b"c", b"", forward=False) == [b"e", b"d", b"c"]


async def test_get_many_keeps_order_duplicates_and_gaps(store: Store) -> None:
    await put_keys(store, b"a", b"b")
    assert await store.get_many([b"b", b"x", b"a", b"b"]) == [
        (b"b", b"value of b"),
        (b"x", None),
        (b"a", b"value of a"),
        (b"b", b"value of b"),
    ]


# Its end-to-end tests.


async def test_multi_key_put_is_one_sequence_and_the_last_value_wins(store: Store) -> None:
    batch = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]
    assert await store.put_batch(batch) == 1
    assert await store.get(b"a", min_sequence=1, wait=False) == b"3"
    assert pairs(await store.get_batch(1)) == batch


async def test_an_overwrite_is_read_at_its_sequence(store: Store) -> None:
    await store.put_batch([(b"k", b"old")])
    sequence = await store.put_batch([(b"k", b"new")])
    assert await store.get(b"k", min_sequence=sequence, wait=False) == b"new"


async def test_a_sequence_ahead_is_refused_with_both_numbers(store: Store) -> None:
    await put_keys(store, b"a")
    with pytest.raises(NotVisibleYetError) as caught:
        await store.get(b"a", min_sequence=10_000_000, wait=False)
    assert (caught.value.frontier, caught.value.required) == (1, 10_000_000)


@pytest.mark.slow  # many batches, or large ones
async def test_what_is_too_large_is_refused(store: Store) -> None:
    for put in ([], [(b"x" * 255, b"")], [(b"k", b"x" * (10 * (1 << 20) + 1))]):
        with pytest.raises(InvalidRequestError):
            await store.put_batch(put)
    assert await store.put_batch([(b"x" * 254, b"x" * 131_072)]) == 1
    assert await store.get(b"x" * 254, wait=False) == b"x" * 131_072


def row(value: int) -> bytes:
    return encode_row([Cell(CellTag.I64, value)])


CELL = ValueField(0, Kind.INT64)
SUM, COUNT = Reducer(ReduceOp.SUM_FIELD, CELL), Reducer(ReduceOp.COUNT_ALL)


async def test_reduce_counts_sums_and_finds_the_ends(store: Store) -> None:
    await store.put_batch([(b"a", row(10)), (b"b", row(20)), (b"c", row(30)), (b"z", row(99))])
    ends = (Reducer(ReduceOp.MIN_FIELD, CELL), Reducer(ReduceOp.MAX_FIELD, CELL))
    result = await store.reduce(ReduceRequest((COUNT, SUM, *ends)), b"a", b"c")
    assert result.results == (
        Scalar(Kind.UINT64, 3),
        Scalar(Kind.INT64, 60),
        Scalar(Kind.INT64, 10),
        Scalar(Kind.INT64, 30),
    )
    nothing = await store.reduce(ReduceRequest((COUNT, SUM)), b"x", b"y")
    assert nothing.results == (Scalar(Kind.UINT64, 0), None)


async def test_reduce_groups_and_filters(store: Store) -> None:
    rows = [(b"%c%d" % (family, n), row(n)) for family in b"AB" for n in (5, 15, 35)]
    await store.put_batch(rows)
    by_family = (KeyField(0, Kind.BOOLEAN),)
    at_least = Filter((Check(CELL, IntRange(minimum=15)),))
    filtered = await store.reduce(ReduceRequest((SUM,), filter=at_least), b"A", b"B")
    assert filtered.results == (Scalar(Kind.INT64, 50),)
    grouped = await store.reduce(ReduceRequest((COUNT,), group_by=(*by_family, CELL)))
    assert [(len(group.group_values), group.results) for group in grouped.groups] == [
        (2, (Scalar(Kind.UINT64, 2),))
    ] * 3
    assert grouped.results == ()


async def test_reduce_without_a_reducer_is_refused(store: Store) -> None:
    for request in (
        ReduceRequest(),
        ReduceRequest((Reducer(ReduceOp.SUM_FIELD),)),
        ReduceRequest((Reducer(ReduceOp.COUNT_ALL, CELL),)),
    ):
        with pytest.raises(InvalidRequestError):
            await store.reduce(request)


CODEC = KeyCodec(4, 5)
VERSIONED = MatchKey(4, 5, r"(?s-u)^(?P<logical>.{2})(?P<version>.{8})$")


def versions(*pairs_: tuple[bytes, int]) -> list[tuple[bytes, bytes]]:
    return [
        (CODEC.encode(logical + version.to_bytes(8, "big")), b"v%d" % version)
        for logical, version in pairs_
    ]


async def test_prune_drop_all_spares_other_families(store: Store) -> None:
    other = KeyCodec(4, 6).encode(b"ab" + bytes(8))
    await store.put_batch([*versions((b"aa", 1), (b"bb", 1)), (other, b"stays")])
    await store.prune([Policy(KeysScope(VERSIONED), DropAll())])
    assert await keys(store) == [other]


async def test_prune_keep_latest_keeps_the_newest_of_each_group(store: Store) -> None:
    await store.put_batch(versions((b"aa", 1), (b"aa", 3), (b"aa", 2), (b"bb", 9)))
    scope = KeysScope(VERSIONED, ("logical",), OrderBy("version", OrderEncoding.U64_BE))
    await store.prune([Policy(scope, KeepLatest(1))])
    assert await store.range_scan() == versions((b"aa", 3), (b"bb", 9))


async def test_prune_by_thresholds(store: Store) -> None:
    scope = KeysScope(VERSIONED, (), OrderBy("version", OrderEncoding.U64_BE))
    await store.put_batch(versions((b"aa", 10), (b"aa", 15), (b"aa", 20), (b"aa", 30)))
    await store.prune([Policy(scope, GreaterThanOrEqual(15))])
    assert [value for _, value in await store.range_scan()] == [b"v15", b"v20", b"v30"]
    await store.prune([Policy(scope, GreaterThan(15))])
    assert [value for _, value in await store.range_scan()] == [b"v20", b"v30"]


async def test_prune_takes_a_sequence_and_its_batch_shows_nothing(store: Store) -> None:
    await store.put_batch(versions((b"aa", 1)))
    await store.prune([Policy(KeysScope(VERSIONED), DropAll())])
    assert pairs(await store.get_batch(2)) == []
    await store.prune([Policy(KeysScope(VERSIONED), DropAll())])  # nothing left, no sequence
    assert await put_keys(store, b"a") == 3


@pytest.mark.parametrize(
    "policies",
    [
        [],
        [Policy(KeysScope(MatchKey(17, 0, "a")), DropAll())],
        [Policy(KeysScope(MatchKey(4, 16, "a")), DropAll())],
        [Policy(KeysScope(MatchKey(0, 0, " ")), DropAll())],
        [Policy(KeysScope(MatchKey(0, 0, "(")), DropAll())],
        [Policy(KeysScope(MatchKey(0, 0, "a"), ("no",)), DropAll())],
        [Policy(KeysScope(MatchKey(0, 0, "a")), KeepLatest(1))],
        [Policy(KeysScope(VERSIONED, (), OrderBy("version")), GreaterThan(1))],
        [Policy(SequenceScope(), KeepLatest(0))],
        [Policy(SequenceScope(), DropAll())] * 2,
        [Policy(KeysScope(VERSIONED), DropAll())] * 2,
    ],
    ids=str,
)
async def test_a_policy_that_breaks_a_rule_prunes_nothing(
    store: Store, policies: Sequence[Policy]
) -> None:
    await put_keys(store, b"a")
    with pytest.raises(InvalidRequestError):
        await store.prune(policies)
    assert await keys(store) == [b"a"]
    assert pairs(await store.get_batch(1)) != []


# Its stream tests.


async def test_live_delivers_matching_rows_with_the_sequence_of_the_put(store: Store) -> None:
    async with store.subscribe(match=[MatchKey(0, 0, "^a")], start="now") as feed:
        await wait_all_tasks_blocked()
        await put_keys(store, b"b")  # matches nothing, and sends nothing
        sequence = await put_keys(store, b"b", b"a2", b"a1", b"a2")
        [batch] = await take(feed, 1)
    assert batch.sequence == sequence == 2
    assert [key for key, _ in pairs(batch)] == [b"a2", b"a1", b"a2"]


async def test_several_match_keys_are_one_frame_with_each_row_once(store: Store) -> None:
    match = [MatchKey(0, 0, "^a"), MatchKey(0, 0, "z$"), MatchKey(8, ord("b"), "^")]
    async with store.subscribe(match=match, start="now") as feed:
        await wait_all_tasks_blocked()
        await put_keys(store, b"az", b"c", b"b", b"xz")
        [batch] = await take(feed, 1)
    assert [key for key, _ in pairs(batch)] == [b"az", b"b", b"xz"]


async def test_two_puts_are_two_increasing_frames(store: Store) -> None:
    async with store.subscribe(match=[EVERYTHING], start="now") as feed:
        await wait_all_tasks_blocked()
        await put_keys(store, b"a")
        await put_keys(store, b"b")
        assert [batch.sequence for batch in await take(feed, 2)] == [1, 2]


async def test_replay_since_the_third_then_live(store: Store) -> None:
    for key in (b"1", b"2", b"3", b"4"):
        await put_keys(store, key)
    async with store.subscribe(match=[EVERYTHING], from_sequence=3) as feed:
        assert [batch.sequence for batch in await take(feed, 2)] == [3, 4]
        await put_keys(store, b"5")
        assert [batch.sequence for batch in await take(feed, 1)] == [5]


async def replay_and_publish(store: Store, count: int) -> None:
    for n in range(count):
        await put_keys(store, b"%d" % n)
    async with store.subscribe(match=[EVERYTHING], from_sequence=1) as feed:
        found: list[int] = []
        while len(found) < 2 * count:
            [batch] = await take(feed, 1)
            found.append(batch.sequence)
            if len(found) <= count:
                await put_keys(store, b"while it reads %d" % len(found))
    assert found == list(range(1, 2 * count + 1))


@pytest.mark.slow  # many batches, or large ones
async def test_replay_while_each_read_publishes_a_live_batch(store: Store) -> None:
    """More than the 256 frames that a comment of Exoware's speaks of."""
    await replay_and_publish(store, 300)


@pytest.mark.slow  # many batches, or large ones
async def test_replay_of_100_while_each_read_publishes_a_live_batch(
    autojump_clock: MockClock,
) -> None:
    async with embedded() as store:
        await replay_and_publish(store, 100)


async def test_after_keep_ten_of_twenty_the_first_is_evicted(store: Store) -> None:
    for n in range(20):
        await put_keys(store, b"%d" % n)
    await store.prune([Policy(SequenceScope(), KeepLatest(10))])

    with pytest.raises(BatchEvictedError) as caught:
        async with store.subscribe(match=[EVERYTHING], from_sequence=1) as feed:
            await take(feed, 1)
    assert caught.value.oldest_retained == 11
    with pytest.raises(BatchEvictedError):
        await store.get_batch(1)
    assert pairs(await store.get_batch(20)) == [(b"19", b"value of 19")]
    async with store.subscribe(match=[EVERYTHING], from_sequence=11) as feed:
        assert [batch.sequence for batch in await take(feed, 10)] == list(range(11, 21))


async def test_get_batch_is_whole_unfiltered_and_in_write_order(store: Store) -> None:
    await put_keys(store, b"b", b"a", b"b")
    assert [key for key, _ in pairs(await store.get_batch(1))] == [b"b", b"a", b"b"]
    assert await store.get_batch(10_000) is None


async def test_drop_all_empties_the_log_and_keeps_the_table(store: Store) -> None:
    await put_keys(store, b"a")
    await store.prune([Policy(SequenceScope(), DropAll())])
    with pytest.raises(BatchEvictedError):
        await store.get_batch(1)
    assert await keys(store) == [b"a"]
    assert await put_keys(store, b"b") == 2
    assert pairs(await store.get_batch(2)) == [(b"b", b"value of b")]


async def test_value_filters_choose_rows_inside_a_batch(store: Store) -> None:
    values: list[ValueFilter] = [ValueRegex("^keep.*$"), ExactValue(b""), ValuePrefix(b"yes")]
    async with store.subscribe(match=[EVERYTHING], values=values, start="now") as feed:
        await wait_all_tasks_blocked()
        await store.put_batch(
            [(b"a", b"keep me"), (b"b", b"drop"), (b"c", b""), (b"d", b"yes!"), (b"e", b"no yes")]
        )
        [batch] = await take(feed, 1)
    assert [key for key, _ in pairs(batch)] == [b"a", b"c", b"d"]


async def test_selectors_that_break_a_rule_are_refused(store: Store) -> None:
    for match in ([], [EVERYTHING] * 17, [MatchKey(0, 0, "")], [MatchKey(0, 0, "(?=a)")]):
        with pytest.raises(InvalidRequestError):
            async with store.subscribe(match=match, from_sequence=1) as feed:
                await take(feed, 1)


@pytest.mark.slow  # many batches, or large ones
async def test_an_unread_subscriber_holds_nobody_up(store: Store) -> None:
    async with store.subscribe(match=[EVERYTHING], start="now") as feed:
        await wait_all_tasks_blocked()
        for n in range(512):
            await put_keys(store, b"%d" % n)
        assert await store.get(b"511", wait=False) == b"value of 511"
        assert [batch.sequence for batch in await take(feed, 512)] == list(range(1, 513))


# Its engine, as later releases promise it.


@pytest.mark.slow
async def test_concurrent_puts_are_contiguous_and_every_row_is_in_one_batch(store: Store) -> None:
    sequences: dict[bytes, int] = {}

    async def put(key: bytes) -> None:
        sequences[key] = await put_keys(store, key)

    async with trio.open_nursery() as nursery:
        for n in range(64):
            nursery.start_soon(put, b"%02d" % n)
    assert sorted(sequences.values()) == list(range(1, 65))
    for key, sequence in sequences.items():
        assert pairs(await store.get_batch(sequence)) == [(key, b"value of " + key)]


async def test_the_log_keeps_values_after_their_keys_are_deleted(store: Store) -> None:
    await put_keys(store, b"a")
    await store.prune([Policy(KeysScope(EVERYTHING), DropAll())])
    assert await keys(store) == []
    assert pairs(await store.get_batch(1)) == [(b"a", b"value of a")]
    async with store.subscribe(match=[EVERYTHING], from_sequence=1) as feed:
        [batch] = await take(feed, 1)
    assert pairs(batch) == [(b"a", b"value of a")]


async def test_a_subscription_whose_every_batch_is_filtered_is_live_all_the_same(
    store: Store,
) -> None:
    for n in range(20):
        await put_keys(store, b"%d" % n)
    async with store.subscribe(match=[MatchKey(0, 0, "^x")], from_sequence=1) as feed:
        await wait_all_tasks_blocked()
        await put_keys(store, b"x")
        [batch] = await take(feed, 1)
    assert batch.sequence == 21
