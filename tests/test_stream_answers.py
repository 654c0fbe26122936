"""What every answer of the streams' routes has, whoever gives it and however it was asked for."""

from __future__ import annotations

import json

import pytest

from exo_stream.cli.arguments import parser
from exo_stream.limits import KIB, Limits
from exo_stream.protocol.origin import Visitors
from exo_stream.protocol.streams.problems import STATUS_OF_PROBLEM
from exo_stream.server.streams.settings import StreamSettings
from tests.stream_http import JSON, TEXT, Caller, World, open_world, request

SAFE = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}
HOOK = {"type": "webhook", "pattern": "**", "webhook": {"url": "http://127.0.0.1:1/"}}
PULL = {"type": "pull-wake", "pattern": "*", "wake_stream": "w"}
CLOSED = {**TEXT, "stream-closed": "true"}


def raw(lines: str, body: bytes = b"") -> bytes:
    return lines.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body


async def prepared(world: World) -> None:
    """A stream in each state."""
    await world.ask("PUT", "a", b"x", TEXT)
    await world.ask("PUT", "closed", b"x", CLOSED)
    await world.ask("PUT", "source", b"x", TEXT)
    await world.ask("PUT", "fork", headers={"stream-forked-from": "/v1/stream/source"})
    await world.ask("DELETE", "source")
    await world.ask("PUT", "j", headers=JSON)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (request("PUT", "new", b"x", TEXT), 201),
        (request("PUT", "a", headers=TEXT), 200),
        (request("PUT", "a", headers=JSON), 409),
        (request("PUT", "b", headers={"stream-ttl": "01"}), 400),
        (request("PUT", "f", headers={"stream-forked-from": "/v1/stream/none"}), 404),
        (request("POST", "a", b"y", TEXT), 204),
        (request("POST", "a", b"y", {**TEXT, "content-length": "1", "host": "evil.example"}), 421),
        (request("POST", "a", b"", TEXT), 400),
        (request("POST", "closed", b"y", TEXT), 409),
        (request("POST", "source", b"y", TEXT), 410),
        (request("POST", "j", b"[", JSON), 400),
        (request("POST", "a", b"z" * 70 * KIB, TEXT), 413),
        (request("GET", "a"), 200),
        (request("GET", "a?offset=now"), 200),
        (request("GET", "a?offset=now&live=long-poll"), 204),
        (request("GET", "closed?offset=now&live=long-poll"), 204),
        (request("GET", "a?offset=-1&live=sse"), 200),
        (request("GET", "none?offset=-1&live=sse"), 404),
        (request("GET", "/v1/streams?from=-1:a"), 200),
        (request("GET", "/v1/streams"), 400),
        (request("GET", "source"), 410),
        (request("GET", "none"), 404),
        (request("HEAD", "a"), 200),
        (request("HEAD", "none"), 404),
        (request("DELETE", "none"), 404),
        (request("OPTIONS", "a"), 204),
        (request("PATCH", "a"), 405),
        (request("TRACE", "a"), 405),
        (request("GET", "a//b"), 400),
        (request("GET", "/v1/stream"), 404),
        (request("GET", "/v1/stream/__ds/jwks.json"), 200),
        (request("POST", "/v1/stream/__ds/jwks.json"), 405),
        (request("GET", "/v1/stream/__ds/none"), 404),
        (request("GET", "/v1/stream/__ds/subscriptions/s"), 404),
        (request("PUT", "/v1/stream/__ds/subscriptions/s", json.dumps(PULL).encode()), 201),
        (request("PUT", "/v1/stream/__ds/subscriptions/s", json.dumps(HOOK).encode()), 400),
        (request("PUT", "/v1/stream/__ds/subscriptions/s", b"{"), 400),
        (request("POST", "/v1/stream/__ds/subscriptions/s/ack", b"{}"), 401),
        (request("DELETE", "/v1/stream/__ds/subscriptions/s"), 204),
        (raw("GARBAGE"), 400),
        (raw("GET /v1/stream/a HTTP/1.1"), 400),
        (raw("GET /v1/stream/a HTTP/1.1\nhost: localhost\nx: " + "y" * 20_000), 431),
        (raw("POST /v1/stream/a HTTP/1.1\nhost: localhost\nexpect: more\ncontent-length: 1"), 417),
        (raw("POST /v1/stream/a HTTP/1.1\nhost: localhost\ntransfer-encoding: gzip"), 501),
    ],
    ids=range(44),
)
async def test_every_answer_is_safe_to_show_to_a_browser(asked: bytes, status: int) -> None:
    limits = Limits(stream_append_bytes_max=1)
    async with open_world(limits=limits) as world:
        await prepared(world)
        async with await world.call() as caller:
            await caller.stream.send_all(asked)
            found, headers = await caller.head()
    assert found == status
    assert SAFE.items() <= headers.items()
    assert "cache-control" in headers
    if status >= 400 and headers["content-length"] != "0":
        assert headers["content-type"] in {"application/problem+json", "application/json"}


