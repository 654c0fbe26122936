"""Durable Streams over HTTP as values: what a request asks, and how an answer is written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exo_stream.protocol.http import RefusedError
from exo_stream.protocol.streams import elements, names
from exo_stream.protocol.streams.asked import (
    PRODUCER_NUMBER_MAX,
    TTL_SECONDS_MAX,
    AskedAppend,
    AskedFork,
    AskedProducer,
    asked_append,
    asked_stream,
    fields_of,
)
from exo_stream.protocol.streams.queries import ReadQuery, read_query

ZERO = "0000000000000000_0000000000000000"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        pytest.param("/v1/stream/a", "a", id="one segment"),
        pytest.param("/v1/stream/a/b.c/..d", "a/b.c/..d", id="several, with innocent dots"),
        pytest.param("/v1/stream/a%20b%2fc", "a b/c", id="percent-encoding, of a slash too"),
        pytest.param("/v1/stream/gr%C3%BC%C3%9Fe", "grüße", id="UTF-8"),
        pytest.param("/v1/stream/" + "x" * 1024, "x" * 1024, id="as long as it may be"),
        pytest.param("/v1/stream/a/__ds", "a/__ds", id="reserved only as the first segment"),
        pytest.param("/v1/stream/__dso", "__dso", id="only begins like what is reserved"),
        pytest.param("/v1/stream/a+b", "a+b", id="a plus is a plus in a path"),
    ],
)
def test_a_path_names_a_stream(path: str, name: str) -> None:
    assert names.stream_name(path) == name


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param("", id="nothing"),
        pytest.param("a//b", id="an empty segment"),
        pytest.param("/a", id="an empty first segment"),
        pytest.param("a/", id="a trailing slash"),
        pytest.param("../a", id="the parent"),
        pytest.param("a/%2e%2e/b", id="the parent, encoded"),
        pytest.param("a/%2E", id="itself, encoded"),
        pytest.param("a%2F%2Fb", id="an empty segment, encoded"),
        pytest.param("__ds/x", id="a reserved name"),
        pytest.param("%5F_ds/x", id="a reserved name, encoded"),
        pytest.param("a%zz", id="no hexadecimal digits"),
        pytest.param("a%", id="a lone percent sign"),
        pytest.param("%ff", id="not UTF-8"),
        pytest.param("%ed%a0%80", id="a surrogate"),
        pytest.param("a%00b", id="a null byte"),
        pytest.param("a%0Ab", id="a newline"),
        pytest.param("x" * 1025, id="one byte too long"),
        pytest.param("%C3%BC" * 513, id="too long in bytes"),
    ],
)
def test_a_path_that_names_no_stream_is_refused(rest: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        names.stream_name(names.ROOT + rest)
    assert (refusal.value.status, refusal.value.code) == (400, "INVALID_STREAM_NAME")


def test_a_fork_s_source_is_a_path_of_this_server() -> None:
    assert names.source_name("/v1/stream/a%20b") == "a b"
    with pytest.raises(RefusedError) as refusal:
        names.source_name("https://example.com/v1/stream/a")
    assert refusal.value.code == "BAD_REQUEST"


@pytest.mark.parametrize(
    ("query", "read"),
    [
        ("", ReadQuery()),
        ("offset=-1", ReadQuery("-1")),
        ("offset=now&live=sse", ReadQuery("now", "sse")),
        (f"cursor=7&live=long-poll&offset={ZERO}", ReadQuery(ZERO, "long-poll", "7")),
        ("x=1&x=2&y&offset=%2D1&=", ReadQuery("-1")),
    ],
)
def test_a_query_asks_for_a_read(query: str, read: ReadQuery) -> None:
    assert read_query(query) == read


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("offset=", "INVALID_OFFSET"),
        ("offset", "INVALID_OFFSET"),
        ("offset=-1&offset=-1", "INVALID_OFFSET"),
        ("offset=0,1", "INVALID_OFFSET"),
        ("offset=0+1", "INVALID_OFFSET"),
        (f"offset={ZERO}%0A", "INVALID_OFFSET"),
        (f"offset={ZERO}%00", "INVALID_OFFSET"),
        ("offset=" + ZERO.replace("0", "%D9%A0"), "INVALID_OFFSET"),
        ("offset=..", "INVALID_OFFSET"),
        ("offset=%zz", "BAD_REQUEST"),
        ("offset=%ff", "BAD_REQUEST"),
        ("live=sse", "BAD_REQUEST"),
        ("live=long-poll", "BAD_REQUEST"),
        ("live=tail&offset=-1", "BAD_REQUEST"),
        ("live=sse&live=sse&offset=-1", "BAD_REQUEST"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused(query: str, code: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        read_query(query)
    assert (refusal.value.status, refusal.value.code) == (400, code)


def test_headers_that_came_twice_are_one_list() -> None:
    assert fields_of((("a", "1"), ("b", "2"), ("a", "3"))) == {"a": "1, 3", "b": "2"}


def test_a_put_asks_for_what_its_headers_say() -> None:
    asked = asked_stream(
        {
            "content-type": "text/plain; charset=utf-8",
            "stream-ttl": "3600",
            "stream-closed": "TRUE",
            "stream-retention-seconds": "60",
            "stream-retention-bytes": "1000",
        }
    )
    assert (asked.content_type, asked.ttl_seconds) == ("text/plain; charset=utf-8", 3600)
    assert (asked.is_closed, asked.fork) == (True, None)
    assert (asked.retention_seconds, asked.retention_bytes) == (60, 1000)
    assert asked_stream({"content-type": ""}).content_type is None
    assert asked_stream({"stream-closed": "yes"}).is_closed is False
    assert asked_stream({"stream-ttl": "0"}).ttl_seconds == 0
    assert asked_stream({"stream-ttl": "9" * 5000}).ttl_seconds == TTL_SECONDS_MAX
    assert asked_stream({"stream-expires-at": "1970-01-01T00:00:01Z"}).expires_at == 1_000_000
    forked = {"stream-forked-from": "/v1/stream/a"}
    assert asked_stream(forked).fork == AskedFork("/v1/stream/a", None, 0)
    forked |= {"stream-fork-offset": ZERO, "stream-fork-sub-offset": "3"}
    assert asked_stream(forked).fork == AskedFork("/v1/stream/a", ZERO, 3)


@pytest.mark.parametrize(
    "fields",
    [
        *({"stream-ttl": text} for text in ("03600", "+3600", "3600.5", "3.6e3", "-1", "abc", "")),
        *({"stream-ttl": text} for text in ("1_0", " 1", "1\n", "\u0661")),
        {"stream-ttl": "1", "stream-expires-at": "2030-01-01T00:00:00Z"},
        {"stream-expires-at": "not-a-timestamp"},
        {"content-type": "text"},
        {"content-type": "text/plain, text/plain"},
        {"content-type": "a/b;" + "x" * 1024},
        {"stream-fork-sub-offset": "0"},
        {"stream-fork-offset": ZERO},
        *(
            {"stream-forked-from": "/v1/stream/a", "stream-fork-sub-offset": text}
            for text in ("-1", "abc", "1.5", "05", "+1", "9" * 16)
        ),
        {"stream-forked-from": "/v1/stream/a", "stream-fork-offset": "0"},
        {"stream-retention-bytes": "0"},
        {"stream-retention-seconds": "x"},
    ],
)
def test_a_put_with_headers_that_mean_nothing_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(RefusedError) as refusal:
        asked_stream(fields)
    assert refusal.value.status == 400


def test_a_post_asks_for_what_its_headers_say() -> None:
    assert asked_append({}) == AskedAppend(None, False, None, None, None)
    asked = asked_append(
        {
            "content-type": "text/plain",
            "stream-closed": "true",
            "stream-seq": "09",
            "stream-expected-offset": ZERO,
            "producer-id": "p",
            "producer-epoch": "0",
            "producer-seq": str(PRODUCER_NUMBER_MAX),
        }
    )
    producer = AskedProducer("p", 0, PRODUCER_NUMBER_MAX)
    assert asked == AskedAppend("text/plain", True, producer, "09", ZERO)


PRODUCER = {"producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}


@pytest.mark.parametrize(
    "fields",
    [
        {"producer-id": "p"},
        {"producer-epoch": "0", "producer-seq": "0"},
        PRODUCER | {"producer-id": ""},
        PRODUCER | {"producer-id": "x" * 1025},
        *(PRODUCER | {"producer-seq": text} for text in ("1abc", "0xyz", "1e3", "-1", "1_0", "")),
        PRODUCER | {"producer-epoch": str(PRODUCER_NUMBER_MAX + 1)},
        PRODUCER | {"producer-epoch": "\u0661"},
        PRODUCER | {"producer-epoch": "0" * 17},
        {"stream-seq": "x" * 1025},
        {"stream-expected-offset": "-1"},
    ],
)
def test_a_post_with_headers_that_mean_nothing_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(RefusedError) as refusal:
        asked_append(fields)
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        (b'{"a":1}', [b'{"a":1}']),
        (b" [ ] ", []),
        (b"[[1,2],[3,4]]", [b"[1,2]", b"[3,4]"]),
        (b"[[[1,2,3]]]", [b"[[1,2,3]]"]),
        (b'[1.0e400 , null,\n"x"]', [b"1.0e400", b"null", b'"x"']),
        (b"123456789012345678901234567890.10", [b"123456789012345678901234567890.10"]),
        (b"9" * 10_000, [b"9" * 10_000]),
        (b'"\\ud800"', [b'"\\ud800"']),
        ('["ü", {"ß":[]}]'.encode(), ['"ü"'.encode(), '{"ß":[]}'.encode()]),
        (b'{"a":1,"a":2}', [b'{"a":1,"a":2}']),
    ],
)
def test_elements_are_kept_as_they_came(body: bytes, messages: list[bytes]) -> None:
    assert elements.split(body) == messages


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"[", b"[1,]", b"[1 2]", b"[,1]", b"NaN", b"[Infinity]", b"-Infinity"),
        *(b"[1]x", b"1 2", b"\xff", b'"\xed\xa0\x80"', b'{"a":}', b"{a:1}", b"'a'", b"[]]"),
        *(b'"abc', b'"a\nb"', b"01", b"1.", b"-", b"\xef\xbb\xbf1", b'"\\x"', b"tru", b"[1"),
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(RefusedError) as refusal:
        elements.split(body)
    assert (refusal.value.status, refusal.value.code) == (400, "INVALID_JSON")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=50)
@given(st.lists(JSON, max_size=5), st.sampled_from([None, 1]), st.booleans())
def test_elements_mean_what_the_array_meant(
    values: list[object], indent: int | None, is_ascii: bool
) -> None:
    text = json.dumps(values, indent=indent, ensure_ascii=is_ascii)
    body = text.encode(errors="surrogatepass")
    try:
        body.decode()
    except UnicodeDecodeError:
        with pytest.raises(RefusedError):
            elements.split(body)
        return
    parts = elements.split(body)
    assert [json.loads(part) for part in parts] == values
    assert json.loads(b"[" + b",".join(parts) + b"]") == values


@given(st.text(alphabet='[]{}",:\\ 1ae\n', max_size=40))
def test_what_json_refuses_is_refused_and_nothing_else(text: str) -> None:
    try:
        json.loads(text)
        is_json = True
    except ValueError:
        is_json = False
    if is_json:
        elements.split(text.encode())
    else:
        with pytest.raises(RefusedError):
            elements.split(text.encode())


@pytest.mark.parametrize("wrap", [b"[%b]", b'{"a":%b}', b'[" ] \\" [ ",%b]'])
def test_nesting_has_a_bound_however_it_is_written(wrap: bytes) -> None:
    body = b"1"
    for _ in range(elements.DEPTH_MAX):
        body = wrap % body
    assert elements.split(b"[%b]" % (b"[]," * 300 + b"1"))
    assert elements.split(body)
    with pytest.raises(RefusedError, match="nested"):
        elements.split(wrap % body)


@pytest.mark.slow
def test_ten_megabytes_nested_a_hundred_thousand_deep_are_refused() -> None:
    depth = 100_000
    for body in (b"[" * depth + b"1" * 10_000_000 + b"]" * depth, b"[" * 10_000_000):
        with pytest.raises(RefusedError, match="nested"):
            elements.split(body)
