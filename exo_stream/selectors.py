"""Which entries a subscription wants: today those of the store under one key prefix."""

from __future__ import annotations

from dataclasses import dataclass

from exo_stream.model import Keyspace
from exo_stream.payload import NONE, EncodedBatch, visible


@dataclass(frozen=True, slots=True)
class Selector:
    """Entries of ``keyspace`` whose key starts with ``prefix``; equal selectors are shared."""

    prefix: bytes = b""
    keyspace: Keyspace = Keyspace.STORE

    @property
    def takes_all(self) -> bool:
        """Whether every entry of the store matches, so that a payload can travel unread."""
        return not self.prefix and self.keyspace is Keyspace.STORE

    def select(self, batch: EncodedBatch) -> EncodedBatch | None:
        """The batch with its matching entries only, in their order; None if there are none.

        The whole batch, where all of it matches, keeps its bytes.
        """
        if self.takes_all:
            payload = visible(batch.payload)
            if payload == NONE:
                return None
            if payload is batch.payload:
                return batch
            return EncodedBatch(batch.sequence, batch.committed_at, payload)
        keyspace, prefix = self.keyspace, self.prefix
        matching = [e for e in batch.entries if e[0] == keyspace and e[1].startswith(prefix)]
        if not matching:
            return None
        return EncodedBatch(batch.sequence, batch.committed_at, entries=tuple(matching))
