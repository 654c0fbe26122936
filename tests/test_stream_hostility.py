"""Requests to streams that are wrong, torn, or meant to hurt: a clear answer, nothing changed."""

from __future__ import annotations

import pytest
import trio

from exo_stream.limits import KIB, Limits
from exo_stream.server.streams import writing
from tests.stream_http import JSON, TEXT, World, offset, open_world, request

PRODUCER = {"producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}


async def is_well(world: World) -> bool:
    """Whether the stream ``a`` is as it was, its producer too, and the server answers."""
    assert (await world.ask("GET", "a")).body == b"old"
    taken = await world.ask("POST", "a", b"new", {**TEXT, **PRODUCER})
    return taken.status == 200 and (await world.ask("GET", "a")).body == b"oldnew"


@pytest.mark.parametrize(
    "path",
    [
        "../a",
        "a/../b",
        "%2e%2e/a",
        "a//b",
        "a/",
        "",
        "x" * 1025,
        "%ff",
        "%c3%28",
        "a%00",
        "%",
    ],
)
async def test_paths_that_name_nothing_are_refused_by_every_method(path: str) -> None:
    async with open_world() as world:
        for method in ("PUT", "POST", "GET", "DELETE"):
            answer = await world.ask(method, path, b"x" if method == "POST" else b"", TEXT)
            assert (answer.status, answer.code) == (400, "INVALID_STREAM_NAME")
        assert (await world.ask("HEAD", path)).status == 400
        assert world.platform.cursor.sequence == 0


@pytest.mark.parametrize(
    "query",
    [
        "offset=",
        "offset=0,1",
        "offset=0%201",
        "offset=0+1",
        f"offset={offset(0)}%0A",
        f"offset={offset(0)}%00",
        f"offset={offset(0)}%0D",
        "offset=../a",
        "offset=a/b",
        "offset=-1&offset=-1",
        "offset=%D9%A0",
        f"offset={offset(0)}0",
        "live=sse",
        "live=long-poll",
        "live=other&offset=-1",
    ],
)
async def test_offsets_that_are_none_are_refused(query: str) -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"x", TEXT)
        assert (await world.ask("GET", f"a?{query}")).status == 400


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", id="both lengths"
        ),
        pytest.param(b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc", id="two lengths"),
        pytest.param(b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="another coding"),
        pytest.param(b"transfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", id="no size"),
        pytest.param(
            b"transfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n", id="a size too small"
        ),
        pytest.param(b"transfer-encoding: chunked\r\n\r\n-1\r\nabc", id="a negative size"),
        pytest.param(b"content-length: -3\r\n\r\nabc", id="a negative length"),
        pytest.param(b"content-length: +3\r\n\r\nabc", id="a length with a sign"),
        pytest.param(b"content-length : 3\r\n\r\nabc", id="a blank before the colon"),
        pytest.param(b"x: \xe9\r\ncontent-length: 3\r\n\r\nabc", id="not ASCII"),
        pytest.param(b"x: y\r\n" * 101 + b"content-length: 3\r\n\r\nabc", id="a flood of headers"),
        pytest.param(b"x: " + b"y" * 20_000 + b"\r\n\r\n", id="a header as long as a book"),
    ],
)
async def test_what_could_be_read_in_two_ways_is_not_read_at_all(data: bytes) -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"old", TEXT)
        async with await world.call() as caller:
            head = b"POST /v1/stream/a HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n"
            fields = [f"{name}: {value}\r\n".encode() for name, value in PRODUCER.items()]
            # What follows is another request to whoever reads it in the other way.
            await caller.stream.send_all(head + b"".join(fields) + data)
            await caller.stream.send_all(request("DELETE", "a"))
            answer = await caller.answer()
            assert answer.status in {400, 431, 501}
            assert answer.headers["connection"] == "close"
        assert await is_well(world)


