"""Somebody's store with only the nine methods, for the tests of what serves it."""

from __future__ import annotations

from collections.abc import Sequence

from exo_stream.storage.memory_engine import MemoryEngine


class NineMethods:
    """Somebody's store: a dict, and a log whose numbers have holes."""

    def __init__(self) -> None:
        self.inside = MemoryEngine()
        self.keeps_log = True
        self.broken = False

    def put_batch(self, kvs: Sequence[tuple[bytes, bytes]]) -> int:
        if self.broken:
            raise RuntimeError("the disk is on fire")
        return 10 * self.inside.put_batch(kvs)

    def delete_batch(self, keys: Sequence[bytes]) -> int:
        return 10 * self.inside.delete_batch(keys)

    def get(self, key: bytes) -> bytes | None:
        return self.inside.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes | None]]:
        return self.inside.get_many(keys)

    def range_scan(
        self, start: bytes, end: bytes, limit: int, forward: bool
    ) -> list[tuple[bytes, bytes]]:
        return self.inside.range_scan(start, end, limit, forward)

    def current_sequence(self) -> int:
        return 10 * self.inside.current_sequence()

    def get_batch(self, sequence: int) -> list[tuple[bytes, bytes]] | None:
        if not self.keeps_log or sequence % 10:
            return None
        return self.inside.get_batch(sequence // 10)

    def oldest_retained_batch(self) -> int | None:
        oldest = self.inside.oldest_retained_batch() if self.keeps_log else None
        return None if oldest is None else 10 * oldest

    def prune_batch_log(self, cutoff_exclusive: int) -> int:
        return self.inside.prune_batch_log(-(-cutoff_exclusive // 10))
