"""A transaction that is handed in again: the decision by itself, and what a retry is told."""

from __future__ import annotations

from exo_stream.canonical.changes import Changes, CommitInfo
from exo_stream.canonical.numbered import numbered, recalled
from exo_stream.canonical.record import NO_RECORD
from exo_stream.decision import UNKNOWN, Answer, KeyRange, Need, Refuse, Unknown, Write
from exo_stream.errors import (
    InvalidRequestError,
    PausedError,
    ProducerFencedError,
    SealedError,
)
from exo_stream.model import Entry, Keyspace, Row, row_key
from exo_stream.producers import Producer, slot_key

PRODUCER = Producer(b"p", 1, 0)
CHANGES = Changes(((b"a", b"1"),), (b"e",))


class Table:
    """The rows that decisions have written; with ``cold`` nothing is in memory."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, bytes], Row] = {}
        self.sequence = 1
        self.cold = False

    def row(self, keyspace: int, key: bytes) -> Row | Unknown | None:
        return UNKNOWN if self.cold else self.found.get((keyspace, key))

    def version(self, keyspace: int, key: bytes) -> int | Unknown:
        row = self.row(keyspace, key)
        return row if isinstance(row, Unknown) else 0 if row is None else row.sequence

    def changed(self, keyspace: int, key: bytes, since: int) -> bool | Unknown:
        version = self.version(keyspace, key)
        return version if isinstance(version, Unknown) else version > since

    def rows(self, wanted: KeyRange) -> list[Row] | Unknown:
        raise AssertionError(wanted)

    def write(self, *entries: Entry) -> None:
        for keyspace, key, value in entries:
            self.found[keyspace, key] = Row(row_key(keyspace, key), self.sequence, value)
        self.sequence += 1


def test_it_is_written_once_and_told_again_whatever_happened_since() -> None:
    table = Table()
    written = numbered(CHANGES, PRODUCER)(table, 5)
    assert isinstance(written, Write)
    assert written.answer == CommitInfo(1, 0, 0, 1, 0, 0, 1)
    assert [entry.keyspace for entry in written.entries[:2]] == [Keyspace.PRODUCER] * 2
    table.write(*written.entries)
    table.write(NO_RECORD._replace(next_event_id=1, sealed=1).entry())

    for decide in (numbered(CHANGES, PRODUCER), recalled(PRODUCER)):
        assert decide(table, 9) == Answer(written.answer)
    sealed = numbered(CHANGES, Producer(b"p", 1, 1))(table, 9)
    assert isinstance(sealed, Refuse)
    assert isinstance(sealed.error, SealedError)


def test_it_asks_for_what_is_not_in_memory() -> None:
    table = Table()
    table.cold = True
    for decide in (numbered(CHANGES, PRODUCER), recalled(PRODUCER)):
        assert isinstance(decide(table, 5), Need)


def test_what_is_not_a_duplicate_waits_for_the_end_of_the_pause() -> None:
    refused = recalled(PRODUCER)(Table(), 5)
    assert isinstance(refused, Refuse)
    assert isinstance(refused.error, PausedError)


def test_a_fenced_producer_and_another_s_number_are_refused() -> None:
    table = Table()
    first = numbered(CHANGES, PRODUCER)(table, 5)
    assert isinstance(first, Write)
    table.write(*first.entries)
    fenced = numbered(CHANGES, Producer(b"p", 0, 1))(table, 5)
    assert isinstance(fenced, Refuse)
    assert isinstance(fenced.error, ProducerFencedError)
    slot = slot_key(b"p", 0)
    table.write(Entry(Keyspace.PRODUCER, slot, b"\x82\x01\x00"))  # as a write of the store does
    other = numbered(CHANGES, PRODUCER)(table, 5)
    assert isinstance(other, Refuse)
    assert isinstance(other.error, InvalidRequestError)


def test_one_that_changes_nothing_is_not_remembered() -> None:
    verdict = numbered(Changes(), PRODUCER)(Table(), 5)
    assert isinstance(verdict, Answer)
    assert verdict.answer.events_written == 0
