"""The projections in a backup: copied while they are at rest, and put back beside the new file.

They are copied before the backup's Version is taken, so that none is ahead of it; what one has
not applied by then it applies when it runs again. They are in full backups only: the events that
follow are in the incremental ones.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import trio

from exo_stream.backup.artifact import ArtifactWriter, read_pieces
from exo_stream.backup.manifest import BackupFile, BackupProjection
from exo_stream.backup.plan import Plan
from exo_stream.backup.reading import Backup
from exo_stream.backup_errors import BackupDamagedError, BackupError, RestoreRefusedError
from exo_stream.backups import Companion, OnBytes
from exo_stream.errors import ExoStreamError, FileInUseError
from exo_stream.ground import Ground
from exo_stream.logger import log
from exo_stream.storage import directory, failures
from exo_stream.storage.at_rest import AtRest
from exo_stream.storage.hop import Hop
from exo_stream.storage.lock_file import LockFile
from exo_stream.storage.projection_copy import adopt, complete
from exo_stream.storage.projection_file import SUFFIX, file_of

FOLDER_SUFFIX: Final = ".projections"
"""Beside a file, under its name: where its projections are unless somebody says otherwise."""

_UNFINISHED: Final = ".unfinished"
"""Lists what a restore has put into a folder, until the file that it belongs to is there."""

Copy = tuple[BackupProjection, BackupFile]


# --- taking ----------------------------------------------------------------------------------


async def copy_projections(ground: Ground, plan: Plan, folder: Path, hop: Hop) -> list[Copy]:
    """Copy every projection that runs, and those in the plan's folder, into ``folder``.

    One that cannot be used is left out: it can be built anew from the events.
    """
    running = [*ground.companions]
    names = [companion.name for companion in running]
    if len(set(names)) < len(names):
        raise BackupError(str(folder), "two projections that run have one name")
    copies: list[Copy] = []
    stopped = await hop(partial(_stopped, plan.projections, set(names), hop))
    for companion in (*running, *stopped):
        async with companion.at_rest() as found:
            if found is not None and found.log_id == ground.sources.log_id:
                copies.append(await _copy(companion.name, found, plan, folder, hop))
                continue
        log.warning("projection left out", projection=companion.name)
    return copies


async def _copy(name: str, found: AtRest, plan: Plan, folder: Path, hop: Hop) -> Copy:
    path = folder / plan.named(f"projection-{name}{SUFFIX}")
    plan.meter.expect(directory.file_bytes(found.path))
    try:
        artifact = await hop(partial(plan.artifact, path))
        try:
            copying = partial(_step, read_pieces(found.path), artifact)
            while size := await hop(copying):
                plan.meter.count(size)
            file = await hop(artifact.finish)
        finally:
            with trio.CancelScope(shield=True):  # closing a file waits for no disk
                await hop(artifact.close)
    except OSError as error:
        raise failures.of_creation(path, error) from error
    return BackupProjection(name, found.cursor, found.schema_version, file.name), file


def _step(pieces: Iterator[bytes], artifact: ArtifactWriter) -> int:
    """Copy a piece; its size, 0 if there was none."""
    piece = next(pieces, b"")
    artifact.write(piece)
    return len(piece)


def _stopped(folder: Path | None, running: set[str], hop: Hop) -> list[Companion]:
    if folder is None:
        return []
    if not folder.is_dir():
        raise BackupError(str(folder), "there is no such directory")
    found = [_Stopped(path, hop) for path in sorted(folder.glob(f"*{SUFFIX}"))]
    return [companion for companion in found if companion.name not in running]


class _Stopped:
    """A projection that nobody runs."""

    def __init__(self, path: Path, hop: Hop) -> None:
        self._path = path
        self._hop = hop
        self.name = path.name.removesuffix(SUFFIX)

    @asynccontextmanager
    async def at_rest(self) -> AsyncIterator[AtRest | None]:
        """Its file, under its lock."""
        try:
            lock = await self._hop(partial(LockFile, self._path, passing=True))
        except FileInUseError:
            yield None
            return
        try:
            yield await self._found()
        finally:
            lock.close()

    async def _found(self) -> AtRest | None:
        try:
            stored = await self._hop(partial(complete, self._path))
        except ExoStreamError as error:
            log.warning("projection not at rest", projection=self.name, error=str(error))
            await trio.lowlevel.checkpoint()
            return None
        if stored.name != self.name:
            return None
        return AtRest(self._path, stored.log_id, stored.cursor, stored.schema_version)


# --- restoring -------------------------------------------------------------------------------


def split(full: Backup, next_event_id: int) -> tuple[list[BackupProjection], list[str]]:
    """Those that are no further than the events, and the names of those that are."""
    found = full.manifest.projections
    fit = [one for one in found if one.cursor is None or one.cursor < next_event_id]
    return fit, [one.name for one in found if one not in fit]


def refuse_folder(folder: Path) -> None:
    """Raise RestoreRefusedError if there is something in the way that no killed restore left."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or not _names(folder) <= _leftover(folder):
        raise RestoreRefusedError(str(folder), "it exists already, and was left untouched")


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _leftover(folder: Path) -> set[str]:
    """What a restore that was killed had put there: nothing of it has been used since."""
    with suppress(OSError):
        return {_UNFINISHED, *(folder / _UNFINISHED).read_text().splitlines()}
    return set()


@contextmanager
def born_with_its_file(folder: Path) -> Iterator[Path]:
    """Where to write projections; ``name`` gives it its name. All of it goes if the body fails."""
    unborn = directory.beside(folder, ".new")
    shutil.rmtree(unborn, ignore_errors=True)  # what a killed process left
    try:
        yield unborn
    except BaseException:
        if (folder / _UNFINISHED).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(unborn, ignore_errors=True)
    (folder / _UNFINISHED).unlink(missing_ok=True)


def write_projections(
    full: Backup,
    chosen: Sequence[BackupProjection],
    unborn: Path,
    *,
    log_id: str,
    on_bytes: OnBytes,
) -> None:
    """Make the folder ``unborn`` of these, each of the new log. Raises BackupDamagedError."""
    unborn.mkdir(mode=0o700)
    for projection in chosen:
        path = file_of(unborn, projection.name)
        with path.open("xb") as out:
            for piece in full.content(projection.file):
                out.write(piece)
                on_bytes(len(piece))
        stored = adopt(path, log_id=log_id)
        expected = (projection.name, projection.cursor, projection.schema_version)
        if (stored.name, stored.cursor, stored.schema_version) != expected:
            raise BackupDamagedError(str(full.path / projection.file), "it is of another state")


def name_projections(unborn: Path, folder: Path) -> None:
    """Give the folder its name, just before the file that it belongs to gets its own."""
    at = unborn / _UNFINISHED
    with at.open("x") as file:
        file.write("\n".join(sorted(_names(unborn))))
        file.flush()
        os.fsync(file.fileno())
    directory.sync(at)
    if folder.exists():
        shutil.rmtree(folder)  # empty, or left by a killed restore
    unborn.rename(folder)
    directory.sync(folder)
