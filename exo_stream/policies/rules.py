"""The rules that a file keeps for itself: entries of their own keyspace, written like any other.

So they are durable and ordered with the batches they apply to, travel with a copy of the file, and
need no table of their own. Of the batch that holds one, the store's readers see that it exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from exo_stream.decision import Answer, Decision, Need, Unknown, Verdict, View, Write
from exo_stream.model import Entry, Keyspace
from exo_stream.policies.document import encode_retention
from exo_stream.policies.retention import LogRetention

RETENTION_KEY: Final = b"retention"
"""Its value is a document of the log's retention; a deletion clears it."""


def store_retention(retention: LogRetention) -> Decision[int]:
    """Store these rules; the answer is the sequence, 0 if they are stored already.

    No rules at all are stored as a deletion. ``retention`` has been checked.
    """
    value = encode_retention(retention) or None

    def decide(view: View, _now: int) -> Verdict[int]:
        row = view.row(Keyspace.STORE_RULE, RETENTION_KEY)
        if isinstance(row, Unknown):
            return Need(keys=[(int(Keyspace.STORE_RULE), RETENTION_KEY)])
        if value == (None if row is None else row.value):
            return Answer(0)
        return Write((Entry(int(Keyspace.STORE_RULE), RETENTION_KEY, value),), view.sequence)

    return decide


def rules_in(entries: Sequence[Entry]) -> list[bytes | None]:
    """What one batch stores as the log's retention, the last of it last; None clears it."""
    # A batch belongs to one face, so its first entry tells; this is asked of every batch.
    if not entries or entries[0][0] != Keyspace.STORE_RULE:
        return []
    return [entry.value for entry in entries if entry.key == RETENTION_KEY]
