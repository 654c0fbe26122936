"""Frames to messages and back. Total: any bytes give messages or a RemoteProtocolError.

A frame is a CBOR array of one or more messages, a message the array ``[name, *fields]``. Fields
that a newer peer appends are ignored, except where ignoring one could write or deliver something
that was not meant.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from io import BytesIO
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

import cbor2

from exo_stream.errors import RemoteProtocolError
from exo_stream.protocol import canonical_fields as cf
from exo_stream.protocol import canonical_messages as c
from exo_stream.protocol import fields as sorts
from exo_stream.protocol import messages as m
from exo_stream.protocol import policies as p
from exo_stream.protocol import projection_fields as pf
from exo_stream.protocol import projection_messages as pm
from exo_stream.protocol import reductions as r
from exo_stream.protocol import scalars
from exo_stream.protocol import stream_fields as f
from exo_stream.protocol import stream_messages as s
from exo_stream.protocol.fields import Sort
from exo_stream.protocol.heads import holds_more_than
from exo_stream.protocol.messages import DeliveredBatch, Message
from exo_stream.protocol.selector_fields import SELECTOR

R = TypeVar("R")

MESSAGES_MAX: Final = 4_096
"""Messages of one frame."""
MAPS_MAX: Final = MESSAGES_MAX
"""Maps of one frame: an empty map is one byte on the wire and more than a hundred in memory."""
ITEMS_MAX: Final = 6 * sorts.ENTRIES_MAX + 16 * MESSAGES_MAX
"""Items of one frame, or of one body put together from parts: an entry to write is three, itself
included, and its precondition three more. An array of an empty array is two bytes on the wire and
more than sixty in memory."""
DEPTH_MAX: Final = 8
"""Frame, message, batches, batch, entries, entry: six; nothing that is valid is deeper."""

_TAGS: Final = (
    *(0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54),
    *(100, 256, 258, 260, 261, 1004, 43000, 55799),
)
"""Every tag that cbor2 would decode by itself; the rest goes to ``tag_hook``."""


class Shape(NamedTuple):
    """How one kind of message is written: its name, its class, and the sort of each field."""

    name: str
    kind: type[Any]
    sorts: tuple[Sort, ...]
    required: int
    is_strict: bool


def _shape(name: str, kind: type[Any], *field_sorts: Sort, is_strict: bool = False) -> Shape:
    declared = fields(kind)
    assert len(declared) == len(field_sorts), kind
    required = sum(f.default is MISSING and f.default_factory is MISSING for f in declared)
    return Shape(name, kind, field_sorts, required, is_strict)


_U, _T, _B = sorts.UINT, sorts.TEXT, sorts.BYTES
_READ: Final = (sorts.UINT, sorts.FLAG)

_CANONICAL_SHAPES: Final = (
    _shape("open_snapshot", c.OpenSnapshot, _U),
    _shape("read_state", c.ReadState, _U, _U, sorts.KEYS, sorts.FLAG),
    _shape(
        "scan_state",
        c.ScanState,
        *(_U, _U, _B, sorts.OPTIONAL_BYTES, sorts.FLAG, _U, sorts.FLAG),
    ),
    _shape("read_events", c.ReadEvents, _U, _U, _U),
    _shape(
        "commit",
        c.Commit,
        *(_U, cf.STATE_VERSIONS, cf.OPERATIONS, sorts.KEYS),
        *(sorts.OPTIONAL_UINT, sorts.OPTIONAL_UINT, sorts.OPTIONAL_PRODUCER),
        is_strict=True,
    ),
    _shape("read_meta", c.ReadMeta, _U),
    _shape("seal", c.Seal, _U, is_strict=True),
    _shape("unseal", c.Unseal, _U, is_strict=True),
    _shape("pause_writes", c.PauseWrites, _U, _B, sorts.FLAG, is_strict=True),
    _shape("resume_writes", c.ResumeWrites, _U, sorts.OPTIONAL_BYTES, sorts.FLAG, is_strict=True),
    _shape("snapshot_opened", c.SnapshotOpened, _U, _U, _U, _U),
    _shape("state_values", c.StateValues, _U, _U, _U, cf.STATE_VALUES),
    _shape("state_rows", c.StateRows, _U, _U, _U, _U, cf.OPERATIONS, sorts.OPTIONAL_BYTES),
    _shape("events_read", c.EventsRead, _U, _U, _U, sorts.KEYS),
    _shape(
        "committed",
        c.Committed,
        *(_U, _U, sorts.OPTIONAL_UINT, sorts.OPTIONAL_UINT, _U, _U, _U),
    ),
    _shape(
        "store_meta",
        c.StoreMeta,
        *(_U, _U, sorts.OPTIONAL_UINT, _U, sorts.OPTIONAL_TEXT, sorts.OPTIONAL_TEXT, _U),
        *(sorts.FLAG, sorts.FLAG),
    ),
    _shape("sealed", c.Sealed, _U, _U),
    _shape("unsealed", c.Unsealed, _U),
    _shape("paused", c.Paused, _U),
    _shape("resumed", c.Resumed, _U, _U),
)

_PROJECTION_SHAPES: Final = (
    _shape("read_projections", pm.ReadProjections, _U),
    _shape("read_dead_letters", pm.ReadDeadLetters, _U, _T, _U, _U),
    _shape(
        "replay_dead_letters",
        pm.ReplayDeadLetters,
        *(_U, _T, sorts.OPTIONAL_UINT, _U),
        is_strict=True,
    ),
    _shape("projections_read", pm.ProjectionsRead, _U, pf.PROJECTION_STATES),
    _shape("dead_letters_read", pm.DeadLettersRead, _U, pf.PUT_ASIDE),
    _shape("dead_letters_replayed", pm.DeadLettersReplayed, _U, _U, _U),
)

_STREAM_SHAPES: Final = (
    _shape("create_stream", s.CreateStream, _U, _T, f.SETUP, sorts.KEYS, is_strict=True),
    _shape(
        "fork_stream",
        s.ForkStream,
        *(_U, _T, _T, sorts.OPTIONAL_TEXT, _U, f.SETUP, sorts.KEYS),
        is_strict=True,
    ),
    _shape(
        "append_stream",
        s.AppendStream,
        *(_U, _T, sorts.KEYS, sorts.OPTIONAL_TEXT, f.NUMBERS, sorts.FLAG),
        *(sorts.OPTIONAL_TEXT, sorts.OPTIONAL_TEXT),
        is_strict=True,
    ),
    _shape("read_stream", s.ReadStream, _U, _T, _T, sorts.OPTIONAL_UINT),
    _shape("head_stream", s.HeadStream, _U, _T),
    _shape("delete_stream", s.DeleteStream, _U, _T, is_strict=True),
    _shape("list_streams", s.ListStreams, _U, _T, _T, _U),
    _shape("clean_up_streams", s.CleanUpStreams, _U),
    _shape("stream_created", s.StreamCreated, _U, sorts.FLAG, _T, sorts.FLAG, f.SETUP, _U),
    _shape(
        "stream_appended",
        s.StreamAppended,
        *(_U, sorts.OPTIONAL_TEXT, _T, sorts.FLAG, sorts.FLAG),
        *(sorts.OPTIONAL_UINT, sorts.OPTIONAL_UINT),
    ),
    _shape(
        "stream_read",
        s.StreamRead,
        *(_U, f.SETUP, _U, _T, _T, sorts.FLAG, sorts.FLAG, _U, f.STORED),
    ),
    _shape("stream_head", s.StreamHead, _U, f.DESCRIPTION),
    _shape("stream_deleted", s.StreamDeleted, _U),
    _shape("streams_listed", s.StreamsListed, _U, f.DESCRIPTIONS, sorts.OPTIONAL_TEXT),
    _shape("streams_cleaned_up", s.StreamsCleanedUp, _U, _U),
)

SHAPES: Final = (
    _shape("hello", m.Hello, sorts.UINTS, _T),
    _shape(
        "write",
        m.Write,
        *(_U, sorts.PAIRS, sorts.KEYS, sorts.REQUIRE, sorts.OPTIONAL_PRODUCER),
        is_strict=True,
    ),
    _shape("get", m.Get, _U, _B, *_READ),
    _shape("get_many", m.GetMany, _U, sorts.KEYS, *_READ),
    _shape("scan", m.Scan, _U, _B, _B, sorts.OPTIONAL_UINT, sorts.FLAG, *_READ),
    _shape("scan_next", m.ScanNext, _U, _U),
    _shape("scan_close", m.ScanClose, _U),
    _shape("reduce", r.Reduce, _U, _B, _B, _B, *_READ),
    _shape("get_batch", m.GetBatch, _U, _U),
    _shape("info", m.Info, _U),
    _shape("prune", m.Prune, _U, _U, is_strict=True),
    _shape(
        "subscribe",
        m.Subscribe,
        *(_U, sorts.START, SELECTOR, sorts.SLOW, sorts.OPTIONAL_UINT),
    ),
    _shape("unsubscribe", m.Unsubscribe, _U),
    _shape("snapshot_next", m.SnapshotNext, _U),
    _shape("goodbye", m.Goodbye, _T),
    _shape("ping", m.Ping, _U),
    _shape("pong", m.Pong, _U),
    _shape("welcome", m.Welcome, _U, sorts.LOG_ID, _U, sorts.OPTIONAL_UINT, sorts.MAP, _T),
    _shape("error", m.Failure, _U, _T, _T, sorts.FLAG, sorts.MAP),
    _shape("written", m.Written, _U, _U),
    _shape("value", m.Value, _U, _U, _U, sorts.OPTIONAL_BYTES),
    _shape("values", m.Values, _U, _U, sorts.VALUES),
    _shape("rows", m.Rows, _U, _U, sorts.PAIRS, sorts.FLAG),
    _shape("reduced", r.Reduced, _U, _U, _U, scalars.SCALARS, scalars.GROUPS),
    _shape("found", m.Found, _U, sorts.OPTIONAL_BATCH),
    _shape("information", m.Information, _U, sorts.LOG_ID, _U, sorts.OPTIONAL_UINT, sorts.MAP),
    _shape("pruned", m.Pruned, _U, _U),
    _shape("prune_policies", p.PrunePolicies, _U, _B, sorts.FLAG, is_strict=True),
    _shape("set_retention", p.SetRetention, _U, _B, is_strict=True),
    _shape("get_retention", p.GetRetention, _U),
    _shape("policies_pruned", p.PoliciesPruned, _U, sorts.COUNTS, sorts.UINTS),
    _shape(
        "retention",
        p.Retention,
        *(_U, _B, _B, sorts.RETENTION_SOURCE, sorts.OPTIONAL_TEXT, sorts.OPTIONAL_UINT),
    ),
    *_STREAM_SHAPES,
    *_CANONICAL_SHAPES,
    *_PROJECTION_SHAPES,
    _shape("subscribed", m.Subscribed, _U, sorts.CURSOR),
    _shape("snapshot_begin", m.SnapshotBegin, _U, _U),
    _shape("snapshot", m.Snapshot, _U, sorts.ENTRIES),
    _shape("snapshot_end", m.SnapshotEnd, _U, sorts.CURSOR),
    _shape("batches", m.Batches, _U, sorts.BATCHES),
    _shape("part", m.Part, _U, sorts.PART),
    _shape("caught_up", m.CaughtUp, _U, sorts.CURSOR),
    _shape("fell_behind", m.FellBehind, _U, sorts.CURSOR, _U),
    _shape("progress", m.Progress, _U, sorts.CURSOR),
    _shape("heartbeat", m.Heartbeat, _U, _U),
    _shape("unsubscribed", m.Unsubscribed, _U),
    _shape("goaway", m.GoAway, _U, _T),
)

_BY_NAME: Final = {shape.name: shape for shape in SHAPES}
_BY_KIND: Final = {shape.kind: shape for shape in SHAPES}
_NAMES_OF_FIELDS: Final = {shape.kind: [f.name for f in fields(shape.kind)] for shape in SHAPES}


def name_of(kind: type[Message]) -> str:
    """The name under which messages of this class travel."""
    return _BY_KIND[kind].name


def encode(messages: Sequence[Message]) -> bytes:
    """These messages as one frame."""
    assert 0 < len(messages) <= MESSAGES_MAX, len(messages)
    return cbor2.dumps([_to_wire(message) for message in messages])


def decode(frame: bytes, *, bytes_max: int) -> list[Message]:
    """The messages in ``frame``, at least one.

    Raises RemoteProtocolError for anything else, and never another exception.
    """
    if len(frame) > bytes_max:
        raise RemoteProtocolError(f"a frame of {len(frame)} bytes, where {bytes_max} are allowed")
    return _undisturbed(_read_messages, frame)


def decode_batches(body: bytes) -> tuple[DeliveredBatch, ...]:
    """The batches of a body that was put together from parts.

    Raises RemoteProtocolError for anything else.
    """
    try:
        return _undisturbed(_read_batches, body)
    except (TypeError, ValueError) as error:
        raise RemoteProtocolError(f"not batches: {error}") from None


def _to_wire(message: Message) -> list[object]:
    kind = type(message)
    shape = _BY_KIND[kind]
    wire: list[object] = [shape.name]
    for name, sort in zip(_NAMES_OF_FIELDS[kind], shape.sorts, strict=True):
        wire.append(sort.write(getattr(message, name)))
    return wire


def _undisturbed(read: Callable[[bytes], R], data: bytes) -> R:
    """What ``read`` makes of ``data``, without a garbage collection in the middle.

    It would find none, and walk all of what is being built again and again.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return read(data)
    finally:
        if collects:
            gc.enable()


