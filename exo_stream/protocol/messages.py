"""The messages of the WebSocket protocol: frozen values, and nothing that can be done to them.

On the wire a message is the array ``[name, *fields]`` with the fields in the order in which they
stand here (docs/protocol.cddl is normative). Requests carry an ``id`` that only ever grows on one
connection; their one answer, or a failure, carries it back. A subscription keeps the id of its
``Subscribe`` until it has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from exo_stream.model import Cursor, Entry
from exo_stream.producers import Producer
from exo_stream.protocol.canonical_messages import CanonicalReply, CanonicalRequest
from exo_stream.protocol.policies import PolicyReply, PolicyRequest
from exo_stream.protocol.projection_messages import ProjectionReply, ProjectionRequest
from exo_stream.protocol.reductions import Reduce, Reduced
from exo_stream.protocol.stream_messages import StreamReply, StreamRequest
from exo_stream.selectors import AnySelector, Selector
from exo_stream.starts import Oldest, Start
from exo_stream.writes import Requirement

VERSION: Final = 1
SUBPROTOCOL: Final = "exo-stream.v1.cbor"
"""What both sides must name in the WebSocket handshake."""
SNAPSHOT_PAGES_MAX: Final = 8
"""The server reads on in a snapshot when fewer pages wait for their ``SnapshotNext``."""

Pair = tuple[bytes, bytes]
FieldValue = int | str | bytes | None
"""What an error may carry in its fields, and a welcome in its limits."""


class DeliveredBatch(NamedTuple):
    """One batch as a frame carries it; the log it belongs to is that of the ``Welcome``."""

    sequence: int
    committed_at: int
    entries: tuple[Entry, ...]


class PartBody(NamedTuple):
    """Some bytes of a ``batches`` body that is larger than a frame; see ``frames.Assembly``."""

    total: int
    offset: int
    chunk: bytes

    @property
    def is_last(self) -> bool:
        return self.offset + len(self.chunk) == self.total


# --- the client speaks -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message: which versions of the protocol the client speaks, and its name."""

    versions: tuple[int, ...]
    client: str


@dataclass(frozen=True, slots=True)
class Write:
    """Write the puts and then the deletes as one batch; answered by ``Written``."""

    id: int
    puts: tuple[Pair, ...] = ()
    deletes: tuple[bytes, ...] = ()
    require: Mapping[bytes, Requirement] = field(default_factory=dict)
    producer: Producer | None = None


@dataclass(frozen=True, slots=True)
class Get:
    """Read one key at or above ``min_sequence``; answered by ``Value``.

    ``wait`` says whether to wait for that sequence, bounded by the server, or refuse at once.
    """

    id: int
    key: bytes
    min_sequence: int = 0
    wait: bool = True


@dataclass(frozen=True, slots=True)
class GetMany:
    """Read several keys at one sequence; answered by ``Values`` in the order asked."""

    id: int
    keys: tuple[bytes, ...]
    min_sequence: int = 0
    wait: bool = True


@dataclass(frozen=True, slots=True)
class Scan:
    """Open a scan on one snapshot; answered by its first ``Rows``.

    Both ends are inclusive, an empty ``end`` is unbounded, ``limit`` None is all. If the answer
    says ``more``, the scan stays open under this id until ``ScanNext`` has brought the last
    rows, ``ScanClose`` came, or the server let it expire.
    """

    id: int
    start: bytes = b""
    end: bytes = b""
    limit: int | None = None
    forward: bool = True
    min_sequence: int = 0
    wait: bool = True


@dataclass(frozen=True, slots=True)
class ScanNext:
    """The next rows of the scan that ``Scan`` number ``scan`` opened; answered by ``Rows``."""

    id: int
    scan: int


@dataclass(frozen=True, slots=True)
class ScanClose:
    """Let go of a scan. Not answered; closing one that has ended is no mistake."""

    scan: int


@dataclass(frozen=True, slots=True)
class GetBatch:
    """Read one batch of the log; answered by ``Found``, or by ``Part`` if it is large."""

    id: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Info:
    """What the log holds, and how large things are; answered by ``Information``."""

    id: int


