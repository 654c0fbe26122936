"""A projection's file that is whole and that nobody has open, so that it may be copied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class AtRest:
    """Where it is, which log it was made of, and the last event in it, None before the first."""

    path: Path
    log_id: str
    cursor: int | None
    schema_version: int
