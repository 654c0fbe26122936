"""The commands for backups: take, verify, restore, prune, and the key to encrypt them with."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import trio
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from exo_stream.backup import (
    BackupKey,
    restore_from,
)
from exo_stream.backup import (
    prune_backups as prune_in,
)
from exo_stream.backup import (
    verify_backup as verified,
)
from exo_stream.backup.projections import FOLDER_SUFFIX
from exo_stream.backup.reading import Backup, open_chain
from exo_stream.cli.exit_codes import OK
from exo_stream.cli.output import Output
from exo_stream.cli.wording import counted, size
from exo_stream.errors import ForeignFileError
from exo_stream.opening import open_platform

_KEY_BYTES_MAX: Final = 4_096


async def backup(args: Namespace, out: Output) -> int:
    """Back up a file that nobody has open, and say what is in the backup."""
    if not await trio.Path(args.file).is_file():
        raise ForeignFileError(f"{args.file} is no file")
    key, folder = _key(args), args.projections
    beside = f"{args.file}{FOLDER_SUFFIX}"
    if folder is None and await trio.Path(beside).is_dir():
        folder = beside
    async with open_platform(args.file) as platform:
        with _bar("backup", out) as bar:
            task = bar.add_task("", total=None)
            taken = await platform.backup_to(
                args.directory,
                parent=args.parent,
                compress=args.compress,
                key=key,
                projections=folder,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    held = f"{counted(taken.batches, 'batch', 'batches')}, {counted(taken.rows, 'row', 'rows')}"
    after = "" if taken.parent_sequence is None else f"after {taken.parent_sequence} "
    out.answer(
        asdict(taken),
        f"{taken.path}: {taken.kind}, {after}to sequence {taken.sequence}: {held},"
        f" {size(taken.size_bytes)}{_listed('; projections', taken.projections)}",
    )
    return OK


async def restore(args: Namespace, out: Output) -> int:
    """Make a new file from a backup, and say what it shows."""
    key = _key(args)
    path = await trio.Path(args.directory).resolve()
    total = 2 * _bytes(open_chain(Path(path), key))
    with _bar("restore", out) as bar:
        task = bar.add_task("", total=total)
        done = await restore_from(
            path,
            args.file,
            at_sequence=args.at_sequence,
            at_time=args.at_time,
            at_event=args.at_event,
            key=key,
            projections=args.projections,
            on_bytes=lambda size: bar.advance(task, size),
        )
    report = {**asdict(done.report), "findings": [], "notes": [*done.report.notes]}
    out.answer(
        {**asdict(done), "report": report},
        f"{done.path}: sequence {done.sequence}, verified; its log id is new, {done.log_id}:"
        f" no cursor of the old one is valid{_listed('; projections', done.projections)}"
        f"{_listed('; to be built anew', done.to_rebuild)}",
    )
    return OK


def verify_backup(args: Namespace, out: Output) -> int:
    """Check a backup and all it follows; what is wrong is an error."""
    key = _key(args)
    path = Path(os.path.realpath(args.file))
    with _bar("verify", out) as bar:
        task = bar.add_task("", total=_bytes(open_chain(path, key)))
        chain = verified(path, key=key, on_bytes=lambda size: bar.advance(task, size))
    for backup_ in chain:
        found = backup_.manifest
        values = {**asdict(found), "path": str(backup_.path), "sound": True}
        values["files"] = [asdict(file) for file in found.files]
        values["projections"] = [asdict(one) for one in found.projections]
        out.answer(
            values,
            f"{backup_.path} is sound: {found.kind}, to sequence {found.sequence},"
            f" taken {found.timestamp}, {size(found.size_bytes)}",
        )
    return OK


def prune_backups(args: Namespace, out: Output) -> int:
    """Delete what is kept no longer; say which."""
    gone = prune_in(
        args.folder,
        now=time.time_ns() // 1_000,
        full_max=args.full,
        incremental_seconds=args.incremental_days * 24 * 3_600,
        dry_run=args.dry_run,
    )
    for path in gone:
        would = "would be deleted" if args.dry_run else "deleted"
        out.answer({"path": str(path), "deleted": not args.dry_run}, f"{path}: {would}")
    return OK


def backup_key(args: Namespace, out: Output) -> int:
    """Write a new key to a file that only its owner can read; say its id."""
    key = BackupKey.generate()
    fd = os.open(args.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(key.text + "\n")
        file.flush()
        os.fsync(file.fileno())
    out.answer(
        {"path": str(args.file), "key_id": key.id},
        f"{args.file}: key {key.id}; without it, what is encrypted with it is lost",
    )
    return OK


def _key(args: Namespace) -> BackupKey | None:
    if args.key_file is None:
        return None
    with Path(args.key_file).open(errors="replace") as file:
        return BackupKey.parse(file.read(_KEY_BYTES_MAX))


def _listed(what: str, names: Sequence[str]) -> str:
    return f"{what}: {', '.join(names)}" if names else ""


def _bytes(chain: list[Backup]) -> int:
    return sum(backup_.manifest.size_bytes for backup_ in chain)


@contextmanager
def _bar(name: str, out: Output) -> Iterator[Progress]:
    """A progress bar on a terminal, and else nothing; on standard error, and gone at the end."""
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    is_shown = sys.stderr.isatty() and not out.is_json
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not is_shown
    ) as bar:
        yield bar
