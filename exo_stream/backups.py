"""Backups as the faces know them: what was taken or restored, who does it, and what comes along."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Protocol

from exo_stream.storage.at_rest import AtRest

if TYPE_CHECKING:
    from exo_stream.backup_key import BackupKey
    from exo_stream.storage.findings import Report

OnProgress = Callable[[int, int], None]
"""Is told now and then how many bytes are done, and of how many, about."""

OnBytes = Callable[[int], None]
"""Is told of every piece of work done, in bytes; what it raises ends the work."""


def ignore_bytes(_size: int) -> None:
    """For who does not want to know."""


@dataclass(frozen=True, slots=True)
class BackupInfo:
    """A backup that was taken; ``path`` is its directory, and ``size_bytes`` all files together.

    ``sequence`` is what it shows; an incremental one has only the log after ``parent_sequence``.
    ``projections`` names those whose tables are in it.
    """

    path: str
    backup_id: str
    kind: str
    log_id: str
    sequence: int
    parent_sequence: int | None
    sealed_event_id: int | None
    timestamp: str
    rows: int
    batches: int
    size_bytes: int
    projections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RestoreInfo:
    """What was restored: ``sequence`` of the backup is what the new file shows.

    ``sealed_event_id`` is where the canonical store was sealed; the new file is not, so that one
    batch more is in its log then, which took the seal away. ``projections`` have their tables
    again; those in ``to_rebuild`` were ahead of what was restored, and begin with the first event.
    """

    path: str
    backup_id: str
    log_id: str
    sequence: int
    sealed_event_id: int | None
    size_bytes: int
    report: Report
    projections: tuple[str, ...] = ()
    to_rebuild: tuple[str, ...] = ()


class Companion(Protocol):
    """What has a file beside the platform's own, derived from it: a projection."""

    @property
    def name(self) -> str:
        """Unlike that of any other."""

    def at_rest(self) -> AbstractAsyncContextManager[AtRest | None]:
        """Its file, at rest while the body runs; None if there is none that could be copied."""


class Backups(Protocol):
    """Who takes backups of a platform, and restores them."""

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
        """Back up what is visible now."""

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
        """Make a new file of a backup."""
