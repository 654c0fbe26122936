"""The commands prune and retention, against a server process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest

from exo_stream.cli.exit_codes import ERROR, OK, USAGE
from exo_stream.cli.policies import _summary
from exo_stream.cli.tables import drawn
from exo_stream.policies.result import PruneCounts, PruneResult
from exo_stream.storage.verify import verify
from tests.served import Said, Served, serving, speak

pytestmark = pytest.mark.slow  # a server is started, and each command opens a connection

Say = Callable[..., Said]
NEWEST_TWO = {
    "keys": {
        "match_key": {
            "reserved_bits": 0,
            "prefix": 0,
            "payload_regex": "^(?P<name>[a-z]+)/(?P<number>[0-9]+)$",
        },
        "group_by": ["name"],
        "order_by": {"capture_group": "number"},
    },
    "retain": {"keep_latest": {"count": 2}},
}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "x.duckdb") as server:
        yield server


@pytest.fixture
def ask(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, served: Served
) -> Say:
    """The command line, talking to the server."""
    monkeypatch.setenv("EXO_STREAM_URL", served.url)
    return partial(speak, capfdbinary)


@pytest.fixture
def say(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Say:
    """The command line, for what is found wrong before anybody is asked."""
    monkeypatch.setenv("EXO_STREAM_URL", "ws://127.0.0.1:1/v1/ws")
    return partial(speak, capfdbinary)


def document(path: Path, **fields: object) -> Path:
    path.write_text(json.dumps({"version": 1, **fields}))
    return path


def test_policies_are_tried_and_carried_out(
    ask: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for number in range(4):
        ask("put", f"a/{number}", "x")
    policies = [NEWEST_TWO, {"sequence": {}, "retain": {"keep_latest": {"count": 1}}}]
    file = document(tmp_path / "policies.json", policies=policies)

    [foretold] = ask("prune", "--policy", file, "--dry-run", "--json").objects
    [done] = ask("prune", "--policy", file, "--json").objects

    counts = {"matched": 4, "ungrouped": 0, "malformed": 0, "deleted": 2, "deleted_bytes": 8}
    assert foretold["dry_run"] is True
    assert foretold["sequences"] == []
    assert done == {
        "dry_run": False,
        "policies": [
            {**counts, "spared": 0, "evicted": 0},
            {**dict.fromkeys(counts, 0), "spared": 0, "evicted": 4},
        ],
        "sequences": [5],
    }
    assert ask("scan").lines == ["a/2\tx", "a/3\tx"]
    assert ask("prune", "--policy", file).lines == [
        "1\t2\t0\t0\t0\t0\t0\t0",
        "2\t0\t0\t0\t0\t0\t0\t0",
    ]
    with monkeypatch.context() as patched:
        patched.setattr("os.isatty", lambda _fd: True)
        on_a_terminal = ask("prune", "--policy", file).lines
        assert any("policy" in line and "matched" in line for line in on_a_terminal)
        assert on_a_terminal[-1] == "no key was deleted"
    [told] = ask("info", "--json").objects
    assert told["oldest"] == 5
    assert told["live_bytes"] == int(str(told["table_bytes"])) + int(str(told["log_bytes"]))
    assert int(str(told["total_bytes"])) > int(str(told["live_bytes"]))
    assert any(line.startswith("live bytes ") for line in ask("info").lines)


def test_a_cutoff_can_be_tried_too_and_no_policies_are_too_few(ask: Say, tmp_path: Path) -> None:
    (tmp_path / "nothing.json").touch()
    said = ask("prune", "--policy", tmp_path / "nothing.json")
    assert said.code == USAGE
    assert said.sentence == "exo-stream prune: policies: at least one policy is needed"
    for _ in range(3):
        ask("put", "k", "v")
    [foretold] = ask("prune", "3", "--dry-run", "--json").objects
    assert [counts["evicted"] for counts in foretold["policies"]] == [2]  # type: ignore[attr-defined]  # it is a list of objects
    assert ask("prune", "3", "--json").objects == [{"evicted": 2}]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[]", "policies: an object is needed"),
        ("{", "policies: not a document"),
        (
            '{"version":1,"policies":[{"sequence":{},"retain":{"keep_latest":{"count":0}}}]}',
            "policies[0].retain.keep_latest.count",
        ),
    ],
    ids=["a list", "no JSON", "keep none"],
)
def test_what_is_no_document_of_policies_is_said_in_one_sentence(
    say: Say, tmp_path: Path, content: str, sentence: str
) -> None:
    file = tmp_path / "policies.json"
    file.write_text(content)
    said = say("prune", "--policy", file)
    assert said.code == USAGE
    assert sentence in said.sentence


def test_a_file_that_is_not_there_is_said_in_one_sentence(say: Say, tmp_path: Path) -> None:
    for words in (["prune", "--policy"], ["retention", "set"]):
        said = say(*words, tmp_path / "nothing.json")
        assert said.code == ERROR
        assert "nothing.json: No such file" in said.sentence


@pytest.mark.parametrize(
    "words",
    [
        ["prune"],
        ["prune", "5", "--policy", "x"],
        ["prune", "--dry-run"],
        ["retention", "drop"],
        ["retention", "set"],
        ["retention", "clear", "x"],
    ],
    ids=" ".join,
)
def test_what_is_no_command_is_a_usage_error(say: Say, words: list[str]) -> None:
    assert say(*words).code == USAGE


def test_retention_is_printed_set_and_cleared(ask: Say, tmp_path: Path) -> None:
    assert ask("retention").lines == ["stored    everything", "oldest    -"]
    for _ in range(4):
        ask("put", "k", "v")
    rules = {"retain": {"keep_latest": {"count": 2}}, "seconds_max": 3600}
    file = document(tmp_path / "rules.json", retention=rules)

    [told] = ask("retention", "set", file, "--json").objects

    assert told == {
        "stored": rules,
        "in_force": rules,
        "source": "stored",
        "problem": None,
        "oldest_retained": 4,
    }
    ask("put", "k", "v")
    assert ask("retention").lines == [f"stored    {json.dumps(rules)}", "oldest    5"]
    assert ask("retention", "clear") == Said(OK, b"stored    everything\noldest    5\n", "")


def test_stored_rules_outlive_the_server_and_its_options_go_first(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "feed.duckdb"
    ask = partial(speak, capfdbinary)
    file = document(tmp_path / "rules.json", retention={"retain": {"drop_all": {}}})
    with serving(path) as server:
        monkeypatch.setenv("EXO_STREAM_URL", server.url)
        assert ask("retention", "set", file).code == OK
        server.kill()
    with serving(path, "--retention-batches", "7") as server:
        monkeypatch.setenv("EXO_STREAM_URL", server.url)
        stored, in_force, oldest = ask("retention").lines
        assert stored == 'stored    {"retain": {"drop_all": {}}}'
        assert in_force.startswith(
            'in force  {"retain": {"keep_latest": {"count": 7}}} (the server'
        )
        assert oldest == "oldest    -"
        ask("put", "k", "v")
        assert ask("retention", "--json").objects[0]["oldest_retained"] == 2
    with serving(path) as server:
        monkeypatch.setenv("EXO_STREAM_URL", server.url)
        assert ask("retention").lines[-1] == "oldest    -"
    assert verify(path).sound


def test_the_counts_of_a_prune_fit_on_a_terminal_word_by_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    names = [field.name.replace("_", " ") for field in fields(PruneCounts)]
    heads = drawn(["policy", *names], [["256", *["100,000"] * 7]], width=80).split()
    assert {word for name in names for word in name.split()} < set(heads)


def test_a_terminal_is_told_what_was_done() -> None:
    assert _summary(PruneResult(()), is_dry=True) == "nothing was done: this was a dry run"
    assert _summary(PruneResult(()), is_dry=False) == "no key was deleted"
    assert _summary(PruneResult((), (7,)), is_dry=False) == "the deletions are 1 batch: 7"
    assert _summary(PruneResult((), (7, 9)), is_dry=False) == (
        "the deletions are 2 batches: 7 to 9"
    )
