"""Requests to streams: what the conformance suite leaves out, and what we add to the protocol."""

from __future__ import annotations

import json

import pytest

from exo_stream.limits import Limits
from exo_stream.protocol.origin import Visitors
from exo_stream.server.streams.rates import Rates
from exo_stream.server.streams.settings import StreamSettings
from tests.stream_http import BINARY, JSON, TEXT, World, offset, open_world

PRODUCER = {"producer-id": "p", "producer-epoch": "0"}


async def test_a_stream_is_made_written_read_closed_and_deleted() -> None:
    async with open_world() as world:
        made = await world.ask("PUT", "a/b", b"one ", TEXT)
        assert (made.status, made.next) == (201, offset(4))
        assert made.headers["location"] == "http://localhost/v1/stream/a/b"
        more = await world.ask("POST", "a/b", b"two", TEXT)
        assert (more.status, more.next, more.body) == (204, offset(7), b"")
        page = await world.ask("GET", f"a/b?offset={offset(4)}")
        assert (page.status, page.body, page.next) == (200, b"two", offset(7))
        assert page.headers["content-type"] == "text/plain"
        assert page.headers["stream-up-to-date"] == "true"
        assert page.headers["cache-control"] == "private, max-age=60, stale-while-revalidate=300"
        closed = await world.ask("POST", "a/b", b"", {"stream-closed": "TRUE"})
        assert (closed.status, closed.headers["stream-closed"]) == (204, "true")
        refused = await world.ask("POST", "a/b", b"x", TEXT)
        assert (refused.status, refused.code, refused.next) == (409, "STREAM_CLOSED", offset(7))
        assert (await world.ask("DELETE", "a/b")).status == 204
        gone = await world.ask("GET", "a/b")
        assert (gone.status, gone.code) == (404, "NOT_FOUND")


async def test_every_answer_has_the_headers_that_keep_browsers_safe() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"x", TEXT)
        tag = (await world.ask("GET", "a")).headers["etag"]
        for method, target, headers, status in [
            ("GET", "a", {}, 200),
            ("GET", "a", {"if-none-match": tag}, 304),
            ("GET", "a?offset=now&live=long-poll", {}, 204),
            ("GET", "b", {}, 404),
            ("GET", "a?offset=x", {}, 400),
            ("OPTIONS", "a", {}, 204),
            ("PATCH", "a", {}, 405),
            ("GET", "", {}, 400),
        ]:
            answer = await world.ask(method, target, headers=headers)
            assert answer.status == status, (method, target)
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"


async def test_a_method_that_streams_do_not_have_is_refused_with_those_they_have() -> None:
    async with open_world() as world:
        for method, target in [("PATCH", "a"), ("PUT", "/v1/streams"), ("POST", "/v1/streams")]:
            answer = await world.ask(method, target)
            assert (answer.status, answer.code) == (405, "METHOD_NOT_ALLOWED")
            assert "OPTIONS" in answer.headers["allow"]


async def test_to_be_made_again_a_stream_must_be_closed_or_not_as_asked() -> None:
    async with open_world() as world:
        closed = {**TEXT, "stream-closed": "true"}
        assert (await world.ask("PUT", "a", b"x", TEXT)).status == 201
        assert (await world.ask("PUT", "a", b"y", TEXT)).status == 200
        again = await world.ask("PUT", "a", headers=closed)
        assert (again.status, again.code) == (409, "ALREADY_EXISTS")
        await world.ask("POST", "a", headers={"stream-closed": "true"})
        assert (await world.ask("PUT", "a", headers=closed)).status == 200
        assert (await world.ask("PUT", "a", headers=TEXT)).status == 409
        assert (await world.ask("GET", "a")).body == b"x"


