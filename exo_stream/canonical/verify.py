"""Whether the canonical rows of a file hold together: the events against the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from exo_stream.canonical.changes import EVENT_ID_BYTES
from exo_stream.canonical.record import NO_RECORD, RECORD_KEY, Record, read_record
from exo_stream.canonical.state import (
    EVENT_BYTES_MAX,
    STATE_KEY_BYTES_MAX,
    STATE_VALUE_BYTES_MAX,
)
from exo_stream.errors import CorruptionError
from exo_stream.model import Keyspace, Row

RECORD_BYTES_MAX: Final = 64
"""More than a record has."""
HEADS: Final = {
    int(Keyspace.STATE): 1,
    int(Keyspace.EVENT): 1,
    int(Keyspace.CANONICAL): RECORD_BYTES_MAX,
}


@dataclass(slots=True)
class CanonicalCheck:
    """Give it every live row of the canonical keyspaces, in the table's order; then ask.

    ``exo-stream verify`` does so with a file.
    """

    _next_event_id: int = 0
    _record: Record = NO_RECORD
    _problems: list[str] = field(default_factory=list)

    @property
    def heads(self) -> Mapping[int, int]:
        """The canonical keyspaces; of state and events only how long they are."""
        return HEADS

    def take(self, keyspace: int, key: bytes, head: bytes, size: int) -> None:
        """One live row: its key, how its value begins, and how long that is."""
        match keyspace:
            case Keyspace.STATE:
                if not 1 <= len(key) <= STATE_KEY_BYTES_MAX or size > STATE_VALUE_BYTES_MAX:
                    self._problems.append(f"state {key[:40]!r}: larger than a key or a value is")
            case Keyspace.EVENT:
                self._take_event(key, size)
            case _:
                self._take_record(key, head)

    def _take_event(self, key: bytes, size: int) -> None:
        number = int.from_bytes(key, "big")
        if len(key) != EVENT_ID_BYTES or size > EVENT_BYTES_MAX:
            self._problems.append(f"event {key[:40]!r}: no event id, or too large an event")
        elif number != self._next_event_id:
            missing = f"{self._next_event_id} to {number - 1}"
            self._problems.append(f"events {missing} are missing")
        self._next_event_id = number + 1

    def _take_record(self, key: bytes, head: bytes) -> None:
        if key != RECORD_KEY:
            self._problems.append(f"canonical {key[:40]!r}: nobody's row")
            return
        try:
            self._record = read_record(Row(key, 0, head))
        except CorruptionError as error:
            self._problems.append(str(error))

    def problems(self) -> list[str]:
        """Every contradiction, in a sentence; none if all is well."""
        found = list(self._problems)
        if self._record.next_event_id != self._next_event_id:
            found.append(
                f"the next event would be {self._record.next_event_id},"
                f" but the events end before {self._next_event_id}"
            )
        if self._record.sealed > self._record.next_event_id:
            found.append(f"sealed at event {self._record.sealed - 1}, which is not there")
        return found
