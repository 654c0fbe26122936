"""Conformance: what a backend of your own must do, as checks to run on it.

    @pytest.mark.parametrize("check", STORE_ENGINE_CHECKS, ids=attrgetter("__name__"))
    def test_my_store(check, tmp_path):
        check(MyStore(tmp_path))

Each check takes one fresh, empty backend and raises AssertionError where that goes wrong.
``LOG_CHECKS`` are for a ``StoreEngine`` that keeps its batches; one whose ``get_batch`` always
answers None serves reads, writes and live feeds without them. ``ENGINE_CHECKS`` are for an
``Engine``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import Thread  # noqa: TID251  the trait must bear threads
from typing import Final

from exo_stream.errors import BatchEvictedError
from exo_stream.limits import STORE_KEY_BYTES_MAX, Limits
from exo_stream.model import Entry, Row, row_key
from exo_stream.payload import EncodedBatch, encode_entries
from exo_stream.reduce.reduction import Reduction
from exo_stream.reduce.request import ReduceOp, Reducer, ReduceRequest
from exo_stream.reduce.scalar import Kind, Scalar
from exo_stream.storage.engine import Cold, Engine, Group, Retention, StoreEngine, Version

_SECOND: Final = 1_000_000
_ODD_KEYS: Final = (b"", b"\0", b"\0\0", b"\0\xff", b"a", b"a\0", b"\xff", b"\xff" * 254)
_START, _END = row_key(0, b""), row_key(1, b"")


def a_new_store_is_empty(store: StoreEngine) -> None:
    assert store.current_sequence() == 0
    assert store.get(b"a") is None
    assert store.get_many([]) == []
    assert store.range_scan(b"", b"", 10, forward=True) == []
    assert store.oldest_retained_batch() is None
    assert store.get_batch(1) is None


def a_put_is_read_back(store: StoreEngine) -> None:
    sequence = store.put_batch([(b"a", b"1"), (b"b", b"2")])
    assert sequence >= 1
    assert store.current_sequence() == sequence
    assert (store.get(b"a"), store.get(b"b"), store.get(b"c")) == (b"1", b"2", None)


def sequences_rise(store: StoreEngine) -> None:
    given = [store.put_batch([(b"a", b"1")]), store.delete_batch([b"a"])]
    given += [store.delete_batch([b"never there"]), store.put_batch([(b"a", b"2")])]
    assert given == sorted(set(given)), given


def the_last_of_one_key_in_a_batch_wins(store: StoreEngine) -> None:
    store.put_batch([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])
    assert store.get(b"a") == b"3"
    assert store.range_scan(b"", b"", 10, forward=True) == [(b"a", b"3"), (b"b", b"2")]


def a_deleted_key_is_absent(store: StoreEngine) -> None:
    store.put_batch([(b"a", b"1"), (b"b", b"2"), (b"c", b"3")])
    store.delete_batch([b"a", b"c", b"never there"])
    assert store.get(b"a") is None
    assert store.range_scan(b"", b"", 10, forward=True) == [(b"b", b"2")]
    store.put_batch([(b"a", b"4")])
    assert store.get(b"a") == b"4"


def get_many_keeps_order_and_duplicates(store: StoreEngine) -> None:
    store.put_batch([(b"a", b"1"), (b"b", b"2")])
    asked = [b"b", b"x", b"a", b"b", b"x"]
    answers = [b"2", None, b"1", b"2", None]
    assert store.get_many(asked) == list(zip(asked, answers, strict=True))


def both_ends_of_a_range_are_inclusive(store: StoreEngine) -> None:
    pairs = [(bytes([letter]), b"v") for letter in b"abcdef"]
    store.put_batch(pairs)
    assert store.range_scan(b"b", b"d", 10, forward=True) == pairs[1:4]
    assert store.range_scan(b"b", b"d", 10, forward=False) == pairs[3:0:-1]
    assert store.range_scan(b"b", b"", 10, forward=True) == pairs[1:]
    assert store.range_scan(b"bb", b"dd", 10, forward=True) == pairs[2:4]
    assert store.range_scan(b"c", b"c", 10, forward=True) == pairs[2:3]
    assert store.range_scan(b"d", b"b", 10, forward=True) == []


def a_limit_counts_in_the_direction_of_the_scan(store: StoreEngine) -> None:
    pairs = [(bytes([letter]), b"v") for letter in b"abcdef"]
    store.put_batch(pairs)
    store.delete_batch([b"b", b"e"])
    left = [pair for pair in pairs if pair[0] not in {b"b", b"e"}]
    assert store.range_scan(b"", b"", 0, forward=True) == []
    assert store.range_scan(b"", b"", 2, forward=True) == left[:2]
    assert store.range_scan(b"", b"", 2, forward=False) == left[:1:-1]


def any_bytes_are_keys_in_bytewise_order(store: StoreEngine) -> None:
    store.put_batch([(key, key) for key in reversed(_ODD_KEYS)])
    assert [store.get(key) for key in _ODD_KEYS] == list(_ODD_KEYS)
    expected = [(key, key) for key in sorted(_ODD_KEYS)]
    assert store.range_scan(b"", b"", 100, forward=True) == expected
    assert store.range_scan(b"", b"", 100, forward=False) == expected[::-1]
    assert store.range_scan(b"\0", b"\0\xff", 100, forward=True) == expected[1:4]


def an_empty_value_is_a_value(store: StoreEngine) -> None:
    store.put_batch([(b"a", b"")])
    assert store.get(b"a") == b""
    assert store.range_scan(b"", b"", 10, forward=True) == [(b"a", b"")]


def a_large_value_comes_back_whole(store: StoreEngine) -> None:
    value = bytes(range(256)) * (10 * 4096)
    store.put_batch([(b"a", b"1"), (b"b", value), (b"c", b"3")])
    assert store.get(b"b") == value
    assert store.get(b"a") == b"1"


def a_key_that_is_too_long_is_refused_whole(store: StoreEngine) -> None:
    try:
        store.put_batch([(b"a", b"1"), (b"k" * (STORE_KEY_BYTES_MAX + 1), b"2")])
    except Exception:  # noqa: BLE001  which error is the backend's own affair
        assert store.get(b"a") is None
    else:
        raise AssertionError(f"a key of {STORE_KEY_BYTES_MAX + 1} bytes was taken")


def threads_may_write_at_once(store: StoreEngine) -> None:
    given: list[int] = []

    def write(writer: int) -> None:
        for number in range(20):
            key = b"%d/%d" % (writer, number)
            given.append(store.put_batch([(key, key)]))
            assert store.get(key) == key

    threads = [Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(given)) == 80, given
    assert len(store.range_scan(b"", b"", 100, forward=True)) == 80


def batches_are_kept_as_they_were_written(store: StoreEngine) -> None:
    pairs = [(b"b", b"1"), (b"a", b"2"), (b"b", b"3")]
    put = store.put_batch(pairs)
    deletion = store.delete_batch([b"a"])
    assert store.get_batch(put) == pairs
    assert store.get_batch(deletion) == []
    assert store.get_batch(deletion + 1) is None
    assert store.oldest_retained_batch() == put


def pruning_evicts_batches_and_keeps_the_table(store: StoreEngine) -> None:
    given = [store.put_batch([(b"%d" % number, b"v")]) for number in range(5)]
    assert store.prune_batch_log(given[2]) == 2
    assert store.oldest_retained_batch() == given[2]
    assert (store.get_batch(given[1]), store.get_batch(given[2])) == (None, [(b"2", b"v")])
    assert store.prune_batch_log(given[1]) == 0
    assert store.get(b"0") == b"v"


def an_emptied_log_gives_no_number_again(store: StoreEngine) -> None:
    last = store.put_batch([(b"a", b"1")])
    assert store.prune_batch_log(last + 100) == 1
    assert store.oldest_retained_batch() is None
    assert store.current_sequence() == last
    assert store.put_batch([(b"a", b"2")]) > last


STORE_ENGINE_CHECKS: Final[Sequence[Callable[[StoreEngine], None]]] = (
    a_new_store_is_empty,
    a_put_is_read_back,
    sequences_rise,
    the_last_of_one_key_in_a_batch_wins,
    a_deleted_key_is_absent,
    get_many_keeps_order_and_duplicates,
    both_ends_of_a_range_are_inclusive,
    a_limit_counts_in_the_direction_of_the_scan,
    any_bytes_are_keys_in_bytewise_order,
    an_empty_value_is_a_value,
    a_large_value_comes_back_whole,
    a_key_that_is_too_long_is_refused_whole,
    threads_may_write_at_once,
)

LOG_CHECKS: Final[Sequence[Callable[[StoreEngine], None]]] = (
    batches_are_kept_as_they_were_written,
    pruning_evicts_batches_and_keeps_the_table,
    an_emptied_log_gives_no_number_again,
)


def a_group_is_visible_once_installed(engine: Engine) -> None:
    before = engine.version
    assert (before.frontier, before.floor, engine.last_committed_at) == (0, 1, 0)
    group = _group(engine, [(b"a", b"1")], [(b"a", b"2"), (b"b", None)])
    committed = engine.commit(group)
    assert engine.version is before
    engine.install(committed)
    assert engine.version is not before
    assert (engine.version.frontier, engine.last_committed_at) == (2, 2 * _SECOND)
    assert _rows(engine) == [(b"a", 2, b"2")]


def a_row_tells_the_sequence_of_its_last_write(engine: Engine) -> None:
    _write(engine, [(b"a", b"1"), (b"b", b"1"), (b"a", b"2")], [(b"b", None)])
    version = engine.version
    assert _row(engine, version, b"a") == Row(row_key(0, b"a"), 1, b"2")
    tombstone = _row(engine, version, b"b")
    assert tombstone in {None, Row(row_key(0, b"b"), 2, None)}
    assert _row(engine, version, b"c") is None


def a_pinned_version_shows_what_it_showed(engine: Engine) -> None:
    _write(engine, [(b"a", b"1"), (b"b", b"1"), (b"c", b"1")])
    old = engine.version
    engine.pin(old)
    engine.pin(old)
    engine.unpin(old)
    for number in range(2, 6):
        _write(engine, [(b"a", b"%d" % number), (b"b", None), (b"d", b"new")])
        _work(engine)
    expected = [(key, 1, b"1") for key in (b"a", b"b", b"c")]
    for forward in (True, False):
        assert _rows(engine, old, forward=forward) == expected[:: 1 if forward else -1]
    assert _row(engine, old, b"b") == Row(row_key(0, b"b"), 1, b"1")
    assert _row(engine, old, b"d") is None
    engine.unpin(old)
    _work(engine)
    assert _rows(engine) == [(b"a", 5, b"5"), (b"c", 1, b"1"), (b"d", 5, b"new")]


def pages_follow_one_another_without_gap_or_repetition(engine: Engine) -> None:
    keys = [b"%03d" % number for number in range(50)]
    _write(engine, [(key, b"v" * 10) for key in keys])
    _write(engine, [(key, None) for key in keys[10:40:2]])
    left = [key for key in keys if key not in set(keys[10:40:2])]
    for rows_max in (1, 3, 7, 50):
        for forward in (True, False):
            rows = _rows(engine, rows_max=rows_max, forward=forward)
            assert [row[0] for row in rows] == left[:: 1 if forward else -1]
    assert [row[0] for row in _rows(engine, bytes_max=1)] == left


def a_reduce_reads_what_is_live_at_its_version(engine: Engine) -> None:
    """Slice after slice of a pinned Version, whatever is written meanwhile."""
    _write(engine, [(b"%02d" % number, b"v") for number in range(50)], [(b"07", None)])
    version = engine.version
    engine.pin(version)
    _write(engine, [(b"99", b"v")], [(b"08", None)])
    request = ReduceRequest((Reducer(ReduceOp.COUNT_ALL),))
    reducing = engine.open_reduce(
        version, row_key(0, b"05"), row_key(0, b"90"), Reduction(request, Limits())
    )
    result = None
    while result is None:
        if reducing.plan():
            result = reducing.run(engine.open_reader())
    engine.unpin(version)
    assert result.results == (Scalar(Kind.UINT64, 44),), result
    assert (result.sequence, result.read_stats.read_bytes) == (version.frontier, 44 * 3), result


def keyspaces_do_not_mix(engine: Engine) -> None:
    entries = [Entry(keyspace, b"k", bytes([keyspace])) for keyspace in (2, 0, 1)]
    _commit(engine, Group([_batch(engine.version.frontier + 1, entries)]))
    assert _rows(engine) == [(b"k", 1, b"\0")]
    for keyspace in (0, 1, 2):
        row = _row(engine, engine.version, b"k", keyspace)
        assert row == Row(row_key(keyspace, b"k"), 1, bytes([keyspace]))


def the_log_is_read_by_pages(engine: Engine) -> None:
    for number in range(1, 7):
        _write(engine, [(b"a", b"%d" % number)])
    reader = engine.open_reader()

    def page(after: int, through: int = 6, batches_max: int = 100, bytes_max: int = 1000) -> object:
        batches = reader.log_page(
            after, through=through, batches_max=batches_max, bytes_max=bytes_max
        )
        return [(batch.sequence, batch.committed_at // _SECOND) for batch in batches]

    assert page(0) == [(number, number) for number in range(1, 7)]
    assert page(2, through=4) == [(3, 3), (4, 4)]
    assert page(2, batches_max=1) == [(3, 3)]
    assert page(2, bytes_max=1) == [(3, 3)]
    assert page(6) == []
    (last,) = reader.log_page(5, through=6, batches_max=9, bytes_max=9)
    assert last.entries == (Entry(0, b"a", b"6"),)


def a_moved_floor_evicts_batches_at_once(engine: Engine) -> None:
    for number in range(1, 7):
        _write(engine, [(b"%d" % number, b"v")])
    _commit(engine, Group([], floor=4))
    assert (engine.version.frontier, engine.version.floor) == (6, 4)
    _work(engine)
    reader = engine.open_reader()
    page = reader.log_page(3, through=6, batches_max=9, bytes_max=1000)
    assert [batch.sequence for batch in page] == [4, 5, 6]
    assert len(_rows(engine)) == 6
    _commit(engine, Group([], floor=7))
    _work(engine)
    assert engine.version.floor == 7
    assert reader.log_page(6, through=6, batches_max=9, bytes_max=9) == []
    try:
        gone = reader.log_page(2, through=6, batches_max=9, bytes_max=1000)
    except BatchEvictedError:
        pass
    else:
        # Not yet deleted; but never anything else than what was there.
        assert [batch.sequence for batch in gone] == [3, 4, 5, 6]


def times_and_retention_name_sequences(engine: Engine) -> None:
    for number in range(1, 7):
        _write(engine, [(b"a", b"%d" % number)])
    reader = engine.open_reader()
    times = [0, _SECOND, _SECOND + 1, 6 * _SECOND, 7 * _SECOND]
    assert [reader.sequence_at(time) for time in times] == [1, 1, 2, 6, 7]
    now = 6 * _SECOND
    size = len(encode_entries([Entry(0, b"a", b"1")]))
    assert reader.cutoff(Retention(), now) == 1
    assert reader.cutoff(Retention(batches_max=2), now) == 5
    assert reader.cutoff(Retention(seconds_max=2), now) == 4
    assert reader.cutoff(Retention(bytes_max=3 * size), now) == 4
    assert reader.cutoff(Retention(batches_max=100, seconds_max=1), now) == 5


def a_change_is_told_by_its_sequence(engine: Engine) -> None:
    for number in range(1, 5):
        _write(engine, [(b"old" if number == 1 else b"new", b"%d" % number)])
    _work(engine)
    version = engine.version

    def changed(key: bytes, since: int) -> set[bool]:
        found = engine.changed(version, row_key(0, key), since)
        return {True, False} if isinstance(found, Cold) else {found}

    assert True in changed(b"new", 3)
    for key, since in ((b"new", 4), (b"old", 1), (b"old", 3), (b"never", 1)):
        assert False in changed(key, since), (key, since)
    # Asked of what just came, an engine need not look into a file.
    _write(engine, [(b"old", None)])
    version = engine.version
    assert changed(b"old", 4) == {True}
    assert changed(b"new", 4) == {False}


def the_bytes_of_the_log_are_counted_from_its_floor(engine: Engine) -> None:
    for number in range(1, 7):
        _write(engine, [(b"a", b"%d" % number)])
    size = len(encode_entries([Entry(0, b"a", b"1")]))
    reader = engine.open_reader()
    assert [reader.log_bytes(floor) for floor in (1, 4, 6, 7)] == [6 * size, 3 * size, size, 0]


ENGINE_CHECKS: Final[Sequence[Callable[[Engine], None]]] = (
    a_group_is_visible_once_installed,
    a_row_tells_the_sequence_of_its_last_write,
    a_pinned_version_shows_what_it_showed,
    pages_follow_one_another_without_gap_or_repetition,
    a_reduce_reads_what_is_live_at_its_version,
    keyspaces_do_not_mix,
    the_log_is_read_by_pages,
    a_moved_floor_evicts_batches_at_once,
    times_and_retention_name_sequences,
    a_change_is_told_by_its_sequence,
    the_bytes_of_the_log_are_counted_from_its_floor,
)


def _batch(sequence: int, entries: Sequence[Entry]) -> EncodedBatch:
    return EncodedBatch(sequence, sequence * _SECOND, encode_entries(entries), tuple(entries))


def _group(engine: Engine, *batches: Iterable[tuple[bytes, bytes | None]]) -> Group:
    first = engine.version.frontier + 1
    return Group(
        [
            _batch(sequence, [Entry(0, key, value) for key, value in pairs])
            for sequence, pairs in enumerate(batches, first)
        ]
    )


def _commit(engine: Engine, group: Group) -> None:
    engine.install(engine.commit(group))
    while engine.backlogged:
        _work(engine)


def _write(engine: Engine, *batches: Iterable[tuple[bytes, bytes | None]]) -> None:
    _commit(engine, _group(engine, *batches))


def _work(engine: Engine) -> None:
    """Do every job there is."""
    while (job := engine.next_job(0, idle=True)) is not None:
        while not job.step():
            pass
        job.install()


def _row(engine: Engine, version: Version, key: bytes, keyspace: int = 0) -> Row | None:
    row = engine.lookup(version, row_key(keyspace, key))
    (fetched,) = engine.open_reader().fetch(version, [row_key(keyspace, key)])
    assert isinstance(row, Cold) or row == fetched, (row, fetched)
    return fetched


def _rows(
    engine: Engine,
    version: Version | None = None,
    *,
    rows_max: int = 100,
    bytes_max: int = 1 << 20,
    forward: bool = True,
) -> list[tuple[bytes, int, bytes | None]]:
    """Every row of the store's keyspace, page by page."""
    rows: list[Row] = []
    start, end = _START, _END
    while True:
        plan = engine.scan(
            version or engine.version,
            start,
            end,
            rows_max=rows_max,
            bytes_max=bytes_max,
            forward=forward,
        )
        page = plan.run(None if plan.in_memory else engine.open_reader())
        assert len(page.rows) <= rows_max, page
        rows += page.rows
        if page.resume is None:
            return [(row.key[1:], row.sequence, row.value) for row in rows]
        start, end = (page.resume, end) if forward else (start, page.resume)
