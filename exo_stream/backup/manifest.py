"""The manifest: what a backup holds, of which log, and the size and hash of every file.

It is JSON in one form only, and ends with a hash of itself, so that no byte of it can change
unseen. With a key it is authenticated besides. It is never encrypted: it holds no data.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal

from exo_stream.backup_errors import BackupDamagedError, BackupFormatError

NAME: Final = "manifest.json"
FORMAT: Final = 1
"""Raised when a backup of today could not be restored by the code of yesterday."""

VERSION: Final = "0.1.0"
"""Of the program that takes the backup."""

CHECKSUM: Final = "checksum"
AUTHENTICATION: Final = "authentication"


@dataclass(frozen=True, slots=True)
class BackupFile:
    """One file of a backup as it lies on the disk; ``sha256`` in hexadecimal digits."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BackupProjection:
    """A projection whose tables are in a backup, in ``file``, with every event up to ``cursor``."""

    name: str
    cursor: int | None
    schema_version: int
    file: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything known of a backup; times are microseconds since the Unix epoch.

    A full backup is the table at ``sequence``, and the log from ``first_sequence`` to there. An
    incremental one is only that log, and ``first_sequence`` follows what its parent ends with.
    ``oldest_batch`` is the log's floor when it was taken.

    The names of Azoth's manifest have their meaning there. It knows one projection: with several,
    ``projection_cursor`` and ``projection_schema_version`` are the least of them; without, None.
    """

    format: int
    store_format: int
    backup_id: str
    kind: Literal["full", "incremental"]
    parent_id: str | None
    log_id: str
    sequence: int
    first_sequence: int
    oldest_batch: int
    committed_at: int
    created_at: int
    timestamp: str
    first_event_id: int | None
    next_event_id: int
    sealed_event_id: int | None
    rows: int
    batches: int
    canonical_backend: str
    canonical_version: str
    canonical_schema_version: int
    projection_backend: str | None
    projection_cursor: int | None
    projection_schema_version: int | None
    compression: str | None
    encryption: str | None
    key_id: str | None
    salt: str | None
    files: tuple[BackupFile, ...]
    """That of the table and the log first, then those of the projections."""
    projections: tuple[BackupProjection, ...]

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.size for file in self.files)

    def canonical(self) -> bytes:
        """What its hash and its authentication are of."""
        return _written(asdict(self))


def encode(manifest: Manifest, authentication: str | None = None) -> bytes:
    """The bytes of ``manifest.json``."""
    values = {**asdict(manifest), AUTHENTICATION: authentication}
    return _written({**values, CHECKSUM: hashlib.sha256(_written(values)).hexdigest()})


def decode(data: bytes, *, path: str) -> tuple[Manifest, str | None]:
    """The manifest in these bytes, and its authentication; ``path`` is for what is raised.

    Raises BackupDamagedError, BackupFormatError.
    """
    values = _read(data, path)
    if type(values.get("format")) is not int:
        raise BackupDamagedError(path, "this is not the manifest of a backup")
    if values["format"] > FORMAT:
        raise BackupFormatError(
            path, f"this backup is of format {values['format']}, newer than {FORMAT}"
        )
    authentication = values.pop(AUTHENTICATION, None)
    try:
        files = tuple(BackupFile(**file) for file in values.pop("files"))
        projections = tuple(BackupProjection(**one) for one in values.pop("projections"))
        manifest = Manifest(**values, files=files, projections=projections)
    except (TypeError, KeyError) as error:
        raise BackupDamagedError(path, "a field of the manifest is missing or unknown") from error
    _check(manifest, authentication, path)
    return manifest, authentication


def _written(values: dict[str, Any]) -> bytes:
    return json.dumps(values, indent=1, sort_keys=True).encode() + b"\n"


def _read(data: bytes, path: str) -> dict[str, Any]:
    """The fields, all of which are as they were written."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BackupDamagedError(path, "this is no JSON") from error
    if type(values) is not dict or _written(values) != data:
        raise BackupDamagedError(path, "the manifest is not as it was written")
    checksum = values.pop(CHECKSUM, None)
    if checksum != hashlib.sha256(_written(values)).hexdigest():
        raise BackupDamagedError(path, "the manifest does not match its checksum")
    return values


def _check(manifest: Manifest, authentication: object, path: str) -> None:
    """Values of other types come from no writer of ours, whatever their checksum says."""
    for field in fields(manifest):
        value = getattr(manifest, field.name)
        kind = str(field.type)
        good = (
            type(value) is int
            if kind == "int"
            else (type(value) is tuple if kind.startswith("tuple") else type(value) in _TYPES[kind])
        )
        if not good:
            raise BackupDamagedError(path, f"the manifest has no proper {field.name}")
    if authentication is not None and type(authentication) is not str:
        raise BackupDamagedError(path, "the manifest has no proper authentication")
    if manifest.kind not in {"full", "incremental"} or not _is_sound(manifest):
        raise BackupDamagedError(path, "the manifest contradicts itself")


_TYPES: Final[dict[str, set[type]]] = {
    "str": {str},
    "Literal['full', 'incremental']": {str},
    "str | None": {str, type(None)},
    "int | None": {int, type(None)},
}


def _is_sound(manifest: Manifest) -> bool:
    names = [file.name for file in manifest.files]
    return (
        all(map(_is_file, manifest.files))
        and all(map(_is_projection, manifest.projections))
        and names[1:] == [projection.file for projection in manifest.projections]
        and len(set(names)) == len(names) > 0
        and len({projection.name for projection in manifest.projections}) == len(names) - 1
        and 0 <= manifest.sequence < 1 << 64
        and 1 <= manifest.first_sequence <= manifest.sequence + 1
        and manifest.oldest_batch >= 1
        and (manifest.kind == "full") == (manifest.parent_id is None)
    )


def _is_file(file: BackupFile) -> bool:
    return (
        all(type(value) is str for value in (file.name, file.sha256))
        and type(file.size) is int
        and file.name != NAME
        and _is_name(file.name)
    )


def _is_projection(projection: BackupProjection) -> bool:
    return (
        all(type(value) is str for value in (projection.name, projection.file))
        and (projection.cursor is None or type(projection.cursor) is int)
        and type(projection.schema_version) is int
        and _is_name(projection.name)
    )


def _is_name(name: str) -> bool:
    """Whether it names something in a directory, and nothing elsewhere or hidden."""
    return name != "" and name[0] != "." and "/" not in name and "\0" not in name
