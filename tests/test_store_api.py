"""The store's own API: every method, in both codecs, as Exoware's store answers it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from trio.testing import wait_all_tasks_blocked

from exo_stream.limits import Limits
from exo_stream.protocol.connect.codec import Codec
from exo_stream.protocol.connect.compression import ENCODINGS
from exo_stream.protocol.connect.generated import compact_pb2 as compact
from exo_stream.protocol.connect.generated import query_pb2 as query
from exo_stream.protocol.connect.generated import stream_pb2 as stream
from exo_stream.server.store_api.query import DETAIL_HEADER
from tests.connect_caller import Caller
from tests.store_calls import (
    BATCH,
    GET,
    GET_MANY,
    PRUNE,
    RANGE,
    REDUCE,
    SUBSCRIBE,
    calling,
    detail,
    get,
    put,
)

MANNERS = [(codec, encoding) for codec in Codec for encoding in ("", *ENCODINGS)]


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with calling() as caller:
        yield caller


async def follow(caller: Caller, value: bytes) -> None:
    subscribe = stream.SubscribeRequest(
        match_keys=[{"payload_regex": "^a"}], since_sequence_number=1
    )
    async with caller.stream(SUBSCRIBE, subscribe) as frames:
        first = await frames.next(stream.SubscribeResponse)
        assert first is not None
        assert [(kv.key, kv.value) for kv in first.entries] == [(b"a", value)] * 2
        assert frames.compressed == (1 if caller.encoding else 0)
        assert await put(caller, (b"c", b""), (b"ab", b"2")) == 2
        second = await frames.next(stream.SubscribeResponse)
        assert second is not None
        assert (second.sequence_number, [kv.key for kv in second.entries]) == (2, [b"ab"])


@pytest.mark.parametrize(("codec", "encoding"), MANNERS)
async def test_every_method_in_every_codec_and_compression(codec: Codec, encoding: str) -> None:
    async with calling(codec, encoding) as caller:
        value = b"value " * 1000  # so that it is compressed
        assert await put(caller, (b"a", value), (b"b", b""), (b"a", value)) == 1
        got, headers = await caller.unary(GET, query.GetRequest(key=b"a"), query.GetResponse)
        assert (got.value, headers.get("content-encoding", "")) == (value, encoding)

        asked = query.GetManyRequest(keys=[b"a", b"x", b"a"], batch_size=2)
        async with caller.stream(GET_MANY, asked) as frames:
            found = await frames.all(query.GetManyFrame)
            assert detail(frames.metadata[DETAIL_HEADER][0]) == (1, 2 * len(value) + 3)
            assert frames.compressed == (2 if encoding else 0)
        assert [[r.key for r in frame.results] for frame in found] == [[b"a", b"x"], [b"a"]]
        assert found[0].results[0].value == value
        assert not found[0].results[1].HasField("value")

        async with caller.stream(RANGE, query.RangeRequest(batch_size=9, mode=1)) as frames:  # type: ignore[arg-type]  # as it may come
            [rows] = await frames.all(query.RangeFrame)
        assert [(row.key, row.value) for row in rows.results] == [(b"b", b""), (b"a", value)]

        reduce = query.ReduceRequest(params={"reducers": [{"op": 0}]})
        counted, headers = await caller.unary(REDUCE, reduce, query.ReduceResponse)
        assert [result.value.uint64_value for result in counted.results] == [2]
        assert detail(headers[DETAIL_HEADER]) == (1, len(value) + 2)

        batch, _ = await caller.unary(
            BATCH, stream.GetRequest(sequence_number=1), stream.GetResponse
        )
        assert batch.sequence_number == 1
        assert [kv.key for kv in batch.entries] == [b"a", b"b", b"a"]

        await follow(caller, value)
        policy = compact.Policy(
            keys={"match_key": {"payload_regex": "^b"}}, retain={"drop_all": {}}
        )
        pruned = compact.PruneRequest(policies=[policy])
        await caller.unary(PRUNE, pruned, compact.PruneResponse)
        assert await get(caller, b"b") is None
        assert await get(caller, b"ab") == b"2"


async def test_absent_and_empty_are_told_apart_and_the_cost_is_told(caller: Caller) -> None:
    await put(caller, (b"empty", b""))
    for key, value, cost in ((b"empty", b"", 5), (b"absent", None, 6)):
        answer, headers = await caller.unary(GET, query.GetRequest(key=key), query.GetResponse)
        assert (answer.value if answer.HasField("value") else None) == value
        assert detail(headers[DETAIL_HEADER]) == (1, cost)


async def test_a_sequence_of_zero_asks_for_nothing(caller: Caller) -> None:
    assert await get(caller, b"a", min_sequence=0) is None


async def test_a_prune_that_deletes_is_an_empty_batch_and_sends_no_frame(caller: Caller) -> None:
    await put(caller, (b"a", b"1"))
    subscribe = stream.SubscribeRequest(match_keys=[{"payload_regex": "(?s).*"}])
    async with caller.stream(SUBSCRIBE, subscribe) as frames:
        drop = {"keys": {"match_key": {"payload_regex": "a"}}, "retain": {"drop_all": {}}}
        await caller.unary(PRUNE, compact.PruneRequest(policies=[drop]), compact.PruneResponse)
        batch, _ = await caller.unary(
            BATCH, stream.GetRequest(sequence_number=2), stream.GetResponse
        )
        assert (batch.sequence_number, list(batch.entries)) == (2, [])
        assert await put(caller, (b"b", b"2")) == 3
        frame = await frames.next(stream.SubscribeResponse)
        assert frame is not None
        assert frame.sequence_number == 3


async def test_ranges(caller: Caller) -> None:
    await put(caller, *((b"%d" % n, b"v") for n in range(1, 6)))

    async def keys(**fields: object) -> list[list[bytes]]:
        message = query.RangeRequest(**{"batch_size": 10, **fields})  # type: ignore[arg-type]  # of a test
        async with caller.stream(RANGE, message) as frames:
            return [[r.key for r in f.results] for f in await frames.all(query.RangeFrame)]

    assert await keys() == [[b"1", b"2", b"3", b"4", b"5"]]
    assert await keys(start=b"2", end=b"4") == [[b"2", b"3", b"4"]]
    assert await keys(start=b"2", end=b"4", mode=1) == [[b"4", b"3", b"2"]]
    assert await keys(limit=2) == [[b"1", b"2"]]
    assert await keys(limit=2, mode=1) == [[b"5", b"4"]]
    assert await keys(batch_size=2) == [[b"1", b"2"], [b"3", b"4"], [b"5"]]
    assert await keys(start=b"4", end=b"2") == []
    assert await keys(start=b"3", end=b"3") == [[b"3"]]
    assert await keys(limit=0) == []
    assert await keys(start=b"6") == []


async def test_frames_are_bounded_in_rows_and_bytes_whatever_is_asked() -> None:
    limits = Limits(page_rows_max=10, page_bytes_max=1000)
    async with calling(limits=limits) as caller:
        await put(caller, *((b"%03d" % n, b"x" * (290 if n < 20 else 20)) for n in range(50)))
        keys, cost = [b"%03d" % n for n in range(50)], 30 * 23 + 20 * 293
        async with caller.stream(RANGE, query.RangeRequest(batch_size=1_000_000)) as frames:
            ranged = await frames.all(query.RangeFrame)
            assert detail(frames.metadata[DETAIL_HEADER][0]) == (1, cost)
        many = query.GetManyRequest(keys=keys, batch_size=1_000_000)
        async with caller.stream(GET_MANY, many) as frames:
            looked_up = await frames.all(query.GetManyFrame)
            assert detail(frames.metadata[DETAIL_HEADER][0]) == (1, cost)
    assert [row.key for frame in ranged for row in frame.results] == keys
    assert [row.key for frame in looked_up for row in frame.results] == keys
    assert max(len(frame.results) for frame in ranged) == 10
    for frames_ in (ranged, looked_up):
        assert max(len(frame.results) for frame in frames_) <= 10
        sizes = [sum(len(r.key) + len(r.value) for r in frame.results) for frame in frames_]
        assert 293 < max(sizes) <= 1000
    assert (Limits().page_rows_max, Limits().page_bytes_max) == (4096, 4 << 20)


async def test_a_single_value_is_never_too_large_for_a_frame() -> None:
    async with calling(limits=Limits(page_bytes_max=1000)) as caller:
        await put(caller, (b"a", b"x" * 5000), (b"b", b"y" * 5000))
        many = query.GetManyRequest(keys=[b"a", b"b"], batch_size=2)
        async with caller.stream(GET_MANY, many) as frames:
            found = await frames.all(query.GetManyFrame)
    assert [[len(row.value) for row in frame.results] for frame in found] == [[5000], [5000]]


async def test_a_streamed_read_is_of_one_state() -> None:
    async with calling(limits=Limits(page_rows_max=2)) as caller:
        await put(caller, *((b"%d" % n, b"old") for n in range(6)))
        many = query.GetManyRequest(keys=[b"%d" % n for n in range(6)], batch_size=2)
        for method, message in ((RANGE, query.RangeRequest(batch_size=2)), (GET_MANY, many)):
            async with caller.stream(method, message) as frames:
                first = await frames.next(query.RangeFrame)
                await put(caller, (b"5", b"new"))
                rest = await frames.all(query.RangeFrame)
            assert first is not None
            values = [row.value for frame in (first, *rest) for row in frame.results]
            assert values == [b"old"] * 6
            await put(caller, (b"5", b"old"))


async def test_a_cursor_past_the_end_is_live(caller: Caller) -> None:
    await put(caller, (b"a", b"1"))
    every = {"match_keys": [{"payload_regex": "(?s).*"}]}
    for since in (None, 0, 4, 15):
        message = stream.SubscribeRequest(**every, since_sequence_number=since)
        async with caller.stream(SUBSCRIBE, message) as frames:
            sequence = await put(caller, (b"a", b"2"))
            frame = await frames.next(stream.SubscribeResponse)
            assert frame is not None
            assert frame.sequence_number == sequence


async def test_progress_is_for_those_who_ask(caller: Caller) -> None:
    await put(caller, (b"b", b"1"))
    message = stream.SubscribeRequest(match_keys=[{"payload_regex": "^a"}], since_sequence_number=1)
    async with caller.stream(SUBSCRIBE, message, {"x-exo-stream-progress": "1"}) as frames:
        frame = await frames.next(stream.SubscribeResponse)
    assert frame == stream.SubscribeResponse(sequence_number=1)


async def test_nobody_else_is_told_of_it(caller: Caller) -> None:
    await put(caller, (b"b", b"1"))
    message = stream.SubscribeRequest(match_keys=[{"payload_regex": "^a"}], since_sequence_number=1)
    async with caller.stream(SUBSCRIBE, message) as frames:
        await wait_all_tasks_blocked()
        await put(caller, (b"a", b"2"))
        frame = await frames.next(stream.SubscribeResponse)
    assert frame is not None
    assert (frame.sequence_number, [entry.key for entry in frame.entries]) == (2, [b"a"])
