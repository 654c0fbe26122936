"""Reads that need the reader thread: together, bounded in time, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream.actors import query
from exo_stream.actors.query import TURN_KEYS_MAX
from exo_stream.actors.reads import FETCH_KEYS_MAX
from exo_stream.errors import (
    CorruptionError,
    LimitExceededError,
    OverloadedError,
    PlatformClosedError,
)
from exo_stream.limits import Limits
from exo_stream.model import Keyspace, Row, row_key
from exo_stream.storage.engine import Page, Reader, Version
from exo_stream.storage.memory_engine import MemoryReader
from tests.worlds import Crash, FaultyEngine, in_memory, put_one_by_one

T = TypeVar("T")


class ColdReader(MemoryReader):
    """Counts what it is asked; fails once if it has an error; may be told to take for ever."""

    def __init__(self, engine: ColdEngine) -> None:
        super().__init__(engine._log)
        self._engine = engine

    def fetch(self, version: Version, keys: Sequence[bytes], **options: Any) -> list[Row | None]:
        self._engine.fetched.append(list(keys))
        self._engine.fail_once()
        return super().fetch(version, keys, **options)

    def log_page(self, after: int, **bounds: Any) -> Any:
        self._engine.pages.append(after)
        self._engine.fail_once()
        return super().log_page(after, **bounds)

    def interrupt(self) -> None:
        self._engine.interrupted.set()


class ColdPlan:
    """A page that needs a reader."""

    in_memory = False

    def __init__(self, inner: Any, engine: ColdEngine) -> None:
        self._inner = inner
        self._engine = engine

    def run(self, reader: Reader | None) -> Page:
        assert reader is not None
        self._engine.fail_once()
        page: Page = self._inner.run(None)
        return page


class ColdEngine(FaultyEngine):
    """Whose every read of the store needs a reader; what other faces keep is in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[list[bytes]] = []
        self.pages: list[int] = []
        self.errors: list[Exception] = []
        self.interrupted = trio.Event()

    def fail_once(self) -> None:
        if self.errors:
            raise self.errors.pop()

    def open_reader(self) -> Reader:
        return ColdReader(self)

    def scan(self, version: Version, start: bytes, end: bytes, **options: Any) -> Any:
        plan = super().scan(version, start, end, **options)
        return ColdPlan(plan, self) if start[0] == Keyspace.STORE else plan

    def chill(self, *keys: bytes) -> None:
        """Let these keys be in the file only."""
        self.cold.update(row_key(0, key) for key in keys)


class SlowHop:
    """A hop whose reads wait for ``go``; commits pass."""

    def __init__(self) -> None:
        self.go = trio.Event()
        self.go.set()
        self.reads = 0

    async def __call__(self, fn: Callable[[], T], /) -> T:
        await trio.lowlevel.checkpoint()
        if isinstance(fn, partial) and fn.func.__module__ == query.__name__:
            self.reads += 1
            with trio.CancelScope(shield=True):
                await self.go.wait()
        return fn()


async def test_gets_that_come_together_become_one_query() -> None:
    engine = ColdEngine()
    async with in_memory(engine)() as platform:
        await put_one_by_one(platform, [b"a", b"b", b"c"])
        engine.chill(b"a", b"b", b"c")
        found: dict[bytes, bytes | None] = {}

        async def get(key: bytes) -> None:
            found[key] = await platform.get(key)

        async with trio.open_nursery() as nursery:
            for key in (b"a", b"b", b"c", b"a"):
                nursery.start_soon(get, key)
        assert found == {key: b"value of " + key for key in (b"a", b"b", b"c")}
        assert [len(keys) for keys in engine.fetched] == [4]


