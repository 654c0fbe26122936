"""The messages about reduces; what is asked travels as the document that files hold.

A document is JSON, as ``reduce.document`` has it: one form for the wire, the command line and the
file. The answer is the scalars themselves, which JSON could not tell apart.
"""

from __future__ import annotations

from dataclasses import dataclass

from exo_stream.reduce.request import ReduceGroup
from exo_stream.reduce.scalar import Scalar


@dataclass(frozen=True, slots=True)
class Reduce:
    """What a document asks of a range, both ends inclusive; answered by ``Reduced``.

    ``min_sequence`` and ``wait`` are those of ``Get``.
    """

    id: int
    document: bytes
    start: bytes = b""
    end: bytes = b""
    min_sequence: int = 0
    wait: bool = True


@dataclass(frozen=True, slots=True)
class Reduced:
    """The results, or with groups those instead; served at ``sequence``, having read so much."""

    id: int
    sequence: int
    read_bytes: int
    results: tuple[Scalar | None, ...]
    groups: tuple[ReduceGroup, ...]
