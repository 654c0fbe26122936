"""The store's own API: what a call may look like, and what becomes of one that does not."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from exo_stream.limits import Limits
from exo_stream.protocol.connect.codec import Codec
from exo_stream.protocol.connect.compression import compressed
from exo_stream.protocol.connect.envelope import COMPRESSED, enveloped
from exo_stream.protocol.connect.failure import CallError, Code
from exo_stream.protocol.connect.generated import ingest_pb2 as ingest
from exo_stream.protocol.connect.generated import query_pb2 as query
from exo_stream.protocol.connect.generated import stream_pb2 as stream
from exo_stream.protocol.connect.generated.error_details_pb2 import RetryInfo
from exo_stream.protocol.origin import Visitors
from exo_stream.server.store_api.query import DETAIL_HEADER
from tests.connect_caller import Caller, error_of, info_of, served
from tests.store_calls import (
    BATCH,
    GET,
    PRUNE,
    PUT,
    RANGE,
    REDUCE,
    SUBSCRIBE,
    calling,
    detail,
    get,
    put,
)
from tests.worlds import in_memory


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    async with calling() as caller:
        yield caller


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("base64", [False, True])
async def test_methods_without_side_effects_are_called_by_get(codec: Codec, base64: bool) -> None:
    async with calling(codec) as caller:
        await put(caller, (b"\xff\x00k", b"v"))
        message = codec.encode(query.GetRequest(key=b"\xff\x00k"))
        text = b64encode(message).decode() if base64 else quote(message)
        target = (
            f"/{GET}?connect=v1&encoding={codec.value}&message={quote(text) if base64 else text}"
        )
        answer = await caller.http("GET", target + ("&base64=1" if base64 else ""))
        assert caller.decode(answer, query.GetResponse).value == b"v"
        assert detail(answer.headers[DETAIL_HEADER]) == (1, 4)


async def test_whatever_only_reads_one_message_is_called_by_get(caller: Caller) -> None:
    await put(caller, (b"k", b"v"))
    reduce = query.ReduceRequest(params={"reducers": [{"op": 0}]})
    batch = stream.GetRequest(sequence_number=1)
    texts = [quote(message.SerializeToString()) for message in (reduce, batch)]
    counted = await caller.http("GET", f"/{REDUCE}?encoding=proto&message={texts[0]}")
    found = await caller.http("GET", f"/{BATCH}?encoding=proto&message={texts[1]}")
    assert caller.decode(counted, query.ReduceResponse).results[0].value.uint64_value == 1
    assert detail(counted.headers[DETAIL_HEADER]) == (1, 2)
    assert [entry.key for entry in caller.decode(found, stream.GetResponse).entries] == [b"k"]


async def test_a_get_may_be_compressed(caller: Caller) -> None:
    await put(caller, (b"k", b"v" * 5000))
    message = b"".join(compressed("gzip", query.GetRequest(key=b"k").SerializeToString()))
    text = b64encode(message).decode()
    answer = await caller.http(
        "GET",
        f"/{GET}?encoding=proto&base64=1&compression=gzip&message={quote(text)}",
        {"accept-encoding": "zstd"},
    )
    assert answer.headers["content-encoding"] == "zstd"
    assert caller.decode(answer, query.GetResponse).value == b"v" * 5000


@pytest.mark.parametrize("method", [PUT, PRUNE, RANGE, SUBSCRIBE])
async def test_other_methods_are_not(caller: Caller, method: str) -> None:
    for verb in ("GET", "PUT", "DELETE", "HEAD"):
        answer = await caller.http(verb, f"/{method}?encoding=json&message=%7B%7D")
        assert answer.status == 405
        assert answer.headers["allow"] == "POST"
        assert verb == "HEAD" or b"this method is called by POST" in answer.body


@pytest.mark.parametrize(
    ("headers", "body", "code", "status"),
    [
        ({"content-type": "text/plain"}, b"{}", Code.UNIMPLEMENTED, 415),
        ({}, b"{}", Code.UNIMPLEMENTED, 415),
        ({"content-type": "application/connect+json"}, b"{}", Code.UNIMPLEMENTED, 415),
        ({"connect-protocol-version": "2"}, b"{}", Code.INVALID_ARGUMENT, 400),
        ({"connect-timeout-ms": "soon"}, b"{}", Code.INVALID_ARGUMENT, 400),
        ({"connect-timeout-ms": "0"}, b"{}", Code.DEADLINE_EXCEEDED, 504),
        ({"content-encoding": "br"}, b"{}", Code.UNIMPLEMENTED, 501),
        ({"content-encoding": "gzip"}, b"{}", Code.INVALID_ARGUMENT, 400),
        ({"content-encoding": "zstd"}, b"{}", Code.INVALID_ARGUMENT, 400),
        ({}, b"not json", Code.INVALID_ARGUMENT, 400),
    ],
    ids=str,
)
async def test_a_call_that_cannot_be_read_is_told_why_and_the_connection_goes_on(
    caller: Caller, headers: dict[str, str], body: bytes, code: Code, status: int
) -> None:
    json_type = {"content-type": "application/json"}
    async with caller.exchange() as exchange:
        told = headers if status == 415 else {**json_type, **headers}
        await exchange.send("POST", f"/{GET}", told, body)
        answered, answer_headers = await exchange.head()
        error = error_of(json.loads(await exchange.rest()), answered)
        assert (error.code, error.status) == (code, status)
        assert ("accept-post" in answer_headers) == (status == 415)
        assert ("accept-encoding" in answer_headers) == (status == 501)
        exchange.next_exchange()
        patient = {**json_type, "connect-timeout-ms": "600000"}
        await exchange.send("POST", f"/{GET}", patient, b"{}")
        assert (await exchange.head())[0] == 200
        assert await exchange.rest() == b"{}"


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({"connect-protocol-version": "2"}, enveloped(b"{}"), Code.INVALID_ARGUMENT),
        ({"connect-timeout-ms": "x"}, enveloped(b"{}"), Code.INVALID_ARGUMENT),
        ({"connect-timeout-ms": "0"}, enveloped(b'{"batchSize":1}'), Code.DEADLINE_EXCEEDED),
        ({"connect-content-encoding": "br"}, enveloped(b"{}"), Code.UNIMPLEMENTED),
        (
            {"connect-content-encoding": "gzip"},
            enveloped(b"{}", COMPRESSED),
            Code.INVALID_ARGUMENT,
        ),
        ({}, enveloped(b"{}", COMPRESSED), Code.INVALID_ARGUMENT),
        ({}, enveloped(b"{}")[:-1], Code.INVALID_ARGUMENT),
        ({}, b"", Code.INVALID_ARGUMENT),
        ({}, enveloped(b"{}") * 2, Code.INVALID_ARGUMENT),
        ({}, enveloped(b"{}", 2), Code.INVALID_ARGUMENT),
        ({}, b"\0\xff\xff\xff\xff", Code.RESOURCE_EXHAUSTED),
        ({}, enveloped(b"nonsense"), Code.INVALID_ARGUMENT),
    ],
    ids=str,
)
async def test_a_stream_that_cannot_be_read_ends_with_the_reason_and_the_connection_goes_on(
    caller: Caller, headers: dict[str, str], body: bytes, code: Code
) -> None:
    streamed = {"content-type": "application/connect+json"}
    async with caller.exchange() as exchange:
        await exchange.send("POST", f"/{RANGE}", {**streamed, **headers}, body)
        status, answered = await exchange.head()
        end = await exchange.rest()
        assert (status, answered["content-type"]) == (200, "application/connect+json")
        assert end[0] == 2
        assert error_of(json.loads(end[5:])["error"]).code is code
        exchange.next_exchange()
        await exchange.send("POST", f"/{RANGE}", streamed, enveloped(b'{"batchSize":1}'))
        assert (await exchange.head())[0] == 200
        assert b"error" not in await exchange.rest()


async def test_a_message_that_says_it_is_not_compressed_need_not_be(caller: Caller) -> None:
    told = {"content-type": "application/connect+json", "connect-content-encoding": "gzip"}
    answer = await caller.http("POST", f"/{RANGE}", told, enveloped(b'{"batchSize":1}'))
    assert "error" not in json.loads(answer.body[5:])


async def test_a_stream_of_another_content_type_is_not_answered_as_one(caller: Caller) -> None:
    answer = await caller.http("POST", f"/{RANGE}", {"content-type": "application/json"}, b"{}")
    assert (answer.status, json.loads(answer.body)["code"]) == (415, "unimplemented")


@pytest.mark.parametrize(
    "path",
    ["/store.query.v1.Service/Nothing", "/store.ingest.v1.Service/", "/store.sql.v1.Service/Query"],
)
async def test_an_unknown_method_is_not_found(caller: Caller, path: str) -> None:
    answer = await caller.http("POST", path, {"content-type": "application/json"}, b"{}")
    assert answer.status == 404


async def test_a_body_over_the_limit_exhausts_a_resource() -> None:
    limits = Limits(connect_put_bytes_max=10_000, connect_request_bytes_max=100)
    async with calling(Codec.JSON, limits=limits) as caller:
        json_type = {"content-type": "application/json"}
        sent = b'{"key": "' + b"x" * 200
        for length in (str(len(sent)), None):
            framing = {"transfer-encoding": "chunked"} if length is None else {}
            async with caller.exchange() as exchange:
                headers = {**json_type, **framing}
                if length is None:
                    await exchange.stream.send_all(
                        f"POST /{GET} HTTP/1.1\r\nhost: localhost\r\n"
                        "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
                        f"{len(sent):x}\r\n".encode()
                        + sent
                    )
                    raw = b""
                    while piece := await exchange.stream.receive_some():
                        raw += bytes(piece)
                    assert raw.startswith(b"HTTP/1.1 429 ")
                    assert b"connection: close" in raw
                    continue
                await exchange.send("POST", f"/{GET}", headers, sent)
                status, told = await exchange.head()
                error = error_of(json.loads(await exchange.rest()), status)
                assert (error.code, status) == (Code.RESOURCE_EXHAUSTED, 429)
                assert told["connection"] == "close"
        bomb = b"".join(compressed("gzip", b"{" + b" " * 1000 + b"}"))
        assert len(bomb) < 100
        answer = await caller.http(
            "POST", f"/{GET}", {**json_type, "content-encoding": "gzip"}, bomb
        )
        assert (answer.status, json.loads(answer.body)["code"]) == (429, "resource_exhausted")
        with pytest.raises(CallError) as caught:
            await put(caller, (b"k", b"v" * 10_000))
        assert (caught.value.code, caught.value.status) == (Code.RESOURCE_EXHAUSTED, 429)
        assert await put(caller, (b"k", b"v" * 1000)) == 1


async def test_bodies_are_counted_in_the_budget_compressed_or_not() -> None:
    async with in_memory()() as platform, served(platform) as (port, dial):
        caller = Caller(dial, Codec.PROTO, encoding="gzip")
        room = 1 << 20
        port.budget.take(platform.limits.in_flight_bytes_max - room)
        with pytest.raises(CallError) as caught:
            await put(caller, (b"k", b"\0" * (2 * room)))
        port.budget.give(platform.limits.in_flight_bytes_max - room)
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        assert info_of(caught.value).reason == "OVERLOADED"
        assert RetryInfo(retry_delay={"nanos": 100_000_000}) in caught.value.details
        assert await put(caller, (b"k", b"\0" * (2 * room))) == 1


@pytest.mark.slow  # ten megabytes of JSON
async def test_large_messages_pass_in_both_codecs() -> None:
    value = bytes(range(256)) * 20_000
    for codec in Codec:
        async with calling(codec) as caller:
            assert await put(caller, (b"a", value), (b"b", value)) == 1
            assert await get(caller, b"a") == value
            message = stream.GetRequest(sequence_number=1)
            batch, headers = await caller.unary(BATCH, message, stream.GetResponse)
            assert [entry.value for entry in batch.entries] == [value, value]
            assert headers["transfer-encoding"] == "chunked"


async def test_foreign_pages_are_refused_and_listed_ones_can_read_the_details() -> None:
    visitors = Visitors.welcome(origins=["https://shop.example"])
    async with in_memory()() as platform, served(platform, visitors) as (_, dial):
        caller = Caller(dial)
        json_type = {"content-type": "application/json"}
        for verb in ("POST", "OPTIONS", "GET"):
            answer = await caller.http(
                verb, f"/{GET}", {**json_type, "origin": "https://evil.example"}, b""
            )
            assert (answer.status, json.loads(answer.body)["code"]) == (403, "permission_denied")
            assert "access-control-allow-origin" not in answer.headers

        listed = {"origin": "https://shop.example"}
        asked = {"access-control-request-headers": "content-type, connect-protocol-version"}
        preflight = await caller.http("OPTIONS", f"/{GET}", {**listed, **asked})
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
        assert (
            preflight.headers["access-control-allow-headers"]
            == asked["access-control-request-headers"]
        )
        assert preflight.headers["access-control-allow-methods"] == "GET, POST"
        for path, headers, body in (
            (GET, json_type, b"{}"),
            (RANGE, {"content-type": "application/connect+json"}, enveloped(b"{}")),
        ):
            answer = await caller.http("POST", f"/{path}", {**headers, **listed}, body)
            assert answer.headers["access-control-allow-origin"] == "https://shop.example"
            assert DETAIL_HEADER in answer.headers["access-control-expose-headers"]
            assert answer.headers["vary"] == "origin"
        assert (await caller.http("OPTIONS", f"/{GET}")).status == 204


async def test_health_and_readiness_are_told(caller: Caller) -> None:
    for path in ("/health", "/ready"):
        answer = await caller.http("GET", path)
        assert (answer.status, json.loads(answer.body)["status"]) == (200, "ok")


async def test_a_deadline_ends_a_stream_with_its_code(caller: Caller) -> None:
    message = stream.SubscribeRequest(match_keys=[{"payload_regex": "x"}])
    async with caller.stream(SUBSCRIBE, message, {"connect-timeout-ms": "30"}) as frames:
        with pytest.raises(CallError) as caught, trio.fail_after(10):
            await frames.next(stream.SubscribeResponse)
    assert caught.value.code is Code.DEADLINE_EXCEEDED


async def test_a_server_that_stops_ends_streams_and_takes_no_more_writes() -> None:
    async with in_memory()() as platform, served(platform) as (port, dial):
        caller = Caller(dial)
        message = stream.SubscribeRequest(match_keys=[{"payload_regex": "x"}])
        async with caller.stream(SUBSCRIBE, message) as frames:
            port.drain()
            with pytest.raises(CallError) as caught, trio.fail_after(10):
                await frames.next(stream.SubscribeResponse)
        assert (caught.value.code, info_of(caught.value).reason) == (
            Code.UNAVAILABLE,
            "WORKER_NOT_READY",
        )


async def test_a_write_that_comes_while_the_server_stops_is_refused_as_not_ready() -> None:
    async with in_memory()() as platform, served(platform) as (port, dial):
        stream_ = await dial()
        body = b'{"kvs": [{}]}'
        await stream_.send_all(
            f"POST /{PUT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
        )
        await wait_all_tasks_blocked()
        port.drain()
        await stream_.send_all(body)
        answer = b""
        while piece := await stream_.receive_some():
            answer += bytes(piece)
        assert platform.cursor.sequence == 0
    head, _, told = answer.partition(b"\r\n\r\n")
    error = error_of(json.loads(told))
    assert head.startswith(b"HTTP/1.1 503 ")
    assert (info_of(error).reason, info_of(error).domain) == ("WORKER_NOT_READY", "store.ingest")
    assert RetryInfo(retry_delay={"seconds": 1}) in error.details


async def test_a_page_of_our_own_needs_no_leave_and_one_of_anywhere_gets_it() -> None:
    for origins, allowed in (([], None), (["*"], "*")):
        visitors = Visitors.welcome(origins=origins)
        async with in_memory()() as platform, served(platform, visitors) as (_, dial):
            caller = Caller(dial)
            json_type = {"content-type": "application/json", "origin": "http://localhost"}
            answer = await caller.http("POST", f"/{GET}", json_type, b"{}")
            assert answer.status == 200
            assert answer.headers.get("access-control-allow-origin") == allowed


async def test_what_is_no_name_of_a_header_is_not_repeated(caller: Caller) -> None:
    for asked in ("a\tb", "x, y z", "a;b"):
        answer = await caller.http("OPTIONS", f"/{GET}", {"access-control-request-headers": asked})
        assert answer.status == 204
        assert "access-control-allow-headers" not in answer.headers


@pytest.mark.slow
async def test_many_tiny_parts_are_read_and_refused_as_few_are() -> None:
    async with calling() as caller:
        pairs = ingest.PutRequest(kvs=[{}] * 6_000).SerializeToString()
        many = await caller.http("POST", f"/{PUT}", {"content-type": "application/proto"}, pairs)
        assert caller.decode(many, ingest.PutResponse).sequence_number == 1
        reducers = query.ReduceRequest(params={"reducers": [{}] * 40_000})
        with pytest.raises(CallError) as caught:
            await caller.unary(REDUCE, reducers, query.ReduceResponse)
        assert info_of(caught.value).reason == "INVALID_REDUCE_PARAMS"
