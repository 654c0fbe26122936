"""How the parts of messages about projections are written, and how they are checked."""

from __future__ import annotations

from typing import Any, Final

from exo_stream.protocol.fields import BYTES, FLAG, OPTIONAL_UINT, TEXT, UINT, Sort
from exo_stream.protocol.projection_messages import ProjectionState, PutAside

PROJECTIONS_MAX: Final = 4_096
LETTERS_MAX: Final = 4_096


def _several(value: Any, most: int) -> tuple[Any, ...]:
    if type(value) is not tuple or len(value) > most:
        raise ValueError("not an array, or too long")
    return value


def _read_state(value: Any) -> ProjectionState:
    name, state, cursor, lag, age, sealed, dead_letters, error, *counts = value
    retries, applied, skipped, gaps = counts
    return ProjectionState(
        TEXT.read(name),
        TEXT.read(state),
        OPTIONAL_UINT.read(cursor),
        UINT.read(lag),
        OPTIONAL_UINT.read(age),
        FLAG.read(sealed),
        UINT.read(dead_letters),
        TEXT.read(error),
        UINT.read(retries),
        UINT.read(applied),
        UINT.read(skipped),
        UINT.read(gaps),
    )


def _read_letter(value: Any) -> PutAside:
    event_id, event_bytes, error_message, failed_at, retry_count, last_retry_at, permanent = value
    return PutAside(
        UINT.read(event_id),
        BYTES.read(event_bytes),
        TEXT.read(error_message),
        UINT.read(failed_at),
        UINT.read(retry_count),
        OPTIONAL_UINT.read(last_retry_at),
        FLAG.read(permanent),
    )


def _read_states(value: Any) -> tuple[ProjectionState, ...]:
    return tuple([_read_state(one) for one in _several(value, PROJECTIONS_MAX)])


def _read_letters(value: Any) -> tuple[PutAside, ...]:
    return tuple([_read_letter(one) for one in _several(value, LETTERS_MAX)])


PROJECTION_STATES: Final = Sort(_read_states)
PUT_ASIDE: Final = Sort(_read_letters)
