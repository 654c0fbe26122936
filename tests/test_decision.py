"""Decisions: what they see of their group, and how they get what is not in memory."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from exo_stream import open_platform
from exo_stream.decision import Answer, KeyRange, Need, Refuse, Unknown, Verdict, View, Write
from exo_stream.errors import ConflictError, OverloadedError, PlatformClosedError, StoreError
from exo_stream.limits import Limits
from exo_stream.model import Entry, Keyspace, row_key
from exo_stream.storage.duckdb_engine import open_duckdb_engine
from tests.tables import work
from tests.test_query import ColdEngine
from tests.worlds import (
    Crash,
    FaultyEngine,
    GatedHop,
    Outcomes,
    in_memory,
    put,
    put_one_by_one,
    told,
)


async def test_what_a_decision_needs_is_fetched_and_it_is_asked_again() -> None:
    engine = FaultyEngine()
    async with in_memory(engine)() as platform:
        await platform.put_batch([(b"k", b"1")])
        engine.cold.add(row_key(Keyspace.STORE, b"k"))
        with pytest.raises(ConflictError) as conflict:
            await platform.write(deletes=[b"k"], require={b"k": "absent"})
        assert conflict.value.version == 1
        assert await platform.write(deletes=[b"k"], require={b"k": 1, b"never": "absent"}) == 2
        assert await platform.get(b"k") is None


async def test_a_neighbour_in_the_group_is_seen_over_what_was_fetched() -> None:
    engine, hop = FaultyEngine(), GatedHop()
    outcomes: Outcomes = {}
    engine.put_batch([(b"k", b"old")])
    engine.cold.add(row_key(Keyspace.STORE, b"k"))
    async with in_memory(engine)(hop=hop) as platform, trio.open_nursery() as nursery:
        nursery.start_soon(told, outcomes, "first", put(platform, b"x"))
        await hop.arrived.wait()
        for name in ("one", "other"):
            nursery.start_soon(told, outcomes, name, put(platform, b"k", require={b"k": 1}))
            await wait_all_tasks_blocked()
        hop.gate.set()
    assert outcomes["one"] == 3
    assert outcomes["other"].version == 3


async def test_what_cannot_be_read_fails_the_group_and_nothing_else() -> None:
    engine = ColdEngine()
    async with in_memory(engine)() as platform:
        await platform.put_batch([(b"k", b"1")])
        engine.chill(b"k")
        engine.errors.append(OverloadedError("it took too long"))
        with pytest.raises(StoreError, match="too long"):
            await platform.write(deletes=[b"k"], require={b"k": 1})
        assert await platform.write(deletes=[b"k"], require={b"k": 1}) == 2


def counting(prefix: bytes, rounds: list[int]) -> Any:
    """Write how many keys there are under ``prefix``, unless there are ten."""
    wanted = KeyRange(Keyspace.STORE, prefix, prefix + b"\xff", limit=10)

    def decide(view: View, _now: int) -> Verdict[int]:
        rounds.append(1)
        rows = view.rows(wanted)
        if isinstance(rows, Unknown):
            return Need(ranges=[wanted])
        if len(rows) == 10:
            return Answer(10)
        key = prefix + b"%d" % len(rows)
        return Write([Entry(Keyspace.STORE, key, b"%d" % len(rows))], len(rows))

    return decide


async def test_a_decision_may_ask_for_a_range_and_sees_what_its_group_wrote_there() -> None:
    hop = GatedHop()
    outcomes: Outcomes = {}
    rounds: list[int] = []
    async with in_memory()(hop=hop) as platform, trio.open_nursery() as nursery:
        nursery.start_soon(told, outcomes, "first", put(platform, b"x"))
        await hop.arrived.wait()
        for number in range(12):
            ask = counting(b"n/", rounds)
            nursery.start_soon(told, outcomes, str(number), lambda ask=ask: platform.decide(ask))
            await wait_all_tasks_blocked()
        hop.gate.set()
        await wait_all_tasks_blocked()
        assert [outcomes[str(number)] for number in range(12)] == [*range(10), 10, 10]
        assert len(await platform.range_scan(b"n/", b"n0")) == 10
        assert await platform.decide(counting(b"n/", rounds)) == 10
        await platform.delete_batch([b"n/%d" % number for number in range(5)])
        assert await platform.decide(counting(b"n/", rounds)) == 5


@pytest.mark.parametrize("reverse", [False, True])
async def test_a_group_that_deleted_in_a_range_is_shown_what_comes_behind(reverse: bool) -> None:
    """The fetched page was full before the deletions; the rest must not seem to be missing."""
    wanted = KeyRange(Keyspace.STORE, b"a", b"b", limit=2, reverse=reverse)

    def delete_first(view: View, _now: int) -> Verdict[list[bytes]]:
        rows = view.rows(wanted)
        if isinstance(rows, Unknown):
            return Need(ranges=[wanted])
        keys = [row.key[1:] for row in rows]
        return Write([Entry(Keyspace.STORE, key, None) for key in keys[:1]], keys)

    hop = GatedHop()
    outcomes: Outcomes = {}
    hop.gate.set()
    async with in_memory()(hop=hop) as platform:
        await put_one_by_one(platform, [b"a%d" % number for number in range(6)])
        hop.gate, hop.arrived = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(told, outcomes, "first", put(platform, b"x"))
            await hop.arrived.wait()
            for number in range(6):
                ask = partial(platform.decide, delete_first)
                nursery.start_soon(told, outcomes, str(number), ask)
                await wait_all_tasks_blocked()
            hop.gate.set()
    keys = [b"a%d" % number for number in range(6)]
    if reverse:
        keys.reverse()
    assert [outcomes[str(number)] for number in range(6)] == [
        keys[number : number + 2] for number in range(6)
    ]


@pytest.mark.parametrize("limits", [Limits(), Limits(memtable_entries_max=2, page_rows_max=2)])
async def test_the_last_row_below_a_key_is_found_wherever_it_is(
    tmp_path: Path, limits: Limits
) -> None:
    def last_below(key: bytes) -> Any:
        wanted = KeyRange(Keyspace.STORE, b"", key, limit=1, reverse=True)

        def decide(view: View, _now: int) -> Verdict[list[bytes]]:
            rows = view.rows(wanted)
            if isinstance(rows, Unknown):
                return Need(ranges=[wanted])
            # What it writes is above what the next one in the group looks for, or is it.
            return Write([Entry(Keyspace.STORE, key + b"+", b"")], [row.key[1:] for row in rows])

        return decide

    async with open_platform(tmp_path / "store.duckdb", limits=limits) as platform:
        await put_one_by_one(platform, [b"k%d" % number for number in range(8)])
        await platform.delete_batch([b"k2", b"k3"])
        outcomes: Outcomes = {}
        async with trio.open_nursery() as nursery:
            for key in (b"k0", b"k4", b"k5", b"k9", b"k9+a"):
                ask = partial(platform.decide, last_below(key))
                nursery.start_soon(told, outcomes, key.decode(), ask)
                await wait_all_tasks_blocked()
        assert outcomes == {
            "k0": [],
            "k4": [b"k1"],
            "k5": [b"k4+"],
            "k9": [b"k7"],
            "k9+a": [b"k9+"],
        }


async def test_a_version_is_told_without_the_value_that_is_in_the_file(tmp_path: Path) -> None:
    limits = Limits(memtable_entries_max=3)
    engine = open_duckdb_engine(tmp_path / "store.duckdb", limits=limits)
    engine.put_batch([(b"a", b"1")])
    engine.put_batch([(b"b", b"2")])
    engine.delete_batch([b"b"])
    work(engine)
    assert not engine.statistics().memtable_entries
    async with open_platform(engine=engine, limits=limits) as platform:
        with pytest.raises(ConflictError) as conflict:
            await platform.write(deletes=[b"c"], require={b"a": 1, b"b": 2})
        assert (conflict.value.key, conflict.value.version) == (b"b", 0)
        assert engine.statistics().cache_bytes == 0
        assert await platform.write(deletes=[b"c"], require={b"a": 1, b"b": "absent"}) == 4
        assert await platform.get_entry(b"a") == (b"1", 1, 4)


async def test_a_decision_that_keeps_asking_is_a_bug_that_stops_the_platform() -> None:
    def greedy(_view: View, _now: int) -> Verdict[None]:
        return Need(keys=[(0, b"k")])

    with pytest.raises(AssertionError, match="keeps asking"):
        async with in_memory()() as platform:
            await platform.decide(greedy)


async def test_a_decision_may_refuse_and_may_write_nothing() -> None:
    async with in_memory()() as platform:
        with pytest.raises(StoreError, match="no"):
            await platform.decide(lambda _view, _now: Refuse(StoreError("no")))
        assert await platform.decide(lambda _view, _now: Answer("yes")) == "yes"
        assert await platform.decide(lambda view, _now: Write([], view.sequence)) == 1
        batch = await platform.get_batch(1)
        assert batch is not None
        assert batch.entries == ()


async def test_a_decision_that_raises_stops_the_platform_and_leaves_nobody_waiting() -> None:
    outcomes: Outcomes = {}

    def crash(_view: View, _now: int) -> Verdict[None]:
        raise Crash

    async with trio.open_nursery() as outside:
        with pytest.raises(Crash):
            async with in_memory()() as platform:
                outside.start_soon(told, outcomes, "crash", lambda: platform.decide(crash))  # noqa: ASYNC111  it outlives the platform
                outside.start_soon(told, outcomes, "put", put(platform, b"k"))  # noqa: ASYNC111  it outlives the platform
                await trio.sleep_forever()
    assert isinstance(outcomes["crash"], PlatformClosedError)
    assert isinstance(outcomes["put"], PlatformClosedError | int), "whoever was first"
