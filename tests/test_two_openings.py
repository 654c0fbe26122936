"""One file, one platform: whoever else wants to open it is refused, and told who has it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exo_stream.errors import FileInUseError
from exo_stream.opening import open_platform
from tests.torture.child import Assignment
from tests.torture.life import Ended, live

pytestmark = pytest.mark.slow


async def another_process(path: Path) -> Ended:
    """What becomes of a child that wants the same file."""
    assignment = Assignment(str(path), "seed", first_numbers=[0], batches=1)
    return await live(assignment.command(), lambda _: None, None)


def open_and_close(path: Path) -> None:
    """As a backup tool or an editor would, inside this process; DuckDB's own lock goes with it."""
    with path.open("rb") as file:
        file.read(16)


async def test_a_second_opening_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "feed.duckdb"
    async with open_platform(path) as store:
        await store.put_batch([(b"key", b"value")])
        for _ in range(2):
            assert (await another_process(path)).last_line == "stopped file_in_use"
            with pytest.raises(FileInUseError) as refused:
                async with open_platform(path):
                    pass
            assert refused.value.pid == os.getpid()
            open_and_close(path)
        assert await store.put_batch([(b"key", b"another")]) == 2
    ended = await another_process(path)
    assert ended.last_line == "closed", ended


async def test_another_name_of_the_file_is_the_same_file(tmp_path: Path) -> None:
    path, link = tmp_path / "feed.duckdb", tmp_path / "link.duckdb"
    async with open_platform(path):
        link.symlink_to(path)
        with pytest.raises(FileInUseError):
            async with open_platform(link):
                pass
