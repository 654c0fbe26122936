"""What a platform tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

from exo_stream.storage.engine import EngineStatistics


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a file is filled with, in bytes.

    ``live_bytes`` are the rows of the table (``table_bytes``) and the batches of the log
    (``log_bytes``). Rows that newer ones hide count until they are merged, so it is a little more
    than it will be. ``total_bytes`` are the file and its write-ahead log.
    """

    live_bytes: int
    table_bytes: int
    log_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Information:
    """What ``info`` tells of a platform; ``oldest`` is None while the log is empty.

    ``retention_problem`` says why the rules stored for the log cannot be applied, if so.
    """

    log_id: str
    frontier: int
    oldest: int | None
    subscribers: int
    retention_problem: str | None
    sizes: Sizes
    statistics: EngineStatistics
