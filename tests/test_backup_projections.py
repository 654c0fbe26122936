"""Projections in a backup: their tables come back, never ahead of the events they are made of."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from exo_stream import Platform, open_platform
from exo_stream.backup import restore, verify_backup
from exo_stream.backup.manifest import encode
from exo_stream.backup.reading import open_backup
from exo_stream.backup_errors import BackupDamagedError, BackupError, RestoreRefusedError
from exo_stream.canonical.projection import Projector
from exo_stream.canonical.projection_rules import FailFast, ProjectorConfig
from exo_stream.canonical.projections import Projections
from exo_stream.errors import InvalidStateError
from exo_stream.storage.lock_file import LockFile
from exo_stream.storage.projection_file import look
from tests.backups import KINDS, SECRET, tree
from tests.projections import TABLES, Handler, append, see, seen

pytestmark = pytest.mark.slow  # files are written, and synced

two_kinds = pytest.mark.parametrize("kind", ["plain", "compressed and encrypted"])


@asynccontextmanager
async def opened(file: Path) -> AsyncIterator[tuple[Platform, Projections]]:
    """A platform, and its projections where they are looked for."""
    async with (
        open_platform(file) as platform,
        platform.canonical.projections(f"{file}.projections") as projections,
    ):
        yield platform, projections


async def followed(projections: Projections, last: int, name: str = "seen") -> Projector:
    projector = await projections.add(name, see, tables=TABLES)
    await projector.wait_applied(last)
    return projector


async def numbers(projector: Projector) -> list[Any]:
    return [row[0] for row in await seen(projector)]


async def prepared(folder: Path, kind: str = "plain") -> None:
    """``feed.duckdb`` with four events, and a backup of it with a projection of all of them."""
    async with opened(folder / "feed.duckdb") as (platform, projections):
        await append(platform.canonical, *[SECRET + b"%d" % n for n in range(4)])
        await followed(projections, 3)
        compress, key = KINDS[kind]
        await platform.canonical.backup_to(folder / "backup", compress=compress, key=key)


@two_kinds
async def test_ac15_projections_come_back_with_their_cursor_and_go_on(
    kind: str, tmp_path: Path
) -> None:
    compress, key = KINDS[kind]
    async with opened(tmp_path / "feed.duckdb") as (platform, projections):
        await append(platform.canonical, b"0", b"1", b"2")
        await platform.canonical.seal()
        await followed(projections, 2)
        await followed(projections, 2, "again")
        info = await platform.canonical.backup_to(tmp_path / "backup", compress=compress, key=key)
        assert info.projections == ("seen", "again")
        await platform.canonical.unseal()
        await append(platform.canonical, b"3")
        await projections["seen"].wait_applied(3)  # it went on
        assert (await projections["seen"].query("SELECT count(*) FROM seen")) == [(4,)]
    found = json.loads((tmp_path / "backup" / "manifest.json").read_text())
    assert (found["projection_backend"], found["projection_schema_version"]) == ("duckdb", 1)
    assert found["projection_cursor"] == found["sealed_event_id"] == 2
    suffix = ".zst.sealed" if key else ""
    assert sorted(tree(tmp_path / "backup")) == [
        "manifest.json",
        f"projection-again.duckdb{suffix}",
        f"projection-seen.duckdb{suffix}",
        "store.frames.zst.sealed" if key else "store.duckdb",
    ]
    async with open_platform(":memory:") as platform:
        done = await platform.canonical.restore_from(
            tmp_path / "backup", tmp_path / "new.duckdb", key=key
        )
    assert (done.projections, done.to_rebuild) == (("seen", "again"), ())
    async with opened(tmp_path / "new.duckdb") as (platform, projections):
        projector = await projections.add("seen", handler := Handler(), tables=TABLES)
        await projector.wait_applied(2)
        assert await projector.get_lag() == 0
        assert handler.batches == [], "nothing of it was applied again"
        await append(platform.canonical, b"new")
        await projector.wait_applied(3)
        assert await numbers(projector) == [0, 1, 2, 3]
        assert handler.batches == [[3]]


async def test_a_projection_is_never_ahead_of_the_backup_it_is_in(tmp_path: Path) -> None:
    async with opened(tmp_path / "feed.duckdb") as (platform, projections):
        await append(platform.canonical, b"0")
        await followed(projections, 0)
        done = False

        async def write() -> None:
            while not done:
                await append(platform.canonical, b"more")

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(write)
            await platform.backup_to(tmp_path / "backup")
            done = True
    [backup] = verify_backup(tmp_path / "backup")
    [projection] = backup.manifest.projections
    assert projection.cursor is not None
    assert projection.cursor < backup.manifest.next_event_id
    info = restore(tmp_path / "backup", tmp_path / "new.duckdb")
    assert info.projections == ("seen",)
    async with opened(tmp_path / "new.duckdb") as (platform, projections):
        count = (await platform.canonical.meta()).next_event_id
        projector = await followed(projections, count - 1)
        assert await numbers(projector) == [*range(count)]


async def test_a_projection_ahead_of_the_point_restored_to_begins_anew(tmp_path: Path) -> None:
    await prepared(tmp_path)
    async with opened(tmp_path / "feed.duckdb") as (platform, _):
        await append(platform.canonical, b"4", b"5")
        await platform.backup_to(tmp_path / "next", parent=tmp_path / "backup")
    early = restore(tmp_path / "backup", tmp_path / "early.duckdb", at_sequence=0)
    assert (early.projections, early.to_rebuild) == ((), ("seen",))
    assert not (tmp_path / "early.duckdb.projections").exists()
    async with opened(tmp_path / "early.duckdb") as (platform, projections):
        await append(platform.canonical, b"other", b"events")
        projector = await followed(projections, 1)
        assert [row[1] for row in await seen(projector)] == [b"other", b"events"]
    late = restore(tmp_path / "next", tmp_path / "late.duckdb", projections=tmp_path / "tables")
    assert (late.projections, late.to_rebuild) == (("seen",), ())
    async with (
        open_platform(tmp_path / "late.duckdb") as platform,
        platform.canonical.projections(tmp_path / "tables") as projections,
    ):
        projector = await followed(projections, 5)
        assert await numbers(projector) == [*range(6)], "the last two out of the log"


@two_kinds
async def test_a_flipped_byte_in_a_projection_is_refused(kind: str, tmp_path: Path) -> None:
    await prepared(tmp_path, kind)
    path = next((tmp_path / "backup").glob("projection-*"))
    data = path.read_bytes()
    assert SECRET not in data or kind == "plain"
    for at in range(0, len(data), max(1, len(data) // 20)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(BackupDamagedError) as caught:
            restore(tmp_path / "backup", tmp_path / "new.duckdb", key=KINDS[kind][1])
        assert caught.value.path == str(path)
    for damaged in (data[:-1], b""):
        path.write_bytes(damaged)
        with pytest.raises(BackupDamagedError):
            verify_backup(tmp_path / "backup")
    path.unlink()
    with pytest.raises(BackupDamagedError, match="missing"):
        verify_backup(tmp_path / "backup")
    assert not [*tmp_path.glob("new*")]  # noqa: ASYNC240  nothing else happens


async def test_a_projection_of_another_state_than_the_manifest_says_is_refused(
    tmp_path: Path,
) -> None:
    await prepared(tmp_path)
    found = open_backup(tmp_path / "backup").manifest
    [projection] = found.projections
    forged = replace(found, projections=(replace(projection, cursor=2),))
    (tmp_path / "backup" / "manifest.json").write_bytes(encode(forged))
    before = tree(tmp_path)
    with pytest.raises(BackupDamagedError, match="of another state"):
        restore(tmp_path / "backup", tmp_path / "new.duckdb")
    assert tree(tmp_path) == before


async def test_what_is_in_the_place_of_projections_is_left_untouched(tmp_path: Path) -> None:
    await prepared(tmp_path)
    for folder in (tmp_path / "feed.duckdb.projections", tmp_path / "feed.duckdb"):
        before = tree(tmp_path)
        with pytest.raises(RestoreRefusedError, match="untouched") as caught:
            restore(tmp_path / "backup", tmp_path / "new.duckdb", projections=folder)
        assert caught.value.path == str(folder)
        assert tree(tmp_path) == before
    (tmp_path / "empty").mkdir()
    info = restore(tmp_path / "backup", tmp_path / "new.duckdb", projections=tmp_path / "empty")
    assert info.projections == ("seen",)


async def test_what_a_killed_restore_left_of_projections_is_not_in_the_way(tmp_path: Path) -> None:
    await prepared(tmp_path)
    restore(tmp_path / "backup", tmp_path / "new.duckdb")
    folder = tmp_path / "new.duckdb.projections"
    assert sorted(tree(folder)) == ["seen.duckdb"]
    (tmp_path / "new.duckdb").unlink()
    (folder / ".unfinished").write_text("seen.duckdb")  # as it is between the two names
    restore(tmp_path / "backup", tmp_path / "new.duckdb")
    assert sorted(tree(folder)) == ["seen.duckdb"]
    (tmp_path / "new.duckdb").unlink()
    (folder / ".unfinished").write_text("seen.duckdb")
    (folder / "seen.duckdb.lock").touch()  # somebody has used it since
    with pytest.raises(RestoreRefusedError):
        restore(tmp_path / "backup", tmp_path / "new.duckdb")


async def test_projections_that_nobody_runs_come_along_from_their_folder(tmp_path: Path) -> None:
    await prepared(tmp_path)
    folder = tmp_path / "feed.duckdb.projections"
    (folder / "none.duckdb").write_bytes(b"no projection")
    (folder / "other.duckdb").write_bytes((folder / "seen.duckdb").read_bytes())
    held = LockFile(folder / "held.duckdb")
    (folder / "held.duckdb").touch()
    async with open_platform(tmp_path / "feed.duckdb") as platform:
        info = await platform.backup_to(tmp_path / "next", projections=folder)
        assert info.projections == ("seen",), "and no other file, nor one that somebody has"
        with pytest.raises(BackupError, match="no such directory"):
            await platform.backup_to(tmp_path / "no", projections=tmp_path / "nowhere")
        none = await platform.backup_to(tmp_path / "none")
        await platform.canonical.close()
        with pytest.raises(InvalidStateError):
            await platform.canonical.backup_to(tmp_path / "no")
    held.close()
    assert none.projections == ()
    assert not (tmp_path / "no").exists()


async def test_a_projection_that_cannot_be_copied_is_left_out_and_no_backup_fails(
    tmp_path: Path,
) -> None:
    config = ProjectorConfig(error_strategy=FailFast(), handler_timeout_ms=50)
    async with opened(tmp_path / "feed.duckdb") as (platform, projections):
        await append(platform.canonical, b"0")
        (tmp_path / "feed.duckdb.projections").mkdir(exist_ok=True)
        (tmp_path / "feed.duckdb.projections" / "broken.duckdb").write_bytes(b"x" * 20_000)
        await projections.add("broken", see, tables=TABLES)
        await projections.add("failed", Handler({0: 9}), tables=TABLES, config=config)
        await followed(projections, 0)
        info = await platform.backup_to(tmp_path / "backup")
        assert info.projections == ("failed", "seen"), "one that failed is as it was before"
        async with platform.canonical.projections(tmp_path / "elsewhere") as twins:
            await twins.add("seen", see, tables=TABLES)
            with pytest.raises(BackupError, match="have one name"):
                await platform.backup_to(tmp_path / "twins")
        projector = await projections.add("busy", Handler(), tables=TABLES, config=config)
        await projector.wait_applied(0)

        async def hold(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            async with projector._kept.turn:
                task_status.started()
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            await nursery.start(hold)
            info = await platform.backup_to(tmp_path / "others")
            nursery.cancel_scope.cancel()
        assert info.projections == ("failed", "seen")


async def test_a_query_waits_while_its_tables_are_copied_and_sees_them_then(tmp_path: Path) -> None:
    async with opened(tmp_path / "feed.duckdb") as (platform, projections):
        await append(platform.canonical, b"0")
        projector = await followed(projections, 0)
        async with trio.open_nursery() as nursery, projector.at_rest() as found:
            assert found is not None
            assert look(found.path).problem, "it is closed, and still ours"
            assert projector.cursor == found.cursor == 0
            await projector.wait_applied(0)
            nursery.start_soon(numbers, projector)
            nursery.start_soon(append, platform.canonical, b"1")
        await projector.wait_applied(1)
        assert await numbers(projector) == [0, 1]


async def test_projections_closed_while_one_is_copied_are_let_go_of(tmp_path: Path) -> None:
    async with open_platform(tmp_path / "feed.duckdb") as platform:
        async with platform.canonical.projections(tmp_path / "tables") as projections:
            await append(platform.canonical, b"0")
            projector = await followed(projections, 0)
            resting = projector.at_rest()
            found = await resting.__aenter__()
            assert found is not None
        await resting.__aexit__(None, None, None)
        async with projector.at_rest() as nothing:
            assert nothing is None
    LockFile(found.path).close()
    async with (
        open_platform(tmp_path / "feed.duckdb") as platform,
        platform.canonical.projections(tmp_path / "tables") as projections,
    ):
        assert await numbers(await followed(projections, 0)) == [0]


async def test_a_copy_that_cannot_be_opened_again_is_opened_by_its_task(tmp_path: Path) -> None:
    async with opened(tmp_path / "feed.duckdb") as (platform, projections):
        await append(platform.canonical, b"0")
        projector = await followed(projections, 0)
        async with projector.at_rest() as found:
            assert found is not None
            whole = found.path.read_bytes()
            found.path.write_bytes(b"x" * len(whole))
        assert (await projector.status()).cursor is None
        found.path.write_bytes(whole)
        projector.resume()
        await projector.wait_applied(0)
        assert await numbers(projector) == [0]
