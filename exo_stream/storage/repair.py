"""Repair of a write-ahead log whose last transaction is damaged; copies are kept, nothing deleted.

After a power cut the pages of a COMMIT that had not returned can be on disk in part. DuckDB
takes a short tail for what it is, but refuses to open a log with a hole in its last transaction.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from enum import Enum
from itertools import count
from pathlib import Path

import structlog

from exo_stream.errors import CorruptionError, ForeignFileError
from exo_stream.storage import directory, wal
from exo_stream.storage.lock_file import LockFile

log = structlog.get_logger()


class WalVerdict(Enum):
    """What can be done about a write-ahead log."""

    SOUND = "sound"
    REPAIRABLE = "repairable"
    REPAIRED = "repaired"
    BEYOND_REPAIR = "beyond_repair"


@dataclass(frozen=True, slots=True)
class WalReport:
    """What is in the write-ahead log of ``path``, and in one sentence what it means.

    ``kept_bytes`` of its ``wal_bytes`` hold ``transactions`` intact ones. ``copies`` are the
    files put aside by a repair.
    """

    path: str
    verdict: WalVerdict
    reason: str
    wal_bytes: int
    kept_bytes: int
    transactions: int
    copies: tuple[str, ...] = ()


def repair_wal(path: str | os.PathLike[str], *, apply: bool = False) -> WalReport:
    """Say what is wrong with the write-ahead log of ``path``; with ``apply``, cut the damage off.

    That is done only if the damage is in the last transaction: everything before it is kept,
    and both files are copied first. Raises FileInUseError, ForeignFileError, StoreError, and
    CorruptionError with ``apply`` when it is beyond repair.
    """
    real = Path(os.path.realpath(path))
    if not real.is_file():
        raise ForeignFileError(f"{real} is no file")
    lock = LockFile(real)
    try:
        report = _examine(real)
        if not apply or report.verdict is WalVerdict.SOUND:
            return report
        if report.verdict is WalVerdict.BEYOND_REPAIR:
            raise CorruptionError(report.reason)
        return _cut(real, report)
    finally:
        lock.close()


def _examine(path: Path) -> WalReport:
    wal_path = directory.beside(path, ".wal")
    data = wal_path.read_bytes() if wal_path.exists() else b""
    scan = wal.scan(data)
    verdict, reason = _judge(path, scan)
    return WalReport(
        path=str(path),
        verdict=verdict,
        reason=reason,
        wal_bytes=scan.size,
        kept_bytes=scan.intact_bytes,
        transactions=scan.transactions,
    )


def _judge(path: Path, scan: wal.WalScan) -> tuple[WalVerdict, str]:
    if unexpected := [name for name in _RARE if directory.beside(path, name).exists()]:
        return WalVerdict.BEYOND_REPAIR, f"there is a {path.name}{unexpected[0]}, not ours"
    if scan.damage is None or not scan.size:
        return WalVerdict.SOUND, f"all {scan.transactions} transactions in it are intact"
    if scan.flush_follows:
        return WalVerdict.BEYOND_REPAIR, (
            f"{scan.damage}, and later transactions follow: what is damaged had been made"
            " durable. Restore a backup"
        )
    if not scan.intact_bytes:
        return WalVerdict.BEYOND_REPAIR, f"{scan.damage}, so nothing in it can be trusted"
    returned = "may have returned" if scan.flush_at_end else "had not returned"
    return WalVerdict.REPAIRABLE, (
        f"{scan.damage}; it is in the last transaction, whose COMMIT {returned}"
    )


_RARE = (".wal.checkpoint", ".wal.recovery")
"""Written by DuckDB when commits run beside a CHECKPOINT, which ours never do."""


def _cut(path: Path, report: WalReport) -> WalReport:
    wal_path = directory.beside(path, ".wal")
    copies = tuple(str(_set_aside(each)) for each in (path, wal_path))
    directory.sync(path)
    fd = os.open(wal_path, os.O_RDWR)
    try:
        os.ftruncate(fd, report.kept_bytes)
        os.fsync(fd)
    finally:
        os.close(fd)
    log.warning("wal cut", path=str(path), cut=report.wal_bytes - report.kept_bytes)
    return WalReport(
        path=report.path,
        verdict=WalVerdict.REPAIRED,
        reason=f"{report.wal_bytes - report.kept_bytes} damaged bytes were cut off",
        wal_bytes=report.wal_bytes,
        kept_bytes=report.kept_bytes,
        transactions=report.transactions,
        copies=copies,
    )


def _set_aside(path: Path) -> Path:
    """A durable copy beside ``path``, under a name that was free."""
    names = (directory.beside(path, f".before-repair-{number}") for number in count(1))
    copy = next(name for name in names if not name.exists())
    with path.open("rb") as source, copy.open("xb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())
    return copy
