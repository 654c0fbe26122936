"""A client's transactions at their edges: odd answers, last ids, bounds, and every cancellation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream.client import Client
from exo_stream.errors import (
    InvalidRequestError,
    InvalidStateError,
    LimitExceededError,
    UnavailableError,
    UnsupportedError,
)
from exo_stream.limits import Limits
from exo_stream.model import SEQUENCE_MAX
from exo_stream.protocol import canonical_messages as c
from exo_stream.testing import connected
from tests.network import connected_over, networked, the_server_is_blamed
from tests.nine_methods import NineMethods
from tests.test_cancellation import CancelAt, sweep
from tests.transactions import all_events, state
from tests.worlds import in_memory


async def read_one(client: Client) -> None:
    async with client.canonical.write_txn() as txn:
        await txn.get_state(b"k")


async def first_event(client: Client) -> None:
    await (await client.canonical.iter_events(0, 1, follow=True)).next()


@pytest.mark.parametrize(
    ("ask", "request_kind", "reply"),
    [
        (
            read_one,
            c.ReadState,
            lambda id_: c.StateValues(id_, 1, 1, ()),
        ),
        (
            first_event,
            c.ReadEvents,
            lambda id_: c.EventsRead(id_, 7, 9, ()),
        ),
        (
            first_event,
            c.ReadEvents,
            lambda id_: c.EventsRead(id_, 0, 9, ()),
        ),
    ],
    ids=["too few values", "other events", "an event left out"],
)
async def test_an_answer_that_says_too_little_is_the_server_s_fault(
    autojump_clock: MockClock,
    ask: Callable[[Client], Awaitable[Any]],
    request_kind: type[Any],
    reply: Callable[[int], Any],
) -> None:
    await the_server_is_blamed(ask, request_kind, reply)


async def test_a_pause_that_could_not_be_ended_is_ended_later(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network, attempts_max=2) as client:
            await client.canonical.resume_ingestion()
            await client.canonical.pause_ingestion()
            network.is_down = True
            await network.cut()
            with pytest.raises(UnavailableError):
                await client.canonical.resume_ingestion()
            with pytest.raises(UnavailableError):
                await client.canonical.resume_all()
            assert platform.canonical.is_paused()
            network.is_down = False
            await client.canonical.resume_ingestion()
            assert not platform.canonical.is_paused()


async def test_the_last_ids_there_are_and_those_past_them_end_or_wait(
    autojump_clock: MockClock,
) -> None:
    async with in_memory()() as platform, connected(platform) as client:
        last = await client.canonical.iter_events(SEQUENCE_MAX, follow=True)
        with trio.move_on_after(1) as scope:
            await last.next()
        assert scope.cancelled_caught
        assert last.next_event_id == SEQUENCE_MAX
        assert await (await client.canonical.iter_events(SEQUENCE_MAX)).next() is None
        await client.canonical.batch().commit()
        with pytest.raises(InvalidRequestError):
            await client.canonical.iter_events(0, SEQUENCE_MAX + 1)


async def test_a_transaction_that_grows_too_large_is_told_so_at_the_call(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(batch_bytes_max=100, batch_entries_max=4)
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network, limits=limits) as client:
            async with client.canonical.write_txn() as txn:
                txn.put_state(b"k", bytes(50))
                with pytest.raises(LimitExceededError, match="batch_bytes_max is 100"):
                    txn.put_state(b"k", bytes(50))
                txn.del_state(b"k")
                txn.log_many([("e", 1)])
                with pytest.raises(LimitExceededError, match="batch_entries_max is 4"):
                    txn.log("e", 1)
                info = await txn.commit()
            assert (info.events_written, info.state_keys_written) == (1, 1)
            batch = client.canonical.batch()
            with pytest.raises(InvalidRequestError):
                await client.canonical.write_txn().append_events("text")  # type: ignore[arg-type]  # what is refused
            with pytest.raises(LimitExceededError):
                batch.append_event(bytes(101))


async def test_what_ended_while_it_was_asked_for_is_over(autojump_clock: MockClock) -> None:
    """By another task of the program; nothing that was opened meanwhile stays open."""
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            wire: Any = client._link.connection._websocket._stream  # type: ignore[union-attr]  # it is connected
            send_all = wire.send_all

            async def held(data: bytes) -> None:
                await may_send.wait()
                await send_all(data)

            wire.send_all = held
            for ask in ("iter_state", "get_state", "append_event"):
                may_send = trio.Event()
                async with client.canonical.write_txn() as txn, trio.open_nursery() as nursery:

                    async def asked(ask: str = ask, txn: Any = txn) -> None:
                        words = () if ask == "iter_state" else (b"k",)
                        with pytest.raises(InvalidStateError, match="over"):
                            await getattr(txn, ask)(*words)

                    nursery.start_soon(asked)
                    await wait_all_tasks_blocked()
                    txn.abort()
                    may_send.set()
            await trio.sleep(1)
        assert platform.sources.snapshots.floors() == []


async def test_a_value_that_no_message_can_carry_is_refused_and_leaves_the_connection(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(message_bytes_max=200_000, frame_bytes_max=100_000)
    async with in_memory()(limits=limits) as platform, connected(platform) as client:
        batch = platform.canonical.batch()
        batch.put(b"large", bytes(300_000))
        batch.put(b"small", b"1")
        await batch.commit()
        async with client.canonical.read_txn() as snapshot:
            with pytest.raises(LimitExceededError, match="is 200000"):
                await snapshot.get_state(b"large")
            with pytest.raises(LimitExceededError, match="message_bytes_max is 200000"):
                await snapshot.range().next()
            assert await snapshot.range().keys_only().next() == b"large"
            assert await snapshot.exists(b"large"), "its version fits"
            assert await snapshot.get_state(b"small") == b"1", "on the same connection"


async def test_a_backend_with_only_the_nine_methods_says_so_from_afar(
    autojump_clock: MockClock,
) -> None:
    backend: Any = NineMethods()
    async with in_memory(backend)() as platform, connected(platform) as client:
        for ask in (client.canonical.meta, client.canonical.seal, client.canonical.batch().commit):
            with pytest.raises(UnsupportedError, match="nine methods"):
                await ask()
        with pytest.raises(UnsupportedError):
            async with client.canonical.read_txn():
                pass


@pytest.mark.slow
def test_reads_and_a_transaction_cancelled_at_any_step_leave_nothing_at_the_server() -> None:
    async def live_once(cancel: CancelAt) -> None:
        async with in_memory()(limits=Limits(frame_bytes_max=4_096)) as platform:
            batch = platform.canonical.batch()
            for number in range(3):
                batch.put(b"%d" % number, bytes(3_000))
            await batch.commit()
            async with networked(platform) as network, connected_over(network) as client:
                canonical = client.canonical

                async def total(txn: Any) -> None:
                    keys = [key async for key in (await txn.iter_state()).keys_only()]
                    txn.put_state(b"count", b"%d" % len(keys))
                    txn.log_bytes(b"counted")

                with cancel.scope:
                    cancel.armed = True
                    async with canonical.read_txn() as snapshot:
                        assert await snapshot.exists(b"0")
                    async with canonical.range() as pairs:
                        assert len([pair async for pair in pairs]) == 3
                    await canonical.submit_write(total)
                cancel.armed = False
                await trio.sleep(1)
                assert platform.sources.snapshots.floors() == []
                done = await all_events(platform.canonical)
                assert ((b"count" in await state(platform.canonical)), len(done)) in (
                    (False, 0),
                    (True, 1),
                )
                await canonical.submit_write(total)

    assert sweep(live_once) > 30
