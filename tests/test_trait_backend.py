"""A backend with only the nine methods: what it serves, and what it is refused."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

import pytest

from exo_stream.conformance import STORE_ENGINE_CHECKS
from exo_stream.errors import (
    BatchEvictedError,
    OutcomeUnknownError,
    StoreError,
    UnsupportedError,
)
from exo_stream.model import Entry, Row, row_key
from exo_stream.payload import EncodedBatch, encode_entries
from exo_stream.storage.engine import COLD, Group, Page, Retention, StoreEngine
from exo_stream.storage.memory_engine import MemoryEngine
from exo_stream.storage.trait_backend import TraitBackend, TraitReader
from tests.nine_methods import NineMethods


@pytest.fixture
def store() -> NineMethods:
    return NineMethods()


@pytest.fixture
def backend(store: NineMethods) -> TraitBackend:
    return TraitBackend(store)


def write(backend: TraitBackend, *entries: Entry, floor: int | None = None) -> Group:
    batches = [EncodedBatch(backend.version.frontier + 1, 5, encode_entries(entries), entries)]
    group = backend.commit(Group(batches if entries else [], floor=floor))
    backend.install(group)
    return group


def put(backend: TraitBackend, *keys: bytes) -> int:
    return write(backend, *[Entry(0, key, b"v" + key) for key in keys]).batches[0].sequence


def page(backend: TraitBackend, after: int, **bounds: int) -> list[int]:
    wanted = {"through": backend.version.frontier, "batches_max": 100, "bytes_max": 1000} | bounds
    return [batch.sequence for batch in backend.open_reader().log_page(after, **wanted)]


@pytest.mark.parametrize("check", STORE_ENGINE_CHECKS, ids=attrgetter("__name__"))
def test_the_store_of_these_tests_is_itself_one(check: Callable[[StoreEngine], None]) -> None:
    check(NineMethods())


def test_the_sequences_are_those_of_the_backend(backend: TraitBackend) -> None:
    assert backend.own_sequences
    assert [put(backend, b"a"), put(backend, b"b")] == [10, 20]
    deletion = write(backend, Entry(0, b"a", None))
    assert deletion.batches[0].sequence == 30
    assert (backend.version.frontier, backend.version.floor) == (30, 10)
    assert backend.last_committed_at == 5
    assert backend.reopen() == 30


def test_nothing_is_visible_before_it_is_installed(backend: TraitBackend) -> None:
    entries = (Entry(0, b"a", b"1"),)
    group = backend.commit(Group([EncodedBatch(1, 5, encode_entries(entries), entries)]))
    assert backend.version.frontier == 0
    backend.install(group)
    assert backend.version.frontier == 10


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([Entry(0, b"a", b"1"), Entry(0, b"b", None)], id="puts and deletions"),
        pytest.param([Entry(1, b"a", b"1")], id="another keyspace"),
        pytest.param([], id="nothing"),
    ],
)
def test_what_nine_methods_cannot_do_is_refused_before_anything_is_written(
    backend: TraitBackend, store: NineMethods, entries: list[Entry]
) -> None:
    with pytest.raises(UnsupportedError):
        backend.commit(Group([EncodedBatch(1, 5, encode_entries(entries), tuple(entries))]))
    assert store.current_sequence() == 0


def test_a_failure_of_the_backend_is_a_failed_store(
    backend: TraitBackend, store: NineMethods
) -> None:
    store.broken = True
    with pytest.raises(StoreError, match="RuntimeError"):
        put(backend, b"a")


def test_a_number_that_does_not_rise_is_an_unknown_outcome(
    backend: TraitBackend, store: NineMethods
) -> None:
    put(backend, b"a")
    store.inside = MemoryEngine()
    with pytest.raises(OutcomeUnknownError):
        put(backend, b"a")


def test_reads_are_of_the_present_and_versions_unknown(backend: TraitBackend) -> None:
    put(backend, b"a", b"b")
    wanted = [row_key(0, b"b"), row_key(0, b"x"), row_key(1, b"a")]
    assert backend.lookup(backend.version, wanted[0]) is COLD
    assert backend.lookup(backend.version, wanted[2]) is None
    found = backend.open_reader().fetch(backend.version, wanted)
    assert found == [Row(wanted[0], 0, b"vb"), None, None]
    assert backend.open_reader().fetch(backend.version, wanted[2:]) == [None]


def test_a_look_up_asks_no_further_once_it_has_its_bytes(backend: TraitBackend) -> None:
    keys = [b"%03d" % number for number in range(200)]
    put(backend, *keys)
    wanted = [row_key(0, key) for key in keys]
    reader = backend.open_reader()
    assert len(reader.fetch(backend.version, wanted, bytes_max=65 * 4)) == 128
    assert len(reader.fetch(backend.version, wanted)) == 200


def scan(backend: TraitBackend, start: bytes, end: bytes, rows_max: int, forward: bool) -> Page:
    plan = backend.scan(
        backend.version, start, end, rows_max=rows_max, bytes_max=1000, forward=forward
    )
    assert not plan.in_memory
    return plan.run(backend.open_reader())


@pytest.mark.parametrize("rows_max", [1, 2, 3, 10])
@pytest.mark.parametrize("forward", [True, False])
def test_pages_follow_one_another(backend: TraitBackend, rows_max: int, forward: bool) -> None:
    keys = [b"%d" % number for number in range(7)]
    put(backend, *keys)
    for low, high, expected in [
        (b"", b"\xff", keys),
        (row_key(0, b"2"), row_key(0, b"5"), keys[2:5]),
        (row_key(0, b"2"), row_key(0, b"4+"), keys[2:5]),
        (row_key(1, b""), row_key(2, b""), []),
    ]:
        found: list[bytes] = []
        start, end = low, high
        while True:
            part = scan(backend, start, end, rows_max, forward)
            found += [row.key[1:] for row in part.rows]
            if part.resume is None:
                break
            start, end = (part.resume, end) if forward else (start, part.resume)
        assert found == expected[:: 1 if forward else -1]


def test_the_log_is_replayed_without_deletions_and_over_holes(backend: TraitBackend) -> None:
    put(backend, b"a")
    write(backend, Entry(0, b"a", None))
    put(backend, b"b")
    batches = backend.open_reader().log_page(9, through=30, batches_max=9, bytes_max=1000)
    assert [(batch.sequence, batch.entries) for batch in batches] == [
        (10, (Entry(0, b"a", b"va"),)),
        (20, ()),
        (30, (Entry(0, b"b", b"vb"),)),
    ]
    assert page(backend, 10) == [20, 30]
    assert page(backend, 9, batches_max=1) == [10]
    assert page(backend, 9, bytes_max=1) == [10]
    assert page(backend, 30) == []


def test_one_page_looks_at_a_bounded_number_of_holes(
    backend: TraitBackend, store: NineMethods, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend may number by the microsecond; the reader thread is not gone for an hour."""
    looked_at: list[int] = []
    monkeypatch.setattr(store, "get_batch", looked_at.append)
    monkeypatch.setattr(store, "oldest_retained_batch", lambda: 1)
    (last,) = backend.open_reader().log_page(0, through=10**15, batches_max=9, bytes_max=9)
    assert last.sequence == len(looked_at) < 10_000
    assert last.entries == ()


