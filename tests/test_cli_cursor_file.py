"""A cursor in a file survives, or is refused; it is never half of one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exo_stream.cli.cursor_file import CursorFile
from exo_stream.cli.follow import FeedPrinter
from exo_stream.cli.output import Output
from exo_stream.errors import InvalidRequestError
from exo_stream.feed import CaughtUp
from exo_stream.model import Cursor

CURSOR = Cursor("0" * 32, 7)


def test_a_saved_cursor_is_loaded_again(tmp_path: Path) -> None:
    file = CursorFile(tmp_path / "c")
    assert file.load() is None
    file.save(CURSOR)
    assert CursorFile(tmp_path / "c").load() == CURSOR
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_nothing_is_saved_that_could_not_be_printed(tmp_path: Path) -> None:
    file = CursorFile(tmp_path / "c")
    reading, writing = os.pipe()
    printer = FeedPrinter(Output(writing, is_json=True, is_terminal=False), file)
    printer.hand_over(CaughtUp(CURSOR))
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        printer.hand_over(CaughtUp(Cursor("0" * 32, 8)))
    os.close(writing)
    assert CursorFile(tmp_path / "c").load() == CURSOR


def test_saving_the_same_cursor_again_writes_nothing(tmp_path: Path) -> None:
    file = CursorFile(tmp_path / "c")
    file.save(CURSOR)
    (tmp_path / "c").unlink()
    file.save(CURSOR)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("content", [b"", b"no cursor", b"\xff\xfe", str(CURSOR).encode()[:-1]])
def test_a_file_that_holds_no_cursor_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c"
    path.write_bytes(content)
    with pytest.raises(InvalidRequestError, match="not a cursor"):
        CursorFile(path).load()
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="is no file"):
        CursorFile(tmp_path).load()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidRequestError, match="is no file"):
        CursorFile(tmp_path / "fifo").load()
    with pytest.raises(InvalidRequestError, match="missing is no directory"):
        CursorFile(tmp_path / "missing" / "c").load()
    with pytest.raises(InvalidRequestError, match="cannot be written: No such file"):
        CursorFile(tmp_path / "missing" / "c").save(CURSOR)


def test_a_link_to_a_cursor_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "c").symlink_to(tmp_path / "real" / "c")
    file = CursorFile(tmp_path / "c")
    assert file.load() is None
    file.save(CURSOR)
    assert (tmp_path / "c").is_symlink()
    assert CursorFile(tmp_path / "real" / "c").load() == CURSOR
