"""The catalogue: every row, in the order of the table."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from benchmarks.row import Measure, Row

ROWS: Final = (
    Row("ingest", "durable ingest, 8 producers of 1,000-entry batches", "ingest"),
    Row("puts", "durable puts, 64 tasks of one entry", "puts"),
    Row(
        "canonical",
        "canonical transactions, beside Azoth's published figures",
        "canonical",
        is_long=True,
    ),
    Row(
        "events-middle",
        "canonical events from the middle of many",
        "events_middle",
        is_long=True,
    ),
    Row("backup", "backups while 64 tasks write", "backup", is_long=True),
    Row("client-puts", "durable puts through one WebSocket client, 64 tasks", "client_puts"),
    Row("burst", "fan-out of a burst to 1,000 WebSocket subscribers", "burst"),
    Row("pace", "fan-out of 50 batches a second to 1,000 subscribers", "pace"),
    Row("stopped", "the same beside clients that have stopped", "stopped"),
    Row("replay", "replay over one WebSocket", "replay"),
    Row(
        "connect",
        "the store's own API: Put, Get and replay by Connect, binary",
        "connect",
        is_long=True,
    ),
    Row("reduce", "reducing stored rows by groups", "reduce", is_long=True),
    Row("prefixes", "ingest beside 1,000 subscribers with 1,000 prefixes", "prefixes"),
    Row("sustained", "sustained ingest with folding and merging", "sustained"),
    Row("table", "growth: puts, cold reads, memory, file size, opening", "table"),
    Row("crash", "opening after SIGKILL", "crash"),
    Row("stream-appends", "durable appends to streams over HTTP", "stream_appends", is_long=True),
    Row(
        "stream-reads", "catch-up and tail reads of streams over HTTP", "stream_reads", is_long=True
    ),
    Row(
        "stream-idle",
        "opening a file of many streams, and what they hold",
        "stream_idle",
        is_long=True,
    ),
    Row("stream-fanout", "events of a stream to 1,000 readers", "stream_fanout"),
    Row("import", "importing the package", "importing"),
)


def row_named(name: str) -> Row:
    """The row with this name; KeyError if there is none."""
    return {row.name: row for row in ROWS}[name]


def load(row: Row) -> Measure:
    """The function that measures ``row``; only now its module is imported."""
    return cast(Measure, import_module(f"benchmarks.rows.{row.module}").measure)