def test_evicted_batches_are_told_apart(backend: TraitBackend) -> None:
    for key in (b"a", b"b", b"c"):
        put(backend, key)
    write(backend, floor=20)
    assert backend.version.floor == 20
    assert page(backend, 19) == [20, 30]
    with pytest.raises(BatchEvictedError) as caught:
        page(backend, 10)
    assert caught.value.oldest_retained == 20


def test_without_a_log_there_is_no_replay(store: NineMethods) -> None:
    store.keeps_log = False
    backend = TraitBackend(store, log_id="0" * 32)
    put(backend, b"a")
    assert (backend.log_id, backend.version.floor) == ("0" * 32, 1)
    assert page(backend, 10) == []
    with pytest.raises(UnsupportedError, match="log"):
        page(backend, 0)
    assert backend.open_reader().cutoff(Retention(), 0) == 11


def test_retention_goes_by_number_only(backend: TraitBackend, store: NineMethods) -> None:
    for key in (b"a", b"b", b"c"):
        put(backend, key)
    reader = TraitReader(store)
    assert reader.cutoff(Retention(), 0) == 10
    assert reader.cutoff(Retention(batches_max=15), 0) == 16
    for rule in (Retention(seconds_max=1), Retention(bytes_max=1)):
        with pytest.raises(UnsupportedError):
            reader.cutoff(rule, 0)
    with pytest.raises(UnsupportedError):
        reader.sequence_at(0)


def test_there_is_no_work_to_do_and_nothing_to_close(backend: TraitBackend) -> None:
    backend.pin(backend.version)
    backend.unpin(backend.version)
    assert (backend.backlogged, backend.space_low) == (False, False)
    assert backend.next_job(0, idle=True) is None
    assert "NineMethods" in backend.statistics().path
    backend.open_reader().interrupt()
    backend.close()
