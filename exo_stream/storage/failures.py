"""What a failure of DuckDB means: nothing kept, no space, or not known.

DuckDB's texts can hold rows, so they stay in ``__cause__`` and out of what callers are told.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

import duckdb

from exo_stream.errors import (
    CorruptionError,
    ExoStreamError,
    OutcomeUnknownError,
    OverloadedError,
    StoreError,
    StoreFullError,
)

_NO_SPACE: Final = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))

_ROTTEN: Final = "a block of the file does not match its checksum"


def is_no_space(error: BaseException) -> bool:
    """Whether a disk, a quota or a limit on file sizes is exhausted; DuckDB hands on no errno."""
    return any(text in str(error) for text in _NO_SPACE)


def is_fatal(error: BaseException) -> bool:
    """Whether DuckDB has given up the file, so that nothing can be asked of it any more."""
    return isinstance(error, duckdb.FatalException) or "has been invalidated" in str(error)


def is_refused_checkpoint(error: duckdb.Error) -> bool:
    """Whether a CHECKPOINT was refused before it began, because a transaction was just ending."""
    return "Cannot CHECKPOINT" in str(error)


def of_statement(error: duckdb.Error) -> StoreError | CorruptionError:
    """A statement before COMMIT failed: the transaction is rolled back, nothing was kept."""
    if is_corrupt(error):
        return CorruptionError(_ROTTEN)
    return StoreError(f"the database refused the write ({type(error).__name__})")


def of_commit(error: duckdb.Error | OSError) -> StoreFullError | OutcomeUnknownError:
    """COMMIT or CHECKPOINT failed: without space the file must be opened again to know more."""
    if is_no_space(error):
        return StoreFullError("there is no space left for the file or its write-ahead log")
    return OutcomeUnknownError(f"the database could not make it durable ({type(error).__name__})")


def of_probe(error: duckdb.Error) -> StoreFullError | OutcomeUnknownError:
    """A query that cannot fail did: the file must not be used any more."""
    if is_no_space(error):
        return StoreFullError("there was no space left for the file or its write-ahead log")
    return OutcomeUnknownError(f"the database has given up the file ({type(error).__name__})")


def of_read(error: duckdb.Error) -> ExoStreamError:
    """A query of a reader failed: it was interrupted, or the file contradicts itself."""
    if isinstance(error, duckdb.InterruptException):
        return OverloadedError("the query took too long and was stopped")
    if is_fatal(error):
        # The writer has met it too, or will by a probe: the file is opened again, or all stops.
        return OverloadedError("the file has failed and cannot be read for now")
    if is_corrupt(error):
        return CorruptionError(_ROTTEN)
    return StoreError(f"the database refused the query ({type(error).__name__})")


def is_corrupt(error: BaseException) -> bool:
    """Whether DuckDB found that what it read is not what was written."""
    return "Corrupt" in str(error) or "computed checksum" in str(error)


def of_creation(path: Path, error: duckdb.Error | OSError) -> StoreError:
    """A new file could not be made; nothing of it is left under its name."""
    if is_no_space(error):
        return StoreFullError(f"there is no space for {path}")
    reason = error.strerror if isinstance(error, OSError) else type(error).__name__
    return StoreError(f"{path} cannot be created ({reason})")


def as_closed(error: ExoStreamError) -> StoreFullError | OutcomeUnknownError:
    """What a file that could not be opened again answers from then on."""
    if isinstance(error, StoreFullError | OutcomeUnknownError):
        return error
    return OutcomeUnknownError("the file could not be opened again")
