"""The hop: what a dedicated thread promises its callers."""

from __future__ import annotations

import threading  # noqa: TID251 - to look at the thread that the hop made
from functools import partial
from queue import SimpleQueue
from typing import cast

import pytest
import trio
import trio.testing

from exo_stream.storage.hop import Hop, _Call, _ThreadHop, in_place, open_thread_hop


async def test_calls_run_on_one_thread_of_their_own() -> None:
    async with open_thread_hop("writer") as hop:
        first = await hop(threading.current_thread)
        second = await hop(threading.current_thread)

    assert first is second is not threading.current_thread()
    assert first.name == "writer"
    assert not first.daemon
    assert not first.is_alive()


async def test_in_place_runs_on_the_event_loop() -> None:
    assert await in_place(threading.current_thread) is threading.current_thread()


@pytest.mark.parametrize("where", ["in place", "on a thread"])
async def test_an_error_is_raised_where_the_caller_waits(where: str) -> None:
    async def fail(hop: Hop) -> None:
        with pytest.raises(ZeroDivisionError):
            await hop(lambda: 1 // 0)
        assert await hop(lambda: 7) == 7

    if where == "in place":
        await fail(in_place)
    else:
        async with open_thread_hop("writer") as hop:
            await fail(hop)


async def test_a_call_that_has_begun_is_waited_for_though_cancelled() -> None:
    begun = trio.Event()
    go_on: SimpleQueue[None] = SimpleQueue()
    done: list[str] = []
    token = trio.lowlevel.current_trio_token()

    def commit() -> None:
        token.run_sync_soon(begun.set)
        go_on.get()
        done.append("committed")

    async def write(hop: Hop, scope: trio.CancelScope) -> None:
        with scope:
            await hop(commit)
            done.append("answered")

    async with open_thread_hop("writer") as hop, trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(write, hop, scope)
        await begun.wait()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert done == []
        go_on.put(None)

    # The caller learns the result; its next checkpoint is where it learns of the cancellation.
    assert done == ["committed", "answered"]


async def test_a_cancelled_caller_begins_nothing() -> None:
    async with open_thread_hop("writer") as hop:
        with trio.CancelScope() as scope:
            scope.cancel()
            await hop(pytest.fail)
        assert scope.cancelled_caught


async def test_calls_made_together_run_in_their_order() -> None:
    seen: list[int] = []
    async with open_thread_hop("writer") as hop:
        for number in range(5):
            await hop(partial(seen.append, number))

    assert seen == [0, 1, 2, 3, 4]


def test_a_thread_whose_loop_has_ended_ends_too() -> None:
    """As after a crash of trio itself: the call is over, but there is nobody to be told."""

    async def leave_a_hop() -> _ThreadHop:
        await trio.lowlevel.checkpoint()
        return _ThreadHop("writer")

    hop = trio.run(leave_a_hop)
    done: list[str] = []
    task = cast("trio.lowlevel.Task", None)
    hop._calls.put(_Call(lambda: done.append("committed"), task))
    hop.close()

    assert done == ["committed"]
