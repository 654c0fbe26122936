"""Matchers in use: shared by those who ask the same, bounded, and no work done twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from exo_stream.errors import OverloadedError
from exo_stream.keys import MatchKey
from exo_stream.limits import Limits
from exo_stream.matchers import Matcher
from exo_stream.matching import KEPT_BYTES_MAX, KEPT_MAX, TURN_STEPS, Matching, in_threads
from exo_stream.model import Entry, Keyspace
from exo_stream.payload import EncodedBatch
from exo_stream.selectors import (
    InvalidSelectorError,
    Selector,
    StoreSelector,
    StreamSelector,
    ValueRegex,
)


def asking(*regexes: str) -> StoreSelector:
    return StoreSelector(tuple([MatchKey(0, 0, regex) for regex in regexes]))


def batch(sequence: int, *entries: tuple[bytes, bytes]) -> EncodedBatch:
    return EncodedBatch(
        sequence, 0, entries=tuple([Entry(Keyspace.STORE, key, value) for key, value in entries])
    )


@dataclass(slots=True)
class Thread:
    """Does what it is given when it is let, and counts."""

    gate: trio.Event = field(default_factory=trio.Event)
    calls: int = 0

    async def __call__(self, fn: Callable[[], Any]) -> Any:
        self.calls += 1
        await self.gate.wait()
        return fn()


def open_thread() -> Thread:
    thread = Thread()
    thread.gate.set()
    return thread


async def test_those_who_ask_the_same_share_a_matcher_until_the_last_has_left() -> None:
    thread = open_thread()
    matching = Matching(Limits(), thread)
    one = await matching.hold(asking("a"))
    assert await matching.hold(asking("a")) is one
    assert matching.matcher_of(asking("a")) is one
    assert (len(matching), thread.calls) == (1, 1)
    matching.release(asking("a"))
    assert matching.matcher_of(asking("a")) is one
    matching.release(asking("a"))
    assert len(matching) == 0
    assert not matching._regexes
    assert matching._special == 0


async def test_those_who_ask_the_same_at_once_share_a_matcher_too() -> None:
    thread = Thread()
    matching = Matching(Limits(), thread)
    found: list[Matcher] = []

    async def ask() -> None:
        found.append(await matching.hold(asking("a")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        thread.gate.set()
    assert found[0] is found[1]
    assert len(matching) == 1


async def test_a_mere_prefix_and_a_stream_need_no_thread_and_count_for_nothing() -> None:
    thread = Thread()
    matching = Matching(Limits(special_selectors_max=0), thread)
    for selector in (Selector(b"a"), StreamSelector("a")):
        assert await matching.hold(selector) is matching.matcher_of(selector)
        matching.release(selector)
    assert thread.calls == 0
    assert matching.matcher_of(Selector(b"b")).takes(Entry(Keyspace.STORE, b"b", b""))


async def test_a_selector_that_breaks_a_rule_is_not_kept() -> None:
    matching = Matching(Limits(), open_thread())
    for selector in (asking("("), StoreSelector((MatchKey(99, 0, "a"),))):
        with pytest.raises(InvalidSelectorError):
            await matching.hold(selector)
    assert len(matching) == 0


async def test_there_are_so_many_different_selectors_at_once() -> None:
    matching = Matching(Limits(special_selectors_max=2), open_thread())
    for _ in range(3):
        await matching.hold(asking("a"))
        await matching.hold(asking("b"))
    with pytest.raises(OverloadedError) as caught:
        await matching.hold(asking("c"))
    assert caught.value.retryable
    await matching.hold(Selector(b"c"))
    for _ in range(3):
        matching.release(asking("a"))
    await matching.hold(asking("c"))


async def test_there_are_so_many_different_regexes_at_once() -> None:
    matching = Matching(Limits(regexes_max=2), open_thread())
    await matching.hold(asking("a", "b"))
    await matching.hold(asking("b", "a"))  # the same ones in another selector
    with pytest.raises(OverloadedError):
        await matching.hold(asking("a", "c"))
    with pytest.raises(OverloadedError):
        await matching.hold(StoreSelector(value_filters=(ValueRegex("d"),)))
    matching.release(asking("a", "b"))
    with pytest.raises(OverloadedError):
        await matching.hold(asking("c"))
    matching.release(asking("b", "a"))
    await matching.hold(asking("c"))


HEAVY = StoreSelector(value_filters=(ValueRegex("(?-u)v{90}$"),))
LIGHT = batch(1, (b"k", b"v"))
LARGE = batch(2, (b"k", b"v" * 10_000), (b"l", b"w"), (b"m", b"v" * 10_000))
FEW_STEPS = Limits(match_steps_max=100_000)


async def test_light_work_is_done_where_it_is_asked_for() -> None:
    thread = open_thread()
    matching = Matching(Limits(match_steps_max=1_000), thread)
    matcher = await matching.hold(asking("k"))
    before = thread.calls
    found = await matching.select(matcher, [batch(1, (b"k", b"1")), batch(2, (b"j", b"2"))] * 20)
    assert [part.sequence for part in found] == [1] * 20
    assert thread.calls == before


async def test_heavy_work_is_done_by_a_thread_once_for_all_who_ask_the_same() -> None:
    thread = open_thread()
    matching = Matching(FEW_STEPS, thread)
    matcher = await matching.hold(HEAVY)
    thread.gate = trio.Event()
    found: list[list[EncodedBatch]] = []

    async def ask() -> None:
        found.append(await matching.select(matcher, [LIGHT, LARGE]))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        thread.gate.set()
    assert thread.calls == 2  # to compile, and to select
    for parts in found:
        assert [(p.sequence, [e.key for e in p.entries]) for p in parts] == [(2, [b"k", b"m"])]
    await ask()
    assert thread.calls == 2
    matching.release(HEAVY)
    assert matching._heavy == {}


async def test_who_is_cancelled_leaves_heavy_work_to_the_next() -> None:
    thread = open_thread()
    matching = Matching(FEW_STEPS, thread)
    matcher = await matching.hold(HEAVY)
    thread.gate = trio.Event()
    found: list[list[EncodedBatch]] = []
    first = trio.CancelScope()

    async def ask(scope: trio.CancelScope) -> None:
        with scope:
            found.append(await matching.select(matcher, [LARGE]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, first)
        await wait_all_tasks_blocked()
        nursery.start_soon(ask, trio.CancelScope())
        await wait_all_tasks_blocked()
        first.cancel()
        await wait_all_tasks_blocked()
        assert found == []
        thread.gate.set()
    assert [[part.sequence for part in parts] for parts in found] == [[2]]
    assert thread.calls == 3


async def test_of_heavy_selections_few_are_kept_and_no_large_ones() -> None:
    matching = Matching(FEW_STEPS, open_thread())
    matcher = await matching.hold(HEAVY)
    for sequence in range(2 * KEPT_MAX):
        await matching.select(matcher, [batch(sequence, (b"k", b"v" * 10_000))])
    assert len(matching._heavy) == KEPT_MAX
    huge = batch(99, (b"k", b"v" * (KEPT_BYTES_MAX // KEPT_MAX)))
    assert len(await matching.select(matcher, [huge])) == 1
    assert (matcher, 99) not in matching._heavy
    unwanted = batch(100, (b"k", b"w" * 10_000))
    assert await matching.select(matcher, [unwanted]) == []
    assert (matcher, 100) in matching._heavy


async def test_what_may_take_minutes_keeps_nobody_from_what_is_merely_heavy() -> None:
    near, far = open_thread(), Thread()
    matching = Matching(FEW_STEPS, near, far)
    two_searches = StoreSelector(
        value_filters=(ValueRegex("(?-u)w{90}$"), ValueRegex("(?-u)v{90}$"))
    )
    matcher = await matching.hold(two_searches)
    long = b"v" * (TURN_STEPS // 90)
    found: list[list[EncodedBatch]] = []

    async def ask() -> None:
        entries = ((b"short", b"v" * 90), (b"long", long), (b"none", b"x" * len(long)))
        found.append(await matching.select(matcher, [batch(1, *entries)]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert far.calls == 1
        other = await matching.hold(HEAVY)
        assert [part.sequence for part in await matching.select(other, [LARGE])] == [2]
        assert found == []
        far.gate.set()
    assert [[e.key for e in part.entries] for [part] in found] == [[b"short", b"long"]]
    # Each search is a turn of its own, and so is the news that there is none left.
    assert far.calls == 2 + 3


async def test_heavy_work_is_done_in_turns() -> None:
    thread = open_thread()
    matching = Matching(FEW_STEPS, thread)
    matcher = await matching.hold(HEAVY)
    pairs = [(b"%03d" % n, b"v" * 10_000) for n in range(2 * TURN_STEPS // (10_000 * 90))]
    before = thread.calls
    [part] = await matching.select(matcher, [batch(1, *pairs)])
    assert [(entry.key, entry.value) for entry in part.entries] == pairs
    assert thread.calls - before == 3


async def test_rows_of_the_table_are_looked_at_in_the_same_way() -> None:
    thread = open_thread()
    matching = Matching(FEW_STEPS, thread)
    matcher = await matching.hold(HEAVY)
    assert await matching.narrow(matcher, LIGHT.entries) == []
    assert thread.calls == 1
    assert [row.key for row in await matching.narrow(matcher, LARGE.entries)] == [b"k", b"m"]
    assert thread.calls == 2


async def test_threads_call_and_answer() -> None:
    call = in_threads()
    assert await call(lambda: 5) == 5

    def wrong() -> None:
        raise InvalidSelectorError("match_keys", "wrong")

    with pytest.raises(InvalidSelectorError):
        await call(wrong)
