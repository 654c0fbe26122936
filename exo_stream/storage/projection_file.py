"""The file of one projection: its own tables and its cursor, which change in one transaction.

Everything here blocks: the writing half belongs on the projection's writer thread, ``read`` on
its reader thread. The file is derived from the event log, so whatever is wrong with it is cured
by building it anew, in a second file that then takes the first one's name.

On disk it is ``NAME.duckdb``, beside it ``.wal`` (what the last transactions changed), ``.lock``,
and for a while ``.new`` or ``.rebuild``, which nobody else needs. A consistent copy is one of the
first file alone, made while this process or the copier holds the lock and after a CHECKPOINT that
has left no ``.wal``: see ``projection_copy``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from exo_stream.errors import (
    CorruptionError,
    CursorAheadError,
    ExoStreamError,
    ForeignFileError,
    InvalidRequestError,
    InvalidStateError,
    LogMismatchError,
    StoreError,
)
from exo_stream.limits import MIB
from exo_stream.storage import directory, failures, inspection, projection_tables, wal
from exo_stream.storage.dead_letter import DeadLetter
from exo_stream.storage.instance import attach, open_cursor
from exo_stream.storage.lock_file import LockFile
from exo_stream.storage.projection_tables import Stored

SUFFIX: Final = ".duckdb"
REBUILT_SUFFIX: Final = ".rebuild"

_MEMORY_BYTES: Final = 256 * MIB
_CHECKPOINT_WAL_BYTES: Final = 16 * MIB

_ALLOWED: Final = {
    duckdb.StatementType.SELECT,
    duckdb.StatementType.INSERT,
    duckdb.StatementType.UPDATE,
    duckdb.StatementType.DELETE,
    duckdb.StatementType.MERGE_INTO,
    duckdb.StatementType.CREATE,
    duckdb.StatementType.CREATE_FUNC,
    duckdb.StatementType.ALTER,
    duckdb.StatementType.DROP,
    duckdb.StatementType.EXPLAIN,
    duckdb.StatementType.VACUUM,
}
"""Anything that ends the transaction, or reaches beyond the file, is none of a handler's."""

