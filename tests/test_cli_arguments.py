"""The command line's words: options before the command and after it, and the version."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from exo_stream.cli.arguments import URL, VERSION, parser
from exo_stream.cli.exit_codes import NOT_FOUND, OK, UNAVAILABLE, USAGE
from tests.pages import ROOT
from tests.served import Said, Served, serving, speak

NOWHERE = "ws://127.0.0.1:1/v1/ws"


@pytest.fixture(autouse=True)
def no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXO_STREAM_URL", raising=False)


@pytest.fixture
def say(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Said]:
    """The command line, in this process."""
    return partial(speak, capfdbinary)


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        (["--url", NOWHERE], "url", NOWHERE),
        (["--json"], "json", True),
        (["--debug"], "debug", True),
        (["--log-level", "debug"], "log_level", "DEBUG"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
@pytest.mark.parametrize("command", [["put", "k", "v"], ["follow"], ["verify", "x"]], ids=" ".join)
def test_a_shared_option_may_stand_before_the_command_or_after_it(
    command: list[str], option: list[str], name: str, value: object
) -> None:
    before, after = parser().parse_args(option + command), parser().parse_args(command + option)
    assert getattr(before, name) == value
    assert before == after


def test_of_two_places_the_one_after_the_command_counts() -> None:
    words = ["--url", "ws://before/", "--json", "put", "k", "v", "--url", "ws://after/"]
    args = parser().parse_args(words)
    assert (args.url, args.json) == ("ws://after/", True)


def test_what_is_not_said_has_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    args = parser().parse_args(["put", "k", "v"])
    assert (args.url, args.json, args.debug, args.log_level) == (URL, False, False, "")
    assert args.patience is None
    monkeypatch.setenv("EXO_STREAM_URL", NOWHERE)
    assert parser().parse_args(["put", "k", "v"]).url == NOWHERE
    assert parser().parse_args(["--url", URL, "put", "k", "v"]).url == URL


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--limit", "conections_max=1"], "no limit 'conections_max'; perhaps connections_max"),
        (["--limit", "xyz=1"], "there is no limit 'xyz';"),
        (["--limit", "snapshots_max"], "snapshots_max is a number from 1 on, not ''"),
        (["--limit", "snapshots_max=0"], "snapshots_max is a number from 1 on, not '0'"),
        (["--limit", "snapshots_max=1.5"], "snapshots_max is a number from 1 on, not '1.5'"),
        (["--limit", "batch_bytes_max=268435457"], "batch_bytes_max may be 268435456 at most"),
        (["--listen", ":4437"], "':4437' names no host: 127.0.0.1:4437 for this machine only"),
        (["--listen", "localhost"], "'localhost' is not HOST:PORT"),
    ],
)
def test_what_serve_cannot_take_is_one_sentence(
    say: Callable[..., Said], words: list[str], complaint: str
) -> None:
    done = say("serve", "x", *words)
    assert (done.code, complaint in done.sentence) == (USAGE, True), done


def test_limits_and_addresses_are_read() -> None:
    words = ["--limit", "snapshots_max=2", "--limit", "ping_seconds=5", "--listen", "[::1]:0"]
    args = parser().parse_args(["serve", "x", *words])
    assert args.limit == [("snapshots_max", 2), ("ping_seconds", 5)]
    assert args.listen == ("::1", 0)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "x.duckdb") as server:
        yield server


@pytest.mark.slow  # a server is started
def test_a_write_meant_for_another_server_does_not_reach_the_default_one(
    say: Callable[..., Said], served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXO_STREAM_URL", served.url)
    assert say("--url", NOWHERE, "put", "k", "v").code == UNAVAILABLE
    assert say("get", "k").code == NOT_FOUND


def test_the_version_is_the_one_of_the_package(say: Callable[..., Said]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    assert say("--version") == Said(OK, f"exo-stream {VERSION}\n".encode(), "")
