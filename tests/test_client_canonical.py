"""A client's transactions when connections are lost, others write, and servers say odd things."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from exo_stream.canonical.changes import CommitInfo
from exo_stream.client import Client
from exo_stream.errors import (
    ExoStreamError,
    InvalidRequestError,
    InvalidStateError,
    KeyTooLargeError,
    LimitExceededError,
    OutcomeUnknownError,
    PausedError,
    SnapshotExpiredError,
    TransactionConflictError,
    UnavailableError,
    ValueTooLargeError,
)
from exo_stream.limits import MIB, Limits
from exo_stream.model import SEQUENCE_MAX
from exo_stream.producers import Producer
from exo_stream.protocol import canonical_messages as c
from exo_stream.protocol import messages as m
from exo_stream.testing import connected
from tests import wire
from tests.network import Network, connected_over, networked, puppets
from tests.transactions import all_events, state
from tests.worlds import GatedHop, in_memory

ACCOUNTS = 6
EACH = 100


async def test_a_commit_whose_answer_is_lost_takes_effect_once(
    autojump_clock: MockClock,
) -> None:
    hop = GatedHop()
    hop.gate.set()
    async with in_memory()(hop=hop) as platform, networked(platform) as network:
        async with connected_over(network) as client:
            told: list[CommitInfo] = []

            async def body(txn: Any) -> None:
                count = int(await txn.get_state(b"count") or b"0")
                txn.put_state(b"count", b"%d" % (count + 1))
                txn.put_state(b"gone", b"")
                txn.del_state(b"gone")
                txn.log_bytes(b"counted")

            async def commit() -> None:
                told.append(await client.canonical.submit_write(body))

            await client.canonical.submit_write(body)
            hop.gate, hop.arrived = trio.Event(), trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(commit)
                await hop.arrived.wait()
                await network.cut()
                await trio.testing.wait_all_tasks_blocked()
                hop.gate.set()
            assert told == [CommitInfo(1, 1, 1, 2, 1, 0, 2)]
        assert await state(platform.canonical) == {b"count": b"2"}
        assert await all_events(platform.canonical) == [(0, b"counted"), (1, b"counted")]


async def test_who_gives_up_on_a_lost_answer_is_told_that_the_outcome_is_unknown(
    autojump_clock: MockClock,
) -> None:
    """And who was never heard, that nothing happened."""
    hop = GatedHop()
    async with in_memory()(hop=hop) as platform, networked(platform) as network:
        async with connected_over(network, attempts_max=1) as client:
            told: list[type[ExoStreamError]] = []

            async def commit(event: bytes) -> None:
                batch = client.canonical.batch()
                batch.append_event(event)
                try:
                    await batch.commit()
                except ExoStreamError as error:
                    told.append(type(error))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(commit, b"heard")
                await hop.arrived.wait()
                network.is_down = True
                await network.cut()
            await commit(b"never heard")
            assert told == [OutcomeUnknownError, UnavailableError]
            hop.gate.set()
            network.is_down = False
            await commit(b"later")
        assert [event for _, event in await all_events(platform.canonical)] == [b"heard", b"later"]


async def test_a_commit_sent_again_is_told_what_became_of_it_though_writes_are_paused(
    autojump_clock: MockClock,
) -> None:
    async with in_memory()() as platform, wire.serving(platform) as (_, _, port):
        async with wire.connected(port) as client:
            await client.greet()
            producer = Producer(b"p", 0, 0)
            commit = c.Commit(1, (), ((b"a", b"1"),), (b"e",), producer=producer)
            await client.say(commit)
            first = await client.expect(c.Committed)
            await platform.canonical.pause_ingestion()
            await client.say(c.Commit(2, (), ((b"a", b"1"),), (b"e",), producer=producer))
            again = await client.expect(c.Committed)
            assert (again.sequence, again.first_event_id) == (first.sequence, 0)
            await client.say(c.Commit(3, (), (), (b"e",), producer=Producer(b"p", 0, 1)))
            assert (await client.expect(m.Failure)).code == PausedError.code
            platform.canonical.resume_ingestion()
            await platform.canonical.seal()
            await client.say(c.Commit(4, (), (), (b"e",), producer=producer))
            assert (await client.expect(c.Committed)).sequence == first.sequence
            await client.say(m.Write(5, ((b"k", b"v"),), producer=Producer(b"p", 0, 2)))
            await client.expect(m.Written)
            await client.say(c.Commit(6, (), (), (b"e",), producer=Producer(b"p", 0, 2)))
            assert (await client.expect(m.Failure)).code == InvalidRequestError.code


async def test_transfers_of_many_clients_keep_the_sum_over_lost_connections(
    autojump_clock: MockClock,
) -> None:
    """The log is replayed: every transfer read what stood there one batch before it."""
    chance = random.Random(5)
    async with in_memory()() as platform, networked(platform) as network:

        async def set_up(txn: Any) -> None:
            await trio.lowlevel.checkpoint()
            for number in range(ACCOUNTS):
                txn.put_state(b"%d" % number, b"%d" % EACH)

        async def transfer(client: Client) -> None:
            source, target = chance.sample(range(ACCOUNTS), 2)
            amount = chance.randint(1, 30)

            async def body(txn: Any) -> None:
                had = int(await txn.get_state(b"%d" % source))
                has = int(await txn.get_state(b"%d" % target))
                moved = min(had, amount)
                txn.put_state(b"%d" % source, b"%d" % (had - moved))
                txn.put_state(b"%d" % target, b"%d" % (has + moved))
                txn.log_bytes(b"%d %d %d" % (source, target, moved))

            await client.canonical.transact(body, attempts_max=200)

        async def work() -> None:
            async with connected_over(network) as client:
                for _ in range(12):
                    await transfer(client)

        async with connected_over(network) as client:
            await client.canonical.submit_write(set_up)
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(work)
                for _ in range(6):
                    await trio.sleep(0.01)
                    await network.cut()
        balances = dict.fromkeys(range(ACCOUNTS), EACH)
        events = await all_events(platform.canonical)
        assert len(events) == 48
        for _, event in events:
            source, target, moved = map(int, event.split())
            balances[source] -= moved
            balances[target] += moved
            assert balances[source] >= 0
        found = await state(platform.canonical)
        assert found == {b"%d" % number: b"%d" % has for number, has in balances.items()}
        assert sum(balances.values()) == ACCOUNTS * EACH


async def test_a_body_never_sees_two_states_mixed(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, connected(platform) as client:

        async def write(**puts: bytes) -> None:
            batch = platform.canonical.batch()
            for key, value in puts.items():
                batch.put(key.encode(), value)
            await batch.commit()

        await write(a=b"1", b=b"1", c=b"1")
        async with client.canonical.write_txn() as txn:
            assert await txn.get_state(b"a") == b"1"
            await write(c=b"2")
            assert await txn.get_state(b"b") == b"1"  # older than what was read first
            assert await txn.get_state(b"c") == b"2"  # newer, but the others stand
            assert await txn.get_state(b"never") is None
            await write(a=b"2", b=b"2")
            assert await txn.get_state(b"a") == b"1"  # read once, and kept
            with pytest.raises(TransactionConflictError) as caught:
                await txn.get_state(b"d")
            assert caught.value.key in {b"a", b"b"}
        async with client.canonical.write_txn() as txn:
            await txn.get_state(b"a")
            await write(a=b"3")
            with pytest.raises(TransactionConflictError):
                await txn.iter_state()
        async with client.canonical.write_txn() as txn:
            pairs = await txn.iter_state()
            await write(z=b"1")
            assert [key async for key in pairs.keys_only()] == [b"a", b"b", b"c"]
            with pytest.raises(TransactionConflictError):
                await txn.get_state(b"z")
            with pytest.raises(TransactionConflictError):
                await txn.iter_state()


async def test_two_reads_at_once_are_held_against_one_another(autojump_clock: MockClock) -> None:
    """The second is asked for when the first is there, and found to be newer: both are looked at
    again."""
    asked: list[tuple[tuple[bytes, ...], bool]] = []

    async def play(puppet: Any) -> None:
        async def hear() -> Any:
            read = await puppet.hear(c.ReadState)
            asked.append((read.keys, read.values))
            return read

        await puppet.greet()
        answers: list[c.StateValues] = []
        for version in (5, 9):
            with trio.move_on_after(1 if answers else 60) as patience:
                read = await hear()
            if patience.cancelled_caught:  # it waits for what it has asked first
                await puppet.say(answers.pop())
                read = await hear()
            value = c.StateValue(version, b"v")
            answers.append(c.StateValues(read.id, version, version, (value,)))
        await puppet.say(*answers)
        read = await hear()
        again = tuple(c.StateValue(7 if key == b"a" else 9, b"") for key in read.keys)
        await puppet.say(c.StateValues(read.id, 9, 9, again))
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        network = Network(nursery, puppets(play))
        async with connected_over(network) as client, client.canonical.write_txn() as txn:
            overtaken: list[bytes] = []

            async def read(key: bytes) -> None:
                try:
                    await txn.get_state(key)
                except TransactionConflictError as error:
                    overtaken.append(error.key)

            with trio.move_on_after(600):
                async with trio.open_nursery() as readers:
                    readers.start_soon(read, b"a")
                    await trio.testing.wait_all_tasks_blocked()
                    readers.start_soon(read, b"b")
        nursery.cancel_scope.cancel()
    assert asked == [((b"a",), True), ((b"b",), True), ((b"a", b"b"), False)]
    assert overtaken == [b"a"]


async def test_conflicts_are_tried_again_within_a_bound(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, connected(platform) as client:
        attempts = 0

        async def body(txn: Any) -> None:
            nonlocal attempts
            attempts += 1
            await txn.append_event(b"mine")
            if attempts < 4:
                other = platform.canonical.batch()
                other.append_event(b"other")
                await other.commit()

        with pytest.raises(TransactionConflictError):
            await client.canonical.transact(body, attempts_max=2)
        assert (await client.canonical.transact(body)).first_event_id == 3
        assert attempts == 4
        with pytest.raises(InvalidRequestError):
            await client.canonical.transact(body, attempts_max=0)


async def test_a_snapshot_is_over_with_its_connection(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            async with client.canonical.read_txn() as snapshot:
                await network.cut()
                with pytest.raises(SnapshotExpiredError):
                    await snapshot.get_state(b"a")
            for _ in range(3 * platform.limits.snapshots_per_connection_max):
                async with client.canonical.read_txn() as snapshot:
                    assert not await snapshot.exists(b"a")
                with trio.move_on_after(0):
                    async with client.canonical.read_txn():
                        pass
        await trio.testing.wait_all_tasks_blocked()
        assert platform.sources.snapshots.floors() == []


async def test_ranges_larger_than_a_page_are_one_moment(autojump_clock: MockClock) -> None:
    limits = Limits(frame_bytes_max=4_096)
    async with in_memory()(limits=limits) as platform, connected(platform) as client:
        batch = platform.canonical.batch()
        for number in range(40):
            batch.put(b"%02d" % number, b"x" * 500)
            batch.append_event(b"y" * 500)
        await batch.commit()
        for reverse in (False, True):
            async with client.canonical.range(reverse=reverse) as pairs:
                found = [await pairs.next()]
                late = platform.canonical.batch()
                late.put(b"10late", b"")
                await late.commit()
                found += [pair async for pair in pairs]
                late = platform.canonical.batch()
                late.delete(b"10late")
                await late.commit()
            assert [pair[0] for pair in found if pair] == sorted(
                [b"%02d" % number for number in range(40)], reverse=reverse
            )
        assert len([e async for e in await client.canonical.iter_events()]) == 40
        limited = [key async for key in client.canonical.range(limit=20).keys_only()]
        assert limited == [b"%02d" % number for number in range(20)]
        async with client.canonical.write_txn() as txn:
            for number in range(0, 40, 2):
                txn.del_state(b"%02d" % number)
            txn.put_state(b"05a", b"")
            pairs = await txn.iter_state()
            keys = [key async for key in pairs.keys_only()]
            odd = [b"%02d" % number for number in range(1, 40, 2)]
            assert keys == sorted([*odd, b"05a"])
        await trio.testing.wait_all_tasks_blocked()
        assert platform.sources.snapshots.floors() == []


async def test_a_pause_outlives_its_connection_and_one_given_up_never_was(
    autojump_clock: MockClock,
) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            await client.canonical.pause_ingestion()
            await network.cut()
        assert platform.canonical.is_paused()
        async with connected_over(network) as client:
            await client.canonical.resume_ingestion()
            assert await client.canonical.is_paused()
            assert not await client.is_paused()
            assert await client.canonical.resume_all() == 1
            assert not platform.canonical.is_paused()

            async with platform.canonical.write_txn():
                with trio.move_on_after(1):
                    await client.canonical.pause_ingestion()
                await trio.sleep(1)
                assert not platform.canonical.is_paused()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.canonical.pause_ingestion)
                    for _ in range(3):
                        await trio.sleep(1)
                        await network.cut()
                    nursery.cancel_scope.cancel()
            await trio.sleep(60)
            assert not platform.canonical.is_paused()

            await client.pause_ingestion()
            with pytest.raises(PausedError):
                await client.put_batch([(b"k", b"v")])
            await client.resume_ingestion()
            await client.put_batch([(b"k", b"v")])
            assert await client.resume_all() == 0


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (c.Commit(1, (), ((b"", b"v"),)), InvalidRequestError),
        (c.Commit(1, (), ((b"k" * 512, None),)), KeyTooLargeError),
        (c.Commit(1, (c.StateVersion(b"", 0),), ()), InvalidRequestError),
        (c.Commit(1, (), (), (b"e" * (4 * MIB + 1),)), ValueTooLargeError),
        (c.Commit(1, (), (), (b"e",), None, SEQUENCE_MAX), InvalidRequestError),
        (c.Commit(1, (), (), (b"e",), None, 7), TransactionConflictError),
        (c.Commit(1, (), (), (b"e",), 7, None), TransactionConflictError),
        (c.Commit(1, (c.StateVersion(b"k", 7),), ()), TransactionConflictError),
        (c.Commit(1, (), (), (b"e",), producer=Producer(b"", 0, 0)), InvalidRequestError),
        (c.Commit(1, (), ((b"k", b""),) * 101), LimitExceededError),
        (c.ReadState(1, 99, (b"k",), values=True), InvalidRequestError),
        (c.ReadState(1, 0, (b"",), values=True), InvalidRequestError),
        (c.ReadState(1, 0, (b"k",) * 10_001, values=False), LimitExceededError),
        (c.ScanState(1, 99, b"", None, False, 1, False), InvalidRequestError),
        (c.PauseWrites(1, b"", all_faces=False), InvalidRequestError),
        (c.PauseWrites(1, b"n" * 65, all_faces=True), InvalidRequestError),
    ],
    ids=map(str, range(16)),
)
async def test_what_a_hostile_client_asks_is_refused_and_changes_nothing(
    autojump_clock: MockClock, request_: Any, error: type[ExoStreamError]
) -> None:
    limits = Limits(batch_entries_max=100)
    async with in_memory()(limits=limits) as platform, wire.serving(platform) as (_, _, port):
        async with wire.connected(port) as client:
            await client.greet()
            await client.say(request_)
            assert (await client.expect(m.Failure)).code == error.code
            await client.say(c.ReadMeta(2))
            meta = await client.expect(c.StoreMeta)
            assert (meta.next_event_id, meta.sequence, meta.is_paused) == (0, 0, False)
        assert platform.sources.snapshots.floors() == []


async def test_pauses_are_bounded_and_one_that_ended_does_not_begin(
    autojump_clock: MockClock,
) -> None:
    async with in_memory()() as platform:
        pauses = platform.canonical.named_pauses
        for number in range(256):
            await pauses.begin(b"%d" % number)
        await pauses.begin(b"0")
        with pytest.raises(ExoStreamError, match="256"):
            await pauses.begin(b"one more")
        assert len(pauses) == 256
        for number in range(2_000):
            pauses.end(b"%d" % number)
        assert not platform.canonical.is_paused()
        with pytest.raises(InvalidStateError):
            await pauses.begin(b"1999")
        await pauses.begin(b"0")  # so long ago that it is not remembered
        assert pauses.end_all() == 1
        async with trio.open_nursery() as nursery:
            async with platform.canonical.write_txn():
                nursery.start_soon(pauses.begin, b"twice")
                nursery.start_soon(pauses.begin, b"twice")
                await trio.sleep(1)
        assert len(pauses) == 1
        assert pauses.end(b"twice") == 1
        assert not platform.canonical.is_paused()
