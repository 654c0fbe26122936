"""Backup and restore of a whole platform: AC-15, and what X9 to X11 found missing elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from exo_stream import Platform, Producer, open_platform
from exo_stream.backup import BackupKey, RestoreInfo, restore, restore_from, verify_backup
from exo_stream.backup_errors import (
    BackupDamagedError,
    BackupKeyError,
    BackupKeyMissingError,
    BackupNotEncryptedError,
)
from exo_stream.cli.files import FACES
from exo_stream.errors import (
    InvalidRequestError,
    SealedError,
    SnapshotExpiredError,
)
from exo_stream.model import Cursor
from exo_stream.storage.verify import verify
from tests.backups import (
    KEY,
    KINDS,
    LIMITS,
    SECRET,
    Contents,
    contents,
    folded,
    key_of,
    live,
    tree,
)

pytestmark = pytest.mark.slow  # files are written, and synced

every_kind = pytest.mark.parametrize("kind", KINDS)
two_kinds = pytest.mark.parametrize("kind", ["plain", "compressed and encrypted"])
"""A DuckDB file, and a stream through everything a stream can go through."""


async def back_up(platform: Platform, path: Path, kind: str, parent: Path | None = None) -> int:
    compress, key = KINDS[kind]
    info = await platform.backup_to(path, compress=compress, key=key, parent=parent)
    return info.sequence


def restored(backup: Path, target: Path, at_sequence: int | None = None) -> RestoreInfo:
    info = restore(backup, target, at_sequence=at_sequence, key=key_of(backup))
    assert info.report.sound, "it verifies what it has made"
    return info


def up_to(everything: Contents, sequence: int) -> Contents:
    """What a file that kept its whole log held at an earlier sequence."""
    log = [batch for batch in everything[1] if batch[0] <= sequence]
    assert log[0][0] == 1
    return folded(log), log


# --- a backup is what was visible at its sequence --------------------------------------------


@every_kind
async def test_a_backup_taken_under_load_restores_elsewhere_to_exactly_its_snapshot(
    kind: str, tmp_path: Path
) -> None:
    done = False
    async with open_platform(tmp_path / "feed.duckdb", limits=LIMITS) as platform:
        await live(platform, 15)
        begun = platform.cursor.sequence

        async def write(task: int) -> None:
            number = 0
            while not done:
                await platform.put_batch([(b"load/%d" % task, b"%d" % number)])
                number += 1

        async with trio.open_nursery() as nursery:
            for task in range(64):
                nursery.start_soon(write, task)
            nursery.start_soon(live, platform, 3)
            sequence = await back_up(platform, tmp_path / "backup", kind)
            behind = platform.cursor.sequence
            done = True
        assert begun <= sequence < behind, "writes went on"
        log_id = platform.log_id
    info = restored(tmp_path / "backup", tmp_path / "elsewhere.duckdb")

    assert verify(tmp_path / "elsewhere.duckdb", faces=FACES).sound
    assert (info.sequence, info.sealed_event_id) == (sequence, None)
    assert info.log_id != log_id
    expected = up_to(contents(tmp_path / "feed.duckdb"), sequence)
    assert contents(tmp_path / "elsewhere.duckdb") == expected


@two_kinds
async def test_what_was_restored_goes_on_in_every_face(kind: str, tmp_path: Path) -> None:
    async with open_platform(tmp_path / "feed.duckdb", limits=LIMITS) as platform:
        await live(platform, 12)
        cursor = platform.cursor
        await back_up(platform, tmp_path / "backup", kind)
        await live(platform, 1, first=12)
    await restore_from(tmp_path / "backup", tmp_path / "new.duckdb", key=KINDS[kind][1])
    async with open_platform(tmp_path / "new.duckdb") as platform:
        assert platform.cursor == Cursor(platform.log_id, cursor.sequence)
        again = await platform.write(puts=[(b"counted/3", b"x")], producer=Producer(b"test", 1, 3))
        assert again < cursor.sequence, "a retry of what was written before is a duplicate"
        assert await platform.get(b"counted/3") == b"once"
        assert (await platform.streams.head("stream/0")).message_count == 4
        assert (await platform.canonical.meta()).next_event_id == 12
        assert [id_ async for id_, _ in await platform.canonical.iter_events()] == [*range(12)]
        await live(platform, 2, first=12)
        assert (await platform.canonical.meta()).next_event_id == 14


async def test_an_evicted_log_is_no_part_of_a_backup(tmp_path: Path) -> None:
    async with open_platform(tmp_path / "feed.duckdb", limits=LIMITS) as platform:
        await live(platform, 10)
        await platform.prune_batch_log(40)
        info = await platform.backup_to(tmp_path / "backup")
        await platform.prune_batch_log(platform.cursor.sequence + 1)
        nothing = await platform.backup_to(tmp_path / "no log", compress=True)
    assert (info.batches, nothing.batches) == (info.sequence - 39, 0)
    for name in ("backup", "no log"):
        restored(tmp_path / name, tmp_path / f"{name}.duckdb")
    rows, log = contents(tmp_path / "feed.duckdb")
    assert (rows, log) == (contents(tmp_path / "backup.duckdb")[0], [])
    assert contents(tmp_path / "no log.duckdb") == (rows, [])
    assert [batch[0] for batch in contents(tmp_path / "backup.duckdb")[1]] == [
        *range(40, info.sequence + 1)
    ]


async def test_batches_evicted_while_they_are_copied_are_left_out(tmp_path: Path) -> None:
    limits = replace(LIMITS, page_rows_max=64)
    async with open_platform(tmp_path / "feed.duckdb", limits=limits) as platform:
        await live(platform, 20)
        cutoff = platform.cursor.sequence - 9
        evicted = trio.Event()

        async def evict(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            task_status.started()
            await evicted.wait()
            await platform.prune_batch_log(cutoff)

        async with trio.open_nursery() as nursery:
            await nursery.start(evict)
            compressed = await platform.backup_to(
                tmp_path / "frames", compress=True, on_progress=lambda _done, _all: evicted.set()
            )
        plain = await platform.backup_to(tmp_path / "plain")
    for name, info in (("frames", compressed), ("plain", plain)):
        restored(tmp_path / name, tmp_path / f"{name}.duckdb")
        rows, log = contents(tmp_path / f"{name}.duckdb")
        assert [batch[0] for batch in log] == [
            *range(info.sequence - info.batches + 1, info.sequence + 1)
        ]
        assert rows == contents(tmp_path / "feed.duckdb")[0]


async def test_a_platform_in_memory_is_backed_up_to_a_file(tmp_path: Path) -> None:
    async with open_platform(":memory:") as platform:
        await live(platform, 3)
        sequence = await back_up(platform, tmp_path / "backup", "plain")
    info = restored(tmp_path / "backup", tmp_path / "new.duckdb")
    rows, log = contents(tmp_path / "new.duckdb")
    assert (info.sequence, rows, len(log)) == (sequence, folded(log), sequence)


async def test_an_empty_platform_is_backed_up(tmp_path: Path) -> None:
    kinds = ("plain", "compressed and encrypted")
    async with open_platform(tmp_path / "feed.duckdb") as platform:
        for kind in kinds:
            assert await back_up(platform, tmp_path / kind, kind) == 0
    for kind in kinds:
        restored(tmp_path / kind, tmp_path / f"{kind}.duckdb")
        assert contents(tmp_path / f"{kind}.duckdb") == ([], [])


async def test_a_backup_whose_version_had_to_be_let_go_says_so_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    limits = replace(LIMITS, page_rows_max=10)
    async with open_platform(tmp_path / "feed.duckdb", limits=limits) as platform:
        await live(platform, 10)
        snapshots = platform.sources.snapshots

        def lose(_done: int, _total: int) -> None:
            for leased in [*snapshots._leased]:
                snapshots.release(leased)

        with pytest.raises(SnapshotExpiredError):
            await platform.backup_to(tmp_path / "backup", on_progress=lose)
        assert not snapshots._leased
    assert sorted(tree(tmp_path)) == ["feed.duckdb", "feed.duckdb.lock"]


# --- AC-15 -----------------------------------------------------------------------------------


def test_ac15_the_text_of_a_key_is_that_key_and_nothing_else_is_one() -> None:
    key = BackupKey.generate()
    assert BackupKey.parse(f" {key.text}\n") == key
    assert key.text.startswith("exo-backup-key-")
    assert BackupKey.generate() != key
    assert key.secret.hex() not in repr(key)
    for text in ("", key.secret.hex(), key.text[:-2], key.text[:-1] + "x", "exo-backup-key-"):
        with pytest.raises(InvalidRequestError, match="no key of a backup"):
            BackupKey.parse(text)
    with pytest.raises(InvalidRequestError):
        BackupKey(b"short")


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("plain", "store.duckdb"),
        ("compressed", "store.frames.zst"),
        ("encrypted", "store.frames.sealed"),
        ("compressed and encrypted", "store.frames.zst.sealed"),
    ],
)
async def test_ac15_a_backup_has_exactly_its_files_and_writes_continue_after_it(
    kind: str, file: str, tmp_path: Path
) -> None:
    async with open_platform(tmp_path / "feed.duckdb") as platform:
        await live(platform, 2)
        await back_up(platform, tmp_path / "backup", kind)
        await live(platform, 1, first=2)
        assert not platform.is_paused()
        assert (await platform.canonical.meta()).sealed_event_id is None
    assert sorted(tree(tmp_path / "backup")) == ["manifest.json", file]


@two_kinds
async def test_ac15_state_without_events_is_backed_up(kind: str, tmp_path: Path) -> None:
    async with open_platform(tmp_path / "feed.duckdb") as platform:
        async with platform.canonical.write_txn() as txn:
            txn.put_state(b"key1", b"value1")
            await txn.commit()
        await back_up(platform, tmp_path / "backup", kind)
    restored(tmp_path / "backup", tmp_path / "new.duckdb")
    async with open_platform(tmp_path / "new.duckdb") as platform:
        async with platform.canonical.read_txn() as read:
            assert await read.get_state(b"key1") == b"value1"


async def test_ac15_the_manifest_says_all_that_azoths_says_and_more(tmp_path: Path) -> None:
    async with open_platform(tmp_path / "feed.duckdb") as platform:
        await live(platform, 3)
        await platform.canonical.seal()
        info = await platform.backup_to(tmp_path / "backup")
        log_id = platform.log_id
    found = json.loads((tmp_path / "backup" / "manifest.json").read_text())
    assert found["sealed_event_id"] == info.sealed_event_id == 2
    assert (found["first_event_id"], found["next_event_id"]) == (0, 3)
    assert (found["first_sequence"], found["sequence"]) == (1, info.sequence)
    assert (found["canonical_backend"], found["canonical_schema_version"]) == ("duckdb", 0)
    assert (found["projection_backend"], found["projection_cursor"]) == (None, None)
    assert found["log_id"] == info.log_id == log_id
    assert datetime.fromisoformat(found["timestamp"]) <= datetime.now(UTC)
    (file,) = found["files"]
    assert file["size"] == (tmp_path / "backup" / "store.duckdb").stat().st_size == info.size_bytes


# --- X9: restored data can be written, and damage is found -----------------------------------


@two_kinds
async def test_x9_a_restored_store_is_not_sealed(kind: str, tmp_path: Path) -> None:
    async with open_platform(tmp_path / "feed.duckdb", limits=LIMITS) as platform:
        await live(platform, 4)
        assert await platform.canonical.seal() == 3
        sequence = await back_up(platform, tmp_path / "backup", kind)
        with pytest.raises(SealedError):
            async with platform.canonical.write_txn():
                pass
    info = restored(tmp_path / "backup", tmp_path / "new.duckdb")
    assert (info.sequence, info.sealed_event_id) == (sequence, 3)
    async with open_platform(tmp_path / "new.duckdb") as platform:
        assert platform.cursor.sequence == sequence + 1, "the batch that took the seal away"
        await live(platform, 1, first=4)


@every_kind
async def test_x9_a_flipped_byte_in_any_file_is_refused_and_nothing_changed(
    kind: str, tmp_path: Path
) -> None:
    async with open_platform(tmp_path / "feed.duckdb") as platform:
        await live(platform, 2)
        await back_up(platform, tmp_path / "backup", kind)
    backup, key = tmp_path / "backup", KINDS[kind][1]
    for name, data in tree(backup).items():
        for at in [*range(0, len(data), max(1, len(data) // 25)), len(data) - 1]:
            flipped = bytearray(data)
            flipped[at] ^= 1 << (at % 8)
            (backup / name).write_bytes(flipped)
            with pytest.raises(BackupDamagedError) as caught:
                restore(backup, tmp_path / "new.duckdb", key=key)
            assert caught.value.path == str(backup / name)
        for other in (data[:-1], data + b"\0", b""):
            (backup / name).write_bytes(other)
            with pytest.raises(BackupDamagedError):
                verify_backup(backup, key=key)
        (backup / name).unlink()
        with pytest.raises(BackupDamagedError, match=r"missing|no manifest") as caught:
            restore(backup, tmp_path / "new.duckdb", key=key)
        assert isinstance(caught.value.__cause__, FileNotFoundError)
        (backup / name).write_bytes(data)
    (backup / "more").touch()
    with pytest.raises(BackupDamagedError, match="no part"):
        verify_backup(backup, key=key)
    (backup / "more").unlink()
    assert {name.partition("/")[0] for name in tree(tmp_path)} == {
        "backup",
        "feed.duckdb",
        "feed.duckdb.lock",
    }


# --- X10: nothing in the clear, and the backup stays as it was -------------------------------


@pytest.mark.parametrize("kind", ["encrypted", "compressed and encrypted"])
async def test_x10_no_byte_of_an_encrypted_backup_is_in_the_clear_at_any_time(
    kind: str, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    seen: dict[str, bytes] = {}
    limits = replace(LIMITS, page_rows_max=100)
    async with open_platform(tmp_path / "feed.duckdb", limits=limits) as platform:
        await live(platform, 20)
        compress, key = KINDS[kind]
        await platform.backup_to(
            folder / "backup",
            compress=compress,
            key=key,
            on_progress=lambda _done, _all: seen.update(tree(folder)),
        )
        await live(platform, 3, first=20)
        await back_up(platform, folder / "next", kind, parent=folder / "backup")
    assert any(name.startswith(".backup.unborn") for name in seen)
    for data in (*seen.values(), *tree(folder).values()):
        assert SECRET not in data
        assert b"user/" not in data


@two_kinds
async def test_x10_a_restore_leaves_the_backup_as_it_was_and_works_again(
    kind: str, tmp_path: Path
) -> None:
    async with open_platform(tmp_path / "feed.duckdb") as platform:
        await live(platform, 5)
        await back_up(platform, tmp_path / "backup", kind)
    before = tree(tmp_path / "backup")
    first = restored(tmp_path / "backup", tmp_path / "1.duckdb")
    second = restored(tmp_path / "backup", tmp_path / "2.duckdb")
    assert tree(tmp_path / "backup") == before
    assert contents(tmp_path / "1.duckdb") == contents(tmp_path / "2.duckdb")
    assert first.log_id != second.log_id


async def test_a_wrong_key_none_or_one_too_many_is_told_at_once_each_by_its_error(
    tmp_path: Path,
) -> None:
    async with open_platform(tmp_path / "feed.duckdb") as platform:
        await live(platform, 1)
        await back_up(platform, tmp_path / "backup", "encrypted")
        await back_up(platform, tmp_path / "plain", "plain")
        with pytest.raises(BackupKeyMissingError, match="follows it must be as well"):
            await platform.backup_to(tmp_path / "next", parent=tmp_path / "backup")
        with pytest.raises(BackupNotEncryptedError):
            await platform.backup_to(tmp_path / "next", parent=tmp_path / "plain", key=KEY)
    trouble = (
        ("backup", None, BackupKeyMissingError),
        ("backup", BackupKey.generate(), BackupKeyError),
        ("plain", KEY, BackupNotEncryptedError),
    )
    for name, key, kind in trouble:
        with pytest.raises(kind) as caught:
            restore(tmp_path / name, tmp_path / "new.duckdb", key=key)
        assert type(caught.value) is kind
        assert caught.value.path == str(tmp_path / name)
        assert (KEY.id in str(caught.value)) is (name == "backup"), "the one that is needed"
    assert not (tmp_path / "new.duckdb").exists()
    assert [backup.manifest.key_id for backup in verify_backup(tmp_path / "backup")] == [KEY.id]
