"""The pure parts of a backup: frames, the manifest, the seal, and which ones may go."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.backup import frames
from exo_stream.backup.frames import Batches, ForgetBatches, FrameError, Rows
from exo_stream.backup.manifest import (
    CHECKSUM,
    BackupFile,
    BackupProjection,
    Manifest,
    _written,
    decode,
    encode,
)
from exo_stream.backup.retention import expired
from exo_stream.backup_errors import BackupDamagedError, BackupFormatError
from exo_stream.backup_key import CHUNK_BYTES, SealError
from exo_stream.model import Row
from exo_stream.payload import EncodedBatch
from tests.backups import KEY

MANIFEST = Manifest(
    format=1,
    store_format=1,
    backup_id="b1",
    kind="full",
    parent_id=None,
    log_id="0" * 32,
    sequence=10,
    first_sequence=1,
    oldest_batch=1,
    committed_at=5,
    created_at=6,
    timestamp="2026-11-21T12:00:00Z",
    first_event_id=None,
    next_event_id=0,
    sealed_event_id=None,
    rows=1,
    batches=10,
    canonical_backend="duckdb",
    canonical_version="0.1.0",
    canonical_schema_version=0,
    projection_backend=None,
    projection_cursor=None,
    projection_schema_version=None,
    compression=None,
    encryption=None,
    key_id=None,
    salt=None,
    files=(BackupFile("store.duckdb", 3, "00"),),
    projections=(),
)
SEEN = BackupFile("projection-seen.duckdb", 3, "00")
PROJECTED = replace(
    MANIFEST,
    files=(*MANIFEST.files, SEEN),
    projections=(BackupProjection("seen", 7, 1, SEEN.name),),
)
DAY = 24 * 3_600 * 1_000_000


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


# --- frames ----------------------------------------------------------------------------------

ROWS = (Row(b"\x00a", 1, b"x"), Row(b"\x05b", 2, b""))
BATCHES = (EncodedBatch(7, 8, b"\x80"), EncodedBatch(8, 8, b"\x81\x00"))
STREAM = (
    frames.MAGIC
    + frames.encode_rows(ROWS)
    + frames.encode_forget()
    + frames.encode_batches(BATCHES)
    + frames.encode_end()
)


@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
def test_frames_come_back_however_they_are_cut(size: int) -> None:
    rows, forget, batches = frames.decode(pieces(STREAM, size))
    assert rows == Rows(ROWS)
    assert forget == ForgetBatches()
    assert isinstance(batches, Batches)
    assert [(b.sequence, b.committed_at, b.payload) for b in batches.batches] == [
        (7, 8, b"\x80"),
        (8, 8, b"\x81\x00"),
    ]


def test_a_stream_that_is_cut_off_or_goes_on_is_refused() -> None:
    for end in range(len(STREAM)):
        with pytest.raises(FrameError):
            list(frames.decode([STREAM[:end]]))
    with pytest.raises(FrameError, match="follows the end"):
        list(frames.decode([STREAM, b"x"]))
    with pytest.raises(FrameError, match="no backup"):
        list(frames.decode([b"x" * 100]))


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (9, cbor2.dumps(None), "no frame of kind 9"),
        (1, b"\xff", "does not hold CBOR"),
        (1, cbor2.dumps(7), "what its kind says"),
        (1, cbor2.dumps([[b"k", 1, None]]), "what its kind says"),
        (2, cbor2.dumps({}), "what its kind says"),
        (2, cbor2.dumps([[1, 2]]), "what its kind says"),
    ],
)
def test_a_frame_of_another_shape_is_refused(kind: int, body: bytes, said: str) -> None:
    frame = bytes([kind]) + len(body).to_bytes(4, "big") + body
    with pytest.raises(FrameError, match=said):
        list(frames.decode([frames.MAGIC + frame]))


# --- the manifest ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_manifest_comes_back_and_no_byte_of_it_may_change() -> None:
    data = encode(PROJECTED, "ab")
    assert decode(data, path="p") == (PROJECTED, "ab")
    assert PROJECTED.size_bytes == 6
    assert b"authentication" not in MANIFEST.canonical()
    for at in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            with pytest.raises(BackupDamagedError):
                decode(bytes(flipped), path="p")


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": "10"},
        {"sequence": True},
        {"parent_id": 7},
        {"kind": "half"},
        {"kind": "incremental"},
        {"parent_id": "b0"},
        {"first_sequence": 12},
        {"first_sequence": 0},
        {"oldest_batch": 0},
        {"sequence": -1},
        {"files": ()},
        {"files": (BackupFile("../store.duckdb", 3, "00"),)},
        {"files": (BackupFile("manifest.json", 3, "00"),)},
        {"files": (BackupFile("store.duckdb", "3", "00"),)},  # type: ignore[arg-type]  # what is refused
        {"files": (*MANIFEST.files, SEEN)},
        {"files": (*MANIFEST.files, *MANIFEST.files)},
        {"projections": PROJECTED.projections},
        {"files": PROJECTED.files, "projections": (BackupProjection("../x", 7, 1, SEEN.name),)},
        {"files": PROJECTED.files, "projections": (BackupProjection("", 7, 1, SEEN.name),)},
        {"files": PROJECTED.files, "projections": (BackupProjection("x", True, 1, SEEN.name),)},
        {
            "files": (*PROJECTED.files, BackupFile("b", 3, "00")),
            "projections": (*PROJECTED.projections, BackupProjection("seen", 7, 1, "b")),
        },
    ],
    ids=str,
)
def test_a_manifest_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BackupDamagedError):
        decode(encode(replace(MANIFEST, **change)), path="p")  # type: ignore[arg-type]  # what is refused


def test_what_is_no_manifest_is_refused() -> None:
    whole = json.loads(encode(MANIFEST))
    for data in (b"", b"{", b"[]\n", b"[" * 100_000, json.dumps(whole).encode(), b"{}\n"):
        with pytest.raises(BackupDamagedError):
            decode(data, path="p")
    with pytest.raises(BackupDamagedError, match="authentication"):
        decode(encode(MANIFEST, 7), path="p")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(BackupFormatError, match="format 3, newer than 1"):
        decode(encode(replace(MANIFEST, format=3)), path="p")


def test_a_manifest_without_a_format_or_with_other_fields_is_refused() -> None:
    for values in ({}, {"format": 1}, {"format": 1, "files": [{}]}):
        data = _written({**values, CHECKSUM: hashlib.sha256(_written(values)).hexdigest()})
        with pytest.raises(BackupDamagedError):
            decode(data, path="p")


# --- the seal --------------------------------------------------------------------------------


@given(size=st.sampled_from([0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 200_000]))
def test_what_is_sealed_comes_back_and_shows_nothing(size: int) -> None:
    data = b"secret" * (size // 6 + 1)
    data = data[:size]
    seal = KEY.seal(b"salt", "f")
    sealed = b"".join(seal.update(part) for part in pieces(data, 50_000)) + seal.finish()
    assert b"".join(KEY.unseal(b"salt", "f", pieces(sealed, 1 << 16))) == data
    assert b"secret" not in sealed


def test_chunks_can_be_left_out_moved_or_put_elsewhere_by_nobody() -> None:
    seal = KEY.seal(b"salt", "f")
    sealed = seal.update(bytes(3 * CHUNK_BYTES)) + seal.finish()
    chunk = CHUNK_BYTES + 16
    parts = pieces(sealed, chunk)
    wrong = [
        b"".join(parts[:-1]),
        b"".join(parts[1:]),
        b"".join([parts[1], parts[0], *parts[2:]]),
        sealed + b"x",
        b"",
    ]
    for data in wrong:
        with pytest.raises(SealError):
            list(KEY.unseal(b"salt", "f", [data]))
    for salt, name in ((b"other", "f"), (b"salt", "g")):
        with pytest.raises(SealError):
            list(KEY.unseal(salt, name, [sealed]))


# --- retention -------------------------------------------------------------------------------


def full(name: str, day: int, log_id: str = "log") -> Manifest:
    return replace(MANIFEST, backup_id=name, created_at=day * DAY, log_id=log_id)


def after(parent: str, name: str, day: int) -> Manifest:
    return replace(full(name, day), kind="incremental", parent_id=parent)


def gone(*manifests: Manifest, full_max: int = 2, days: int = 5, now: int = 100) -> list[str]:
    found = expired(
        manifests, full_max=full_max, incremental_seconds=days * 24 * 3_600, now=now * DAY
    )
    return [manifest.backup_id for manifest in found]


def test_the_newest_full_backups_of_each_log_stay() -> None:
    assert gone(full("a", 1), full("b", 2), full("c", 3), full("x", 1, "other")) == ["a"]


def test_a_chain_goes_as_a_whole_and_its_end_first() -> None:
    chain = [full("a", 1), after("a", "a1", 1), after("a1", "a2", 2)]
    assert gone(*chain, full("b", 98), full("c", 99)) == ["a2", "a1", "a"]


def test_whatever_a_young_backup_follows_stays() -> None:
    chain = [full("a", 1), after("a", "a1", 2), after("a1", "a2", 99), after("a1", "old", 3)]
    assert gone(*chain) == ["old"]


def test_a_backup_whose_parent_is_not_there_stays() -> None:
    assert gone(after("lost", "a1", 1), after("a1", "a2", 1)) == []
    assert gone(after("b", "a", 1), after("a", "b", 1)) == [], "nor does a circle go"
