"""Letting go of old backups: the newest of a chain first, so that no chain is ever broken."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from exo_stream.backup.manifest import Manifest
from exo_stream.backup.reading import found_in
from exo_stream.backup.retention import expired
from exo_stream.errors import InvalidRequestError
from exo_stream.storage import directory

FULL_MAX: Final = 7
INCREMENTAL_SECONDS: Final = 30 * 24 * 3600


def prune_backups(
    folder: str | os.PathLike[str],
    *,
    now: int,
    full_max: int = FULL_MAX,
    incremental_seconds: int = INCREMENTAL_SECONDS,
    dry_run: bool = False,
) -> list[Path]:
    """Delete the backups in ``folder`` that are kept no longer; answer which.

    Of each log the newest ``full_max`` full backups stay, and of those that follow them what is
    younger than ``incremental_seconds`` at ``now`` (microseconds), each with all it follows.
    What is no backup, or has a damaged manifest, stays. Blocking. Killed half-way, whatever is
    left can be restored.
    """
    if full_max < 1 or incremental_seconds < 0:
        raise InvalidRequestError("at least one full backup is kept, for no negative time")
    found = found_in(Path(folder))
    places = {backup.manifest.backup_id: backup.path for backup in found}
    manifests: list[Manifest] = [backup.manifest for backup in found]
    gone = expired(manifests, full_max=full_max, incremental_seconds=incremental_seconds, now=now)
    paths = [places[manifest.backup_id] for manifest in gone]
    if not dry_run:
        for path in paths:
            _delete(path)
    return paths


def _delete(path: Path) -> None:
    """Away with its name first, so that half of it never looks like all of it."""
    dying = path.with_name(f".{path.name}.deleted")
    if dying.is_dir():
        shutil.rmtree(dying)  # what a killed process left
    path.rename(dying)
    directory.sync(path)
    shutil.rmtree(dying)
