"""The check of what the faces keep in the table: they say what must hold, this reads the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import duckdb

from exo_stream.model import Entry
from exo_stream.storage.blocks import SUB_BLOCK_BITS
from exo_stream.storage.findings import Findings

_ROWS_MAX: Final = 4_096
_BUFFER_ROWS: Final = 4_096


class FaceCheck(Protocol):
    """What one face knows of its rows."""

    @property
    def heads(self) -> Mapping[int, int]:
        """The keyspaces it wants to see, and how many bytes of their values."""

    def take(self, keyspace: int, key: bytes, head: bytes, size: int) -> None:
        """A live row: the beginning of its value, and how long the value is. They come in the
        table's order.
        """

    def problems(self) -> Sequence[str]:
        """Every contradiction, in a sentence."""


MakeFaceCheck = Callable[[], FaceCheck]


class FaceRows:
    """Collects the rows that checks want, of the blocks and of the log, and shows them the live
    ones, in a table of the instance's memory, which DuckDB moves to disk when it outgrows it.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, checks: Sequence[FaceCheck]) -> None:
        self._con = con
        self._own = con.cursor()
        self._checks = checks
        self._heads: dict[int, int] = {}
        for check in checks:
            for keyspace, size in check.heads.items():
                self._heads[keyspace] = max(size, self._heads.get(keyspace, 0))
        self._buffer: list[tuple[int, bytes, int, bytes | None, int]] = []
        self._own.execute("USE memory")
        self._own.execute(
            "CREATE TABLE faces (keyspace UTINYINT, key BLOB, sequence UBIGINT,"
            " head BLOB, size UBIGINT)"
        )

    def close(self) -> None:
        """Let go of what was collected."""
        self._own.close()

    def take_batch(self, sequence: int, entries: Sequence[Entry]) -> None:
        """A batch of the log that is not folded yet."""
        last = {
            (keyspace, key): value for keyspace, key, value in entries if keyspace in self._heads
        }
        for (keyspace, key), value in last.items():
            head = None if value is None else value[: self._heads[keyspace]]
            self._buffer.append((keyspace, key, sequence, head, len(value or b"")))
        if len(self._buffer) >= _BUFFER_ROWS:
            self._flush()

    def check(self, findings: Findings) -> None:
        """Show the live rows to the checks, and note what contradicts itself."""
        self._flush()
        for keyspace, size in self._heads.items():
            self._con.execute(
                "INSERT INTO memory.main.faces SELECT kv.keyspace, kv.key, kv.sequence,"  # noqa: S608  constants
                " array_slice(kv.value, 1, ?), coalesce(octet_length(kv.value), 0) FROM kv JOIN"
                f" manifest ON kv.sub_block >> {SUB_BLOCK_BITS} = manifest.block"
                " WHERE kv.keyspace = ?",
                (size, keyspace),
            )
        live = self._own.execute(
            "SELECT keyspace, key, found.head, found.size FROM (SELECT keyspace, key,"
            " arg_max({'head': head, 'size': size}, sequence) AS found FROM faces"
            " GROUP BY keyspace, key) WHERE found.head IS NOT NULL ORDER BY keyspace, key"
        )
        while rows := live.fetchmany(_ROWS_MAX):
            for keyspace, key, head, size in rows:
                self._show(keyspace, key, head, size)
        for check in self._checks:
            for sentence in check.problems():
                findings.add("table", sentence)

    def _show(self, keyspace: int, key: bytes, head: bytes, size: int) -> None:
        for check in self._checks:
            if keyspace in check.heads:
                check.take(keyspace, key, head, size)

    def _flush(self) -> None:
        if self._buffer:
            with self._own.appender("faces") as appender:
                appender.append_rows(self._buffer)
            self._buffer = []
