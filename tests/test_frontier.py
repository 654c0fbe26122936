"""The frontier: whoever waits is woken once, when its number is visible, and leaves nothing."""

from __future__ import annotations

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from exo_stream.errors import PlatformClosedError
from exo_stream.frontier import Frontier


async def test_what_is_visible_is_not_waited_for() -> None:
    frontier = Frontier(5)
    with assert_checkpoints():
        await frontier.wait_visible(5)
    assert frontier.visible == 5


async def test_each_is_woken_when_its_number_is_there_and_not_before() -> None:
    frontier = Frontier(0)
    woken: list[int] = []
    async with trio.open_nursery() as nursery:

        async def wait(sequence: int) -> None:
            await frontier.wait_visible(sequence)
            woken.append(sequence)

        for sequence in (5, 1, 3, 3, 2):
            nursery.start_soon(wait, sequence)
        await wait_all_tasks_blocked()
        for to, expected in ((1, [1]), (3, [1, 2, 3, 3]), (4, [1, 2, 3, 3])):
            frontier.advance(to)
            await wait_all_tasks_blocked()
            assert sorted(woken) == expected
        frontier.advance(9)


@pytest.mark.parametrize("to", [4, 5])
def test_it_never_goes_back_and_never_stands_still(to: int) -> None:
    with pytest.raises(AssertionError):
        Frontier(5).advance(to)


async def test_one_who_gives_up_leaves_nothing_behind() -> None:
    frontier = Frontier(0)
    async with trio.open_nursery() as nursery:
        for sequence in (3, 1, 2):
            nursery.start_soon(frontier.wait_visible, sequence)
        await wait_all_tasks_blocked()
        with trio.move_on_after(0):
            await frontier.wait_visible(1)
        assert [ticket[0] for ticket in sorted(frontier._waiting)] == [1, 2, 3]
        nursery.cancel_scope.cancel()
    assert frontier._waiting == []


async def test_giving_up_in_the_instant_it_is_woken_is_fine() -> None:
    frontier = Frontier(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(frontier.wait_visible, 1)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        frontier.advance(1)
    assert frontier._waiting == []


async def test_closing_tells_everybody_who_would_wait_for_ever() -> None:
    frontier = Frontier(3)
    errors: list[PlatformClosedError] = []
    async with trio.open_nursery() as nursery:

        async def wait(sequence: int) -> None:
            with pytest.raises(PlatformClosedError) as failed:
                await frontier.wait_visible(sequence)
            errors.append(failed.value)

        nursery.start_soon(wait, 4)
        nursery.start_soon(wait, 5)
        await wait_all_tasks_blocked()
        frontier.close()
    assert len(set(map(id, errors))) == 2
    await frontier.wait_visible(3)
    with pytest.raises(PlatformClosedError):
        await frontier.wait_visible(4)
