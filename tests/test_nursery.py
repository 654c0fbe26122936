"""Errors leave our nurseries as themselves, and an echo of a crash does not leave beside it."""

from __future__ import annotations

import pytest
import trio

from exo_stream.errors import (
    CorruptionError,
    ExoStreamError,
    OutcomeUnknownError,
    OverloadedError,
    PlatformClosedError,
)
from exo_stream.nursery import nursery_unseen


async def crash() -> None:
    await trio.lowlevel.cancel_shielded_checkpoint()
    raise OutcomeUnknownError("the disk failed")


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(OverloadedError("cannot be read for now"), id="a reader"),
        pytest.param(PlatformClosedError("stopped"), id="a writer that waited"),
        pytest.param(OutcomeUnknownError("not known"), id="a writer in the group"),
    ],
)
async def test_what_the_body_was_told_of_a_crash_is_left_out(told: ExoStreamError) -> None:
    with pytest.raises(OutcomeUnknownError, match="the disk failed"):
        with nursery_unseen() as own:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(crash)
                with own:
                    raise told


async def test_what_the_body_raises_by_itself_leaves_as_it_is() -> None:
    with pytest.raises(OverloadedError, match="too many"):
        with nursery_unseen() as own:
            async with trio.open_nursery():
                with own:
                    raise OverloadedError("too many")


async def test_the_answer_that_an_actor_stopped_for_leaves_once() -> None:
    async def stop() -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()
        raise CorruptionError("a checksum does not hold")

    with pytest.raises(CorruptionError):
        with nursery_unseen() as own:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop)
                with own:
                    raise CorruptionError("a checksum does not hold")


async def test_two_real_errors_leave_as_a_group() -> None:
    with pytest.RaisesGroup(OutcomeUnknownError, KeyError):
        with nursery_unseen() as own:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(crash)
                with own:
                    raise KeyError
