"""Regexes as Rust's ``regex::bytes`` has them: the dialect, what is refused, what it costs."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exo_stream.errors import InvalidRequestError
from exo_stream.regex import characters
from exo_stream.regex.parser import COUNT_MAX, parse
from exo_stream.regex.pattern import Pattern, compile_regex
from exo_stream.regex.ranges import OCTETS, SCALARS, Ranges, difference, intersection, merged
from exo_stream.regex.source import REGEX_LENGTH_MAX, InvalidRegexError
from exo_stream.regex.translation import translate
from exo_stream.regex.utf8 import character_class
from tests.regex_examples import CAPTURES, MATCHES, REFUSED, VERSIONED


@pytest.mark.parametrize(("regex", "searched", "is_match"), MATCHES)
def test_it_matches_as_rust_does(regex: str, searched: bytes, is_match: bool) -> None:
    pattern = compile_regex(regex)
    assert pattern.matches(searched) is is_match
    assert (pattern.search(searched) is not None) is is_match


@pytest.mark.parametrize(("regex", "searched", "captured"), CAPTURES)
def test_it_captures_as_rust_does(
    regex: str, searched: bytes, captured: list[bytes | None]
) -> None:
    found = compile_regex(regex).search(searched)
    assert found is not None
    assert list(found.values()) == captured


@pytest.mark.parametrize("regex", REFUSED)
def test_it_refuses_what_rust_refuses(regex: str) -> None:
    with pytest.raises(InvalidRegexError) as caught:
        compile_regex(regex)
    assert caught.value.code == "invalid_request"


@pytest.mark.parametrize(
    ("regex", "problem"),
    [
        pytest.param(r"\bfoo", r"write (?-u:\b)", id="a word boundary of Unicode"),
        pytest.param(r"(?-u)\b{start}", "half word boundaries", id="a half boundary"),
        pytest.param(r"\<a", r"no escape \<", id="the other way to write one"),
        pytest.param(r"\p{Greek}", "only general categories", id="a script"),
        pytest.param(r"(?R)$", "'R' is no flag", id="CRLF mode"),
        pytest.param(r"a{1001}", "at most 1000", id="a large count"),
        pytest.param(r"(?:a{100}){100}", "too large", id="a large count of large counts"),
        pytest.param(r"\w{1000}", "too large", id="a large program"),
        pytest.param("(" * 65 + ")" * 65, "more than 64", id="too many groups within groups"),
        pytest.param("[a" * 65, "more than 64", id="too many classes within classes"),
        pytest.param("." * 1_000, "too much of Unicode", id="a large translation"),
        pytest.param(r"\w" * 2_000, "too large together", id="many large classes"),
        pytest.param("[" + r"~~\w" * 900 + "]", "too large together", id="a class of many"),
        pytest.param("(?i)" + r"[\w]" * 500, "too large together", id="many with every case"),
        pytest.param("a" * (REGEX_LENGTH_MAX + 1), "at most 4096", id="a long text"),
        pytest.param("", "not blank", id="nothing"),
        pytest.param(" \n", "not blank", id="blank"),
        pytest.param(b"a", "text", id="bytes"),
        pytest.param("\ud800", "surrogate", id="half of a character"),
    ],
)
def test_it_says_what_it_cannot_do(regex: str, problem: str) -> None:
    with pytest.raises(InvalidRegexError, match=re.escape(problem)):
        Pattern(regex)


def test_a_size_is_what_a_byte_may_cost() -> None:
    assert Pattern("a").size < Pattern("(?-u)a{50}").size < Pattern(r"\w{10}").size


def test_a_mistake_is_told_with_its_place() -> None:
    with pytest.raises(InvalidRequestError, match=r"look-around.*, at character 3") as caught:
        compile_regex("a(?=b)")
    assert isinstance(caught.value, InvalidRegexError)
    assert caught.value.at == 2


def test_equal_regexes_share_a_pattern() -> None:
    assert compile_regex("shared+") is compile_regex("shared+")


@pytest.mark.parametrize(
    ("regex", "takes_everything"),
    [
        pytest.param("(?s-u).*", True, id="what most ask for"),
        pytest.param("a?", True, id="may be absent"),
        pytest.param("(?:a|)(?P<n>b*){2}", True, id="all parts may be"),
        pytest.param("(?:)", True, id="nothing"),
        pytest.param("^.*$", False, id="two places"),
        pytest.param("a*b", False, id="one part may not"),
        pytest.param(".+", False, id="one at least"),
    ],
)
def test_what_any_payload_matches_is_not_searched_for(regex: str, takes_everything: bool) -> None:
    assert Pattern(regex).takes_everything is takes_everything


SYNTAX = st.text(
    st.sampled_from("()[]{}^$.*+?|\\abAzxuUPp-&~:,0123<>=! #imsUwdDé_\ud800\U0001f389\n"),
    max_size=24,
)


@given(SYNTAX, st.binary(max_size=12))
def test_any_text_is_a_regex_or_refused(regex: str, searched: bytes) -> None:
    try:
        pattern = Pattern(regex)
    except InvalidRegexError:
        return
    assert pattern.matches(searched) is (pattern.search(searched) is not None)
    assert not pattern.takes_everything or pattern._engine.search(searched) is not None


@given(SYNTAX)
def test_a_translation_is_ascii_and_has_the_named_groups_only(regex: str) -> None:
    try:
        tree = parse(regex)
    except InvalidRegexError:
        return
    assert translate(tree, captures=False).isascii()
    assert translate(tree, captures=True).isascii()


CODES = st.integers(0, 0x10FFFF).filter(lambda code: not 0xD800 <= code <= 0xDFFF)
SETS = st.lists(st.tuples(CODES, st.integers(0, 300)), max_size=6).map(
    lambda spans: intersection(merged([(low, low + more) for low, more in spans]), SCALARS)
)


@settings(max_examples=60)
@given(SETS, st.lists(CODES, max_size=8))
def test_a_class_matches_its_characters_and_no_other(ranges: Ranges, others: list[int]) -> None:
    pattern = Pattern("a")  # for its engine's options
    engine = type(pattern._engine)(
        rf"\A{character_class(ranges)}\z".encode(), pattern._engine.options
    )
    edges = [edge for span in ranges for edge in (span[0] - 1, *span, span[1] + 1)]
    for code in [*edges, *others]:
        if 0 <= code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF:
            expected = any(low <= code <= high for low, high in ranges)
            assert (engine.search(chr(code).encode()) is not None) is expected, hex(code)


@given(SETS, SETS, CODES)
def test_sets_are_sets(left: Ranges, right: Ranges, code: int) -> None:
    def has(ranges: Ranges) -> bool:
        return any(low <= code <= high for low, high in ranges)

    assert has(merged([*left, *right])) is (has(left) or has(right))
    assert has(intersection(left, right)) is (has(left) and has(right))
    assert has(difference(left, right)) is (has(left) and not has(right))


@pytest.mark.slow
def test_classes_are_what_unicode_says() -> None:
    """Every character: the planes that are not looked at hold none."""
    digits, word = characters.digits(), characters.word()
    unassigned = characters.named("Cn")
    assert unassigned is not None
    for code in (*range(0xD800), *range(0xE000, 0x110000)):
        category = unicodedata.category(chr(code))
        assert _has(digits, code) == (category == "Nd")
        assert _has(unassigned, code) == (category == "Cn")
        if category[0] in "LM" or category in {"Nd", "Nl", "Pc"}:
            assert _has(word, code), hex(code)
        elif category in {"Cn", "Zs", "Po", "Sm", "No", "Co"}:
            assert not _has(word, code), hex(code)


def _has(ranges: Ranges, code: int) -> bool:
    low, high = 0, len(ranges)
    while low < high:
        middle = (low + high) // 2
        if ranges[middle][1] < code:
            low = middle + 1
        else:
            high = middle
    return low < len(ranges) and ranges[low][0] <= code


@pytest.mark.parametrize(
    ("name", "example", "other"),
    [
        ("lc", "a", "1"),
        ("Cased_Letter", "A", "1"),
        ("White Space", " ", "a"),
        ("assigned", "a", "\u0378"),
        ("any", "\u0378", None),
        ("Co", "\U00100000", "a"),
        ("gc=Nd", "1", "a"),
        ("P", "!", "a"),
    ],
)
def test_classes_have_names(name: str, example: str, other: str | None) -> None:
    pattern = Pattern(rf"^\p{{{name}}}$")
    assert pattern.matches(example.encode())
    assert other is None or not pattern.matches(other.encode())


def test_bytes_have_the_case_of_ascii() -> None:
    assert characters.folded_octets(((0x41, 0x42), (0x7A, 0x7A), (0xC0, 0xC0))) == (
        (0x41, 0x42),
        (0x5A, 0x5A),
        (0x61, 0x62),
        (0x7A, 0x7A),
        (0xC0, 0xC0),
    )
    assert difference(OCTETS, OCTETS) == ()
    assert not Pattern(r"(?-u)[^\x00-\xff]").matches(b"\x00a\xff")


def test_a_class_of_no_character_matches_nothing() -> None:
    assert not Pattern(r"[^\s\S]").matches(b"a \xff")
    assert not Pattern(r"[\x{d7ff}&&\x{e000}]").matches("\ud7ff\ue000".encode())


@pytest.mark.parametrize(
    "regex",
    [
        pytest.param(r"(?-u)(?:a+)+c", id="a repeat of a repeat"),
        pytest.param(r"(?-u)(?:a|a)*c", id="two ways each time"),
        pytest.param(r"(?-u)[ab]*a[ab]{60}c", id="more states than memory"),
        pytest.param(VERSIONED, id="one in the wild"),
    ],
)
def test_what_explodes_elsewhere_takes_a_moment(regex: str) -> None:
    """Where time is exponential, or memory unbounded, this would never end."""
    assert not Pattern(regex).matches(b"ab" * 20_000 + b"a" * 20_000)


def test_a_count_may_be_as_large_as_re2_counts() -> None:
    pattern = Pattern(rf"(?-u)^a{{{COUNT_MAX}}}$")
    assert pattern.matches(b"a" * COUNT_MAX)
    assert not pattern.matches(b"a" * (COUNT_MAX - 1))
