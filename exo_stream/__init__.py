"""exo_stream: an event log and a key-value table in one DuckDB file, inside your trio program."""

from typing import TYPE_CHECKING

from exo_stream.errors import (
    BatchEvictedError,
    ConflictError,
    CursorAheadError,
    ExoStreamError,
    InvalidRequestError,
    LogMismatchError,
    OutcomeUnknownError,
    PlatformClosedError,
    StoreError,
    UnavailableError,
    UnsupportedError,
)
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
from exo_stream.limits import Limits
from exo_stream.model import Batch, Cursor, Entry, VersionedValue
from exo_stream.opening import open_platform
from exo_stream.platform import Platform
from exo_stream.producers import Producer
from exo_stream.storage.engine import Retention, StoreEngine

if TYPE_CHECKING:
    from exo_stream.client import Client, connect
else:

    def __getattr__(name: str) -> object:
        """The client, imported when it is first asked for: who embeds needs no WebSocket."""
        if name in {"Client", "connect"}:
            from exo_stream import client  # noqa: PLC0415  the sentence above says why

            return getattr(client, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Batch",
    "BatchEvictedError",
    "CaughtUp",
    "Client",
    "ConflictError",
    "Cursor",
    "CursorAheadError",
    "Entry",
    "ExoStreamError",
    "FeedMessage",
    "FellBehind",
    "Heartbeat",
    "InvalidRequestError",
    "Limits",
    "LogMismatchError",
    "OutcomeUnknownError",
    "Platform",
    "PlatformClosedError",
    "Producer",
    "Progress",
    "Retention",
    "SnapshotBegin",
    "SnapshotEnd",
    "SnapshotPage",
    "StoreEngine",
    "StoreError",
    "UnavailableError",
    "UnsupportedError",
    "VersionedValue",
    "connect",
    "open_platform",
]
