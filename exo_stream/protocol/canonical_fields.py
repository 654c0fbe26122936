"""How the parts of messages about transactions are written, and how they are checked."""

from __future__ import annotations

from typing import Any, Final

from exo_stream.protocol.canonical_messages import StateValue, StateVersion
from exo_stream.protocol.fields import BYTES, ENTRIES_MAX, OPTIONAL_BYTES, UINT, Sort


def _pairs(value: Any) -> tuple[Any, ...]:
    if type(value) is not tuple or len(value) > ENTRIES_MAX:
        raise ValueError("not an array, or too long")
    for pair in value:
        if type(pair) is not tuple or len(pair) != 2:
            raise ValueError("not an array of pairs")
    return value


def _read_versions(value: Any) -> tuple[StateVersion, ...]:
    read = [StateVersion(BYTES.read(key), UINT.read(at)) for key, at in _pairs(value)]
    if len({one.key for one in read}) < len(read):
        raise ValueError("not different keys")
    return tuple(read)


def _read_values(value: Any) -> tuple[StateValue, ...]:
    return tuple(
        [StateValue(UINT.read(at), OPTIONAL_BYTES.read(data)) for at, data in _pairs(value)]
    )


def _read_operations(value: Any) -> tuple[tuple[bytes, bytes | None], ...]:
    for key, data in _pairs(value):
        BYTES.read(key)
        OPTIONAL_BYTES.read(data)
    operations: tuple[tuple[bytes, bytes | None], ...] = value
    return operations


STATE_VERSIONS: Final = Sort(_read_versions)
STATE_VALUES: Final = Sort(_read_values)
OPERATIONS: Final = Sort(_read_operations)
"""Keys with a value or null: what a transaction changes, or the pairs of a page."""
