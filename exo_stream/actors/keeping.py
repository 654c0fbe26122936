"""What the log keeps: the rules in force, known to the writer without asking anybody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import trio

from exo_stream.actors.reads import Reads
from exo_stream.logger import log
from exo_stream.model import Keyspace
from exo_stream.payload import EncodedBatch
from exo_stream.policies.document import decode_retention
from exo_stream.policies.policy import DropAll, InvalidPolicyError, KeepLatest
from exo_stream.policies.retention import NO_RULES, LogRetention, RetentionState, cutoff
from exo_stream.policies.rules import rules_in
from exo_stream.snapshots import Snapshots
from exo_stream.storage.engine import Engine, Retention

_RULE: Final = int(Keyspace.STORE_RULE)


class Keeping:
    """The rules of one platform's log.

    The stored ones are read once, at open, and from then on taken from the batches that change
    them, as those become visible. ``option`` goes first, if there is one.
    """

    def __init__(self, option: Retention | None = None) -> None:
        self._option = None if option is None else as_rules(option)
        self._stored = NO_RULES
        self.problem: str | None = None
        """Why the stored rules cannot be applied, if so."""

    @property
    def in_force(self) -> LogRetention:
        """The rules to apply."""
        return self._stored if self._option is None else self._option

    def state(self, oldest_retained: int | None) -> RetentionState:
        """All there is to know."""
        source: Literal["stored", "option"] = "stored" if self._option is None else "option"
        return RetentionState(self._stored, self.in_force, source, self.problem, oldest_retained)

    def read(self, value: bytes | None) -> None:
        """Take over the stored rules; those that make no sense are none, and a ``problem``."""
        self._stored, self.problem = _decoded(value)
        if self.problem is not None:
            log.error("stored retention invalid", problem=self.problem)

    def adopt(self, batches: Sequence[EncodedBatch]) -> None:
        """Take over what these batches have stored, now that they are visible."""
        for value in _stored_by(batches):
            self.read(value)

    def floor(
        self, batches: Sequence[EncodedBatch], engine: Engine, snapshots: Snapshots
    ) -> int | None:
        """Where the log begins once ``batches`` are in it; None if it does not move.

        It moves in the transaction of the batches. Nothing is asked of the file: the four rules
        follow from the newest sequence. Age and bytes are compaction's.
        """
        if engine.own_sequences:
            return None
        rules = self.in_force
        if self._option is None:
            for value in _stored_by(batches):
                rules, _ = _decoded(value)
        if rules.retain is None:
            return None
        # Those who hold a snapshot may go on to follow; compaction comes back to it.
        floor = min([cutoff(rules.retain, batches[-1].sequence), *snapshots.floors()])
        return floor if floor > engine.version.floor else None

    async def cutoff(self, reads: Reads, now: int) -> int:
        """Where the log must begin at ``now`` (microseconds), by age and bytes too.

        Those take a query, so compaction asks this once a second, and only where there is a rule.
        """
        rules = self.in_force
        floor = 0
        if rules.retain is not None:
            floor = cutoff(rules.retain, reads.engine.version.frontier)
        if rules.seconds_max is None and rules.bytes_max is None:
            await trio.lowlevel.checkpoint()
            return floor
        asked = Retention(None, rules.seconds_max, rules.bytes_max)
        return max(floor, await reads.cutoff(asked, now))


def as_rules(option: Retention) -> LogRetention:
    """The rules that a platform was opened with; where one keeps nothing, nothing is kept."""
    if 0 in (option.batches_max, option.seconds_max, option.bytes_max):
        return LogRetention(DropAll())
    retain = None if option.batches_max is None else KeepLatest(option.batches_max)
    return LogRetention(retain, option.seconds_max, option.bytes_max)


def _stored_by(batches: Sequence[EncodedBatch]) -> list[bytes | None]:
    # Asked of every batch that is written: most are told by their first entry, without a call.
    return [
        value
        for batch in batches
        if (entries := batch.entries) and entries[0][0] == _RULE
        for value in rules_in(entries)
    ]


def _decoded(value: bytes | None) -> tuple[LogRetention, str | None]:
    try:
        return decode_retention(value or b""), None
    except InvalidPolicyError as error:
        return NO_RULES, str(error)
