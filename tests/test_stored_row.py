"""Stored rows: the vectors of the Exoware store, the round trip, and bytes that are no row."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exo_stream.reduce.stored_row import (
    LISTS_MAX,
    Cell,
    CellTag,
    StoredRow,
    StoredRowError,
    decode_row,
    encode_row,
)
from tests.reductions import cells


@pytest.mark.parametrize(
    ("row", "encoded"),
    [
        ([Cell(CellTag.I64, 10)], "01 01 00 00 00 00 00 00 00 00 0a"),
        ([None], "01 00"),
        ([], "00"),
        ([Cell(CellTag.UTF8, "x")], "01 01 04 01 78"),
        ([Cell(CellTag.BOOL, True)], "01 01 03 01"),
        ([Cell(CellTag.F64, 1.5)], "01 01 02 3f f8 00 00 00 00 00 00"),
        ([Cell(CellTag.BYTES, b"\xff")], "01 01 05 01 ff"),
        (
            [Cell(CellTag.LIST, (Cell(CellTag.BOOL, False), Cell(CellTag.U64, 1)))],
            "01 01 06 02 03 00 01 00 00 00 00 00 00 00 01",
        ),
    ],
)
def test_rows_are_encoded_as_the_exoware_store_has_them(row: StoredRow, encoded: str) -> None:
    assert encode_row(row) == bytes.fromhex(encoded)
    assert decode_row(bytes.fromhex(encoded)) == row


def test_bytes_after_the_last_cell_are_not_looked_at() -> None:
    assert decode_row(b"\x00rest") == []


@settings(max_examples=25)
@given(st.lists(cells, max_size=8), st.binary(max_size=4))
def test_what_is_encoded_is_decoded(row: StoredRow, rest: bytes) -> None:
    encoded = encode_row(row)

    decoded = decode_row(encoded + rest)
    assert [None if cell is None else cell.tag for cell in decoded] == [
        None if cell is None else cell.tag for cell in row
    ]
    assert encode_row(decoded) == encoded  # a NaN does not even equal itself


@settings(max_examples=25)
@given(st.binary(max_size=40) | st.lists(cells, max_size=4).map(encode_row).map(lambda r: r[:-1]))
def test_any_bytes_are_a_row_or_refused(data: bytes) -> None:
    try:
        row = decode_row(data)
    except StoredRowError:
        return
    assert len(row) <= len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",  # no count
        b"\x01",  # no cell
        b"\x01\x02",  # neither null nor a value
        b"\x01\x01\x07",  # no such tag
        b"\x01\x01\x03\x02",  # no bool
        b"\x01\x01\x04\x02a",  # a text that ends early
        b"\x01\x01\x04\x01\xff",  # no text
        b"\x01\x01\x00\x00",  # a number that ends early
        b"\x81\x00",  # a varint that is longer than need be
        b"\xff\xff\xff\xff\x7f",  # more than 32 bits
        b"\xff\xff\xff\xff\x0f",  # more cells than there are bytes
        b"\x01" + b"\x01" + b"\x06\x01" * (LISTS_MAX + 1) + b"\x03\x00",  # lists too deep
        b"\x01\x01\x06\xff\xff\xff\xff\x0f",  # a list that ends early
    ],
)
def test_what_is_no_row_is_refused(data: bytes) -> None:
    with pytest.raises(StoredRowError):
        decode_row(data)


@pytest.mark.parametrize(
    "cell",
    [
        Cell(CellTag.I64, 1 << 63),
        Cell(CellTag.U64, -1),
        Cell(CellTag.F64, "x"),
        Cell(CellTag.BOOL, 2.5),
        Cell(CellTag.UTF8, b"x"),
        Cell(CellTag.UTF8, "\ud800"),
        Cell(CellTag.BYTES, "x"),
        Cell(CellTag.LIST, 1),
        Cell(7, 1),
    ],
)
def test_a_cell_that_does_not_fit_its_tag_is_refused(cell: Cell) -> None:
    with pytest.raises(StoredRowError):
        encode_row([cell])


def test_counts_take_as_many_bytes_as_they_need() -> None:
    row: StoredRow = [None] * 300
    assert encode_row(row).startswith(b"\xac\x02\x00")
    assert decode_row(encode_row(row)) == row


def test_lists_may_be_so_deep_and_no_deeper() -> None:
    cell = Cell(CellTag.BOOL, True)
    for _ in range(LISTS_MAX):
        cell = Cell(CellTag.LIST, (cell,))
    assert decode_row(encode_row([cell])) == [cell]

    with pytest.raises(StoredRowError):
        encode_row([Cell(CellTag.LIST, (cell,))])
