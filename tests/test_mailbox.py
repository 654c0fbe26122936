"""Asking an actor: bounded, in order, and one answer each, even from an actor that dies."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import trio
from trio.testing import Sequencer, wait_all_tasks_blocked

from exo_stream.actors.mailbox import Bell, Mailbox, Request
from exo_stream.errors import PlatformClosedError, StoreError


@dataclass(frozen=True, slots=True, eq=False)
class Double(Request[int]):
    number: int


def mailbox_of(requests_max: int = 4, bytes_max: int = 1_000) -> Mailbox[Double]:
    return Mailbox(requests_max=requests_max, bytes_max=bytes_max)


def take_all(mailbox: Mailbox[Double]) -> list[Double]:
    return mailbox.take(requests_max=1_000, bytes_max=1_000_000)


async def double(mailbox: Mailbox[Double]) -> None:
    """An actor."""
    with mailbox.serving():
        while not mailbox.closed or len(mailbox):
            for request in take_all(mailbox):
                request.reply.set(2 * request.number)
            await mailbox.bell.wait()


async def test_a_question_is_answered() -> None:
    mailbox = mailbox_of()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(double, mailbox)
        assert await mailbox.ask(Double(4)) == 8
        mailbox.close()


def test_the_first_answer_stands() -> None:
    request = Double(2)
    assert not request.reply.settled
    request.reply.set(4)
    request.reply.fail(PlatformClosedError("too late"))
    assert request.reply.result.unwrap() == 4


async def test_many_questions_are_answered_in_their_order_and_fail_one_by_one() -> None:
    mailbox = mailbox_of(requests_max=100)
    async with trio.open_nursery() as nursery:

        async def answer_backwards() -> None:
            await mailbox.bell.wait()
            for request in reversed(take_all(mailbox)):
                if request.number % 2:
                    request.reply.fail(StoreError(f"{request.number} is odd"))
                else:
                    request.reply.set(2 * request.number)

        nursery.start_soon(answer_backwards)
        outcomes = await mailbox.ask_all([Double(number) for number in range(5)])
    assert [outcomes[number].unwrap() for number in (0, 2, 4)] == [0, 4, 8]
    for number in (1, 3):
        with pytest.raises(StoreError, match=f"{number} is odd"):
            outcomes[number].unwrap()


async def test_no_questions_get_no_answers_at_once() -> None:
    with trio.testing.assert_checkpoints():
        assert await mailbox_of().ask_all([]) == []


async def test_a_request_is_asked_once() -> None:
    mailbox = mailbox_of()
    mailbox.close()
    request = Double(1)
    with pytest.raises(PlatformClosedError):
        await mailbox.ask(request)
    with pytest.raises(AssertionError, match="asked once"):
        await mailbox.ask(request)


async def test_beyond_so_many_requests_callers_wait() -> None:
    mailbox = mailbox_of(requests_max=2)
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(mailbox.ask, Double(number))
            await wait_all_tasks_blocked()
        assert len(mailbox) == 2
        taken: list[int] = []
        for waiting in (2, 1, 0):
            taken += [request.number for request in take_all(mailbox)]
            await wait_all_tasks_blocked()
            assert len(mailbox) == waiting
        assert taken == [0, 1, 2, 3, 4]
        nursery.cancel_scope.cancel()


async def test_beyond_so_many_bytes_callers_wait() -> None:
    mailbox = mailbox_of(requests_max=100, bytes_max=10)
    async with trio.open_nursery() as nursery:
        for number, size in enumerate([6, 6, 1, 1]):
            nursery.start_soon(mailbox.ask, Double(number, size=size))
            await wait_all_tasks_blocked()
        assert len(mailbox) == 2  # the second was let in while there was room
        assert [request.number for request in mailbox.take(requests_max=1, bytes_max=10)] == [0]
        await wait_all_tasks_blocked()
        assert len(mailbox) == 3
        nursery.cancel_scope.cancel()


async def test_one_request_larger_than_everything_is_let_in_alone() -> None:
    mailbox = mailbox_of(bytes_max=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.ask, Double(0, size=1_000))
        await wait_all_tasks_blocked()
        [request] = mailbox.take(requests_max=10, bytes_max=10)
        request.reply.set(0)


async def test_a_group_ends_before_the_request_that_does_not_fit() -> None:
    mailbox = mailbox_of(bytes_max=1_000)
    async with trio.open_nursery() as nursery:
        for number, size in enumerate([5, 5, 1, 100]):
            nursery.start_soon(mailbox.ask, Double(number, size=size))
            await wait_all_tasks_blocked()
        groups = [[r.number for r in mailbox.take(requests_max=10, bytes_max=10)] for _ in range(4)]
        assert groups == [[0, 1], [2], [3], []]
        nursery.cancel_scope.cancel()


async def test_taking_the_small_one_makes_no_room_while_the_large_one_waits() -> None:
    mailbox = mailbox_of(bytes_max=10)
    async with trio.open_nursery() as nursery:
        for number, size in enumerate([1, 1_000, 1]):
            nursery.start_soon(mailbox.ask, Double(number, size=size))
            await wait_all_tasks_blocked()
        assert [r.number for r in mailbox.take(requests_max=10, bytes_max=10)] == [0]
        await wait_all_tasks_blocked()
        assert len(mailbox) == 1
        nursery.cancel_scope.cancel()


async def test_nobody_overtakes_those_who_wait_at_the_door() -> None:
    mailbox = mailbox_of(requests_max=1)
    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(mailbox.ask, Double(number))
            await wait_all_tasks_blocked()
        # There is room now, and who asks in this instant has not waited: it must not be first.
        assert [request.number for request in take_all(mailbox)] == [0]
        nursery.start_soon(mailbox.ask, Double(9))
        order: list[int] = []
        while len(order) < 4:
            await wait_all_tasks_blocked()
            order += [request.number for request in take_all(mailbox)]
        assert order == [1, 2, 3, 9]
        nursery.cancel_scope.cancel()


async def test_one_who_gives_up_at_the_door_holds_up_nobody() -> None:
    mailbox = mailbox_of(requests_max=1)
    scopes = [trio.CancelScope() for _ in range(4)]
    async with trio.open_nursery() as nursery:

        async def ask(number: int) -> None:
            with scopes[number]:
                await mailbox.ask(Double(number))

        for number in range(4):
            nursery.start_soon(ask, number)
            await wait_all_tasks_blocked()
        scopes[1].cancel()  # the one that holds the door
        scopes[2].cancel()  # one behind it
        await wait_all_tasks_blocked()
        assert [request.number for request in take_all(mailbox)] == [0]
        await wait_all_tasks_blocked()
        assert [request.number for request in take_all(mailbox)] == [3]
        nursery.cancel_scope.cancel()


async def test_cancelled_before_it_was_taken_it_never_happens() -> None:
    mailbox = mailbox_of()
    with trio.move_on_after(0):
        await mailbox.ask(Double(1))
    assert len(mailbox) == 1  # it keeps its place, and nothing else
    assert take_all(mailbox) == []


async def test_all_questions_of_a_cancelled_caller_never_happen() -> None:
    mailbox = mailbox_of(requests_max=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.ask_all, [Double(1), Double(2), Double(3)])
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert take_all(mailbox) == []


async def test_cancelled_after_it_was_taken_it_takes_its_course() -> None:
    mailbox = mailbox_of()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.ask, Double(1))
        await wait_all_tasks_blocked()
        [request] = take_all(mailbox)
        nursery.cancel_scope.cancel()
    assert request.reply.abandoned
    request.reply.set(2)  # harms nobody


async def test_answered_and_cancelled_at_once_the_answer_wins() -> None:
    """Or a caller would never learn of a write that took effect and was told."""
    mailbox = mailbox_of()
    answers: list[int] = []
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            answers.append(await mailbox.ask(Double(1)))

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        [request] = take_all(mailbox)
        request.reply.set(2)
        nursery.cancel_scope.cancel()
    assert answers == [2]


async def test_an_actor_that_dies_fails_what_it_holds_and_what_waits_and_who_is_at_the_door() -> (
    None
):
    mailbox = mailbox_of(requests_max=2)
    errors: list[PlatformClosedError] = []

    async def ask(number: int) -> None:
        with pytest.raises(PlatformClosedError) as failed:
            await mailbox.ask(Double(number))
        errors.append(failed.value)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(ask, number)
        await wait_all_tasks_blocked()
        with pytest.raises(KeyError):
            with mailbox.serving():
                assert len(take_all(mailbox)) == 2
                await wait_all_tasks_blocked()
                raise KeyError
    assert len(errors) == 6
    assert len(set(map(id, errors))) == 6, "raising one error object twice changes it"


async def test_answers_that_were_given_before_the_death_stand() -> None:
    mailbox = mailbox_of()
    answers: list[int] = []
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            answers.append(await mailbox.ask(Double(1)))

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        with pytest.raises(KeyError):
            with mailbox.serving():
                [request] = take_all(mailbox)
                request.reply.set(2)
                raise KeyError
    assert answers == [2]


async def test_a_closed_mailbox_takes_nothing_in_but_hands_out_what_waits() -> None:
    mailbox = mailbox_of()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.ask, Double(1))
        await wait_all_tasks_blocked()
        mailbox.close()
        assert mailbox.closed
        with pytest.raises(PlatformClosedError):
            await mailbox.ask(Double(2))
        [request] = take_all(mailbox)
        request.reply.set(2)


async def test_a_bell_rung_before_one_listens_is_heard_once() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    await bell.wait()
    with trio.move_on_after(0) as listening:
        await bell.wait()
    assert listening.cancelled_caught


async def test_two_mailboxes_may_ring_one_bell() -> None:
    bell, sequencer = Bell(), Sequencer()
    one = Mailbox[Double](requests_max=1, bytes_max=1, bell=bell)
    other = Mailbox[Double](requests_max=1, bytes_max=1, bell=bell)
    async with trio.open_nursery() as nursery:

        async def ask(mailbox: Mailbox[Double], position: int) -> None:
            async with sequencer(position):
                pass
            await mailbox.ask(Double(1))

        nursery.start_soon(ask, one, 0)
        nursery.start_soon(ask, other, 1)
        with trio.fail_after(5):
            await bell.wait()
            while not (len(one) and len(other)):
                await bell.wait()
        nursery.cancel_scope.cancel()
