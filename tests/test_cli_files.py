"""The commands that own a file: serve, verify, repair-wal, compact, and what they refuse."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
import pytest

from exo_stream.cli.exit_codes import ERROR, OK, UNAVAILABLE, USAGE
from tests.pages import ROOT
from tests.served import EXO_STREAM, GUARD_SECONDS, Said, environment, serving, speak

pytestmark = pytest.mark.slow  # processes are started


Say = Callable[..., Said]


@pytest.fixture
def say(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Say:
    """The command line, in this process."""
    monkeypatch.delenv("EXO_STREAM_URL", raising=False)
    return partial(speak, capfdbinary)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_server_in_good_order(
    say: Say, tmp_path: Path, number: signal.Signals
) -> None:
    file = tmp_path / "x.duckdb"
    with serving(file) as served:
        assert say("put", "a", "1", "--url", served.url).lines == ["1"]
        assert served.stop(number) == OK
    with serving(file) as served:
        assert say("get", "a", "--url", served.url).out == b"1"


def test_a_port_in_use_is_named(say: Say, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = say("serve", tmp_path / "x.duckdb", "--listen", f"127.0.0.1:{port}")
    assert done.code == UNAVAILABLE
    sentence = done.sentence
    assert sentence == f"exo-stream serve: cannot listen on 127.0.0.1:{port}: it is in use"


def test_a_host_that_cannot_be_is_no_bug_of_ours(say: Say, tmp_path: Path) -> None:
    done = say("serve", tmp_path / "x.duckdb", "--listen", "no..host:0")
    assert (done.code, done.sentence) == (
        USAGE,
        "exo-stream serve: there can be no host named 'no..host'",
    )


def test_a_file_in_use_is_refused_and_its_process_named(say: Say, tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    with serving(file) as served:
        say("put", "a", "1", "--url", served.url)
        for command in (
            ["serve", file, "--listen", "127.0.0.1:0"],
            ["demo", file, "--listen", "127.0.0.1:0"],
            ["verify", file],
            ["repair-wal", file],
            ["compact", file, tmp_path / "out"],
        ):
            done = say(*command)
            assert done.code == UNAVAILABLE
            assert f"is in use by process {served.process.pid}" in done.sentence
        assert say("get", "a", "--url", served.url).out == b"1"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["text", "empty", "duckdb", "folder"])
def test_a_file_that_is_not_ours_is_refused_and_left_alone(
    say: Say, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "x.duckdb"
    match kind:
        case "text":
            file.write_text("this is no database, but it is somebody's\n" * 100)
        case "empty":
            file.write_bytes(b"")
        case "duckdb":
            with duckdb.connect(file) as theirs:
                theirs.execute("CREATE TABLE theirs (n INTEGER)")
        case _:
            file.mkdir()
    before = file.read_bytes() if file.is_file() else None
    for command in (
        ["serve", file, "--listen", "127.0.0.1:0"],
        ["verify", file],
        ["compact", file, tmp_path / "out"],
    ):
        done = say(*command)
        assert done.code == ERROR, command
        assert "x.duckdb" in done.sentence
    assert before is None or file.read_bytes() == before
    assert not (tmp_path / "out").exists()


def test_a_place_that_does_not_exist_is_named(say: Say, tmp_path: Path) -> None:
    done = say("serve", tmp_path / "missing" / "x.duckdb", "--listen", "127.0.0.1:0")
    assert done.code == ERROR
    assert "No such file or directory" in done.sentence
    done = say("verify", tmp_path / "x.duckdb")
    assert done.code == ERROR
    assert "x.duckdb" in done.sentence


def test_a_sound_file_is_verified_and_copied(say: Say, tmp_path: Path) -> None:
    file, out = tmp_path / "x.duckdb", tmp_path / "small.duckdb"
    with serving(file) as served:
        for n in range(3):
            say("put", f"key/{n}", "x", "--url", served.url)
    assert "is sound: 3 batches (1 to 3)" in say("verify", file).lines[0]
    told = say("verify", file, "--json").objects[0]
    assert (told["batches"], told["findings"], told["log_id"]) == (3, [], served.log_id)
    assert f"{out}: " in say("compact", file, out).lines[0]
    again = say("compact", file, out)
    assert again.code == USAGE
    assert "small.duckdb" in again.sentence
    assert say("compact", file, tmp_path / "2", "--json").objects[0]["out"] == str(tmp_path / "2")
    with serving(out) as served:
        assert say("scan", "--reverse", "--limit", "1", "--url", served.url).lines == ["key/2\tx"]


def test_a_damaged_file_is_said_to_be_damaged(say: Say, tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    with serving(file) as served:
        say("put", "a", "1", "--url", served.url)
    with duckdb.connect(file) as broken:
        broken.execute("UPDATE log SET checksum = checksum + 1")
    done = say("verify", file)
    assert done.code == ERROR
    assert done.lines[-1].startswith(f"{file} is damaged: ")
    assert done.lines[0].startswith("log: ")
    assert say("verify", file, "--json").objects[0]["findings"]
    os.truncate(file, 20_000)
    cut, nothing_more = say("verify", file).lines
    assert cut.startswith(f"file: {file} is damaged: it was cut off")
    assert nothing_more == f"{file} is damaged: nothing more of it can be read"


def test_a_torn_log_is_repaired_only_when_told_to(say: Say, tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    wal = tmp_path / "x.duckdb.wal"
    with serving(file) as served:
        for n in range(3):
            say("put", f"key/{n}", "x" * 1000, "--url", served.url)
        served.kill()
    sound = say("repair-wal", file)
    assert (sound.code, sound.lines[0].partition(":")[0]) == (OK, "sound")
    whole = wal.read_bytes()
    torn = bytearray(whole)
    torn[-600] ^= 0xFF
    wal.write_bytes(torn)
    refused = say("serve", file, "--listen", "127.0.0.1:0")
    assert refused.code == ERROR
    assert "repair-wal" in refused.sentence
    looked = say("repair-wal", file)
    assert (looked.code, looked.lines[0].partition(":")[0]) == (ERROR, "repairable")
    assert "nothing was changed" in looked.err
    assert wal.read_bytes() == torn
    told = say("repair-wal", file, "--apply", "--json").objects[0]
    assert told["verdict"] == "repaired"
    copies = told["copies"]
    assert isinstance(copies, list)
    assert copies
    assert all(Path(copy).exists() for copy in copies)
    with serving(file) as served:
        assert say("get", "key/1", "--url", served.url).out == b"x" * 1000


def test_a_server_keeps_what_it_was_told_to_keep(say: Say, tmp_path: Path) -> None:
    kept = ["--retention-batches", "2", "--retention-seconds", "3600", "--retention-bytes", "1000"]
    with serving(tmp_path / "x.duckdb", *kept, "--host", "db", "--allow-origin", "*") as served:
        assert say("put", "a", "1", "--url", served.url).code == OK
        assert os.access(tmp_path / "x.duckdb", os.R_OK)


def test_closed_streams_are_nobody_elses(tmp_path: Path) -> None:
    # With its streams closed a server would print into whatever has taken their numbers.
    demo = "demo x.duckdb --listen 127.0.0.1:0 --interval 0.05 --count 2"
    shell = f"{' '.join(EXO_STREAM)} {demo} <&- >&- 2>&-; echo $?"
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        check=True,
        env=environment(PYTHONPATH=str(ROOT)),
    )
    assert done.stdout == "0\n"
    done = subprocess.run(
        [*EXO_STREAM, "verify", str(tmp_path / "x.duckdb")],
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        check=True,
    )
    assert "is sound" in done.stdout
