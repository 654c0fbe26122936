"""The manifest: which blocks are alive, written in the transaction that makes them so."""

from __future__ import annotations

from collections.abc import Sequence

import cbor2
import duckdb

from exo_stream.errors import CorruptionError
from exo_stream.storage.blocks import SUB_BLOCK_BITS, Block, Fences
from exo_stream.storage.database import Rows
from exo_stream.storage.filters import Filter


def load(rows: Rows) -> list[Block]:
    """Every live block. Raises CorruptionError if fences or filters cannot be read."""
    found = rows.fetch(
        "SELECT block, run, tier, entries, bytes, checksum, folded_through, created_at,"
        " fences, bloom FROM manifest JOIN filters USING (block)"
    )
    try:
        return [_block(*columns) for columns in found]
    except (cbor2.CBORDecodeError, ValueError, TypeError) as error:
        raise CorruptionError("the fences or the filter of a block cannot be read") from error


def insert(con: duckdb.DuckDBPyConnection, blocks: Sequence[Block]) -> None:
    """Make blocks live whose rows are written."""
    for block in blocks:
        ids = block.fences.ids
        con.execute(
            "INSERT INTO manifest VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(block.id, block.run, block.tier, ids[0], ids[-1]),
                *(block.entries, block.size, block.checksum),
                *(block.folded_through, block.created_at),
            ),
        )
        bloom = b"" if block.filter is None else block.filter.dumps()
        con.execute("INSERT INTO filters VALUES (?, ?, ?)", (block.id, block.fences.dumps(), bloom))


def delete(con: duckdb.DuckDBPyConnection, blocks: Sequence[Block]) -> None:
    """Make blocks dead; their rows stay until they are deleted."""
    ids = [block.id for block in blocks]
    con.execute("DELETE FROM manifest WHERE block IN (SELECT unnest(?::UBIGINT[]))", [ids])
    con.execute("DELETE FROM filters WHERE block IN (SELECT unnest(?::UBIGINT[]))", [ids])


def move(con: duckdb.DuckDBPyConnection, blocks: Sequence[Block], run: int) -> None:
    """Make blocks part of another run, as they are."""
    con.execute(
        "UPDATE manifest SET run = ? WHERE block IN (SELECT unnest(?::UBIGINT[]))",
        [run, [block.id for block in blocks]],
    )


def block_ids_in_use(rows: Rows) -> list[int]:
    """The ids of all blocks that have rows, dead ones and garbage of a crash included."""
    found = rows.fetch(f"SELECT DISTINCT sub_block >> {SUB_BLOCK_BITS} FROM kv")  # noqa: S608  a number
    return [block for (block,) in found]


def count_rows(rows: Rows) -> int:
    """The rows of ``kv``, which DuckDB knows without reading them."""
    ((count,),) = rows.fetch("SELECT count(*) FROM kv")
    return int(count)


def _block(  # noqa: PLR0917  a row of the join, column by column
    block: int,
    run: int,
    tier: int,
    entries: int,
    size: int,
    checksum: int,
    folded_through: int,
    created_at: int,
    fences: bytes,
    bloom: bytes,
) -> Block:
    return Block(
        id=block,
        run=run,
        tier=tier,
        entries=entries,
        size=size,
        checksum=checksum,
        folded_through=folded_through,
        created_at=created_at,
        fences=Fences.loads(fences),
        filter=Filter.loads(bloom) if bloom else None,
    )
