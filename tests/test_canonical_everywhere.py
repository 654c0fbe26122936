"""Transactions by the same verbs, whether a program holds the platform or a client of it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from exo_stream.canonical.changes import CommitInfo
from exo_stream.errors import (
    BatchEvictedError,
    CursorAheadError,
    InvalidRequestError,
    InvalidStateError,
    KeyTooLargeError,
    PausedError,
    SealedError,
    TransactionConflictError,
    ValueTooLargeError,
)
from exo_stream.limits import MIB
from exo_stream.model import Batch
from tests.handles import Handle, both_handles

handle = both_handles()


async def settled(value: Any) -> Any:
    """What a verb answers: from afar each of them has to be awaited."""
    return await value if hasattr(value, "__await__") else value


async def write(handle: Handle, *, events: tuple[bytes, ...] = (), **puts: bytes) -> CommitInfo:
    async with handle.canonical.write_txn() as txn:
        for key, value in puts.items():
            txn.put_state(key.encode(), value)
        if events:
            await txn.append_events(events)
        return await txn.commit()


async def pairs_of(found: Any) -> list[Any]:
    async with found:
        return [pair async for pair in found]


async def test_state_and_events_change_together_and_are_counted(handle: Handle) -> None:
    async with handle.canonical.write_txn() as txn:
        assert await txn.get_state(b"a") is None
        txn.put_state(b"a", b"1")
        txn.put_state(b"a", b"2")
        txn.del_state(b"never")
        assert await txn.get_state(b"a") == b"2"
        assert await txn.exists(b"a")
        assert await txn.append_event(b"zero") == 0
        assert await txn.append_events([b"one", b""]) == (1, 2)
        info = await txn.commit()

    assert info == CommitInfo(3, 0, 2, 2, 0, 0, 1)
    async with handle.canonical.write_txn() as txn:
        txn.del_state(b"a")
        assert await txn.get_state(b"a") is None
        assert not await txn.exists(b"a")
        assert await txn.commit() == CommitInfo(0, None, None, 0, 1, 0, 2)
    async with handle.canonical.write_txn() as txn:
        assert await txn.commit() == CommitInfo(0, None, None, 0, 0, 0, 2)
    assert [e async for e in await handle.canonical.iter_events()] == [
        (0, b"zero"),
        (1, b"one"),
        (2, b""),
    ]
    meta = await handle.canonical.meta()
    assert (meta.next_event_id, meta.sealed_event_id, meta.sequence) == (3, None, 2)
    assert meta.created_at is not None
    assert meta.created_at.endswith("Z")


async def test_what_is_not_committed_never_was(handle: Handle) -> None:
    canonical = handle.canonical
    async with canonical.write_txn() as txn:
        txn.put_state(b"a", b"1")
        assert await txn.append_event(b"gone") == 0
    async with canonical.write_txn() as txn:
        txn.put_state(b"a", b"1")
        txn.abort()
    with pytest.raises(ZeroDivisionError):
        async with canonical.write_txn() as txn:
            txn.put_state(b"a", b"1")
            raise ZeroDivisionError
    assert await pairs_of(canonical.range()) == []
    assert (await write(handle, events=(b"first",))).first_event_id == 0


async def test_a_finished_transaction_is_over(handle: Handle) -> None:
    async with handle.canonical.write_txn() as txn:
        pairs = await txn.iter_state()
        await txn.commit()
        for use in (txn.abort, txn.commit, txn.preflight, txn.iter_state):
            with pytest.raises(InvalidStateError):
                await settled(use())
        with pytest.raises(InvalidStateError):
            txn.put_state(b"a", b"1")
        with pytest.raises(InvalidStateError):
            await txn.append_event(b"e")
        with pytest.raises(InvalidStateError):
            await txn.get_state(b"a")
        with pytest.raises(InvalidStateError):
            await pairs.next()
    with pytest.raises(InvalidStateError):
        async with txn:
            pass
    async with handle.canonical.read_txn() as snapshot:
        rows = snapshot.range()
    with pytest.raises(InvalidStateError):
        await snapshot.get_state(b"a")
    with pytest.raises(InvalidStateError):
        await rows.next()


async def test_bounds_hold_at_the_call_and_change_nothing(handle: Handle) -> None:
    async with handle.canonical.write_txn() as txn:
        for key, error in ((b"", InvalidRequestError), (b"k" * 512, KeyTooLargeError)):
            with pytest.raises(error):
                txn.put_state(key, b"v")
            with pytest.raises(error):
                txn.del_state(key)
            with pytest.raises(error):
                await txn.get_state(key)
        with pytest.raises(ValueTooLargeError) as caught:
            txn.put_state(b"k", b"v" * (16 * MIB + 1))
        assert (caught.value.size, caught.value.max) == (16 * MIB + 1, 16 * MIB)
        with pytest.raises(ValueTooLargeError):
            await txn.append_event(b"e" * (4 * MIB + 1))
        with pytest.raises(InvalidStateError):
            await txn.append_events([])
        txn.put_state(b"k" * 511, b"v")
        assert await txn.append_event(b"e") == 0
        assert (await txn.commit()).events_written == 1


async def test_a_snapshot_shows_one_moment(handle: Handle) -> None:
    await write(handle, a=b"1", events=(b"zero",))
    async with handle.canonical.read_txn() as snapshot:
        await write(handle, a=b"2", b=b"2", events=(b"one",))
        assert snapshot.sequence == 1
        assert await snapshot.get_state(b"a") == b"1"
        assert not await snapshot.exists(b"b")
        assert await snapshot.next_event_id() == 1
        assert await pairs_of(snapshot.range()) == [(b"a", b"1")]
        assert await pairs_of(snapshot.scan_prefix(b"a")) == [(b"a", b"1")]
        assert [e async for e in await snapshot.iter_events()] == [(0, b"zero")]
        assert [e async for e in await snapshot.iter_events(0, 9)] == [(0, b"zero")]
    async with handle.canonical.read_txn() as snapshot:
        assert await snapshot.get_state(b"a") == b"2"


async def test_ranges_and_prefixes(handle: Handle) -> None:
    canonical = handle.canonical
    async with canonical.write_txn() as txn:
        for key in (b"a", b"ab", b"b", b"b\xff", b"b\xff\xff", b"c"):
            txn.put_state(key, b"v" + key)
        await txn.commit()

    async def keys(found: Any) -> list[bytes]:
        return [key async for key in found.keys_only()]

    assert await keys(canonical.range()) == [b"a", b"ab", b"b", b"b\xff", b"b\xff\xff", b"c"]
    assert await keys(canonical.range(b"ab", b"b\xff")) == [b"ab", b"b"]
    assert await keys(canonical.range(b"b", b"b")) == []
    assert await keys(canonical.range(b"z", b"b")) == []
    assert await keys(canonical.range(reverse=True, limit=2)) == [b"c", b"b\xff\xff"]
    assert await keys(canonical.range(b"b", limit=0)) == []
    assert await keys(canonical.range(b"b", limit=1)) == [b"b"]
    assert await keys(canonical.scan_prefix(b"b\xff")) == [b"b\xff", b"b\xff\xff"]
    assert await keys(canonical.scan_prefix(b"\xff")) == []
    assert await pairs_of(canonical.range(b"c")) == [(b"c", b"vc")]
    for bad in ({"start": "a"}, {"limit": -1}, {"end": 3}):
        with pytest.raises(InvalidRequestError):
            canonical.range(**bad)
    with pytest.raises(InvalidRequestError):
        canonical.scan_prefix("a")  # type: ignore[arg-type]  # what is refused


async def test_a_transaction_sees_the_whole_state_with_its_own_writes(handle: Handle) -> None:
    await write(handle, a=b"1", b=b"1", c=b"1")
    async with handle.canonical.write_txn() as txn:
        txn.put_state(b"bb", b"own")
        txn.del_state(b"a")
        pairs = await txn.iter_state()
        txn.put_state(b"d", b"later")
        assert [p async for p in pairs] == [(b"b", b"1"), (b"bb", b"own"), (b"c", b"1")]
        await txn.commit()
    async with handle.canonical.read_txn() as snapshot:
        keys = [key async for key in snapshot.range().keys_only()]
    assert keys == [b"b", b"bb", b"c", b"d"]


@pytest.mark.slow
async def test_events_are_read_from_any_id_and_followed(handle: Handle) -> None:
    canonical = handle.canonical
    await write(handle, events=tuple(b"%d" % n for n in range(10)))
    assert [n async for n, _ in await canonical.iter_events(7)] == [7, 8, 9]
    assert [n async for n, _ in await canonical.iter_events(3, 5)] == [3, 4]
    assert [n async for n, _ in await canonical.iter_events(5, 3)] == []
    assert [n async for n, _ in await canonical.iter_events(99)] == []
    events = await canonical.iter_events(2)
    assert await events.next_batch(3) == [(2, b"2"), (3, b"3"), (4, b"4")]
    assert events.next_event_id == 5
    with pytest.raises(InvalidRequestError):
        await events.next_batch(0)
    with pytest.raises(InvalidRequestError):
        await canonical.iter_events(-1)
    found: list[int] = []
    async with trio.open_nursery() as nursery:

        async def follow() -> None:
            async for number, _ in await canonical.iter_events(8, 14, follow=True):
                found.append(number)

        nursery.start_soon(follow)
        for number in range(10, 14):
            await trio.sleep(1)
            await write(handle, events=(b"%d" % number,))
    assert found == [8, 9, 10, 11, 12, 13]
    last = await canonical.iter_events(14)
    assert await last.next() is None
    assert await last.next_batch(1) == []


async def test_a_seal_refuses_everything_until_it_is_lifted(handle: Handle) -> None:
    canonical = handle.canonical
    assert await canonical.seal() == 0
    await write(handle, a=b"1", events=(b"zero", b"one"))
    assert await canonical.seal() == 1
    assert await canonical.seal() == 1
    with pytest.raises(SealedError) as caught:
        await write(handle, a=b"2")
    assert caught.value.sealed_event_id == 1
    with pytest.raises(SealedError):
        await canonical.submit_write(put)
    assert (await canonical.meta()).sealed_event_id == 1
    await read_everything(handle)
    await canonical.unseal()
    await write(handle, a=b"2")
    async with canonical.read_txn() as txn:
        assert await txn.get_state(b"a") == b"2"


async def read_everything(handle: Handle) -> None:
    """Every way to read, none of which waits for anybody or is refused."""
    async with handle.canonical.read_txn() as snapshot:
        assert await snapshot.get_state(b"a") == b"1"
        assert await pairs_of(snapshot.range()) == [(b"a", b"1")]
        assert [e async for e in await snapshot.iter_events()] == [(0, b"zero"), (1, b"one")]
    assert await pairs_of(handle.canonical.scan_prefix(b"a")) == [(b"a", b"1")]
    assert (await handle.canonical.meta()).next_event_id == 2


async def put(txn: Any) -> None:
    """A body of a transaction."""
    await trio.lowlevel.checkpoint()
    txn.put_state(b"put", b"1")


async def test_pauses_nest_and_refuse_transactions_only(handle: Handle) -> None:
    canonical = handle.canonical
    assert not await settled(canonical.is_paused())
    await write(handle, a=b"1", events=(b"zero", b"one"))
    await canonical.pause_ingestion()
    await canonical.pause_ingestion()
    await read_everything(handle)
    await settled(canonical.resume_ingestion())
    assert await settled(canonical.is_paused())
    with pytest.raises(PausedError):
        await write(handle, a=b"1")
    await handle.put_batch([(b"k", b"v")])
    await settled(canonical.resume_ingestion())
    await settled(canonical.resume_ingestion())
    assert not await settled(canonical.is_paused())
    await write(handle, a=b"1")


async def test_a_preflight_tells_what_has_changed(handle: Handle) -> None:
    await write(handle, a=b"1", b=b"1")
    async with handle.canonical.write_txn() as txn:
        await txn.get_state(b"a")
        txn.put_state(b"c", b"1")
        assert (await txn.preflight()).valid
        batch = handle.canonical.batch()
        batch.put(b"a", b"2")
        await batch.commit()
        result = await txn.preflight()
        assert not result.valid
        assert (result.read_keys, result.write_keys) == ((b"a",), (b"c",))
        with pytest.raises(TransactionConflictError) as caught:
            await txn.commit()
        assert caught.value.key == b"a"
        assert caught.value.retryable


async def test_a_batch_is_collected_at_leisure_and_committed_once(handle: Handle) -> None:
    await write(handle, gone=b"1")
    batch = handle.canonical.batch()
    assert batch.is_empty
    batch.put(b"a", b"1")
    batch.delete(b"gone")
    batch.append_event(b"zero")
    assert (len(batch), batch.is_empty) == (3, False)
    assert await batch.commit() == CommitInfo(1, 0, 0, 1, 1, 0, 2)
    with pytest.raises(InvalidStateError):
        await batch.commit()
    with pytest.raises(InvalidStateError):
        batch.put(b"a", b"2")


async def test_events_are_a_feed_by_cursor_or_from_an_id(handle: Handle) -> None:
    await handle.put_batch([(b"k", b"v")])
    await write(handle, a=b"1", events=(b"zero", b"one"))
    await write(handle, a=b"2")
    await write(handle, events=(b"two",))

    async def first(**options: Any) -> tuple[int, list[tuple[int, bytes | None]], str]:
        async with handle.subscribe(**options) as feed:
            async for batch in feed:
                assert isinstance(batch, Batch)
                found = [(int.from_bytes(e.key, "big"), e.value) for e in batch.entries]
                return batch.sequence, found, str(batch.cursor)
        raise AssertionError

    sequence, found, cursor = await first(events=True)
    assert (sequence, found) == (2, [(0, b"zero"), (1, b"one")])
    assert (await first(events=True, after=cursor))[:2] == (4, [(2, b"two")])
    assert (await first(from_event=1))[0] == 2
    assert (await first(from_event=2))[0] == 4
    with pytest.raises(CursorAheadError):
        await first(from_event=4)
    async with handle.subscribe(from_event=3) as feed:
        await write(handle, events=(b"three",))
        batch = await anext(feed)
        assert isinstance(batch, Batch)
        assert batch.sequence == 5
    with pytest.raises(InvalidRequestError):
        handle.subscribe(events=True, prefix=b"p")
    await handle.prune_batch_log(5)
    with pytest.raises(BatchEvictedError):
        await first(from_event=2)
    assert (await first(from_event=3))[0] == 5
