"""The demo's picture: the state of the feed, and how it fits a terminal."""

from __future__ import annotations

import re

import pytest

from exo_stream.cli.dashboard import Caption, Followed, bar, frame, shown
from exo_stream.cli.redrawn import Redrawn
from exo_stream.model import Entry

CAPTION = Caption(
    path="x.duckdb", url="ws://h:1/v1/ws", pid=7, follow="exo-stream follow", again="./scripts/run"
)


def entries(count: int) -> list[Entry]:
    return [Entry(0, b"telemetry/cpu/%d/percent" % n, b"%d.0" % n) for n in range(count)]


def followed(count: int) -> Followed:
    state = Followed()
    state.begin(4)
    state.take([Entry(0, b"telemetry/host", b"ada"), Entry(0, b"telemetry/old", b"1")])
    state.take_batch(5, 1_000_000, [*entries(count), Entry(0, b"telemetry/old", None)])
    return state


def test_the_state_is_the_fold_of_what_came() -> None:
    state = followed(2)
    assert state.rows == {
        b"telemetry/host": (b"ada", 0),
        b"telemetry/cpu/0/percent": (b"0.0", 5),
        b"telemetry/cpu/1/percent": (b"1.0", 5),
    }
    assert (state.sequence, state.batches) == (5, 1)
    state.begin(9)
    assert state.rows == {}


@pytest.mark.parametrize("color", [True, False])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (130, 40), (40, 10), (20, 5), (250, 60)])
def test_a_frame_fits_its_terminal(width: int, height: int, *, color: bool) -> None:
    lines = frame(followed(50), CAPTION, width=width, height=height, color=color)
    assert len(lines) < height
    if not color:
        assert max(map(len, lines)) <= width


def test_what_has_no_room_is_counted() -> None:
    text = "\n".join(frame(followed(50), CAPTION, width=80, height=24, color=False))
    told = re.search(r"and (\d+) more, in a larger terminal", text)
    assert told
    assert text.count("/percent") + int(told[1]) == 51


def test_keys_are_in_the_order_people_count() -> None:
    text = "\n".join(frame(followed(11), CAPTION, width=80, height=40, color=False))
    assert text.index("cpu/2/") < text.index("cpu/10/")
    assert text.index("kill -9 7") > 0


def test_a_picture_of_nothing_is_possible() -> None:
    assert frame(Followed(), CAPTION, width=80, height=24, color=False)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("cpu/percent", b"50.0", "█████░░░░░  50.0 %"),
        ("memory/used_bytes", b"2048", "2.0 KiB"),
        ("disk/sda/read_rate", b"2048", "2.0 KiB/s"),
        ("host", b"ada", "ada"),
        ("memory/used_bytes", b"many", "many"),
        ("processes/top/1", b"[]", "[]"),
        (
            "processes/top/1",
            b'{"pid": 1, "name": "init", "cpu_percent": 1.5, "memory_bytes": 4096}',
            "init 1   1.5 %  4.0 KiB",
        ),
    ],
)
def test_a_value_is_shown_with_the_unit_its_name_tells(
    name: str, value: bytes, expected: str
) -> None:
    assert shown(name, value, style="").plain == expected


@pytest.mark.parametrize(
    ("percent", "filled", "style"),
    [(-1, 0, "green"), (59, 6, "green"), (60, 6, "yellow"), (85, 8, "red"), (200, 10, "red")],
)
def test_a_bar_has_its_length_and_colour(percent: float, filled: int, style: str) -> None:
    text, colour = bar(percent)
    assert (text.count("█"), len(text), colour) == (filled, 10, style)


def test_a_frame_replaces_the_one_before() -> None:
    picture = Redrawn()
    assert "\x1b[2A" not in picture.draw(["a", "b"], size=(80, 24))
    assert "\x1b[2A\r" in picture.draw(["c", "d"], size=(80, 24))
    assert "\x1b[2J" in picture.draw(["e"], size=(81, 24))
    assert "\x1b[1A\r" in picture.draw(["f"], size=(81, 24))
