"""Live rows packed into sub-blocks, for whoever writes a table anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exo_stream.model import Row
from exo_stream.storage.tiers import SUB_BLOCK_SIZE


def pack(rows: Sequence[Row], first: int) -> Iterator[tuple[int, int, bytes, int, bytes | None]]:
    """Sorted rows as rows of ``kv``, from sub-block ``first`` on.

    One that is larger than a sub-block has one to itself.
    """
    sub_block, filled = first, 0
    for key, sequence, value in rows:
        size = len(key) - 1 + len(value or b"")
        if filled and filled + size > SUB_BLOCK_SIZE:
            sub_block, filled = sub_block + 1, 0
        filled += size
        yield sub_block, key[0], key[1:], sequence, value
