"""The canonical store of a server, from afar: the same transactions, values and errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Self

import trio

from exo_stream.canonical.changes import CommitInfo
from exo_stream.canonical.events import check_ids
from exo_stream.canonical.projection_rules import ProjectorStatus
from exo_stream.canonical.ranges import after_prefix, over
from exo_stream.canonical.state import check_key
from exo_stream.canonical.store import CanonicalMeta
from exo_stream.client.attempts import ATTEMPTS_MAX, until_it_holds
from exo_stream.client.call import Call
from exo_stream.client.event_iter import RemoteEventIter, read_events
from exo_stream.client.link import Link
from exo_stream.client.remote_batch import RemoteBatch
from exo_stream.client.remote_pauses import RemotePauses
from exo_stream.client.remote_projections import (
    read_dead_letters,
    read_projections,
    replay_dead_letters,
)
from exo_stream.client.state_calls import read_state
from exo_stream.client.state_ranges import RemoteSnapshot, RemoteStateIter
from exo_stream.client.transaction import RemoteTransaction
from exo_stream.client.write_txn import RemoteWriteTxn
from exo_stream.errors import InvalidRequestError
from exo_stream.model import SEQUENCE_MAX
from exo_stream.protocol import canonical_messages as c
from exo_stream.storage.dead_letter import DeadLetter

Body = Callable[[RemoteWriteTxn], Awaitable[None]]


class RemoteCanonical:
    """State and events of a server that change together: ``client.canonical``.

    Transactions are optimistic: the server holds nothing for them, and judges what was read when
    it decides the commit. So there is no slot to wait for, and no ``lock_manager``.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._pauses = RemotePauses(link, all_faces=False)

    async def meta(self) -> CanonicalMeta:
        """The next event id, the seal, and the times, as of now."""
        found = await self._meta()
        return CanonicalMeta(
            found.next_event_id,
            found.sealed_event_id,
            found.schema_version,
            found.created_at,
            found.updated_at,
            found.sequence,
        )

    def read_txn(self) -> RemoteReadTxn:
        """A snapshot of state and events; ``async with canonical.read_txn() as txn:``."""
        return RemoteReadTxn(self._link)

    def write_txn(self) -> RemoteWriteTxn:
        """A write transaction; ``async with canonical.write_txn() as txn:``.

        Unlike the platform's it waits for nobody; PausedError and SealedError come at its commit.
        """
        return RemoteWriteTxn(self._link)

    def transaction(self) -> RemoteTransaction:
        """A preflighted transaction to be built and executed; its validators run here."""
        return RemoteTransaction(self._link)

    def batch(self) -> RemoteBatch:
        """An empty write batch."""
        return RemoteBatch(self._link)

    async def transact(self, body: Body, *, attempts_max: int = ATTEMPTS_MAX) -> CommitInfo:
        """Run ``body`` in a transaction and commit it; if it is in conflict, once more.

        ``body`` must be fit to be run several times. Between two attempts there is a pause of a
        random length up to a bound that doubles. Raises the TransactionConflictError of the last
        of ``attempts_max``, and what ``body`` raises.
        """
        return await until_it_holds(lambda: self.submit_write(body), attempts_max)

    async def submit_write(self, write: Body) -> CommitInfo:
        """Run ``write`` in a write transaction, and commit it; a conflict is not tried again."""
        async with self.write_txn() as txn:
            await write(txn)
            return await txn.commit()

    async def iter_events(
        self, first: int = 0, end: int | None = None, *, follow: bool = False
    ) -> RemoteEventIter:
        """The events with ``first <= id < end``; without an ``end`` up to the newest one now.

        With ``follow`` it goes on with every event that comes, up to ``end`` if there is one.
        """
        check_ids(first, end)
        if follow:
            await trio.lowlevel.checkpoint()
            until = SEQUENCE_MAX + 1 if end is None else end
        else:
            newest = (await read_events(self._link, 0, 0)).next_event_id
            until = newest if end is None else min(end, newest)
        return RemoteEventIter(self._link, first, until, follow=follow)

    def range(
        self,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> RemoteStateIter:
        """The pairs with ``start <= key < end`` in key order, on one snapshot.

        To the last if ``end`` is None. The snapshot is that of its first step.
        """
        return RemoteStateIter(self._link, start, end, reverse=reverse, limit=limit)

    def scan_prefix(
        self, prefix: bytes, *, reverse: bool = False, limit: int | None = None
    ) -> RemoteStateIter:
        """The pairs whose key starts with ``prefix``, in key order, on one snapshot."""
        if type(prefix) is not bytes:
            raise InvalidRequestError("a prefix is bytes")
        return self.range(prefix, after_prefix(prefix), reverse=reverse, limit=limit)

    async def projection_statuses(self) -> list[ProjectorStatus]:
        """How every projection in the server's process is, in the order they were added.

        A server alone runs none: they are async functions of the program that serves its platform.
        """
        return await read_projections(self._link)

    async def dead_letters(
        self, projection: str, first: int = 0, limit: int = 100
    ) -> list[DeadLetter]:
        """Events that a projection has put aside, by id: up to ``limit`` from the id ``first`` on,
        fewer if they are large.
        """
        return await read_dead_letters(self._link, projection, first, limit)

    async def replay_dead_letters(self, projection: str, limit: int = 100) -> tuple[int, int]:
        """Have the oldest that are not permanent handed to the projection's handler again.

        Returns how many went through, and how many failed again.
        """
        return await replay_dead_letters(self._link, projection, None, limit)

    async def replay_dead_letter(self, projection: str, event_id: int) -> None:
        """Have this one handed to the handler again, though it be permanent."""
        await replay_dead_letters(self._link, projection, event_id, 1)

    async def seal(self) -> int:
        """Refuse every write from now on, also after a restart; the id of the last event.

        Nothing commits after it has returned. A store without events is not sealed, and 0 is the
        answer.
        """
        reply = await self._link.ask(Call(lambda id_, _: c.Seal(id_)))
        assert isinstance(reply, c.Sealed), reply
        return reply.event_id

    async def unseal(self) -> None:
        """Take writes again."""
        await self._link.ask(Call(lambda id_, _: c.Unseal(id_)))

    async def pause_ingestion(self) -> None:
        """Refuse new transactions, of everybody; return once those under way are over.

        Pauses nest. One that is cancelled before it returns has not happened. It outlives this
        client, so that nothing is written behind anybody's back: ``resume_all``, or
        ``exo-stream resume``, ends one that was left behind.
        """
        await self._pauses.begin()

    async def resume_ingestion(self) -> None:
        """Undo this client's last pause; without any it does nothing."""
        await self._pauses.end()

    async def resume_all(self) -> int:
        """End every pause that was asked for from afar, by whomever; how many there were."""
        return await self._pauses.end_all()

    async def is_paused(self) -> bool:
        """Whether writes are refused, by a pause of the store or of all faces."""
        return (await self._meta()).is_paused

    async def are_all_faces_paused(self) -> bool:
        """Whether the writes of every face are refused."""
        return (await self._meta()).all_faces_paused

    async def _meta(self) -> c.StoreMeta:
        reply = await self._link.ask(Call(lambda id_, _: c.ReadMeta(id_)))
        assert isinstance(reply, c.StoreMeta), reply
        return reply


class RemoteReadTxn:
    """The store at one sequence: its state, ranges of it, and the events up to it.

    The server holds it for the connection: raises SnapshotExpiredError once that is lost, or after
    ``snapshot_seconds_max``, or if ``snapshots_per_connection_max`` are held.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._held: RemoteSnapshot | None = None
        self._entered = False

    async def __aenter__(self) -> Self:
        assert not self._entered, "a read transaction is entered once"
        self._entered = True
        snapshot = RemoteSnapshot(self._link)
        await snapshot.open()
        self._held = snapshot
        return self

    async def __aexit__(self, *_: object) -> None:
        snapshot, self._held = self._held, None
        if snapshot is not None:
            snapshot.close()
        await trio.lowlevel.cancel_shielded_checkpoint()

    @property
    def sequence(self) -> int:
        """The sequence number it shows the store at."""
        return self._snapshot().opened.sequence

    async def get_state(self, key: bytes) -> bytes | None:
        """The key's value, None if it is absent."""
        check_key(key, "get_state")
        reply = await read_state(self._link, [key], values=True, snapshot=self._snapshot())
        return reply.values[0].value

    async def exists(self, key: bytes) -> bool:
        """Whether the key is there."""
        check_key(key, "get_state")
        reply = await read_state(self._link, [key], values=False, snapshot=self._snapshot())
        return reply.values[0].version > 0

    def range(
        self,
        start: bytes = b"",
        end: bytes | None = None,
        *,
        reverse: bool = False,
        limit: int | None = None,
    ) -> RemoteStateIter:
        """The pairs with ``start <= key < end`` in key order; to the last if ``end`` is None."""
        return RemoteStateIter(
            self._link,
            start,
            end,
            reverse=reverse,
            limit=limit,
            snapshot=self._snapshot(),
            check=self._check_open,
        )

    def scan_prefix(
        self, prefix: bytes, *, reverse: bool = False, limit: int | None = None
    ) -> RemoteStateIter:
        """The pairs whose key starts with ``prefix``, in key order."""
        return self.range(prefix, after_prefix(prefix), reverse=reverse, limit=limit)

    async def next_event_id(self) -> int:
        """The id that the first event after this snapshot has."""
        await trio.lowlevel.checkpoint()
        return self._snapshot().opened.next_event_id

    async def iter_events(self, first: int = 0, end: int | None = None) -> RemoteEventIter:
        """The events with ``first <= id < end``, none that this snapshot does not show."""
        check_ids(first, end)
        newest = await self.next_event_id()
        until = newest if end is None else min(end, newest)
        return RemoteEventIter(self._link, first, until)

    def _check_open(self) -> None:
        self._snapshot()

    def _snapshot(self) -> RemoteSnapshot:
        if self._held is None:
            raise over("read transaction")
        return self._held