async def test_a_tag_changes_when_the_stream_closes_and_when_another_takes_its_path() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"x", TEXT)
        tags = [(await world.ask("GET", "a")).headers["etag"]]
        await world.ask("POST", "a", headers={"stream-closed": "true"})
        tags.append((await world.ask("GET", "a")).headers["etag"])
        await world.ask("DELETE", "a")
        await world.ask("PUT", "a", b"x", {**TEXT, "stream-closed": "true"})
        tags.append((await world.ask("GET", "a")).headers["etag"])
        assert len(set(tags)) == 3
        for tag, status in zip(tags, (200, 200, 304), strict=True):
            answer = await world.ask("GET", "a", headers={"if-none-match": tag})
            assert answer.status == status
            if status == 304:
                assert (answer.body, answer.headers["etag"]) == (b"", tag)
                assert answer.headers["stream-closed"] == "true"


async def test_an_operator_lets_shared_caches_keep_pages() -> None:
    async with open_world(StreamSettings(caches="public")) as world:
        await world.ask("PUT", "a", b"x", TEXT)
        assert (await world.ask("GET", "a")).headers["cache-control"].startswith("public, ")
        for method, target in [("GET", "a?offset=now"), ("HEAD", "a"), ("GET", "b")]:
            assert (await world.ask(method, target)).headers["cache-control"] == "no-store"


async def test_head_tells_all_there_is_to_know() -> None:
    async with open_world() as world:
        headers = {**JSON, "stream-ttl": "3600", "stream-retention-bytes": "9"}
        await world.ask("PUT", "a", b"[1,2]", {**headers, "stream-retention-seconds": "60"})
        told = await world.ask("HEAD", "a")
        assert (told.status, told.body, told.next) == (200, b"", offset(2))
        wanted = {"content-type": "application/json", "cache-control": "no-store"}
        wanted |= {"stream-ttl": "3600", "stream-retention-bytes": "9"}
        wanted |= {"stream-retention-seconds": "60"}
        assert wanted.items() <= told.headers.items()
        expires = {"stream-expires-at": "2100-01-01T02:00:00+02:00", "stream-closed": "true"}
        await world.ask("PUT", "b", headers=expires)
        told = await world.ask("HEAD", "b")
        assert told.headers["stream-expires-at"] == "2100-01-01T00:00:00Z"
        assert told.headers["content-type"] == "application/octet-stream"
        assert told.headers["stream-closed"] == "true"


async def test_a_stream_that_expired_before_it_was_made_is_none() -> None:
    async with open_world() as world:
        past = {"stream-expires-at": "2001-01-01T00:00:00Z"}
        assert (await world.ask("PUT", "a", headers=past)).status == 201
        assert (await world.ask("GET", "a")).status == 404
        huge = {"stream-ttl": "9" * 100}
        assert (await world.ask("PUT", "b", headers=huge)).status == 201
        assert (await world.ask("PUT", "b", headers=huge)).status == 200
        assert (await world.ask("GET", "b")).status == 200


async def test_numbers_keep_their_digits() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b" [1.10, 1e400] ", JSON)
        await world.ask("POST", "a", b'{"n": 12345678901234567890}', JSON)
        await world.ask("POST", "a", b"[[1],[2]]", JSON)
        page = await world.ask("GET", "a")
        assert page.body == b'[1.10,1e400,{"n": 12345678901234567890},[1],[2]]'


async def test_what_is_no_json_changes_nothing_of_the_producer() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", headers=JSON)
        first = {**JSON, **PRODUCER, "producer-seq": "0"}
        for body, code in [(b"[1,", "INVALID_JSON"), (b"[]", "EMPTY_ARRAY"), (b"", "EMPTY_BODY")]:
            refused = await world.ask("POST", "a", body, first)
            assert (refused.status, refused.code) == (400, code)
        assert (await world.ask("POST", "a", b"1", {**first, **TEXT})).status == 409
        taken = await world.ask("POST", "a", b"1", first)
        assert (taken.status, taken.headers["producer-seq"]) == (200, "0")
        again = await world.ask("POST", "a", b"2", first)
        assert (again.status, again.headers["producer-epoch"]) == (204, "0")
        gap = await world.ask("POST", "a", b"3", {**first, "producer-seq": "5"})
        assert (gap.status, gap.code) == (409, "SEQUENCE_CONFLICT")
        assert gap.headers["producer-expected-seq"] == "1"
        assert (await world.ask("GET", "a")).body == b"[1]"


