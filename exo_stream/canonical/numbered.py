"""A transaction that is sent again when its answer was lost, and takes effect once.

Its producer's number is remembered in the same batch, with what a retry cannot find out any more:
the id of its first event, and how many keys were there to be deleted.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, assert_never

from exo_stream.canonical.changes import Changes, CommitInfo, judge
from exo_stream.decision import Answer, Decision, Need, Refuse, Verdict, View, Write
from exo_stream.errors import InvalidRequestError, PausedError
from exo_stream.producers import Accepted, Duplicate, Producer, Rejected
from exo_stream.producers import judge as judge_number

_NOTE: Final = Struct(">QQQQ")


def numbered(changes: Changes, producer: Producer) -> Decision[CommitInfo]:
    """How ingest decides on ``changes`` the first time, and every other time.

    A duplicate is answered before anything that was read is looked at: it held when it took
    effect, and the transaction itself may have changed it.
    """

    def decide(view: View, now: int) -> Verdict[CommitInfo]:
        match judge_number(producer, view, now):
            case Need() as need:
                return need
            case Duplicate(sequence, note):
                return _told_again(note, sequence)
            case Rejected(error):
                return Refuse(error)
            case Accepted() as accepted:
                verdict = judge(changes, view, now)
            case unreachable:
                assert_never(unreachable)
        if not isinstance(verdict, Write):
            return verdict
        remembered = accepted.noting(_note(verdict.answer))
        return Write((*remembered, *verdict.entries), verdict.answer)

    return decide


def recalled(producer: Producer) -> Decision[CommitInfo]:
    """How to answer while nothing may be written: what took effect before is told again."""

    def decide(view: View, now: int) -> Verdict[CommitInfo]:
        match judge_number(producer, view, now):
            case Need() as need:
                return need
            case Duplicate(sequence, note):
                return _told_again(note, sequence)
            case Rejected() | Accepted():
                return Refuse(PausedError("writes are paused"))
            case unreachable:
                assert_never(unreachable)

    return decide


def _note(info: CommitInfo) -> bytes:
    return _NOTE.pack(
        info.events_written,
        info.first_event_id or 0,
        info.state_keys_written,
        info.state_keys_deleted,
    )


def _told_again(note: bytes, sequence: int) -> Verdict[CommitInfo]:
    if len(note) != _NOTE.size:
        return Refuse(InvalidRequestError("under this number something else was written"))
    count, first, written, deleted = _NOTE.unpack(note)
    first_id, last_id = (first, first + count - 1) if count else (None, None)
    return Answer(CommitInfo(count, first_id, last_id, written, deleted, 0, sequence))
