"""A CHECKPOINT torn by a power cut: blocks of the file that hold the pages of two times.

DuckDB keeps what it knows of a file in pieces of 4 KiB, 64 to a block. A CHECKPOINT writes new
pieces into free places and then the block in place, under one checksum; if the power goes before
that is synced, some of its pages are new, and the block is refused. Yet every piece that the
file's head refers to is as it was: with its checksum made good the file is what it was before
the CHECKPOINT, and its write-ahead log is there. That it is so, ``verify`` proves on a copy.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import duckdb

from exo_stream.errors import CorruptionError
from exo_stream.storage import inspection, wal
from exo_stream.storage.directory import beside
from exo_stream.storage.instance import attach
from exo_stream.storage.verify import verify

_BLOCKS_START: Final = 3 * 4096
_BLOCK_BYTES: Final = 256 * 1024
_CHECKSUM: Final = struct.Struct("<Q")


def find(path: Path, *, memory_bytes: int) -> tuple[int, ...]:
    """The blocks whose checksum must be made good for the file to open; none if it opens.

    The caller holds the lock, and the write-ahead log is sound. Raises CorruptionError if the
    file is damaged in any other way.
    """
    try:
        inspection.inspect(path, memory_bytes=memory_bytes)
    except CorruptionError as error:
        damage = error
    else:
        return ()
    wrong, torn = _wrong_blocks(path), set[int]()
    with TemporaryDirectory(prefix=f"{path.name}.", dir=path.parent) as folder:
        copy = Path(folder) / path.name
        try:
            _copy(path, copy)
            mend(copy, wrong)
            torn = wrong & _metadata_blocks(copy, memory_bytes)
            _copy(path, copy)
            mend(copy, torn)
            is_mended = bool(torn) and verify(copy, memory_bytes=memory_bytes).sound
        except duckdb.Error:
            is_mended = False
    if not is_mended:
        raise damage
    return tuple(sorted(torn))


def mend(path: Path, blocks: Iterable[int]) -> None:
    """Make the checksums of these blocks good, durably."""
    fd = os.open(path, os.O_RDWR)
    try:
        for block in blocks:
            at = _BLOCKS_START + block * _BLOCK_BYTES
            content = os.pread(fd, _BLOCK_BYTES, at)[_CHECKSUM.size :]
            os.pwrite(fd, _CHECKSUM.pack(wal.checksum(content)), at)
        os.fsync(fd)
    finally:
        os.close(fd)


def _wrong_blocks(path: Path) -> set[int]:
    """The whole blocks that do not match their checksums, free ones included."""
    wrong: set[int] = set()
    with path.open("rb") as file:
        file.seek(_BLOCKS_START)
        number = 0
        while len(block := file.read(_BLOCK_BYTES)) == _BLOCK_BYTES:
            if _CHECKSUM.unpack_from(block)[0] != wal.checksum(block[_CHECKSUM.size :]):
                wrong.add(number)
            number += 1
    return wrong


def _metadata_blocks(path: Path, memory_bytes: int) -> set[int]:
    con = attach(path, memory_bytes=memory_bytes, mode="READ_ONLY")
    try:
        found = con.execute("SELECT block_id FROM pragma_metadata_info('exo')").fetchall()
    finally:
        con.close()
    return {block for (block,) in found}


def _copy(path: Path, copy: Path) -> None:
    for suffix in ("", ".wal"):
        shutil.copyfile(beside(path, suffix), beside(copy, suffix))
