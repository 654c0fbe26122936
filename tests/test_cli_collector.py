"""A program that stays lets the collector look seldom; a command that ends leaves it alone."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from exo_stream.cli.collector import ALLOCATIONS, MIDDLE, OLD, collect_seldom
from exo_stream.cli.program import main


@pytest.fixture(autouse=True)
def the_collector_as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_it_looks_seldom_and_not_at_what_is_there() -> None:
    collect_seldom()
    assert gc.get_threshold() == (ALLOCATIONS, MIDDLE, OLD)
    assert gc.get_freeze_count() > 0


def test_a_command_that_ends_leaves_the_collector_alone() -> None:
    before = gc.get_threshold()
    assert main(["get", "key", "--url", "ws://127.0.0.1:1/v1/ws"]) != 0
    assert gc.get_threshold() == before
