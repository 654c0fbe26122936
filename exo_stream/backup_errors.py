"""The errors of backups: each names the ``path`` it is about. They are of one machine, no wire's.

ExoStreamError
└─ BackupError                backup_failed        it could not be taken, or read
   ├─ BackupDamagedError      backup_damaged       a file is missing, or not what was written
   ├─ BackupFormatError       backup_format        of a newer format
   ├─ BackupKeyError          backup_key           it was encrypted with another key
   │  ├─ BackupKeyMissingError backup_key_missing  it is encrypted, and no key was given
   │  └─ BackupNotEncryptedError backup_not_encrypted  it is not, though a key was given
   ├─ FullBackupNeededError   full_backup_needed   the log does not go on from the parent
   ├─ RestorePointError       restore_point        the backup does not reach so far
   └─ RestoreRefusedError     restore_refused      there is something already
"""

from __future__ import annotations

from typing import ClassVar

from exo_stream.errors import ExoStreamError


class BackupError(ExoStreamError):
    """A backup could not be taken or read; ``path`` is the file or directory it is about."""

    code = "backup_failed"
    fields: ClassVar[tuple[str, ...]] = ("path",)

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path


class BackupDamagedError(BackupError):
    """A file of a backup is missing, or is not what was written; nothing was changed."""

    code = "backup_damaged"


class BackupFormatError(BackupError):
    """A backup, or the store in it, is of a newer format than this program knows."""

    code = "backup_format"


class BackupKeyError(BackupError):
    """The key is not the one that a backup was encrypted with."""

    code = "backup_key"


class BackupKeyMissingError(BackupKeyError):
    """A backup is encrypted, and no key was given."""

    code = "backup_key_missing"


class BackupNotEncryptedError(BackupKeyError):
    """A backup is not encrypted, though a key was given: whoever has a key expects it to be."""

    code = "backup_not_encrypted"


class FullBackupNeededError(BackupError):
    """The log does not go on from the parent at ``path``: take a full backup."""

    code = "full_backup_needed"


class RestorePointError(BackupError):
    """The backup does not reach the point asked for; ``path`` is the backup."""

    code = "restore_point"


class RestoreRefusedError(BackupError):
    """There is something at ``path`` already; it was left untouched."""

    code = "restore_refused"
