"""Each command, against a server process: what it prints, and what it exits with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from exo_stream import backup_errors, errors, stream_errors
from exo_stream.cli import exit_codes
from exo_stream.cli.exit_codes import BY_CODE, CONFLICT, ERROR, NOT_FOUND, OK, UNAVAILABLE, USAGE
from exo_stream.errors import ExoStreamError
from exo_stream.protocol.failures import ServerError, below
from tests.pages import ROOT
from tests.served import EXO_STREAM, GUARD_SECONDS, Said, Served, environment, serving, speak

pytestmark = pytest.mark.slow  # a server is started, and each command opens a connection


Say = Callable[..., Said]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served") / "x.duckdb") as server:
        yield server


@pytest.fixture
def say(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Say:
    """The command line, in this process."""

    monkeypatch.delenv("EXO_STREAM_URL", raising=False)
    return partial(speak, capfdbinary)


@pytest.fixture
def ask(say: Say, served: Served, monkeypatch: pytest.MonkeyPatch) -> Say:
    """The command line, talking to the server."""
    monkeypatch.setenv("EXO_STREAM_URL", served.url)
    return say


def feed_stdin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes) -> None:
    """Let file descriptor 0 be a file of this content."""
    path = tmp_path / "stdin"
    path.write_bytes(content)
    source = os.open(path, os.O_RDONLY)
    monkeypatch.setattr("exo_stream.cli.publish.STDIN", source)


def test_a_cursor_that_was_evicted_comes_with_advice(say: Say, tmp_path: Path) -> None:
    file = tmp_path / "cursor"
    with serving(tmp_path / "x.duckdb") as server:
        ask = partial(say, "--url", server.url)
        ask("put", "k", "1")
        assert ask("follow", "--count", "1", "--cursor-file", file).code == OK
        ask("put", "k", "2")
        ask("prune", "3")
        done = ask("follow", "--cursor-file", file)
        assert done.code == NOT_FOUND
        assert done.sentence.endswith(
            f"batch is 3; remove {file} to begin again, with --snapshot to have the table first"
        )
        cursor = file.read_text().strip()
        assert ask("follow", "--after", cursor).sentence.endswith("oldest retained batch is 3")


def test_what_was_put_can_be_got(ask: Say) -> None:
    sequence = int(ask("put", "greeting", "grüße").out)
    assert ask("get", "greeting") == Said(OK, "grüße".encode(), "")
    assert ask("get", "greeting", "--json").objects == [
        {"key": "greeting", "value": "grüße", "version": sequence, "sequence": sequence}
    ]


def test_any_bytes_can_be_put_and_come_back_unchanged(ask: Say) -> None:
    assert ask("put", "base64:/wA=", "base64:AP8K").code == OK
    assert ask("get", "base64:/wA=").out == b"\x00\xff\n"
    [told] = ask("get", "base64:/wA=", "--json").objects
    assert (told["key_b64"], told["value_b64"]) == ("/wA=", "AP8K")


def test_a_key_that_is_not_there_is_not_found(ask: Say) -> None:
    assert ask("get", "nothing") == Said(
        NOT_FOUND, b"", "exo-stream get: there is no key 'nothing'\n"
    )


def test_deleting_is_one_batch_and_twice_is_no_error(ask: Say) -> None:
    ask("put", "gone/1", "x")
    [told] = ask("delete", "gone/1", "gone/2", "--json").objects
    [batch] = ask("batch", str(told["sequence"]), "--json").objects
    assert batch["entries"] == [{"key": "gone/1", "value": None}, {"key": "gone/2", "value": None}]
    assert ask("get", "gone/1").code == NOT_FOUND
    assert ask("delete", "gone/1").code == OK
    assert ask("batch", str(told["sequence"])).lines == ["gone/1\t(deleted)", "gone/2\t(deleted)"]


def test_a_requirement_that_does_not_hold_is_a_conflict(ask: Say) -> None:
    sequence = int(ask("put", "once", "1", "--require", "absent").out)
    refused = ask("put", "once", "2", "--require", "absent")
    assert (refused.code, refused.out) == (CONFLICT, b"")
    assert refused.err == f"exo-stream put: key b'once' is at version {sequence}\n"
    assert ask("put", "once", "2", "--require", str(sequence)).code == OK
    assert ask("delete", "never", "--require", "present").code == CONFLICT


def test_a_scan_is_bounded_ordered_and_limited(ask: Say) -> None:
    for name in "abcd":
        ask("put", f"scan/{name}", name)
    assert ask("scan", "--prefix", "scan/").lines == [f"scan/{c}\t{c}" for c in "abcd"]
    assert ask("scan", "--prefix", "scan/", "--reverse", "--limit", "1").lines == ["scan/d\td"]
    assert ask("scan", "--start", "scan/b", "--end", "scan/c").lines == ["scan/b\tb", "scan/c\tc"]
    assert ask("scan", "--prefix", "scan/", "--start", "scan/d", "--json").objects == [
        {"key": "scan/d", "value": "d"}
    ]
    for nothing in (
        ["--limit", "0"],
        ["--start", "z", "--end", "y"],
        ["--prefix", "x", "--end", "a"],
    ):
        assert ask("scan", *nothing) == Said(OK, b"", "")


def test_a_batch_that_is_not_there_yet_is_not_found(ask: Say) -> None:
    assert ask("batch", "1000000").err == "exo-stream batch: there is no batch 1000000 yet\n"
    assert ask("batch", "1000000").code == NOT_FOUND


def test_info_tells_the_log_and_its_sizes(ask: Say, served: Served) -> None:
    [told] = ask("info", "--json").objects
    assert told["log_id"] == served.log_id
    lines = dict(line.split("  ", 1) for line in ask("info").lines)
    assert "file bytes" in lines
    assert served.log_id in lines["log id"]


def test_the_lines_of_a_file_are_published_in_order(
    ask: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    feed_stdin(monkeypatch, tmp_path, b"".join([b"line %d\n" % n for n in range(20_000)]))
    [told] = ask("publish", "--prefix", "file/", "--json").objects
    assert told["lines"] == 20_000
    values = [str(row["value"]) for row in ask("scan", "--prefix", "file/", "--json").objects]
    assert values == [f"line {n}" for n in range(20_000)]


def test_a_field_of_each_line_can_be_its_key(
    ask: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    feed_stdin(monkeypatch, tmp_path, b'{"id": 1}\n{"id": 2}\n{"no": 3}\n{"id": 4}\n')
    said = ask("publish", "--prefix", "field/", "--key-field", "id")
    assert said.code == USAGE
    told, wrong = said.err.splitlines()
    assert told.startswith("exo-stream publish: 2 lines in 1 batch, through sequence ")
    assert wrong == "exo-stream publish: line 3 is no JSON object with a field 'id'"
    assert [row["key"] for row in ask("scan", "--prefix", "field/", "--json").objects] == [
        "field/1",
        "field/2",
    ]


def test_an_empty_input_publishes_nothing(
    ask: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [before] = ask("info", "--json").objects
    feed_stdin(monkeypatch, tmp_path, b"")
    assert ask("publish") == Said(OK, b"there was nothing to publish\n", "")
    [after] = ask("info", "--json").objects
    assert after["frontier"] == before["frontier"]


def test_a_follower_goes_on_where_its_cursor_file_says(ask: Say, tmp_path: Path) -> None:
    for n in range(4):
        ask("put", "follow/key", str(n))
    file = ["--cursor-file", str(tmp_path / "cursor"), "--prefix", "follow/"]
    assert [line.split("\t")[2] for line in ask("follow", *file, "--count", "2").lines] == [
        "0",
        "1",
    ]
    batches = [m for m in ask("follow", *file, "--count", "2", "--json").objects if "entries" in m]
    assert [batch["entries"] for batch in batches] == [
        [{"key": "follow/key", "value": "2"}],
        [{"key": "follow/key", "value": "3"}],
    ]
    assert (tmp_path / "cursor").read_text() == f"{batches[-1]['cursor']}\n"


def test_a_snapshot_is_followed_by_what_is_new(ask: Say, tmp_path: Path) -> None:
    ask("put", "snap/a", "1")
    cursor_file = tmp_path / "cursor"
    follow = [*EXO_STREAM, "follow", "--prefix", "snap/", "--snapshot", "--json", "--count", "1"]
    with subprocess.Popen(
        [*follow, "--cursor-file", str(cursor_file)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert [message["type"] for message in told] == [
            "snapshot_begin",
            "snapshot_page",
            "snapshot_end",
        ]
        assert told[1]["entries"] == [{"key": "snap/a", "value": "1"}]
        ask("put", "snap/b", "2")
        rest = [json.loads(line) for line in process.stdout]
        assert process.wait(GUARD_SECONDS) == OK
    assert rest[-1]["entries"] == [{"key": "snap/b", "value": "2"}]
    assert cursor_file.read_text() == f"{rest[-1]['cursor']}\n"


@pytest.mark.parametrize(
    "start", [["--last", "1"], ["--since", "1h"], ["--start", "oldest"], ["--from-sequence", "1"]]
)
def test_a_follower_can_start_anywhere(ask: Say, start: list[str]) -> None:
    ask("put", "start", "x")
    assert ask("follow", *start, "--count", "1").code == OK


def test_what_was_pruned_is_said_to_be_gone(ask: Say, served: Served) -> None:
    sequence = int(ask("put", "prune", "x").out)
    assert int(ask("prune", str(sequence)).out) > 0
    assert ask("prune", str(sequence), "--json").objects == [{"evicted": 0}]
    gone = ask("follow", "--from-sequence", "1", "--count", "1")
    assert gone.code == NOT_FOUND
    assert gone.err == f"exo-stream follow: evicted: the oldest retained batch is {sequence}\n"
    assert ask("batch", "1").code == NOT_FOUND
    ahead = ask("follow", "--after", f"{served.log_id}.{1 << 40:016x}")
    assert ahead.code == CONFLICT
    assert ask("follow", "--after", f"{'0' * 32}.{1:016x}").code == CONFLICT


def test_a_bench_leaves_no_keys_behind(ask: Say) -> None:
    said = ask("bench", "--seconds", "0.05", "--tasks", "2", "--json")
    assert said.code == OK
    assert len(said.objects) == 5
    assert all(isinstance(row["count"], int) and row["count"] > 0 for row in said.objects)
    assert ask("scan", "--prefix", "bench/").lines == []
    hardly_any_time = ask("bench", "--seconds", "0.000001", "--tasks", "1")
    assert len(hardly_any_time.lines) == 5, hardly_any_time


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["put", "k" * 255, "v"], "exo-stream put: key_bytes_max is 254, but this is 255"),
        (["get", "k" * 255], "exo-stream get: key_bytes_max is 254, but this is 255"),
        (["put", "base64:!", "v"], "exo-stream: not base64: 'base64:!'"),
        (["follow", "--after", "7"], "exo-stream follow: not a cursor: '7'"),
        (
            ["follow", "--after", "7", "--cursor-file", "c"],
            "exo-stream follow: --after and --cursor-file both say where to resume; choose one",
        ),
        (
            ["get", "k", "--url", "http://127.0.0.1/"],
            (
                "exo-stream get: a server is named like ws://127.0.0.1:4437/v1/ws,"
                " not 'http://127.0.0.1/'"
            ),
        ),
    ],
)
def test_what_breaks_a_rule_is_said_in_one_sentence(
    ask: Say, words: list[str], sentence: str
) -> None:
    assert ask(*words) == Said(USAGE, b"", sentence + "\n")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["bogus"],
        ["put", "key"],
        ["get", "key", "--unknown"],
        ["delete"],
        ["batch", "-1"],
        ["batch", "one"],
        ["batch", str(1 << 64)],
        ["prune", "1.5"],
        ["scan", "--limit", "many"],
        ["put", "k", "v", "--require", "perhaps"],
        ["follow", "--since", "yesterday"],
        ["follow", "--since", "999999d"],
        ["follow", "--since", "99999999999d"],
        ["follow", "--start", "middle"],
        ["follow", "--last", "1", "--snapshot"],
        ["follow", "--count", "0"],
        ["publish", "--patience", "-1"],
        ["publish", "--patience", "long"],
        ["serve", "x", "--listen", "4437"],
        ["serve", "x", "--listen", "localhost:99999"],
        ["serve", "x", "--retention-batches", "0"],
        ["serve"],
    ],
    ids=" ".join,
)
def test_what_is_no_command_is_said_in_one_sentence(say: Say, words: list[str]) -> None:
    said = say(*words)
    assert (said.code, said.out) == (USAGE, b"")
    assert said.err.count("\n") == 1
    assert said.err.startswith("exo-stream")


@pytest.mark.parametrize("command", ["", "serve", "publish", "follow", "repair-wal"])
def test_help_is_an_answer(say: Say, command: str) -> None:
    said = say(*command.split(), "--help")
    assert said.code == OK
    assert said.lines[0].startswith("usage: exo-stream")


def test_no_server_is_unavailable(say: Say) -> None:
    said = say("get", "key", "--url", "ws://127.0.0.1:1/v1/ws")
    assert said.code == UNAVAILABLE
    assert said.err.count("\n") == 1
    assert "127.0.0.1:1" in said.err


def test_a_server_that_is_not_ours_is_unavailable(say: Say) -> None:
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().split("port ")[1].split()[0]
            said = say("get", "key", "--url", f"ws://127.0.0.1:{port}/v1/ws")
        finally:
            process.kill()
    assert said.code == UNAVAILABLE
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err


def test_a_bug_is_called_one_and_shown_only_on_demand(
    ask: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exo_stream.cli.reads.readable", None)
    said = ask("get", "nothing")
    assert said.code == ERROR
    assert said.err.startswith("exo-stream get: a bug: TypeError: ")
    assert said.err.count("\n") == 1
    assert "Traceback" in ask("get", "nothing", "--debug").err


MODULES = {module.__name__ for module in (errors, stream_errors, backup_errors)}


def test_every_error_has_its_exit_code() -> None:
    ours = {kind.code for kind in below(ExoStreamError) if kind.__module__ in MODULES}
    assert ours == set(BY_CODE)
    assert exit_codes.exit_code(ServerError("newer", "of a newer server", retryable=False)) == ERROR


def test_the_documentation_has_the_same_table() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text()
    rows = re.findall(r"^\| (\d) \| .* \| (.*) \|$", page, re.MULTILINE)
    told = {code: int(exit_code) for exit_code, row in rows for code in re.findall(r"`(\w+)`", row)}
    assert told == BY_CODE


def test_a_reader_that_has_enough_ends_the_command_quietly(ask: Say, served: Served) -> None:
    for n in range(3):
        ask("put", "pipe", str(n))
    shell = f"{' '.join(EXO_STREAM)} follow --start oldest | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", shell],
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        check=True,
        env=environment(EXO_STREAM_URL=served.url),
    )
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


def test_a_reader_that_is_gone_is_noticed_in_the_middle_too(ask: Say, served: Served) -> None:
    ask("put", "pipe", "x" * 100_000)
    shell = f"{' '.join(EXO_STREAM)} get pipe | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", shell],
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        check=True,
        env=environment(EXO_STREAM_URL=served.url),
    )
    assert (done.stdout, done.stderr) == ("x0\n", "")


def test_the_module_is_the_program() -> None:
    done = subprocess.run(
        [*EXO_STREAM, "--help"], capture_output=True, text=True, timeout=GUARD_SECONDS, check=True
    )
    assert done.stdout.startswith("usage: exo-stream")
