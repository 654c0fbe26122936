"""The log in the file: appended, paged, bounded, pruned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exo_stream.errors import BatchEvictedError, CorruptionError
from exo_stream.limits import MIB
from exo_stream.payload import EncodedBatch
from exo_stream.storage import batch_log, meta
from exo_stream.storage.batch_log import LogEnds
from exo_stream.storage.database import Database, Rows, open_database
from exo_stream.storage.engine import Retention
from exo_stream.storage.schema import number
from tests.batches import make_batch, make_batches
from tests.database_files import write


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    db = open_database(tmp_path / "feed.duckdb", memory_bytes=64 * MIB)
    yield db
    db.close()


@contextmanager
def reading(db: Database) -> Iterator[Rows]:
    with db.open_cursor().transaction() as rows:
        yield rows


def evict(db: Database, floor: int, *, rows_max: int) -> int:
    with db.transaction() as con:
        batch_log.move_floor(con, floor)
        return batch_log.delete_below(con, floor, rows_max=rows_max)


def change(db: Database, sql: str) -> None:
    with db.transaction() as con:
        con.execute(sql).fetchall()


def numbers(batches: list[EncodedBatch]) -> list[int]:
    return [batch.sequence for batch in batches]


def read_page(
    db: Database, after: int, *, through: int = 20, batches_max: int = 100, bytes_max: int = MIB
) -> list[EncodedBatch]:
    with reading(db) as rows:
        return batch_log.page(
            rows, after, through=through, batches_max=batches_max, bytes_max=bytes_max
        )


def test_what_was_appended_is_read_back(db: Database) -> None:
    write(db, 1, 3)
    write(db, 4, 4)

    for found, wanted in zip(read_page(db, 0, through=4), make_batches(1, 4), strict=True):
        assert found.sequence == wanted.sequence
        assert found.committed_at == wanted.committed_at
        assert found.payload == wanted.payload
        assert found.entries == wanted.entries


def test_a_batch_may_be_empty(db: Database) -> None:
    with db.transaction() as con:
        batch_log.append(con.appender("log"), [EncodedBatch(1, 5, b"\x80")])
    assert read_page(db, 0, through=1)[0].entries == ()


def test_the_largest_numbers_fit(db: Database) -> None:
    """Sequences are unsigned: nothing on the way may turn them into floats or signed numbers."""
    last = (1 << 63) + 7
    with db.transaction() as con:
        batch_log.append(con.appender("log"), [make_batch(last, committed_at=1 << 62)])
        batch_log.move_floor(con, last)
    assert numbers(read_page(db, last - 1, through=last)) == [last]
    with reading(db) as rows:
        assert batch_log.ends(rows) == LogEnds(last, last, last, 0, 1 << 62)


def test_a_hole_in_a_group_is_a_bug(db: Database) -> None:
    with pytest.raises(AssertionError), db.transaction() as con:
        batch_log.append(con.appender("log"), [make_batch(1), make_batch(3)])


def test_a_page_is_bounded_in_batches_bytes_and_by_the_frontier(db: Database) -> None:
    write(db, 1, 20)
    size = len(make_batch(10).payload)

    assert numbers(read_page(db, 0, batches_max=5)) == [1, 2, 3, 4, 5]
    assert numbers(read_page(db, 9, bytes_max=3 * size)) == [10, 11, 12]
    assert numbers(read_page(db, 9, bytes_max=3 * size - 1)) == [10, 11]
    assert numbers(read_page(db, 9, bytes_max=1)) == [10]  # a larger one travels alone
    assert numbers(read_page(db, 17, through=18)) == [18]
    assert numbers(read_page(db, 17)) == [18, 19, 20]
    assert read_page(db, 18, through=18) == []
    assert read_page(db, 20) == []
    assert read_page(db, 40) == []


def test_what_was_committed_and_is_missing_at_the_end_is_corruption(db: Database) -> None:
    write(db, 1, 20)
    assert numbers(read_page(db, 18, through=22, batches_max=2)) == [19, 20]
    for after in (18, 20):
        with pytest.raises(CorruptionError, match="batch 21 is missing"):
            read_page(db, after, through=22)
    change(db, "DELETE FROM log")
    with pytest.raises(CorruptionError, match="batch 21 is missing"):
        read_page(db, 20, through=21)


def test_an_evicted_batch_is_told_with_the_oldest_retained(db: Database) -> None:
    write(db, 1, 20)
    assert evict(db, 11, rows_max=100) == 10

    with pytest.raises(BatchEvictedError) as caught:
        read_page(db, 4)
    assert caught.value.oldest_retained == 11
    with pytest.raises(BatchEvictedError):
        read_page(db, 4, through=8)
    assert numbers(read_page(db, 10, batches_max=2)) == [11, 12]


def test_rows_below_the_floor_can_be_read_until_they_are_deleted(db: Database) -> None:
    """Whoever holds a snapshot may follow from it, though the floor has moved on."""
    write(db, 1, 20)
    with db.transaction() as con:
        batch_log.move_floor(con, 15)
    assert numbers(read_page(db, 4, batches_max=2)) == [5, 6]
    with reading(db) as rows:
        found = batch_log.ends(rows)
    assert (found.oldest_row, found.floor, found.newest) == (1, 15, 20)


def test_deletion_goes_in_slices_from_the_oldest(db: Database) -> None:
    write(db, 1, 20)
    assert [evict(db, 11, rows_max=4) for _ in range(4)] == [4, 4, 2, 0]
    assert numbers(read_page(db, 10, batches_max=1)) == [11]


def test_an_emptied_log_reuses_no_number_and_no_time(db: Database) -> None:
    with reading(db) as rows:
        assert batch_log.ends(rows) == LogEnds(1, 1, 0, 0, 0)
    write(db, 1, 5)
    assert evict(db, 6, rows_max=100) == 5
    assert evict(db, 6, rows_max=100) == 0
    with reading(db) as rows:
        assert batch_log.ends(rows) == LogEnds(6, 6, 5, 0, 5_000_000)
    change(
        db,
        "UPDATE meta SET value = '\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x03'::BLOB"
        " WHERE name = 'folded_through'",
    )
    with reading(db) as rows:
        assert batch_log.ends(rows).newest == 5
        assert batch_log.ends(rows).folded_through == 3
    with pytest.raises(BatchEvictedError):
        read_page(db, 2)
    assert read_page(db, 5, through=5) == []


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("UPDATE log SET payload = 'x'::BLOB WHERE sequence = 7", "batch 7 does not match"),
        ("DELETE FROM log WHERE sequence = 7", "of the batches 5 to 20 only 15 are in the log"),
        ("DELETE FROM log WHERE sequence = 5", "batch 5 is missing"),
        ("DELETE FROM log WHERE sequence < 8", "batch 5 is missing"),
    ],
)
def test_a_damaged_page_is_not_handed_out(db: Database, damage: str, sentence: str) -> None:
    write(db, 1, 20)
    change(db, damage)
    with pytest.raises(CorruptionError, match=sentence):
        read_page(db, 4)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("DELETE FROM log WHERE sequence = 7", "of the batches 1 to 20 only 19"),
        ("DELETE FROM log WHERE sequence < 7", "holds the batches 7 to 20, but its floor is 1"),
        (
            (
                "UPDATE meta SET value = '\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x19'::BLOB"
                " WHERE name = 'folded_through'"
            ),
            "and the table is folded through 25",
        ),
    ],
)
def test_ends_that_contradict_each_other_are_corruption(
    db: Database, damage: str, sentence: str
) -> None:
    write(db, 1, 20)
    change(db, damage)
    with reading(db) as rows, pytest.raises(CorruptionError, match=sentence):
        batch_log.ends(rows)


def test_recovery_reads_everything_after_a_sequence(db: Database) -> None:
    write(db, 1, 2500)
    with reading(db) as rows:
        found = batch_log.after(rows, 20, through=2400, bytes_max=MIB)
        assert [batch.sequence for batch in found] == list(range(21, 2401))
        with pytest.raises(CorruptionError, match="batch 2501 is missing"):
            list(batch_log.after(rows, 2400, through=2501, bytes_max=MIB))


def test_the_first_batch_since_a_time_is_found(db: Database) -> None:
    with reading(db) as rows:
        assert batch_log.sequence_at(rows, 0) == 1
    write(db, 1, 20)
    evict(db, 5, rows_max=2)
    with reading(db) as rows:
        assert batch_log.sequence_at(rows, 0) == 5
        assert batch_log.sequence_at(rows, 7_000_000) == 7
        assert batch_log.sequence_at(rows, 7_000_001) == 8
        assert batch_log.sequence_at(rows, 20_000_001) == 21


SIZE = len(make_batch(1000).payload)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("retention", "floor"),
    [
        (Retention(), 1000),
        (Retention(batches_max=10), 3991),
        (Retention(batches_max=0), 4001),
        (Retention(batches_max=99_999), 1000),
        (Retention(seconds_max=50), 3990),
        (Retention(seconds_max=0), 4001),
        (Retention(seconds_max=99_999), 1000),
        (Retention(bytes_max=7 * SIZE), 3994),
        (Retention(bytes_max=7 * SIZE - 1), 3995),
        (Retention(bytes_max=1500 * SIZE), 2501),
        (Retention(bytes_max=3000 * SIZE), 1001),
        (Retention(bytes_max=3001 * SIZE), 1000),
        (Retention(bytes_max=0), 4001),
        (Retention(batches_max=10, seconds_max=45, bytes_max=1500 * SIZE), 3995),
    ],
    ids=str,
)
def test_retention_asks_for_a_floor(db: Database, retention: Retention, floor: int) -> None:
    write(db, 1, 4000)
    evict(db, 1000, rows_max=10)
    with reading(db) as rows:
        assert batch_log.cutoff(rows, retention, 4_040_000_000) == floor


def test_an_empty_log_is_within_every_retention(db: Database) -> None:
    with reading(db) as rows:
        assert batch_log.cutoff(rows, Retention(0, 0, 0), 0) == 1
    write(db, 1, 3)
    evict(db, 4, rows_max=10)
    with reading(db) as rows:
        assert batch_log.cutoff(rows, Retention(0, 0, 0), 0) == 4


def test_the_view_shows_what_is_retained(db: Database) -> None:
    write(db, 1, 5)
    evict(db, 3, rows_max=1)
    found = db.con.execute("SELECT sequence, epoch_us(committed_at), entries FROM exo_log")
    assert found.fetchall() == [(3, 3_000_000, 1), (4, 4_000_000, 1), (5, 5_000_000, 1)]


def test_a_meta_value_is_written_whether_or_not_it_was_there(db: Database) -> None:
    assert "new" not in meta.load(db.con)
    with db.transaction() as con:
        meta.write_number(con, "new", 1)
        meta.write_number(con, "new", 2)
    assert meta.load(db.con)["new"] == number(2)
