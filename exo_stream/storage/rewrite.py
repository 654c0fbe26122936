"""The rewriting of a stopped file into a small one: its log and its live rows, and nothing else.

The copy has the same log id, so every cursor stays valid; it can take the original's place.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Final

import duckdb

from exo_stream.errors import CorruptionError, ForeignFileError, InvalidRequestError
from exo_stream.limits import MIB
from exo_stream.logger import log
from exo_stream.model import Row, row_key
from exo_stream.storage import creation, directory, failures, inspection, manifest, meta
from exo_stream.storage.block_check import check_sums
from exo_stream.storage.block_writer import BlockWriter
from exo_stream.storage.blocks import Block
from exo_stream.storage.database import Rows
from exo_stream.storage.findings import Findings, Report
from exo_stream.storage.instance import OFFLINE_MEMORY_BYTES, attach
from exo_stream.storage.lock_file import SUFFIX, LockFile
from exo_stream.storage.log_check import raw_pages
from exo_stream.storage.merge_plan import Slice, components, slices
from exo_stream.storage.packing import pack
from exo_stream.storage.run import runs_of
from exo_stream.storage.tiers import compute_tier
from exo_stream.storage.verify import verify

_WAL_BYTES_MAX: Final = 64 * MIB
"""How far the copy's own WAL grows before it is moved into the copy."""

