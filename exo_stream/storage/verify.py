"""Verification of a stopped file: every invariant, a page at a time, and nothing is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from exo_stream.errors import CorruptionError, ForeignFileError
from exo_stream.model import Entry
from exo_stream.storage import failures, inspection, manifest, meta
from exo_stream.storage.block_check import check_blocks
from exo_stream.storage.database import Rows
from exo_stream.storage.face_check import FaceCheck, FaceRows, MakeFaceCheck
from exo_stream.storage.findings import Finding, Findings, Report
from exo_stream.storage.fold_check import FoldCheck
from exo_stream.storage.instance import OFFLINE_MEMORY_BYTES, attach
from exo_stream.storage.lock_file import LockFile
from exo_stream.storage.log_check import check_log
from exo_stream.storage.rule_check import RuleCheck


def verify(
    path: str | os.PathLike[str],
    *,
    memory_bytes: int = OFFLINE_MEMORY_BYTES,
    faces: Sequence[MakeFaceCheck] = (),
) -> Report:
    """Read the whole file and report every contradiction in it; if there is none in the log and
    the table, what the ``faces`` object to besides.

    What a killed process left in the write-ahead log counts as part of the file. Raises
    FileInUseError, ForeignFileError, StoreError.
    """
    real = Path(os.path.realpath(path))
    if not real.is_file():
        raise ForeignFileError(f"{real} is no file")
    lock = LockFile(real, passing=True)
    try:
        tail = inspection.inspect(real, memory_bytes=memory_bytes)
        with TemporaryDirectory(prefix="exo-stream-verify-") as spill:
            con = attach(real, memory_bytes=memory_bytes, mode="READ_ONLY", spill=spill)
            with closing(con):
                report = _read(real, con, [make() for make in faces])
                return replace(report, notes=(*_notes(tail), *report.notes))
    except CorruptionError as error:
        return _unreadable(real, str(error))
    except duckdb.Error as error:
        problem = failures.of_read(error)
        if isinstance(problem, CorruptionError):
            return _unreadable(real, str(problem))
        raise problem from error
    finally:
        lock.close()


def _notes(tail: int) -> tuple[str, ...]:
    if not tail:
        return ()
    note = (
        f"the last {tail:,} bytes of the write-ahead log are no whole transaction: its COMMIT may"
        " not have returned, and opening the file drops them"
    )
    return (note,)


def _evicted(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    batches = "1 evicted batch" if count == 1 else f"{count:,} evicted batches"
    return (f"the file still has {batches}, whose turn to be removed comes when it is open",)


def _read(path: Path, con: duckdb.DuckDBPyConnection, faces: Sequence[FaceCheck]) -> Report:
    rows = Rows(con)
    findings = Findings()
    values = meta.load(con)
    numbers = {name: int.from_bytes(value, "big") for name, value in values.items()}
    floor, folded_through = numbers[meta.FLOOR], numbers[meta.FOLDED_THROUGH]
    ((oldest, newest),) = rows.fetch("SELECT min(sequence), max(sequence) FROM log")
    _check_ends(findings, oldest, newest, floor, folded_through)
    rule = RuleCheck(rows)
    with closing(FoldCheck(con)) as fold, closing(FaceRows(con, faces)) as face_rows:

        def take_folded(sequence: int, entries: tuple[Entry, ...]) -> None:
            rule.take_batch(sequence, entries)
            if sequence <= folded_through:
                fold.take_batch(sequence, entries)
            else:
                face_rows.take_batch(sequence, entries)

        batches = check_log(rows, findings, numbers.get(meta.COMMITTED_AT, 0), take_folded)
        blocks = check_blocks(rows, findings, folded_through, fold.take_rows)
        fold.compare(findings, folded_through + 1 if oldest is None else oldest)
        live_rows = fold.rows
        if not findings.listed:
            face_rows.check(findings)
    ((retained,),) = rows.fetch("SELECT count(*) FROM log WHERE sequence >= ?", (floor,))
    return Report(
        path=str(path),
        log_id=values[meta.LOG_ID].decode(errors="replace"),
        floor=floor,
        newest=max(newest or 0, folded_through, floor - 1),
        folded_through=folded_through,
        batches=retained,
        blocks=blocks,
        rows=live_rows,
        dead_rows=manifest.count_rows(rows) - live_rows,
        findings=tuple(findings.listed),
        more=findings.more,
        notes=(*_evicted(batches - retained), *rule.notes()),
    )


def _check_ends(
    findings: Findings, oldest: int | None, newest: int | None, floor: int, folded_through: int
) -> None:
    """The floor and the fold must lie inside the log, and the log must reach back to the fold."""
    if oldest is None or newest is None:
        if floor > folded_through + 1:
            findings.add("log", f"it is empty, but the table is folded only to {folded_through}")
        return
    if floor < oldest:
        findings.add("log", f"it begins with batch {oldest}, but its floor is {floor}")
    if max(folded_through, floor - 1) > newest:
        findings.add(
            "log",
            f"it ends with batch {newest}, but its floor is {floor} and the table is folded"
            f" through {folded_through}",
        )
    if oldest > folded_through + 1:
        findings.add(
            "log", f"it begins with batch {oldest}, but the table is folded to {folded_through}"
        )


def _unreadable(path: Path, sentence: str) -> Report:
    """The report on a file that cannot be opened."""
    finding = Finding("file", sentence)
    return Report(str(path), "", 0, 0, 0, 0, 0, 0, 0, (finding,), 0)
