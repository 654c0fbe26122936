"""What one job writes: sub-blocks under fresh ids, and the blocks they add up to."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Final

import duckdb

from exo_stream.model import row_key
from exo_stream.storage.blocks import CHECKSUM, ROW_BYTES, SUB_BLOCK_BITS, Block, Fences
from exo_stream.storage.filters import Filter
from exo_stream.storage.tiers import bloom_bits_per_key, target_block_size

_SUMMARY: Final = f"""
    SELECT sub_block, count(*), sum({ROW_BYTES})::UBIGINT, min(key), max(key), {CHECKSUM},
        {{keys}}
    FROM kv WHERE sub_block BETWEEN {{first}} AND {{last}} GROUP BY sub_block ORDER BY sub_block"""  # noqa: S608  constants


class BlockWriter:
    """Sums up what a fold or a merge has written, slice by slice, into blocks of one run.

    A block ends where its tier's size is reached, and where the keyspace changes: then the
    blocks of bookkeeping overlap one another, and not those of the store.
    """

    def __init__(
        self,
        new_block_ids: Iterator[int],
        *,
        run: int,
        tier: int,
        folded_through: int,
        created_at: int,
    ) -> None:
        self._new_block_ids = new_block_ids
        self.run = run
        self.tier = tier
        self._folded_through = folded_through
        self._created_at = created_at
        self._open: _OpenBlock | None = None
        self.ids: list[int] = []
        """Every block id used: if the job fails, all of them are garbage."""
        self.blocks: list[Block] = []
        """Those that are complete."""

    def next_sub_block(self, keyspace: int, rows_expected: int) -> int:
        """The id from which the next slice counts; ``rows_expected`` may yet come, about."""
        block = self._open
        if block is not None and (
            block.keyspace != keyspace or block.size >= target_block_size(self.tier)
        ):
            self.close_block()
        if self._open is None:
            bits = bloom_bits_per_key(self.tier)
            block_id = next(self._new_block_ids)
            self.ids.append(block_id)
            self._open = _OpenBlock(
                block_id, keyspace, Filter.sized(rows_expected, bits) if bits else None
            )
        return self._open.next_sub_block

    def take(self, con: duckdb.DuckDBPyConnection, row_keys: Sequence[bytes] = ()) -> int:
        """Sum up what the open transaction has written; answer the number of rows.

        Whoever knows the row keys gives them for the filter; else they are read.
        """
        block = self._open
        assert block is not None
        # With numbers in the text, not as parameters, DuckDB skips what the zone maps exclude.
        query = _SUMMARY.format(
            keys="[]" if block.filter is None or row_keys else "list(key)",
            first=block.next_sub_block,
            last=((block.id + 1) << SUB_BLOCK_BITS) - 1,
        )
        summaries = con.execute(query).fetchall()
        prefix = row_key(block.keyspace, b"")
        for sub_block, rows, size, first_key, last_key, checksum, keys in summaries:
            block.add(sub_block, rows, size, prefix + first_key, prefix + last_key)
            block.checksum ^= checksum
            if block.filter is not None:
                block.filter.add([prefix + key for key in keys])
        if block.filter is not None:
            block.filter.add(row_keys)
        return sum([summary[1] for summary in summaries])

    def close_block(self) -> None:
        """End the block at hand, if it has rows."""
        block, self._open = self._open, None
        if block is None:
            return
        if not block.ids:
            self.ids.remove(block.id)
            return
        fences = Fences(block.first_keys, block.last_key, block.ids, block.rows, block.sizes)
        self.blocks.append(
            Block(
                id=block.id,
                run=self.run,
                tier=self.tier,
                entries=sum(block.rows),
                size=block.size,
                checksum=block.checksum,
                folded_through=self._folded_through,
                created_at=self._created_at,
                fences=fences,
                filter=block.filter,
            )
        )


class _OpenBlock:
    """A block that is being written."""

    def __init__(self, block_id: int, keyspace: int, bloom: Filter | None) -> None:
        self.id = block_id
        self.keyspace = keyspace
        self.filter = bloom
        self.first_keys: list[bytes] = []
        self.last_key = b""
        self.ids = array("Q")
        self.rows = array("Q")
        self.sizes = array("Q")
        self.size = 0
        self.checksum = 0

    @property
    def next_sub_block(self) -> int:
        return self.ids[-1] + 1 if self.ids else self.id << SUB_BLOCK_BITS

    def add(self, sub_block: int, rows: int, size: int, first_key: bytes, last_key: bytes) -> None:
        self.ids.append(sub_block)
        self.rows.append(rows)
        self.sizes.append(size)
        self.first_keys.append(first_key)
        self.last_key = last_key
        self.size += size
