"""Publishing a live pipe: at once, in order, and once, whatever happens to the server."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from exo_stream.cli.exit_codes import OK
from tests.served import EXO_STREAM, GUARD_SECONDS, Said, serving, speak

pytestmark = pytest.mark.slow  # processes are started

Say = Callable[..., Said]


@pytest.fixture
def say(capfdbinary: pytest.CaptureFixture[bytes]) -> Say:
    return partial(speak, capfdbinary)


@contextmanager
def piped(command: str, url: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A command with pipes at both its ends."""
    with subprocess.Popen(
        [*EXO_STREAM, command, "--url", url, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def values(say: Say, url: str, *options: str) -> list[object]:
    """What is stored, in key order."""
    return [row["value"] for row in say("scan", "--json", "--url", url, *options).objects]


def test_a_line_of_a_live_pipe_is_published_before_the_next_one_comes(tmp_path: Path) -> None:
    with serving(tmp_path / "x.duckdb") as served:
        with piped("publish", served.url) as pipe, piped("follow", served.url, "--json") as feed:
            assert pipe.stdin is not None
            assert feed.stdout is not None
            for line in ("one", "two", "three"):
                pipe.stdin.write(f"{line}\n")
                messages = map(json.loads, feed.stdout)
                batch = next(message for message in messages if "type" not in message)
                assert [entry["value"] for entry in batch["entries"]] == [line]
            out, err = pipe.communicate(timeout=GUARD_SECONDS)
            assert (pipe.returncode, out, err) == (
                OK,
                "3 lines in 3 batches, through sequence 3\n",
                "",
            )


def test_an_interrupted_publisher_says_how_far_it_came(tmp_path: Path) -> None:
    with serving(tmp_path / "x.duckdb") as served, piped("publish", served.url) as pipe:
        assert pipe.stdin is not None
        assert pipe.stderr is not None
        pipe.stdin.write("one\n")
        with piped("follow", served.url, "--count", "1") as feed:
            feed.communicate(timeout=GUARD_SECONDS)
        pipe.send_signal(signal.SIGINT)
        assert pipe.wait(GUARD_SECONDS) == 128 + signal.SIGINT
        said = pipe.stderr.read()
    assert said == "exo-stream publish: 1 line in 1 batch, through sequence 1, and no more\n"


def test_a_killed_server_makes_no_line_twice_and_none_go_missing(say: Say, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listen = f"127.0.0.1:{listener.getsockname()[1]}"
    file = tmp_path / "x.duckdb"
    with serving(file, listen=listen) as served:
        with piped("publish", served.url) as pipe:
            assert pipe.stdin is not None
            for n in range(200):
                pipe.stdin.write(f"{n}\n")
            with piped("follow", served.url, "--count", "1") as feed:
                feed.communicate(timeout=GUARD_SECONDS)
            for n in range(200, 400):
                pipe.stdin.write(f"{n}\n")
            served.kill()  # with whatever was under way
            with serving(file, listen=listen) as again:
                for n in range(400, 600):
                    pipe.stdin.write(f"{n}\n")
                out, err = pipe.communicate(timeout=GUARD_SECONDS)
                assert (pipe.returncode, err) == (OK, "")
                assert out.startswith("600 lines in ")
                assert values(say, again.url) == [str(n) for n in range(600)]
                told = say("info", "--json", "--url", again.url).objects[0]
                batches = say("follow", "--url", again.url, "--count", str(told["frontier"]))
                assert len(batches.lines) == 600