async def test_that_there_is_no_stream_comes_before_what_is_wrong_with_the_request() -> None:
    async with open_world() as world:
        for headers, body in [(TEXT, b""), (JSON, b"["), ({"producer-id": "p"}, b"x")]:
            assert (await world.ask("POST", "a", body, headers)).code == "NOT_FOUND"


async def test_an_append_may_name_the_offset_it_expects() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"abc", TEXT)
        refused = await world.ask("POST", "a", b"x", {**TEXT, "stream-expected-offset": offset(2)})
        assert (refused.status, refused.code, refused.next) == (409, "OFFSET_CONFLICT", offset(3))
        taken = await world.ask("POST", "a", b"d", {**TEXT, "stream-expected-offset": refused.next})
        assert (taken.status, taken.next) == (204, offset(4))


async def test_what_retention_let_go_of_is_gone_and_told_so() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"1234", {**TEXT, "stream-retention-bytes": "4"})
        await world.ask("POST", "a", b"5678", TEXT)
        await world.platform.streams.cleanup_expired_streams()
        gone = await world.ask("GET", f"a?offset={offset(1)}")
        assert (gone.status, gone.code) == (410, "GONE")
        assert gone.headers["stream-oldest-offset"] == offset(4)
        assert (await world.ask("HEAD", "a")).headers["stream-oldest-offset"] == offset(4)
        assert (await world.ask("GET", "a")).body == b"5678"


async def test_a_body_may_come_in_chunks() -> None:
    async with open_world() as world, await world.call() as caller:
        await caller.ask("PUT", "a", headers=TEXT)
        await caller.stream.send_all(
            b"POST /v1/stream/a HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\n"
            b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        assert (await caller.answer()).status == 204
        assert (await caller.ask("GET", "a")).body == b"abcde"


async def test_paths_are_decoded_and_named_again_as_they_were() -> None:
    async with open_world() as world:
        made = await world.ask("PUT", "gr%C3%BC%C3%9Fe%20x/y", b"x", TEXT)
        assert made.headers["location"] == "http://localhost/v1/stream/gr%C3%BC%C3%9Fe%20x/y"
        assert (await world.ask("GET", "gr%c3%bc%c3%9fe%20x%2Fy")).body == b"x"
        assert (await world.ask("HEAD", "gr%C3%BC%C3%9Fe%20x/y")).status == 200
        assert await world.platform.streams.exists("grüße x/y")


async def test_pages_are_bounded_and_cut_where_it_can_be_cut() -> None:
    limits = Limits(page_bytes_max=10)
    async with open_world(limits=limits) as world:
        for name, headers, body, pages in [
            ("b", BINARY, b"0123456789abcdef", [b"0123456789", b"abcdef"]),
            ("t", TEXT, "0123456é89äöü".encode(), ["0123456é8".encode(), "9äöü".encode()]),
            ("j", JSON, b'["012345",78,"x"]', [b'["012345",78]', b'["x"]']),
        ]:
            await world.ask("PUT", name, body, headers)
            at, got = "-1", []
            while True:
                page = await world.ask("GET", f"{name}?offset={at}")
                got.append(page.body)
                at = page.next
                if "stream-up-to-date" in page.headers:
                    break
            assert got == pages


async def test_a_fork_has_its_source_s_offsets_and_its_own_end() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"abc", TEXT)
        await world.ask("POST", "a", b"def", TEXT)
        fork = {"stream-forked-from": "/v1/stream/a", "stream-fork-offset": offset(3)}
        made = await world.ask("PUT", "f", b"X", fork)
        assert (made.status, made.next) == (201, offset(4))
        assert made.headers["content-type"] == "text/plain"
        assert (await world.ask("GET", "f")).body == b"abcX"
        assert (await world.ask("DELETE", "a")).status == 204
        assert (await world.ask("GET", "a")).code == "GONE"
        assert (await world.ask("PUT", "a", headers=TEXT)).code == "PATH_BLOCKED"
        again = {"stream-forked-from": "/v1/stream/a"}
        assert (await world.ask("PUT", "g", headers=again)).code == "FORK_FROM_TOMBSTONE"
        # Asked again the fork is there, though its source is not.
        retried = await world.ask("PUT", "f", b"X", fork)
        assert (retried.status, retried.next) == (200, offset(4))
        assert (await world.ask("GET", "f")).body == b"abcX"


