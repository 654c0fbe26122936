"""The check of the blocks: rows, fences, filters and manifest say the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Any, Final

from exo_stream.errors import CorruptionError
from exo_stream.model import Row, row_key
from exo_stream.storage import manifest
from exo_stream.storage.blocks import CHECKSUM, SUB_BLOCK_BITS, Block
from exo_stream.storage.database import Rows
from exo_stream.storage.findings import Findings

_BYTES_MAX: Final = 4 * 1024 * 1024

Sink = Callable[[int, Sequence[Row]], None]
"""Takes some rows, with how far their run is folded."""


def check_blocks(rows: Rows, findings: Findings, folded_through: int, sink: Sink) -> int:
    """Read every live block, hand its rows to ``sink``, and count the blocks."""
    blocks = _load(rows, findings)
    runs = {block.run: 0 for block in blocks}
    for block in blocks:
        runs[block.run] = max(runs[block.run], block.folded_through)
        if block.folded_through > folded_through:
            findings.add(
                "block",
                f"block {block.id} is folded through {block.folded_through},"
                f" the table only through {folded_through}",
            )
    _check_runs(blocks, findings)
    for block in blocks:
        check_sums(rows, block, findings)
        for part in _check_rows(rows, block, findings):
            sink(runs[block.run], part)
    return len(blocks)


def _load(rows: Rows, findings: Findings) -> list[Block]:
    """The blocks, if what describes them can be read at all."""
    listed = rows.fetch("SELECT block FROM manifest ORDER BY block")
    filtered = rows.fetch("SELECT block FROM filters ORDER BY block")
    if listed != filtered or len(set(listed)) != len(listed):
        findings.add("block", "the manifest and the filters do not name the same blocks once each")
    # Below its head, rbloom panics where others raise.
    short = "SELECT count(*) FROM filters WHERE octet_length(bloom) BETWEEN 1 AND 8"
    if rows.fetch(short) == [(0,)]:
        try:
            return manifest.load(rows)
        except (CorruptionError, OverflowError):
            pass
    findings.add("block", "the fences or the filter of a block cannot be read")
    return []


def _check_runs(blocks: Sequence[Block], findings: Findings) -> None:
    by_run = groupby(sorted(blocks, key=attrgetter("run", "first_key")), attrgetter("run"))
    for run, members in by_run:
        for left, right in pairwise(members):
            if left.last_key >= right.first_key:
                findings.add("block", f"the blocks {left.id} and {right.id} of run {run} overlap")


def check_sums(rows: Rows, block: Block, findings: Findings) -> None:
    """Check what the manifest says of all rows of a block together."""
    fences = block.fences
    ((first, last),) = rows.fetch(
        "SELECT first_sub_block, last_sub_block FROM manifest WHERE block = ? LIMIT 1", (block.id,)
    )
    if (first, last) != (fences.ids[0], fences.ids[-1]):
        findings.add("block", f"block {block.id} has other sub-blocks in the manifest than fences")
    if (block.entries, block.size) != (sum(fences.rows), sum(fences.sizes)):
        findings.add("block", f"block {block.id} is not as large as its fences together")
    ((count, checksum),) = rows.fetch(
        f"SELECT count(*), {CHECKSUM} FROM kv WHERE sub_block BETWEEN ? AND ?",  # noqa: S608  a constant
        (block.id << SUB_BLOCK_BITS, ((block.id + 1) << SUB_BLOCK_BITS) - 1),
    )
    if count != block.entries:
        findings.add("block", f"block {block.id} has {count} rows instead of {block.entries}")
    elif checksum != block.checksum:
        findings.add("block", f"block {block.id} does not match its checksum")


def _check_rows(rows: Rows, block: Block, findings: Findings) -> Iterator[list[Row]]:
    """Every row, sub-block by sub-block: in order, inside its fences, not denied by the filter."""
    previous = b""
    for at, found in _sub_blocks(rows, block):
        name = f"sub-block {block.fences.ids[at]}"
        part = [Row(row_key(row[1], row[2]), row[3], row[4]) for row in found]
        size = sum(len(row[2]) + len(row[4] or b"") for row in found)
        if (len(part), size) != (block.fences.rows[at], block.fences.sizes[at]):
            findings.add("block", f"{name} has {len(part)} rows of {size} bytes, unlike its fence")
        if not part:
            continue
        keys = [row.key for row in part]
        if keys[0] != block.fences.first_keys[at]:
            findings.add("block", f"{name} does not begin with the key of its fence")
        if any(left >= right for left, right in pairwise([previous, *keys])):
            findings.add("block", f"{name} is not sorted, or overlaps the one before it")
        if any(key[0] != block.keyspace for key in keys):
            findings.add("block", f"{name} holds rows of another keyspace")
        if max(row.sequence for row in part) > block.folded_through:
            findings.add("block", f"{name} holds rows newer than {block.folded_through}")
        if block.filter is not None and not all(key in block.filter for key in keys):
            findings.add("block", f"{name} holds a key that the filter of its block denies")
        previous = keys[-1]
        yield part
    if previous != block.last_key:
        findings.add("block", f"block {block.id} does not end with its last key")


def _sub_blocks(rows: Rows, block: Block) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    """The rows of each sub-block as they are stored, with its index in the fences."""
    ids, sizes = block.fences.ids, block.fences.sizes
    start = 0
    while start < len(ids):
        end, total = start + 1, sizes[start]
        while end < len(ids) and total + sizes[end] <= _BYTES_MAX:
            total += sizes[end]
            end += 1
        found = rows.fetch(
            "SELECT sub_block, keyspace, key, sequence, value FROM kv"
            " WHERE sub_block BETWEEN ? AND ? ORDER BY sub_block, rowid",
            (ids[start], ids[end - 1]),
        )
        by_id = {key: list(group) for key, group in groupby(found, lambda row: row[0])}
        for at in range(start, end):
            yield at, by_id.get(ids[at], [])
        start = end
