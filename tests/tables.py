"""A model of the table and the log, and groups of random batches to write to both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from exo_stream.model import Entry, Row, row_key
from exo_stream.payload import EncodedBatch, encode_entries
from exo_stream.storage.engine import Engine, Group, Version

SECOND = 1_000_000


def batch(sequence: int, entries: Sequence[Entry]) -> EncodedBatch:
    """A batch as ingest would number it, a second after its predecessor."""
    return EncodedBatch(sequence, sequence * SECOND, encode_entries(entries), tuple(entries))


def work(engine: Engine, *, now: int = 0, idle: bool = False) -> list[str]:
    """Do every job there is; answer their names."""
    done: list[str] = []
    while (job := engine.next_job(now, idle=idle)) is not None:
        while not job.step():
            pass
        job.install()
        done.append(job.name)
    return done


def write(engine: Engine, *batches: Sequence[Entry], floor: int | None = None) -> None:
    """Commit and install one group."""
    first = engine.version.frontier + 1
    group = Group([batch(n, entries) for n, entries in enumerate(batches, first)], floor=floor)
    engine.install(engine.commit(group))


def rows(
    engine: Engine, version: Version, *, forward: bool = True, rows_max: int = 100
) -> list[Row]:
    """Every row of every keyspace, page by page."""
    found: list[Row] = []
    start, end = b"", b"\xff"
    while True:
        plan = engine.scan(
            version, start, end, rows_max=rows_max, bytes_max=1 << 20, forward=forward
        )
        page = plan.run(None if plan.in_memory else engine.open_reader())
        found += page.rows
        if page.resume is None:
            return found
        start, end = (page.resume, end) if forward else (start, page.resume)


@dataclass(slots=True)
class Model:
    """The log as a list, the table as a dict: what an engine must be indistinguishable from."""

    log: list[EncodedBatch] = field(default_factory=list)
    floor: int = 1
    table: dict[bytes, Row] = field(default_factory=dict)

    def write(self, batches: Sequence[Sequence[Entry]]) -> None:
        """Take in one group."""
        for entries in batches:
            self.log.append(batch(len(self.log) + 1, entries))
            for keyspace, key, value in entries:
                at = row_key(keyspace, key)
                self.table[at] = Row(at, len(self.log), value)

    def rows(self, *, forward: bool = True) -> list[Row]:
        """The live rows in the direction of a scan."""
        live = [row for row in self.table.values() if row.value is not None]
        return sorted(live, reverse=not forward)