async def test_pages_of_foreign_origins_learn_nothing_and_write_nothing() -> None:
    visitors = Visitors.welcome(origins=["https://ours.example"])
    async with open_world(visitors=visitors) as world:
        await world.ask("PUT", "a", b"x", TEXT)
        foreign = {"origin": "https://evil.example"}
        read = await world.ask("GET", "a", headers=foreign)
        assert (read.status, "access-control-allow-origin" in read.headers) == (200, False)
        for method in ("PUT", "POST", "DELETE"):
            refused = await world.ask(method, "a", b"y", {**TEXT, **foreign})
            assert (refused.status, refused.code) == (403, "FORBIDDEN_ORIGIN")
        preflight = await world.ask("OPTIONS", "a", headers=foreign)
        assert "if-none-match" in preflight.headers["access-control-allow-headers"]
        assert "access-control-allow-origin" not in preflight.headers
        ours = {"origin": "https://ours.example"}
        read = await world.ask("GET", "a", headers=ours)
        assert read.headers["access-control-allow-origin"] == "https://ours.example"
        assert "stream-sse-data-encoding" in read.headers["access-control-expose-headers"]
        assert read.headers["vary"] == "origin"
        assert (await world.ask("POST", "a", b"y", {**TEXT, **ours})).status == 204


async def test_a_port_that_is_open_to_all_origins_says_so() -> None:
    async with open_world(visitors=Visitors.welcome(origins=["*"])) as world:
        answer = await world.ask("PUT", "a", b"x", {**TEXT, "origin": "https://any.example"})
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (201, "*")
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


async def test_whoever_asks_too_often_is_told_to_wait() -> None:
    async with open_world(StreamSettings(requests_per_second=2)) as world:
        answers = [await world.ask("GET", "a") for _ in range(50)]
        limited = [answer for answer in answers if answer.status == 429]
        assert limited
        assert limited[0].code == "RATE_LIMITED"
        assert limited[0].headers["retry-after"] == "1"
        assert (await world.ask("OPTIONS", "a")).status == 204


def test_each_address_has_a_bucket_that_fills_again() -> None:
    rates = Rates(2, addresses_max=2)
    assert [rates.take("a", 0.0) for _ in range(3)] == [0, 0, 1]
    assert rates.take("b", 0.0) == 0
    assert rates.take("a", 0.5) == 0
    assert rates.take("c", 0.5) == 0
    assert len(rates) == 2
    assert rates.take("b", 0.5) == 0  # forgotten, so its bucket is full


@pytest.mark.parametrize("caller_closes", [True, False])
async def test_a_preflight_is_answered_in_full(caller_closes: bool) -> None:
    headers = {"origin": "https://x.example", "access-control-request-method": "POST"}
    if caller_closes:
        headers["connection"] = "close"
    async with open_world() as world:
        answer = await world.ask("OPTIONS", "a", headers=headers)
        assert (answer.status, answer.body) == (204, b"")
        assert "DELETE" in answer.headers["access-control-allow-methods"]


async def test_the_problem_names_the_path_it_is_about() -> None:
    async with open_world() as world:
        told = json.loads((await world.ask("GET", "a%20b")).body)
        assert told["instance"] == "/v1/stream/a%20b"
        assert (told["title"], told["detail"]) == ("Not Found", "there is no stream 'a b'")


def position(world: World) -> int:
    """The log's last sequence: it tells whether anything was written."""
    return world.platform.cursor.sequence


async def test_a_repeated_request_writes_nothing() -> None:
    async with open_world() as world:
        await world.ask("PUT", "a", b"x", TEXT)
        await world.ask("POST", "a", headers={"stream-closed": "true"})
        before = position(world)
        assert (await world.ask("POST", "a", headers={"stream-closed": "true"})).status == 204
        closed = {**TEXT, "stream-closed": "true"}
        assert (await world.ask("PUT", "a", headers=closed)).status == 200
        assert position(world) == before
