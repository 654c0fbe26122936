"""What ``exo-stream verify`` says of canonical rows: nothing, or what contradicts what."""

from __future__ import annotations

from pathlib import Path

import pytest

from exo_stream.canonical.changes import Changes
from exo_stream.canonical.record import RECORD_KEY, Record
from exo_stream.canonical.verify import CanonicalCheck
from exo_stream.cli.files import FACES
from exo_stream.decision import Write
from exo_stream.limits import Limits
from exo_stream.model import Entry, Keyspace
from exo_stream.storage.verify import verify
from tests.worlds import on_file

STATE, EVENT, CANONICAL = int(Keyspace.STATE), int(Keyspace.EVENT), int(Keyspace.CANONICAL)


async def lived(path: Path, *damage: Entry) -> list[str]:
    """What is found in a file with a few transactions, and then these entries."""
    async with on_file(path)(limits=Limits(memtable_entries_max=30)) as platform:
        for number in range(20):
            await platform.canonical.submit(Changes([(b"k%d" % number, b"v")], [b"e", b"f"]))
        await platform.canonical.seal()
        if damage:
            await platform.decide(lambda _view, _now: Write(damage, None))
    return [finding.sentence for finding in verify(path, faces=FACES).findings]


@pytest.mark.slow
async def test_what_transactions_leave_behind_holds_together(tmp_path: Path) -> None:
    assert CanonicalCheck in FACES
    assert await lived(tmp_path / "file") == []


def record(next_event_id: int, sealed: int = 0) -> Entry:
    return Record(next_event_id, sealed).entry()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        pytest.param(
            Entry(EVENT, bytes(7) + b"\x05", None), "events 5 to 5 are missing", id="a hole"
        ),
        pytest.param(
            Entry(EVENT, bytes(7) + b"\x28", b""),
            "the next event would be 40, but the events end before 41",
            id="an event too many",
        ),
        pytest.param(Entry(EVENT, b"\xff", b""), "no event id", id="an id of one byte"),
        pytest.param(record(39), "the next event would be 39", id="a record that is late"),
        pytest.param(record(40, 42), "sealed at event 41, which is not there", id="a seal"),
        pytest.param(Entry(CANONICAL, RECORD_KEY, b"?"), "record is damaged", id="a record"),
        pytest.param(Entry(CANONICAL, b"what", b"?"), "nobody's row", id="a stray row"),
        pytest.param(Entry(STATE, bytes(600), b""), "larger than a key", id="a long key"),
    ],
)
async def test_damage_is_found(damage: Entry, sentence: str, tmp_path: Path) -> None:
    found = await lived(tmp_path / "file", damage)
    assert any(sentence in problem for problem in found), found
