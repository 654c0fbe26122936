"""What subscriptions are judged by: patterns, tokens, and what is remembered as pending."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.streams.subscriptions.globs import literal_prefix, matches
from exo_stream.streams.subscriptions.pending import Pending
from exo_stream.streams.subscriptions.record import StreamInfo
from exo_stream.streams.subscriptions.tokens import TOKEN_SECONDS_MAX, Scope, derived, judge, mint

SECOND = 1_000_000

# --- patterns --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("events/a", "events/a", True),
        ("events/a", "events/b", False),
        ("events/a", "events/a/b", False),
        ("events/*", "events/a", True),
        ("events/*", "events", False),
        ("events/*", "events/a/b", False),
        ("*/a", "events/a", True),
        ("events/**", "events", True),
        ("events/**", "events/a/b/c", True),
        ("events/**", "event", False),
        ("**", "anything/at/all", True),
        ("**/c", "a/b/c", True),
        ("**/c", "c", True),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/b/b/c", True),
        ("a/**/c", "a/b/b/d", False),
        ("a/**/**/c", "a/c", True),
        ("a/**/*", "a", False),
        ("a/ev*", "a/event", False),
        ("a/%2A", "a/*", True),
        ("a/%2a", "a/b", False),
    ],
)
def test_a_pattern_means_names_segment_by_segment(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


@pytest.mark.slow
@given(st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=5), st.data())
def test_what_a_pattern_means_begins_as_its_prefix_does(parts: list[str], data: Any) -> None:
    pattern = "/".join(parts)
    name = "/".join(data.draw(st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=5)))
    assert matches(pattern, name) is _by_recursion(parts, name.split("/"))
    if matches(pattern, name):
        assert name.startswith(literal_prefix(pattern))


def _by_recursion(parts: list[str], segments: list[str]) -> bool:
    """The same, as it would be said in one breath; it takes exponential time."""
    match parts, segments:
        case [], []:
            return True
        case ["**", *rest], _:
            return any(_by_recursion(rest, segments[at:]) for at in range(len(segments) + 1))
        case [part, *rest], [segment, *others] if part in {"*", segment}:
            return _by_recursion(rest, others)
        case _:
            return False


def test_a_pattern_of_a_stranger_takes_no_exponential_time() -> None:
    assert not matches("/".join(["**", "a"] * 16), "/".join("a" * 500) + "/b")


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [("a/b", "a/b"), ("a/*", "a/"), ("a/**", "a"), ("*", ""), ("**/a", ""), ("%2A/*", "*/")],
)
def test_the_prefix_of_a_pattern_is_what_no_asterisk_stands_in(pattern: str, prefix: str) -> None:
    assert literal_prefix(pattern) == prefix


# --- tokens ----------------------------------------------------------------------------------

SECRET = bytes(range(32))


def test_a_token_says_what_it_is_good_for_until_it_is_too_old() -> None:
    scope = Scope(incarnation=7, generation=3)
    token = mint(SECRET, scope, 5 * SECOND)
    assert judge(SECRET, token, 5 * SECOND) == scope
    assert judge(SECRET, token, (4 + TOKEN_SECONDS_MAX) * SECOND) == scope
    assert judge(SECRET, token, (5 + TOKEN_SECONDS_MAX) * SECOND) == "TOKEN_EXPIRED"
    assert judge(bytes(32), token, 5 * SECOND) == "TOKEN_INVALID"


@pytest.mark.slow
@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{75}", fullmatch=True))
def test_nothing_that_was_not_minted_is_a_token(token: str) -> None:
    assert judge(SECRET, token, 0) == "TOKEN_INVALID"


@given(st.integers(0, 53), st.integers(1, 63))
def test_no_digit_of_a_token_may_be_changed(at: int, by: int) -> None:
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = mint(SECRET, Scope(1, 1), 0)
    other = digits[(digits.index(token[at]) + by) % 64]
    assert judge(SECRET, token[:at] + other + token[at + 1 :], 0) == "TOKEN_INVALID"


def test_keys_for_different_purposes_are_different() -> None:
    assert len({derived(SECRET, "a"), derived(SECRET, "b"), derived(bytes(32), "a"), SECRET}) == 4


# --- what is remembered ----------------------------------------------------------------------


def test_what_happened_after_a_decision_was_asked_is_not_forgotten_by_its_answer() -> None:
    pending = Pending()
    assert pending.hear("events/*", (), "events/a", is_gone=False)
    asked, heard = pending.first(9), pending.heard
    assert pending.hear("events/*", (), "events/a", is_gone=False)
    pending.learn([], asked, heard)
    assert pending.first(9) == ["events/a"]
    pending.learn([], ["events/a"], pending.heard)
    assert not pending


def test_what_does_not_fit_is_known_to_be_missing() -> None:
    pending = Pending(names_max=1)
    pending.is_whole = True
    pending.add(["a"])
    assert pending.is_whole
    pending.hear("**", (), "b", is_gone=False)
    assert (pending.is_whole, pending.first(9)) == (False, ["a"])


def test_only_what_concerns_it_is_heard() -> None:
    pending = Pending()
    assert not pending.hear("events/*", {"x"}, "other", is_gone=False)
    assert not pending.hear(None, {"x"}, "other", is_gone=True)
    assert pending.hear(None, {"x"}, "x", is_gone=False)
    assert pending.hear(None, {"x"}, "x", is_gone=True)
    assert (pending.first(9), pending.take_gone(), pending.take_gone()) == ([], ["x"], [])


def test_a_stream_with_something_left_is_still_pending() -> None:
    pending = Pending()
    pending.add(["a", "b"])
    streams = [StreamInfo("a", False, 1, 1, 2), StreamInfo("b", False, 2, 2, 2)]
    pending.learn(streams, ["a", "b"], pending.heard)
    assert pending.first(9) == ["a"]
