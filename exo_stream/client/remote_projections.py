"""The projections that run in a server's process, from afar."""

from __future__ import annotations

from typing import cast

from exo_stream.canonical.projection_rules import ProjectorStatus, State
from exo_stream.client.call import Call, Retry
from exo_stream.client.link import Link
from exo_stream.errors import InvalidRequestError
from exo_stream.model import SEQUENCE_MAX
from exo_stream.protocol import projection_messages as p
from exo_stream.storage.dead_letter import DeadLetter


async def read_projections(link: Link) -> list[ProjectorStatus]:
    """How each of them is."""
    reply = await link.ask(Call(lambda id_, _: p.ReadProjections(id_)))
    assert isinstance(reply, p.ProjectionsRead), reply
    return [_status(one) for one in reply.projections]


async def read_dead_letters(link: Link, name: str, first: int, limit: int) -> list[DeadLetter]:
    """Some of the events that one has put aside."""
    _check(name, first, limit)
    reply = await link.ask(Call(lambda id_, _: p.ReadDeadLetters(id_, name, first, limit)))
    assert isinstance(reply, p.DeadLettersRead), reply
    return [DeadLetter(*letter) for letter in reply.letters]


async def replay_dead_letters(
    link: Link, name: str, event_id: int | None, limit: int
) -> tuple[int, int]:
    """How many went through, and how many failed again."""
    _check(name, event_id or 0, limit)
    call = Call(
        lambda id_, _: p.ReplayDeadLetters(id_, name, event_id, limit),
        # A letter that fails is counted each time it is tried.
        retry=Retry.ONCE,
    )
    reply = await link.ask(call)
    assert isinstance(reply, p.DeadLettersReplayed), reply
    return reply.applied, reply.failed


def _status(found: p.ProjectionState) -> ProjectorStatus:
    age = found.lag_microseconds
    return ProjectorStatus(
        found.name,
        cast("State", found.state),  # a later server's may be another word: it is shown as it is
        found.cursor,
        found.lag,
        None if age is None else age / 1_000_000,
        found.sealed,
        found.dead_letters,
        found.error,
        found.retries,
        found.applied,
        found.skipped,
        found.gaps,
    )


def _check(name: str, event_id: int, limit: int) -> None:
    if type(name) is not str or len(name) > 64:
        raise InvalidRequestError("a projection is named by a text of 64 letters at most")
    for number in (event_id, limit):
        if type(number) is not int or not 0 <= number <= SEQUENCE_MAX:
            raise InvalidRequestError("an event id is an unsigned 64-bit integer")
