"""What is imported when: an embedder pays for no client, and a command only for what it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import exo_stream

LOADED = "import sys; print(*sys.modules)"


def loaded(statement: str) -> set[str]:
    """The modules that are there after one statement, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}; {LOADED}"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.slow  # processes are started
@pytest.mark.parametrize(
    ("statement", "left_alone"),
    [
        (
            "import exo_stream",
            {"duckdb", "trio_websocket", "httptools", "psutil", "structlog", "rich", "asyncio"},
        ),
        ("import exo_stream.cli", {"duckdb", "trio_websocket", "httptools", "psutil"}),
        ("import exo_stream.cli.writes", {"duckdb", "httptools", "psutil"}),
        ("from exo_stream import connect, Client", {"duckdb", "httptools", "psutil", "rich"}),
    ],
)
def test_what_is_not_needed_is_not_imported(statement: str, left_alone: set[str]) -> None:
    assert loaded(statement) & left_alone == set()


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'exo_stream' has no attribute 'nothing'"):
        _ = exo_stream.nothing  # type: ignore[attr-defined]  # the point