@pytest.mark.parametrize("cut", [1, 50, 150, 190])
async def test_a_body_that_is_cut_off_appends_nothing(cut: int) -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"old", TEXT)
        whole = request("POST", "a", b"abcdef", {**TEXT, **PRODUCER, "stream-closed": "true"})
        async with await world.call() as caller:
            await caller.stream.send_all(whole[: min(cut, len(whole) - 1)])
            await caller.stream.send_eof()
            while await caller.stream.receive_some():
                pass
        assert await is_well(world)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_refused_and_the_connection_kept(
    chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "FRAMING_BYTES_MAX", 0)
    async with open_world(limits=Limits(stream_append_bytes_max=64 * KIB)) as world:
        await world.ask("PUT", "a", b"old", TEXT)
        body = b"x" * (640 * KIB)
        async with await world.call() as caller:
            if chunked:
                await caller.stream.send_all(
                    b"POST /v1/stream/a HTTP/1.1\r\nhost: x.localhost\r\n".replace(b"x.", b"")
                    + b"content-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                await caller.stream.send_all(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
            else:
                await caller.send("POST", "a", body, {**TEXT, **PRODUCER})
            answer = await caller.answer()
            assert (answer.status, answer.code) == (413, "PAYLOAD_TOO_LARGE")
            assert "connection" not in answer.headers
            assert (await caller.ask("POST", "a", b"!", TEXT)).status == 204
        assert (await world.ask("GET", "a")).body == b"old!"


async def test_whoever_asks_first_is_refused_before_sending_a_body_that_is_too_large() -> None:
    async with open_world() as world, await world.call() as caller:
        length = str(12 * 1024 * KIB)
        await caller.stream.send_all(
            b"POST /v1/stream/a HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n"
            b"content-type: text/plain\r\ncontent-length: " + length.encode() + b"\r\n\r\n"
        )
        # That there is no such stream comes first.
        assert (await caller.answer()).status == 404


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_without_any_measure_is_refused_and_the_connection_closed(
    chunked: bool,
) -> None:
    limits = Limits(stream_append_bytes_max=1000, body_bytes_max=100_000)
    async with open_world(limits=limits) as world:
        await world.ask("PUT", "a", b"old", TEXT)
        async with await world.call() as caller:
            length = "transfer-encoding: chunked" if chunked else "content-length: 100000000"
            head = "POST /v1/stream/a HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n"
            await caller.stream.send_all(f"{head}{length}\r\n\r\n".encode())
            if chunked:
                await caller.stream.send_all(b"20000\r\n" + b"x" * 0x20000)
            answer = await caller.answer()
            assert (answer.status, answer.code) == (413, "PAYLOAD_TOO_LARGE")
            assert answer.headers["connection"] == "close"
        assert await is_well(world)


async def test_a_message_larger_than_streams_take_is_refused() -> None:
    limits = Limits(stream_append_bytes_max=1000)
    async with open_world(limits=limits) as world:
        await world.ask("PUT", "a", b"old", TEXT)
        answer = await world.ask("POST", "a", b"x" * 1001, TEXT)
        assert (answer.status, answer.code) == (413, "PAYLOAD_TOO_LARGE")
        assert await is_well(world)


@pytest.mark.slow
async def test_json_nested_a_hundred_thousand_deep_is_refused_while_others_are_served() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"old", TEXT)
        await world.ask("PUT", "j", headers=JSON)
        depth = 100_000
        body = b"[" * depth + b"1" * 9_000_000 + b"]" * depth

        async with trio.open_nursery() as nursery:

            async def hurt() -> None:
                answer = await world.ask("POST", "j", body, {**JSON, **PRODUCER})
                assert (answer.status, answer.code) == (400, "INVALID_JSON")

            for _ in range(3):
                nursery.start_soon(hurt)
            assert (await world.ask("GET", "a")).body == b"old"
        assert (await world.ask("GET", "j")).body == b"[]"
        taken = await world.ask("POST", "j", b"1", {**JSON, **PRODUCER})
        assert taken.status == 200


@pytest.mark.slow
async def test_ten_megabytes_of_json_are_taken_whole() -> None:
    async with open_world() as world:
        body = b"[" + b",".join([b'{"n":"%b"}' % (b"x" * 90)] * 100_000) + b"]"
        assert (await world.ask("PUT", "j", body, JSON)).status == 201
        at, got = "-1", []
        while True:
            page = await world.ask("GET", f"j?offset={at}")
            got.append(page.body[1:-1])
            at = page.next
            if "stream-up-to-date" in page.headers:
                break
        assert b",".join(got) == body[1:-1]
        assert len(got) > 1


@pytest.mark.parametrize(
    "headers",
    [
        {"producer-id": "p"},
        {**PRODUCER, "producer-seq": "1_0"},
        {**PRODUCER, "producer-seq": "9007199254740992"},
        {**PRODUCER, "producer-epoch": "0x0"},
        {**PRODUCER, "producer-id": "x" * 2000},
        {"stream-seq": "x" * 2000},
        {"stream-expected-offset": "now"},
        {"content-type": "nothing"},
    ],
)
async def test_headers_that_mean_nothing_append_nothing(headers: dict[str, str]) -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"old", TEXT)
        answer = await world.ask("POST", "a", b"x", {**TEXT, **headers})
        assert (answer.status, answer.code in {"BAD_REQUEST", "INVALID_OFFSET"}) == (400, True)
        assert await is_well(world)


async def test_an_append_without_a_type_is_refused_and_a_close_without_one_is_not() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"old", TEXT)
        assert (await world.ask("POST", "a", b"x")).code == "BAD_REQUEST"
        assert (await world.ask("POST", "a", b"", JSON)).code == "EMPTY_BODY"
        assert (await world.ask("POST", "a", b"1", JSON)).code == "CONTENT_TYPE_MISMATCH"
        closed = await world.ask("POST", "a", b"", {**JSON, "stream-closed": "true"})
        assert closed.status == 204


async def test_requests_one_behind_the_other_are_answered_in_their_order() -> None:
    async with open_world() as world, await world.call() as caller:
        await caller.ask("PUT", "a", headers=TEXT)
        many = b"".join(request("POST", "a", b"%d," % number, TEXT) for number in range(50))
        await caller.stream.send_all(many + request("GET", "a"))
        for number in range(50):
            answer = await caller.answer()
            assert answer.status == 204, number
        assert (await caller.answer()).body == b"".join(b"%d," % number for number in range(50))
