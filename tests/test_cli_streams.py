"""The command line and streams: following them, and verifying the file that they are in."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from exo_stream.cli.exit_codes import OK, USAGE
from exo_stream.client import connect
from exo_stream.streams import StreamConfig
from tests.served import serving, speak


async def fill(url: str) -> None:
    async with connect(url) as client:
        streams = client.streams
        await streams.create_stream_with_data("chat/1", StreamConfig("text/plain"), [b"hello"])
        await streams.create_stream("chat/10", StreamConfig("text/plain"))
        await streams.batch_append("chat/1", [b"one\n", b"two"], close=True)
        await streams.append("chat/10", b"other")
        await streams.create_stream_with_data("gone", StreamConfig("text/plain"), [b"was here"])
        await streams.delete("gone")


@pytest.mark.slow  # a server, and each command opens a connection
def test_streams_are_followed_and_verified(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("EXO_STREAM_URL", raising=False)
    path = tmp_path / "x.duckdb"
    with serving(path) as server:
        trio.run(fill, server.url)
        ask = partial(speak, capfdbinary, "--url", server.url)

        plain = ask("follow", "--stream", "chat/1", "--count", "2")
        assert plain.lines == ["1\tchat/1\thello", "3\tchat/1\tone\\n", "3\tchat/1\ttwo"]
        said = ask("follow", "--stream-prefix", "chat/", "--count", "4", "--json")
        listed: list[dict[str, Any]] = said.objects
        assert [
            (found["stream"], [m["data"] for m in found["messages"]], found["closed"])
            for found in listed
        ] == [
            ("chat/1", ["hello"], False),
            ("chat/10", [], False),
            ("chat/1", ["one\n", "two"], True),
            ("chat/10", ["other"], False),
        ]
        assert plain.err == said.err == ""
        # Whoever misspelt a name is not to wait unaware; whoever came early, or late, may follow.
        late = ask("follow", "--stream", "gone", "--count", "2")
        assert late.lines == ["5\tgone\twas here", "6\tgone"]
        assert late.err == "exo-stream follow: there is no stream 'gone' yet; waiting for it\n"
        both = ask("follow", "--stream", "a", "--stream-prefix", "b", "--count", "1")
        assert both.code == USAGE
        assert ask("follow", "--stream", "..", "--count", "1").code == USAGE
    sound = speak(capfdbinary, "verify", path)
    assert (sound.code, "is sound" in sound.lines[-1]) == (OK, True)
