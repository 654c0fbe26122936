"""What requests about subscriptions ask, letter by letter, and where webhooks may go."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.protocol.streams.subscribing import (
    AskedReport,
    AskedSubscription,
    AskedWrongError,
    Route,
    asked_report,
    asked_streams,
    asked_subscription,
    asked_worker,
    body_of,
    path_of,
    route_of,
)
from exo_stream.protocol.streams.webhook_urls import (
    WebhookUrl,
    WebhookUrlError,
    may_reach,
    webhook_url,
)

ROOT = "/v1/stream/__ds/"


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("subscriptions/a", Route("a", "")),
        ("subscriptions/a%2Fb", Route("a/b", "")),
        ("subscriptions/a/claim", Route("a", "claim")),
        ("subscriptions/a/streams", Route("a", "streams")),
        ("subscriptions/a/streams/x%2Fy", Route("a", "stream", "x/y")),
        ("subscriptions/a/streams/x/y/", Route("a", "stream", "x/y")),
        ("subscriptions/a/other", None),
        ("subscriptions/a/claim/b", None),
        ("other", None),
    ],
)
def test_a_path_is_a_subscription_and_what_is_wanted_of_it(path: str, route: Route | None) -> None:
    assert route_of(ROOT + path) == route


@pytest.mark.parametrize("name", ["", "%FF", "a%00", "i" * 65])
def test_an_id_is_a_short_text(name: str) -> None:
    with pytest.raises(AskedWrongError):
        route_of(f"{ROOT}subscriptions/{name}")


@given(st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=16))
def test_a_path_is_read_as_it_was_written(name: str) -> None:
    assert route_of(path_of(name, "callback")) == Route(name, "callback")


WEBHOOK = {"type": "webhook", "pattern": "a/*", "webhook": {"url": "https://h/"}}
PULL = {"type": "pull-wake", "streams": ["b", "/a/"], "wake_stream": "/w/"}


def test_what_is_asked_for_is_taken_apart() -> None:
    assert asked_subscription(WEBHOOK) == AskedSubscription(
        "webhook", "a/*", (), "https://h/", 30_000, None
    )
    asked = asked_subscription({**PULL, "lease_ttl_ms": 1_000, "description": "d"})
    assert asked == AskedSubscription("pull-wake", None, ("a", "b"), "w", 1_000, "d")


@pytest.mark.parametrize(
    "value",
    [
        {},
        {**WEBHOOK, "type": "push"},
        {**WEBHOOK, "type": ["webhook"]},
        {**WEBHOOK, "type": None},
        {**WEBHOOK, "pattern": ""},
        {**WEBHOOK, "pattern": 1},
        {**WEBHOOK, "pattern": "a//b"},
        {**WEBHOOK, "pattern": "/".join("a" * 33)},
        {**WEBHOOK, "pattern": "a" * 1_025},
        {**WEBHOOK, "pattern": "a\x00"},
        {**WEBHOOK, "pattern": "\ud800"},
        {**WEBHOOK, "webhook": None},
        {**WEBHOOK, "webhook": "https://h/"},
        {**WEBHOOK, "webhook": {"url": ""}},
        {**WEBHOOK, "webhook": {"url": 1}},
        {**WEBHOOK, "description": 1},
        {**PULL, "wake_stream": None},
        {**PULL, "streams": "a"},
        {**PULL, "streams": [1]},
        {**PULL, "streams": []},
        {**PULL, "streams": ["a"] * 1_001},
        *[{**PULL, "lease_ttl_ms": ms} for ms in (999, 600_001, 1e4, "30000", True, None)],
    ],
)
def test_what_is_no_subscription_is_refused_with_a_sentence(value: dict[str, Any]) -> None:
    with pytest.raises(AskedWrongError, match=r"\w"):
        asked_subscription(value)


@pytest.mark.parametrize(
    "body",
    [b"[]", b"1", b"{", b'{"a":NaN}', b"\xff", b"[" * 100_000, b'{"a":' * 100_000],
    ids=lambda body: repr(body[:10]),
)
def test_a_body_is_an_object_of_json(body: bytes) -> None:
    with pytest.raises(AskedWrongError):
        body_of(body)


def test_no_body_is_an_empty_one() -> None:
    assert body_of(b"") == {}
    assert body_of(b'{"a":1}') == {"a": 1}


def test_a_report_is_taken_apart() -> None:
    assert asked_report({"wake_id": "w", "generation": 1}) == AskedReport("w", 1, (), False)
    acks = [
        {"stream": "/a/", "offset": "0000000000000000_0000000000000007"},
        {"path": "b", "offset": "-1"},
        {"stream": "c", "offset": "9999999999999999_0000000000000007"},
    ]
    report = asked_report({"wake_id": "w", "generation": 1, "acks": acks, "done": True})
    assert report == AskedReport("w", 1, (("a", 7), ("b", None), ("c", None)), True)


@pytest.mark.parametrize(
    "value",
    [
        {"generation": 1},
        {"wake_id": 1, "generation": 1},
        {"wake_id": "w", "generation": "1"},
        {"wake_id": "w", "generation": True},
        {"wake_id": "w", "generation": 1, "acks": {"a": 1}},
        {"wake_id": "w", "generation": 1, "acks": ["a"]},
        {"wake_id": "w", "generation": 1, "acks": [{"stream": "a"}]},
        {"wake_id": "w", "generation": 1, "acks": [{"stream": 1, "offset": "-1"}]},
        {"wake_id": "w", "generation": 1, "acks": [{"stream": "a", "offset": "-1"}] * 1_001},
        {"wake_id": "w", "generation": 1, "done": "yes"},
    ],
)
def test_what_is_no_report_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(AskedWrongError):
        asked_report(value)


def test_a_worker_has_a_name_and_streams_are_named_by_name() -> None:
    assert asked_worker({"worker": "one"}) == "one"
    assert asked_streams({"streams": ["/a/", "b"]}) == ("a", "b")
    for value in ({}, {"worker": ""}, {"worker": 1}):
        with pytest.raises(AskedWrongError):
            asked_worker(value)
    with pytest.raises(AskedWrongError):
        asked_streams({})


# --- where webhooks may go -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected", "authority"),
    [
        ("https://h.example", WebhookUrl(True, "h.example", 443, "/"), "h.example"),
        (
            "https://H.example.:444/a?b=c#d",
            WebhookUrl(True, "h.example", 444, "/a?b=c"),
            "h.example:444",
        ),
        ("https://8.8.8.8:443/", WebhookUrl(True, "8.8.8.8", 443, "/"), "8.8.8.8"),
        ("https://[2606:4700::1]/x", WebhookUrl(True, "2606:4700::1", 443, "/x"), "[2606:4700::1]"),
    ],
)
def test_a_public_url_is_where_a_webhook_goes(text: str, expected: Any, authority: str) -> None:
    assert webhook_url(text, loopback=False) == expected
    assert webhook_url(text, loopback=True).authority == authority


REFUSED = [
    "http://h.example/",
    "http://8.8.8.8/",
    "ftp://h.example/",
    "file:///etc/passwd",
    "//h.example/",
    "h.example",
    "",
    "https://",
    "https:///path",
    "https://user@h.example/",
    "https://user:secret@h.example/",
    "https://h.example:0/",
    "https://h.example:99999/",
    "https://h.example:x/",
    "https://h example/",
    "https://h.example/\r\nX: y",
    "https://h.example\t/",
    "https://ä.example/",
    "https://[::1",
    "https://h..example/",
    "https://" + "a" * 2_048,
    "http://10.0.0.1/hook",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://169.254.169.254/latest/meta-data",
    "https://100.64.0.1/",
    "https://0.0.0.0/",
    "https://255.255.255.255/",
    "https://224.0.0.1/",
    "https://192.0.2.1/",
    "https://[fe80::1]/",
    "https://[fc00::1]/",
    "https://[::]/",
    "https://[::ffff:10.0.0.1]/",
    "https://[64:ff9b::10.0.0.1]/",
    "https://[2002:0a00:0001::1]/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://127.1/",
    "https://017700000001/",
    "https://a.internal/",
    "https://printer.local/",
]
LOOPBACK = [
    "http://127.0.0.1:8080/hook",
    "http://127.9.9.9/",
    "http://localhost:8080/",
    "http://a.localhost/",
    "https://localhost/",
    "https://127.0.0.1/",
    "http://[::1]:8080/",
    "https://[::ffff:127.0.0.1]/",
]


@pytest.mark.parametrize("text", REFUSED)
def test_a_webhook_does_not_go_there_whatever_is_allowed(text: str) -> None:
    for loopback in (False, True):
        with pytest.raises(WebhookUrlError, match=r"\w"):
            webhook_url(text, loopback=loopback)


@pytest.mark.parametrize("text", LOOPBACK)
def test_a_webhook_stays_on_this_machine_only_where_that_is_allowed(text: str) -> None:
    assert webhook_url(text, loopback=True).target.startswith("/")
    with pytest.raises(WebhookUrlError):
        webhook_url(text, loopback=False)


@pytest.mark.parametrize(
    ("address", "is_public", "is_loopback"),
    [
        ("8.8.8.8", True, False),
        ("2606:4700::1", True, False),
        ("127.0.0.1", False, True),
        ("::1", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("::ffff:8.8.8.8", True, False),
        ("64:ff9b::8.8.8.8", True, False),
        ("64:ff9b::127.0.0.1", False, True),
        ("::10.0.0.1", False, False),
        ("10.0.0.1", False, False),
        ("100.64.0.1", False, False),
        ("169.254.169.254", False, False),
        ("fe80::1%eth0", False, False),
        ("fd00:ec2::254", False, False),
        ("2002:7f00:1::", False, True),
        ("2002:a00:1::", False, False),
        ("2001:0:a00:1::", False, False),
        ("ff02::1", False, False),
        ("240.0.0.1", False, False),
        ("0.0.0.0", False, False),
        ("::", False, False),
        ("no address", False, False),
    ],
)
def test_every_address_of_a_host_is_judged(
    address: str, is_public: bool, is_loopback: bool
) -> None:
    assert may_reach(address, loopback=False) is is_public
    assert may_reach(address, loopback=True) is (is_public or is_loopback)
