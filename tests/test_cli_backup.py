"""The commands for backups: taken, verified, restored and pruned, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from exo_stream.backup import BackupKey, prune_backups
from exo_stream.cli.exit_codes import CONFLICT, ERROR, NOT_FOUND, OK, USAGE
from exo_stream.errors import InvalidRequestError
from exo_stream.limits import Limits
from exo_stream.storage.duckdb_engine import open_duckdb_engine
from tests.backups import projected
from tests.projections import append
from tests.served import Said, speak

pytestmark = pytest.mark.slow  # files are written, and synced

Say = Callable[..., Said]


@pytest.fixture
def say(capfdbinary: pytest.CaptureFixture[bytes]) -> Say:
    """The command line, in this process."""
    return partial(speak, capfdbinary)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "feed.duckdb"
    engine = open_duckdb_engine(path)
    engine.put_batch([(b"a", b"1")])
    engine.put_batch([(b"a", b"2")])
    engine.close()
    return path


def test_a_backup_goes_to_a_directory_and_comes_back(say: Say, file: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    assert say("backup-key", key).code == OK
    assert key.stat().st_mode & 0o777 == 0o600
    id_ = BackupKey.parse(key.read_text()).id
    options = ["--compress", "--key-file", key]
    taken = json.loads(say("backup", file, tmp_path / "b", *options, "--json").lines[0])
    assert (taken["kind"], taken["sequence"], taken["rows"]) == ("full", 2, 1)
    assert (
        "incremental, after 2"
        in say("backup", file, tmp_path / "c", "--parent", tmp_path / "b", *options).lines[0]
    )
    sound = [json.loads(line) for line in say("verify", tmp_path / "c", "--json").lines]
    assert [(one["kind"], one["key_id"]) for one in sound] == [("full", id_), ("incremental", id_)]
    done = say("restore", tmp_path / "c", tmp_path / "new", *options[1:], "--at-sequence", 1)
    assert (done.code, "sequence 1, verified" in done.lines[0]) == (OK, True)
    assert "is sound" in say("verify", tmp_path / "new").lines[0]


def test_projections_go_along_and_come_back_beside_the_file(
    say: Say, file: Path, tmp_path: Path
) -> None:
    async def prepare() -> None:
        async with projected(file, Limits()) as (platform, projector):
            await append(platform.canonical, b"0", b"1", b"2")
            await projector.wait_applied(2)

    trio.run(prepare)
    assert say("backup", file, tmp_path / "b").lines[0].endswith("; projections: seen")
    [sound] = [json.loads(line) for line in say("verify", tmp_path / "b", "--json").lines]
    assert [one["cursor"] for one in sound["projections"]] == [2]
    assert say("restore", tmp_path / "b", tmp_path / "n").lines[0].endswith("projections: seen")
    [row] = [json.loads(line) for line in say("projections", tmp_path / "n", "--json").lines]
    assert (row["name"], row["cursor"], row["state"]) == ("seen", 2, "caught up")
    early = say("restore", tmp_path / "b", tmp_path / "e", "--at-sequence", 2)
    assert early.lines[0].endswith("; to be built anew: seen")
    at_event = say("restore", tmp_path / "b", tmp_path / "v", "--at-event", 1, "--json")
    assert json.loads(at_event.lines[0])["sequence"] == 3, "all three were one commit"
    assert say("restore", tmp_path / "b", tmp_path / "w", "--at-event", 9).code == NOT_FOUND


def test_what_is_refused_has_a_code_of_its_own(say: Say, file: Path, tmp_path: Path) -> None:
    assert say("backup", tmp_path / "absent", tmp_path / "b").code == ERROR
    assert not (tmp_path / "absent").exists()
    assert say("backup", file, tmp_path / "b").code == OK
    assert say("backup", file, tmp_path / "b").code == ERROR
    assert say("restore", tmp_path / "b", file).code == CONFLICT
    assert say("restore", tmp_path / "b", tmp_path / "n", "--at-sequence", 9).code == NOT_FOUND
    assert say("restore", tmp_path / "b", tmp_path / "n", "--key-file", file).code == USAGE
    store = tmp_path / "b" / "store.duckdb"
    store.write_bytes(store.read_bytes()[:-1])
    assert say("verify", tmp_path / "b").code == ERROR
    assert say("verify", tmp_path).code == ERROR


def test_old_chains_are_pruned_and_what_stays_is_whole(
    say: Say, file: Path, tmp_path: Path
) -> None:
    for name, parent in (("a", None), ("a1", "a"), ("b", None), ("b1", "b")):
        follows = ["--parent", tmp_path / parent] if parent else []
        assert say("backup", file, tmp_path / name, *follows).code == OK
    (tmp_path / "no backup").mkdir()
    (tmp_path / ".a.deleted").mkdir()  # of a prune that was killed
    would = say("prune-backups", tmp_path, "--full", 1, "--dry-run").lines
    assert [line.split(":")[0].rpartition("/")[2] for line in would] == ["a1", "a"]
    gone = [
        json.loads(line) for line in say("prune-backups", tmp_path, "--full", 1, "--json").lines
    ]
    assert [Path(one["path"]).name for one in gone] == ["a1", "a"]
    left = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert left == ["b", "b1", "no backup"]
    assert say("verify", tmp_path / "b1").code == OK
    with pytest.raises(InvalidRequestError):
        prune_backups(tmp_path, now=0, full_max=0)
