"""The nine methods of the trait over any ``Engine``: one lock, and jobs done inline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import RLock  # noqa: TID251  the trait promises to be thread-safe

from exo_stream.errors import (
    InvalidRequestError,
    LimitExceededError,
    OutcomeUnknownError,
    StoreError,
    StoreFullError,
)
from exo_stream.limits import STORE_KEY_BYTES_MAX, Limits
from exo_stream.logger import log
from exo_stream.model import Entry, Keyspace, Row, row_key
from exo_stream.payload import EncodedBatch, encode_entries
from exo_stream.storage.engine import Cold, Engine, Group, Reader

_STORE_END = row_key(Keyspace.STORE + 1, b"")


class InlineStore:
    """Drives an engine by the nine methods of ``StoreEngine``, from any thread.

    For use without a platform; while a platform has the engine, it alone may write. Ours inherit
    it, and are the engine that they drive.
    """

    def __init__(self, engine: Engine, limits: Limits, now: Callable[[], int]) -> None:
        self._engine = engine
        self._limits = limits
        self._now = now
        self._lock = RLock()
        self._reader: Reader | None = None
        self._unresolved: Group | None = None

    def put_batch(self, kvs: Sequence[tuple[bytes, bytes]]) -> int:
        """Write all pairs or none, as one batch; answer its sequence number."""
        for key, value in kvs:
            _check_key(key)
            _check_value(value, self._limits)
        return self._write([Entry(Keyspace.STORE, key, value) for key, value in kvs])

    def delete_batch(self, keys: Sequence[bytes]) -> int:
        """Delete all keys as one batch; answer its sequence number."""
        for key in keys:
            _check_key(key)
        return self._write([Entry(Keyspace.STORE, key, None) for key in keys])

    def get(self, key: bytes) -> bytes | None:
        """The key's latest value, ``None`` if it is absent."""
        return self.get_many([key])[0][1]

    def get_many(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes | None]]:
        """Each asked key with its value, in the order asked, duplicates kept."""
        with self._lock:
            version = self._engine.version
            found: dict[bytes, Row | None] = {}
            cold: list[bytes] = []
            for key in dict.fromkeys(keys):
                answer = self._engine.lookup(version, row_key(Keyspace.STORE, key))
                if isinstance(answer, Cold):
                    cold.append(key)
                else:
                    found[key] = answer
            if cold:
                wanted = [row_key(Keyspace.STORE, key) for key in cold]
                bound = self._limits.get_many_bytes_max
                rows = self._open_reader().fetch(version, wanted, bytes_max=bound)
                if len(rows) < len(cold):
                    size = sum(len(row.value) for row in rows if row is not None and row.value)
                    raise LimitExceededError("get_many_bytes_max", bound, size)
                found.update(zip(cold, rows, strict=True))
            return [(key, row.value if (row := found[key]) else None) for key in keys]

    def range_scan(
        self, start: bytes, end: bytes, limit: int, forward: bool
    ) -> list[tuple[bytes, bytes]]:
        """Up to ``limit`` pairs, both ends inclusive; an empty ``end`` is unbounded."""
        low = row_key(Keyspace.STORE, start)
        high = row_key(Keyspace.STORE, end) + b"\0" if end else _STORE_END
        pairs: list[tuple[bytes, bytes]] = []
        with self._lock:
            version = self._engine.version
            while len(pairs) < limit and low < high:
                plan = self._engine.scan(
                    version,
                    low,
                    high,
                    rows_max=min(limit - len(pairs), self._limits.page_rows_max),
                    bytes_max=self._limits.page_bytes_max,
                    forward=forward,
                )
                page = plan.run(None if plan.in_memory else self._open_reader())
                pairs += [(row.key[1:], row.value) for row in page.rows if row.value is not None]
                if page.resume is None:
                    break
                low, high = (page.resume, high) if forward else (low, page.resume)
        return pairs

    def current_sequence(self) -> int:
        """The sequence number of the newest batch, 0 before the first."""
        return self._engine.version.frontier

    def get_batch(self, sequence: int) -> list[tuple[bytes, bytes]] | None:
        """The pairs of a retained batch; a deletion's batch is ``[]``; ``None`` if not there."""
        with self._lock:
            version = self._engine.version
            if not version.floor <= sequence <= version.frontier:
                return None
            page = self._open_reader().log_page(
                sequence - 1, through=sequence, batches_max=1, bytes_max=1
            )
        return [
            (entry.key, entry.value)
            for batch in page
            for entry in batch.entries
            if entry.keyspace == Keyspace.STORE and entry.value is not None
        ]

    def oldest_retained_batch(self) -> int | None:
        """The sequence number of the oldest batch of the log, ``None`` if the log is empty."""
        version = self._engine.version
        return version.floor if version.floor <= version.frontier else None

    def prune_batch_log(self, cutoff_exclusive: int) -> int:
        """Evict every batch below the cutoff; answer how many there were."""
        with self._lock:
            self._resolve()
            version = self._engine.version
            floor = min(cutoff_exclusive, version.frontier + 1)
            if floor <= version.floor:
                return 0
            self._commit(Group((), floor=floor))
            return floor - version.floor

    def _write(self, entries: Sequence[Entry]) -> int:
        if not entries:
            raise InvalidRequestError("a batch has at least one entry")
        payload = encode_entries(entries)
        with self._lock:
            self._resolve()
            engine = self._engine
            sequence = engine.version.frontier + 1
            committed_at = max(engine.last_committed_at, self._now())
            self._commit(Group((EncodedBatch(sequence, committed_at, payload, tuple(entries)),)))
            return sequence

    def _commit(self, group: Group) -> None:
        try:
            self._engine.commit(group)
        except StoreFullError:
            self._unresolved = group
            if not self._is_kept(group):
                raise StoreFullError("no space; nothing was kept") from None
        else:
            self._engine.install(group)
        try:
            self._do_jobs()
        except StoreFullError as error:
            self._unresolved = Group(())
            log.warning("job abandoned", error=str(error))
        except StoreError as error:
            # What was written is kept; a job that failed is planned anew after the next write.
            log.warning("job abandoned", error=str(error))

    def _is_kept(self, group: Group) -> bool:
        """Whether a group that met "no space" is durable all the same, and visible now."""
        unknown = OutcomeUnknownError("no space; whether it was kept is not known yet")
        try:
            is_kept = self._resolve()
        except StoreFullError:
            raise unknown from None
        if group.floor is not None:
            raise unknown
        return is_kept

    def _resolve(self) -> bool:
        """Open a file that met "no space" again; whether what it met it with turned out durable.

        Raises StoreFullError while there is still none.
        """
        group = self._unresolved
        if group is None:
            return False
        durable = self._engine.reopen()
        self._unresolved = None
        if not group.batches or durable < group.batches[-1].sequence:
            return False
        self._engine.install(group)
        return True

    def _do_jobs(self) -> None:
        while (job := self._engine.next_job(self._now(), idle=False)) is not None:
            while not job.step():
                pass
            job.install()

    def _open_reader(self) -> Reader:
        if self._reader is None:
            self._reader = self._engine.open_reader()
        return self._reader


def _check_key(key: object) -> None:
    if not isinstance(key, bytes):
        raise InvalidRequestError(f"a key is bytes, not {type(key).__name__}")
    if len(key) > STORE_KEY_BYTES_MAX:
        raise LimitExceededError("key_bytes_max", STORE_KEY_BYTES_MAX, len(key))


def _check_value(value: object, limits: Limits) -> None:
    if not isinstance(value, bytes):
        raise InvalidRequestError(f"a value is bytes, not {type(value).__name__}")
    if len(value) > limits.value_bytes_max:
        raise LimitExceededError("value_bytes_max", limits.value_bytes_max, len(value))