async def test_others_get_their_turn_between_the_keys_of_whoever_wants_many() -> None:
    engine, hop = ColdEngine(), SlowHop()
    keys = [b"%05d" % number for number in range(3 * FETCH_KEYS_MAX)]
    engine.chill(b"one", *keys)
    async with in_memory(engine)(hop=hop) as platform:
        await platform.put_batch([(key, key) for key in (b"one", *keys)])
        hop.go = trio.Event()
        order: list[str] = []

        async def get_many() -> None:
            wanted = [*reversed(keys), *keys]
            assert await platform.get_many(wanted) == [(key, key) for key in wanted]
            order.append("many")

        async def get_one_and_decide() -> None:
            await platform.write(puts=[(b"one", b"")], require={b"one": "present"})
            order.append("one")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(get_many)
            await wait_all_tasks_blocked()
            nursery.start_soon(get_one_and_decide)
            await wait_all_tasks_blocked()
            hop.go.set()
    assert order == ["one", "many"]
    assert [len(part) for part in engine.fetched] == [FETCH_KEYS_MAX, 1, *[FETCH_KEYS_MAX] * 2]


async def test_one_turn_of_the_thread_is_bounded_however_many_come_together() -> None:
    engine, hop = ColdEngine(), SlowHop()
    keys = [b"%05d" % number for number in range(FETCH_KEYS_MAX)]
    engine.chill(*keys)
    async with in_memory(engine)(hop=hop) as platform, trio.open_nursery() as nursery:
        await platform.put_batch([(key, key) for key in keys])
        hop.go = trio.Event()
        for _ in range(20):
            nursery.start_soon(platform.get_many, keys)
        await wait_all_tasks_blocked()
        hop.go.set()
    assert sum(len(part) for part in engine.fetched) == 20 * FETCH_KEYS_MAX
    assert max(len(part) for part in engine.fetched) == TURN_KEYS_MAX


async def test_what_is_in_memory_is_not_asked_for_again() -> None:
    engine = ColdEngine()
    async with in_memory(engine)() as platform:
        await put_one_by_one(platform, [b"a", b"b"])
        engine.chill(b"b")
        pairs = await platform.get_many([b"b", b"a", b"never", b"b"])
        assert pairs == [
            (b"b", b"value of b"),
            (b"a", b"value of a"),
            (b"never", None),
            (b"b", b"value of b"),
        ]
        assert engine.fetched == [[row_key(0, b"b")]]


async def test_pages_and_the_log_are_read_by_the_reader_too() -> None:
    engine = ColdEngine()
    async with in_memory(engine)(limits=Limits(tail_batches_max=1)) as platform:
        await put_one_by_one(platform, [b"a", b"b", b"c"])
        assert [key for key, _ in await platform.range_scan()] == [b"a", b"b", b"c"]
        batch = await platform.get_batch(1)
        assert batch is not None
        assert batch.entries[0].key == b"a"
        assert engine.pages == [0]


