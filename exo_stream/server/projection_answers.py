"""Projections that run beside the server, as one connection asks for them."""

from __future__ import annotations

from typing import Final, assert_never

import trio

from exo_stream.canonical.projection_rules import ProjectorStatus
from exo_stream.canonical.store import CanonicalStore
from exo_stream.protocol.fields import TEXT_LENGTH_MAX
from exo_stream.protocol.projection_fields import PROJECTIONS_MAX
from exo_stream.protocol.projection_messages import (
    DeadLettersRead,
    DeadLettersReplayed,
    ProjectionReply,
    ProjectionRequest,
    ProjectionsRead,
    ProjectionState,
    PutAside,
    ReadDeadLetters,
    ReadProjections,
    ReplayDeadLetters,
)
from exo_stream.storage.dead_letter import DeadLetter

_LETTER_BYTES: Final = 4 * TEXT_LENGTH_MAX
"""What a letter or a projection takes on the wire beside an event, at most."""


async def answered(
    canonical: CanonicalStore, request: ProjectionRequest, *, frame_bytes: int
) -> ProjectionReply:
    """The answer; raises what the projections raise."""
    await trio.lowlevel.checkpoint_if_cancelled()
    match request:
        case ReadProjections(id_):
            found = await canonical.projection_statuses()
            return ProjectionsRead(id_, tuple(map(_state, found[:PROJECTIONS_MAX])))
        case ReadDeadLetters():
            projector = canonical.projector(request.projection)
            letters = await projector.dead_letters(request.first, request.count)
            return DeadLettersRead(request.id, _fitting(letters, frame_bytes))
        case ReplayDeadLetters():
            return await _replayed(canonical, request)
        case _:
            assert_never(request)


def size_of(reply: ProjectionReply) -> int:
    """About how many bytes the answer has on the wire, never fewer."""
    match reply:
        case ProjectionsRead():
            return _LETTER_BYTES * len(reply.projections)
        case DeadLettersRead():
            return sum([_LETTER_BYTES + len(letter.event_bytes) for letter in reply.letters])
        case _:
            return 64


async def _replayed(canonical: CanonicalStore, request: ReplayDeadLetters) -> DeadLettersReplayed:
    await trio.lowlevel.checkpoint_if_cancelled()
    projector = canonical.projector(request.projection)
    if request.event_id is not None:
        await projector.replay_dead_letter(request.event_id)
        return DeadLettersReplayed(request.id, 1, 0)
    done = await projector.replay_dead_letters(request.count)
    return DeadLettersReplayed(request.id, done.events_applied, done.events_skipped)


def _fitting(letters: list[DeadLetter], bytes_max: int) -> tuple[PutAside, ...]:
    """As many as fit into a frame, one at least if there is one."""
    fitting: list[PutAside] = []
    size = 0
    for letter in letters:
        size += _LETTER_BYTES + len(letter.event_bytes)
        if fitting and size > bytes_max:
            break
        error = letter.error_message[:TEXT_LENGTH_MAX]
        fitting.append(
            PutAside(
                letter.event_id,
                letter.event_bytes,
                error,
                letter.failed_at,
                letter.retry_count,
                letter.last_retry_at,
                letter.permanent,
            )
        )
    return tuple(fitting)


def _state(status: ProjectorStatus) -> ProjectionState:
    age = status.lag_seconds
    return ProjectionState(
        status.name,
        status.state,
        status.cursor,
        status.lag,
        None if age is None else round(age * 1_000_000),
        status.sealed,
        status.dead_letters,
        status.error[:TEXT_LENGTH_MAX],
        status.retries,
        status.total_events_applied,
        status.total_events_skipped,
        status.total_gaps_detected,
    )
