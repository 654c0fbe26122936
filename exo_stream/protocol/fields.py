"""What stands in the fields of messages: how each sort of field is written and checked.

Every ``read`` gets what CBOR brought, which may be anything, and raises ``ValueError`` unless it
is of its sort. Large arrays are checked column by column, because a step per entry in Python
would cost more than the decoding itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, fields
from itertools import repeat
from types import NoneType
from typing import Any, Final, NamedTuple

from exo_stream.errors import InvalidRequestError
from exo_stream.model import LOG_ID_LENGTH, SEQUENCE_MAX, Cursor, Entry, Keyspace
from exo_stream.policies.result import PruneCounts
from exo_stream.producers import Producer
from exo_stream.protocol.messages import (
    DeliveredBatch,
    FieldValue,
    Pair,
    PartBody,
)
from exo_stream.starts import (
    After,
    FromEvent,
    FromSequence,
    FromSnapshot,
    Last,
    Now,
    Oldest,
    Since,
    Start,
)
from exo_stream.writes import Requirement

TEXT_LENGTH_MAX: Final = 1_024
"""No name, sentence or cursor of the protocol is longer."""
MAP_ITEMS_MAX: Final = 64
ENTRIES_MAX: Final = 1 << 20
"""Entries of one batch, rows of one page, keys of one request: more than any limit allows."""


def _same(value: Any) -> Any:
    return value


class Sort(NamedTuple):
    """One sort of field: from the wire with ``read``, onto the wire with ``write``."""

    read: Callable[[Any], Any]
    write: Callable[[Any], Any] = _same


def _refuse(what: str) -> ValueError:
    return ValueError(f"not {what}")


def _read_uint(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= SEQUENCE_MAX:
        raise _refuse("an unsigned 64-bit integer")
    return value


def _read_flag(value: Any) -> bool:
    if type(value) is not bool:
        raise _refuse("true or false")
    return value


def _read_text(value: Any) -> str:
    if type(value) is not str or len(value) > TEXT_LENGTH_MAX:
        raise _refuse("a text, or too long")
    return value


def _read_bytes(value: Any) -> bytes:
    if type(value) is not bytes:
        raise _refuse("a byte string")
    return value


def _optional(sort: Sort) -> Sort:
    def read(value: Any) -> Any:
        return None if value is None else sort.read(value)

    def write(value: Any) -> Any:
        return None if value is None else sort.write(value)

    return Sort(read, write)


def _columns(value: Any, width: int) -> tuple[tuple[Any, ...], ...]:
    """The columns of an array of arrays that are all ``width`` long."""
    if type(value) is not tuple or len(value) > ENTRIES_MAX:
        raise _refuse("an array, or too long")
    if not set(map(type, value)) <= {tuple}:
        raise _refuse("an array of arrays")
    if not value:
        return ((),) * width
    columns = tuple(zip(*value, strict=True))
    if len(columns) != width:
        raise _refuse(f"an array of arrays of {width}")
    return columns


def _check(column: tuple[Any, ...], *allowed: type) -> None:
    if not set(map(type, column)) <= set(allowed):
        raise _refuse("an array of the right types")


def _read_uints(value: Any) -> tuple[int, ...]:
    if type(value) is not tuple or len(value) > ENTRIES_MAX:
        raise _refuse("an array, or too long")
    return tuple([_read_uint(item) for item in value])


def _read_keys(value: Any) -> tuple[bytes, ...]:
    if type(value) is not tuple or len(value) > ENTRIES_MAX:
        raise _refuse("an array, or too long")
    _check(value, bytes)
    return value


def _read_values(value: Any) -> tuple[bytes | None, ...]:
    if type(value) is not tuple or len(value) > ENTRIES_MAX:
        raise _refuse("an array, or too long")
    _check(value, bytes, NoneType)
    return value


def _read_pairs(value: Any) -> tuple[Pair, ...]:
    keys, values = _columns(value, 2)
    _check(keys, bytes)
    _check(values, bytes)
    pairs: tuple[Pair, ...] = value
    return pairs


_KEYSPACES: Final = frozenset(Keyspace) - {Keyspace.STREAM_SUBSCRIPTION}
"""What may be sent, and asked for: not what holds a secret."""
_new_entry: Final[Callable[..., Entry]] = tuple.__new__


FEW: Final = 8
"""So few entries are checked one by one; the columns of more pay for themselves."""


def _read_few_entries(value: tuple[Any, ...]) -> tuple[Entry, ...]:
    for entry in value:
        if type(entry) is not tuple:
            raise _refuse("an array of entries")
        keyspace, key, written = entry
        if type(keyspace) is not int or keyspace not in _KEYSPACES or type(key) is not bytes:
            raise _refuse("an entry")
        if type(written) is not bytes and written is not None:
            raise _refuse("an entry")
    return tuple([_new_entry(Entry, entry) for entry in value])


def _read_entries(value: Any) -> tuple[Entry, ...]:
    if type(value) is tuple and len(value) <= FEW:
        return _read_few_entries(value)
    keyspaces, keys, values = _columns(value, 3)
    _check(keyspaces, int)
    if not _KEYSPACES.issuperset(keyspaces):
        raise _refuse("a keyspace")
    _check(keys, bytes)
    _check(values, bytes, NoneType)
    return tuple(map(_new_entry, repeat(Entry), value))


def _read_batch(value: Any) -> DeliveredBatch:
    sequence, committed_at, entries = value
    return DeliveredBatch(_read_uint(sequence), _read_uint(committed_at), _read_entries(entries))


def read_batches(value: Any) -> tuple[DeliveredBatch, ...]:
    """The batches of a ``batches`` body, in order; ValueError if it is something else."""
    if type(value) is not tuple:
        raise _refuse("an array of batches")
    return tuple([_read_batch(item) for item in value])


def _read_part(value: Any) -> PartBody:
    total, offset, chunk = value
    return PartBody(_read_uint(total), _read_uint(offset), _read_bytes(chunk))


def _read_require(value: Any) -> dict[bytes, Requirement]:
    keys, asked = _columns(value, 2)
    _check(keys, bytes)
    require = {key: _read_requirement(one) for key, one in zip(keys, asked, strict=True)}
    if len(require) < len(keys):
        raise _refuse("an array of different keys")
    return require


def _read_requirement(value: Any) -> Requirement:
    match value:
        case "absent" | "present":
            requirement: Requirement = value
            return requirement
        case _:
            return _read_uint(value)


def _write_require(require: Mapping[bytes, Requirement]) -> list[tuple[bytes, Requirement]]:
    return list(require.items())


def _write_producer(producer: Producer) -> tuple[bytes, int, int, bool]:
    return producer.id, producer.epoch, producer.seq, producer.contiguous


def _read_producer(value: Any) -> Producer:
    id_, epoch, seq, contiguous = value
    return Producer(
        _read_bytes(id_), _read_uint(epoch), _read_uint(seq), contiguous=_read_flag(contiguous)
    )


def _read_counts(value: Any) -> tuple[PruneCounts, ...]:
    columns = _columns(value, len(fields(PruneCounts)))
    for column in columns:
        _read_uints(column)
    return tuple([PruneCounts(*row) for row in value])


def _write_counts(counts: Sequence[PruneCounts]) -> list[tuple[int, ...]]:
    return [astuple(one) for one in counts]


def _read_retention_source(value: Any) -> str:
    if value not in {"stored", "option"}:
        raise _refuse("where rules come from")
    return _read_text(value)


def _read_cursor(value: Any) -> Cursor:
    try:
        return Cursor.parse(_read_text(value))
    except InvalidRequestError as error:
        raise ValueError(str(error)) from None


def _read_log_id(value: Any) -> str:
    text = _read_text(value)
    if len(text) != LOG_ID_LENGTH:
        raise _refuse("a log id")
    return text


def _read_map(value: Any) -> dict[str, FieldValue]:
    if not isinstance(value, Mapping) or len(value) > MAP_ITEMS_MAX:
        raise _refuse("a map, or too large")
    for item in value.values():
        if type(item) not in {int, str, bytes, NoneType}:
            raise _refuse("a map of plain values")
    return {_read_text(name): item for name, item in value.items()}


def _read_slow(value: Any) -> str:
    if value not in {"catch_up", "disconnect"}:
        raise _refuse("a policy for slow readers")
    return _read_text(value)


_PLAIN_STARTS: Final[dict[str, Start]] = {
    "oldest": Oldest(),
    "now": Now(),
    "snapshot": FromSnapshot(),
}


def _read_start(value: Any) -> Start:
    name, *rest = value
    match name, rest:
        case "oldest" | "now" | "snapshot", []:
            return _PLAIN_STARTS[name]
        case "after", [cursor]:
            return After(_read_cursor(cursor))
        case "from", [sequence]:
            return FromSequence(_read_uint(sequence))
        case "event", [event_id]:
            return FromEvent(_read_uint(event_id))
        case "last", [count]:
            return Last(_read_uint(count))
        case "since", [committed_at]:
            return Since(_read_uint(committed_at))
        case _:
            raise _refuse("a start")


def _write_start(start: Start) -> tuple[str | int, ...]:
    match start:
        case After(cursor):
            return "after", str(cursor)
        case FromSequence(sequence):
            return "from", sequence
        case FromEvent(event_id):
            return "event", event_id
        case Last(count):
            return "last", count
        case Since(committed_at):
            return "since", committed_at
        case _:
            return (next(name for name, plain in _PLAIN_STARTS.items() if plain == start),)


UINT: Final = Sort(_read_uint)
OPTIONAL_UINT: Final = _optional(UINT)
UINTS: Final = Sort(_read_uints)
FLAG: Final = Sort(_read_flag)
TEXT: Final = Sort(_read_text)
BYTES: Final = Sort(_read_bytes)
OPTIONAL_TEXT: Final = _optional(TEXT)
OPTIONAL_BYTES: Final = _optional(BYTES)
KEYS: Final = Sort(_read_keys)
VALUES: Final = Sort(_read_values)
PAIRS: Final = Sort(_read_pairs)
ENTRIES: Final = Sort(_read_entries)
OPTIONAL_BATCH: Final = _optional(Sort(_read_batch))
BATCHES: Final = Sort(read_batches)
PART: Final = Sort(_read_part)
COUNTS: Final = Sort(_read_counts, _write_counts)
RETENTION_SOURCE: Final = Sort(_read_retention_source)
REQUIRE: Final = Sort(_read_require, _write_require)
OPTIONAL_PRODUCER: Final = _optional(Sort(_read_producer, _write_producer))
CURSOR: Final = Sort(_read_cursor, str)
LOG_ID: Final = Sort(_read_log_id)
MAP: Final = Sort(_read_map, dict)
SLOW: Final = Sort(_read_slow)
START: Final = Sort(_read_start, _write_start)
