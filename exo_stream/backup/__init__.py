"""Backups of a whole platform: taken while it is written to, verified, restored."""

from exo_stream.backup.keeping import prune_backups
from exo_stream.backup.manifest import Manifest
from exo_stream.backup.restored import restore_from
from exo_stream.backup.restoring import restore, verify_backup
from exo_stream.backup_key import BackupKey
from exo_stream.backups import BackupInfo, RestoreInfo

__all__ = [
    "BackupInfo",
    "BackupKey",
    "Manifest",
    "RestoreInfo",
    "prune_backups",
    "restore",
    "restore_from",
    "verify_backup",
]
