"""What a feed has received and its user has not taken yet, and where to resume. No I/O."""

from __future__ import annotations

from collections import deque
from typing import Final

from exo_stream.errors import RemoteProtocolError
from exo_stream.feed import (
    CaughtUp,
    FeedMessage,
    FellBehind,
    Heartbeat,
    Progress,
    SnapshotBegin,
    SnapshotEnd,
    SnapshotPage,
)
from exo_stream.model import Batch, Cursor
from exo_stream.payload import ENTRY_BYTES
from exo_stream.protocol import codec
from exo_stream.protocol import messages as m
from exo_stream.protocol.frames import Assembly
from exo_stream.protocol.messages import DeliveredBatch, Delivery
from exo_stream.starts import After, FromSnapshot, Start

MESSAGE_BYTES: Final = 200
"""What a message costs in memory beside its entries, about."""


class Inbox:
    """The messages of one subscription in order, bounded by whoever fills it.

    A connection that is lost takes nothing away that was received whole: what is here is
    delivered, and the subscription resumes behind it. Only a snapshot that is not whole begins
    again.
    """

    def __init__(self, start: Start, *, batch_bytes_max: int) -> None:
        self.resume = start
        self.held_bytes = 0
        self._batch_bytes_max = batch_bytes_max
        self._messages: deque[tuple[FeedMessage | DeliveredBatch, int]] = deque()
        self._log_id = ""
        self._last = 0
        self._snapshot: int | None = None
        self._assembly = Assembly(batch_bytes_max)

    def __len__(self) -> int:
        return len(self._messages)

    def subscribed(self, cursor: Cursor) -> None:
        """The start is resolved: what comes follows this cursor."""
        self._log_id = cursor.log_id
        self._last = cursor.sequence
        if not isinstance(self.resume, FromSnapshot):
            self.resume = After(cursor)

    def lost(self) -> None:
        """No more of this connection: forget what is not whole."""
        self._assembly = Assembly(self._batch_bytes_max)
        if isinstance(self.resume, FromSnapshot):
            self._messages.clear()
            self.held_bytes = 0
        self._snapshot = None

    def push(self, message: Delivery, frame_bytes: int) -> None:
        """Take in a message that came in a frame of so many bytes.

        Raises RemoteProtocolError for one that cannot follow what came before.
        """
        match message:
            case m.Batches(batches=batches):
                if not self._assembly.is_empty:
                    raise RemoteProtocolError("batches in the middle of a batch")
                self._push_batches(batches, frame_bytes)
            case m.Part(body=body):
                whole = self._assembly.add(body)
                if whole is not None:
                    self._push_batches(codec.decode_batches(whole), len(whole))
            case m.SnapshotBegin(sequence=sequence):
                self._snapshot = sequence
                self._append(SnapshotBegin(sequence), 0)
            case m.Snapshot(rows=rows):
                if self._snapshot is None:
                    raise RemoteProtocolError("a page without a snapshot")
                size = frame_bytes + len(rows) * ENTRY_BYTES
                self._append(SnapshotPage(self._snapshot, rows), size)
            case _:
                self._push_position(message)

    def pop(self) -> FeedMessage:
        """The next message; there must be one."""
        message, size = self._messages.popleft()
        self.held_bytes -= size
        if isinstance(message, DeliveredBatch):
            return Batch(message.sequence, message.committed_at, message.entries, self._log_id)
        return message

    def _push_position(self, message: Delivery) -> None:
        match message:
            case m.SnapshotEnd(cursor=cursor):
                self._snapshot = None
                self._move_to(cursor)
                self._append(SnapshotEnd(cursor), 0)
            case m.CaughtUp(cursor=cursor):
                self._move_to(cursor)
                self._append(CaughtUp(cursor), 0)
            case m.FellBehind(cursor=cursor, behind=behind):
                self._append(FellBehind(cursor, behind), 0)
            case m.Progress(cursor=cursor):
                self._move_to(cursor)
                self._append(Progress(cursor), 0)
            case m.Heartbeat(frontier=frontier):
                self._append(Heartbeat(frontier), 0)
            case _:
                raise AssertionError(message)

    def _push_batches(self, batches: tuple[DeliveredBatch, ...], frame_bytes: int) -> None:
        share = frame_bytes // max(1, len(batches))
        for batch in batches:
            if batch.sequence <= self._last:
                raise RemoteProtocolError(f"batch {batch.sequence} after {self._last}")
            self._last = batch.sequence
            self._append(batch, share + len(batch.entries) * ENTRY_BYTES)
        self.resume = After(Cursor(self._log_id, self._last))

    def _move_to(self, cursor: Cursor) -> None:
        if cursor.sequence < self._last or cursor.log_id != self._log_id:
            raise RemoteProtocolError(f"{cursor} after sequence {self._last}")
        self._last = cursor.sequence
        self.resume = After(cursor)

    def _append(self, message: FeedMessage | DeliveredBatch, size: int) -> None:
        self._messages.append((message, size + MESSAGE_BYTES))
        self.held_bytes += size + MESSAGE_BYTES
