"""A prune: policies carried out one after the other, on keys and on the log, in whole batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import trio

from exo_stream.errors import InvalidRequestError, LimitExceededError, UnsupportedError
from exo_stream.ground import Ground
from exo_stream.keys import MatchKey
from exo_stream.model import Keyspace, Row, row_key
from exo_stream.payload import ENTRY_BYTES
from exo_stream.policies.deletion import (
    Changed,
    Part,
    deletion,
    deletion_part,
    stamp,
    value_differs,
    written_since,
)
from exo_stream.policies.policy import (
    POLICIES_MAX,
    CompileRegex,
    KeysPolicy,
    KeysScope,
    Policy,
    SequencePolicy,
    checked_policies,
)
from exo_stream.policies.pruning import HELD_BYTES_MAX, Doomed, Pruning
from exo_stream.policies.result import PruneCounts, PruneResult
from exo_stream.policies.retention import cutoff
from exo_stream.scan import bounds
from exo_stream.storage.engine import Cold, Version

BATCH_KEYS_MAX: Final = 100_000
"""Deletions of one batch, and so of one sequence; a policy that deletes more takes several."""

PARTS_MAX: Final = 64
"""Into how many parts the groups of a policy are divided at most, each with a scan of its own,
when what is kept of all of them is more than a pruning may hold."""

_TURN_ROWS: Final = 32
_TURN_SECONDS: Final = 0.005
"""Rows are judged on the event loop, so many at a time; after so long others get their turn. A row
costs 10 to 15 µs with an ordinary regex, and a thousand times as much with the worst."""

_PART_KEYS: Final = 2_048
"""Encoded without letting others run: a few milliseconds."""

_LOOK_UP_KEYS: Final = 256
"""Looked at again without letting others run, beside the writer."""


async def prune(
    ground: Ground,
    policies: Sequence[Policy],
    compile_regex: CompileRegex,
    *,
    dry_run: bool,
    held_bytes_max: int = HELD_BYTES_MAX,
) -> PruneResult:
    """Carry out ``policies`` in their order; with ``dry_run`` only count what they would do.

    All are checked before the first is carried out. Each batch of deletions is atomic, and of a
    prune that is cancelled or fails those stand that were written. Raises InvalidPolicyError, or
    LimitExceededError if one group of a policy is too large to be judged.
    """
    await _compile_in_turns(policies, compile_regex)
    counts: list[PruneCounts] = []
    sequences: list[int] = []
    for policy in checked_policies(policies, compile_regex):
        if isinstance(policy, SequencePolicy):
            counts.append(await _prune_log(ground, policy, dry_run=dry_run))
        else:
            run = _KeysRun(ground, policy, dry_run=dry_run, held_bytes_max=held_bytes_max)
            counts.append(await run.run())
            sequences += run.sequences
    return PruneResult(tuple(counts), tuple(sequences))


async def _compile_in_turns(policies: Sequence[Policy], compile_regex: CompileRegex) -> None:
    """Compile what can be, each regex in a turn of its own, so that the check finds them ready:
    one may take tens of milliseconds. What is wrong with which field the check says.
    """
    await trio.lowlevel.checkpoint()
    if not isinstance(policies, Sequence):
        return
    with suppress(InvalidRequestError):
        for regex in map(_regex_of, policies[:POLICIES_MAX]):
            if regex is not None:
                compile_regex(regex)
            await trio.lowlevel.checkpoint()


def _regex_of(policy: object) -> str | None:
    match policy:
        case Policy(scope=KeysScope(match_key=MatchKey(payload_regex=str() as regex))):
            return regex
        case _:
            return None


async def _prune_log(ground: Ground, policy: SequencePolicy, *, dry_run: bool) -> PruneCounts:
    # What comes meanwhile is younger than every batch that goes.
    version = ground.sources.reads.engine.version
    below = cutoff(policy.retain, version.frontier)
    if not dry_run:
        return PruneCounts(evicted=await ground.move_floor(below))
    await trio.lowlevel.checkpoint()
    if ground.sources.reads.engine.own_sequences:
        raise UnsupportedError("this backend has only the nine methods, and counts no batches")
    floor = min([below, *ground.sources.snapshots.floors()])
    return PruneCounts(evicted=max(0, floor - version.floor))


class _KeysRun:
    """One policy for keys on its way; ``sequences`` are the batches it has written."""

    def __init__(
        self, ground: Ground, policy: KeysPolicy, *, dry_run: bool, held_bytes_max: int
    ) -> None:
        self.sequences: list[int] = []
        self._ground = ground
        self._reads = ground.sources.reads
        self._engine = ground.sources.reads.engine
        self._policy = policy
        self._dry_run = dry_run
        self._held_bytes_max = held_bytes_max
        self._doomed: list[Doomed] = []
        self._doomed_bytes = 0
        self._deleted = PruneCounts()
        """What was really deleted, and what was spared: what a pruning counts is what it dooms."""

    async def run(self) -> PruneCounts:
        """All of it, in as many parts as it takes."""
        await trio.lowlevel.checkpoint_if_cancelled()
        judged = PruneCounts()
        parts = deque([(0, 1)])
        while parts:
            part, count = parts.popleft()
            before = self._deleted
            try:
                judged += await self._run_part(part, count)
            except LimitExceededError:
                # Keys of one group are in one part, however many parts there are.
                if count == PARTS_MAX or not self._policy.group_by:
                    raise
                parts.extendleft([(part + count, 2 * count), (part, 2 * count)])
                # Rows that are gone already will not be seen again, but they were.
                gone = self._deleted.deleted - before.deleted
                judged += PruneCounts(matched=gone)
        if self._dry_run:
            return judged
        done = self._deleted
        return replace(
            judged, deleted=done.deleted, deleted_bytes=done.deleted_bytes, spared=done.spared
        )

    async def _run_part(self, part: int, parts: int) -> PruneCounts:
        """Judge the groups of one part on one Version, and delete as it goes."""
        pruning = Pruning(self._policy, held_bytes_max=self._held_bytes_max, part=part, parts=parts)
        version = self._engine.version
        self._engine.pin(version)
        try:
            exceeded = await self._judge(pruning, version)
            await self._flush(version.frontier, keys_max=0)
        finally:
            self._engine.unpin(version)
        if exceeded is not None:
            raise exceeded
        return pruning.counts

    async def _judge(self, pruning: Pruning, version: Version) -> LimitExceededError | None:
        """Judge every row, or as many as there is room for; what was judged before is judged."""
        await trio.lowlevel.checkpoint_if_cancelled()
        low, high = bounds(*self._policy.bounds)
        resume: bytes | None = low
        while resume is not None:
            page = await self._reads.page(
                version,
                resume,
                high,
                rows_max=self._reads.limits.page_rows_max,
                forward=True,
            )
            try:
                await self._judge_page(pruning, page.rows)
            except LimitExceededError as error:
                return error
            await self._flush(version.frontier, keys_max=self._keys_max - 1)
            resume = page.resume
        return None

    async def _judge_page(self, pruning: Pruning, rows: Sequence[Row]) -> None:
        began = trio.current_time()
        for start in range(0, len(rows), _TURN_ROWS):
            turn = rows[start : start + _TURN_ROWS]
            self._doom(pruning.judge(self._judgeable(turn)))
            if trio.current_time() - began > _TURN_SECONDS:
                await trio.lowlevel.checkpoint()
                began = trio.current_time()
        await trio.lowlevel.checkpoint()

    def _judgeable(self, rows: Sequence[Row]) -> Iterator[tuple[bytes, bytes, int]]:
        tells_versions = not self._engine.own_sequences
        for key, sequence, value in rows:
            assert value is not None, key
            yield key[1:], value, sequence if tells_versions else stamp(value)

    def _doom(self, doomed: Sequence[Doomed]) -> None:
        if not self._dry_run:
            self._doomed += doomed
            self._doomed_bytes += sum(map(self._weight, doomed))

    def _weight(self, row: Doomed) -> int:
        # Where values are compared they are all fetched together.
        return row.size if self._engine.own_sequences else len(row.key)

    @property
    def _keys_max(self) -> int:
        return min(BATCH_KEYS_MAX, self._reads.limits.batch_entries_max)

    async def _flush(self, since: int, *, keys_max: int) -> None:
        """Delete what is doomed, a batch at a time, until no more than so many keys wait."""
        await trio.lowlevel.checkpoint_if_cancelled()
        bytes_max = self._reads.limits.batch_bytes_max
        while len(self._doomed) > keys_max or self._doomed_bytes > bytes_max:
            batch = _fitting(self._doomed, self._keys_max, bytes_max, self._weight)
            await self._delete(self._doomed[:batch], since)
            self._doomed_bytes -= sum(map(self._weight, self._doomed[:batch]))
            del self._doomed[:batch]

    async def _delete(self, doomed: Sequence[Doomed], since: int) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        changed: Changed = value_differs
        kept = doomed
        if not self._engine.own_sequences:
            changed = written_since
            kept, since = await self._unchanged(doomed, since)
        spared = len(doomed) - len(kept)
        size = sum(row.size for row in kept)
        if kept:
            done = await self._ground.decide(
                deletion(kept, await _parts(kept), since, changed),
                size=sum(len(row.key) + ENTRY_BYTES for row in kept),
                frees=True,
            )
            spared += done.spared
            size -= done.spared_bytes
            if done.sequence:
                self.sequences.append(done.sequence)
        deleted = len(doomed) - spared
        self._deleted += PruneCounts(deleted=deleted, deleted_bytes=size, spared=spared)

    async def _unchanged(
        self, doomed: Sequence[Doomed], since: int
    ) -> tuple[Sequence[Doomed], int]:
        """Those that are as they were at ``since``, and at which sequence that still held.

        The writer looks again, but only for what came after that, which is in memory: it must
        not read the file for a hundred thousand keys while everybody waits.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        version = self._engine.version
        if version.frontier == since:
            return doomed, since
        kept: list[Doomed] = []
        self._engine.pin(version)
        try:
            for start in range(0, len(doomed), _LOOK_UP_KEYS):
                await trio.lowlevel.checkpoint()
                part = doomed[start : start + _LOOK_UP_KEYS]
                kept += await self._unchanged_part(part, version, since)
        finally:
            self._engine.unpin(version)
        return kept, version.frontier

    async def _unchanged_part(
        self, part: Sequence[Doomed], version: Version, since: int
    ) -> list[Doomed]:
        keys = [row_key(Keyspace.STORE, row.key) for row in part]
        found = [self._engine.changed(version, key, since) for key in keys]
        cold = [key for key, changed in zip(keys, found, strict=True) if isinstance(changed, Cold)]
        rows = await self._reads.rows(version, cold, values=False)
        newer = {row.key for row in rows if row is not None and row.sequence > since}
        return [
            row
            for row, key, changed in zip(part, keys, found, strict=True)
            if changed is False or (changed is not True and key not in newer)
        ]


async def _parts(doomed: Sequence[Doomed]) -> list[Part]:
    """What deletes these rows, put together in turns: it is a third of the work of a batch."""
    await trio.lowlevel.checkpoint()
    parts: list[Part] = []
    for start in range(0, len(doomed), _PART_KEYS):
        parts.append(deletion_part(doomed[start : start + _PART_KEYS]))
        await trio.lowlevel.checkpoint()
    return parts


def _fitting(
    doomed: Sequence[Doomed], keys_max: int, bytes_max: int, weight: Callable[[Doomed], int]
) -> int:
    """How many of the first of these make a batch: at least one."""
    size = 0
    for count, row in enumerate(doomed[:keys_max]):
        size += weight(row)
        if count and size > bytes_max:
            return count
    return min(len(doomed), keys_max)
