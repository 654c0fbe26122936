"""A file of frames on the disk: compressed if wanted, then encrypted if wanted, and hashed."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from exo_stream.backup.manifest import BackupFile
from exo_stream.backup_key import Seal
from exo_stream.limits import MIB

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESSION: Final = "zstd"
_LEVEL: Final = 3
_PIECE: Final = MIB


class ArtifactWriter:
    """Writes one file that did not exist; nothing of it is in the clear if there is a ``seal``."""

    def __init__(self, path: Path, *, compress: bool, seal: Seal | None) -> None:
        self._path = path
        self._file = path.open("xb")
        self._zstd = zstd.ZstdCompressor(level=_LEVEL) if compress else None
        self._seal = seal
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Add to what the file says; blocking."""
        self._put(data if self._zstd is None else self._zstd.compress(data))

    def finish(self) -> BackupFile:
        """End it, and return once it is durable."""
        if self._zstd is not None:
            self._put(self._zstd.flush())
        if self._seal is not None:
            self._append(self._seal.finish())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return BackupFile(self._path.name, self.size, self._hash.hexdigest())

    def close(self) -> None:
        """Let go of it, whole or not."""
        with suppress(OSError):  # what did not fit before does not fit now; nobody wants it
            self._file.close()

    def _put(self, data: bytes) -> None:
        self._append(data if self._seal is None else self._seal.update(data))

    def _append(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)
        self._file.write(data)


def decompressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """What one zstd frame holds, in bounded pieces. Raises ZstdError or EOFError otherwise."""
    decompressor = zstd.ZstdDecompressor()
    for piece in pieces:
        data = decompressor.decompress(piece, _PIECE)
        while data or not (decompressor.needs_input or decompressor.eof):
            yield data
            if decompressor.eof:
                break
            data = decompressor.decompress(b"", _PIECE)
    if not decompressor.eof or decompressor.unused_data:
        raise EOFError("the compressed file is cut off, or longer than it should be")


def read_pieces(path: Path) -> Iterator[bytes]:
    """The bytes of a file as they lie there, a bounded number at a time."""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


ZstdError: Final = zstd.ZstdError
