"""One example of every message, or more where a field has several sorts, for several tests."""

from __future__ import annotations

from typing import Final

from exo_stream.keys import MatchKey
from exo_stream.model import SEQUENCE_MAX, Cursor, Entry, Keyspace
from exo_stream.policies.result import PruneCounts
from exo_stream.producers import Producer
from exo_stream.protocol import canonical_messages as c
from exo_stream.protocol import messages as m
from exo_stream.protocol import policies as p
from exo_stream.protocol import projection_messages as pm
from exo_stream.protocol import reductions as r
from exo_stream.protocol import stream_messages as s
from exo_stream.reduce.request import ReduceGroup
from exo_stream.reduce.scalar import Kind, Scalar
from exo_stream.selectors import (
    ExactValue,
    Selector,
    StoreSelector,
    StreamSelector,
    ValuePrefix,
    ValueRegex,
)
from exo_stream.starts import After, FromEvent, FromSequence, FromSnapshot, Last, Now, Since

LOG_ID: Final = "0123456789abcdef" * 2
CURSOR: Final = Cursor(LOG_ID, 7)
ENTRIES: Final = (Entry(0, b"a", b"1"), Entry(0, b"", b""), Entry(0, b"\xff\x00", None))
BATCH: Final = m.DeliveredBatch(7, 1_700_000_000_000_000, ENTRIES)

SCALARS: Final[dict[Kind, int | float | str | bytes]] = {
    Kind.INT64: -1,
    Kind.UINT64: SEQUENCE_MAX,
    Kind.FLOAT64: 1.5,
    Kind.BOOLEAN: True,
    Kind.UTF8: "ä",
    Kind.DATE32: -(1 << 31),
    Kind.DATE64: 1,
    Kind.TIMESTAMP: 2,
    Kind.DECIMAL128: -(1 << 127),
    Kind.FIXED_SIZE_BINARY: b"\xff",
    Kind.DECIMAL256: (1 << 255) - 1,
}

OFFSET: Final = "0000000000000000_0000000000000012"
SETUP: Final = s.StreamSetup("application/json", None, 1 << 50, True, 60, 1 << 40)
DESCRIPTION: Final = s.StreamDescription(
    *("a/b", SETUP, 7, OFFSET, OFFSET, False, 12, 2, 1, 2, None, 9)
)

