"""The command line and the canonical store: events, the seal, pauses that outlive their command."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from exo_stream import open_platform
from exo_stream.cli.exit_codes import NOT_FOUND, OK, UNAVAILABLE, USAGE
from exo_stream.client import connect
from exo_stream.errors import PausedError, SealedError
from tests.served import serving, speak


async def fill(url: str, events: list[bytes]) -> None:
    async with connect(url) as client:
        batch = client.canonical.batch()
        for event in events:
            batch.append_event(event)
        await batch.commit()


@pytest.mark.slow  # a server, and each command opens a connection
def test_events_the_seal_and_pauses(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("EXO_STREAM_URL", raising=False)
    path = tmp_path / "x.duckdb"
    with serving(path) as server:
        ask = partial(speak, capfdbinary, "--url", server.url)
        assert ask("seal").lines == ["not sealed: there are no events"]
        trio.run(fill, server.url, [b"event %d" % n for n in range(11)] + [b"\xff"])

        assert ask("events", "get", "3").lines == ["3\tevent 3"]
        assert ask("events", "get", "9", "11").lines == [
            "9\tevent 9",
            "10\tevent 10",
            "11\tbase64:/w==",
        ]
        assert ask("events", "get", "10", "99", "--json").objects == [
            {"id": 10, "event": "event 10"},
            {"id": 11, "event_b64": "/w=="},
        ]
        assert ask("events", "get", "99").code == NOT_FOUND
        assert [line[:2] for line in ask("events", "tail", "--count", "3").lines] == [
            "2\t",
            "3\t",
            "4\t",
        ]
        assert ask("events", "tail", "11", "--count", "1").lines == ["11\tbase64:/w=="]
        assert ask("events", "get").code == USAGE
        assert ask("events", "tail", "1", "2").code == USAGE
        assert "in use" in speak(capfdbinary, "events", "get", "0", "--file", path).sentence

        assert ask("seal", "--json").objects == [{"event": 11, "sealed": True}]
        with pytest.raises(SealedError):
            trio.run(fill, server.url, [b"no"])
        assert ask("unseal").lines == ["unsealed"]

        assert ask("pause").code == OK
        assert ask("pause", "--all").code == OK
        with pytest.raises(PausedError):
            trio.run(fill, server.url, [b"no"])
        assert ask("put", "k", "v").code == UNAVAILABLE
        assert ask("resume", "--all").lines == ["1 ended"]
        assert ask("put", "k", "v").code == OK
        assert ask("resume", "--json").objects == [{"ended": 1}]
        assert ask("resume").lines == ["0 ended"]
        trio.run(fill, server.url, [b"yes"])
    sound = speak(capfdbinary, "verify", path)
    assert (sound.code, "is sound" in sound.lines[-1]) == (OK, True)


@pytest.mark.slow  # it opens the file for each command
def test_events_and_the_seal_of_a_file_that_nobody_serves(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    path = tmp_path / "x.duckdb"

    async def fill_file() -> None:
        async with open_platform(path) as platform:
            batch = platform.canonical.batch()
            for number in range(12):
                batch.append_event(b"event %d" % number)
            await batch.commit()

    trio.run(fill_file)
    ask = partial(speak, capfdbinary)
    assert ask("events", "get", "3", "--file", path).lines == ["3\tevent 3"]
    assert ask("events", "get", "12", "--file", path).code == NOT_FOUND
    for beyond in (("5", "3"), (str((1 << 64) - 1),), ("12", str((1 << 64) - 1))):
        assert ask("events", "get", *beyond, "--file", path).code == NOT_FOUND
    assert len(ask("events", "tail", "--file", path).lines) == 10, "and it ends"
    assert ask("events", "tail", "11", "--file", path, "--json").objects == [
        {"id": 11, "event": "event 11"}
    ]
    assert ask("seal", "--file", path).lines == ["sealed at event 11"]
    with pytest.raises(SealedError):
        trio.run(fill_file)
    assert ask("unseal", "--file", path).lines == ["unsealed"]
    trio.run(fill_file)
    nowhere = tmp_path / "nowhere.duckdb"
    assert "is no file" in ask("seal", "--file", nowhere).sentence
    assert not nowhere.exists()
    assert ask("pause", "--file", path).code == USAGE, "a pause is of a running server"


@pytest.mark.parametrize(
    "words",
    [
        ("events",),
        ("events", "put", "1"),
        ("events", "get", "-1"),
        ("events", "get", "x"),
        ("events", "get", str(1 << 64)),
        ("events", "get", "1", "2", "3"),
        ("events", "tail", "--count", "0"),
        ("seal", "1"),
        ("unseal", "now"),
        ("pause", "--for", "1"),
        ("resume", "name"),
    ],
    ids=" ".join,
)
def test_bad_words_are_a_usage_error_in_one_sentence(
    words: tuple[str, ...], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    said = speak(capfdbinary, *words)
    assert said.code == USAGE
    assert "see: exo-stream" in said.sentence


@pytest.mark.parametrize(
    "words",
    [("events", "get", "0"), ("seal",), ("unseal",), ("pause",), ("resume", "--all")],
    ids=" ".join,
)
def test_without_a_server_each_says_so(
    words: tuple[str, ...], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    said = speak(capfdbinary, "--url", "ws://127.0.0.1:1/v1/ws", *words)
    assert said.code == UNAVAILABLE
    assert said.sentence.startswith(f"exo-stream {words[0]}: ")
