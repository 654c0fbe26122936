"""Stored rows: the cells of a value, as the Exoware store's tables write them.

    row  = varint(number of cells), cell …
    cell = 00 (null) | 01 tag body

All numbers are big-endian; a varint is the shortest LEB128 of at most 32 bits. What follows the
last cell is not looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias, cast

from exo_stream.errors import InvalidRequestError

LISTS_MAX: Final = 16
"""How deep lists may stand in lists."""

_COUNT_MAX: Final = (1 << 32) - 1


class CellTag(IntEnum):
    """The type of a cell, under its tag."""

    I64 = 0
    U64 = 1
    F64 = 2
    BOOL = 3
    UTF8 = 4
    BYTES = 5
    LIST = 6


class Cell(NamedTuple):
    """One value of a row: an int, float, bool, str or bytes, or a tuple of cells for a list."""

    tag: int
    value: int | float | str | bytes | tuple[Cell, ...]


StoredRow: TypeAlias = "list[Cell | None]"
"""The cells of a row; None is a null."""

WIDE: Final = {CellTag.I64: ">q", CellTag.U64: ">Q", CellTag.F64: ">d"}
"""The tags of eight bytes, and how those are packed."""

_WIDE: Final = tuple(struct.Struct(format_) for format_ in WIDE.values())


class StoredRowError(InvalidRequestError):
    """The bytes are no stored row, or the cells cannot be written as one."""


def encode_row(cells: Sequence[Cell | None]) -> bytes:
    """The value that stores these cells.

    Raises StoredRowError if one does not fit its tag.
    """
    parts = [_varint(len(cells))]
    for cell in cells:
        if cell is None:
            parts.append(b"\x00")
        else:
            parts += (b"\x01", _encoded(cell, LISTS_MAX))
    return b"".join(parts)


def decode_row(data: bytes) -> StoredRow:
    """The cells that ``data`` stores.

    Raises StoredRowError for anything that is no row, and never another exception.
    """
    try:
        return _decode(data)
    except (IndexError, struct.error, UnicodeDecodeError):
        raise StoredRowError("the row ends early, or holds what is no text") from None


def _decode(data: bytes) -> StoredRow:
    count, at = _read_varint(data, 0)
    cells: StoredRow = []
    for _ in range(count):  # data that ends early ends it early
        marker = data[at]
        if marker == 0:
            cells.append(None)
            at += 1
            continue
        if marker != 1:
            raise StoredRowError(f"a cell begins with 0 or 1, not {marker}")
        tag = data[at + 1]
        if tag <= CellTag.F64:
            cells.append(Cell(tag, _WIDE[tag].unpack_from(data, at + 2)[0]))
            at += 10
        else:
            cell, at = _read_tagged(data, at + 1, LISTS_MAX)
            cells.append(cell)
    return cells


def _read_tagged(data: bytes, at: int, lists: int) -> tuple[Cell, int]:
    """The cell whose tag is at ``at``, and where the next one begins."""
    tag = data[at]
    at += 1
    if tag <= CellTag.F64:
        return Cell(tag, _WIDE[tag].unpack_from(data, at)[0]), at + 8
    if tag == CellTag.BOOL:
        if data[at] > 1:
            raise StoredRowError(f"a bool is 0 or 1, not {data[at]}")
        return Cell(tag, data[at] == 1), at + 1
    if tag > CellTag.LIST:
        raise StoredRowError(f"there is no tag {tag}")
    length, at = _read_varint(data, at)
    if tag == CellTag.LIST:
        return _read_list(data, at, length, lists)
    end = at + length
    if end > len(data):
        raise StoredRowError("the row ends early")
    body = data[at:end]
    return Cell(tag, body.decode() if tag == CellTag.UTF8 else body), end


def _read_list(data: bytes, at: int, count: int, lists: int) -> tuple[Cell, int]:
    if not lists:
        raise StoredRowError(f"lists stand in lists {LISTS_MAX} deep at most")
    items: list[Cell] = []
    for _ in range(count):  # data that ends early ends it early
        item, at = _read_tagged(data, at, lists - 1)
        items.append(item)
    return Cell(CellTag.LIST, tuple(items)), at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint, and where what follows it begins."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    number, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        number |= (byte & 0x7F) << shift
        if number > _COUNT_MAX:
            raise StoredRowError("a varint has at most 32 bits")
        if byte < 0x80:
            if not byte:
                raise StoredRowError("a varint is as short as can be")
            return number, at + 1
        shift += 7


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _encoded(cell: Cell, lists: int) -> bytes:
    tag, value = cell
    head = bytes([tag])
    # A cast asserts nothing: what is not as its tag says raises one of the errors below.
    try:
        match tag:
            case CellTag.I64 | CellTag.U64 | CellTag.F64:
                return head + _WIDE[tag].pack(value)
            case CellTag.BOOL:
                return head + bytes([cast("bool", value)])
            case CellTag.UTF8:
                return head + _counted(cast("str", value).encode())
            case CellTag.BYTES:
                return head + _counted(bytes(cast("bytes", value)))
            case CellTag.LIST if lists:
                items = [_encoded(item, lists - 1) for item in cast("tuple[Cell, ...]", value)]
                return head + _varint(len(items)) + b"".join(items)
    except (struct.error, TypeError, ValueError, AttributeError):
        raise StoredRowError(f"{value!r} is no {CellTag(tag).name.lower()}") from None
    raise StoredRowError(f"there is no tag {tag}, or lists stand too deep")


def _counted(body: bytes) -> bytes:
    return _varint(len(body)) + body
