"""Durable Streams' own conformance suite, whole, against a server on a file.

Once as it is, and once more with the server killed and started anew before each group of tests:
then only what is in the file can pass.
"""

from __future__ import annotations

import faulthandler
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.node_programs import bin_of, node_environment, node_folder
from tests.pages import ROOT

pytestmark = pytest.mark.slow  # a server, node, and tests that wait for time to pass

GUARD_SECONDS = 900
"""A guard against hanging, never a measure."""

TESTS = 338
"""How many the suite has: fewer would mean that some were not found."""

BY_THE_CLOCK = {"TTL Expiration Behavior", "Fork - TTL and Expiry"}
"""Groups whose tests come back to a stream half a second before it would expire: a machine that
is busy elsewhere for so long makes them fail, whatever the server does. They may be asked twice.
"""


def run(file: Path, report: Path, *only: str, restarts: str) -> list[dict[str, Any]]:
    """What became of each test of the suite, or of those of some groups ``only``."""
    serve = [sys.executable, "-m", "tests.server_lives", "serve", str(file), "--json"]
    # A hold that is short enough for tests that wait for its end.
    serve += ["--listen", "127.0.0.1:0", "--long-poll", "0.5", "--log-level", "WARNING"]
    serve.append("--webhook-loopback")  # the suite receives its webhooks on this machine
    command = [bin_of("vitest"), "run", "streams-conformance.test.mjs", "--reporter=json"]
    command += [f"--outputFile={report}"]
    # Guards: a loaded machine is no failure.
    command += ["--testTimeout=20000", "--hookTimeout=60000"]
    if only:
        command.append(f"--testNamePattern={'|'.join(map(re.escape, only))}")
    done = subprocess.run(
        command,
        cwd=node_folder(),
        # What is killed could not say what it covered, and to find out would take half of its time.
        env={name: value for name, value in node_environment().items() if "COVERAGE" not in name}
        | {
            "PYTHONPATH": str(ROOT),  # the server's folder is another
            "STREAMS_SERVER": json.dumps(serve),
            "STREAMS_RESTART": restarts,
        },
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        check=False,
    )
    assert report.exists(), (done.stdout, done.stderr)
    results = [
        result
        for ran in json.loads(report.read_text())["testResults"]
        for result in ran["assertionResults"]
    ]
    # Nothing but a test may have failed, such as the server's end.
    assert done.returncode == (1 if failures_of(results) else 0), (done.stdout, done.stderr)
    return results


def failures_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The messages of those that failed, by the groups and names of the tests."""
    failed = [result for result in results if result["status"] == "failed"]
    return {result["fullName"]: result["failureMessages"] for result in failed}


@pytest.mark.parametrize("restarts", ["", "1"], ids=["in one life", "killed between groups"])
def test_the_conformance_suite_passes(tmp_path: Path, restarts: str) -> None:
    faulthandler.cancel_dump_traceback_later()  # its guard is its own
    file = tmp_path / "x.duckdb"
    results = run(file, tmp_path / "report.json", restarts=restarts)
    assert {result["status"] for result in results} <= {"passed", "failed"}, "none is left out"
    assert len(results) == TESTS
    failed = failures_of(results)
    groups = {r["ancestorTitles"][0] for r in results if r["fullName"] in failed}
    if groups and groups <= BY_THE_CLOCK:
        failed = failures_of(run(file, tmp_path / "again.json", *groups, restarts=restarts))
    assert failed == {}
    checked = subprocess.run(
        [sys.executable, "-m", "exo_stream", "verify", str(file)], check=False, cwd=ROOT
    )
    assert checked.returncode == 0
