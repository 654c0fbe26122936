"""Whatever moment a process is killed at: a projection's tables and its cursor agree."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from exo_stream.storage.projection_file import Rows
from tests.torture import projector as child
from tests.torture.projecting import Ledger, check_balances, check_journal, one_life

LIVES = 24
KILLS_MIN = 6
SECONDS_MAX = 25
"""No measure: on a machine that is busy with other things fewer lives have to do."""


@pytest.mark.slow
async def test_x14_killed_projections_have_applied_each_event_once(tmp_path: Path) -> None:
    ledger, dice = Ledger(tmp_path / "file"), random.Random("projections")
    deadline = trio.current_time() + SECONDS_MAX
    for life in range(1, 10 * LIVES):
        await one_life(ledger, dice)
        kills = ledger.deaths.total()
        if kills >= KILLS_MIN and (life >= LIVES or trio.current_time() > deadline):
            break
    assert ledger.deaths.total() >= KILLS_MIN
    assert ledger.heard["opened"] > 0
    assert min(ledger.applied.values()) > 0


def test_the_ledger_notices_what_it_is_for(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "file")
    ledger.hear("applied balances 5")
    with pytest.raises(AssertionError, match="went back"):
        ledger.hear("applied balances 4")
    events = [child.event_of(0, 1, 30), child.event_of(1, 2, 5)]
    whole: Rows = list(enumerate(child.balances_after(events)))
    check_balances(events, [whole], [])
    half: Rows = [(0, 970), *whole[1:2], (2, 1_000), *whole[3:]]
    for rows in (half, whole[1:], [(0, 1_000), *whole[1:]]):
        with pytest.raises(AssertionError):
            check_balances(events, [rows], [])
    check_journal(events, [[(1, 5)], [(5,)]], [(0, events[0])])
    told: tuple[tuple[list[Rows], list[tuple[int, bytes]]], ...] = (
        ([[(1, 5)], [(35,)]], [(0, events[0])]),
        ([[(1, 5)], [(5,)]], []),
        ([[(0, 30), (1, 5)], [(5,)]], [(0, events[0])]),
        ([[], [(0,)]], [(0, events[0])]),
    )
    for tables, letters in told:
        with pytest.raises(AssertionError):
            check_journal(events, tables, letters)
