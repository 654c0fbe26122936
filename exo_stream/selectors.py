"""Which entries a subscription wants: today those of the store under one key prefix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from exo_stream.model import Entry, Keyspace


@dataclass(frozen=True, slots=True)
class Selector:
    """Entries of ``keyspace`` whose key starts with ``prefix``; equal selectors are shared."""

    prefix: bytes = b""
    keyspace: Keyspace = Keyspace.STORE

    @property
    def takes_all(self) -> bool:
        """Whether every entry of the store matches, so that a payload can travel unread."""
        return not self.prefix and self.keyspace is Keyspace.STORE

    def select(self, entries: Iterable[Entry]) -> tuple[Entry, ...]:
        """The matching entries, in their order."""
        keyspace, prefix = self.keyspace, self.prefix
        return tuple([e for e in entries if e[0] == keyspace and e[1].startswith(prefix)])
