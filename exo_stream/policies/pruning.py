"""A pruning: one run of a keys policy over the rows of the table, page by page.

What it holds while it runs: nothing for ``drop_all`` and thresholds, which judge each row alone;
for ``keep_latest`` the key and order of every row that is still kept, at most ``count`` in each
group, and the identity of each group. That is bounded by ``held_bytes_max``. Where groups are too
many for it, run once for each part of ``parts``: each run judges the groups of its own part.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, assert_never
from zlib import crc32

from exo_stream.errors import LimitExceededError
from exo_stream.limits import MIB
from exo_stream.policies.policy import (
    DropAll,
    GreaterThan,
    GreaterThanOrEqual,
    KeepLatest,
    KeysPolicy,
    OrderEncoding,
)
from exo_stream.policies.result import PruneCounts

HELD_BYTES_MAX: Final = 128 * MIB
"""What a pruning may hold unless its caller says otherwise: with keys of 33 bytes, 450,000 rows
of one group or 230,000 groups of one row. Counted a third higher than tracemalloc finds it."""

HELD_ROW_BYTES: Final = 256
"""What a kept row costs in memory beside its key and its order."""

HELD_GROUP_BYTES: Final = 256
"""What a group costs beside its identity."""


class Doomed(NamedTuple):
    """A row to delete, if ``version`` is still the sequence of its last write.

    ``size`` is that of its key and value.
    """

    key: bytes
    version: int
    size: int


class _Held(NamedTuple):
    """A row that is kept for now; the least of a group, by order and then key, goes first."""

    order: bytes
    key: bytes
    version: int
    size: int

    @property
    def cost(self) -> int:
        return HELD_ROW_BYTES + len(self.order) + len(self.key)


class Pruning:
    """Says row by row which to delete; ``counts`` says how many of what there were so far.

    Rows may come in any order, each once. What it has doomed stays doomed whatever rows follow,
    so the pages of a scan can be deleted as they are judged, and a run that is broken off has
    done nothing wrong.
    """

    def __init__(
        self,
        policy: KeysPolicy,
        *,
        held_bytes_max: int = HELD_BYTES_MAX,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        assert 0 <= part < parts, (part, parts)
        self._policy = policy
        self._held_bytes_max = held_bytes_max
        self._part = part
        self._parts = parts
        self._held: dict[bytes, list[_Held]] = {}
        self._held_bytes = 0
        self._matched = self._ungrouped = self._malformed = 0
        self._deleted = self._deleted_bytes = 0

    @property
    def counts(self) -> PruneCounts:
        """Of the rows judged so far, in this part."""
        return PruneCounts(
            matched=self._matched,
            ungrouped=self._ungrouped,
            malformed=self._malformed,
            deleted=self._deleted,
            deleted_bytes=self._deleted_bytes,
        )

    def judge(self, rows: Iterable[tuple[bytes, bytes, int]]) -> list[Doomed]:
        """Which rows to delete, now that these ``(key, value, version)`` are known too.

        Raises LimitExceededError if more rows must be held than ``held_bytes_max`` allows; what
        was answered before stands.
        """
        doomed: list[Doomed] = []
        for key, value, version in rows:
            loser = self._loser(key, len(key) + len(value), version)
            if loser is not None:
                self._deleted += 1
                self._deleted_bytes += loser.size
                doomed.append(Doomed(loser.key, loser.version, loser.size))
        return doomed

    def _loser(self, key: bytes, size: int, version: int) -> _Held | None:
        """The row that must go because this one is there; often it is this one."""
        policy = self._policy
        payload = policy.payload(key)
        captures = None if payload is None else policy.pattern.search(payload)
        if captures is None:
            return None
        group = group_identity(captures, policy.group_by)
        if crc32(group or b"") % self._parts != self._part:
            return None
        self._matched += 1
        if group is None:
            self._ungrouped += 1
            return None
        if isinstance(policy.retain, DropAll):
            return _Held(b"", key, version, size)
        order = self._order(captures)
        if order is None:
            self._malformed += 1
            return None
        return self._judged(policy.retain, group, _Held(order, key, version, size))

    def _judged(
        self, retain: KeepLatest | GreaterThan | GreaterThanOrEqual, group: bytes, row: _Held
    ) -> _Held | None:
        match retain:
            case KeepLatest(count):
                return self._hold(group, row, count)
            case GreaterThan(threshold):
                return row if int.from_bytes(row.order, "big") <= threshold else None
            case GreaterThanOrEqual(threshold):
                return row if int.from_bytes(row.order, "big") < threshold else None
            case unreachable:
                assert_never(unreachable)

    def _order(self, captures: Mapping[str, bytes | None]) -> bytes | None:
        order_by = self._policy.order_by
        assert order_by is not None, self._policy
        return comparable(captures[order_by.capture_group], order_by.encoding)

    def _hold(self, group: bytes, row: _Held, count: int) -> _Held | None:
        held = self._held.get(group)
        if held is None:
            self._held[group] = held = []
            self._held_bytes += HELD_GROUP_BYTES + len(group)
        self._held_bytes += row.cost
        loser = None
        if len(held) < count:
            heapq.heappush(held, row)
        else:
            loser = heapq.heappushpop(held, row)
            self._held_bytes -= loser.cost
        if self._held_bytes > self._held_bytes_max:
            raise LimitExceededError("held_bytes_max", self._held_bytes_max, self._held_bytes)
        return loser


def group_identity(captures: Mapping[str, bytes | None], names: Iterable[str]) -> bytes | None:
    """Equal for keys of one group and for no others; None if a capture took no part."""
    pieces: list[bytes] = []
    for name in names:
        capture = captures[name]
        if capture is None:
            return None
        pieces += (len(capture).to_bytes(4, "big"), capture)
    return b"".join(pieces)


def comparable(capture: bytes | None, encoding: OrderEncoding) -> bytes | None:
    """Bytes that compare as the capture does in its encoding; None if it is not of that form."""
    if capture is None or encoding is OrderEncoding.BYTES_ASC:
        return capture
    if len(capture) != 8:
        return None
    if encoding is OrderEncoding.I64_BE:
        return bytes([capture[0] ^ 0x80]) + capture[1:]
    return capture
