"""Standard error: where it cannot be written, nothing else is different."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

import pytest
import structlog

from exo_stream.cli import logs, program
from exo_stream.cli.exit_codes import UNAVAILABLE, USAGE
from exo_stream.cli.standard_error import say
from exo_stream.logger import LEVELS, log


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the test: pytest sets streams of its own between a fixture and its test."""
    with (
        TextIOWrapper(Path("/dev/full").open("wb", buffering=0), write_through=True) as full,
        monkeypatch.context() as patched,
    ):
        patched.setattr(sys, "stderr", full)
        yield


def test_a_line_is_written_whole(capsys: pytest.CaptureFixture[str]) -> None:
    say("space ran out")

    assert capsys.readouterr() == ("", "space ran out\n")


@pytest.mark.parametrize("is_configured", [True, False])
def test_an_event_on_a_full_disk_is_no_error(
    monkeypatch: pytest.MonkeyPatch, is_configured: bool
) -> None:
    structlog.reset_defaults()
    with full_disk(monkeypatch):
        if is_configured:
            logs.configure("DEBUG")
        for level in LEVELS:
            getattr(log, level)("space ran out", batches=1)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("get key --url ws://127.0.0.1:1/v1/ws", UNAVAILABLE),
        ("--debug get key --url ws://127.0.0.1:1/v1/ws", UNAVAILABLE),
        ("serve", USAGE),
    ],
)
def test_an_error_that_cannot_be_told_has_the_same_exit_code(
    monkeypatch: pytest.MonkeyPatch, words: str, code: int
) -> None:
    with full_disk(monkeypatch):
        assert program.main(words.split()) == code