def _read_batches(body: bytes) -> tuple[DeliveredBatch, ...]:
    return sorts.read_batches(_load(body))


def _read_messages(frame: bytes) -> list[Message]:
    items = _load(frame)
    if type(items) is not tuple or not 0 < len(items) <= MESSAGES_MAX:
        raise RemoteProtocolError(f"not an array of 1 to {MESSAGES_MAX} messages")
    return [_from_wire(item) for item in items]


def _from_wire(item: Any) -> Message:
    if type(item) is not tuple or not item or type(item[0]) is not str:
        raise RemoteProtocolError("a message is an array that begins with its name")
    shape = _BY_NAME.get(item[0])
    if shape is None:
        raise RemoteProtocolError(f"there is no message {item[0][:40]!r}")
    count = len(item) - 1
    if count < shape.required or (shape.is_strict and count > len(shape.sorts)):
        raise RemoteProtocolError(f"{shape.name} has {count} fields")
    try:
        values = [sort.read(value) for sort, value in zip(shape.sorts, item[1:], strict=False)]
    except (TypeError, ValueError) as error:
        raise RemoteProtocolError(f"{shape.name}: {error}") from None
    message: Message = shape.kind(*values)
    return message


def _load(data: bytes) -> Any:
    """The one CBOR item in ``data``, its arrays as tuples: half the memory, and faster."""
    # An ordinary frame has fewer bytes than that.
    if len(data) > ITEMS_MAX and holds_more_than(data, ITEMS_MAX):
        raise RemoteProtocolError(f"more than {ITEMS_MAX} items in a frame")
    source = BytesIO(data)
    maps = 0

    def count_map(found: Any, _is_immutable: bool) -> Any:
        nonlocal maps
        maps += 1
        if maps > MAPS_MAX:
            raise ValueError("too many maps")
        return found

    # A fresh decoder for each frame: shared values must not leak from one to the next.
    decoder = cbor2.CBORDecoder(
        source,
        read_size=max(1, len(data)),
        semantic_decoders=dict.fromkeys(_TAGS, _refuse_tag),
        tag_hook=_refuse_tag,
        object_hook=count_map,
        str_errors="strict",
        max_depth=DEPTH_MAX,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    )
    try:
        item = decoder.decode(immutable=True)
    except Exception as error:  # noqa: BLE001 - whatever a decoder does with hostile bytes
        raise RemoteProtocolError(f"not CBOR as we speak it: {error}"[:200]) from None
    if source.tell() != len(data) or source.read(1):
        raise RemoteProtocolError("bytes after the end of the frame")
    return item


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("a tag")
