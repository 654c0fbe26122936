"""What ingest can be asked: to decide on a write, to move the log's floor, to perform a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from exo_stream.actors.mailbox import Request
from exo_stream.decision import Decision, Verdict
from exo_stream.storage.engine import Job

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Decide(Request[T]):
    """Decide under the single writer; the answer is the decision's, once it is durable."""

    decide: Decision[T]
    frees: bool = False
    """Whether it only removes, so that it passes the low-disk mark."""


AnyDecide = Decide[Any]
"""A decision of any face: what its answer is, whoever asked for it knows; ingest hands it on."""
AnyVerdict = Verdict[Any]
"""What one of these came to, with its answer if it has one."""


@dataclass(frozen=True, slots=True, eq=False)
class MoveFloor(Request[int]):
    """Evict every batch below ``cutoff``; answer how many batches that were."""

    cutoff: int


@dataclass(frozen=True, slots=True, eq=False)
class Perform(Request[bool]):
    """Run one step of a job on the writer thread; answer whether it was the last."""

    job: Job


Work = MoveFloor | Perform