async def test_an_error_of_the_reader_fails_those_who_asked_and_nobody_else() -> None:
    engine = ColdEngine()
    async with in_memory(engine)() as platform:
        await put_one_by_one(platform, [b"a"])
        engine.chill(b"a")
        engine.errors.append(OverloadedError("too slow"))
        errors: list[OverloadedError] = []

        async def get() -> None:
            with pytest.raises(OverloadedError) as failed:
                await platform.get(b"a")
            errors.append(failed.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(get)
            nursery.start_soon(get)
        assert len(set(map(id, errors))) == 2
        assert await platform.get(b"a") == b"value of a"
        engine.errors.append(OverloadedError("too slow"))
        with pytest.raises(OverloadedError):
            await platform.range_scan()


async def test_a_file_that_contradicts_itself_is_told_and_stops_the_platform() -> None:
    engine = ColdEngine()
    outcomes: list[type[Exception]] = []
    async with trio.open_nursery() as outside:
        with pytest.raises(CorruptionError):
            async with in_memory(engine)() as platform:
                await put_one_by_one(platform, [b"a"])
                engine.chill(b"a")
                engine.errors.append(CorruptionError("a block lies"))

                async def get() -> None:
                    with pytest.raises(CorruptionError) as failed:
                        await platform.get(b"a")
                    outcomes.append(type(failed.value))

                outside.start_soon(get)
                await trio.sleep_forever()
    assert outcomes == [CorruptionError]


async def test_a_reader_that_crashes_leaves_as_its_own_error_and_nobody_waiting() -> None:
    engine = ColdEngine()
    closed: list[bool] = []
    async with trio.open_nursery() as outside:
        with pytest.raises(Crash):
            async with in_memory(engine)() as platform:
                await put_one_by_one(platform, [b"a"])
                engine.chill(b"a")
                engine.errors.append(Crash())

                async def get() -> None:
                    with pytest.raises(PlatformClosedError):
                        await platform.get(b"a")
                    closed.append(True)

                outside.start_soon(get)
                await trio.sleep_forever()
    assert closed == [True]


async def test_a_query_that_takes_too_long_is_interrupted(autojump_clock: MockClock) -> None:
    engine, hop = ColdEngine(), SlowHop()
    async with in_memory(engine)(hop=hop, limits=Limits(query_seconds_max=7)) as platform:
        await put_one_by_one(platform, [b"a"])
        engine.chill(b"a")
        hop.go = trio.Event()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(platform.get, b"a")
            await engine.interrupted.wait()
            assert trio.current_time() - began == pytest.approx(7)
            hop.go.set()


async def test_a_cancelled_read_leaves_nothing_behind_once_its_thread_is_done(
    autojump_clock: MockClock,
) -> None:
    """Until then its Version is held: blocks removed under the reader look like corruption."""
    engine, hop = ColdEngine(), SlowHop()
    async with in_memory(engine)(hop=hop) as platform:
        await put_one_by_one(platform, [b"a"])
        engine.chill(b"a")
        hop.go = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(platform.get, b"a")
            nursery.start_soon(platform.range_scan)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert engine._pins.frontiers == [1]
        reads = hop.reads
        hop.go.set()
        await wait_all_tasks_blocked()
        assert engine._pins.frontiers == []
        assert hop.reads == reads, "the page that nobody wants any more is not read"
        assert await platform.get(b"a") == b"value of a"


async def test_a_turn_is_bounded_in_bytes_and_those_left_come_first_in_the_next() -> None:
    engine, hop = ColdEngine(), SlowHop()
    keys = [b"a", b"b", b"c", b"d"]
    async with in_memory(engine)(hop=hop, limits=Limits(page_bytes_max=100)) as platform:
        await platform.put_batch([(key, key * 60) for key in keys])
        engine.chill(*keys)
        order: list[bytes] = []

        async def get(key: bytes) -> None:
            assert await platform.get(key) == key * 60
            order.append(key)

        async def leave(scope: trio.CancelScope) -> None:
            with scope:
                await platform.get(b"a")

        hop.go = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(get, b"a")
            await wait_all_tasks_blocked()
            for key in keys[1:]:
                nursery.start_soon(get, key)
                await wait_all_tasks_blocked()
            scope = trio.CancelScope()
            nursery.start_soon(leave, scope)
            await wait_all_tasks_blocked()
            hop.go.set()
            hop.go = trio.Event()
            await wait_all_tasks_blocked()
            scope.cancel()
            await wait_all_tasks_blocked()
            hop.go.set()
        asked = [[key[1:] for key in part] for part in engine.fetched]
        assert asked == [[b"a"], [b"b", b"c", b"d", b"a"], [b"d"]]
        assert sorted(order) == keys
        assert not engine._pins.frontiers


async def test_a_look_up_of_too_many_bytes_stops_before_it_has_loaded_them() -> None:
    engine = ColdEngine()
    limits = Limits(page_bytes_max=100, get_many_bytes_max=500)
    async with in_memory(engine)(limits=limits) as platform:
        keys = [b"%02d" % number for number in range(40)]
        await platform.put_batch([(key, b"v" * 100) for key in keys])
        await platform.put_batch([(b"large", b"v" * 501)])
        for _ in ("from memory", "from the file"):
            engine.fetched.clear()
            with pytest.raises(LimitExceededError, match="get_many_bytes_max is 500"):
                await platform.get_many(keys)
            assert len(await platform.get_many([*keys[:5], *keys[:5], b"never"])) == 11
            assert await platform.get_many([b"large", b"large"]) == [(b"large", b"v" * 501)] * 2
            assert await platform.get(b"large") == b"v" * 501
            with pytest.raises(LimitExceededError):
                await platform.get_many([b"large", b"00"])
            engine.chill(b"large", *keys)
        assert len(engine.fetched) < 20
