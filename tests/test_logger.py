"""The logger: all that happens for who configured structlog, and no noise for who did not."""

from __future__ import annotations

import subprocess
import sys

import pytest
import structlog
from structlog.testing import capture_logs

from exo_stream.logger import LEVELS, log

PROGRAM = """
import sys, trio, exo_stream
from exo_stream.testing import connected

async def main() -> None:
    async with exo_stream.open_platform(sys.argv[1]) as platform:
        async with connected(platform) as client:
            await client.put_batch([(b"k", b"v")])

trio.run(main)
print("structlog" in sys.modules)
"""


def test_who_configured_structlog_hears_everything() -> None:
    with capture_logs() as heard:
        for level in LEVELS:
            getattr(log, level)("something happened", count=1)
    assert [event["log_level"] for event in heard] == [*LEVELS[:-1], "error"]
    assert heard[0] == {"event": "something happened", "count": 1, "log_level": "debug"}


def test_who_did_not_is_told_what_matters_beside_its_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    structlog.reset_defaults()
    for level in LEVELS:
        getattr(log, level)(f"{level} happened", count=1)
    said, told = capsys.readouterr()
    assert said == ""
    assert [level for level in LEVELS if f"{level} happened" in told] == [
        "warning",
        "error",
        "exception",
    ]


def test_it_has_the_levels_and_nothing_else() -> None:
    assert not hasattr(log, "bind")
    assert not hasattr(log, "warn")


@pytest.mark.slow  # a process is started
def test_an_ordinary_life_says_nothing_and_imports_no_structlog(tmp_path: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"{tmp_path}/feed.duckdb"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("False\n", "")