FROM_CLIENT: Final[tuple[m.Message, ...]] = (
    m.Hello((1, 2), "tests"),
    m.Write(1),
    m.Write(
        SEQUENCE_MAX,
        puts=((b"k", b"v"), (b"", b"")),
        deletes=(b"gone",),
        require={b"a": "absent", b"b": "present", b"c": 0, b"d": SEQUENCE_MAX},
        producer=Producer(b"\x00" * 16, 3, SEQUENCE_MAX, contiguous=True),
    ),
    m.Get(2, b"k", 9, wait=False),
    m.GetMany(3, (b"k", b"", b"k")),
    m.GetMany(3, ()),
    m.Scan(4),
    m.Scan(4, b"a", b"z", limit=0, forward=False, min_sequence=5, wait=False),
    m.ScanNext(5, 4),
    m.ScanClose(4),
    r.Reduce(20, b'{"reducers":[{"op":"count_all"}]}'),
    r.Reduce(21, b"{}", b"a", b"z", 5, wait=False),
    m.GetBatch(6, 1),
    m.Info(7),
    m.Prune(8, 100),
    p.PrunePolicies(16, b'{"version":1,"policies":[]}'),
    p.PrunePolicies(17, b"", dry_run=True),
    p.SetRetention(18, b""),
    p.GetRetention(19),
    m.Subscribe(9),
    m.Subscribe(10, Now(), Selector(b"user/"), "disconnect", 15),
    m.Subscribe(11, FromSnapshot(), Selector(b"", Keyspace.EVENT)),
    m.Subscribe(12, After(CURSOR)),
    m.Subscribe(13, FromSequence(1)),
    m.Subscribe(14, Last(10)),
    m.Subscribe(15, Since(1_700_000_000_000_000)),
    m.Subscribe(
        16,
        Now(),
        StoreSelector(
            (MatchKey(4, 5, "(?s-u)^a"), MatchKey(0, 0, ".")),
            (ExactValue(b""), ValuePrefix(b"v"), ValueRegex("^keep.*$")),
            b"user/",
        ),
    ),
    m.Subscribe(17, FromEvent(0), Selector(keyspace=Keyspace.EVENT)),
    m.Subscribe(17, Now(), StoreSelector()),
    m.Subscribe(18, Now(), StreamSelector("a/b")),
    m.Subscribe(19, Now(), StreamSelector("", is_prefix=True)),
    s.CreateStream(30, "a/é", SETUP, (b"one", b"two")),
    s.CreateStream(31, "a", s.StreamSetup("text/plain")),
    s.ForkStream(32, "f", "a", OFFSET, 3, s.StreamSetup(None, 60), (b"x",)),
    s.ForkStream(33, "f", "a", None, 0, s.StreamSetup()),
    s.AppendStream(34, "a", (b"x",)),
    s.AppendStream(
        *(35, "a", (), "text/plain", s.StreamNumbers("p", 0, (1 << 53) - 1), True, "seq", OFFSET)
    ),
    s.ReadStream(36, "a", "-1"),
    s.ReadStream(37, "a", OFFSET, 100),
    s.HeadStream(38, "a"),
    s.DeleteStream(39, "a"),
    s.ListStreams(40, "a/", "", 10),
    s.CleanUpStreams(41),
    c.OpenSnapshot(50),
    c.ReadState(51, 0, (b"k",), values=True),
    c.ReadState(52, 50, (), values=False),
    c.ScanState(53, 0, b"", None, reverse=False, rows_max=10, keys_only=False),
    c.ScanState(54, 50, b"a", b"b", reverse=True, rows_max=0, keys_only=True),
    c.ReadEvents(55, 0, 10),
    c.Commit(56, (), ()),
    c.Commit(
        57,
        (c.StateVersion(b"a", 0), c.StateVersion(b"b", SEQUENCE_MAX)),
        ((b"a", b""), (b"b", None)),
        (b"event", b""),
        9,
        0,
        Producer(b"p", 0, 1),
    ),
    c.ReadMeta(58),
    pm.ReadProjections(70),
    pm.ReadDeadLetters(71, "balances", 0, 100),
    pm.ReplayDeadLetters(72, "balances", None, 100),
    pm.ReplayDeadLetters(73, "balances", SEQUENCE_MAX, 1),
    c.Seal(59),
    c.Unseal(60),
    c.PauseWrites(61, b"name", all_faces=False),
    c.ResumeWrites(62, None, all_faces=True),
    c.ResumeWrites(63, b"name", all_faces=False),
    m.Unsubscribe(9),
    m.SnapshotNext(11),
    m.Goodbye("done"),
    m.Ping(1),
    m.Pong(1),
)

