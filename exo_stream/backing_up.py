"""Backups of an open platform, for the handles that an application holds."""

from __future__ import annotations

from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from exo_stream.backups import BackupInfo, OnBytes, OnProgress, RestoreInfo, ignore_bytes
from exo_stream.ground import Ground

if TYPE_CHECKING:
    from exo_stream.backup_key import BackupKey


class BackingUp:
    """Takes backups of one platform; and restores any, to a file of their own."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def backup_to(
        self,
        directory: str | PathLike[str],
        *,
        parent: str | PathLike[str] | None = None,
        compress: bool = False,
        key: BackupKey | None = None,
        projections: str | PathLike[str] | None = None,
        on_progress: OnProgress | None = None,
    ) -> BackupInfo:
        """Back up what is visible now, as ``Platform.backup_to`` says."""
        # Here and below, for clients import this too, and DuckDB is a fifth of the whole import.
        from exo_stream.backup.taking import take  # noqa: PLC0415  see above

        return await take(
            self._ground,
            Path(directory),
            parent=None if parent is None else Path(parent),
            compress=compress,
            key=key,
            projections=None if projections is None else Path(projections),
            on_progress=on_progress,
        )

    async def restore_from(
        self,
        directory: str | PathLike[str],
        target: str | PathLike[str],
        *,
        at_sequence: int | None = None,
        at_time: datetime | None = None,
        at_event: int | None = None,
        key: BackupKey | None = None,
        projections: str | PathLike[str] | None = None,
        on_bytes: OnBytes = ignore_bytes,
    ) -> RestoreInfo:
        """Make a new file of a backup, as ``exo_stream.backup.restore_from`` says."""
        from exo_stream.backup.restored import restore_from  # noqa: PLC0415  see above

        return await restore_from(
            directory,
            target,
            at_sequence=at_sequence,
            at_time=at_time,
            at_event=at_event,
            key=key,
            projections=projections,
            on_bytes=on_bytes,
        )
