"""Restoring from a trio program, in a thread, given up when the caller is cancelled."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from os import PathLike

import trio

from exo_stream.backup.restoring import restore
from exo_stream.backup_key import BackupKey
from exo_stream.backups import OnBytes, RestoreInfo, ignore_bytes
from exo_stream.errors import InvalidRequestError


async def restore_from(
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
    """Make the file ``target``, which must not exist, from the backup in ``directory``.

    It is verified before anything is written, and never written itself; the file appears when it
    is whole, verified and durable. It has a new log id, and is not sealed. ``at_sequence``,
    ``at_time`` or ``at_event``, the id of an event whose batch is the last, is an earlier point.
    Its projections come back in the folder ``projections``, ``target`` with ``.projections``
    unless told; those that were ahead of that point do not, and begin with the first event.
    ``on_bytes`` is told, in another thread, of every piece of work: first the backup is read, then
    the file is written. Cancelled, it leaves nothing. Raises BackupError and those below it,
    FileInUseError, StoreFullError, StoreError, CorruptionError, InvalidRequestError.
    """
    if at_time is not None and at_time.tzinfo is None:
        raise InvalidRequestError("a time has a time zone")
    microseconds = None if at_time is None else round(at_time.timestamp() * 1_000_000)

    def tell(size: int) -> None:
        trio.from_thread.check_cancelled()
        on_bytes(size)

    work = partial(
        restore,
        directory,
        target,
        at_sequence=at_sequence,
        at_time=microseconds,
        at_event=at_event,
        key=key,
        projections=projections,
        on_bytes=tell,
    )
    return await trio.to_thread.run_sync(work)
