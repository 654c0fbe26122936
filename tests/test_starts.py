"""Starts: the one that was meant, in numbers that every side can carry, or a refusal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from exo_stream.errors import InvalidRequestError
from exo_stream.model import SEQUENCE_MAX, Cursor
from exo_stream.starts import (
    After,
    FromEvent,
    FromSequence,
    FromSnapshot,
    Last,
    Now,
    Oldest,
    Since,
    Start,
    chosen_start,
)
from tests.wire_examples import CURSOR

SECOND_ONE = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("chosen", "start"),
    [
        ({}, Oldest()),
        ({"start": "oldest"}, Oldest()),
        ({"start": "now"}, Now()),
        ({"snapshot": True}, FromSnapshot()),
        ({"after": CURSOR}, After(CURSOR)),
        ({"after": str(CURSOR), "snapshot": True}, After(CURSOR)),
        ({"from_sequence": 3}, FromSequence(3)),
        ({"from_sequence": SEQUENCE_MAX}, FromSequence(SEQUENCE_MAX)),
        ({"from_event": 0}, FromEvent(0)),
        ({"last": 10}, Last(10)),
        ({"last": -1}, Last(0)),
        ({"last": 1 << 70}, Last(SEQUENCE_MAX)),
        ({"since_time": SECOND_ONE}, Since(1_000_000)),
        ({"since_time": SECOND_ONE.replace(year=1960)}, Since(0)),
    ],
)
def test_one_start_is_meant(chosen: dict[str, Any], start: Start) -> None:
    assert chosen_start(**chosen) == start


@pytest.mark.parametrize(
    "chosen",
    [
        {"start": "newest"},
        {"start": "now", "last": 3},
        {"snapshot": True, "from_sequence": 3},
        {"from_sequence": 0},
        {"from_sequence": SEQUENCE_MAX + 1},
        {"from_sequence": True},
        {"from_event": -1},
        {"from_event": 0, "from_sequence": 1},
        {"last": 1.5},
        {"after": 7},
        {"after": "yesterday"},
        {"since_time": 1_700_000_000},
        {"since_time": SECOND_ONE.replace(tzinfo=None)},
    ],
)
def test_what_is_no_start_or_more_than_one_is_refused(chosen: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        chosen_start(**chosen)


def test_a_cursor_is_handed_on_as_it_was_given() -> None:
    assert chosen_start(after=Cursor("f" * 32, 0)) == After(Cursor("f" * 32, 0))
