"""The one database file, opened: the only connection that writes, and cursors that read.

Everything here blocks and belongs on the writer thread, but for the cursors, which belong to
one thread each, and the sizes, which are a ``stat``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import duckdb

from exo_stream.errors import (
    CorruptionError,
    ExoStreamError,
    OutcomeUnknownError,
    OverloadedError,
    StoreError,
    StoreFullError,
)
from exo_stream.logger import log
from exo_stream.storage import creation, directory, failures, inspection, meta
from exo_stream.storage.instance import attach, open_cursor
from exo_stream.storage.lock_file import LockFile

_INTERRUPT_SECONDS: Final = 0.01
"""How long a reader is given to notice that the file is about to be opened anew."""

_CHECKPOINT_TRIES: Final = 100
_CHECKPOINT_PAUSE_SECONDS: Final = 0.001
"""A reader's clearing up takes a millisecond or a few; commits wait for so long at most."""


def open_database(
    path: str | os.PathLike[str], *, memory_bytes: int, unsafe_nosync: bool = False
) -> Database:
    """Open the file at ``path``, or create it; what its WAL held is durable on return.

    Raises FileInUseError, ForeignFileError, CorruptionError, StoreFullError, StoreError.
    """
    real = Path(os.path.realpath(path))
    if real.is_dir():
        inspection.exists(real)
    lock = LockFile(real)
    try:
        if inspection.exists(real):
            tail = inspection.inspect(real, memory_bytes=memory_bytes)
            if tail:
                log.warning("log tail cut", path=str(real), bytes=tail)
        else:
            creation.create(real, memory_bytes=memory_bytes)
        return Database(real, lock, memory_bytes=memory_bytes, unsafe_nosync=unsafe_nosync)
    except BaseException:
        lock.close()
        raise


