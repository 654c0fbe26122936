"""The guarantees that no one module keeps, and that the pages which tell of them are true."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import signature
from pathlib import Path
from typing import Final

import pytest
import trio

from exo_stream import Platform, VersionedValue
from exo_stream.backup_errors import BackupError
from exo_stream.client import Client
from exo_stream.errors import CursorAheadError, ExoStreamError, LogMismatchError
from exo_stream.feed import SnapshotEnd, SnapshotPage
from exo_stream.limits import Limits
from exo_stream.model import Batch, Cursor, Entry
from exo_stream.protocol import messages as m
from exo_stream.protocol.failures import ERRORS, below
from exo_stream.testing import connected
from tests.pages import ROOT
from tests.worlds import on_file

TINY: Final = Limits(
    memtable_entries_max=12, slice_rows_max=5, runs_max=2, page_rows_max=2, cache_bytes_max=1_000
)
"""So that what is read was folded and merged, and is read in several pages."""

KEYS: Final = [b"a", b"b", b"c", b"d", b"e"]
ROUNDS: Final = 60

Handle = Platform | Client
OpenHandle = Callable[[], AbstractAsyncContextManager[tuple[Platform, Handle]]]


@pytest.fixture(params=["embedded", "client"])
def open_handle(request: pytest.FixtureRequest, tmp_path: Path) -> OpenHandle:
    """Opens a file with tiny limits: who writes to it, and the handle of who reads."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[Platform, Handle]]:
        async with on_file(tmp_path / "feed.duckdb")(limits=TINY) as platform:
            if request.param == "embedded":
                yield platform, platform
                return
            async with connected(platform) as client:
                yield platform, client

    return opened


async def write_rounds(platform: Platform, nursery: trio.Nursery) -> None:
    """Write all keys in one batch, over and over, the number of the round into each; then end."""
    for number in range(ROUNDS):
        await platform.put_batch([(key, b"%d" % number) for key in KEYS])
    nursery.cancel_scope.cancel()


def check_whole(found: Sequence[tuple[bytes, bytes | None]]) -> None:
    """All keys, and all of one round."""
    if found:
        assert [key for key, _ in found] == KEYS, found
        assert len({value for _, value in found}) == 1, found


@pytest.mark.slow
async def test_readers_see_all_of_a_batch_or_nothing(open_handle: OpenHandle) -> None:
    async with open_handle() as (platform, handle), trio.open_nursery() as nursery:
        looks = dict.fromkeys(["get_many", "range", "scan", "snapshot", "feed"], 0)

        async def scanned() -> None:
            async with handle.scan() as rows:
                check_whole([pair async for pair in rows])

        async def snapshot_taken() -> None:
            rows: list[Entry] = []
            async with handle.subscribe(snapshot=True) as feed:
                async for message in feed.messages():
                    if isinstance(message, SnapshotEnd):
                        break
                    if isinstance(message, SnapshotPage):
                        rows += message.entries
            check_whole([(entry.key, entry.value) for entry in rows])

        async def got() -> None:
            found = await handle.get_many(KEYS)
            assert len({value for _, value in found}) == 1, found

        async def ranged() -> None:
            check_whole(await handle.range_scan())

        async def keep(name: str, look: Callable[[], Awaitable[None]]) -> None:
            while True:
                await look()
                looks[name] += 1

        async def follow() -> None:
            async with handle.subscribe() as feed:
                async for batch in feed:
                    assert isinstance(batch, Batch)
                    check_whole([(entry.key, entry.value) for entry in batch.entries])
                    looks["feed"] += 1

        nursery.start_soon(keep, "get_many", got)
        nursery.start_soon(keep, "range", ranged)
        nursery.start_soon(keep, "scan", scanned)
        nursery.start_soon(keep, "snapshot", snapshot_taken)
        nursery.start_soon(follow)
        nursery.start_soon(write_rounds, platform, nursery)
    assert all(looks.values()), looks


@pytest.mark.slow
async def test_what_an_answer_says_of_its_sequence_and_version_is_true(
    open_handle: OpenHandle,
) -> None:
    """Whatever was folded, merged or under way: it is the last write up to that sequence."""
    answers: list[VersionedValue] = []
    async with open_handle() as (platform, handle), trio.open_nursery() as nursery:

        async def ask() -> None:
            least = 0
            while True:
                answers.append(await handle.get_entry(b"c", min_sequence=least))
                assert answers[-1].sequence >= least
                least = answers[-1].sequence

        nursery.start_soon(ask)
        nursery.start_soon(write_rounds, platform, nursery)
    assert len({answer.sequence for answer in answers}) > 5
    for value, version, sequence in answers:
        assert version == sequence, "each batch writes this key"
        assert value == (b"%d" % (version - 1) if version else None)


def test_every_answer_of_the_wire_that_tells_of_the_state_says_when() -> None:
    for answer in (m.Written, m.Value, m.Values, m.Rows, m.DeliveredBatch):
        assert "sequence" in signature(answer).parameters, answer
    for greeting in (m.Welcome, m.Information):
        assert "frontier" in signature(greeting).parameters, greeting


# --- another log ----------------------------------------------------------------------------------


async def written(path: Path, count: int) -> Cursor:
    """The end of the log at ``path`` after so many batches more."""
    async with on_file(path)() as platform:
        for _ in range(count):
            await platform.put_batch([(b"k", b"v")])
        return platform.cursor


async def resume(path: Path, cursor: Cursor) -> None:
    async with on_file(path)() as platform, platform.subscribe(after=cursor):
        pass


async def test_a_file_that_was_made_anew_is_another_log(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    cursor = await written(path, 3)
    path.unlink()
    again = await written(path, 5)
    assert again.log_id != cursor.log_id
    with pytest.raises(LogMismatchError) as refused:
        await resume(path, cursor)
    assert refused.value.log_id == again.log_id


async def test_a_file_that_was_put_back_says_that_a_later_cursor_is_ahead(tmp_path: Path) -> None:
    """Until it has grown past the cursor: docs/operations.md says what to do about that."""
    path, kept = tmp_path / "feed.duckdb", tmp_path / "kept"
    await written(path, 3)
    shutil.copy(path, kept)
    cursor = await written(path, 2)
    shutil.copy(kept, path)
    with pytest.raises(CursorAheadError) as refused:
        await resume(path, cursor)
    assert refused.value.frontier == 3


# --- the pages ------------------------------------------------------------------------------------


def test_operators_are_told_of_each_error_what_to_do() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|[^|]+\|( yes)? +\|[^|]+\|$", page, flags=re.MULTILINE)
    told = {code: bool(again) for code, again in rows}
    errors: list[type[ExoStreamError]] = [*ERRORS, BackupError, *below(BackupError)]
    assert told == {error.code: error.retryable for error in errors}


def test_each_guarantee_names_the_tests_that_fail_when_it_is_broken() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text()
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    promises = [section for section in sections if section[0].isdigit()]
    assert [int(promise.partition(".")[0]) for promise in promises] == list(range(1, 13))
    for promise in promises:
        assert re.search(r"`tests/test_\w+\.py::test_\w+`", promise), promise.splitlines()[0]


def test_the_files_that_the_architecture_says_to_read_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`([\w/]+\.py)`", page.partition("## Where to begin reading")[2])
    assert len(named) > 30
    assert [name for name in named if not (ROOT / "exo_stream" / name).is_file()] == []


def test_every_decision_is_in_the_index_by_its_title() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for decision in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        title = decision.read_text().partition("\n")[0].removeprefix("# ")
        assert f"- [{title}](decisions/{decision.name})" in index
