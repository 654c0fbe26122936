"""The check of the rules that a file keeps for itself: whether the newest ones can be read."""

from __future__ import annotations

from exo_stream.model import Entry, Keyspace
from exo_stream.policies.document import decode_retention
from exo_stream.policies.policy import InvalidPolicyError
from exo_stream.policies.rules import RETENTION_KEY, rules_in
from exo_stream.storage.blocks import SUB_BLOCK_BITS
from exo_stream.storage.database import Rows


class RuleCheck:
    """Finds the newest stored retention, in the live blocks or in the log; makes one note of it.

    It is no finding: the file is sound, and opens, but nothing is evicted by such a rule.
    """

    def __init__(self, rows: Rows) -> None:
        found = rows.fetch(
            "SELECT kv.sequence, kv.value FROM kv JOIN manifest"  # noqa: S608  a constant
            f" ON kv.sub_block >> {SUB_BLOCK_BITS} = manifest.block"
            " WHERE kv.keyspace = ? AND kv.key = ? ORDER BY kv.sequence DESC LIMIT 1",
            (int(Keyspace.STORE_RULE), RETENTION_KEY),
        )
        self._sequence, self._value = found[0] if found else (0, None)

    def take_batch(self, sequence: int, entries: tuple[Entry, ...]) -> None:
        """Look at one batch of the log."""
        if sequence <= self._sequence:
            return
        for value in rules_in(entries):
            self._sequence, self._value = sequence, value

    def notes(self) -> tuple[str, ...]:
        """What is worth telling of the rules."""
        try:
            decode_retention(self._value or b"")
        except InvalidPolicyError as error:
            note = (
                f"the retention stored by batch {self._sequence} cannot be read ({error}): nothing"
                " is evicted by it until it is set anew"
            )
            return (note,)
        return ()
