"""The defects of Exoware's store that are not to be copied, each with a test that it would fail.

They are numbered as in the list that docs/exoware.md gives; what other modules test is named there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from exo_stream import Cursor
from exo_stream.errors import CursorAheadError
from exo_stream.limits import Limits
from exo_stream.policies.policy import KeepLatest
from exo_stream.policies.retention import LogRetention
from exo_stream.protocol.connect.failure import CallError, Code
from exo_stream.protocol.connect.generated import compact_pb2 as compact
from exo_stream.protocol.connect.generated import query_pb2 as query
from exo_stream.protocol.connect.generated import stream_pb2 as stream
from exo_stream.reduce.stored_row import Cell, CellTag, encode_row
from exo_stream.storage.duckdb_engine import DuckDBEngine
from exo_stream.storage.verify import verify
from tests.connect_caller import Caller, Frames, info_of, served
from tests.network import connected_over, networked
from tests.store_calls import BATCH, GET, PRUNE, RANGE, REDUCE, SUBSCRIBE, calling, detail, get, put
from tests.worlds import FaultyEngine, GatedHop, in_memory, on_file

T = TypeVar("T")

EVERYTHING = [{"payload_regex": "(?s).*"}]


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with calling() as caller:
        yield caller


async def refused(caller: Caller, method: str, message: query.GetRequest) -> CallError:
    with pytest.raises(CallError) as caught:
        await caller.unary(method, message, query.GetResponse)
    return caught.value


async def batch_of(caller: Caller, sequence: int) -> stream.GetResponse:
    message = stream.GetRequest(sequence_number=sequence)
    answer, _ = await caller.unary(BATCH, message, stream.GetResponse)
    return answer


async def prune(caller: Caller, policy: compact.Policy) -> None:
    await caller.unary(PRUNE, compact.PruneRequest(policies=[policy]), compact.PruneResponse)


async def test_1_no_sequence_is_told_before_its_batch_is_there() -> None:
    hop, found = GatedHop(), list[int]()

    async def follow(frames: Frames) -> None:
        while len(found) < 2:
            frame = await frames.next(stream.SubscribeResponse)
            assert frame is not None
            found.append(frame.sequence_number)

    async with in_memory()(hop=hop) as platform, served(platform) as (_, dial):
        caller = Caller(dial)
        subscribe = stream.SubscribeRequest(match_keys=EVERYTHING)
        async with caller.stream(SUBSCRIBE, subscribe) as frames, trio.open_nursery() as nursery:
            nursery.start_soon(follow, frames)
            for key in (b"a", b"b"):
                nursery.start_soon(put, caller, (key, b""))
            await hop.arrived.wait()
            await wait_all_tasks_blocked()
            early = await refused(caller, GET, query.GetRequest(min_sequence_number=1))
            assert info_of(early).metadata["current_sequence_number"] == "0"
            with pytest.raises(CallError) as caught:
                await batch_of(caller, 1)
            assert info_of(caught.value).reason == "BATCH_NOT_FOUND"
            assert await get(caller, b"a") is None
            assert found == []
            hop.gate.set()
    assert found == [1, 2]


async def test_1_a_failed_write_leaves_no_hole_and_no_number_is_used_twice() -> None:
    engine = FaultyEngine()
    async with in_memory(engine)() as platform, served(platform) as (_, dial):
        caller = Caller(dial)
        assert await put(caller, (b"a", b"")) == 1
        engine.faults.append("refused")
        with pytest.raises(CallError):
            await put(caller, (b"b", b""))
        assert await put(caller, (b"c", b"")) == 2
    async with in_memory(engine)() as platform, served(platform) as (_, dial):
        assert await put(Caller(dial), (b"d", b"")) == 3


@pytest.mark.parametrize(
    ("bits", "prefix"), [(17, 0), (255, 0), (2**32 - 1, 2**32 - 1), (4, 16), (0, 1), (16, 65_536)]
)
async def test_3_a_prefix_that_cannot_be_is_refused_and_nothing_breaks(
    caller: Caller, bits: int, prefix: int
) -> None:
    match_key = {"reserved_bits": bits, "prefix": prefix, "payload_regex": "a"}
    policy = compact.Policy(keys={"match_key": match_key}, retain={"drop_all": {}})
    with pytest.raises(CallError) as caught:
        await prune(caller, policy)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert await put(caller, (b"a", b"")) == 1


async def test_5_a_limit_bounds_the_work_and_a_frame_is_bounded_too() -> None:
    async with calling(limits=Limits(page_rows_max=100)) as caller:
        await put(caller, *((b"%05d" % n, b"x") for n in range(5_000)))
        for mode, key in ((0, b"00000"), (1, b"04999")):
            one = query.RangeRequest(limit=1, batch_size=1_000_000, mode=mode)  # type: ignore[arg-type]  # as it comes
            async with caller.stream(RANGE, one) as frames:
                [frame] = await frames.all(query.RangeFrame)
                assert detail(frames.metadata["x-store-query-detail-bin"][0]) == (1, 6)
            assert [row.key for row in frame.results] == [key]
        everything = query.RangeRequest(batch_size=1_000_000)
        async with caller.stream(RANGE, everything) as frames:
            sizes = [len(frame.results) for frame in await frames.all(query.RangeFrame)]
        assert sizes == [100] * 50


CELL = {"value": {"index": 0, "kind": "KV_FIELD_KIND_INT64", "nullable": True}}


async def test_6_a_null_group_can_be_told_from_a_value(caller: Caller) -> None:
    await put(caller, (b"a", encode_row([None])), (b"b", encode_row([Cell(CellTag.I64, 0)])))
    grouped = query.ReduceRequest(params={"reducers": [{"op": 0}], "group_by": [{"field": CELL}]})
    answer, _ = await caller.unary(REDUCE, grouped, query.ReduceResponse)
    assert [(list(g.group_values_present), len(g.group_values)) for g in answer.groups] == [
        ([False], 0),
        ([True], 1),
    ]


@pytest.mark.parametrize(
    "params",
    [
        {"reducers": [{"op": 0, "expr": {"field": CELL}}]},
        {"reducers": [{"op": 1}]},
        {"reducers": [{"op": 2, "expr": {"literal": {"utf8_value": "x"}}}]},
    ],
    ids=str,
)
async def test_7_a_mistake_of_the_client_is_not_internal(
    caller: Caller, params: dict[str, object]
) -> None:
    await put(caller, (b"a", b""), (b"b", b""))
    message = query.ReduceRequest(params=params)
    with pytest.raises(CallError) as caught:
        await caller.unary(REDUCE, message, query.ReduceResponse)
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_9_regexes_search_and_do_not_match_the_whole(caller: Caller) -> None:
    subscribe = stream.SubscribeRequest(
        match_keys=[{"payload_regex": "b"}], value_filters=[{"regex": "y"}],
        since_sequence_number=1,
    )  # fmt: skip
    await put(caller, (b"abc", b"xyz"), (b"a", b"y"), (b"b", b"x"))
    async with caller.stream(SUBSCRIBE, subscribe) as frames:
        with trio.fail_after(30):
            frame = await frames.next(stream.SubscribeResponse)
    assert frame is not None
    assert [entry.key for entry in frame.entries] == [b"abc"]


async def test_9_key_fields_count_from_the_first_bit_of_the_whole_key(caller: Caller) -> None:
    ordered = (5 ^ 1 << 63).to_bytes(8, "big")
    await put(caller, (b"\xff" + ordered, b""))
    field = {"key": {"bit_offset": 8, "kind": "KV_FIELD_KIND_INT64"}}
    least = {"op": "RANGE_REDUCE_OP_MIN_FIELD", "expr": {"field": field}}
    answer, _ = await caller.unary(
        REDUCE, query.ReduceRequest(params={"reducers": [least]}), query.ReduceResponse
    )
    assert answer.results[0].value.int64_value == 5


async def test_9_an_evicted_batch_is_out_of_range(caller: Caller) -> None:
    await put(caller, (b"a", b""))
    await prune(caller, compact.Policy(sequence={}, retain={"drop_all": {}}))
    with pytest.raises(CallError) as caught:
        await batch_of(caller, 1)
    assert caught.value.code is Code.OUT_OF_RANGE


async def test_10_a_malformed_order_is_not_pruned_first(caller: Caller) -> None:
    await put(caller, (b"short", b""), (b"long" + bytes(8), b""), (b"long" + bytes(7) + b"1", b""))
    policy = compact.Policy(
        keys={
            "match_key": {"payload_regex": "(?s-u)^(?:short|long)(?P<version>.*)$"},
            "order_by": {"capture_group": "version", "encoding": "POLICY_ORDER_ENCODING_U64_BE"},
        },
        retain={"keep_latest": {"count": 1}},
    )
    await prune(caller, policy)
    assert await get(caller, b"short") == b""
    assert await get(caller, b"long" + bytes(8)) is None
    assert await get(caller, b"long" + bytes(7) + b"1") == b""


@pytest.mark.parametrize("after", [15, 2**64 - 1])
async def test_12_on_our_own_wire_a_cursor_past_the_end_is_an_error(
    autojump_clock: MockClock, after: int
) -> None:
    async with in_memory()() as platform, networked(platform) as network:
        async with connected_over(network) as client:
            await platform.put_batch([(b"a", b"")])
            for store in (platform, client):
                with pytest.raises(CursorAheadError) as caught:
                    async with store.subscribe(after=Cursor(platform.log_id, after)):
                        pass
                assert caught.value.frontier == 1


async def test_13_a_sparse_subscriber_learns_how_far_it_is_and_is_not_evicted(
    caller: Caller,
) -> None:
    sparse = stream.SubscribeRequest(match_keys=[{"payload_regex": "^x"}], since_sequence_number=1)
    for n in range(10):
        await put(caller, (b"%d" % n, b""))
    async with caller.stream(SUBSCRIBE, sparse, {"x-exo-stream-progress": "1"}) as frames:
        with trio.fail_after(30):
            frame = await frames.next(stream.SubscribeResponse)
    assert frame is not None
    assert (frame.sequence_number, list(frame.entries)) == (10, [])
    await prune(caller, compact.Policy(sequence={}, retain={"drop_all": {}}))
    resumed = stream.SubscribeRequest(
        match_keys=[{"payload_regex": "^x"}], since_sequence_number=frame.sequence_number + 1
    )
    async with caller.stream(SUBSCRIBE, resumed) as frames:
        await put(caller, (b"x", b""))
        found = await frames.next(stream.SubscribeResponse)
    assert found is not None
    assert found.sequence_number == 11


async def test_13_the_log_can_be_bounded_and_is_by_the_server_itself() -> None:
    async with in_memory()() as platform, served(platform) as (_, dial):
        await platform.set_retention(LogRetention(KeepLatest(3)))
        newest = 0
        for n in range(10):
            newest = await put(Caller(dial), (b"%d" % n, b""))
        await wait_all_tasks_blocked()
        with pytest.raises(CallError) as caught:
            await batch_of(Caller(dial), 1)
        oldest = int(info_of(caught.value).metadata["oldest_retained"])
        assert oldest == newest - 2


@pytest.mark.slow
async def test_15_pruning_the_log_moves_its_floor_and_leaves_the_rows_for_later(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    calls: list[str] = []

    async def hop(fn: Callable[[], T], /) -> T:
        calls.append(fn.func.__name__ if isinstance(fn, partial) else fn.__name__)
        await trio.lowlevel.checkpoint()
        return fn()

    path = tmp_path / "feed.duckdb"
    async with on_file(path)(hop=hop) as platform, served(platform) as (_, dial):
        caller = Caller(dial)
        for n in range(5):
            await put(caller, (b"%d" % n, b""))
        engine = platform.sources.reads.engine
        assert isinstance(engine, DuckDBEngine)
        calls.clear()
        await prune(caller, compact.Policy(sequence={}, retain={"greater_than": {"threshold": 3}}))
        rows = engine._database.con.execute("SELECT count(*) FROM log").fetchone()
        assert (calls, rows) == (["commit"], (5,))
        with pytest.raises(CallError) as caught:
            await batch_of(caller, 3)
        assert info_of(caught.value).metadata["oldest_retained"] == "4"
        assert (await batch_of(caller, 4)).sequence_number == 4
        assert calls == ["commit"], "nothing was asked of the file"
    assert verify(path).sound
