"""Subscriptions to streams, over HTTP: told by webhook or claimed by workers, whatever dies."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from exo_stream.cli.public_url import public_url
from exo_stream.errors import RemoteProtocolError
from exo_stream.interest import Interest
from exo_stream.model import Keyspace
from exo_stream.opening import open_platform
from exo_stream.platform import Platform
from exo_stream.protocol import codec
from exo_stream.protocol import messages as m
from exo_stream.selectors import Selector
from exo_stream.server.serve import serve
from exo_stream.server.streams.settings import StreamSettings
from exo_stream.testing import FakeClock
from tests.stream_http import JSON, Answered, Caller
from tests.stream_worlds import rows
from tests.test_webhooks import heard, receiver, status, verified_by_node

GUARD_SECONDS = 60
SETTINGS = StreamSettings(webhook_loopback=True)


class Crew:
    """A receiver of webhooks: keeps what came, and answers as it is told."""

    def __init__(self) -> None:
        self.send, self.came = trio.open_memory_channel[tuple[dict[str, Any], str]](1_000)
        self.raw = b""
        self.answer = status("200 OK", b"{}")
        self.first: list[bytes] = []
        self.hangs = False
        self.under_way = 0

    async def behave(self, stream: trio.abc.Stream) -> None:
        request, self.raw = await heard(stream)
        self.under_way += 1
        try:
            signature = dict(request.headers)[b"webhook-signature"].decode()
            await self.send.send((json.loads(self.raw), signature))
            if self.hangs:
                await trio.sleep_forever()
            await stream.send_all(self.first.pop(0) if self.first else self.answer)
        finally:
            self.under_way -= 1

    async def next(self) -> dict[str, Any]:
        """The next webhook."""
        told, _ = await self.came.receive()
        return told


class Port:
    """A served platform as its callers see it."""

    def __init__(self, number: int) -> None:
        self.number = number

    async def ask(
        self, method: str, target: str, value: Any = None, **headers: str
    ) -> tuple[Answered, Any]:
        body = b"" if value is None else json.dumps(value).encode()
        fields: Mapping[str, str] = {**JSON, "host": f"127.0.0.1:{self.number}", **headers}
        async with Caller(await trio.open_tcp_stream("127.0.0.1", self.number)) as caller:
            answer = await caller.ask(method, target, body, fields)
        is_json = "json" in answer.headers.get("content-type", "")
        return answer, json.loads(answer.body) if is_json and answer.body else None

    async def subscription(self, id_: str, method: str, value: Any = None, **more: str) -> Any:
        """What is answered about a subscription, and its status."""
        answer, told = await self.ask(method, f"__ds/subscriptions/{id_}", value, **more)
        return answer.status, told

    async def append(self, name: str, value: Any = 1) -> str:
        answer, _ = await self.ask("PUT", name)
        assert answer.status in {200, 201}, answer
        answer, _ = await self.ask("POST", name, [value])
        assert answer.status == 204, answer
        return answer.next

    async def report(self, told: dict[str, Any], *, done: bool = True, **acks: str) -> Any:
        """Call back for a wake."""
        value = {
            "wake_id": told["wake_id"],
            "generation": told["generation"],
            "acks": [{"stream": name.replace("__", "/"), "offset": o} for name, o in acks.items()],
            "done": done,
        }
        path = urlsplit(told["callback_url"]).path
        token = f"Bearer {told['callback_token']}"
        return (await self.ask("POST", path, value, authorization=token))[1]


def webhook(port: int, **config: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}/hook"
    return {"type": "webhook", "pattern": "events/**", "webhook": {"url": url}, **config}


PULL = {"type": "pull-wake", "pattern": "events/*", "wake_stream": "wakes", "lease_ttl_ms": 1_000}


@asynccontextmanager
async def served(path: str = ":memory:", **options: Any) -> AsyncIterator[tuple[Port, Platform]]:
    settings = options.pop("settings", SETTINGS)
    with trio.fail_after(GUARD_SECONDS):
        async with open_platform(path, **options) as platform, trio.open_nursery() as nursery:
            _, number = await nursery.start(partial(serve, platform, port=0, streams=settings))
            yield Port(number), platform
            nursery.cancel_scope.cancel()
        assert platform.streams.subscriptions.kept == {}
        interest: Interest = platform.sources.interest
        assert len(interest) == 0


@pytest.mark.slow  # node takes its time to start
async def test_a_webhook_is_told_signed_and_called_back_for() -> None:
    crew = Crew()
    async with receiver(crew.behave) as hook, served() as (port, _):
        made, shown = await port.subscription("s", "PUT", webhook(hook))
        assert made == 201
        tail = await port.append("events/a")
        told, signature = await crew.came.receive()
        assert told["streams"] == [
            {
                "path": "events/a",
                "link_type": "glob",
                "acked_offset": "-1",
                "tail_offset": tail,
                "has_pending": True,
            }
        ]
        answer, jwks = await port.ask("GET", "__ds/jwks.json")
        assert answer.headers["cache-control"] == "public, max-age=300"
        assert answer.headers["content-type"] == "application/jwk-set+json"
        assert shown["webhook"]["signing"]["kid"] == jwks["keys"][0]["kid"]
        good = await trio.to_thread.run_sync(verified_by_node, crew.raw.decode(), signature, jwks)
        assert good[:2] == [True, True]
        assert await port.report(told, events__a=tail) == {"ok": True, "next_wake": False}
        _, shown = await port.subscription("s", "GET")
        assert [(s["path"], s["acked_offset"]) for s in shown["streams"]] == [("events/a", tail)]


async def test_what_is_appended_while_a_wake_is_under_way_is_the_next_wakes() -> None:
    crew = Crew()
    async with receiver(crew.behave) as hook, served() as (port, _):
        await port.subscription("s", "PUT", webhook(hook))
        tail = await port.append("events/a")
        first = await crew.next()
        await port.append("events/b")
        answer = await port.report(first, events__a=tail)
        second = await crew.next()
        assert (answer["ok"], second["generation"]) == (True, 2)
        pending = {s["path"]: s["has_pending"] for s in second["streams"]}
        assert pending in ({"events/b": True}, {"events/a": False, "events/b": True})
        again = await port.report(first)
        assert again["error"]["code"] == "FENCED"


async def test_done_in_the_answer_is_enough_and_every_stream_is_told() -> None:
    crew = Crew()
    crew.answer = status("200 OK", b'{"done":true}')
    seen: dict[str, str] = {}
    async with receiver(crew.behave) as hook, served() as (port, _):
        await port.subscription("s", "PUT", webhook(hook))
        tails = {f"events/{n}": await port.append(f"events/{n}") for n in range(20)}
        while seen != tails:
            told = await crew.next()
            seen |= {s["path"]: s["tail_offset"] for s in told["streams"]}


async def test_a_subscription_has_bounded_webhooks_under_way() -> None:
    crew = Crew()
    crew.hangs = True
    async with receiver(crew.behave) as hook, served() as (port, _):
        for number in range(40):
            await port.subscription(f"s{number}", "PUT", webhook(hook))
        await port.append("events/a")
        for _ in range(32):
            await crew.next()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert crew.under_way == 32
        # The port serves on, and nothing else is kept waiting.
        await port.append("events/b")


async def test_named_streams_wake_and_those_taken_back_do_not() -> None:
    crew = Crew()
    crew.answer = status("200 OK", b'{"done":true}')
    async with receiver(crew.behave) as hook, served() as (port, _):
        config = webhook(hook, streams=["manual/a"]) | {"pattern": None}
        await port.subscription("s", "PUT", config)
        await port.append("manual/a")
        assert [s["path"] for s in (await crew.next())["streams"]] == ["manual/a"]
        assert (await port.subscription("s/streams", "POST", {"streams": ["manual/b"]}))[0] == 204
        await port.append("manual/b")
        assert [s["path"] for s in (await crew.next())["streams"]] == ["manual/b"]
        assert (await port.subscription("s/streams/manual%2Fb", "DELETE"))[0] == 204
        await port.append("manual/b")
        await port.append("manual/a")
        assert [s["path"] for s in (await crew.next())["streams"]] == ["manual/a"]
        assert (await port.subscription("s", "DELETE"))[0] == 204
        assert (await port.subscription("s", "GET"))[0] == 404


async def test_a_worker_takes_over_when_the_lease_has_ended_and_fences_who_had_it() -> None:
    clock = FakeClock()
    async with served(clock=clock) as (port, _):
        await port.ask("PUT", "wakes", [])
        await port.subscription("p", "PUT", PULL)
        tail = await port.append("events/a")
        one = (await port.subscription("p/claim", "POST", {"worker": "one"}))[1]
        code, busy = await port.subscription("p/claim", "POST", {"worker": "two"})
        assert (code, busy["error"]["current_holder"], busy["error"]["generation"]) == (
            409,
            "one",
            1,
        )
        clock.advance(1)
        code, two = await port.subscription("p/claim", "POST", {"worker": "two"})
        assert (code, two["generation"]) == (200, 2)
        ack = {"acks": [{"stream": "events/a", "offset": tail}], "done": True}
        for who, expected in ((one, "FENCED"), (two, None)):
            value = {"wake_id": who["wake_id"], "generation": who["generation"], **ack}
            bearer = f"Bearer {who['token']}"
            _, told = await port.subscription("p/ack", "POST", value, authorization=bearer)
            assert told.get("error", {}).get("code") == expected
        code, none = await port.subscription("p/claim", "POST", {"worker": "two"})
        assert (code, none["error"]["code"]) == (409, "NO_PENDING_WORK")


@pytest.mark.slow  # a lease is a second at least
async def test_a_lease_that_ends_wakes_others_by_itself() -> None:
    async with served() as (port, platform):
        await port.ask("PUT", "wakes", [])
        await port.subscription("p", "PUT", PULL)
        async with platform.streams.subscribe("wakes") as feed:
            await port.append("events/a")
            assert b'"generation":1' in (await feed.__anext__()).body
            await port.subscription("p/claim", "POST", {"worker": "one"})
            assert b'"generation":2' in (await feed.__anext__()).body


@pytest.mark.slow  # the first wait is a second
async def test_a_webhook_that_failed_is_told_again_and_says_so() -> None:
    crew = Crew()
    crew.first = [status("500 No")]
    crew.answer = status("200 OK", b'{"done":true}')
    async with receiver(crew.behave) as hook, served() as (port, _):
        await port.subscription("s", "PUT", webhook(hook))
        await port.append("events/a")
        first = await crew.next()
        second = await crew.next()
        assert second["wake_id"] == first["wake_id"]
        assert second["generation"] == first["generation"] == 1


@pytest.mark.parametrize(
    ("method", "target", "value", "expected"),
    [
        ("PUT", "s", webhook(1) | {"webhook": {"url": "http://10.0.0.1/"}}, "WEBHOOK_URL_REJECTED"),
        ("PUT", "s", {"type": "webhook"}, "INVALID_REQUEST"),
        ("PUT", "s", PULL | {"wake_stream": "a/../b"}, "INVALID_REQUEST"),
        ("PUT", "s", PULL | {"streams": [""]}, "INVALID_REQUEST"),
        ("PUT", "s", PULL | {"lease_ttl_ms": 1}, "INVALID_REQUEST"),
        ("PUT", "p", PULL | {"lease_ttl_ms": 2_000}, "SUBSCRIPTION_ALREADY_EXISTS"),
        ("GET", "s", None, "SUBSCRIPTION_NOT_FOUND"),
        ("GET", "p/what", None, "SUBSCRIPTION_NOT_FOUND"),
        ("POST", "s/claim", {"worker": "w"}, "SUBSCRIPTION_NOT_FOUND"),
        ("POST", "p/claim", {"worker": ""}, "INVALID_REQUEST"),
        ("POST", "p/claim", {"worker": "w"}, "NO_PENDING_WORK"),
        ("POST", "p/ack", {"wake_id": "w", "generation": 1}, "TOKEN_INVALID"),
        ("POST", "s/streams", {"streams": ["a"]}, "SUBSCRIPTION_NOT_FOUND"),
        ("POST", "p/streams", {"streams": []}, "INVALID_REQUEST"),
        ("POST", "p/streams", {"streams": ["__ds/a"]}, "INVALID_REQUEST"),
        ("DELETE", "s/streams/a", None, "SUBSCRIPTION_NOT_FOUND"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_its_code(
    method: str, target: str, value: Any, expected: str
) -> None:
    async with served() as (port, _):
        await port.subscription("p", "PUT", PULL)
        code, told = await port.subscription(target, method, value)
        assert told["error"]["code"] == expected
        assert 400 <= code < 500
        assert told["error"]["message"]


async def test_tokens_and_methods_are_checked() -> None:
    async with served() as (port, _):
        for token in ("Bearer x", "Basic x", f"Bearer {'A' * 75}"):
            code, told = await port.subscription("p/ack", "POST", {}, authorization=token)
            assert (code, told["error"]["code"]) == (401, "TOKEN_INVALID")
        assert (await port.subscription("p", "POST", {}))[0] == 405
        assert (await port.subscription("p/streams/a", "PUT", {}))[0] == 405
        assert (await port.ask("POST", "__ds/jwks.json", {}))[0].status == 405
        assert (await port.ask("GET", "__ds/other"))[0].status == 404


async def test_loopback_is_refused_unless_it_is_allowed() -> None:
    async with served(settings=StreamSettings(public_url="https://streams.example")) as (port, _):
        code, told = await port.subscription("s", "PUT", webhook(1))
        assert (code, told["error"]["code"]) == (400, "WEBHOOK_URL_REJECTED")
        good = webhook(1) | {"webhook": {"url": "https://hook.example/"}}
        _, shown = await port.subscription("s", "PUT", good)
        jwks_url = shown["webhook"]["signing"]["jwks_url"]
        assert jwks_url == "https://streams.example/v1/stream/__ds/jwks.json"


async def test_what_holds_the_secret_is_never_sent() -> None:
    async with served() as (port, platform):
        await port.ask("GET", "__ds/jwks.json")
        assert await rows(platform, Keyspace.STREAM_SUBSCRIPTION) == [b"\x00"]
        batch = await platform.get_batch(await platform.current_sequence())
        assert batch is not None
        assert batch.entries == ()
    wanted = m.Subscribe(1, selector=Selector(keyspace=Keyspace.STREAM_SUBSCRIPTION))
    with pytest.raises(RemoteProtocolError):
        codec.decode(codec.encode([wanted]), bytes_max=1_000)


async def test_two_ports_of_a_platform_tell_a_wake_once() -> None:
    crew = Crew()
    crew.answer = status("200 OK", b'{"done":true}')
    async with receiver(crew.behave) as hook, served() as (_, platform):
        async with trio.open_nursery() as nursery:
            _, number = await nursery.start(partial(serve, platform, port=0, streams=SETTINGS))
            await Port(number).subscription("s", "PUT", webhook(hook))
            for generation in range(1, 6):
                await Port(number).append("events/a")
                assert (await crew.next())["generation"] == generation
            nursery.cancel_scope.cancel()
        assert crew.came.statistics().current_buffer_used == 0


@pytest.mark.parametrize("url", ["https://streams.example", "http://h:8080/base/"])
def test_a_public_url_is_one_that_others_can_call(url: str) -> None:
    assert public_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url", ["streams.example", "ftp://h", "https://", "https://h?a", "http://[", "https://h:x"]
)
def test_what_nobody_can_call_is_no_public_url(url: str) -> None:
    with pytest.raises(ArgumentTypeError):
        public_url(url)


async def test_streams_that_were_there_wake_by_what_comes_and_are_forgotten_when_they_go() -> None:
    crew = Crew()
    crew.answer = status("200 OK", b'{"done":true}')
    async with receiver(crew.behave) as hook, served() as (port, platform):
        for number in range(3):
            await port.append(f"events/{number}")
        await port.append("other")
        await port.subscription("s", "PUT", webhook(hook))
        _, shown = await port.subscription("s", "GET")
        assert [s["path"] for s in shown["streams"]] == ["events/0", "events/1", "events/2"]
        tail = await port.append("events/1")
        [told] = (await crew.next())["streams"]
        assert (told["path"], told["tail_offset"]) == ("events/1", tail)
        assert told["acked_offset"] not in {"-1", tail}
        _, page = await port.subscription("s?after=events/1", "GET")
        assert [s["path"] for s in page["streams"]] == ["events/2"]
        await port.ask("DELETE", "events/0")
        await port.append("events/1")
        await crew.next()
        while b"\x02\x01sevents/0" in await rows(platform, Keyspace.STREAM_SUBSCRIPTION):
            await port.append("events/1")
        assert (await port.subscription("s", "DELETE"))[0] == 204
        assert await rows(platform, Keyspace.STREAM_SUBSCRIPTION) == [b"\x00"]
        # Made anew it is another: from here on, and told again.
        await port.subscription("s", "PUT", webhook(hook))
        await port.append("events/2")
        while [s["path"] for s in (await crew.next())["streams"]] != ["events/2"]:
            pass
