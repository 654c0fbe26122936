"""The state at one Version: single keys, from memory where memory can tell."""

from __future__ import annotations

from typing import Final

import trio

from exo_stream.actors.reads import Reads
from exo_stream.canonical.record import NO_RECORD, RECORD_KEY, Record, read_record
from exo_stream.errors import InvalidRequestError, KeyTooLargeError, ValueTooLargeError
from exo_stream.limits import MIB
from exo_stream.model import Keyspace, Row, row_key
from exo_stream.storage.engine import Cold, Version

STATE_KEY_BYTES_MAX: Final = 511
STATE_VALUE_BYTES_MAX: Final = 16 * MIB
EVENT_BYTES_MAX: Final = 4 * MIB

READS_PER_CHECKPOINT: Final = 64
"""A task that reads in a loop from memory still lets others run: a full checkpoint is twenty
times the price of such a read."""

_PREFIX: Final = row_key(Keyspace.STATE, b"")
_RECORD_ROW: Final = row_key(Keyspace.CANONICAL, RECORD_KEY)


def check_key(key: bytes, context: str) -> None:
    """Raise InvalidRequestError or KeyTooLargeError unless ``key`` can be one of the state."""
    if type(key) is not bytes:
        raise InvalidRequestError("keys are bytes")
    if not key:
        raise InvalidRequestError("a key of the state has at least one byte")
    if len(key) > STATE_KEY_BYTES_MAX:
        raise KeyTooLargeError(len(key), STATE_KEY_BYTES_MAX, context)


def check_value(value: bytes, context: str) -> None:
    """Raise InvalidRequestError or ValueTooLargeError unless ``value`` can be one of the state."""
    if type(value) is not bytes:
        raise InvalidRequestError("values are bytes")
    if len(value) > STATE_VALUE_BYTES_MAX:
        raise ValueTooLargeError(len(value), STATE_VALUE_BYTES_MAX, context)


def check_event(event: bytes, context: str) -> None:
    """Raise InvalidRequestError or ValueTooLargeError unless ``event`` can be one."""
    if type(event) is not bytes:
        raise InvalidRequestError("events are bytes")
    if len(event) > EVENT_BYTES_MAX:
        raise ValueTooLargeError(len(event), EVENT_BYTES_MAX, context)


class StateReads:
    """Reads single keys of the state, for every transaction of one store."""

    __slots__ = ("_record", "_record_bytes", "_served", "reads")

    def __init__(self, reads: Reads) -> None:
        self.reads = reads
        self._served = 0
        self._record_bytes: bytes | None = None
        self._record = NO_RECORD

    async def row(self, version: Version, key: bytes) -> Row | None:
        """The row of a state key at ``version``, which is pinned; None if the key is absent."""
        row = self.reads.engine.lookup(version, _PREFIX + key)
        if isinstance(row, Cold):
            [row] = await self.reads.rows(version, [_PREFIX + key])
        else:
            self._served += 1
            if self._served % READS_PER_CHECKPOINT:
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                await trio.lowlevel.checkpoint()
        return None if row is None or row.value is None else row

    async def record(self, version: Version) -> tuple[Record, int]:
        """The store's record at ``version`` and the sequence it was written at, 0 if never."""
        row = self.reads.engine.lookup(version, _RECORD_ROW)
        if isinstance(row, Cold):
            [row] = await self.reads.rows(version, [_RECORD_ROW])
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        return self._decoded(row), 0 if row is None else row.sequence

    def record_at_hand(self, version: Version) -> Record | None:
        """The record at ``version``, which is the current one; None if it must be fetched."""
        row = self.reads.engine.lookup(version, _RECORD_ROW)
        return None if isinstance(row, Cold) else self._decoded(row)

    def _decoded(self, row: Row | None) -> Record:
        # Asked for with every transaction, and changed with every commit: many in a group.
        value = None if row is None else row.value
        if value is not self._record_bytes:
            self._record, self._record_bytes = read_record(row), value
        return self._record