@dataclass(frozen=True, slots=True)
class Prune:
    """Evict every batch below the cutoff; answered by ``Pruned``."""

    id: int
    cutoff_exclusive: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Deliver what ``selector`` wants from ``start`` on, under this id.

    Answered by ``Subscribed`` before any data. ``slow`` is what happens when the client does
    not keep up: ``catch_up`` or ``disconnect``. ``heartbeat`` asks for a sign of life after so
    many quiet seconds; None leaves it to the server.
    """

    id: int
    start: Start = field(default_factory=Oldest)
    selector: AnySelector = field(default_factory=Selector)
    slow: str = "catch_up"
    heartbeat: int | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """End a subscription; answered by ``Unsubscribed``, unless a ``Failure`` ended it before."""

    id: int


@dataclass(frozen=True, slots=True)
class SnapshotNext:
    """One more page of a snapshot has been taken in. Not answered.

    A snapshot may be larger than the reader's memory and cannot be resumed in its middle, so
    the reader sets the pace: the server reads on when it is fewer than ``SNAPSHOT_PAGES_MAX``
    pages ahead.
    """

    id: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The client takes nothing more; the connection closes."""

    reason: str = ""


# --- either side speaks ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ping:
    """Answer with the same nonce. For those who cannot see WebSocket's own pings: browsers."""

    nonce: int


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to ``Ping``."""

    nonce: int


# --- the server speaks -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to ``Hello``: which log this is, what is retained, and what is allowed.

    ``oldest`` is None when the log is empty. ``limits`` are named as in ``limits.Limits``; and
    ``producers`` is how many of a producer's numbers are remembered, 0 if it refuses producers.
    """

    version: int
    log_id: str
    frontier: int
    oldest: int | None
    limits: Mapping[str, FieldValue] = field(default_factory=dict)
    server: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """The request or the subscription ``id`` is over; ``code`` says why.

    Before the ``Welcome`` its id is 0, and it is the whole connection that is refused.
    """

    id: int
    code: str
    message: str
    retryable: bool
    fields: Mapping[str, FieldValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """The batch is durable and visible under this sequence."""

    id: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Value:
    """A key's value and version (None and 0 if absent), served at ``sequence``."""

    id: int
    sequence: int
    version: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Values:
    """The values of the keys asked for, in their order, served at ``sequence``."""

    id: int
    sequence: int
    values: tuple[bytes | None, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a scan at ``sequence``, in its direction; ``more`` says that it stays open."""

    id: int
    sequence: int
    rows: tuple[Pair, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Found:
    """The batch asked for, or None if it is not retained."""

    id: int
    batch: DeliveredBatch | None


@dataclass(frozen=True, slots=True)
class Information:
    """The log's ends, and sizes by name for people."""

    id: int
    log_id: str
    frontier: int
    oldest: int | None
    sizes: Mapping[str, FieldValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many batches were evicted."""

    id: int
    batches: int


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The start, resolved: what follows comes after this cursor."""

    id: int
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class SnapshotBegin:
    """Rows of the table at ``sequence`` follow; drop what an earlier snapshot brought."""

    id: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One page of the snapshot's rows, in key order."""

    id: int
    rows: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    """The snapshot is whole; batches after this cursor follow."""

    id: int
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Batches:
    """Batches in order. The server writes them with ``frames``, never from this value."""

    id: int
    batches: tuple[DeliveredBatch, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a batch that is larger than a frame."""

    id: int
    body: PartBody


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything up to the log's end at this moment has been delivered."""

    id: int
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class FellBehind:
    """After having been caught up, the reader is now ``behind`` batches late."""

    id: int
    cursor: Cursor
    behind: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Nothing matched up to ``cursor``; resuming from it skips nothing."""

    id: int
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing happened for a while; the log's newest batch is ``frontier``."""

    id: int
    frontier: int


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """The last message of a subscription that the client ended."""

    id: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The server stops within so many seconds: finish, and come back later."""

    after_seconds: int
    reason: str


Request = (
    Write
    | Get
    | GetMany
    | Scan
    | ScanNext
    | Reduce
    | GetBatch
    | Info
    | Prune
    | Subscribe
    | PolicyRequest
    | StreamRequest
    | CanonicalRequest
    | ProjectionRequest
)
Reply = (
    Written
    | Value
    | Values
    | Rows
    | Reduced
    | Found
    | Information
    | Pruned
    | PolicyReply
    | StreamReply
    | CanonicalReply
    | ProjectionReply
)
Delivery = (
    Subscribed
    | SnapshotBegin
    | Snapshot
    | SnapshotEnd
    | Batches
    | Part
    | CaughtUp
    | FellBehind
    | Progress
    | Heartbeat
)
Message = (
    Hello
    | Request
    | ScanClose
    | Unsubscribe
    | SnapshotNext
    | Goodbye
    | Ping
    | Pong
    | Welcome
    | Failure
    | Reply
    | Delivery
    | Unsubscribed
    | GoAway
)
