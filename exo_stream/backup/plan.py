"""How a backup is to be taken, and how far it is."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from exo_stream.backup.artifact import ArtifactWriter
from exo_stream.backup.reading import Backup
from exo_stream.backup_key import BackupKey
from exo_stream.backups import OnProgress


class Meter:
    """Counts bytes that are done, and tells somebody now and then."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._on_progress = on_progress
        self._done = self._total = 0

    def expect(self, size: int) -> None:
        """So many bytes more are to be done, about."""
        self._total += size

    def count(self, size: int) -> None:
        """So many bytes more are done."""
        self._done += size
        if self._on_progress is not None:
            self._on_progress(self._done, max(self._done, self._total))


@dataclass(frozen=True, slots=True)
class Plan:
    """How a backup is taken; ``projections`` is a folder of some that nobody runs."""

    parent: Backup | None
    compress: bool
    key: BackupKey | None
    projections: Path | None
    meter: Meter
    salt: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def is_plain(self) -> bool:
        """Whether what is written is as it is, neither compressed nor encrypted."""
        return not self.compress and self.key is None

    def named(self, name: str) -> str:
        """What a file is called that holds this."""
        return name + ".zst" * self.compress + ".sealed" * (self.key is not None)

    def artifact(self, path: Path) -> ArtifactWriter:
        """What writes the file of this name."""
        seal = None if self.key is None else self.key.seal(self.salt.encode(), path.name)
        return ArtifactWriter(path, compress=self.compress, seal=seal)
