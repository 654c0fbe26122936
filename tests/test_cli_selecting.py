"""Following by match keys and value filters: the words, and what then is printed."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import pytest

from exo_stream.cli.arguments import parser
from exo_stream.cli.exit_codes import OK, USAGE
from exo_stream.cli.selecting import match_key, value_filter
from exo_stream.keys import MatchKey
from exo_stream.selectors import ExactValue, ValueFilter, ValuePrefix, ValueRegex
from tests.served import serving, speak


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("0:0:^user/", MatchKey(0, 0, "^user/")),
        ("4:10:a:b", MatchKey(4, 10, "a:b")),
        ("4:0xa:(?s-u).*", MatchKey(4, 10, "(?s-u).*")),
        ("4:0b1010:x", MatchKey(4, 10, "x")),
    ],
)
def test_a_match_key_is_bits_prefix_and_regex(word: str, expected: MatchKey) -> None:
    assert match_key(word) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("exact:", ExactValue(b"")),
        ("exact:a:b", ExactValue(b"a:b")),
        ("exact:base64:/w==", ExactValue(b"\xff")),
        ("prefix:grüße", ValuePrefix("grüße".encode())),
        ("regex:^keep.*$", ValueRegex("^keep.*$")),
    ],
)
def test_a_value_filter_is_a_kind_and_what(word: str, expected: ValueFilter) -> None:
    assert value_filter(word) == expected


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("a", "not BITS:PREFIX:REGEX"),
        ("4:5", "not BITS:PREFIX:REGEX"),
        ("x:0:a", "not BITS:PREFIX:REGEX"),
        ("0:y:a", "not BITS:PREFIX:REGEX"),
        ("17:0:a", "0 to 16 bits"),
        ("3:8:a", "fits into them"),
        ("0:0:", "not blank"),
        ("0:0:(?=a)", "look-around"),
    ],
)
def test_what_is_no_match_key_is_told_in_a_sentence(word: str, problem: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=problem):
        match_key(word)


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("a", "is not exact:VALUE"),
        ("suffix:a", "is not exact:VALUE"),
        ("exact", "is not exact:VALUE"),
        ("exact:base64:!", "not base64"),
        ("regex:", "not blank"),
        ("regex:(", "ends too early|not closed"),
    ],
)
def test_what_is_no_value_filter_is_told_in_a_sentence(word: str, problem: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=problem):
        value_filter(word)


def test_they_may_be_given_several_times() -> None:
    words = ["follow", "--match", "0:0:a", "--match", "8:1:b", "--value", "exact:x"]
    args = parser().parse_args([*words, "--value", "regex:y"])
    assert args.match == [MatchKey(0, 0, "a"), MatchKey(8, 1, "b")]
    assert args.value == [ExactValue(b"x"), ValueRegex("y")]
    assert parser().parse_args(["follow"]).match is None


@pytest.mark.slow
def test_only_what_was_chosen_is_printed(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    with serving(tmp_path / "x.duckdb") as server:
        say = partial(speak, capfdbinary, "--url", server.url)
        for key, value in [("user/1", "keep"), ("user/2", "drop"), ("job/1", "keep")]:
            assert say("put", key, value).code == OK
        assert say("put", "user/3", "keep too").code == OK
        follow = partial(say, "follow", "--count", "2")
        assert follow("--match", "0:0:^user/", "--value", "regex:^keep").lines == [
            "1\tuser/1\tkeep",
            "4\tuser/3\tkeep too",
        ]
        assert follow("--prefix", "user/", "--match", "0:0:^[12]$").lines == [
            "1\tuser/1\tkeep",
            "2\tuser/2\tdrop",
        ]
        wrong = follow("--match", "0:0:(")
        assert wrong.code == USAGE
        assert "--match" in wrong.sentence