class Database:
    """An open file. After a failed COMMIT or CHECKPOINT it takes no transaction any more.
    Whoever finds that it contradicts itself has it ``noting_damage``: from then on it is left
    as it is.

    ``was_clean`` tells whether the last one to hold it closed it in order; ``free_bytes`` is
    what the file can still take in without growing, as of the last CHECKPOINT.
    """

    def __init__(
        self, path: Path, lock: LockFile, *, memory_bytes: int, unsafe_nosync: bool = False
    ) -> None:
        self.path: Final = path
        self.free_bytes = 0
        self._lock = lock
        self._memory_bytes = memory_bytes
        self._unsafe_nosync = unsafe_nosync
        self._cursors: list[ReadCursor] = []
        self._never: SimpleQueue[None] = SimpleQueue()  # to wait on, without a clock
        self._root: duckdb.DuckDBPyConnection | None = None
        self._con: duckdb.DuckDBPyConnection | None = None
        self._log_appender: duckdb.Appender | None = None
        self._failure: StoreFullError | OutcomeUnknownError | None = None
        self._is_damaged = False
        self.is_suspect = False
        """A reader found that DuckDB has given up the file; ``probe`` tells."""
        self._wal_is_named = False
        found = self._open()
        self.log_id: Final = found[meta.LOG_ID].decode()
        self.was_clean: Final = bool(int.from_bytes(found[meta.CLEAN], "big"))
        try:
            with self.transaction() as con:
                meta.write_number(con, meta.CLEAN, 0)
        except BaseException:
            self.abandon()
            raise

    @property
    def con(self) -> duckdb.DuckDBPyConnection:
        """The writer's connection, for queries outside a transaction."""
        if self._failure is not None:
            raise self._failure.again()
        assert self._con is not None, "the database is closed"
        return self._con

    @property
    def log_appender(self) -> duckdb.Appender:
        """The way into the log, inside a transaction; flushed or cleared before that ends.

        Kept, because making one is 0.3 of the 1.3 ms of processor time that a small commit takes.
        """
        if self._log_appender is None:
            self._log_appender = self.con.appender("log")
        return self._log_appender

    @contextmanager
    def reading(self) -> Iterator[Rows]:
        """Queries of the writer, outside a transaction. Raises CorruptionError or StoreError."""
        with self.noting_damage():
            try:
                yield Rows(self.con)
            except duckdb.Error as error:
                raise failures.of_read(error) from error

    @contextmanager
    def noting_damage(self) -> Iterator[None]:
        """Remember a CorruptionError that leaves the block: the file is evidence now."""
        try:
            yield
        except CorruptionError:
            self._is_damaged = True
            raise

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A transaction that is durable when the block is left.

        Raises StoreError if a statement failed: nothing was kept, go on. Raises StoreFullError
        if COMMIT met "no space": ``reopen`` tells what was kept. Raises OutcomeUnknownError if
        it failed otherwise, CorruptionError if the file contradicts itself: stop.
        """
        con = self.con
        with self.noting_damage():
            try:
                con.execute("BEGIN TRANSACTION")
                yield con
            except duckdb.Error as error:
                self._roll_back(con)
                if failures.is_fatal(error):
                    raise self._give_up(failures.of_commit(error)) from error
                raise failures.of_statement(error) from error
            except BaseException:
                self._roll_back(con)
                raise
        try:
            con.execute("COMMIT")
            if not self._wal_is_named:
                directory.sync(self.path)
                self._wal_is_named = True
        except (duckdb.Error, OSError) as error:
            raise self._give_up(failures.of_commit(error)) from error

    def checkpoint(self) -> None:
        """Move what the WAL holds into the file.

        Raises StoreError if readers left no moment for it: go on. Else like a COMMIT that fails.
        """
        con = self.con
        try:
            self._checkpoint_between_readers(con)
            directory.sync(self.path)
        except (duckdb.Error, OSError) as error:
            raise self._give_up(failures.of_commit(error)) from error
        self._wal_is_named = False
        ((self.free_bytes,),) = con.execute(
            "SELECT free_blocks * block_size FROM pragma_database_size()"
            " WHERE database_name = 'exo'"
        ).fetchall()

    def probe(self) -> None:
        """Find out whether DuckDB has given up the file, as a reader said.

        Raises OutcomeUnknownError if it has: stop.
        """
        self.is_suspect = False
        try:
            self.con.execute("SELECT 1 FROM meta LIMIT 1").fetchall()
        except duckdb.Error as error:
            raise self._give_up(failures.of_probe(error)) from error

    def reopen(self) -> None:
        """Open the file again after "no space"; what turns out durable has been checkpointed.

        Raises StoreFullError while there is still no space; call it again later.
        """
        assert not isinstance(self._failure, OutcomeUnknownError), self._failure
        if self._con is not None and self.disk_free_bytes < self.wal_bytes:
            # What still can be read stays readable while there is no hope of a CHECKPOINT.
            raise StoreFullError("there is still no space to open the file again")
        for cursor in self._cursors:
            cursor.retire()
        try:
            self._close_connections()
            self._failure = StoreFullError("the file is closed until there is space again")
            self._open()
        finally:
            for cursor in self._cursors:
                cursor.reinstate()
        log.info("file reopened", path=str(self.path))

    def open_cursor(self) -> ReadCursor:
        """A cursor for one reader thread; it survives ``reopen``."""
        cursor = ReadCursor(self)
        self._cursors.append(cursor)
        return cursor

    def connect(self) -> duckdb.DuckDBPyConnection:
        """A connection for a cursor, on the cursor's thread."""
        root = self._root  # nobody runs queries on it, so any thread may ask it for a cursor
        if root is None:
            raise OverloadedError("the file is being opened again")
        return open_cursor(root)

    @property
    def file_bytes(self) -> int:
        """The size of the file without its WAL."""
        return directory.file_bytes(self.path)

    @property
    def wal_bytes(self) -> int:
        """The size of the write-ahead log."""
        return directory.file_bytes(directory.beside(self.path, ".wal"))

    @property
    def disk_free_bytes(self) -> int:
        """What the disk can still take."""
        return directory.disk_free_bytes(self.path)

    def space_low(self, free_bytes_min: int) -> bool:
        """Whether free space is below the mark, or too little for a CHECKPOINT of this WAL."""
        return self.disk_free_bytes < max(free_bytes_min, 2 * self.wal_bytes)

    def close(self) -> None:
        """CHECKPOINT, mark the shutdown as clean, let go of the file; never raises for trouble.

        After a failed COMMIT the file is left exactly as the failure left it, and so is one that
        was found to contradict itself.
        """
        if self._failure is None and self._con is not None and not self._is_damaged:
            try:
                with self.transaction() as con:
                    meta.write_number(con, meta.CLEAN, 1)
                self.checkpoint()
            except ExoStreamError as error:
                log.warning("shutdown not clean", path=str(self.path), error=str(error))
        for cursor in self._cursors:
            cursor.retire()
        self.abandon()

    def abandon(self) -> None:
        """Let go of the file as it is, as a killed process would."""
        self._close_connections()
        self._lock.close()

    def _checkpoint_between_readers(self, con: duckdb.DuckDBPyConnection) -> None:
        """A reader that ends clears up what was deleted beneath it; meanwhile DuckDB refuses a
        CHECKPOINT before it has begun. That is no failure of the file: try again, then later.
        """
        for _ in range(_CHECKPOINT_TRIES):
            try:
                con.execute("CHECKPOINT exo")
            except duckdb.TransactionException as error:
                if not failures.is_refused_checkpoint(error):
                    raise
                with suppress(Empty):
                    self._never.get(timeout=_CHECKPOINT_PAUSE_SECONDS)
            else:
                return
        raise StoreError("readers left no moment for a CHECKPOINT")

    def _open(self) -> dict[str, bytes]:
        """Attach, replay, and make what was replayed durable; the contents of ``meta``."""
        replayed = self.wal_bytes > 0
        try:
            self._root = attach(
                self.path, memory_bytes=self._memory_bytes, unsafe_nosync=self._unsafe_nosync
            )
            self._con = open_cursor(self._root)
            self._failure = None
            self.is_suspect = False
            self._wal_is_named = replayed
            found = meta.load(self._con)
            if replayed:
                self.checkpoint()
        except duckdb.Error as error:
            self._close_connections()
            raise self._unopened(error) from error
        except ExoStreamError as error:
            self._close_connections()
            self._failure = failures.as_closed(error)
            raise
        return found

    def _unopened(self, error: duckdb.Error) -> ExoStreamError:
        if failures.is_no_space(error):
            self._failure = StoreFullError("there is no space to open the file")
            return self._failure.again()
        self._failure = OutcomeUnknownError("the file could not be opened again")
        return inspection.refusal(self.path, error)

    def _roll_back(self, con: duckdb.DuckDBPyConnection) -> None:
        # Some failures have ended the transaction already; then there is nothing to roll back.
        with suppress(duckdb.Error):
            con.execute("ROLLBACK")

    def _give_up(
        self, failure: StoreFullError | OutcomeUnknownError
    ) -> StoreFullError | OutcomeUnknownError:
        self._failure = failure
        log.error("file failed", path=str(self.path), error=failure.code, cause=str(failure))
        return failure.again()

    def _close_connections(self) -> None:
        self._log_appender = None
        for con in (self._con, self._root):
            if con is not None:
                con.close()
        self._con = self._root = None


