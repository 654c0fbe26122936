"""Feeds that choose by match keys and values, and namespaces, through both handles."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream import Platform
from exo_stream.client import Client
from exo_stream.errors import (
    BatchEvictedError,
    ConflictError,
    InvalidRequestError,
    LimitExceededError,
    OverloadedError,
)
from exo_stream.feed import CaughtUp, Progress, SnapshotEnd, SnapshotPage
from exo_stream.keys import KeyCodec, MatchKey, PayloadTooLargeError
from exo_stream.limits import Limits
from exo_stream.model import Batch, Entry, Keyspace
from exo_stream.namespaced import NamespacedStore
from exo_stream.namespaces import NamespaceNestingError
from exo_stream.selectors import ExactValue, ValueFilter, ValuePrefix, ValueRegex
from tests.network import connected_over, networked
from tests.worlds import in_memory

Handle = Platform | Client

EVERY = "(?s-u).*"
FAMILY = KeyCodec(4, 5)
OTHERS = KeyCodec(4, 6)
OF_FAMILY = MatchKey(4, 5, EVERY)

TIMID = Limits(match_steps_max=1)
"""Under these nothing is light: whoever asks for more than a prefix looks alone."""


@asynccontextmanager
async def embedded(limits: Limits) -> AsyncIterator[Handle]:
    async with in_memory()(limits=limits) as platform:
        yield platform


@asynccontextmanager
async def remote(limits: Limits) -> AsyncIterator[Handle]:
    async with in_memory()(limits=limits) as platform, networked(platform) as network:
        async with connected_over(network) as client:
            yield client


@pytest.fixture(
    params=[(embedded, Limits()), (embedded, TIMID), (remote, Limits()), (remote, TIMID)],
    ids=["embedded", "embedded, heavy", "client", "client, heavy"],
)
async def handle(request: pytest.FixtureRequest) -> AsyncIterator[Handle]:
    opened, limits = request.param
    async with opened(limits) as handle:
        yield handle


def pairs(batch: Any) -> list[tuple[bytes, bytes | None]]:
    assert isinstance(batch, Batch | SnapshotPage)
    return [(entry.key, entry.value) for entry in batch.entries]


async def until_caught_up(feed: Any) -> list[Any]:
    found: list[Any] = []
    async for message in feed.messages():
        if isinstance(message, CaughtUp):
            break
        found.append(message)
    return found


async def next_batch(feed: Any) -> Batch:
    with trio.fail_after(60):
        message = await anext(feed)
    assert isinstance(message, Batch)
    return message


async def test_a_live_feed_delivers_matching_rows_with_the_puts_sequence(handle: Handle) -> None:
    async with handle.subscribe(match=[OF_FAMILY]) as feed:
        await until_caught_up(feed)
        own = FAMILY.encode(b"k")
        sequence = await handle.put_batch([(own, b"1"), (OTHERS.encode(b"k"), b"2")])
        batch = await next_batch(feed)
    assert batch.sequence == sequence
    assert pairs(batch) == [(own, b"1")]


async def test_a_put_that_does_not_match_sends_nothing_but_progress(
    handle: Handle, autojump_clock: MockClock
) -> None:
    async with handle.subscribe(match=[OF_FAMILY]) as feed:
        await until_caught_up(feed)
        sequence = await handle.put_batch([(b"\x60", b"1")])
        with trio.fail_after(60):
            message = await feed.next_message()
    assert isinstance(message, Progress)
    assert message.cursor.sequence == sequence


async def test_several_match_keys_make_one_batch_of_both_rows(handle: Handle) -> None:
    keys = [OF_FAMILY, MatchKey(4, 6, EVERY)]
    async with handle.subscribe(match=keys) as feed:
        await until_caught_up(feed)
        puts = [(OTHERS.encode(b"b"), b"2"), (b"\x70", b"3"), (FAMILY.encode(b"a"), b"1")]
        await handle.put_batch(puts)
        assert pairs(await next_batch(feed)) == [puts[0], puts[2]]


async def test_two_puts_make_two_batches_of_increasing_sequence(handle: Handle) -> None:
    async with handle.subscribe(match=[OF_FAMILY]) as feed:
        await until_caught_up(feed)
        sent = [await handle.put_batch([(b"\x50", b"%d" % n)]) for n in range(2)]
        assert [(await next_batch(feed)).sequence for _ in sent] == sent == [1, 2]


async def test_replay_from_the_third_batch_goes_on_live(handle: Handle) -> None:
    for number in range(5):
        await handle.put_batch([(b"\x50", b"%d" % number), (b"\x60", b"")])
    async with handle.subscribe(match=[OF_FAMILY], from_sequence=3) as feed:
        replayed = await until_caught_up(feed)
        await handle.put_batch([(b"\x50", b"live")])
        live = await next_batch(feed)
    assert [batch.sequence for batch in replayed] == [3, 4, 5]
    assert (live.sequence, pairs(live)) == (6, [(b"\x50", b"live")])


async def test_a_replay_of_which_nothing_matches_goes_on_live(handle: Handle) -> None:
    for _ in range(5):
        await handle.put_batch([(b"\x60", b"")])
    async with handle.subscribe(match=[OF_FAMILY]) as feed:
        assert await until_caught_up(feed) == []
        assert feed.cursor is not None
        await handle.put_batch([(b"\x50", b"")])
        assert (await next_batch(feed)).sequence == 6


async def test_a_start_that_was_pruned_is_evicted_whether_or_not_it_would_match(
    handle: Handle,
) -> None:
    for _ in range(20):
        await handle.put_batch([(b"\x60", b"")])
    await handle.prune_batch_log(11)
    with pytest.raises(BatchEvictedError) as caught:
        async with handle.subscribe(match=[OF_FAMILY], from_sequence=1):
            pass
    assert caught.value.oldest_retained == 11
    async with handle.subscribe(match=[OF_FAMILY], from_sequence=11) as feed:
        assert await until_caught_up(feed) == []


async def test_a_sparse_follower_resumes_from_progress_though_its_batches_are_gone(
    handle: Handle, autojump_clock: MockClock
) -> None:
    """The trap: elsewhere a resume cursor stays at the last match, and is evicted for nothing."""
    async with handle.subscribe(match=[OF_FAMILY]) as feed:
        await until_caught_up(feed)
        for _ in range(20):
            await handle.put_batch([(b"\x60", b"")])
        with trio.fail_after(60):
            message = await feed.next_message()
        assert isinstance(message, Progress)
    await handle.prune_batch_log(20)
    async with handle.subscribe(match=[OF_FAMILY], after=message.cursor) as feed:
        assert await until_caught_up(feed) == []


async def test_get_batch_is_whole_unfiltered_and_in_write_order(handle: Handle) -> None:
    puts = [(b"\x60", b"1"), (b"\x50", b"2"), (b"\x60", b"3")]
    async with handle.subscribe(match=[OF_FAMILY]) as feed:
        await handle.put_batch(puts)
        assert pairs(await next_batch(feed)) == [puts[1]]
    assert pairs(await handle.get_batch(1)) == puts


async def test_a_value_regex_filters_rows_inside_a_batch(handle: Handle) -> None:
    async with handle.subscribe(match=[OF_FAMILY], values=[ValueRegex("^keep.*$")]) as feed:
        await until_caught_up(feed)
        await handle.put_batch([(b"\x50", b"keep-a"), (b"\x51", b"drop-b"), (b"\x52", b"keep-c")])
        await handle.put_batch([(b"\x50", b"drop"), (b"\x60", b"keep")])
        await handle.put_batch([(b"\x50", b"keep")])
        first, second = await next_batch(feed), await next_batch(feed)
    assert pairs(first) == [(b"\x50", b"keep-a"), (b"\x52", b"keep-c")]
    assert second.sequence == 3


async def test_of_value_filters_one_must_pass_and_a_deletion_passes_none(handle: Handle) -> None:
    await handle.write(puts=[(b"a", b"x1"), (b"b", b""), (b"c", b"y")], deletes=[b"a"])
    filters: list[ValueFilter] = [ValuePrefix(b"x"), ExactValue(b"")]
    async with handle.subscribe(values=filters) as feed:
        assert pairs(await next_batch(feed)) == [(b"a", b"x1"), (b"b", b"")]
    async with handle.subscribe(match=[MatchKey(0, 0, "^a")]) as feed:
        assert pairs(await next_batch(feed)) == [(b"a", b"x1"), (b"a", None)]


async def test_a_row_is_delivered_once_and_duplicates_each(handle: Handle) -> None:
    both = [MatchKey(0, 0, "a"), MatchKey(0, 0, EVERY)]
    await handle.put_batch([(b"a", b"1"), (b"a", b"1"), (b"b", b"2")])
    async with handle.subscribe(match=both) as feed:
        assert pairs(await next_batch(feed)) == [(b"a", b"1"), (b"a", b"1"), (b"b", b"2")]


async def test_prefix_match_keys_and_values_must_all_hold(handle: Handle) -> None:
    await handle.put_batch(
        [(b"user/a1", b"v"), (b"user/b1", b"v"), (b"a1", b"v"), (b"user/a2", b"")]
    )
    async with handle.subscribe(
        prefix=b"user/", match=[MatchKey(0, 0, "^a")], values=[ExactValue(b"v")]
    ) as feed:
        assert pairs(await next_batch(feed)) == [(b"user/a1", b"v")]


async def test_a_snapshot_has_the_rows_that_match_and_no_others(handle: Handle) -> None:
    await handle.put_batch(
        [(b"\x50a", b"keep"), (b"\x50b", b"drop"), (b"\x60a", b"keep"), (b"\x70a", b"keep")]
    )
    keys = [MatchKey(4, 7, EVERY), MatchKey(4, 5, EVERY)]
    async with handle.subscribe(match=keys, values=[ValueRegex("keep")], snapshot=True) as feed:
        messages = await until_caught_up(feed)
        rows = [pair for page in messages if isinstance(page, SnapshotPage) for pair in pairs(page)]
        assert rows == [(b"\x50a", b"keep"), (b"\x70a", b"keep")]
        assert isinstance(messages[-1], SnapshotEnd)
        await handle.put_batch([(b"\x60", b"keep"), (b"\x51", b"keep")])
        assert pairs(await next_batch(feed)) == [(b"\x51", b"keep")]


async def test_many_with_the_same_selector_and_others_hear_each_their_own(
    handle: Handle, autojump_clock: MockClock
) -> None:
    heard: dict[int, list[list[tuple[bytes, bytes | None]]]] = {n: [] for n in range(6)}
    asked = [
        {"match": [OF_FAMILY]},
        {"match": [OF_FAMILY]},
        {"match": [OF_FAMILY], "values": [ValueRegex("1")]},
        {"prefix": b"\x50"},
        {"values": [ExactValue(b"2")]},
        {},
    ]

    async def follow(number: int, *, task_status: trio.TaskStatus[None]) -> None:
        async with handle.subscribe(start="now", **asked[number]) as feed:  # type: ignore[arg-type]  # options of several types
            await until_caught_up(feed)
            task_status.started()
            while True:
                heard[number].append(pairs(await anext(feed)))

    async with trio.open_nursery() as nursery:
        for number in heard:
            await nursery.start(follow, number)
        await handle.put_batch([(b"\x50", b"1")])
        await handle.put_batch([(b"\x60", b"2"), (b"\x51", b"2")])
        await handle.put_batch([(b"\x61", b"3")])
        with trio.move_on_after(1):
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()
    family = [[(b"\x50", b"1")], [(b"\x51", b"2")]]
    assert heard[0] == heard[1] == family
    assert heard[2] == heard[3] == [[(b"\x50", b"1")]]
    assert heard[4] == [[(b"\x60", b"2"), (b"\x51", b"2")]]
    assert len(heard[5]) == 3


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"match": []}, id="no match key"),
        pytest.param({"match": [OF_FAMILY] * 17}, id="too many match keys"),
        pytest.param({"values": [ExactValue(b"")] * 17}, id="too many value filters"),
        pytest.param({"match": [MatchKey(17, 0, EVERY)]}, id="too many bits"),
        pytest.param({"match": [MatchKey(3, 0b1000, EVERY)]}, id="a prefix that does not fit"),
        pytest.param({"match": [MatchKey(0, 0, "")]}, id="a blank regex"),
        pytest.param({"match": [MatchKey(0, 0, "(?=a)")]}, id="look-around"),
        pytest.param({"values": [ValueRegex("(")]}, id="a bad regex"),
        pytest.param({"values": ["a"]}, id="no filter"),
    ],
)
async def test_a_selector_that_breaks_a_rule_is_refused(
    handle: Handle, asked: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        handle.subscribe(**asked)
    assert not caught.value.retryable
    assert await handle.put_batch([(b"k", b"")]) == 1, "nothing else is amiss"


async def test_a_long_prefix_is_over_the_limit(handle: Handle) -> None:
    with pytest.raises(LimitExceededError):
        handle.subscribe(prefix=b"a" * 255, match=[OF_FAMILY])
    async with handle.subscribe(prefix=b"a" * 254, match=[OF_FAMILY]) as feed:
        assert await until_caught_up(feed) == []


@pytest.mark.parametrize("opened", [embedded, remote])
async def test_too_many_different_selectors_are_refused_and_one_that_ends_makes_room(
    opened: Any, autojump_clock: MockClock
) -> None:
    async with opened(Limits(regexes_max=1)) as handle:
        async with handle.subscribe(match=[MatchKey(0, 0, "one")]):
            async with handle.subscribe(match=[MatchKey(8, 1, "one")]):
                with pytest.raises(OverloadedError):
                    async with handle.subscribe(match=[MatchKey(0, 0, "two")]):
                        pass
        with trio.fail_after(60):
            while True:  # until the server has heard of their end
                try:
                    async with handle.subscribe(match=[MatchKey(0, 0, "two")]):
                        break
                except OverloadedError:
                    await trio.sleep(0.1)


async def test_now_is_when_it_was_asked_for_however_long_a_regex_takes_to_compile() -> None:
    async with in_memory()() as platform:
        compiled = trio.Event()

        async def elsewhere(fn: Callable[[], Any]) -> Any:
            await compiled.wait()
            return fn()

        platform.sources.matching._elsewhere = elsewhere

        async def write() -> None:
            await wait_all_tasks_blocked()
            await platform.put_batch([(b"\x50", b"meanwhile")])
            compiled.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            async with platform.subscribe(match=[OF_FAMILY], start="now") as feed:
                assert pairs(await next_batch(feed)) == [(b"\x50", b"meanwhile")]


# --- namespaces ----------------------------------------------------------------------------------


@pytest.fixture(params=[b"user/", FAMILY], ids=["bytes", "packed"])
def space(handle: Handle, request: pytest.FixtureRequest) -> NamespacedStore:
    return handle.namespace(request.param)


async def test_a_namespace_has_the_verbs_of_the_store(
    handle: Handle, space: NamespacedStore
) -> None:
    await handle.put_batch([(b"a", b"not mine"), (b"\x60", b""), (b"zz", b"")])
    assert await space.put_batch([(b"b", b"2"), (b"a", b"1"), (b"", b"0")]) == 2

    assert await space.get(b"a") == b"1"
    assert await space.get(b"zz") is None
    assert (await space.get_entry(b"b", min_sequence=2)).version == 2
    assert await space.get_many([b"b", b"c", b"b"]) == [(b"b", b"2"), (b"c", None), (b"b", b"2")]
    assert await space.range_scan() == [(b"", b"0"), (b"a", b"1"), (b"b", b"2")]
    assert await space.range_scan(b"a", b"a") == [(b"a", b"1")]
    assert await space.range_scan(limit=2, forward=False) == [(b"b", b"2"), (b"a", b"1")]
    async with space.scan(b"a") as rows:
        assert [row async for row in rows] == [(b"a", b"1"), (b"b", b"2")]
        assert rows.sequence == 2
    assert await handle.get(space.encode(b"a")) == b"1"
    assert await space.delete_batch([b"a"]) == 3
    assert await space.get(b"a") is None
    assert await handle.get(b"a") == b"not mine"


async def test_a_range_past_the_longest_key_is_empty(space: NamespacedStore) -> None:
    await space.put_batch([(b"a", b"1")])
    beyond = b"\xff" * 254
    assert await space.range_scan(beyond, b"") == []
    async with space.scan(beyond) as rows:
        assert [row async for row in rows] == []
    assert await space.range_scan(b"b", b"a") == []


async def test_a_namespace_has_preconditions_and_names_its_own_key(space: NamespacedStore) -> None:
    await space.write(puts=[(b"a", b"1")], require={b"a": "absent"})
    with pytest.raises(ConflictError) as caught:
        await space.write(puts=[(b"a", b"2")], require={b"a": "absent"})
    assert (caught.value.key, caught.value.version) == (b"a", 1)


async def test_a_namespaces_feed_shows_its_own_keys(handle: Handle, space: NamespacedStore) -> None:
    async with space.subscribe() as feed:
        await until_caught_up(feed)
        await space.write(puts=[(b"a", b"1")], deletes=[b"b"])
        await handle.put_batch([(b"a", b"not mine")])
        batch = await next_batch(feed)
        assert batch.entries == (
            Entry(Keyspace.STORE, b"a", b"1"),
            Entry(Keyspace.STORE, b"b", None),
        )
        await space.put_batch([(b"c", b"3")])
        assert (await next_batch(feed)).sequence == 3
        assert feed.cursor is not None
    async with space.subscribe(after=batch.cursor, prefix=b"c") as feed:
        assert pairs(await next_batch(feed)) == [(b"c", b"3")]
    async with space.subscribe(prefix=b"a", snapshot=True) as feed:
        page = await anext(feed)
        assert isinstance(page, SnapshotPage)
        assert pairs(page) == [(b"a", b"1")]


async def test_match_keys_in_a_namespace_are_of_its_keys_whatever_bits_stand_before(
    space: NamespacedStore,
) -> None:
    """The trap: in 4.1 an anchored regex read payloads that were shifted by a byte."""
    await space.put_batch([(b"ab\x00\x0012345678", b"1"), (b"ab\x00\x001234567", b"2")])
    versioned = r"(?s-u)^[^\x00]*\x00\x00.{8}$"
    async with space.subscribe(
        match=[MatchKey(0, 0, versioned)], values=[ExactValue(b"1")]
    ) as feed:
        assert pairs(await next_batch(feed)) == [(b"ab\x00\x0012345678", b"1")]
    async with space.subscribe(match=[MatchKey(8, 0x61, "^b")]) as feed:
        assert len(pairs(await next_batch(feed))) == 2


async def test_one_write_to_two_namespaces_is_atomic_and_each_sees_its_own(handle: Handle) -> None:
    users, orders = handle.namespace(FAMILY), handle.namespace(OTHERS)
    async with users.subscribe() as ours, orders.subscribe() as theirs:
        sequence = await handle.put_batch(
            [(users.encode(b"k"), b"u"), (orders.encode(b"k"), b"o"), (orders.encode(b"l"), b"p")]
        )
        mine, their = await next_batch(ours), await next_batch(theirs)
    assert mine.sequence == their.sequence == sequence
    assert pairs(mine) == await users.range_scan() == [(b"k", b"u")]
    assert pairs(their) == await orders.range_scan() == [(b"k", b"o"), (b"l", b"p")]
    whole = await handle.get_batch(sequence)
    assert whole is not None
    assert [users.decode(entry.key) for entry in whole.entries] == [b"k", None, None]
    for space, batch in ((users, mine), (orders, their)):
        assert await space.get_batch(sequence) == batch
        assert await space.get_batch(sequence + 1) is None
        assert await space.get_many([b"k", b"x"]) == [(b"k", pairs(batch)[0][1]), (b"x", None)]
    await handle.prune_batch_log(sequence + 1)
    with pytest.raises(BatchEvictedError):
        await users.get_batch(sequence)


async def test_namespaces_nest_unless_bits_are_lost(handle: Handle) -> None:
    inner = handle.namespace(b"a/").namespace(FAMILY).namespace(b"b/")
    await inner.put_batch([(b"k", b"v")])
    assert inner.encode(b"k") == b"a/" + FAMILY.encode(b"b/k")
    async with inner.subscribe() as feed:
        assert pairs(await next_batch(feed)) == [(b"k", b"v")]
    with pytest.raises(NamespaceNestingError):
        handle.namespace(FAMILY).namespace(OTHERS)
    with pytest.raises(NamespaceNestingError):
        handle.namespace(FAMILY).subscribe(match=[MatchKey(4, 6, EVERY)])


async def test_keys_that_the_namespace_did_not_make_are_not_shown(handle: Handle) -> None:
    packed = handle.namespace(FAMILY)
    foreign = bytes.fromhex("5611")  # its last four bits are no zeros
    await handle.put_batch([(foreign, b"foreign")])
    async with packed.subscribe() as feed:
        await packed.put_batch([(b"a", b"1"), (b"b", b"2")])
        assert pairs(await next_batch(feed)) == [(b"a", b"1"), (b"b", b"2")]
    assert await packed.range_scan(limit=2) == [(b"a", b"1"), (b"b", b"2")]
    async with packed.scan() as rows:
        assert [row async for row in rows] == [(b"a", b"1"), (b"b", b"2")]


async def test_what_is_no_key_or_pair_is_refused(space: NamespacedStore) -> None:
    wrong: Any = ["text"]
    for call in (
        lambda: space.put_batch(wrong),
        lambda: space.delete_batch(wrong),
        lambda: space.write(puts=[(b"a", b"")], require=wrong),
        lambda: space.get(wrong),
        lambda: space.get_many(5),  # type: ignore[arg-type]  # what is refused
        lambda: space.range_scan(wrong),
    ):
        with pytest.raises(InvalidRequestError):
            await call()
    with pytest.raises(InvalidRequestError):
        space.scan(wrong)
    with pytest.raises(PayloadTooLargeError):
        await space.put_batch([(b"a" * 254, b"")])
    with pytest.raises(PayloadTooLargeError):
        space.subscribe(prefix=b"a" * 254)
