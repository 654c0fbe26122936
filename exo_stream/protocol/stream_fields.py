"""How the parts of messages about streams are written, and how they are checked."""

from __future__ import annotations

from typing import Any, Final

from exo_stream.protocol.fields import BYTES, FLAG, OPTIONAL_TEXT, OPTIONAL_UINT, TEXT, UINT, Sort
from exo_stream.protocol.stream_messages import (
    StoredAppend,
    StreamDescription,
    StreamNumbers,
    StreamSetup,
)

DESCRIPTIONS_MAX: Final = 4_096
STORED_MAX: Final = 1 << 20


def _read_setup(value: Any) -> StreamSetup:
    content_type, ttl, expires_at, closed, seconds, octets = value
    return StreamSetup(
        OPTIONAL_TEXT.read(content_type),
        OPTIONAL_UINT.read(ttl),
        OPTIONAL_UINT.read(expires_at),
        FLAG.read(closed),
        OPTIONAL_UINT.read(seconds),
        OPTIONAL_UINT.read(octets),
    )


def _read_numbers(value: Any) -> StreamNumbers | None:
    if value is None:
        return None
    id_, epoch, seq = value
    return StreamNumbers(TEXT.read(id_), UINT.read(epoch), UINT.read(seq))


def _read_stored(value: Any) -> tuple[StoredAppend, ...]:
    return tuple([_read_append(one) for one in _several(value, STORED_MAX)])


def _read_append(value: Any) -> StoredAppend:
    end, committed_at, through, lengths, joined = value
    append = StoredAppend(
        UINT.read(end),
        UINT.read(committed_at),
        UINT.read(through),
        BYTES.read(lengths),
        BYTES.read(joined),
    )
    count, odd = divmod(len(lengths), 4)
    numbers = [int.from_bytes(lengths[at : at + 4], "big") for at in range(0, 4 * count, 4)]
    size = sum(numbers)
    if odd or not count or 0 in numbers or len(joined) != size + count - 1 or size > end:
        raise ValueError("not messages of these lengths")
    return append


def _read_description(value: Any) -> StreamDescription:
    name, setup, incarnation, next_offset, oldest_offset, closed, *numbers = value
    total_bytes, message_count, created_at, updated_at, expires_at, sequence = numbers
    return StreamDescription(
        TEXT.read(name),
        _read_setup(setup),
        UINT.read(incarnation),
        TEXT.read(next_offset),
        TEXT.read(oldest_offset),
        FLAG.read(closed),
        UINT.read(total_bytes),
        UINT.read(message_count),
        UINT.read(created_at),
        UINT.read(updated_at),
        OPTIONAL_UINT.read(expires_at),
        UINT.read(sequence),
    )


def _read_descriptions(value: Any) -> tuple[StreamDescription, ...]:
    return tuple([_read_description(one) for one in _several(value, DESCRIPTIONS_MAX)])


def _several(value: Any, most: int) -> tuple[Any, ...]:
    if type(value) is not tuple or len(value) > most:
        raise ValueError("not an array, or too long")
    return value


SETUP: Final = Sort(_read_setup)
NUMBERS: Final = Sort(_read_numbers)
STORED: Final = Sort(_read_stored)
DESCRIPTION: Final = Sort(_read_description)
DESCRIPTIONS: Final = Sort(_read_descriptions)