def test_unless_told_otherwise_connections_are_held_as_long_as_the_protocol_advises() -> None:
    settings, asked = StreamSettings(), parser().parse_args(["serve", "feed.duckdb"])
    assert (settings.long_poll_seconds, settings.sse_seconds) == (30, 60)
    assert (asked.long_poll, asked.stream_caches, asked.stream_rate) == (30, "private", None)
    assert parser().parse_args(["serve", "feed.duckdb", "--long-poll", "0.5"]).long_poll == 0.5


async def test_what_is_open_to_all_pages_says_so_in_errors_and_events_too() -> None:
    async with open_world(visitors=Visitors.welcome(origins=["*"])) as world:
        await prepared(world)
        for target, status in [
            ("a", 200),
            ("none", 404),
            ("a?offset=x", 400),
            ("a?offset=-1&live=sse", 200),
            ("__ds/jwks.json", 200),
            ("__ds/subscriptions/none", 404),
        ]:
            async with await world.call() as caller:
                await caller.send("GET", target, headers={"origin": "https://any.example"})
                found, headers = await caller.head()
            assert found == status
            assert headers["access-control-allow-origin"] == "*"
            assert headers["cross-origin-resource-policy"] == "cross-origin"
            assert "stream-next-offset" in headers["access-control-expose-headers"]


async def test_pages_of_foreign_origins_subscribe_to_nothing_and_claim_nothing() -> None:
    async with open_world(StreamSettings(webhook_loopback=True)) as world:
        foreign = {**JSON, "origin": "https://evil.example"}
        for method, target in [
            ("PUT", "__ds/subscriptions/s"),
            ("DELETE", "__ds/subscriptions/s"),
            ("POST", "__ds/subscriptions/s/claim"),
        ]:
            refused = await world.ask(method, target, json.dumps(HOOK).encode(), foreign)
            assert (refused.status, refused.code) == (403, "FORBIDDEN_ORIGIN")
        assert (await world.ask("GET", "__ds/subscriptions/s")).status == 404


async def test_an_error_has_a_code_that_is_published_and_the_status_that_belongs_to_it() -> None:
    async with open_world() as world:
        await prepared(world)
        seen = set()
        for method, target, body, headers in [
            ("GET", "none", b"", {}),
            ("GET", "source", b"", {}),
            ("PUT", "a", b"", JSON),
            ("PUT", "source", b"", TEXT),
            ("PUT", "g", b"", {"stream-forked-from": "/v1/stream/source"}),
            ("POST", "a", b"1", JSON),
            ("POST", "closed", b"1", TEXT),
            ("POST", "a", b"", TEXT),
            ("POST", "j", b"[]", JSON),
            ("POST", "j", b"nul", JSON),
            ("GET", "a?offset=x", b"", {}),
            ("GET", "a/", b"", {}),
            ("PATCH", "a", b"", {}),
        ]:
            answer = await world.ask(method, target, body, headers)
            told = json.loads(answer.body)
            assert STATUS_OF_PROBLEM[answer.code] == answer.status == told["status"]
            assert told.keys() == {"type", "title", "status", "code", "detail", "instance"}
            assert told["instance"] == f"/v1/stream/{target.partition('?')[0]}"
            seen.add(answer.code)
        assert len(seen) == 13


async def test_a_head_that_is_refused_is_told_so_without_a_body() -> None:
    async with open_world() as world, await world.call() as caller:
        first = await caller.ask("HEAD", "none")
        assert (first.status, first.body) == (404, b"")
        # What follows on the connection is the next answer, not that one's body.
        assert (await caller.ask("PUT", "a", headers=TEXT)).status == 201


async def test_readers_that_never_read_are_many_and_cost_nobody_anything() -> None:
    """Each holds at most what its connection's kernel buffers and one event take."""
    async with open_world(limits=Limits(send_seconds_max=1)) as world:
        await world.ask("PUT", "a", headers=TEXT)
        stuck: list[Caller] = []
        for _ in range(20):
            caller = await world.call()
            await caller.send("GET", "a?offset=now&live=sse")
            stuck.append(caller)
        reader = await world.call()
        await reader.events("a?offset=now&live=sse")
        assert await reader.event() is not None
        for number in range(60):
            assert (await world.ask("POST", "a", b"%03d" % number * 10_000, TEXT)).status == 204
            data, control = await reader.event(), await reader.event()
            assert data is not None
            assert control is not None
            assert data.data.startswith(f"{number:03}")
            held = sum(transport.bytes_held for transport in world.port.transports)
            assert held <= 21 * 2 * 64 * KIB
