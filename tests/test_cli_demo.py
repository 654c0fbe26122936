"""The demo: real telemetry, served, followed, killed and resumed."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from exo_stream.cli.arguments import URL, parser
from exo_stream.cli.demo import caption
from exo_stream.cli.exit_codes import OK, UNAVAILABLE
from tests.served import EXO_STREAM, GUARD_SECONDS, Said, environment, speak

pytestmark = pytest.mark.slow  # it takes readings, and processes are started

QUICK = ["--interval", "0.05"]
ANY_PORT = ["--listen", "127.0.0.1:0"]

Say = Callable[..., Said]


@pytest.fixture
def say(capfdbinary: pytest.CaptureFixture[bytes]) -> Say:
    return partial(speak, capfdbinary)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_it_says_where_it_is_and_what_to_try(say: Say, tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    said = say("demo", file, *ANY_PORT, *QUICK, "--count", "2")
    assert said.code == OK
    title, follow, kill, resume, *rows, end = said.lines
    assert title.startswith(f"# {file} on ws://127.0.0.1:")
    assert "--cursor-file" in follow
    assert kill == f"# kill     kill -9 {os.getpid()}"
    assert str(file) in resume
    assert {row.split("\t")[0] for row in rows} == {"1", "2"}
    assert any(row.split("\t")[1] == "telemetry/cpu/percent" for row in rows)
    assert end == "stopped at sequence 2; run it again, and it goes on there"


def test_it_goes_on_where_it_stopped(say: Say, tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    first = say("demo", file, *ANY_PORT, *QUICK, "--count", "2", "--json")
    again = say("demo", file, *ANY_PORT, *QUICK, "--count", "1", "--json")
    assert [m["type"] for m in first.objects if "type" in m][:2] == [
        "snapshot_begin",
        "snapshot_end",
    ]
    begin, page, *_, batch = again.objects
    assert begin == {"type": "snapshot_begin", "sequence": 2}
    assert page["type"] == "snapshot_page"
    assert batch["sequence"] == 3
    told = page["entries"]
    assert isinstance(told, list)
    assert len(told) > len(str(batch["entries"]).split("'key'")) - 1  # only what changed


def test_it_ends_after_a_time_and_says_when_its_port_is_taken(say: Say, tmp_path: Path) -> None:
    assert say("demo", tmp_path / "x.duckdb", *ANY_PORT, "--seconds", "0.5").code == OK
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = say("demo", tmp_path / "x.duckdb", "--listen", f"127.0.0.1:{port}")
    assert said.code == UNAVAILABLE
    assert said.sentence == f"exo-stream demo: cannot listen on 127.0.0.1:{port}: it is in use"


@contextmanager
def on_a_terminal(*words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command whose output is a terminal; what it shows is read from the descriptor."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [*EXO_STREAM, *words], stdout=theirs, stderr=theirs, env=environment(TERM="xterm")
        ) as process:
            os.close(theirs)
            try:
                yield process, ours
            finally:
                process.kill()
    finally:
        os.close(ours)


def shown_until(ours: int, *wanted: str) -> str:
    """What a terminal showed until all of ``wanted`` was there."""
    shown = b""
    while not all(word.encode() in shown for word in wanted):
        ready, _, _ = select.select([ours], [], [], GUARD_SECONDS)
        assert ready, shown.decode()
        shown += os.read(ours, 1 << 16)
    return shown.decode()


def test_a_terminal_gets_a_picture_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    with on_a_terminal("demo", str(tmp_path / "x.duckdb"), *ANY_PORT, *QUICK) as (process, ours):
        shown = shown_until(ours, "cpu/percent", f"kill -9 {process.pid}", "Ctrl-C", "\x1b[?2026l")
        assert "\x1b[?1049h" not in shown  # a kill would leave the terminal in another screen
        assert "\x1b[?25l" not in shown  # or without its cursor
        process.send_signal(signal.SIGINT)
        shown_until(ours, "stopped at sequence")
        assert process.wait(GUARD_SECONDS) == OK


def test_commands_speak_to_people_on_a_terminal(tmp_path: Path) -> None:
    file, port = tmp_path / "x.duckdb", free_port()
    url = f"ws://127.0.0.1:{port}/v1/ws"
    with on_a_terminal("serve", str(file), "--listen", f"127.0.0.1:{port}") as (_, server):
        shown_until(server, "serving", "port opened")
        with on_a_terminal("put", "greeting", "hello", "--url", url) as (process, _):
            assert process.wait(GUARD_SECONDS) == OK
        with on_a_terminal("get", "greeting", "--url", url) as (_, ours):
            shown_until(ours, "hello\r\n")
        with on_a_terminal("scan", "--url", url) as (_, ours):
            shown_until(ours, "key", "value", "greeting", "hello")
        with on_a_terminal("follow", "--url", url) as (process, ours):
            shown_until(ours, "greeting", "hello", "caught up at sequence 1")
            process.send_signal(signal.SIGINT)
            assert process.wait(GUARD_SECONDS) == 128 + signal.SIGINT


@contextmanager
def child(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, its output to be read."""
    with subprocess.Popen([*EXO_STREAM, *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def batches(lines: Iterable[str], *, until: int | None = None) -> list[dict[str, object]]:
    """The batches that a follower prints: all, or until it has printed this sequence."""
    found: list[dict[str, object]] = []
    for line in lines:
        message = json.loads(line)
        if "type" not in message:
            found.append(message)
            if until is not None and message["sequence"] >= until:
                break
    return found


def test_a_killed_demo_resumes_and_its_follower_sees_every_batch_once(tmp_path: Path) -> None:
    port = free_port()
    demo = ["demo", str(tmp_path / "x.duckdb"), "--listen", f"127.0.0.1:{port}", *QUICK, "--json"]
    follow = ["follow", "--url", f"ws://127.0.0.1:{port}/v1/ws", "--json"]
    resume = [*follow, "--cursor-file", str(tmp_path / "cursor")]
    with child(*demo) as first:
        assert first.stdout is not None
        batches(first.stdout, until=1)  # so it listens
        with child(*resume, "--count", "5") as follower:
            assert follower.stdout is not None
            seen = batches(follower.stdout)
        with child(*resume) as follower:
            assert follower.stdout is not None
            seen += batches(follower.stdout, until=10)
            first.kill()
            first.wait(GUARD_SECONDS)
            with child(*demo) as second:
                assert second.stdout is not None
                begin = json.loads(second.stdout.readline())
                last = begin["sequence"]  # durable when the first was killed
                seen += batches(follower.stdout, until=last + 5)
                with child(*follow, "--count", str(last + 5)) as witness:
                    assert witness.stdout is not None
                    log = batches(witness.stdout)
                second.send_signal(signal.SIGTERM)
                second.communicate(timeout=GUARD_SECONDS)
                assert second.returncode == OK
    assert [batch["sequence"] for batch in seen] == list(range(1, last + 6))
    assert seen == log


@pytest.mark.parametrize(
    ("called", "follow", "again"),
    [
        ("x/.venv/bin/exo-stream", "./x/.venv/bin/exo-stream follow", "./x/scripts/run"),
        ("x/bin/exo-stream", "./x/bin/exo-stream follow", "./x/bin/exo-stream demo"),
        ("x/exo_stream/__main__.py", "python -m exo_stream follow", "python -m exo_stream demo"),
    ],
)
def test_the_commands_it_shows_work_from_where_one_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, called: str, follow: str, again: str
) -> None:
    (tmp_path / "x" / "scripts").mkdir(parents=True)
    (tmp_path / "x" / "scripts" / "run").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [called])
    shown = caption(parser().parse_args(["demo"]), URL)
    assert shown.follow == f"{follow} --cursor-file demo.cursor"
    assert shown.again == again
    args = parser().parse_args(["demo", "my file", "--listen", "127.0.0.1:1"])
    other = caption(args, "ws://127.0.0.1:1/v1/ws")
    assert other.follow.startswith(f"{follow} --url ws://127.0.0.1:1/v1/ws ")
    assert other.again == f"{again} 'my file' --listen 127.0.0.1:1"
