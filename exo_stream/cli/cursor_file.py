"""A cursor in a file: replaced as a whole, so that a crash leaves the old one or the new one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from exo_stream.errors import InvalidRequestError
from exo_stream.model import Cursor


class CursorFile:
    """Where a follower keeps the last batch it has finished."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # A link stays one: what it leads to is replaced.
        self._path = Path(os.path.realpath(path))
        self._saved: Cursor | None = None

    def load(self) -> Cursor | None:
        """The saved cursor; None if the file does not exist yet.

        Raises InvalidRequestError if there is anything else, rather than begin anew, or if no
        cursor could be saved there.
        """
        try:
            if not stat.S_ISREG(self._path.stat().st_mode):
                raise InvalidRequestError(f"the cursor file {self._path} is no file")
            content = self._path.read_bytes()
        except FileNotFoundError:
            self._check_folder()
            return None
        except OSError as error:
            raise InvalidRequestError(
                f"the cursor file {self._path} cannot be read: {error.strerror}"
            ) from None
        try:
            self._saved = Cursor.parse(content.decode("ascii", errors="replace").strip())
        except InvalidRequestError as error:
            raise InvalidRequestError(f"the cursor file {self._path}: {error}") from None
        return self._saved

    def _check_folder(self) -> None:
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            reason = "cannot be written" if self._path.parent.is_dir() else "is no directory"
            raise InvalidRequestError(
                f"the cursor file {self._path} cannot be made: {self._path.parent} {reason}"
            )

    def save(self, cursor: Cursor) -> None:
        """Replace the saved cursor; on return a crash of the machine cannot leave half of it."""
        if cursor == self._saved:
            return
        beside = self._path.with_name(f"{self._path.name}.new")
        try:
            with beside.open("w") as file:
                file.write(f"{cursor}\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise InvalidRequestError(
                f"the cursor file {self._path} cannot be written: {error.strerror}"
            ) from None
        self._saved = cursor
