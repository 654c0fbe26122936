"""Bytes and messages as text, as JSON, and as lines of a feed."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.cli.feed_text import Aligned, as_columns, as_json, fitted
from exo_stream.cli.logs import bytes_as_text
from exo_stream.cli.output import is_colourful
from exo_stream.cli.tables import drawn
from exo_stream.cli.wording import (
    counted,
    from_argument,
    json_line,
    message_object,
    named,
    readable,
    remark,
    size,
    text,
)
from exo_stream.errors import InvalidRequestError
from exo_stream.feed import (
    CaughtUp,
    FeedMessage,
    FellBehind,
    Heartbeat,
    Progress,
    SnapshotBegin,
    SnapshotEnd,
    SnapshotPage,
)
from exo_stream.model import Batch, Cursor, Entry

LOG = "0" * 32
CURSOR = Cursor(LOG, 7)
BATCH = Batch(7, 0, (Entry(0, b"a", b"1"), Entry(0, b"b", None), Entry(0, b"\xff", b"\xfe")), LOG)
PAGE = SnapshotPage(6, (Entry(0, b"a", b"1"),))


def test_what_a_batch_looks_like_as_json() -> None:
    assert message_object(BATCH) == {
        "sequence": 7,
        "cursor": f"{LOG}.0000000000000007",
        "entries": [
            {"key": "a", "value": "1"},
            {"key": "b", "value": None},
            {"key_b64": "/w==", "value_b64": "/g=="},
        ],
    }


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (SnapshotBegin(7), {"type": "snapshot_begin", "sequence": 7}),
        (
            PAGE,
            {"type": "snapshot_page", "sequence": 6, "entries": [{"key": "a", "value": "1"}]},
        ),
        (SnapshotEnd(CURSOR), {"type": "snapshot_end", "cursor": str(CURSOR)}),
        (CaughtUp(CURSOR), {"type": "caught_up", "cursor": str(CURSOR)}),
        (FellBehind(CURSOR, 3), {"type": "fell_behind", "cursor": str(CURSOR), "behind": 3}),
        (Progress(CURSOR), {"type": "progress", "cursor": str(CURSOR)}),
        (Heartbeat(9), {"type": "heartbeat", "frontier": 9}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_messages_have_a_type(message: FeedMessage, expected: object) -> None:
    assert json.loads(as_json(message)) == message_object(message) == expected


@given(st.binary())
def test_any_value_survives_json(data: bytes) -> None:
    [(name, told)] = json.loads(json_line(named("value", data))).items()
    assert (base64.b64decode(told) if name == "value_b64" else told.encode()) == data


@given(st.binary())
def test_what_is_readable_is_one_line_that_no_terminal_obeys(data: bytes) -> None:
    shown = readable(data)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)


def test_controls_are_shown_and_not_obeyed() -> None:
    assert readable("a\x1b[2J\n\t\u202eb".encode()) == "a\\x1b[2J\\n\\t\\u202eb"
    assert "\x9b" not in json_line({"value": "\x9b2J"})


@given(st.binary())
def test_any_bytes_can_be_given_as_an_argument(data: bytes) -> None:
    assert from_argument("base64:" + base64.b64encode(data).decode()) == data


def test_an_argument_is_utf8_text() -> None:
    assert from_argument("grüße") == "grüße".encode()
    assert text(b"\xff") is None


def test_an_argument_that_is_not_base64_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="not base64: 'base64:!'"):
        from_argument("base64:!")


def test_only_what_a_person_wants_to_know_is_remarked() -> None:
    said = [remark(m) for m in (SnapshotBegin(7), SnapshotEnd(CURSOR), CaughtUp(CURSOR))]
    assert all(said)
    assert remark(FellBehind(CURSOR, 1)) == "1 batch behind"
    assert [remark(m) for m in (Progress(CURSOR), Heartbeat(7), BATCH)] == [None] * 3


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (1 << 20, "1.0 MiB"), (300 << 30, "300 GiB")],
)
def test_sizes_are_short(count: int, expected: str) -> None:
    assert size(count) == expected


def test_very_large_sizes_and_many_things() -> None:
    assert size(5 << 40) == "5.0 TiB"
    assert [counted(1, "line", "lines"), counted(2000, "line", "lines")] == [
        "1 line",
        "2,000 lines",
    ]


def test_columns_are_divided_by_tabs() -> None:
    assert as_columns(BATCH) == "7\ta\t1\n7\tb\n7\tbase64:/w==\tbase64:/g==\n"
    assert as_columns(PAGE) == "6\ta\t1\n"
    assert as_columns(CaughtUp(CURSOR)) == ""


def test_a_terminal_gets_aligned_lines_that_fit() -> None:
    lines = Aligned(color=False)
    long = Batch(8, 0, (Entry(0, b"a-longer-key", b"x" * 200), Entry(0, b"b", b"2")), LOG)
    first, second = lines.render(long, 60).splitlines()
    assert first.endswith("…")
    assert len(first) <= 60
    assert first.index("xxx") == second.index("2", 20)
    assert second.startswith(" " * 17)
    assert lines.render(PAGE, 60).split() == ["a", "1"]
    assert "caught up" in lines.render(CaughtUp(CURSOR), 60)
    assert lines.render(Heartbeat(1), 60) == ""


def test_colours_mark_the_sequence_and_deletions() -> None:
    shown = Aligned(color=True).render(BATCH, 80)
    assert "\x1b[31mdeleted\x1b[0m" in shown
    assert "\x1b[32m       7" in shown


def test_wide_characters_are_cut_by_their_width() -> None:
    assert fitted("日本語" * 10, 11) == "日本語日本…"
    assert fitted("short", 11) == "short"


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert is_colourful()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not is_colourful()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not is_colourful()


def test_a_table_has_a_head_and_folds_what_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    lines = drawn(["key", "value"], [("a", "x" * 50), ("[b]", "2")], width=30).splitlines()
    text = "\n".join(lines)
    assert lines[1].split() == ["key", "value"]
    assert text.count("x") == 50
    assert max(map(len, lines)) <= 30
    assert "[b]" in text  # and is no markup


def test_bytes_in_log_events_become_text() -> None:
    event = bytes_as_text(None, "info", {"key": b"a\xff", "count": 1})
    assert event == {"key": "a\\xff", "count": 1}
