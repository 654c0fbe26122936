"""Durable Streams' own conformance suite, whole, against a server on a file.

Once as it is, and once more with the server killed and started anew before each group of tests:
then only what is in the file can pass.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.node_programs import bin_of, node_environment, node_folder
from tests.pages import ROOT

pytestmark = pytest.mark.slow  # a server, node, and tests that wait for time to pass

GUARD_SECONDS = 280
TESTS = 338
"""How many the suite has: fewer would mean that some were not found."""

SUBSCRIPTIONS = "1"
"""``"1"`` asks for the reserved subscription routes too; without them six tests are left out."""

LEFT_OUT = set() if SUBSCRIPTIONS else {"Reserved subscription APIs"}


@pytest.mark.parametrize("restarts", ["", "1"], ids=["in one life", "killed between groups"])
def test_the_conformance_suite_passes(tmp_path: Path, restarts: str) -> None:
    file, report = tmp_path / "x.duckdb", tmp_path / "report.json"
    # A hold that is short enough for tests that wait for its end.
    serve = [sys.executable, "-m", "exo_stream", "serve", str(file), "--json", "--long-poll", "0.5"]
    serve.append("--webhook-loopback")  # the suite receives its webhooks on this machine
    done = subprocess.run(
        [
            bin_of("vitest"),
            "run",
            "streams-conformance.test.mjs",
            "--reporter=json",
            f"--outputFile={report}",
            "--testTimeout=20000",  # a guard: a loaded machine is no failure
            "--hookTimeout=60000",
        ],
        cwd=node_folder(),
        env=node_environment()
        | {
            "PYTHONPATH": str(ROOT),  # the server's folder is another
            "STREAMS_SERVER": json.dumps([*serve, "--log-level", "WARNING"]),
            "STREAMS_RESTART": restarts,
            "STREAMS_SUBSCRIPTIONS": SUBSCRIPTIONS,
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
    failed = {
        result["fullName"]: result["failureMessages"]
        for result in results
        if result["status"] == "failed"
    }
    left_out = {r["ancestorTitles"][0] for r in results if r["status"] not in {"passed", "failed"}}

    assert failed == {}
    assert left_out == LEFT_OUT
    assert len(results) == TESTS
    checked = subprocess.run(
        [sys.executable, "-m", "exo_stream", "verify", str(file)], check=False, cwd=ROOT
    )
    assert checked.returncode == 0
