"""``exo-stream verify`` and streams: a sound file is sound, and every contradiction is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio
from trio.testing import MockClock

from exo_stream.limits import Limits
from exo_stream.model import Keyspace
from exo_stream.storage.verify import verify
from exo_stream.streams.messages import data_key, encode
from exo_stream.streams.offset import Offset
from exo_stream.streams.record import decode_record
from exo_stream.streams.values import StreamConfig, StreamProducer
from exo_stream.streams.verify import StreamCheck
from tests.stream_worlds import World, embedded
from tests.worlds import on_file

Table = dict[tuple[int, bytes], bytes]


async def lived(world_streams: Any) -> None:
    """Streams of every kind, in their states."""
    await world_streams.create_stream("s", StreamConfig(ttl_seconds=60))
    await world_streams.batch_append("s", [b"one", b"two"])
    await world_streams.append_with_producer("s", [b"x"], None, StreamProducer("p", 0, 0))
    await world_streams.create_fork("f", "s", offset=Offset.at(4), messages=[b"own"])
    await world_streams.create_fork("g", "f")
    await world_streams.delete("f")
    await world_streams.create_stream_with_data("r", StreamConfig(retention_bytes=2), [b"abc"])
    await world_streams.append("r", b"de")


async def rows_of(world: World) -> Table:
    reads = world.platform.sources.reads
    page = await reads.page(reads.engine.version, b"\x00", b"\xff", rows_max=1_000, forward=True)
    return {(row.key[0], row.key[1:]): row.value or b"" for row in page.rows}


def complaints(table: Table) -> list[str]:
    check = StreamCheck()
    for (keyspace, key), value in sorted(table.items()):
        if keyspace in check.heads:
            check.take(keyspace, key, value[: check.heads[keyspace]], len(value))
    return check.problems()


@pytest.mark.slow
@pytest.mark.parametrize("memtable", [1_000, 8])
async def test_a_file_with_streams_is_sound(
    tmp_path: Path, memtable: int, autojump_clock: MockClock
) -> None:
    """Folded or still in the log."""
    path = tmp_path / "feed.duckdb"
    async with on_file(path)(limits=Limits(memtable_entries_max=memtable)) as platform:
        await lived(platform.streams)
        await platform.put_batch([(b"another", b"face")])
        await trio.sleep(5)  # of the mock clock: what is to be done is done
    report = verify(path, faces=(StreamCheck,))
    assert report.findings == ()
    assert report.batches > 0


def changed(name: bytes, **fields: Any) -> Callable[[Table], None]:
    def change(table: Table) -> None:
        record = decode_record(table[Keyspace.STREAM, name])
        table[Keyspace.STREAM, name] = record._replace(**fields).encode()

    return change


def without(keyspace: Keyspace, number: int) -> Callable[[Table], None]:
    def change(table: Table) -> None:
        del table[[key for key in sorted(table) if key[0] == keyspace][number]]

    return change


def recounted(table: Table) -> None:
    [first, *_] = sorted(key for key in table if key[0] == Keyspace.STREAM_DATA)
    table[first] = encode([b"one", b"two"], committed_at=1, through=5)


def torn(table: Table) -> None:
    [first, *_] = sorted(key for key in table if key[0] == Keyspace.STREAM_DATA)
    value = table.pop(first)
    incarnation = int.from_bytes(first[1][:8], "big")
    table[int(Keyspace.STREAM_DATA), data_key(incarnation, 5)] = value


def nobody(table: Table) -> None:
    table[int(Keyspace.STREAM_DATA), data_key(999, 1)] = encode([b"x"], committed_at=1, through=1)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (changed(b"s", tail=8), "it ends at 8, its messages at 7"),
        (changed(b"s", tail=1, low=2), "its offsets contradict each other"),
        (changed(b"s", messages=9), "3 messages, not 9"),
        (changed(b"s", references=2), "1 forks, not 2"),
        (changed(b"s", look_at=77), "nobody will look at it"),
        (changed(b"g", deleted=True), "deleted, and kept for nobody"),
        (without(Keyspace.STREAM, 0), "its source 'f' is missing"),
        (without(Keyspace.STREAM, 3), "of no stream"),
        (without(Keyspace.STREAM_UPKEEP, 0), "nobody will look"),
        (without(Keyspace.STREAM_DATA, 0), "its first messages are missing"),
        (without(Keyspace.STREAM_DATA, 2), "its messages are missing"),
        (recounted, "miscounted at 7"),
        (torn, "6 follows 5"),
        (nobody, "stream messages 999: of no stream"),
    ],
)
async def test_every_contradiction_is_named(
    autojump_clock: MockClock, change: Callable[[Table], None], complaint: str
) -> None:
    async with embedded() as world:
        await lived(world.streams)
        table = await rows_of(world)
    assert complaints(table) == []
    change(table)
    assert any(complaint in sentence for sentence in complaints(table)), complaints(table)


async def test_a_contradiction_in_a_file_is_a_finding(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    seen: list[bytes] = []

    class Objects:
        heads: ClassVar = {int(Keyspace.STREAM): 1_000}

        def take(self, _keyspace: int, key: bytes, _head: bytes, _size: int) -> None:
            seen.append(key)

        def problems(self) -> list[str]:
            return ["something is wrong"]

    path = tmp_path / "feed.duckdb"
    async with on_file(path)() as platform:
        await lived(platform.streams)
    report = verify(path, faces=(Objects,))
    assert [(f.where, f.sentence) for f in report.findings] == [("table", "something is wrong")]
    assert seen == [b"f", b"g", b"r", b"s"]
