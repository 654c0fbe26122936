"""Deleting a stream, letting one expire, and writing down that one was accessed: the decisions."""

from __future__ import annotations

from exo_stream.decision import Answer, Decision, Need, Unknown, Verdict, View, Write
from exo_stream.streams.accesses import Accesses
from exo_stream.streams.appending import Refused, live
from exo_stream.streams.record import Record
from exo_stream.streams.removal import found, need, removal


def delete(name: str, accesses: Accesses) -> Decision[Refused | None]:
    """How ingest decides on a deletion."""

    def decide(view: View, now: int) -> Verdict[Refused | None]:
        record = live(view, name, accesses, now)
        if not isinstance(record, Record):
            return record
        entries = removal(view, name, record, now)
        return entries if isinstance(entries, Need) else Write(entries, None)

    return decide


def expire(name: str, incarnation: int, accesses: Accesses) -> Decision[bool]:
    """How a stream that was found to have expired is removed; it may have been touched since.

    The answer is whether it is removed now.
    """

    def decide(view: View, now: int) -> Verdict[bool]:
        record = _same(view, name, incarnation)
        if isinstance(record, Need):
            return record
        if record is None or not accesses.expired(record, now):
            return Answer(answer=False)
        entries = removal(view, name, record, now)
        return entries if isinstance(entries, Need) else Write(entries, answer=True)

    return decide


def renew(name: str, incarnation: int, accesses: Accesses) -> Decision[None]:
    """How an access is written to the stream's record, if it is still there to be accessed."""

    def decide(view: View, now: int) -> Verdict[None]:
        record = _same(view, name, incarnation)
        if isinstance(record, Need):
            return record
        if record is None or accesses.expired(record, now):
            return Answer(None)
        return Write([record._replace(touched_at=now).entry(name)], None)

    return decide


def _same(view: View, name: str, incarnation: int) -> Record | Need | None:
    record = found(view, name)
    if isinstance(record, Unknown):
        return need(name)
    if record is None or record.deleted or record.incarnation != incarnation:
        return None
    return record
