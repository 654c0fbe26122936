"""The commands that own a file: serve, verify, repair-wal, compact, and what they refuse."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import duckdb
import pytest

from exo_stream.cli.exit_codes import ERROR, OK, UNAVAILABLE, USAGE
from tests.served import EXO_STREAM, GUARD_SECONDS, environment, serving

pytestmark = pytest.mark.slow  # processes are started


def run(*words: str | Path, url: str = "") -> subprocess.CompletedProcess[str]:
    """One command in a process of its own."""
    return subprocess.run(
        [*EXO_STREAM, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
        env=environment(EXO_STREAM_URL=url),
    )


def only_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """What was said on standard error, besides log events; no traceback."""
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1, done.stderr
    assert done.stdout == ""
    return said[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_server_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "x.duckdb"
    with serving(file) as served:
        assert run("put", "a", "1", url=served.url).stdout == "1\n"
        assert served.stop(number) == OK
    with serving(file) as served:
        assert run("get", "a", url=served.url).stdout == "1"


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", tmp_path / "x.duckdb", "--listen", f"127.0.0.1:{port}")
    assert done.returncode == UNAVAILABLE
    sentence = only_sentence(done)
    assert sentence == f"exo-stream serve: cannot listen on 127.0.0.1:{port}: it is in use"


def test_a_file_in_use_is_refused_and_its_process_named(tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    with serving(file) as served:
        run("put", "a", "1", url=served.url)
        for command in (
            ["serve", file, "--listen", "127.0.0.1:0"],
            ["demo", file, "--listen", "127.0.0.1:0"],
            ["verify", file],
            ["repair-wal", file],
            ["compact", file, tmp_path / "out"],
        ):
            done = run(*command)
            assert done.returncode == UNAVAILABLE
            assert f"is in use by process {served.process.pid}" in only_sentence(done)
        assert run("get", "a", url=served.url).stdout == "1"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["text", "empty", "duckdb", "folder"])
def test_a_file_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "x.duckdb"
    match kind:
        case "text":
            file.write_text("this is no database, but it is somebody's\n" * 100)
        case "empty":
            file.write_bytes(b"")
        case "duckdb":
            with duckdb.connect(file) as theirs:
                theirs.execute("CREATE TABLE theirs (n INTEGER)")
        case "folder":
            file.mkdir()
    before = file.read_bytes() if file.is_file() else None
    for command in (
        ["serve", file, "--listen", "127.0.0.1:0"],
        ["verify", file],
        ["compact", file, tmp_path / "out"],
    ):
        done = run(*command)
        assert done.returncode == ERROR, command
        assert "x.duckdb" in only_sentence(done)
    assert before is None or file.read_bytes() == before
    assert not (tmp_path / "out").exists()


def test_a_place_that_does_not_exist_is_named(tmp_path: Path) -> None:
    done = run("serve", tmp_path / "missing" / "x.duckdb", "--listen", "127.0.0.1:0")
    assert done.returncode == ERROR
    assert "No such file or directory" in only_sentence(done)
    done = run("verify", tmp_path / "x.duckdb")
    assert done.returncode == ERROR
    assert "x.duckdb" in only_sentence(done)


def test_a_sound_file_is_verified_and_copied(tmp_path: Path) -> None:
    file, out = tmp_path / "x.duckdb", tmp_path / "small.duckdb"
    with serving(file) as served:
        for n in range(3):
            run("put", f"key/{n}", "x", url=served.url)
    assert "is sound: 3 batches (1 to 3)" in run("verify", file).stdout
    told = json.loads(run("verify", file, "--json").stdout)
    assert (told["batches"], told["findings"], told["log_id"]) == (3, [], served.log_id)
    assert f"{out}: " in run("compact", file, out).stdout
    again = run("compact", file, out)
    assert again.returncode == USAGE
    assert "small.duckdb" in only_sentence(again)
    assert json.loads(run("compact", file, tmp_path / "2", "--json").stdout)["bytes_after"] > 0
    with serving(out) as served:
        assert run("scan", "--reverse", "--limit", "1", url=served.url).stdout == "key/2\tx\n"


def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    with serving(file) as served:
        run("put", "a", "1", url=served.url)
    with duckdb.connect(file) as broken:
        broken.execute("UPDATE log SET checksum = checksum + 1")
    done = run("verify", file)
    assert done.returncode == ERROR
    assert done.stdout.splitlines()[-1].startswith(f"{file} is damaged: ")
    assert done.stdout.startswith("log: ")
    assert json.loads(run("verify", file, "--json").stdout)["findings"]


def test_a_torn_log_is_repaired_only_when_told_to(tmp_path: Path) -> None:
    file = tmp_path / "x.duckdb"
    wal = tmp_path / "x.duckdb.wal"
    with serving(file) as served:
        for n in range(3):
            run("put", f"key/{n}", "x" * 1000, url=served.url)
        served.kill()
    sound = run("repair-wal", file)
    assert (sound.returncode, sound.stdout.partition(":")[0]) == (OK, "sound")
    whole = wal.read_bytes()
    torn = bytearray(whole)
    torn[-600] ^= 0xFF
    wal.write_bytes(torn)
    refused = run("serve", file, "--listen", "127.0.0.1:0")
    assert refused.returncode == ERROR
    assert "repair-wal" in only_sentence(refused)
    looked = run("repair-wal", file)
    assert (looked.returncode, looked.stdout.partition(":")[0]) == (ERROR, "repairable")
    assert "nothing was changed" in looked.stderr
    assert wal.read_bytes() == torn
    told = json.loads(run("repair-wal", file, "--apply", "--json").stdout)
    assert told["verdict"] == "repaired"
    assert all(Path(copy).exists() for copy in told["copies"])
    with serving(file) as served:
        assert run("get", "key/1", url=served.url).stdout == "x" * 1000


def test_a_server_keeps_what_it_was_told_to_keep(tmp_path: Path) -> None:
    kept = ["--retention-batches", "2", "--retention-seconds", "3600", "--retention-bytes", "1000"]
    with serving(tmp_path / "x.duckdb", *kept, "--host", "db", "--allow-origin", "*") as served:
        assert run("put", "a", "1", url=served.url).returncode == OK
        assert os.access(tmp_path / "x.duckdb", os.R_OK)
