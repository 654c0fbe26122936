"""What the commands about backups accept."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

AddCommand = Callable[..., ArgumentParser]


class NumberFrom(Protocol):
    """Answers what reads a whole number between two bounds."""

    def __call__(self, least: int, most: int = ..., /) -> Callable[[str], int]: ...


def add_backups(
    command: AddCommand, number_from: NumberFrom, moment: Callable[[str], datetime]
) -> None:
    """Add the commands; ``moment`` reads a time."""
    backup = command("backup", "Back up a file that no server has open")
    backup.add_argument("file", metavar="FILE")
    backup.add_argument("directory", metavar="DIR", help="must not exist yet")
    backup.add_argument(
        "--parent", metavar="DIR", help="only what was written since this backup, beside DIR"
    )
    backup.add_argument("--compress", action="store_true", help="with zstd")
    restore = command(
        "restore",
        "Make a new file from a backup",
        description="Make a new file from a backup, after verifying every byte of it and of all it "
        "follows. The file has a new log id: no cursor of the old one is valid.",
    )
    restore.add_argument("directory", metavar="DIR")
    restore.add_argument("file", metavar="FILE", help="must not exist yet")
    point = restore.add_mutually_exclusive_group()
    point.add_argument(
        "--at-sequence", type=number_from(0), metavar="N", help="as it was at this sequence"
    )
    point.add_argument(
        "--at-time", type=moment, metavar="TIME", help="2026-11-21T17:00, or so long ago: 15m"
    )
    point.add_argument(
        "--at-event", type=number_from(0), metavar="ID", help="as this event left it"
    )
    for both in (backup, restore):
        both.add_argument(
            "--projections", metavar="DIR", help="where their files are; FILE.projections"
        )
        both.add_argument("--key-file", metavar="KEY", help="made by backup-key")
    key = command("backup-key", "Make a key to encrypt backups with")
    key.add_argument("file", metavar="KEY", help="must not exist yet")
    _prune(command, number_from)


def _prune(command: AddCommand, number_from: NumberFrom) -> None:
    prune = command(
        "prune-backups",
        "Delete the backups in a directory that are kept no longer",
        description="Delete the backups in a directory that are kept no longer; what stays can be "
        "restored, for a backup stays as long as anything that stays follows it.",
    )
    prune.add_argument("folder", metavar="FOLDER")
    prune.add_argument(
        "--full", type=number_from(1), default=7, metavar="N", help="full backups to keep; 7"
    )
    prune.add_argument(
        "--incremental-days",
        type=number_from(0, 100_000),
        default=30,
        metavar="N",
        help="how long to keep what follows them; 30",
    )
    prune.add_argument("--dry-run", action="store_true", help="only say which")
