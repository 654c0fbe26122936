"""TraitBackend: a store with only the nine methods, as the engine of the store face.

What it can: put and delete batches, reads of the newest state, the log page by page, pruning,
live feeds. What it cannot, because nine methods cannot tell: batches that mix puts and deletions,
preconditions, producers, snapshots, other keyspaces; versions of values; times of old batches;
deletions in a replay, which are batches without entries there.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from exo_stream.errors import (
    BatchEvictedError,
    ExoStreamError,
    OutcomeUnknownError,
    StoreError,
    UnsupportedError,
)
from exo_stream.model import Entry, Keyspace, Row, row_key
from exo_stream.payload import NONE, EncodedBatch, encode_entries
from exo_stream.reduce.reduction import Reduction
from exo_stream.storage.engine import (
    COLD,
    WITHOUT_FILE,
    Cold,
    EngineStatistics,
    Group,
    Job,
    Page,
    Reader,
    Reducing,
    Retention,
    ScanPlan,
    StoreEngine,
    Version,
)
from exo_stream.storage.paged_reduce import PagedReduce

T = TypeVar("T")

_KEYS_MAX: Final = 64
"""Keys asked of the backend at a time, since their values may be large."""

_UNKNOWN_VERSION: Final = 0
"""The sequence of a row whose last write the backend does not tell."""

_HOLES_MAX: Final = 4_096
"""Numbers without a batch that one log page looks at, since sequences need not be dense."""


@dataclass(frozen=True, slots=True, eq=False)
class TraitVersion:
    """Where the backend was when it was last asked; reads are of the present."""

    frontier: int
    floor: int


def unsupported(entries: Sequence[Entry]) -> UnsupportedError | None:
    """Why these entries cannot be one batch of a backend with nine methods; None if they can."""
    if any(entry.keyspace != Keyspace.STORE for entry in entries):
        return UnsupportedError("this backend serves the store face only")
    if len({entry.value is None for entry in entries}) != 1:
        return UnsupportedError(
            "a batch is either puts or deletions here: this backend has put_batch and "
            "delete_batch, but no write that mixes them"
        )
    return None


class TraitBackend:
    """Wraps the user's ``StoreEngine``. Nobody else may write to that meanwhile.

    ``own_sequences`` tells ingest to commit one batch a group, to take the number that ``commit``
    answers, and to refuse what ``unsupported`` refuses. Without a ``log_id`` cursors end with the
    process.
    """

    def __init__(self, store: StoreEngine, *, log_id: str | None = None) -> None:
        self._store = store
        self._log_id = log_id or secrets.token_hex(16)
        self._version = self._look()
        self._last_committed_at = 0
        self._committed: TraitVersion | None = None

    def _look(self, floor: int | None = None) -> TraitVersion:
        """Where the backend is. One that keeps no log leaves ``floor``, the end of the log at the
        start, where it is: what came since is in the platform's tail.
        """
        frontier = _call(self._store.current_sequence)
        oldest = _call(self._store.oldest_retained_batch)
        if oldest is None:
            oldest = frontier + 1 if floor is None else floor
        return TraitVersion(frontier, oldest)

    @property
    def own_sequences(self) -> bool:
        """Yes: the backend numbers its batches."""
        return True

    @property
    def log_id(self) -> str:
        """The one that was given, or one for the life of this process."""
        return self._log_id

    @property
    def version(self) -> TraitVersion:
        """[loop] Where the backend was after the last commit."""
        return self._version

    @property
    def last_committed_at(self) -> int:
        """[loop] The time of the newest batch of this process, 0 before the first."""
        return self._last_committed_at

    def commit(self, group: Group) -> Group:
        """[writer] Write the one batch of ``group``; answer the group under the number it got.

        Raises UnsupportedError, before anything is written, for what nine methods cannot do.
        """
        assert len(group.batches) <= 1, group
        batches = [self._write(batch) for batch in group.batches]
        evicted = None
        if group.floor is not None:
            evicted = _call(partial(self._store.prune_batch_log, group.floor))
        floor = max(self._version.floor, group.floor or 0)
        try:
            self._committed = self._look(floor)
        except StoreError:
            # It is written, whether or not the backend can say more just now.
            frontier = batches[-1].sequence if batches else self._version.frontier
            self._committed = TraitVersion(frontier, floor)
        return Group(batches, floor=group.floor, evicted=evicted)

    def _write(self, batch: EncodedBatch) -> EncodedBatch:
        entries = batch.entries
        error = unsupported(entries)
        if error is not None:
            raise error
        pairs = [(entry.key, entry.value) for entry in entries if entry.value is not None]
        if pairs:
            sequence = _call(partial(self._store.put_batch, pairs))
        else:
            sequence = _call(partial(self._store.delete_batch, [entry.key for entry in entries]))
        if sequence <= self._version.frontier:
            raise OutcomeUnknownError(
                f"the backend numbered a batch {sequence} after {self._version.frontier}"
            )
        return EncodedBatch(sequence, batch.committed_at, batch.payload, entries)

    def reopen(self) -> int:
        """[writer] Nothing to open; answer the backend's newest sequence."""
        return _call(self._store.current_sequence)

    def install(self, group: Group) -> None:
        """[loop] Make visible what ``commit`` answered."""
        if self._committed is not None:
            self._version, self._committed = self._committed, None
        if group.batches:
            self._last_committed_at = group.batches[-1].committed_at

    @property
    def backlogged(self) -> bool:
        """[loop] Never."""
        return False

    @property
    def space_low(self) -> bool:
        """[loop] Never: the backend refuses by itself."""
        return False

    def lookup(self, version: Version, key: bytes) -> Row | Cold | None:  # noqa: ARG002  only the present is known
        """[loop] COLD: whether the backend blocks is not known. No other face has rows."""
        return COLD if key[0] == Keyspace.STORE else None

    def changed(self, version: Version, key: bytes, since: int) -> bool | Cold:  # noqa: ARG002  no key's history is known
        """[loop] No, if nothing was written since; else COLD, and no reader can tell either."""
        return False if since >= self._version.frontier else COLD

    def scan(
        self,
        version: Version,  # noqa: ARG002  the backend knows only the present
        start: bytes,
        end: bytes,
        *,
        rows_max: int,
        bytes_max: int,  # noqa: ARG002  the trait bounds rows only
        forward: bool,
    ) -> ScanPlan:
        """[loop] Plan one page of the present."""
        return _TraitPlan(start, end, rows_max, forward)

    def open_reduce(
        self, version: Version, start: bytes, end: bytes, reduction: Reduction
    ) -> Reducing:
        """[loop] Begin to reduce the rows with ``start <= row key < end``."""
        return PagedReduce(self, version, start, end, reduction)

    def pin(self, version: Version) -> None:
        """[loop] Nothing can be held; whoever needs a snapshot is refused earlier."""

    def unpin(self, version: Version) -> None:
        """[loop] Nothing was held."""

    def held_bytes(self, versions: Iterable[Version]) -> int:  # noqa: ARG002  the seam has it
        """[loop] None: the backend keeps no Versions."""
        return 0

    def open_reader(self) -> Reader:
        """A reader for one thread."""
        return TraitReader(self._store)

    def next_job(self, now: int, *, idle: bool) -> Job | None:  # noqa: ARG002  the seam has it
        """[loop] None: the backend keeps itself in order."""
        return None

    def statistics(self) -> EngineStatistics:
        """[loop] Nothing is known."""
        return replace(WITHOUT_FILE, path=f"<{type(self._store).__name__}>")

    def close(self) -> None:
        """[writer] Nothing: whoever made the backend closes it."""