_SLICE_ROWS_MAX: Final = 16_384
_SLICE_BYTES_MAX: Final = 8 * MIB


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction gained, and the verification of its result."""

    path: str
    out: str
    bytes_before: int
    bytes_after: int
    report: Report


def compact(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    memory_bytes: int = OFFLINE_MEMORY_BYTES,
) -> Compaction:
    """Write a small copy of the stopped file ``path`` to ``out``, which must not exist.

    ``out`` appears under its name only when it is whole, verified and durable; ``path`` is not
    written. Raises FileInUseError, ForeignFileError, InvalidRequestError, CorruptionError,
    StoreFullError, StoreError.
    """
    source, target = Path(os.path.realpath(path)), Path(os.path.realpath(out))
    if not source.is_file():
        raise ForeignFileError(f"{source} is no file")
    _refuse_existing(target)
    with (
        closing(LockFile(source, passing=True)),
        closing(LockFile(target, passing=True)),
    ):
        _refuse_existing(target)
        inspection.inspect(source, memory_bytes=memory_bytes)
        unborn = directory.beside(target, ".new")
        try:
            report = _write(source, unborn, memory_bytes)
            unborn.rename(target)
            directory.sync(target)
        except (duckdb.Error, OSError) as error:
            raise failures.of_creation(target, error) from error
        finally:
            for suffix in ("", ".wal", SUFFIX):
                with suppress(FileNotFoundError):
                    directory.beside(unborn, suffix).unlink()
        before, after = directory.file_bytes(source), directory.file_bytes(target)
    log.info("file compacted", path=str(source), out=str(target), before=before, after=after)
    return Compaction(str(source), str(target), before, after, replace(report, path=str(target)))


def _refuse_existing(target: Path) -> None:
    if target.exists() or directory.beside(target, ".wal").exists():
        raise InvalidRequestError(f"{target} exists already, and was left untouched")


def _write(source: Path, unborn: Path, memory_bytes: int) -> Report:
    """Fill a file under a name that nobody else knows, and verify it."""
    for suffix in ("", ".wal"):
        directory.beside(unborn, suffix).unlink(missing_ok=True)
    with closing(attach(source, memory_bytes=memory_bytes, mode="READ_ONLY")) as old:
        values = meta.load(old)
        log_id = values[meta.LOG_ID].decode()
        creation.write_empty(unborn, log_id=log_id, memory_bytes=memory_bytes)
        with closing(attach(unborn, memory_bytes=memory_bytes)) as new:
            copy = _Copy(Rows(old), new, unborn)
            copy.copy_meta(values)
            copy.copy_log()
            copy.copy_blocks()
            new.execute("CHECKPOINT exo")
    report = verify(unborn, memory_bytes=memory_bytes)
    if not report.sound:
        raise CorruptionError(f"the copy is not sound: {report.findings[0].sentence}")
    return report


class _Copy:
    """One file on its way into another."""

    def __init__(self, old: Rows, new: duckdb.DuckDBPyConnection, path: Path) -> None:
        self._old = old
        self._new = new
        self._wal_path = directory.beside(path, ".wal")
        self._floor = 0
        self._folded_through = 0

    def copy_meta(self, values: dict[str, bytes]) -> None:
        """All of it, and the mark of a file that was closed in order."""
        self._floor = int.from_bytes(values[meta.FLOOR], "big")
        self._folded_through = int.from_bytes(values[meta.FOLDED_THROUGH], "big")
        self._new.execute("BEGIN TRANSACTION")
        for name, value in values.items():
            meta.write(self._new, name, value)
        # What is deleted here may have been the newest: its time is still a lower bound.
        ((deleted_at,),) = self._old.fetch(
            "SELECT max(committed_at) FROM log WHERE sequence < ?", (self._oldest,)
        )
        if deleted_at is not None:
            meta.write_number(self._new, meta.COMMITTED_AT, deleted_at)
        meta.write_number(self._new, meta.CLEAN, 1)
        self._commit()

    @property
    def _oldest(self) -> int:
        """The oldest batch to keep: what is not yet folded stays, though it may be evicted."""
        return min(self._floor, self._folded_through + 1)

    def copy_log(self) -> None:
        """Every retained batch, its checksum verified on the way."""
        for page in raw_pages(self._old, self._oldest):
            for sequence, _, _, _, checksum, payload in page:
                if zlib.crc32(payload) != checksum:
                    raise CorruptionError(f"batch {sequence} does not match its checksum")
            self._new.execute("BEGIN TRANSACTION")
            with self._new.appender("log") as appender:
                appender.append_rows(page)
            self._commit()

    def copy_blocks(self) -> None:
        """The live rows of all blocks, merged into one run; a tombstone has nothing to hide."""
        blocks = manifest.load(self._old)
        if not blocks:
            return
        findings = Findings()
        for block in blocks:
            check_sums(self._old, block, findings)
        if findings.listed:
            raise CorruptionError(findings.listed[0].sentence)
        writer = self._writer(max(block.created_at for block in blocks))
        groups = components(runs_of(blocks))
        left = sum(block.entries for block in blocks)
        for group in groups:
            for part in slices(group, rows_max=_SLICE_ROWS_MAX, bytes_max=_SLICE_BYTES_MAX):
                found = self._newest_rows(group, part)
                if found:
                    self._append(writer, found, left)
                left = max(left - part.rows, 0)
        writer.close_block()
        self._new.execute("BEGIN TRANSACTION")
        manifest.insert(self._new, writer.blocks)
        self._commit()

    def _writer(self, created_at: int) -> BlockWriter:
        """At the tier that the newest rows had when the newest batch came: no clock is asked."""
        ((committed_at,),) = self._old.fetch("SELECT max(committed_at) FROM log")
        ids = count(1)
        return BlockWriter(
            ids,
            run=next(ids),
            tier=compute_tier(created_at, max(committed_at or 0, created_at)),
            folded_through=self._folded_through,
            created_at=created_at,
        )

    def _newest_rows(self, blocks: Sequence[Block], part: Slice) -> list[Row]:
        """The newest row of each key of a slice, those that are deleted left out."""
        newest: dict[bytes, Row] = {}
        for row in self._rows(blocks, part):
            known = newest.get(row.key)
            if known is None or known.sequence < row.sequence:
                newest[row.key] = row
        return [newest[key] for key in sorted(newest) if newest[key].value is not None]

    def _rows(self, blocks: Sequence[Block], part: Slice) -> Iterator[Row]:
        for block in blocks:
            places = block.sub_blocks_between(part.start, part.end)
            if places:
                ids = block.fences.ids
                found: list[tuple[Any, ...]] = self._old.fetch(
                    "SELECT keyspace, key, sequence, value FROM kv WHERE sub_block BETWEEN ? AND ?",
                    (ids[places[0]], ids[places[-1]]),
                )
                for keyspace, key, sequence, value in found:
                    row = Row(row_key(keyspace, key), sequence, value)
                    if part.start <= row.key < part.end:
                        yield row

    def _append(self, writer: BlockWriter, rows: list[Row], rows_left: int) -> None:
        self._new.execute("BEGIN TRANSACTION")
        first = writer.next_sub_block(rows[0].key[0], rows_left)
        with self._new.appender("kv") as appender:
            appender.append_rows(pack(rows, first))
        written = writer.take(self._new)
        assert written == len(rows), (written, len(rows))
        self._commit()

    def _commit(self) -> None:
        self._new.execute("COMMIT")
        if directory.file_bytes(self._wal_path) > _WAL_BYTES_MAX:
            self._new.execute("CHECKPOINT exo")
