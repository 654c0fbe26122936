"""What a verification found: values with a sentence each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FINDINGS_MAX: Final = 100
"""A damaged file can be wrong in ten million places; a person reads the first few."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One contradiction in the file: where (``file``, ``log``, ``block``, ``table``), and what."""

    where: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Report:
    """What ``verify`` read, and all it found; ``more`` counts findings beyond those listed.

    ``notes`` are sentences on what is no damage, and yet worth knowing.
    """

    path: str
    log_id: str
    floor: int
    newest: int
    folded_through: int
    batches: int
    blocks: int
    rows: int
    dead_rows: int
    findings: tuple[Finding, ...]
    more: int
    notes: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


class Findings:
    """Collects findings, the first of them in words and the others by number."""

    def __init__(self) -> None:
        self.listed: list[Finding] = []
        self.more = 0

    def add(self, where: str, sentence: str) -> None:
        """Take note of one."""
        if len(self.listed) < FINDINGS_MAX:
            self.listed.append(Finding(where, sentence))
        else:
            self.more += 1
