"""A write batch from afar: puts, deletions and events that depend on nothing, kept all or none."""

from __future__ import annotations

from exo_stream.canonical.changes import CommitInfo
from exo_stream.canonical.ranges import over
from exo_stream.client.link import Link
from exo_stream.client.write_txn import RemoteWriteTxn


class RemoteBatch:
    """Collected at leisure, committed once. It reads nothing, so nothing can be in conflict."""

    def __init__(self, link: Link) -> None:
        self._changes = RemoteWriteTxn(link)
        self._changes.begin()
        self._count = 0
        self._committed = False

    def __len__(self) -> int:
        return self._count

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it."""
        return not self._count

    def put(self, key: bytes, value: bytes) -> None:
        """Write a value."""
        self._check_open()
        self._changes.put_state(key, value)
        self._count += 1

    def delete(self, key: bytes) -> None:
        """Delete a key, present or not."""
        self._check_open()
        self._changes.del_state(key)
        self._count += 1

    def append_event(self, event: bytes) -> None:
        """Append an event; its id is known when the batch has committed."""
        self._check_open()
        self._changes.log_bytes(event)
        self._count += 1

    async def commit(self) -> CommitInfo:
        """Keep all of it, as one batch; returns when it is durable. It can be committed once."""
        self._check_open()
        self._committed = True
        return await self._changes.commit()

    def _check_open(self) -> None:
        if self._committed:
            raise over("batch")
