"""A backup or a restore that is killed, cancelled or finds no space leaves nothing half.

Nothing half has its name, and the next one goes as if it had never been.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from exo_stream import open_platform
from exo_stream.backup import restore, restore_from, verify_backup
from exo_stream.backup.reading import open_backup
from exo_stream.cli.files import FACES
from exo_stream.limits import KIB
from exo_stream.storage.projection_file import look
from exo_stream.storage.verify import verify
from tests.backups import KINDS, LIMITS, SECRET, key_of, live, projected, tree
from tests.torture.life import ROOT, AtSyscall, environment
from tests.tracing import traced

pytestmark = pytest.mark.slow

GUARD_SECONDS = 120


def child(folder: Path, verb: str, bytes_max: int = 0) -> list[str]:
    return [sys.executable, "-m", "tests.torture.backing_up", str(folder), verb, str(bytes_max)]


def run(command: Sequence[str]) -> list[str]:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=GUARD_SECONDS,
    )
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a projection, to be copied and then killed at; and two backups of it."""

    async def prepare() -> None:
        async with projected(folder / "source" / "feed.duckdb") as (platform, projector):
            await live(platform, 10)
            await projector.wait_applied(9)
            for name, (compress, key) in (("p", KINDS["plain"]), ("e", KINDS["encrypted"])):
                await platform.backup_to(folder / name, compress=compress, key=key)

    folder = tmp_path_factory.mktemp("template")
    (folder / "source").mkdir()
    trio.run(prepare)
    return folder


def backups_in(folder: Path) -> list[Path]:
    found = [path.parent for path in folder.glob("*/manifest.json")]
    return [path for path in found if path.name[0] != "."]


def unborn_in(folder: Path) -> list[str]:
    return [path.name[1:-7] for path in folder.glob(".*.unborn")]


def restored_whole(backup: Path, target: Path) -> None:
    """What is restored now, or was, is whole: the file and the projection beside it."""
    if target.exists():
        report = verify(target, faces=FACES)
    else:
        report = restore(backup, target, key=key_of(backup)).report
    assert report.sound
    stored = look(target.with_name(f"{target.name}.projections") / "seen.duckdb").stored
    assert stored is not None
    assert stored.log_id == report.log_id
    assert stored.cursor == open_backup(backup).manifest.projection_cursor


BACKUPS = [
    AtSyscall("rename", 1),
    AtSyscall("fsync", 2),
    AtSyscall("fsync", 5),
    AtSyscall("unlink", 2),
    AtSyscall("pwrite64", 10),
    AtSyscall("write", 30),
]


@traced
@pytest.mark.parametrize("death", BACKUPS, ids=str)
async def test_a_backup_that_is_killed_leaves_nothing_half(
    death: AtSyscall, template: Path, tmp_path: Path
) -> None:
    shutil.copytree(template / "source", tmp_path, dirs_exist_ok=True)
    said = run(death.wrap(child(tmp_path, "backup")))
    told = {line.split()[1] for line in said if line.startswith("backup")}
    found = backups_in(tmp_path)
    assert told <= {str(path) for path in found}, "what was told is there"
    assert len(found) <= len(told) + 1
    for path in found:
        verify_backup(path, key=key_of(path))
    for path in sorted(found, key=lambda path: path.stat().st_mtime)[-1:]:  # nearest to the death
        restored_whole(path, tmp_path / f"{path.name}.duckdb")
    for name, data in tree(tmp_path).items():
        if name.startswith((".e", "e")) and "duckdb" not in name.partition("/")[0]:
            assert SECRET not in data, name
    assert verify(tmp_path / "feed.duckdb", faces=FACES).sound
    async with projected(tmp_path / "feed.duckdb") as (platform, projector):
        count = (await platform.canonical.meta()).next_event_id
        await projector.wait_applied(count - 1)
        assert await projector.query("SELECT count(*) FROM seen") == [(count,)]
        for name in unborn_in(tmp_path):
            await platform.backup_to(tmp_path / name)
    assert unborn_in(tmp_path) == [], "the next one to that name cleans up"


RESTORES = [
    ("p", AtSyscall("rename", 1)),  # of the projections
    ("p", AtSyscall("rename", 2)),  # of the file
    ("e", AtSyscall("rename", 2)),
    ("p", AtSyscall("unlink", 9)),
    ("p", AtSyscall("fsync", 6)),
    ("e", AtSyscall("pwrite64", 20)),
    ("e", AtSyscall("fdatasync", 10)),
]


