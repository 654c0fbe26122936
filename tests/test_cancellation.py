"""Cancelled at every single step: what was written is there once, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import pytest
import trio
from trio.testing import MockClock

from exo_stream import Platform, Producer
from exo_stream.errors import PlatformClosedError
from exo_stream.limits import Limits
from exo_stream.model import Batch, row_key
from exo_stream.testing import FakeClock
from exo_stream.writes import checked_write
from tests.worlds import FaultyEngine, in_memory, put_one_by_one

TIGHT: Final = Limits(waiting_writes_max=2, group_batches_max=3, page_rows_max=2)
"""So that callers wait at the door, and groups and pages are several."""

STEPS_MAX: Final = 600


class CancelAt(trio.abc.Instrument):
    """Cancels ``scope`` just before the so-many-th step of any task once it is ``armed``."""

    def __init__(self, step: int) -> None:
        self.scope = trio.CancelScope()
        self.armed = False
        self._left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002  trio's signature
        if self.armed:
            self._left -= 1
            if self._left == 0:
                self.scope.cancel()


def sweep(live: Callable[[CancelAt], Awaitable[None]]) -> int:
    """Live once for every step there is; answer how many there were."""
    for step in range(1, STEPS_MAX):
        cancel = CancelAt(step)
        clock = MockClock(autojump_threshold=0)
        trio.run(live, cancel, clock=clock, instruments=[cancel])
        if not cancel.scope.cancel_called:
            return step
    raise AssertionError("it never ends")


async def write_numbered(platform: Platform, name: bytes, seq: int) -> int:
    return await platform.write(
        puts=[(name, b"%d" % seq)], deletes=[b"x"], producer=Producer(name, 0, seq)
    )


async def log_of(platform: Platform) -> list[tuple[bytes, bytes | None]]:
    """What each batch of the log put first, from the oldest to the newest."""
    found = []
    for sequence in range(1, await platform.current_sequence() + 1):
        batch = await platform.get_batch(sequence)
        assert batch is not None, sequence
        found.append((batch.entries[0].key, batch.entries[0].value))
    return found


NAMES: Final = (b"victim", b"one", b"other")
WRITES: Final = 4


@pytest.mark.slow
def test_a_cancelled_write_took_effect_or_did_not_and_a_retry_tells_which() -> None:
    async def live(cancel: CancelAt) -> None:
        engine = FaultyEngine()
        async with in_memory(engine)(limits=TIGHT) as platform, trio.open_nursery() as nursery:
            seen: list[int] = []

            async def follow() -> None:
                async with platform.subscribe() as feed:
                    async for batch in feed:
                        seen.append(batch.sequence)

            async def write(name: bytes) -> None:
                for seq in range(WRITES):
                    await write_numbered(platform, name, seq)

            async def write_until_cancelled() -> None:
                with cancel.scope:
                    cancel.armed = True
                    await write(b"victim")
                cancel.armed = False
                numbers = [await write_numbered(platform, b"victim", s) for s in range(WRITES)]
                assert numbers == sorted(set(numbers))

            nursery.start_soon(follow)
            async with trio.open_nursery() as writers:
                writers.start_soon(write_until_cancelled)
                for name in NAMES[1:]:
                    writers.start_soon(write, name)
            log = await log_of(platform)
            for name in NAMES:
                values = [value for key, value in log if key == name]
                assert values == [b"%d" % seq for seq in range(WRITES)], "once each, in order"
            assert len(log) == len(NAMES) * WRITES
            await trio.sleep(1)
            assert seen == list(range(1, len(log) + 1))
            assert len(platform._ground.writes) == 0
            assert platform._ground.writes._waiting_bytes == 0
            assert platform._ground.writes._at_the_door == 0
            nursery.cancel_scope.cancel()

    assert sweep(live) > 20


@pytest.mark.slow
def test_many_writes_of_one_cancelled_call_happen_each_or_not() -> None:
    async def live(cancel: CancelAt) -> None:
        async with in_memory()(limits=TIGHT) as platform:
            writes = [
                checked_write(TIGHT, puts=[(b"k", b"%d" % seq)], producer=Producer(b"p", 0, seq))
                for seq in range(6)
            ]
            with cancel.scope:
                cancel.armed = True
                await platform.write_many(writes)
            cancel.armed = False
            outcomes = await platform.write_many(writes)
            assert sorted(outcome.unwrap() for outcome in outcomes) == list(range(1, 7))
            log = await log_of(platform)
            assert sorted(log) == [(b"k", b"%d" % seq) for seq in range(6)]

    assert sweep(live) > 10


@pytest.mark.slow
def test_a_cancelled_read_leaves_nothing_behind() -> None:
    async def read_everything(platform: Platform) -> None:
        await platform.get_many([b"a", b"b", b"a"])
        await platform.range_scan(limit=5)
        async with platform.scan() as scan:
            assert len([pair async for pair in scan]) == 5
        await platform.get_batch(2)
        async with platform.subscribe(prefix=b"a", snapshot=True) as feed:
            async for message in feed:
                if isinstance(message, Batch):
                    break
        with trio.move_on_after(30):
            await platform.get(b"a", min_sequence=99)

    async def live(cancel: CancelAt) -> None:
        engine = FaultyEngine()
        async with in_memory(engine)(limits=TIGHT) as platform, trio.open_nursery() as nursery:
            await put_one_by_one(platform, [b"a", b"b", b"c", b"d", b"e"])
            engine.cold.update({row_key(0, b"a"), row_key(0, b"b")})
            nursery.start_soon(write_later, platform)
            with cancel.scope:
                cancel.armed = True
                await read_everything(platform)
            cancel.armed = False
            await trio.sleep(60)
            sources = platform.sources
            assert engine._pins.frontiers == []
            assert sources.snapshots.floors() == []
            assert len(sources.interest) == 0
            assert sources.frontier._waiting == []

    async def write_later(platform: Platform) -> None:
        await trio.sleep(10)
        await put_one_by_one(platform, [b"a"])

    assert sweep(live) > 20


@pytest.mark.slow
def test_a_platform_cancelled_at_any_step_answers_everybody_and_keeps_what_it_acknowledged() -> (
    None
):
    async def live(cancel: CancelAt) -> None:
        engine = FaultyEngine()
        clock = FakeClock()
        acknowledged: dict[tuple[bytes, int], int] = {}

        async def write(platform: Platform, name: bytes) -> None:
            for seq in range(WRITES):
                try:
                    number = await write_numbered(platform, name, seq)
                except PlatformClosedError:
                    return
                acknowledged[name, seq] = number

        async with trio.open_nursery() as outside:
            with cancel.scope:
                async with in_memory(engine)(limits=TIGHT, clock=clock) as platform:
                    cancel.armed = True
                    for name in NAMES:
                        outside.start_soon(write, platform, name)  # noqa: ASYNC111  they outlive the platform
                    await trio.sleep(5)
        cancel.armed = False
        assert engine.version.frontier == engine._log.newest, "what is durable was shown"
        async with in_memory(engine)(limits=TIGHT, clock=clock) as platform:
            for (name, seq), number in acknowledged.items():
                assert await write_numbered(platform, name, seq) == number
            for name in NAMES:
                for seq in range(WRITES):
                    await write_numbered(platform, name, seq)
            log = await log_of(platform)
        assert sorted(log) == sorted((name, b"%d" % s) for name in NAMES for s in range(WRITES))

    assert sweep(live) > 20
