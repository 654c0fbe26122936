"""The tables of the file: created once, without an index, and never altered."""

from __future__ import annotations

from typing import Final

FORMAT: Final = 1
"""Raised when a file of today could not be read by the code of yesterday."""

ROW_GROUP_ROWS: Final = 32_768
"""Small enough that a zone map finds a sub-block in 0.8 ms and a CHECKPOINT stays near 100 ms;
it belongs to an ATTACH, not to the file, so every ATTACH must say it."""

TABLES: Final = (
    # One row per batch. `bytes` is the payload's length: a page or a retention rule that had
    # to ask the payloads themselves would read all of them.
    """CREATE TABLE log (
        sequence UBIGINT NOT NULL, committed_at BIGINT NOT NULL, entries UINTEGER NOT NULL,
        bytes UINTEGER NOT NULL, checksum UINTEGER NOT NULL, payload BLOB NOT NULL)""",
    # Sorted inside a sub-block; the value NULL is a tombstone.
    """CREATE TABLE kv (
        sub_block UBIGINT NOT NULL, keyspace UTINYINT NOT NULL, key BLOB NOT NULL,
        sequence UBIGINT NOT NULL, value BLOB)""",
    """CREATE TABLE manifest (
        block UBIGINT NOT NULL, run UBIGINT NOT NULL, tier UTINYINT NOT NULL,
        first_sub_block UBIGINT NOT NULL, last_sub_block UBIGINT NOT NULL,
        entries UBIGINT NOT NULL, bytes UBIGINT NOT NULL, checksum UBIGINT NOT NULL,
        folded_through UBIGINT NOT NULL, created_at BIGINT NOT NULL)""",
    "CREATE TABLE filters (block UBIGINT NOT NULL, fences BLOB NOT NULL, bloom BLOB NOT NULL)",
    "CREATE TABLE meta (name VARCHAR NOT NULL, value BLOB NOT NULL)",
)

VIEWS: Final = (
    """CREATE VIEW exo_log AS
        SELECT sequence, make_timestamp(committed_at) AS committed_at, entries, bytes, payload
        FROM log
        WHERE sequence >= (SELECT ('0x' || hex(value))::UBIGINT FROM meta WHERE name = 'floor')
        ORDER BY sequence""",
    # The newest row of a key wins. What is not yet folded is only in the log.
    """CREATE VIEW exo_kv AS
        SELECT keyspace, key, arg_max({'value': value}, kv.sequence).value AS value,
            max(kv.sequence) AS version,
            (SELECT ('0x' || hex(value))::UBIGINT FROM meta WHERE name = 'folded_through')
                AS folded_through
        FROM kv JOIN manifest ON sub_block BETWEEN first_sub_block AND last_sub_block
        GROUP BY keyspace, key
        HAVING arg_max({'value': value}, kv.sequence).value IS NOT NULL
        ORDER BY keyspace, key""",
)


def number(value: int) -> bytes:
    """A number as ``meta`` keeps it: eight bytes, the highest first."""
    return value.to_bytes(8, "big")
