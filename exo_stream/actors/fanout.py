"""The fan-out actor: tells those who have caught up what was just committed.

For each group: find the selectors that match; wake the parked; encode once per selector and
encoder, and write that to every live seat without waking a task. A seat that cannot take it is
lost: its subscriber reads on from the tail, at its own pace. So are the seats of a selector for
which a group is too much work: its subscribers look for themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import trio

from exo_stream.interest import AnySeat, Body, Encoder, Interest
from exo_stream.logger import log
from exo_stream.payload import EncodedBatch
from exo_stream.selectors import AnySelector

SEATS_PER_CHECKPOINT: Final = 128
"""How many seats are written to before other tasks get a turn: about a millisecond."""


async def run(
    committed: trio.MemoryReceiveChannel[Sequence[EncodedBatch]], interest: Interest
) -> None:
    """Deliver each committed group, in order, until no more can come."""
    async for batches in committed:
        matched = interest.match(batches)
        # Who enters the index from here on stands at the frontier, behind this group.
        seats = [
            (selector, found, _wake(interest, selector, found, batches[-1].sequence))
            for selector, found in matched.items()
        ]
        written = 0
        for selector, found, seated in seats:
            written = await _write(interest, selector, found, seated, written)
        interest.through = batches[-1].sequence


def _wake(
    interest: Interest, selector: AnySelector, found: Sequence[EncodedBatch], through: int
) -> list[AnySeat]:
    """Wake the parked; answer the seats that have not had this group yet."""
    some = interest.interested(selector)
    assert some is not None, selector
    for parked in some.parked:
        if parked.found is None:
            if found:
                parked.found, parked.through = found, through
            else:
                parked.must_look = True
            parked.woken.set()
    if not found:
        for seat in [seat for seat in some.seats if seat.sequence < through]:
            interest.lose_seat(seat)
        return []
    return [seat for seat in some.seats if seat.sequence < found[-1].sequence]


async def _write(
    interest: Interest,
    selector: AnySelector,
    found: Sequence[EncodedBatch],
    seated: Sequence[AnySeat],
    written: int,
) -> int:
    """Write what matched to each seat; answer how many seats have been written to so far."""
    bodies: dict[Encoder[Any], Sequence[Body]] = {}
    for seat in seated:
        some = interest.interested(selector)
        if some is not None and seat in some.seats:  # it may have left at the checkpoint below
            try:
                if seat.encode not in bodies:
                    bodies[seat.encode] = seat.encode(found)
                _write_one(interest, seat, bodies[seat.encode])
            except Exception:  # a bug of one face or transport costs those whom it concerns
                log.exception("seat lost", selector=str(selector))
                interest.lose_seat(seat)
        written += 1
        if written % SEATS_PER_CHECKPOINT == 0:
            await trio.lowlevel.checkpoint()
    return written


def _write_one(interest: Interest, seat: AnySeat, bodies: Sequence[Body]) -> None:
    for body in bodies:
        if not seat.try_send(body):
            interest.lose_seat(seat)
            return
        if body.finished is not None:
            seat.sequence = body.finished