Rows = list[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Identity:
    """What a projection's file is: of which projection, built how, from which log."""

    name: str
    log_id: str
    schema_version: int = 1
    tables: tuple[str, ...] = ()
    """SQL that makes its tables, run once in an empty file."""


class ProjectionFile:
    """An open file of a projection; ``cursor`` is the last event applied, None before the first.

    After a COMMIT that failed it takes nothing any more: open it again to know what was kept.
    """

    def __init__(self, path: Path, lock: LockFile | None, identity: Identity) -> None:
        self.path: Final = path
        self.lock: Final = lock
        self._wal_is_named = False
        self.is_closed = False
        self._root = self._attach()
        try:
            self._con = open_cursor(self._root)
            self._reader = open_cursor(self._root)
            replayed = self.wal_bytes > 0
            found = projection_tables.load(self._con, path)
            _check_identity(found, identity)
            self.cursor = found.cursor
            self.letter_count = projection_tables.count_letters(self._con)
            if replayed:
                self.checkpoint()
        except duckdb.Error as error:
            self._root.close()
            raise _unopened(path, error) from error
        except BaseException:
            self._root.close()
            raise

    @property
    def wal_bytes(self) -> int:
        """The size of its write-ahead log."""
        return directory.file_bytes(directory.beside(self.path, ".wal"))

    @property
    def next_event_id(self) -> int:
        """The id of the event that comes after ``cursor``."""
        return 0 if self.cursor is None else self.cursor + 1

    def begin(self) -> None:
        """Begin a transaction; what an earlier one left is undone."""
        self.roll_back()
        try:
            self._con.execute("BEGIN TRANSACTION")
        except duckdb.Error as error:
            raise failures.of_commit(error) from error

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> Rows:
        """The rows of a handler's statement, of the last one if there are several.

        Raises InvalidRequestError for a statement that no handler may use, StoreError for one
        that the database refused, CorruptionError for tables that are damaged; either way the
        transaction is over.
        """
        try:
            kinds = {statement.type for statement in self._con.extract_statements(sql)}
            if not kinds <= _ALLOWED:
                [name, *_] = sorted(kind.name for kind in kinds - _ALLOWED)
                raise InvalidRequestError(f"a handler may not use a statement of kind {name}")
            return self._con.execute(sql, list(parameters)).fetchall()
        except duckdb.Error as error:
            if failures.is_no_space(error) or failures.is_fatal(error):
                raise failures.of_commit(error) from error
            self._check_whole(error)
            raise StoreError(_first_line(error)) from error

    def put_letter(self, letter: DeadLetter) -> None:
        """Put an event aside, in the transaction that is open."""
        self._own(lambda: projection_tables.put_letter(self._con, letter))

    def remove_letter(self, event_id: int) -> None:
        """Forget an event that was put aside, in the transaction that is open."""
        self._own(lambda: projection_tables.remove_letter(self._con, event_id))

    def commit(self, cursor: int | None, *, now: int, problem: str = "") -> None:
        """Make everything since ``begin`` durable, with the cursor; all of it or nothing.

        Raises OutcomeUnknownError or StoreFullError if COMMIT failed.
        """
        count = 0

        def change() -> None:
            nonlocal count
            projection_tables.move_cursor(self._con, self.cursor, cursor, now=now, problem=problem)
            count = projection_tables.count_letters(self._con)

        self._own(change)
        try:
            self._con.execute("COMMIT")
            if not self._wal_is_named:
                directory.sync(self.path)
                self._wal_is_named = True
        except (duckdb.Error, OSError) as error:
            raise failures.of_commit(error) from error
        self.cursor = cursor
        self.letter_count = count
        if self.wal_bytes > _CHECKPOINT_WAL_BYTES:
            self.checkpoint()

    def roll_back(self) -> None:
        """Undo everything since ``begin``; without a transaction it does nothing."""
        with suppress(duckdb.Error):
            self._con.execute("ROLLBACK")

    def interrupt(self) -> None:
        """Stop the statement of the handler that is running now, from any thread."""
        with suppress(duckdb.Error):
            self._con.interrupt()

    def letters(self, first: int, limit: int, bytes_max: int) -> list[DeadLetter]:
        """Events that were put aside, by id, as ``projection_tables.letters`` says; on the
        reader's thread.
        """
        try:
            return projection_tables.letters(self._reader, first, limit, bytes_max)
        except duckdb.Error as error:
            raise failures.of_read(error) from error

    def letters_due(self, now: int, delays: Sequence[int] | None, limit: int) -> list[int]:
        """The ids of those that may be replayed, as ``projection_tables.letters_due`` says; on
        the reader's thread.
        """
        try:
            return projection_tables.letters_due(self._reader, now, delays, limit)
        except duckdb.Error as error:
            raise failures.of_read(error) from error

    def read(self, sql: str, parameters: Sequence[object] = ()) -> Rows:
        """The rows of a query, of what is committed; it can change nothing."""
        try:
            self._reader.execute("BEGIN TRANSACTION READ ONLY")
            try:
                kinds = {statement.type for statement in self._reader.extract_statements(sql)}
                if not kinds <= {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}:
                    raise InvalidRequestError("a query is a SELECT")
                return self._reader.execute(sql, list(parameters)).fetchall()
            finally:
                with suppress(duckdb.Error):
                    self._reader.execute("ROLLBACK")
        except duckdb.InterruptException as error:
            raise failures.of_read(error) from error
        except duckdb.Error as error:
            self._check_whole(error)
            raise InvalidRequestError(_first_line(error)) from error

    def interrupt_read(self) -> None:
        """Stop the query that is running now, from any thread."""
        with suppress(duckdb.Error):
            self._reader.interrupt()

    def checkpoint(self) -> None:
        """Move what the write-ahead log holds into the file; a reader may put it off."""
        try:
            self._root.execute("CHECKPOINT exo")
            directory.sync(self.path)
        except (duckdb.Error, OSError) as error:
            if isinstance(error, duckdb.Error) and failures.is_refused_checkpoint(error):
                return
            raise failures.of_commit(error) from error
        self._wal_is_named = False

    def close(self) -> None:
        """CHECKPOINT if that works, and let go of the file and of its lock."""
        self.roll_back()
        with suppress(ExoStreamError):
            self.checkpoint()
        self.abandon()
        self.release()

    def abandon(self) -> None:
        """Close the connections and leave the file as it is; the lock stays."""
        self.is_closed = True
        for con in (self._reader, self._con, self._root):
            con.close()

    def release(self) -> None:
        """Let go of the lock."""
        if self.lock is not None:
            self.lock.close()

    def drop(self) -> None:
        """Let go of a file that has failed, as it is, and of the lock."""
        self.abandon()
        self.release()

    def _attach(self) -> duckdb.DuckDBPyConnection:
        try:
            return attach(self.path, memory_bytes=_MEMORY_BYTES)
        except duckdb.Error as error:
            raise _unopened(self.path, error) from error

    def _check_whole(self, error: duckdb.Error) -> None:
        """Raise CorruptionError if what was read is not what was written: no handler's fault."""
        if failures.is_corrupt(error):
            raise CorruptionError(f"{self.path} is damaged; rebuild it") from error

    def _own(self, change: projection_tables.Change) -> None:
        try:
            change()
        except duckdb.Error as error:
            if failures.is_no_space(error) or failures.is_fatal(error):
                raise failures.of_commit(error) from error
            raise failures.of_statement(error) from error


def file_of(folder: Path, name: str) -> Path:
    """Where the projection of this name has its tables."""
    return folder / f"{name}{SUFFIX}"


def open_projection_file(
    path: Path, identity: Identity, *, newest: int, now: int, lock: LockFile | None = None
) -> ProjectionFile:
    """Open the file at ``path``, or make it; ``newest`` is the next event id of its log.

    Raises FileInUseError, ForeignFileError (not of this projection), and what a rebuild cures:
    LogMismatchError, CursorAheadError, InvalidStateError (built as another version),
    CorruptionError.
    """
    real = _real(path)
    held = lock or LockFile(real)
    try:
        directory.beside(real, REBUILT_SUFFIX).unlink(missing_ok=True)
        directory.beside(real, REBUILT_SUFFIX + ".wal").unlink(missing_ok=True)
        if inspection.exists(real):
            refuse_hole(real)
        else:
            unborn = directory.beside(real, ".new")
            _make(unborn, identity, now)
            unborn.rename(real)
            directory.sync(real)
        opened = ProjectionFile(real, held, identity)
        _check_behind(opened, newest)
    except BaseException:
        held.close()
        raise
    return opened


@dataclass(frozen=True, slots=True)
class Seen:
    """What a projection's file shows to one who only looks; ``stored`` is None if it could not be
    read, and ``problem`` says why.
    """

    name: str
    stored: Stored | None
    dead_letters: int
    problem: str


def look(path: Path) -> Seen:
    """Read what the file at ``path`` says of its projection, and change nothing."""
    name = path.name.removesuffix(SUFFIX)
    try:
        with _looking(path) as con:
            stored = projection_tables.load(con, path)
            return Seen(name, stored, projection_tables.count_letters(con), stored.problem)
    except ExoStreamError as error:
        return Seen(name, None, 0, str(error))


def letters_of(path: Path, first: int, limit: int) -> list[DeadLetter]:
    """Up to ``limit`` of the events that a projection has put aside, from the id ``first`` on, in
    a file that nobody has open. Raises FileInUseError, ForeignFileError, CorruptionError.
    """
    if not inspection.exists(path):
        raise ForeignFileError(f"{path} is no file")
    with _looking(path) as con:
        projection_tables.load(con, path)
        return projection_tables.letters(con, first, limit, _MEMORY_BYTES)


@contextmanager
def _looking(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    lock = LockFile(path, passing=True)
    try:
        with closing(attach(path, memory_bytes=_MEMORY_BYTES, mode="READ_ONLY")) as con:
            yield con
    except duckdb.Error as error:
        raise _unopened(path, error) from error
    finally:
        lock.close()


def begin_rebuilt(
    path: Path, identity: Identity, old: ProjectionFile | None, *, now: int
) -> ProjectionFile:
    """An empty file beside ``path``, to be filled from the first event on.

    Without ``old`` what is there could not be opened; then the lock is taken here.
    """
    real = _real(path)
    lock = None if old is not None else LockFile(real)
    fresh = directory.beside(real, REBUILT_SUFFIX)
    try:
        _make(fresh, identity, now)
        return ProjectionFile(fresh, lock, identity)
    except BaseException:
        if lock is not None:
            lock.close()
        raise


def drop_rebuilt(rebuilt: ProjectionFile) -> None:
    """Let go of a file that did not get so far."""
    rebuilt.abandon()
    rebuilt.path.unlink(missing_ok=True)
    directory.beside(rebuilt.path, ".wal").unlink(missing_ok=True)
    rebuilt.release()


def install_rebuilt(rebuilt: ProjectionFile, path: Path, old: ProjectionFile | None) -> None:
    """Give the rebuilt file the name of ``path``, at once.

    A process killed at any moment leaves the one or the other under the name, whole, and never
    one with the other's write-ahead log. Raises StoreError while a reader is in the way: both
    are as they were.
    """
    real = Path(os.path.realpath(path))
    for file in (rebuilt, old):
        if file is not None:
            file.roll_back()
            file.checkpoint()
            if file.wal_bytes:
                raise StoreError(f"{file.path} could not be completed")
    rebuilt.abandon()
    if old is not None:
        old.abandon()
    try:
        # Only of a file that could not be opened: that of one that could was just emptied.
        directory.beside(real, ".wal").unlink(missing_ok=True)
        directory.sync(real)
        rebuilt.path.rename(real)
        directory.sync(real)
    except OSError as error:
        (rebuilt if old is None else old).release()
        raise failures.of_commit(error) from error


def _real(path: Path) -> Path:
    """The path without links, in a folder that is there."""
    real = Path(os.path.realpath(path))
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise failures.of_creation(real, error) from error
    return real


def _make(path: Path, identity: Identity, now: int) -> None:
    """A file with all its tables and nothing in them, durable but for its name."""
    for leftover in (path, directory.beside(path, ".wal")):
        leftover.unlink(missing_ok=True)
    try:
        con = attach(path, memory_bytes=_MEMORY_BYTES)
    except (duckdb.Error, OSError) as error:
        raise failures.of_creation(path, error) from error
    try:
        con.execute("BEGIN TRANSACTION")
        projection_tables.create(
            con, identity.name, identity.log_id, identity.schema_version, now=now
        )
        for statement in identity.tables:
            con.execute(statement)
        con.execute("COMMIT")
        con.execute("CHECKPOINT exo")
    except duckdb.Error as error:
        if failures.is_no_space(error):
            raise failures.of_creation(path, error) from error
        raise InvalidRequestError(
            f"the tables of {identity.name} cannot be made: {_first_line(error)}"
        ) from error
    finally:
        con.close()


def _check_behind(opened: ProjectionFile, newest: int) -> None:
    if opened.cursor is not None and opened.cursor >= newest:
        opened.abandon()
        raise CursorAheadError(newest)


def refuse_hole(path: Path) -> None:
    """Raise CorruptionError if the write-ahead log of a stopped file lacks something inside."""
    wal_path = directory.beside(path, ".wal")
    if wal_path.exists():
        scan = wal.scan_structure(wal_path.read_bytes())
        if scan.header_lost or scan.flush_follows or scan.flush_at_end:
            raise CorruptionError(f"the write-ahead log of {path} is damaged; rebuild it")


def _check_identity(found: Stored, identity: Identity) -> None:
    if found.name != identity.name:
        raise ForeignFileError(f"this is the file of a projection {found.name!r}")
    if found.log_id != identity.log_id:
        raise LogMismatchError(identity.log_id)
    if found.schema_version != identity.schema_version:
        raise InvalidStateError(
            f"it was built as version {found.schema_version}, and is to be"
            f" {identity.schema_version}; rebuild it"
        )


def _unopened(path: Path, error: duckdb.Error) -> ExoStreamError:
    refusal = inspection.refusal(path, error)
    if isinstance(refusal, CorruptionError):
        return CorruptionError(f"{path} is damaged; rebuild it")
    return refusal


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().partition("\n")[0]