class TraitReader:
    """Reads through the nine methods, of the present whatever the Version."""

    def __init__(self, store: StoreEngine) -> None:
        self._store = store

    def fetch(
        self,
        version: Version,  # noqa: ARG002  there is only the present
        keys: Sequence[bytes],
        *,
        bytes_max: int | None = None,
        values: bool = True,  # noqa: ARG002  the trait gives them anyway
    ) -> list[Row | None]:
        """[reader] The rows of the first of these row keys, up to 64 at a time.

        Their sequence is 0, since the trait does not tell; nor does it tell sizes beforehand.
        """
        rows: list[Row | None] = []
        size = 0
        while len(rows) < len(keys) and (not rows or bytes_max is None or size < bytes_max):
            part = self._fetch(keys[len(rows) : len(rows) + _KEYS_MAX])
            rows += part
            size += sum(len(row.value) for row in part if row is not None and row.value is not None)
        return rows

    def _fetch(self, keys: Sequence[bytes]) -> list[Row | None]:
        wanted = [key[1:] for key in keys if key[0] == Keyspace.STORE]
        found = dict(_call(partial(self._store.get_many, wanted)) if wanted else [])
        values = [found.get(key[1:]) if key[0] == Keyspace.STORE else None for key in keys]
        return [
            None if value is None else Row(key, _UNKNOWN_VERSION, value)
            for key, value in zip(keys, values, strict=True)
        ]

    def page(self, start: bytes, end: bytes, limit: int, *, forward: bool) -> Page:
        """[reader] Up to ``limit`` rows with ``start <= row key < end``."""
        store_start = row_key(Keyspace.STORE, b"")
        store_end = row_key(Keyspace.STORE + 1, b"")
        start, end = max(start, store_start), min(end, store_end)
        if start >= end:
            return Page([], None)
        # The trait's bounds are inclusive, ours end before `end`: one more, and drop it.
        last = b"" if end == store_end else end[1:]
        pairs = _call(partial(self._store.range_scan, start[1:], last, limit + 2, forward))
        rows = [Row(row_key(Keyspace.STORE, key), _UNKNOWN_VERSION, value) for key, value in pairs]
        rows = [row for row in rows if row.key < end]
        if len(rows) <= limit:
            return Page(rows, None)
        return Page(rows[:limit], rows[limit].key if forward else rows[limit - 1].key)

    def log_page(
        self, after: int, *, through: int, batches_max: int, bytes_max: int
    ) -> list[EncodedBatch]:
        """[reader] The batches that follow ``after``; the time of each is 0.

        Raises UnsupportedError if the backend keeps no log.
        """
        oldest = _call(self._store.oldest_retained_batch)
        if oldest is None and after < through:
            raise UnsupportedError("this backend keeps no log: its get_batch has nothing to give")
        if oldest is not None and after + 1 < oldest:
            raise BatchEvictedError(oldest)
        page: list[EncodedBatch] = []
        size = 0
        for sequence in range(after + 1, through + 1):
            pairs = _call(partial(self._store.get_batch, sequence))
            if pairs is not None:
                payload = encode_entries([Entry(Keyspace.STORE, *pair) for pair in pairs])
                size += len(payload)
                if page and size > bytes_max:
                    break
                page.append(EncodedBatch(sequence, 0, payload))
            if len(page) == batches_max:
                break
            if sequence - after >= _HOLES_MAX:
                # Nothing for so long: a batch without entries says how far it was looked.
                return page or [EncodedBatch(sequence, 0, NONE)]
        return page

    def sequence_at(self, committed_at: int) -> int:  # noqa: ARG002  the seam has it
        """Raises UnsupportedError: the trait knows no times."""
        raise UnsupportedError("this backend does not know when a batch was written")

    def cutoff(self, retention: Retention, now: int) -> int:  # noqa: ARG002  no times are known
        """[reader] The floor that a bound on batches asks for; other bounds are unsupported."""
        if retention.seconds_max is not None or retention.bytes_max is not None:
            raise UnsupportedError("this backend knows neither times nor sizes of batches")
        newest = _call(self._store.current_sequence)
        oldest = _call(self._store.oldest_retained_batch)
        floor = newest + 1 if oldest is None else oldest
        if retention.batches_max is None:
            return floor
        return max(floor, newest + 1 - retention.batches_max)

    def log_bytes(self, floor: int) -> int:  # noqa: ARG002  the seam has it
        """[reader] 0: the trait knows no sizes."""
        return 0

    def interrupt(self) -> None:
        """The trait has no way to stop a call."""


@dataclass(frozen=True, slots=True)
class _TraitPlan:
    start: bytes
    end: bytes
    rows_max: int
    forward: bool

    @property
    def in_memory(self) -> bool:
        return False

    def run(self, reader: Reader | None) -> Page:
        assert isinstance(reader, TraitReader), reader
        return reader.page(self.start, self.end, self.rows_max, forward=self.forward)


def _call(method: Callable[[], T]) -> T:
    """What the backend answers; anything but our own errors counts as ``store_failed``."""
    try:
        return method()
    except ExoStreamError:
        raise
    except Exception as error:
        raise StoreError(f"the backend failed ({type(error).__name__})") from error
