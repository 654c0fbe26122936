"""What a read has cost: the statistics that every answer of the store can tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from exo_stream.model import SEQUENCE_MAX


@dataclass(frozen=True, slots=True)
class ReadStats:
    """The bytes a read has looked at, as the Exoware store counts them.

    ``read_bytes`` adds up the keys and values of every row that was read, those that a filter
    then dropped included; a key that was asked for counts even if nothing is there.
    """

    read_bytes: int = 0

    def __add__(self, other: ReadStats) -> ReadStats:
        """Both reads together."""
        return ReadStats(min(self.read_bytes + other.read_bytes, SEQUENCE_MAX))

    @classmethod
    def of_pairs(cls, pairs: Iterable[tuple[bytes, bytes | None]]) -> ReadStats:
        """The cost of these keys, each with what was found under it."""
        return cls(sum([len(key) + len(value or b"") for key, value in pairs]))
