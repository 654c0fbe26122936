"""What a prune did, or with ``dry_run`` would do: counts for each policy, and the batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add


@dataclass(frozen=True, slots=True)
class PruneCounts:
    """What became of one policy; of several, add them.

    Of the log: ``evicted`` batches. Of keys: ``matched`` rows are of the family and have a match.
    Of these, ``ungrouped`` ones lack a capture of ``group_by``, and ``malformed`` ones have no
    proper order where the rule asks for one: both are left alone. ``deleted`` rows are gone, with
    the ``deleted_bytes`` of their keys and values; ``spared`` ones were to go too, but somebody
    wrote or deleted them after they were judged, so they were not touched.
    """

    matched: int = 0
    ungrouped: int = 0
    malformed: int = 0
    deleted: int = 0
    deleted_bytes: int = 0
    spared: int = 0
    evicted: int = 0

    def __add__(self, other: PruneCounts) -> PruneCounts:
        return PruneCounts(
            matched=self.matched + other.matched,
            ungrouped=self.ungrouped + other.ungrouped,
            malformed=self.malformed + other.malformed,
            deleted=self.deleted + other.deleted,
            deleted_bytes=self.deleted_bytes + other.deleted_bytes,
            spared=self.spared + other.spared,
            evicted=self.evicted + other.evicted,
        )


@dataclass(frozen=True, slots=True)
class PruneResult:
    """One ``PruneCounts`` for each policy, in their order, and the batches of the deletions.

    ``sequences`` is empty when nothing was deleted, and always with ``dry_run``.
    """

    policies: tuple[PruneCounts, ...]
    sequences: tuple[int, ...] = ()

    @property
    def total(self) -> PruneCounts:
        """The counts of all policies together."""
        return reduce(add, self.policies, PruneCounts())
