"""The memtable: what readers see at their frontier, and what is kept for them."""

from __future__ import annotations

from collections.abc import Sequence

from exo_stream.model import Entry, Row, row_key
from exo_stream.storage.memtable import KEYS_SLACK, Capture, Memtable, Node
from tests.tables import batch

A, B = row_key(0, b"a"), row_key(0, b"b")
START, END = row_key(0, b""), row_key(1, b"")


def put(
    memtable: Memtable, sequence: int, *pairs: tuple[bytes, bytes | None], pins: Sequence[int] = ()
) -> None:
    entries = [Entry(0, key, value) for key, value in pairs]
    memtable.apply([batch(sequence, entries)], pins)


def chain(node: Node | None) -> list[int]:
    sequences = []
    while node is not None:
        sequences.append(node[0])
        node = node[2]
    return sequences


def test_without_a_pin_only_the_latest_value_is_kept() -> None:
    memtable = Memtable()
    for sequence in range(1, 5):
        put(memtable, sequence, (b"a", b"%d" % sequence))
    assert memtable.nodes[A] == (4, b"4", None)


def test_nothing_applied_changes_nothing() -> None:
    memtable = Memtable()
    memtable.apply([], [])
    assert (memtable.first_sequence, memtable.entries, memtable.nodes) == (0, 0, {})


def test_each_pin_sees_the_value_of_its_time() -> None:
    memtable = Memtable()
    for sequence in range(1, 9):
        pins = [pin for pin in (2, 5) if pin < sequence]
        put(memtable, sequence, (b"a", b"%d" % sequence), pins=pins)
    assert chain(memtable.nodes[A]) == [8, 5, 2]
    assert [node and node[0] for node in (memtable.node(A, at) for at in (1, 2, 5, 8))] == [
        None,
        2,
        5,
        8,
    ]


def test_a_chain_is_trimmed_when_its_pins_are_gone() -> None:
    memtable = Memtable()
    for sequence in range(1, 9):
        put(memtable, sequence, (b"a", b"v"), pins=list(range(1, sequence)))
    assert chain(memtable.nodes[A]) == [8, 7, 6, 5, 4, 3, 2, 1]
    put(memtable, 9, (b"a", b"v"), pins=[3])
    assert chain(memtable.nodes[A]) == [9, 3]
    put(memtable, 10, (b"a", b"v"), pins=[])
    assert chain(memtable.nodes[A]) == [10]


def test_a_value_that_no_pin_ever_saw_is_not_kept() -> None:
    memtable = Memtable()
    put(memtable, 5, (b"a", b"1"), pins=[4])
    put(memtable, 6, (b"a", b"2"), pins=[4])
    assert chain(memtable.nodes[A]) == [6]
    put(memtable, 7, (b"a", b"3"), (b"a", b"4"), pins=[6])
    assert chain(memtable.nodes[A]) == [7, 6]
    assert memtable.nodes[A][1] == b"4"


def test_a_pin_older_than_the_memtable_keeps_nothing_in_it() -> None:
    memtable = Memtable()
    put(memtable, 5, (b"a", b"1"), pins=[3])
    put(memtable, 6, (b"a", b"2"), pins=[3])
    assert memtable.nodes[A] == (6, b"2", None)


def test_entries_and_bytes_count_what_recovery_would_read() -> None:
    memtable = Memtable()
    put(memtable, 3, (b"a", b"1"), (b"a", b"2"))
    put(memtable, 4, (b"a", None))
    assert (memtable.entries, memtable.first_sequence, memtable.last_sequence) == (3, 3, 4)
    assert memtable.payload_bytes == len(batch(3, [Entry(0, b"a", b"1")] * 2).payload) + len(
        batch(4, [Entry(0, b"a", None)]).payload
    )


def test_keys_come_in_order_also_those_that_arrive_between_scans() -> None:
    memtable = Memtable()
    put(memtable, 1, (b"b", b"1"), (b"d", b"1"))
    assert list(memtable.keys(START, END, forward=True)) == [B, row_key(0, b"d")]
    put(memtable, 2, (b"a", b"1"), (b"c", b"1"), (b"b", b"2"))
    expected = [row_key(0, key) for key in (b"a", b"b", b"c", b"d")]
    assert list(memtable.keys(START, END, forward=True)) == expected
    assert list(memtable.keys(START, END, forward=False)) == expected[::-1]
    assert list(memtable.keys(B, row_key(0, b"d"), forward=True)) == expected[1:3]


def capture(
    memtable: Memtable, *, rows_max: int = 100, forward: bool = True, frontier: int = 9
) -> Capture:
    return memtable.capture(
        START, END, frontier=frontier, rows_max=rows_max, bytes_max=1 << 20, forward=forward
    )


def test_a_capture_has_the_rows_of_its_frontier_tombstones_included() -> None:
    memtable = Memtable()
    put(memtable, 1, (b"a", b"1"), (b"b", None))
    put(memtable, 2, (b"c", b"1"))
    found = capture(memtable, frontier=1)
    assert found.rows == [Row(A, 1, b"1"), Row(B, 1, None)]
    assert (found.start, found.end) == (START, END)


def test_a_bounded_capture_says_for_which_range_it_is_complete() -> None:
    memtable = Memtable()
    put(memtable, 1, *[(b"%d" % number, b"v") for number in range(9)])
    forward = capture(memtable, rows_max=3)
    assert [row.key[1:] for row in forward.rows] == [b"0", b"1", b"2", b"3"]
    assert (forward.start, forward.end) == (START, row_key(0, b"4"))
    backward = capture(memtable, rows_max=3, forward=False)
    assert [row.key[1:] for row in backward.rows] == [b"8", b"7", b"6", b"5"]
    assert (backward.start, backward.end) == (row_key(0, b"5"), END)


def test_a_capture_does_not_wade_through_tombstones_for_ever() -> None:
    memtable = Memtable()
    put(memtable, 1, *[(b"%06d" % number, None) for number in range(2 * KEYS_SLACK)])
    found = capture(memtable, rows_max=1)
    assert len(found.rows) == KEYS_SLACK + 2
    assert found.end < END
