"""The memtable: entries newer than every block, in memory, readable at any pinned frontier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from sortedcontainers import SortedList

from exo_stream.model import Row, row_key
from exo_stream.payload import ENTRY_BYTES, EncodedBatch

Node = tuple[int, bytes | None, "Node | None"]
"""A value of one key: its sequence, the value, and an older node that a pin still needs."""

KEYS_SLACK: Final = 256
"""Keys a page may look at beyond its rows, so that a few tombstones do not make it short."""

_new_row: Final[Callable[[type[Row], tuple[bytes, int, bytes | None]], Row]] = tuple.__new__
"""``Row`` itself is a Python function, and half the price of reading a range."""

_PREFIXES: Final = tuple(row_key(keyspace, b"") for keyspace in range(256))


@dataclass(frozen=True, slots=True)
class Capture:
    """The rows of a memtable that a scan may need: complete for ``start <= key < end``.

    That range is smaller than the one asked for when a bound was met first.
    """

    rows: list[Row]
    start: bytes
    end: bytes


class Memtable:
    """The latest value of each key of some consecutive batches, and older ones while needed.

    Changed on the event loop only. Other threads may look up single keys meanwhile: a node never
    changes once it is in the dict, and replacing one is atomic. They must not scan.
    """

    __slots__ = (
        "_ordered",
        "entries",
        "first_sequence",
        "last_sequence",
        "nodes",
        "payload_bytes",
    )

    def __init__(self) -> None:
        self.nodes: dict[bytes, Node] = {}
        # Fed when a scan asks, so that pure ingest never pays for order.
        self._ordered: SortedList[bytes] = SortedList()
        self.first_sequence = 0
        self.last_sequence = 0
        self.entries = 0
        """Entries applied, overwritten ones included: what recovery would have to read again."""
        self.payload_bytes = 0

    @property
    def bytes_held(self) -> int:
        """About what it takes in memory, nodes included that only pins still need."""
        return self.payload_bytes + ENTRY_BYTES * self.entries

    def apply(self, batches: Sequence[EncodedBatch], pins: Sequence[int]) -> None:
        """Make durable batches visible; ``pins`` are the pinned frontiers in rising order."""
        if not batches:
            return
        if not self.first_sequence:
            self.first_sequence = batches[0].sequence
        self.last_sequence = batches[-1].sequence
        nodes, prefixes = self.nodes, _PREFIXES
        relevant = [pin for pin in pins if pin >= self.first_sequence]
        for batch in batches:
            sequence, entries = batch.sequence, batch.entries
            if relevant:
                self._apply_keeping(batch, relevant)
            else:
                for keyspace, key, value in entries:
                    nodes[prefixes[keyspace] + key] = (sequence, value, None)
            self.entries += len(entries)
            self.payload_bytes += len(batch.payload)

    def _apply_keeping(self, batch: EncodedBatch, pins: Sequence[int]) -> None:
        nodes, sequence, newest = self.nodes, batch.sequence, pins[-1]
        for keyspace, key, value in batch.entries:
            at = _PREFIXES[keyspace] + key
            older = nodes.get(at)
            if older is not None and (older[2] is not None or older[0] > newest):
                older = _needed(older, pins)
            nodes[at] = (sequence, value, older)

    def node(self, key: bytes, frontier: int) -> Node | None:
        """What a reader at ``frontier`` sees of a row key; None if nothing here."""
        node = self.nodes.get(key)
        while node is not None and node[0] > frontier:
            node = node[2]
        return node

    def keys(self, start: bytes, end: bytes, *, forward: bool) -> Iterator[bytes]:
        """The row keys with ``start <= key < end``, in either direction."""
        ordered, nodes = self._ordered, self.nodes
        grown = len(nodes) - len(ordered)
        if grown:
            # No key ever leaves, so the newest of the dict's insertion order are the missing ones.
            ordered.update(islice(reversed(nodes), grown))
        return iter(ordered.irange(start, end, (True, False), not forward))

    def capture(
        self,
        start: bytes,
        end: bytes,
        *,
        frontier: int,
        rows_max: int,
        bytes_max: int,
        forward: bool,
    ) -> Capture:
        """The rows visible at ``frontier``, in the scan's direction, tombstones included.

        Stops with more than ``rows_max`` live rows or ``bytes_max``, or after looking at
        ``KEYS_SLACK`` keys more than that.
        """
        rows: list[Row] = []
        nodes, new_row = self.nodes, _new_row
        live = size = 0
        last = b""
        for looked_at, key in enumerate(self.keys(start, end, forward=forward)):
            if live > rows_max or size > bytes_max or looked_at > rows_max + KEYS_SLACK:
                return Capture(rows, start, key) if forward else Capture(rows, last, end)
            last = key
            node: Node | None = nodes[key]
            while node is not None and node[0] > frontier:
                node = node[2]
            if node is None:
                continue
            sequence, value, _ = node
            rows.append(new_row(Row, (key, sequence, value)))
            if value is not None:
                live += 1
                size += len(key) + len(value)
        return Capture(rows, start, end)


def _needed(node: Node | None, pins: Iterable[int]) -> Node | None:
    """The chain without the nodes that no pin sees, which makes it no longer than the pins."""
    kept: list[Node] = []
    for pin in reversed(list(pins)):
        while node is not None and node[0] > pin:
            node = node[2]
        if node is None:
            break
        if not kept or kept[-1] is not node:
            kept.append(node)
    older: Node | None = None
    for sequence, value, _ in reversed(kept):
        older = (sequence, value, older)
    return older
