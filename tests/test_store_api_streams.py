"""The store's own API and those who do not behave: slow, gone, hostile, or in the way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import h11
import pytest
import trio
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import (
    MockClock,
    lockstep_stream_pair,
    wait_all_tasks_blocked,
)

from exo_stream import Platform, open_platform
from exo_stream.limits import Limits
from exo_stream.protocol.connect.codec import Codec
from exo_stream.protocol.connect.envelope import enveloped
from exo_stream.protocol.connect.failure import CallError, Code
from exo_stream.protocol.connect.generated import compact_pb2 as compact
from exo_stream.protocol.connect.generated import ingest_pb2 as ingest
from exo_stream.protocol.connect.generated import query_pb2 as query
from exo_stream.protocol.connect.generated import stream_pb2 as stream
from exo_stream.protocol.origin import Visitors
from exo_stream.server.listener import Listener
from exo_stream.server.port import Port
from exo_stream.server.serve import open_port
from exo_stream.storage.hop import in_place
from tests.connect_caller import Caller, Exchange, Frames, error_of, info_of, served
from tests.nine_methods import NineMethods
from tests.store_calls import BATCH, GET, GET_MANY, PRUNE, PUT, RANGE, REDUCE, SUBSCRIBE, get, put
from tests.wire_examples import LOG_ID
from tests.worlds import Fault, FaultyEngine, GatedHop, in_memory

EVERYTHING = [{"payload_regex": "(?s).*"}]


@asynccontextmanager
async def blocked_by(
    platform: Platform, method: str, message: Message
) -> AsyncIterator[tuple[Port, Frames]]:
    """A call whose caller takes nothing that it does not ask for: every send waits for it."""
    port = open_port(platform, Visitors.welcome())
    listener = Listener(port)
    ours, theirs = lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve_stream, ours, "slow")
        exchange = Exchange(theirs)
        body = enveloped(message.SerializeToString())
        nursery.start_soon(
            exchange.send, "POST", f"/{method}", {"content-type": "application/connect+proto"}, body
        )
        _, headers = await exchange.head()
        yield port, Frames(exchange, Codec.PROTO, headers)
        await theirs.aclose()
    assert port.budget.held == 0
    assert listener.connections == 0


async def put_some(platform: Platform, count: int, size: int = 10) -> None:
    for n in range(count):
        await platform.put_batch([(b"%03d" % n, b"x" * size)])


async def test_a_hole_met_later_ends_the_stream_with_the_error_and_no_empty_frame() -> None:
    async with in_memory()(limits=Limits(page_rows_max=1)) as platform:
        await put_some(platform, 5)
        subscribe = stream.SubscribeRequest(match_keys=EVERYTHING, since_sequence_number=1)
        async with blocked_by(platform, SUBSCRIBE, subscribe) as (_, frames):
            first = await frames.next(stream.SubscribeResponse)
            assert first is not None
            await platform.prune_batch_log(5)
            sequences = [first.sequence_number]
            with pytest.raises(CallError) as caught:
                while (frame := await frames.next(stream.SubscribeResponse)) is not None:
                    assert frame.entries
                    sequences.append(frame.sequence_number)
    assert sequences in ([1], [1, 2])  # one was on its way
    assert (caught.value.code, info_of(caught.value).reason) == (
        Code.OUT_OF_RANGE,
        "BATCH_EVICTED",
    )
    assert dict(info_of(caught.value).metadata) == {"oldest_retained": "5"}


async def test_a_subscriber_that_never_reads_is_cut_and_holds_nobody_up(
    autojump_clock: MockClock,
) -> None:
    async with in_memory()() as platform:
        await put_some(platform, 5, size=1000)
        subscribe = stream.SubscribeRequest(match_keys=EVERYTHING, since_sequence_number=1)
        async with blocked_by(platform, SUBSCRIBE, subscribe) as (port, frames):
            await put_some(platform, 500)
            assert (await platform.info()).frontier == 505
            assert port.budget.held <= 4 * platform.limits.page_bytes_max
            await trio.sleep(platform.limits.send_seconds_max + 1)
            assert port.budget.held == 0
            assert (await platform.info()).subscribers == 0
            with pytest.raises((trio.BrokenResourceError, h11.RemoteProtocolError)):
                while True:
                    await frames.next(stream.SubscribeResponse)


async def test_whoever_leaves_is_forgotten() -> None:
    async with in_memory()() as platform, served(platform) as (_, dial):
        caller = Caller(dial)
        subscribe = stream.SubscribeRequest(match_keys=EVERYTHING)
        async with caller.stream(SUBSCRIBE, subscribe):
            await wait_all_tasks_blocked()
            assert (await platform.info()).subscribers == 1
        await wait_all_tasks_blocked()
        assert (await platform.info()).subscribers == 0


async def test_ranges_that_are_read_slowly_keep_nobody_from_reading() -> None:
    limits = Limits(page_rows_max=2, snapshots_max=1)
    async with in_memory()(limits=limits) as platform, AsyncExitStack() as slow:
        await put_some(platform, 20)
        everything = query.RangeRequest(batch_size=1)
        for _ in range(3):
            _, frames = await slow.enter_async_context(blocked_by(platform, RANGE, everything))
            assert await frames.next(query.RangeFrame) is not None
        held = platform.sources.snapshots
        assert len(held._leased) == 3
        async with served(platform) as (_, dial), Caller(dial).stream(RANGE, everything) as frames:
            assert len(await frames.all(query.RangeFrame)) == 20
        await slow.aclose()
        await wait_all_tasks_blocked()
        assert not held._leased


async def test_a_range_that_is_read_too_slowly_ends_and_may_be_tried_again(
    autojump_clock: MockClock,
) -> None:
    limits = Limits(page_rows_max=2, snapshot_seconds_max=5)
    many = query.GetManyRequest(keys=[b"%03d" % n for n in range(20)], batch_size=1)
    async with in_memory()(limits=limits) as platform:
        await put_some(platform, 20)
        for method, message in ((RANGE, query.RangeRequest(batch_size=1)), (GET_MANY, many)):
            async with blocked_by(platform, method, message) as (_, frames):
                with pytest.raises(CallError) as caught:
                    for _ in range(20):
                        assert await frames.next(query.RangeFrame) is not None
                        await trio.sleep(3)
            info = info_of(caught.value)
            assert (caught.value.code, info.reason) == (Code.UNAVAILABLE, "SNAPSHOT_EXPIRED")


async def test_an_answer_waits_for_memory_and_not_for_ever(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, served(platform) as (port, dial):
        await put_some(platform, 1)
        taken = platform.limits.in_flight_bytes_max - 1000
        port.budget.take(taken)
        async with Caller(dial).stream(RANGE, query.RangeRequest(batch_size=1)) as frames:
            with pytest.raises(CallError) as caught:
                await frames.next(query.RangeFrame)
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        async with Caller(dial).stream(RANGE, query.RangeRequest(batch_size=1)) as frames:
            port.budget.give(taken)
            assert len(await frames.all(query.RangeFrame)) == 1


async def test_what_a_subscription_was_asked_with_is_not_held_while_it_lasts() -> None:
    async with in_memory()() as platform, served(platform) as (port, dial):
        padding = b"\xfa\x07\xe8\x07" + bytes(1000)  # a field that nobody knows
        message = stream.SubscribeRequest.FromString(
            stream.SubscribeRequest(match_keys=EVERYTHING).SerializeToString() + padding
        )
        async with Caller(dial).stream(SUBSCRIBE, message):
            await wait_all_tasks_blocked()
            assert (await platform.info()).subscribers == 1
            assert port.budget.held == 0


async def test_a_put_whose_caller_left_takes_its_course() -> None:
    hop = GatedHop()
    hop.gate.set()
    async with in_memory()(hop=hop) as platform, served(platform) as (_, dial):
        hop.gate = trio.Event()
        message = ingest.PutRequest(kvs=[{"key": b"k", "value": b"v"}])
        async with Caller(dial).exchange() as exchange:
            await exchange.send(
                "POST",
                f"/{PUT}",
                {"content-type": "application/proto"},
                message.SerializeToString(),
            )
            await hop.arrived.wait()
        hop.gate.set()
        await wait_all_tasks_blocked()
        assert await platform.get(b"k") == b"v"


async def test_a_deadline_ends_the_wait_for_a_put_and_not_the_put(
    autojump_clock: MockClock,
) -> None:
    hop = GatedHop()
    async with in_memory()(hop=hop) as platform, served(platform) as (_, dial):
        message = ingest.PutRequest(kvs=[{"key": b"k", "value": b"v"}])
        caller = Caller(dial, connect_timeout_ms="20")
        with pytest.raises(CallError) as caught:
            await caller.unary(PUT, message, ingest.PutResponse)
        assert (caught.value.code, caught.value.status) == (Code.DEADLINE_EXCEEDED, 504)
        hop.gate.set()
        await wait_all_tasks_blocked()
        assert await platform.get(b"k") == b"v"


@pytest.mark.parametrize("fault", ["refused", "full, lost"])
async def test_a_put_that_the_disk_refuses_may_be_tried_again(fault: Fault) -> None:
    engine = FaultyEngine()
    async with in_memory(engine)() as platform, served(platform) as (_, dial):
        engine.faults.append(fault)
        with pytest.raises(CallError) as caught:
            await put(Caller(dial), (b"k", b"v"))
    info = info_of(caught.value)
    assert caught.value.code is Code.UNAVAILABLE
    assert (info.reason, info.domain) == ("INGEST_UNAVAILABLE", "store.ingest")


async def test_a_backend_with_only_the_nine_methods_is_served() -> None:
    limits = Limits(page_rows_max=2)
    async with (
        open_platform(engine=NineMethods(), log_id=LOG_ID, hop=in_place, limits=limits) as platform,
        served(platform) as (_, dial),
    ):
        caller = Caller(dial)
        keys = [b"%d" % n for n in range(5)]
        assert await put(caller, *((key, b"v") for key in keys)) == 10
        assert await get(caller, b"1", min_sequence=10) == b"v"
        many = query.GetManyRequest(keys=keys, batch_size=2)
        for method, message in ((RANGE, query.RangeRequest(batch_size=9)), (GET_MANY, many)):
            async with caller.stream(method, message) as frames:
                found = await frames.all(query.RangeFrame)
            assert [row.key for frame in found for row in frame.results] == keys
        batch, _ = await caller.unary(
            BATCH, stream.GetRequest(sequence_number=10), stream.GetResponse
        )
        assert len(batch.entries) == 5
        subscribe = stream.SubscribeRequest(match_keys=EVERYTHING, since_sequence_number=10)
        async with caller.stream(SUBSCRIBE, subscribe) as frames:
            for expected in (10, 20):
                received = await frames.next(stream.SubscribeResponse)
                assert received is not None
                assert received.sequence_number == expected
                await put(caller, (b"c", b"3"))


async def test_answers_in_flight_are_bounded_in_bytes_together() -> None:
    limits = Limits(page_bytes_max=1000, in_flight_bytes_max=5000)
    async with in_memory()(limits=limits) as platform, served(platform) as (port, dial):
        await put_some(platform, 100, size=90)
        most = 0

        async def read(caller: Caller) -> None:
            nonlocal most
            async with caller.stream(RANGE, query.RangeRequest(batch_size=5)) as frames:
                while await frames.next(query.RangeFrame) is not None:
                    most = max(most, port.budget.held)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(read, Caller(dial))
    assert most <= 5000


METHODS = (PUT, GET, RANGE, REDUCE, SUBSCRIBE, BATCH, PRUNE)
KINDS = ("application/proto", "application/json", "application/connect+proto",
         "application/connect+json", "text/plain")  # fmt: skip
headers = st.fixed_dictionaries(
    {"content-type": st.sampled_from(KINDS)},
    optional={
        "content-encoding": st.sampled_from(["gzip", "zstd", "br", "identity"]),
        "connect-content-encoding": st.sampled_from(["gzip", "zstd", "br"]),
        "accept-encoding": st.sampled_from(["gzip", "zstd", "br, gzip", "*"]),
        "connect-accept-encoding": st.sampled_from(["gzip", "zstd"]),
        "connect-protocol-version": st.sampled_from(["1", "2"]),
        "connect-timeout-ms": st.sampled_from(["0", "5", "x"]),
    },
)
bodies = (
    st.binary(max_size=40)
    | st.binary(max_size=30).map(enveloped)
    | st.sampled_from([b"{}", enveloped(b"{}"), enveloped(b'{"batchSize": 1}'), b"\0\xff\xff"])
    | st.sampled_from([b'{"matchKeys": [{"payloadRegex": "a"}]}']).map(enveloped)
)


@pytest.mark.slow  # a hundred platforms
@settings(max_examples=100, deadline=None)
@given(st.sampled_from(METHODS), headers, bodies)
async def test_whatever_is_sent_is_answered_with_a_code_of_the_protocol(
    method: str, headers: dict[str, str], body: bytes
) -> None:
    async with in_memory()() as platform, served(platform) as (_, dial):
        caller = Caller(dial)
        with trio.move_on_after(0.1):  # what is no error may be an endless stream
            answer = await caller.http("POST", f"/{method}", headers, body)
            if answer.headers["content-type"].startswith("application/connect+"):
                assert answer.status == 200
            elif answer.status != 200:
                error = error_of(json.loads(answer.body), answer.status)
                assert answer.status in {error.code.status, 415}
                assert error.code not in {Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS}
        with trio.fail_after(10):
            assert await get(caller, b"k") is None


async def test_bytes_that_are_no_request_end_only_their_own_connection() -> None:
    async with in_memory()() as platform, served(platform) as (_, dial):
        near = await dial()
        await near.send_all(b"POST /store.ingest.v1.Service/Put HTTP/1.1\r\nhost: localhost\r\n")
        await near.send_all(b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        await near.send_all(b"zz\r\n")
        answer = b""
        while piece := await near.receive_some():
            answer += bytes(piece)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "invalid_argument"
        assert await get(Caller(dial), b"k") is None


async def test_a_body_that_never_ends_is_given_up(autojump_clock: MockClock) -> None:
    async with in_memory()() as platform, served(platform) as (_, dial):
        near = await dial()
        await near.send_all(b"POST /store.ingest.v1.Service/Put HTTP/1.1\r\nhost: localhost\r\n")
        await near.send_all(b"content-type: application/json\r\ncontent-length: 9\r\n\r\n{")
        answer = b""
        while piece := await near.receive_some():
            answer += bytes(piece)
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "deadline_exceeded"


async def test_prunes_are_counted_by_no_one_and_the_answer_is_empty() -> None:
    async with in_memory()() as platform, served(platform) as (_, dial):
        await put_some(platform, 3)
        drop = compact.Policy(sequence={}, retain={"drop_all": {}})
        answer, _ = await Caller(dial, Codec.JSON).unary(
            PRUNE, compact.PruneRequest(policies=[drop]), compact.PruneResponse
        )
        assert answer == compact.PruneResponse()
        assert await platform.oldest_retained_batch() is None


async def test_a_range_in_flight_is_finished_while_the_server_stops() -> None:
    async with in_memory()(limits=Limits(page_rows_max=2)) as platform:
        await put_some(platform, 6)
        async with blocked_by(platform, RANGE, query.RangeRequest(batch_size=2)) as (port, frames):
            first = await frames.next(query.RangeFrame)
            port.drain()
            rest = await frames.all(query.RangeFrame)
    assert first is not None
    assert [len(frame.results) for frame in (first, *rest)] == [2, 2, 2]


async def test_a_subscription_that_comes_while_the_server_stops_is_ended_at_once() -> None:
    async with in_memory()() as platform, served(platform) as (port, dial):
        body = enveloped(stream.SubscribeRequest(match_keys=EVERYTHING).SerializeToString())
        near = await dial()
        await near.send_all(
            f"POST /{SUBSCRIBE} HTTP/1.1\r\nhost: localhost\r\n"
            "content-type: application/connect+proto\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
        )
        await wait_all_tasks_blocked()
        port.drain()
        await near.send_all(body)
        answer = b""
        while piece := await near.receive_some():
            answer += bytes(piece)
    assert b'"code":"unavailable"' in answer


async def test_large_frames_are_sent_in_parts_and_small_ones_together() -> None:
    value = bytes(600_000)
    async with in_memory()() as platform, served(platform) as (_, dial):
        for n in range(4):
            await platform.put_batch([(b"%d" % n, value)])
        async with Caller(dial).stream(RANGE, query.RangeRequest(batch_size=1)) as frames:
            found = await frames.all(query.RangeFrame)
    assert [frame.results[0].value == value for frame in found] == [True] * 4
