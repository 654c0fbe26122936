"""The check that the table is the fold of the log, over all keys whose last write is retained.

Both sides are reduced to three numbers a row in tables of the instance's memory, which DuckDB
moves to disk when they outgrow it, so ten million keys need no more memory than ten thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import duckdb
from xxhash import xxh3_64_intdigest

from exo_stream.model import Entry, Row, row_key
from exo_stream.storage.findings import FINDINGS_MAX, Findings

_BUFFER_ROWS: Final = 16_384

_COMPARE: Final = """
    WITH
        last_logged AS (
            SELECT key, max(sequence) AS sequence, arg_max({'hash': value}, sequence).hash AS value
            FROM logged GROUP BY key),
        visible AS (
            SELECT key, max(sequence) AS newest, arg_max(sequence, run) AS sequence,
                arg_max({'hash': value}, run).hash AS value
            FROM stored GROUP BY key)
    SELECT CASE
        WHEN visible.newest <> visible.sequence
            THEN 'a newer run hides the write ' || visible.newest || ' of a key behind '
                || visible.sequence
        WHEN last_logged.key IS NULL
            THEN 'a row is of batch ' || visible.sequence || ', which did not write its key'
        WHEN visible.key IS NULL
            THEN 'a key that batch ' || last_logged.sequence || ' wrote is not in the table'
        WHEN visible.sequence <> last_logged.sequence
            THEN 'a row is of batch ' || visible.sequence || ', but batch '
                || last_logged.sequence || ' was the last to write its key'
        ELSE 'the row of a key is not what batch ' || last_logged.sequence || ' wrote'
        END
    FROM last_logged FULL JOIN visible USING (key)
    WHERE visible.newest IS DISTINCT FROM visible.sequence
        OR (last_logged.key IS NULL AND visible.sequence >= $oldest)
        OR (visible.key IS NULL AND last_logged.value IS NOT NULL)
        OR (last_logged.key IS NOT NULL AND visible.key IS NOT NULL
            AND (visible.sequence <> last_logged.sequence
                OR visible.value IS DISTINCT FROM last_logged.value))
    ORDER BY 1"""


class FoldCheck:
    """Collects both sides, then compares them."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con.cursor()
        self._con.execute("USE memory")
        self._con.execute("CREATE TABLE logged (key UBIGINT, sequence UBIGINT, value UBIGINT)")
        self._con.execute(
            "CREATE TABLE stored (run UBIGINT, key UBIGINT, sequence UBIGINT, value UBIGINT)"
        )
        self._logged: list[tuple[int, int, int | None]] = []
        self._stored: list[tuple[int, int, int, int | None]] = []
        self.rows = 0

    def close(self) -> None:
        """Let go of what was collected."""
        self._con.close()

    def take_batch(self, sequence: int, entries: Sequence[Entry]) -> None:
        """Take a batch of the log: of each key its last value."""
        last = {row_key(keyspace, key): value for keyspace, key, value in entries}
        for key, value in last.items():
            self._logged.append((xxh3_64_intdigest(key), sequence, _hash(value)))
        if len(self._logged) >= _BUFFER_ROWS:
            self._flush()

    def take_rows(self, run_folded_through: int, rows: Sequence[Row]) -> None:
        """Take rows of a run."""
        self.rows += len(rows)
        for key, sequence, value in rows:
            digest = xxh3_64_intdigest(key)
            self._stored.append((run_folded_through, digest, sequence, _hash(value)))
        if len(self._stored) >= _BUFFER_ROWS:
            self._flush()

    def compare(self, findings: Findings, oldest: int) -> None:
        """Note where the two sides differ; ``oldest`` is the first batch that was taken."""
        self._flush()
        found = self._con.execute(_COMPARE, {"oldest": oldest})
        while sentences := found.fetchmany(FINDINGS_MAX):
            for (sentence,) in sentences:
                findings.add("table", sentence)

    def _flush(self) -> None:
        if self._logged:
            with self._con.appender("logged") as appender:
                appender.append_rows(self._logged)
            self._logged = []
        if self._stored:
            with self._con.appender("stored") as appender:
                appender.append_rows(self._stored)
            self._stored = []


def _hash(value: bytes | None) -> int | None:
    return None if value is None else xxh3_64_intdigest(value)
