"""A pause: who is in is waited for, who comes is refused, and who gives up has paused nobody."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream import Producer
from exo_stream.errors import PausedError, StoreError
from exo_stream.limits import Limits
from exo_stream.pause import Pause
from exo_stream.policies.policy import DropAll, Policy, SequenceScope
from exo_stream.storage.engine import Retention
from exo_stream.testing import FakeClock
from tests.worlds import FaultyEngine, GatedHop, OneJob, in_memory


async def nothing() -> None:
    await trio.lowlevel.checkpoint()


async def test_pauses_nest_and_one_resume_too_many_does_nothing() -> None:
    pause = Pause()
    await pause.pause(nothing)
    await pause.pause(nothing)
    pause.resume()
    assert pause.is_paused
    pause.resume()
    assert not pause.is_paused
    pause.resume()
    await pause.pause(nothing)
    assert pause.is_paused
    with pytest.raises(PausedError):
        pause.enter()


async def test_two_pauses_wait_for_the_same_writer() -> None:
    pause = Pause()
    pause.enter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pause.pause, nothing)
        nursery.start_soon(pause.pause, nothing)
        await wait_all_tasks_blocked()
        assert pause.is_paused
        pause.leave()
    pause.resume()
    assert pause.is_paused
    pause.resume()
    assert not pause.is_paused


async def test_a_resume_while_a_pause_is_still_waiting_leaves_that_one_alone() -> None:
    pause = Pause()
    pause.enter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pause.pause, nothing)
        await wait_all_tasks_blocked()
        pause.resume()
        with pytest.raises(PausedError):
            pause.check()
        pause.leave()
    assert pause.is_paused


async def test_x8_a_pause_that_is_cancelled_or_fails_is_undone(autojump_clock: MockClock) -> None:
    """In the original the flag stays, and every later write is refused for good."""
    pause = Pause()
    pause.enter()
    with pytest.raises(trio.TooSlowError), trio.fail_after(30):
        await pause.pause(nothing)
    assert not pause.is_paused
    pause.leave()
    pause.enter()
    pause.leave()

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise StoreError("no")

    with pytest.raises(StoreError):
        await pause.pause(fail)
    assert not pause.is_paused


async def test_an_inner_pause_holds_back_its_own_and_the_outer_waits_for_all() -> None:
    outer = Pause()
    inner, other = Pause(outer), Pause(outer)
    await inner.pause(nothing)
    with pytest.raises(PausedError):
        inner.enter()
    other.enter()
    inner.resume()
    inner.enter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outer.pause, nothing)
        await wait_all_tasks_blocked()
        for pause in (outer, inner, other):
            assert pause.is_paused
            with pytest.raises(PausedError):
                pause.enter()
        assert (outer.writing, inner.writing) == (2, 1)
        inner.leave()
        await wait_all_tasks_blocked()
        assert outer.writing == 1
        other.leave()
    outer.resume()
    inner.check()


async def test_a_paused_platform_refuses_the_writes_of_every_face_at_once() -> None:
    async with in_memory()() as platform:
        await platform.put_batch([(b"k", b"v")])
        await platform.pause_ingestion()
        assert platform.is_paused()
        canonical = platform.canonical
        assert canonical.is_paused()
        with pytest.raises(PausedError):
            await platform.put_batch([(b"k", b"w")])
        with pytest.raises(PausedError):
            await platform.write(deletes=[b"k"], producer=Producer(b"p", 0, 0))
        with pytest.raises(PausedError):
            await platform.prune_batch_log(2)
        with pytest.raises(PausedError):
            await platform.prune([Policy(SequenceScope(), DropAll())])
        with pytest.raises(PausedError):
            await platform.streams.create_stream("s")
        with pytest.raises(PausedError):
            async with canonical.write_txn():
                pass
        with pytest.raises(PausedError):
            await canonical.batch().commit()
        assert await platform.get(b"k") == b"v", "reads go on"
        platform.resume_ingestion()
        assert not platform.is_paused()
        await platform.put_batch([(b"k", b"w")])


async def test_a_paused_store_leaves_the_other_faces_alone() -> None:
    async with in_memory()() as platform:
        await platform.canonical.pause_ingestion()
        await platform.put_batch([(b"k", b"v")])
        assert not platform.is_paused()
        with pytest.raises(PausedError):
            async with platform.canonical.write_txn():
                pass


async def test_a_pause_waits_for_a_write_whose_caller_gave_up() -> None:
    """It was taken up already: it would become visible after the pause had returned."""
    hop = GatedHop()
    async with in_memory()(hop=hop) as platform, trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as doomed:
                doomed.start_soon(platform.put_batch, [(b"k", b"v")])
                await hop.arrived.wait()
                scope.cancel()
        paused = trio.Event()

        async def pause() -> None:
            await platform.pause_ingestion()
            paused.set()

        nursery.start_soon(pause)
        await wait_all_tasks_blocked()
        assert not paused.is_set()
        hop.gate.set()
        await paused.wait()
        assert await platform.get(b"k") == b"v"


@pytest.mark.slow
async def test_retention_and_expiry_wait_for_the_end_of_a_pause(autojump_clock: MockClock) -> None:
    clock = FakeClock()
    engine = FaultyEngine()
    limits = Limits(producer_idle_seconds=10)
    open_platform = in_memory(engine)
    options = {"limits": limits, "clock": clock, "retention": Retention(seconds_max=60)}
    async with open_platform(**options) as platform:
        for seq in range(5):
            await platform.write(puts=[(b"k", b"%d" % seq)], producer=Producer(b"p", 0, seq))
        await platform.pause_ingestion()
        clock.advance(3_600)
        await trio.sleep(3_600)
        assert (engine.version.frontier, engine.version.floor) == (5, 1)
        platform.resume_ingestion()
        await trio.sleep(30)
        assert engine.version.frontier == 6, "the producer's record is gone"
        assert engine.version.floor > 5


async def test_what_writes_nothing_new_goes_on_in_a_pause(autojump_clock: MockClock) -> None:
    """Folds, merges and checkpoints, which are jobs; a prune is asked for, and must wait."""
    engine, done = FaultyEngine(), list[str]()
    async with in_memory(engine)() as platform:
        await platform.put_batch([(b"k", b"v")])
        await platform.pause_ingestion()
        engine.jobs.append(OneJob(install=lambda: done.append("a fold")))
        await trio.sleep(5)
        assert done == ["a fold"]
        with pytest.raises(PausedError):
            await platform.prune_batch_log(2)
        assert await platform.oldest_retained_batch() == 1
