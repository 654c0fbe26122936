"""Repair of what a power cut tore, in a COMMIT or a CHECKPOINT; copies are kept, nothing deleted.

The pages of a COMMIT that had not returned can be on disk in part. DuckDB takes a short tail of
its log for what it is, but refuses to open one with a hole in its last transaction; and it
refuses a file with a block that a CHECKPOINT wrote in part.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from itertools import count
from pathlib import Path

from exo_stream.errors import CorruptionError, ForeignFileError
from exo_stream.limits import Limits
from exo_stream.logger import log
from exo_stream.storage import directory, inspection, torn_checkpoint, wal
from exo_stream.storage.lock_file import LockFile


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
    lock = LockFile(real, passing=not apply)
    try:
        _refuse_foreign(real)
        report = _examine(real)
        torn: tuple[int, ...] = ()
        if report.verdict is WalVerdict.SOUND and report.wal_bytes:
            report, torn = _examine_file(real, report)
        if not apply or report.verdict is WalVerdict.SOUND:
            return report
        if report.verdict is WalVerdict.BEYOND_REPAIR:
            raise CorruptionError(report.reason)
        return _mend(real, report, torn) if torn else _cut(real, report)
    finally:
        lock.close()


def _refuse_foreign(path: Path) -> None:
    # A file that a CHECKPOINT tore does not open: what becomes of it is proven on a copy.
    with suppress(CorruptionError):
        inspection.inspect_without_wal(path, memory_bytes=Limits().engine_memory_bytes)


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
    if scan.header_lost:
        return WalVerdict.BEYOND_REPAIR, f"{scan.damage}, so nothing in it can be trusted"
    returned = "may have returned" if scan.flush_at_end else "may not have returned"
    return WalVerdict.REPAIRABLE, (
        f"{scan.damage}; it is in the last transaction, whose COMMIT {returned}"
    )


def _examine_file(path: Path, report: WalReport) -> tuple[WalReport, tuple[int, ...]]:
    """The log is sound; tell whether its file is too, or a CHECKPOINT of it was torn."""
    try:
        torn = torn_checkpoint.find(path, memory_bytes=Limits().engine_memory_bytes)
    except CorruptionError as error:
        return replace(report, verdict=WalVerdict.BEYOND_REPAIR, reason=str(error)), ()
    if not torn:
        return report, ()
    blocks = ", ".join(map(str, torn))
    reason = f"the log is intact, but a CHECKPOINT was cut short in block {blocks} of the file"
    return replace(report, verdict=WalVerdict.REPAIRABLE, reason=reason), torn


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


def _mend(path: Path, report: WalReport, torn: tuple[int, ...]) -> WalReport:
    copies = tuple(str(_set_aside(each)) for each in (path, directory.beside(path, ".wal")))
    directory.sync(path)
    torn_checkpoint.mend(path, torn)
    log.warning("checkpoint mended", path=str(path), blocks=list(torn))
    reason = "the file is what it was before the CHECKPOINT that was cut short"
    return replace(report, verdict=WalVerdict.REPAIRED, reason=reason, copies=copies)


def _set_aside(path: Path) -> Path:
    """A durable copy beside ``path``, under a name that was free."""
    names = (directory.beside(path, f".before-repair-{number}") for number in count(1))
    copy = next(name for name in names if not name.exists())
    with path.open("rb") as source, copy.open("xb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())
    return copy
