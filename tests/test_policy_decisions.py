"""What the writer decides for policies: deletions of what is unchanged, rules that are stored."""

from __future__ import annotations

from exo_stream.decision import (
    UNKNOWN,
    Answer,
    KeyRange,
    Need,
    Unknown,
    Verdict,
    Write,
)
from exo_stream.model import Entry, Keyspace, Row
from exo_stream.payload import encode_entries
from exo_stream.policies.deletion import (
    Deletion,
    deletion,
    deletion_part,
    stamp,
    value_differs,
    written_since,
)
from exo_stream.policies.document import encode_retention
from exo_stream.policies.policy import KeepLatest
from exo_stream.policies.pruning import Doomed
from exo_stream.policies.retention import LogRetention
from exo_stream.policies.rules import RETENTION_KEY, rules_in, store_retention

DOOMED = [Doomed(b"a", stamp(b"v"), 3), Doomed(b"b", stamp(b"v"), 5)]
PARTS = [deletion_part([row]) for row in DOOMED]


class Rows:
    """A view of some keys, at sequence 9."""

    def __init__(self, found: dict[bytes, Row | Unknown | None]) -> None:
        self.sequence = 9
        self._found = found

    def row(self, keyspace: int, key: bytes) -> Row | Unknown | None:
        assert keyspace in {Keyspace.STORE, Keyspace.STORE_RULE}
        return self._found[key]

    def version(self, keyspace: int, key: bytes) -> int | Unknown:
        raise AssertionError((keyspace, key))

    def changed(self, keyspace: int, key: bytes, since: int) -> bool | Unknown:
        assert keyspace == Keyspace.STORE
        row = self._found[key]
        return row if isinstance(row, Unknown) else row is not None and row.sequence > since

    def rows(self, wanted: KeyRange) -> list[Row] | Unknown:
        raise AssertionError(wanted)


def row(sequence: int, value: bytes | None = b"v") -> Row:
    return Row(b"", sequence, value)


def test_a_deletion_spares_what_was_written_since() -> None:
    decide = deletion(DOOMED, PARTS, 5, written_since)

    assert decide(Rows({b"a": UNKNOWN, b"b": row(1)}), 0) == Need(keys=[(0, b"a")])
    whole = decide(Rows({b"a": row(5), b"b": None}), 0)
    assert isinstance(whole, Write)
    assert whole.entries == (Entry(0, b"a", None), Entry(0, b"b", None))
    assert whole.answer == Deletion(9)
    assert whole.payload == encode_entries(whole.entries)
    part = decide(Rows({b"a": row(6), b"b": row(5)}), 0)
    assert part == Write((Entry(0, b"b", None),), Deletion(9, 1, 3))
    assert decide(Rows({b"a": row(6), b"b": row(7)}), 0) == Answer(Deletion(0, 2, 8))


def test_a_deletion_asks_nothing_when_nobody_has_written_since() -> None:
    verdict = deletion(DOOMED, PARTS, 8, written_since)(Rows({}), 0)
    assert isinstance(verdict, Write)
    assert verdict.answer == Deletion(9)


def test_without_versions_values_are_compared() -> None:
    decide = deletion(DOOMED, PARTS, 5, value_differs)
    assert decide(Rows({b"a": row(0), b"b": UNKNOWN}), 0) == Need(keys=[(0, b"b")])
    for gone in (None, row(0, None), row(0, b"w")):
        verdict = decide(Rows({b"a": gone, b"b": row(0)}), 0)
        assert verdict == Write((Entry(0, b"b", None),), Deletion(9, 1, 3))


def test_a_deletion_takes_the_number_that_a_backend_gave_it() -> None:
    assert Deletion(9, 1, 3).numbered(70) == Deletion(70, 1, 3)


def test_rules_are_stored_as_an_entry_of_their_own_keyspace() -> None:
    rules = LogRetention(KeepLatest(3))
    value = encode_retention(rules)
    entry = Entry(Keyspace.STORE_RULE, RETENTION_KEY, value)

    def judged(row: Row | Unknown | None, retention: LogRetention = rules) -> Verdict[int]:
        return store_retention(retention)(Rows({RETENTION_KEY: row}), 0)

    assert judged(UNKNOWN) == Need(keys=[(6, RETENTION_KEY)])
    assert judged(None) == Write((entry,), 9)
    assert judged(Row(b"", 3, value)) == Answer(0)
    assert judged(Row(b"", 3, None)) == Write((entry,), 9)
    assert judged(Row(b"", 3, None), LogRetention()) == Answer(0)
    assert judged(Row(b"", 3, value), LogRetention()) == Write((entry._replace(value=None),), 9)


def test_rules_are_found_in_the_batches_that_store_them() -> None:
    rule = int(Keyspace.STORE_RULE)
    assert rules_in([]) == []
    assert rules_in([Entry(0, RETENTION_KEY, b"x")]) == []
    assert rules_in([Entry(rule, b"other", b"x"), Entry(rule, RETENTION_KEY, None)]) == [None]
