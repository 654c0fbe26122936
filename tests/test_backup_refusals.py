"""What a backup and a restore refuse, each by its own error, and that nothing changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from exo_stream import open_platform
from exo_stream.backup import restore, restore_from, verify_backup
from exo_stream.backup.manifest import encode
from exo_stream.backup.reading import open_backup
from exo_stream.backup_errors import (
    BackupDamagedError,
    BackupError,
    BackupFormatError,
    RestoreRefusedError,
)
from exo_stream.errors import (
    FileInUseError,
    InvalidRequestError,
    UnsupportedError,
)
from exo_stream.storage.lock_file import LockFile
from tests.backups import KEY, live, tree
from tests.nine_methods import NineMethods
from tests.test_backup import back_up

pytestmark = pytest.mark.slow  # files are written, and synced


async def test_what_exists_is_left_untouched(tmp_path: Path) -> None:
    async with open_platform(tmp_path / "feed.duckdb") as platform:
        await live(platform, 1)
        await back_up(platform, tmp_path / "backup", "plain")
        before = tree(tmp_path / "backup")
        for path in (tmp_path / "backup", tmp_path / "feed.duckdb", tmp_path / "no" / "where"):
            with pytest.raises(BackupError, match=r"exists already|no such directory"):
                await platform.backup_to(path)
        with pytest.raises(RestoreRefusedError, match="untouched") as caught:
            restore(tmp_path / "backup", tmp_path / "feed.duckdb")  # a live store
        assert caught.value.path == str(tmp_path / "feed.duckdb")
        await live(platform, 1, first=1)
    for name in ("a folder", "no/where", "has a log"):
        (tmp_path / "a folder").mkdir(exist_ok=True)
        (tmp_path / "has a log.wal").touch()
        with pytest.raises(RestoreRefusedError):
            restore(tmp_path / "backup", tmp_path / name)
    lock = LockFile(tmp_path / "held.duckdb")
    with pytest.raises(FileInUseError):
        restore(tmp_path / "backup", tmp_path / "held.duckdb")
    lock.close()
    assert tree(tmp_path / "backup") == before


async def test_two_backups_to_one_directory_are_one_too_many(tmp_path: Path) -> None:
    async with open_platform(tmp_path / "feed.duckdb") as platform:
        await live(platform, 1)
        lock = LockFile(tmp_path / "backup")
        with pytest.raises(FileInUseError):
            await platform.backup_to(tmp_path / "backup")
        lock.close()


async def test_a_newer_format_is_told_by_its_own_error(tmp_path: Path) -> None:
    async with open_platform(tmp_path / "feed.duckdb") as platform:
        await platform.backup_to(tmp_path / "backup")
    found = open_backup(tmp_path / "backup").manifest
    for newer, said in (
        (replace(found, format=2), "of format 2, newer than 1"),
        (replace(found, store_format=2), "the store in it is of format 2"),
        (replace(found, compression="lzma"), "in a way not known here"),
    ):
        (tmp_path / "backup" / "manifest.json").write_bytes(encode(newer))
        with pytest.raises(BackupFormatError, match=said):
            restore(tmp_path / "backup", tmp_path / "new.duckdb")


async def test_a_manifest_that_only_the_key_could_tell_from_ours_is_refused(tmp_path: Path) -> None:
    async with open_platform(tmp_path / "feed.duckdb") as platform:
        await back_up(platform, tmp_path / "backup", "encrypted")
    found = open_backup(tmp_path / "backup").manifest
    forged = encode(replace(found, oldest_batch=7), "00" * 32)
    (tmp_path / "backup" / "manifest.json").write_bytes(forged)
    with pytest.raises(BackupDamagedError, match="not written with the key"):
        verify_backup(tmp_path / "backup", key=KEY)


async def test_a_backend_with_the_nine_methods_has_no_backups(tmp_path: Path) -> None:
    async with open_platform(engine=NineMethods()) as platform:
        with pytest.raises(UnsupportedError, match="no backups"):
            await platform.backup_to(tmp_path / "backup")


async def test_a_point_is_a_sequence_or_a_time_with_a_zone(tmp_path: Path) -> None:
    naive = datetime(2026, 11, 21, 12, 0)  # noqa: DTZ001  that is the point
    with pytest.raises(InvalidRequestError, match="time zone"):
        await restore_from(tmp_path / "b", tmp_path / "n", at_time=naive)
    with pytest.raises(InvalidRequestError, match="not to two"):
        restore(tmp_path / "b", tmp_path / "n", at_time=1, at_sequence=1)
    with pytest.raises(InvalidRequestError, match="64-bit"):
        restore(tmp_path / "b", tmp_path / "n", at_sequence=-1)
    with pytest.raises(InvalidRequestError, match="64-bit"):
        restore(tmp_path / "b", tmp_path / "n", at_event=1 << 64)
