"""The store's own API of a served file: what it acknowledged is there after `kill -9`."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from exo_stream.protocol.connect.codec import Codec
from exo_stream.protocol.connect.generated import compact_pb2 as compact
from exo_stream.protocol.connect.generated import ingest_pb2 as ingest
from exo_stream.protocol.connect.generated import query_pb2 as query
from exo_stream.protocol.connect.generated import stream_pb2 as stream
from exo_stream.storage.verify import verify
from tests.connect_caller import Caller, over_tcp
from tests.served import GUARD_SECONDS, Served, serving
from tests.store_calls import BATCH, PRUNE, PUT, RANGE, REDUCE, SUBSCRIBE, get

TASKS = 8


async def rows(caller: Caller, **fields: object) -> list[tuple[bytes, bytes]]:
    message = query.RangeRequest(batch_size=100, **fields)  # type: ignore[arg-type]  # of a test
    async with caller.stream(RANGE, message) as frames:
        found = await frames.all(query.RangeFrame)
    return [(row.key, row.value) for frame in found for row in frame.results]


async def write_until_killed(served: Served) -> dict[int, bytes]:
    """Put one key after another, in both codecs; answer what was acknowledged."""
    acknowledged: dict[int, bytes] = {}
    dial = over_tcp(served.url)
    enough = trio.Event()

    async def write(task: int) -> None:
        caller = Caller(dial, list(Codec)[task % 2], encoding=("gzip", "zstd")[task % 2])
        for n in range(10_000):
            key = b"%d/%05d" % (task, n)
            message = ingest.PutRequest(kvs=[{"key": key, "value": key * 20}])
            answer, _ = await caller.unary(PUT, message, ingest.PutResponse)
            assert answer.sequence_number not in acknowledged
            acknowledged[answer.sequence_number] = key
            if len(acknowledged) >= 200:
                enough.set()

    async with trio.open_nursery() as nursery:
        for task in range(TASKS):
            nursery.start_soon(write, task)
        await enough.wait()
        served.process.kill()  # with writes in flight
        nursery.cancel_scope.cancel()
    served.kill()
    return acknowledged


async def replayed(caller: Caller, newest: int) -> list[int]:
    """The sequences that a subscription from the first one on delivers."""
    everything = stream.SubscribeRequest(
        match_keys=[{"payload_regex": "(?s).*"}], since_sequence_number=1
    )
    seen: list[int] = []
    async with caller.stream(SUBSCRIBE, everything) as frames:
        while not seen or seen[-1] < newest:
            frame = await frames.next(stream.SubscribeResponse)
            assert frame is not None
            seen.append(frame.sequence_number)
    return seen


async def check_acknowledged(caller: Caller, acknowledged: dict[int, bytes]) -> dict[bytes, bytes]:
    """That all of it is there, however it is read; answer the table."""
    table = dict(await rows(caller))
    backwards = await rows(caller, mode=query.TRAVERSAL_MODE_REVERSE)
    assert dict(backwards) == table
    assert [key for key, _ in backwards] == sorted(table, reverse=True)
    for sequence, key in acknowledged.items():
        assert table[key] == key * 20
        message = stream.GetRequest(sequence_number=sequence)
        batch, _ = await caller.unary(BATCH, message, stream.GetResponse)
        assert [entry.key for entry in batch.entries] == [key]
    seen = await replayed(caller, max(acknowledged))
    assert seen == list(range(1, len(seen) + 1))
    assert set(acknowledged) <= set(seen)
    assert len(table) - len(acknowledged) <= TASKS  # at most those that were in flight
    count = query.ReduceRequest(params={"reducers": [{"op": 0}]})
    counted, _ = await caller.unary(REDUCE, count, query.ReduceResponse)
    assert counted.results[0].value.uint64_value == len(table)
    return table


@pytest.mark.slow  # three servers, one after the other
async def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    with serving(path) as served, trio.fail_after(4 * GUARD_SECONDS):
        acknowledged = await write_until_killed(served)
    with serving(path) as served, trio.fail_after(4 * GUARD_SECONDS):
        caller = Caller(over_tcp(served.url))
        table = await check_acknowledged(caller, acknowledged)
        policy = compact.Policy(
            keys={"match_key": {"payload_regex": "^0/"}}, retain={"drop_all": {}}
        )
        await caller.unary(PRUNE, compact.PruneRequest(policies=[policy]), compact.PruneResponse)
        served.kill()
    with serving(path) as served, trio.fail_after(4 * GUARD_SECONDS):
        caller = Caller(over_tcp(served.url))
        left = {key: value for key, value in table.items() if not key.startswith(b"0/")}
        assert dict(await rows(caller)) == left
        assert await get(caller, b"0/00000") is None
    assert verify(path).sound
