"""Blocks: sorted runs of table rows in the file, and what memory knows of each.

Two things here are part of the file's format:

* ``filters.fences`` is CBOR ``[last key, [first key, …], [id, …], [rows, …], [size, …]]`` with one
  item per sub-block: its first row key, its ``kv.sub_block``, its rows, and ``ROW_BYTES`` of all of
  them. The ids rise, not always by one. Keys are row keys: the keyspace's byte, then the key.
* ``manifest.checksum`` is ``CHECKSUM`` over the rows of the block, in any order.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cbor2

from exo_stream.storage.filters import Filter

SUB_BLOCK_BITS: Final = 20
"""``kv.sub_block`` is the block's id, shifted by this, plus an index."""

CHECKSUM: Final = "coalesce(bit_xor(hash(sequence, keyspace, key, value)), 0)"
"""SQL for the checksum of rows of ``kv``, independent of their order.

DuckDB's ``hash`` costs a twentieth of md5, and a merge hashes every row it touches. It is not
promised to stay the same; a test holds its value, and a DuckDB that changes it needs a new
format version. A duplicated row would cancel out, hence ``manifest.entries`` is checked as well.
"""

ROW_BYTES: Final = "octet_length(key) + coalesce(octet_length(value), 0)"
"""SQL for what a row counts towards the size of sub-blocks and blocks."""


@dataclass(frozen=True, slots=True, eq=False)
class Fences:
    """Where the sub-blocks of a block begin, and how large they are."""

    first_keys: list[bytes]
    last_key: bytes
    """Of the whole block."""
    ids: Sequence[int]
    rows: Sequence[int]
    sizes: Sequence[int]

    def dumps(self) -> bytes:
        """The bytes to keep in the file."""
        columns = [list(self.ids), list(self.rows), list(self.sizes)]
        return cbor2.dumps([self.last_key, self.first_keys, *columns])

    @classmethod
    def loads(cls, data: bytes) -> Fences:
        """The fences that ``dumps`` wrote."""
        last_key, first_keys, ids, rows, sizes = cbor2.loads(data)
        return cls(first_keys, last_key, array("Q", ids), array("Q", rows), array("Q", sizes))

    def index(self, key: bytes) -> int:
        """Which sub-block would hold a row key; -1 if it is before the first."""
        return bisect_right(self.first_keys, key) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One row of ``manifest`` and its row of ``filters``: a sorted range of one keyspace.

    ``folded_through`` is the newest sequence of its run when it was written, ``created_at`` the
    age of its newest data in microseconds.
    """

    id: int
    run: int
    tier: int
    entries: int
    size: int
    checksum: int
    folded_through: int
    created_at: int
    fences: Fences
    filter: Filter | None

    @property
    def first_key(self) -> bytes:
        """The row key of its first row."""
        return self.fences.first_keys[0]

    @property
    def last_key(self) -> bytes:
        """The row key of its last row."""
        return self.fences.last_key

    @property
    def keyspace(self) -> int:
        """The keyspace of every row."""
        return self.first_key[0]

    def sub_block_of(self, key: bytes) -> int | None:
        """The index of the sub-block that may hold ``key``; None if the block cannot."""
        fences = self.fences
        if not fences.first_keys[0] <= key <= fences.last_key:
            return None
        if self.filter is not None and key not in self.filter:
            return None
        return fences.index(key)

    def overlaps(self, start: bytes, end: bytes) -> bool:
        """Whether it may have rows with ``start <= row key < end``."""
        return self.first_key < end and start <= self.last_key

    def sub_blocks_between(self, start: bytes, end: bytes) -> range:
        """The indexes of the sub-blocks that may have rows with ``start <= row key < end``."""
        if not self.overlaps(start, end):
            return range(0)
        first = max(self.fences.index(start), 0)
        last = self.fences.index(end)
        if self.fences.first_keys[last] == end:
            last -= 1
        return range(first, last + 1)