FROM_SERVER: Final[tuple[m.Message, ...]] = (
    m.Welcome(1, LOG_ID, 0, None),
    m.Welcome(1, LOG_ID, 9, 3, {"frame_bytes_max": 1 << 20}, "exo-stream 0.1.0"),
    m.Failure(1, "conflict", "key b'k' is absent", False, {"key": b"k", "version": 0}),
    m.Written(1, SEQUENCE_MAX),
    m.Value(2, 9, 0, None),
    m.Value(2, 9, 8, b""),
    m.Values(3, 9, (b"v", None)),
    m.Rows(4, 9, ((b"a", b"1"),), more=True),
    m.Rows(4, 9, (), more=False),
    r.Reduced(20, 9, 0, (None,), ()),
    r.Reduced(
        21,
        9,
        SEQUENCE_MAX,
        tuple(Scalar(kind, value) for kind, value in SCALARS.items()),
        (ReduceGroup((None, Scalar(Kind.UTF8, "a")), (Scalar(Kind.UINT64, 1),)),),
    ),
    m.Found(6, BATCH),
    m.Found(6, None),
    m.Information(7, LOG_ID, 9, None, {"path": "feed.duckdb", "file_bytes": 1}),
    m.Pruned(8, 91),
    p.PoliciesPruned(16, (PruneCounts(1, 2, 3, 4, 5, 6, 7), PruneCounts()), (9, SEQUENCE_MAX)),
    p.PoliciesPruned(17, (), ()),
    p.Retention(18, b"", b"", "stored", None, None),
    p.Retention(19, b"x", b"y", "option", "no document", 9),
    s.StreamCreated(30, True, OFFSET, False, SETUP, 7),
    s.StreamAppended(34, OFFSET, OFFSET, False),
    s.StreamAppended(35, None, OFFSET, True, True, 0, 1),
    s.StreamRead(
        *(36, SETUP, 7, OFFSET, OFFSET, True, False, 9),
        (s.StoredAppend(12, 5, 2, b"\x00\x00\x00\x01\x00\x00\x00\x02", b"a,bc"),),
    ),
    s.StreamRead(37, SETUP, 7, OFFSET, OFFSET, True, True, 9, ()),
    s.StreamHead(38, DESCRIPTION),
    s.StreamDeleted(39),
    s.StreamsListed(40, (DESCRIPTION, DESCRIPTION), "a/b"),
    s.StreamsListed(40, (), None),
    s.StreamsCleanedUp(41, 2),
    c.SnapshotOpened(50, 9, 8, 3),
    c.StateValues(51, 9, 8, (c.StateValue(0, None), c.StateValue(8, b""))),
    c.StateRows(53, 53, 9, 8, ((b"a", b"1"), (b"b", b"")), b"c"),
    c.StateRows(54, 50, 9, 8, ((b"a", None),), None),
    c.EventsRead(55, 0, 2, (b"one", b"")),
    c.Committed(56, 0, None, None, 0, 0, 8),
    c.Committed(57, 2, 0, 1, 1, 1, 9),
    c.StoreMeta(58, 0, None, 0, None, None, 0, False, False),
    c.StoreMeta(58, 2, 1, 0, "2026-11-21T22:00:00Z", "2026-11-21T22:00:00Z", 9, True, True),
    c.Sealed(59, 1),
    c.Unsealed(60),
    c.Paused(61),
    c.Resumed(62, 2),
    pm.ProjectionsRead(70, ()),
    pm.ProjectionsRead(
        70,
        (
            pm.ProjectionState("a", "running", None, 0, 0, False, 0, "", 0, 0, 0, 0),
            pm.ProjectionState("b", "failed", 7, 3, None, True, 2, "no", 1, 6, 2, 1),
        ),
    ),
    pm.DeadLettersRead(71, ()),
    pm.DeadLettersRead(
        71,
        (
            pm.PutAside(3, b"\xff", "raised KeyError: 3", 1_700_000_000_000_000, 0, None, False),
            pm.PutAside(4, b"", "no", 1, 5, 2, True),
        ),
    ),
    pm.DeadLettersReplayed(72, 3, 1),
    m.Subscribed(9, CURSOR),
    m.SnapshotBegin(9, 7),
    m.Snapshot(9, ENTRIES),
    m.SnapshotEnd(9, CURSOR),
    m.Batches(9, (BATCH, m.DeliveredBatch(8, 0, ()))),
    m.Part(9, m.PartBody(10, 0, b"abc")),
    m.CaughtUp(9, CURSOR),
    m.FellBehind(9, CURSOR, 5),
    m.Progress(9, CURSOR),
    m.Heartbeat(9, 9),
    m.Unsubscribed(9),
    m.Ping(2),
    m.Pong(2),
    m.GoAway(5, "the server stops"),
)