class Rows:
    """Queries of one read-only transaction: all see the same state of the file."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, interrupted: Callable[[], bool] = lambda: False
    ) -> None:
        self._con = con
        self._interrupted = interrupted

    def fetch(
        self, sql: str, parameters: Sequence[object] | dict[str, object] = ()
    ) -> list[tuple[Any, ...]]:
        """All rows of one query. An open result would own the connection, so there is none.

        Only the query knows of what type its columns are, hence Any.
        """
        if self._interrupted():  # between two queries, where DuckDB has nothing to stop
            raise duckdb.InterruptException("stopped between two queries")
        return self._con.execute(sql, parameters).fetchall()


class ReadCursor:
    """One thread's way to read the file, beside the writer and across ``reopen``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._con: duckdb.DuckDBPyConnection | None = None
        self._interrupted = False
        # Whoever holds the token may use the connection: the thread of this cursor, or the
        # writer while it opens the file anew.
        self._token: SimpleQueue[None] = SimpleQueue()
        self._token.put(None)

    @contextmanager
    def transaction(self) -> Iterator[Rows]:
        """A read-only transaction.

        Raises OverloadedError if it was interrupted, CorruptionError if the file contradicts
        itself, StoreError for anything else.
        """
        self._token.get()
        self._interrupted = False
        try:
            with self._database.noting_damage():
                yield from self._read_only()
        finally:
            self._token.put(None)

    def _read_only(self) -> Iterator[Rows]:
        try:
            if self._con is None:
                self._con = self._database.connect()
            self._con.execute("BEGIN TRANSACTION READ ONLY")
            try:
                yield Rows(self._con, lambda: self._interrupted)
            finally:
                with suppress(duckdb.Error):
                    self._con.execute("ROLLBACK")
        except duckdb.Error as error:
            if failures.is_fatal(error):
                self._database.is_suspect = True
            raise failures.of_read(error) from error

    def interrupt(self) -> None:
        """Stop the transaction that is running now, from any thread."""
        self._interrupted = True
        con = self._con
        if con is not None:
            with suppress(duckdb.Error):  # it was closed a moment ago
                con.interrupt()

    def retire(self) -> None:
        """Interrupt the reader, close its connection, and keep it out until ``reinstate``."""
        while True:
            self.interrupt()
            try:
                self._token.get(timeout=_INTERRUPT_SECONDS)
                break
            except Empty:
                continue
        if self._con is not None:
            self._con.close()
            self._con = None

    def reinstate(self) -> None:
        """Let the reader in again."""
        self._token.put(None)
