"""The record of the canonical face: the next event id and the seal, read by every decision.

It is one row of the table, written again with every canonical commit. So the next event id
costs no query, whether an id is free is judged under the one writer, and the record's own
version is the sequence of the last canonical commit.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from exo_stream.decision import Answer, Need, Unknown, Verdict, View, Write
from exo_stream.errors import CorruptionError
from exo_stream.model import Entry, Keyspace, Row

RECORD_KEY: Final = b"record"
NEED_RECORD: Final = Need(keys=((int(Keyspace.CANONICAL), RECORD_KEY),))

_CANONICAL: Final = int(Keyspace.CANONICAL)
_LAYOUT: Final = Struct(">BQQIQQ")
_FORMAT: Final = 1


class Record(NamedTuple):
    """What is known of the store as a whole; times are microseconds since the Unix epoch.

    ``sealed`` is the id of the event it is sealed at, plus one; 0 while it is not sealed.
    """

    next_event_id: int = 0
    sealed: int = 0
    schema_version: int = 0
    created_at: int = 0
    updated_at: int = 0

    @property
    def sealed_event_id(self) -> int | None:
        """The id of the event it is sealed at, None while it is not."""
        return self.sealed - 1 if self.sealed else None

    def entry(self) -> Entry:
        """How it is written."""
        return Entry(_CANONICAL, RECORD_KEY, _LAYOUT.pack(_FORMAT, *self))


NO_RECORD: Final = Record()
"""Nothing canonical was ever written."""


def read_record(row: Row | None) -> Record:
    """The record in its row. Raises CorruptionError for bytes that are none."""
    if row is None or row.value is None:
        return NO_RECORD
    if len(row.value) != _LAYOUT.size or row.value[0] != _FORMAT:
        raise CorruptionError("the canonical record is damaged, or of a newer format")
    return Record(*_LAYOUT.unpack(row.value)[1:])


def touch(view: View, now: int) -> Verdict[None]:
    """Open the face: note the time, and make the record if there is none."""
    row = view.row(_CANONICAL, RECORD_KEY)
    if isinstance(row, Unknown):
        return NEED_RECORD
    record = read_record(row)
    return Write(
        [record._replace(created_at=record.created_at or now, updated_at=now).entry()], None
    )


def seal(view: View, now: int) -> Verdict[int]:
    """Seal at the last event; what is decided after this is refused. The answer is its id.

    Without any event nothing is sealed, and the answer is 0.
    """
    row = view.row(_CANONICAL, RECORD_KEY)
    if isinstance(row, Unknown):
        return NEED_RECORD
    record = read_record(row)
    last = record.next_event_id - 1
    if last < 0:
        return Answer(0)
    if record.sealed_event_id == last:
        return Answer(last)
    return Write([record._replace(sealed=last + 1, updated_at=now).entry()], last)


def unseal(view: View, now: int) -> Verdict[None]:
    """Take writes again; nothing happens if it is not sealed."""
    row = view.row(_CANONICAL, RECORD_KEY)
    if isinstance(row, Unknown):
        return NEED_RECORD
    record = read_record(row)
    if not record.sealed:
        return Answer(None)
    return Write([record._replace(sealed=0, updated_at=now).entry()], None)
