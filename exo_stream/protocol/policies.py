"""The messages about policies and retention; their rules travel as the documents that files hold.

A document is JSON, as ``policies.document`` has it: one form for the wire, the command line and the
file, refused where a field is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

from exo_stream.policies.result import PruneCounts


@dataclass(frozen=True, slots=True)
class PrunePolicies:
    """Carry out the policies of a document; answered by ``PoliciesPruned``.

    ``dry_run`` only counts. A connection that is lost stops it between two batches.
    """

    id: int
    document: bytes
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class SetRetention:
    """Store what the log keeps, an empty document for everything; answered by ``Retention``."""

    id: int
    document: bytes


@dataclass(frozen=True, slots=True)
class GetRetention:
    """What the log keeps; answered by ``Retention``."""

    id: int


@dataclass(frozen=True, slots=True)
class PoliciesPruned:
    """What became of each policy, and the batches of the deletions."""

    id: int
    counts: tuple[PruneCounts, ...]
    sequences: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Retention:
    """The rules that are stored, and those in force, which may be the server's own: ``option``."""

    id: int
    stored: bytes
    in_force: bytes
    source: str
    problem: str | None
    oldest: int | None


PolicyRequest = PrunePolicies | SetRetention | GetRetention
PolicyReply = PoliciesPruned | Retention
