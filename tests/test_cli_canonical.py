"""The command line and the canonical store: events, the seal, pauses that outlive their command."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

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
