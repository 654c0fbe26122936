"""Seal and pause of the canonical store: nothing commits after either has returned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream.canonical.changes import Changes
from exo_stream.canonical.record import NO_RECORD, RECORD_KEY, read_record
from exo_stream.canonical.store import CanonicalStore
from exo_stream.errors import CorruptionError, ExoStreamError, PausedError, SealedError
from exo_stream.model import Keyspace, Row
from tests.worlds import GatedHop, in_memory, on_file


async def append(canonical: CanonicalStore, count: int = 1) -> None:
    await canonical.submit(Changes(events=[b"e"] * count))


async def nothing(_transaction: object) -> None:
    await trio.lowlevel.checkpoint()


async def test_ac1_a_seal_is_at_the_last_event_and_refuses_every_write() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await append(canonical, 2)
        assert await canonical.seal() == 1
        assert (await canonical.meta()).sealed_event_id == 1
        batch = canonical.batch()
        batch.put(b"k", b"v")
        writes: list[Callable[[], Awaitable[object]]] = [
            lambda: canonical.submit(Changes([(b"k", b"v")])),
            lambda: canonical.submit(Changes()),
            batch.commit,
            lambda: canonical.submit_write(nothing),
        ]
        for write in writes:
            with pytest.raises(SealedError) as caught:
                await write()
            assert caught.value.sealed_event_id == 1
        assert await canonical.seal() == 1, "again"
        assert [event async for event in await canonical.iter_events()] == [(0, b"e"), (1, b"e")]
        await platform.put_batch([(b"k", b"v")])
        await canonical.unseal()
        await canonical.unseal()
        await append(canonical)
        assert (await canonical.meta()).sealed_event_id is None


async def test_an_empty_log_seals_to_0_without_sealing() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        assert await canonical.seal() == 0
        await canonical.submit(Changes([(b"k", b"v")]))
        assert await canonical.seal() == 0
        assert (await canonical.meta()).sealed_event_id is None
        await append(canonical)


async def test_x7_nothing_commits_after_seal_has_returned() -> None:
    """Writers wait for the slot, wait with the one writer, and sit in open transactions: the
    original lets those through that have passed its check.
    """
    hop = GatedHop()
    async with in_memory()(hop=hop) as platform:
        canonical = platform.canonical
        refused, done = 0, 0

        async def write(*, slot: bool) -> None:
            nonlocal refused, done
            try:
                if slot:
                    async with canonical.write_txn() as txn:
                        await txn.append_event(b"e")
                        await trio.lowlevel.checkpoint()
                        await txn.commit()
                else:
                    await append(canonical)
            except SealedError:
                refused += 1
            else:
                done += 1

        hop.gate.set()
        await append(canonical)
        hop.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(partial(write, slot=number % 2 == 0))
            await wait_all_tasks_blocked()
            sealed: list[int] = []

            async def seal() -> None:
                sealed.append(await canonical.seal())
                sealed.append((await canonical.meta()).next_event_id)

            nursery.start_soon(seal)
            await wait_all_tasks_blocked()
            for number in range(20):
                nursery.start_soon(partial(write, slot=number % 2 == 0))
            await wait_all_tasks_blocked()
            hop.gate.set()
        assert (await canonical.meta()).next_event_id == sealed[0] + 1 == sealed[1] == done + 1
        assert done + refused == 40
        assert 0 < done < 40


async def test_x7_an_open_transaction_is_refused_at_its_commit() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await append(canonical)
        async with canonical.write_txn() as txn:
            txn.put_state(b"k", b"v")
            await canonical.seal()
            with pytest.raises(SealedError):
                await txn.commit()
        async with canonical.read_txn() as snapshot:
            assert await snapshot.get_state(b"k") is None


async def test_a_seal_survives_a_restart(tmp_path: Path) -> None:
    async with on_file(tmp_path / "file")() as platform:
        await append(platform.canonical, 3)
        await platform.canonical.seal()
    async with on_file(tmp_path / "file")() as platform:
        with pytest.raises(SealedError):
            await append(platform.canonical)
        await platform.canonical.open()
        assert (await platform.canonical.meta()).sealed_event_id == 2


async def test_ac1_a_paused_store_refuses_and_goes_on_when_it_is_resumed() -> None:
    async with in_memory()() as platform:
        canonical = platform.canonical
        await canonical.pause_ingestion()
        await canonical.pause_ingestion()
        assert canonical.is_paused()
        with pytest.raises(PausedError):
            await append(canonical)
        with pytest.raises(PausedError):
            await canonical.transaction().execute(nothing)
        assert await canonical.seal() == 0, "a barrier for a backup may be set meanwhile"
        with pytest.raises(PausedError):
            await canonical.open()
        canonical.resume_ingestion()
        assert canonical.is_paused()
        canonical.resume_ingestion()
        canonical.resume_ingestion()
        await append(canonical)


async def test_ac2_a_pause_waits_for_an_open_transaction(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        canonical = platform.canonical
        order: list[str] = []

        async def write(task_status: trio.TaskStatus[None]) -> None:
            async with canonical.write_txn() as txn:
                task_status.started()
                await trio.sleep(0.1)
                await txn.append_event(b"e")
                await txn.commit()
            order.append("committed")

        await nursery.start(write)
        await canonical.pause_ingestion()
        order.append("paused")
        assert order == ["committed", "paused"]
        assert (await canonical.meta()).next_event_id == 1


async def test_x8_a_pause_that_waits_in_vain_undoes_itself(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        for paused in (platform, platform.canonical):
            async with platform.canonical.write_txn() as txn:
                with pytest.raises(trio.TooSlowError), trio.fail_after(30):
                    await paused.pause_ingestion()
                assert not platform.canonical.is_paused()
                await txn.append_event(b"e")
                await txn.commit()

            async def hold(task_status: trio.TaskStatus[None]) -> None:
                async with platform.canonical.write_txn():
                    task_status.started()
                    await trio.sleep(20)

            await nursery.start(hold)
            with trio.move_on_after(1):
                await paused.pause_ingestion()
            await platform.canonical.submit(Changes([(b"k", b"v")]))


async def test_close_waits_for_who_is_inside_and_lets_nobody_in(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, trio.open_nursery() as nursery:
        canonical = platform.canonical

        async def write(task_status: trio.TaskStatus[None]) -> None:
            async with canonical.write_txn() as txn:
                task_status.started()
                await trio.sleep(5)
                await txn.append_event(b"e")
                await txn.commit()

        await nursery.start(write)
        began = trio.current_time()
        await canonical.close()
        assert trio.current_time() - began == pytest.approx(5)
        with pytest.raises(ExoStreamError, match="closed"):
            await append(canonical)
        await canonical.open()
        assert (await canonical.meta()).next_event_id == 1


def test_a_record_that_is_damaged_is_told() -> None:
    assert read_record(None) == NO_RECORD
    for value in (b"", b"\x01" + bytes(3), b"\x02" + bytes(36)):
        with pytest.raises(CorruptionError):
            read_record(Row(bytes([Keyspace.CANONICAL]) + RECORD_KEY, 1, value))