@traced
@pytest.mark.parametrize(("name", "death"), RESTORES, ids=str)
def test_a_restore_that_is_killed_leaves_nothing_half(
    name: str, death: AtSyscall, template: Path, tmp_path: Path
) -> None:
    shutil.copytree(template / name, tmp_path / name)
    before = tree(tmp_path)
    said = run(death.wrap(child(tmp_path, "restore")))
    assert said == [], "it died before it was done"
    restored_whole(tmp_path / name, tmp_path / f"{name}.duckdb")
    assert not [*tmp_path.glob("*.new")]
    after = tree(tmp_path)
    assert {name: after[name] for name in before} == before, "the backups"


@pytest.mark.parametrize("kind", ["plain", "compressed and encrypted"])
async def test_a_backup_cancelled_at_any_step_leaves_nothing(kind: str, tmp_path: Path) -> None:
    compress, key = KINDS[kind]
    limits = replace(LIMITS, page_rows_max=200)
    async with open_platform(tmp_path / "feed.duckdb", limits=limits) as platform:
        await live(platform, 10)
        before = sorted(tree(tmp_path))
        counter = _Steps()
        trio.lowlevel.add_instrument(counter)
        step, whole = 0, False
        while not whole:
            step += 1
            with trio.CancelScope() as scope:
                counter.watch(scope, step)
                await platform.backup_to(tmp_path / "backup", compress=compress, key=key)
                whole = True
            counter.watch(None, 0)
            assert not platform.sources.snapshots._leased
            if not whole and (tmp_path / "backup").exists():
                break  # cancelled when it was there already
            if not whole:
                assert sorted(tree(tmp_path)) == before
        trio.lowlevel.remove_instrument(counter)
        assert step > 10
    verify_backup(tmp_path / "backup", key=key)


class _Steps(trio.abc.Instrument):
    """Cancels the test's own task before its n-th step."""

    def __init__(self) -> None:
        self._task = trio.lowlevel.current_task()
        self.watch(None, 0)

    def watch(self, scope: trio.CancelScope | None, step: int) -> None:
        self._scope, self._left = scope, step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task and self._scope is not None:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


@pytest.mark.parametrize("kind", ["plain", "compressed and encrypted"])
async def test_a_restore_cancelled_at_any_piece_leaves_nothing(kind: str, tmp_path: Path) -> None:
    compress, key = KINDS[kind]
    async with open_platform(tmp_path / "feed.duckdb", limits=LIMITS) as platform:
        await live(platform, 10)
        await platform.backup_to(tmp_path / "b1", compress=compress, key=key)
        await live(platform, 3, first=10)
        await platform.backup_to(tmp_path / "b2", parent=tmp_path / "b1", key=key)
    before = tree(tmp_path)
    pieces, whole = 0, False
    while not whole:
        pieces += 1
        left = pieces
        with trio.CancelScope() as scope:

            def count_down(_size: int, scope: trio.CancelScope = scope) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    trio.from_thread.run_sync(scope.cancel)

            await restore_from(
                tmp_path / "b2", tmp_path / "new.duckdb", key=key, on_bytes=count_down
            )
            whole = True
        if not whole:
            assert tree(tmp_path) == before
    assert pieces > 4


def test_a_backup_that_finds_no_space_leaves_nothing_and_the_platform_goes_on(
    tmp_path: Path,
) -> None:
    said = run(child(tmp_path, "full", 1024 * KIB))
    full = "failed store_full True"
    assert said == [full, full, "wrote on", full, "projected on"]
    assert tree(tmp_path) == {}


async def test_a_restore_that_finds_no_space_leaves_nothing(tmp_path: Path) -> None:
    async with open_platform(tmp_path / "feed.duckdb", limits=LIMITS) as platform:
        await platform.put_batch([(b"noise/%d" % n, random.randbytes(20 * KIB)) for n in range(60)])
        await platform.backup_to(tmp_path / "c", compress=True)
        await platform.backup_to(tmp_path / "p")
    before = tree(tmp_path)
    said = run(child(tmp_path, "restore", 1024 * KIB))
    assert [line.rpartition(" ")[0] for line in said] == ["failed store_full"] * 2
    assert tree(tmp_path) == before
