"""The scale: how much each row does, so that the same rows run in an hour, a minute or seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Scale:
    """Rounds, seconds and sizes of one kind of run; the budgets are meant for ``full``."""

    name: str
    rounds: int
    round_seconds: float
    subscribers: int
    burst_batches: int
    bursts: int
    pace_seconds: float
    replay_batches: int
    """Of 100 entries each."""
    small_table_keys: int
    large_table_keys: int
    table_reads: int
    sustained_seconds: float
    stopped: int
    beside_stopped: int
    """Subscribers that read on, and are each sent what fills the buffers of the stopped."""
    backup_rows: int
    wal_mib: int
    imports: int
    row_seconds_max: int


SCALES: Final = {
    "full": Scale(
        name="full",
        rounds=5,
        round_seconds=4,
        subscribers=1_000,
        burst_batches=1_000,
        bursts=7,
        pace_seconds=20,
        replay_batches=10_000,
        small_table_keys=100_000,
        large_table_keys=10_000_000,
        table_reads=1_000,
        sustained_seconds=60,
        stopped=200,
        beside_stopped=800,
        backup_rows=200_000,
        wal_mib=64,
        imports=9,
        row_seconds_max=900,
    ),
    "quick": Scale(
        name="quick",
        rounds=2,
        round_seconds=0.3,
        subscribers=1_000,
        burst_batches=1_000,
        bursts=1,
        pace_seconds=1,
        replay_batches=2_000,
        small_table_keys=30_000,
        large_table_keys=300_000,
        table_reads=100,
        sustained_seconds=2,
        stopped=100,
        beside_stopped=200,
        backup_rows=200_000,
        wal_mib=16,
        imports=3,
        row_seconds_max=60,
    ),
    "smoke": Scale(
        name="smoke",
        rounds=1,
        round_seconds=0.1,
        subscribers=10,
        burst_batches=20,
        bursts=1,
        pace_seconds=0.2,
        replay_batches=50,
        small_table_keys=2_000,
        large_table_keys=5_000,
        table_reads=20,
        sustained_seconds=0.3,
        stopped=2,
        beside_stopped=8,
        backup_rows=5_000,
        wal_mib=1,
        imports=1,
        row_seconds_max=120,
    ),
}
"""``smoke`` shows that every row runs; its figures mean nothing."""
