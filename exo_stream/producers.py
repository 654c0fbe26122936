"""Idempotent producers: whether a numbered write is new, and the record that tells.

A producer's record is two kinds of entries in the PRODUCER keyspace, written in the same batch as
what the producer wrote: its *head* (epoch, newest seq, time of the last write) and one of 256
*slots*, chosen by ``seq % 256``, that holds (epoch, seq). A slot's version, the sequence of its
last write, is the sequence that seq was given. So a write costs two small entries, not one
record of 256 numbers, and the record of the last 256 is the slots themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cbor2

from exo_stream.decision import (
    UNKNOWN,
    Answer,
    Decision,
    KeyRange,
    Need,
    Unknown,
    Verdict,
    View,
    Write,
)
from exo_stream.errors import (
    ExoStreamError,
    InvalidRequestError,
    OutcomeUnknownError,
    ProducerFencedError,
    ProducerGapError,
)
from exo_stream.model import SEQUENCE_MAX, Entry, Keyspace

WINDOW: Final = 256
"""How many of a producer's latest numbers are remembered; more than any client has in flight."""

PRODUCER_ID_BYTES_MAX: Final = 64

_PRODUCER: Final = int(Keyspace.PRODUCER)
_SLOTS: Final = tuple(bytes([slot]) for slot in range(WINDOW))


@dataclass(frozen=True, slots=True)
class Producer:
    """Who writes, and which of its writes this is: retried with the same ``seq`` it takes effect
    once.

    A higher ``epoch`` fences every lower one. ``contiguous`` refuses a seq that skips one.
    """

    id: bytes
    epoch: int
    seq: int
    contiguous: bool = False

    def check(self) -> None:
        """Raise InvalidRequestError unless every field is of its type and in its range."""
        if type(self.id) is not bytes or not 0 < len(self.id) <= PRODUCER_ID_BYTES_MAX:
            raise InvalidRequestError(f"a producer id is 1 to {PRODUCER_ID_BYTES_MAX} bytes")
        for name, number in (("epoch", self.epoch), ("seq", self.seq)):
            if type(number) is not int or not 0 <= number <= SEQUENCE_MAX:
                raise InvalidRequestError(f"a producer's {name} is an unsigned 64-bit integer")


@dataclass(frozen=True, slots=True)
class Head:
    """What is remembered of a producer besides its numbers; ``seen_at`` in microseconds."""

    epoch: int
    newest: int
    seen_at: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """New: write, and with it these entries, which remember it."""

    entries: tuple[Entry, Entry]

    def noting(self, note: bytes) -> tuple[Entry, Entry]:
        """The entries, with a note that a retry is told of."""
        head, (keyspace, key, written) = self.entries
        return head, Entry(keyspace, key, (written or b"") + note)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Written before, as batch ``sequence``; ``note`` is what was noted with it."""

    sequence: int
    note: bytes = b""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Not to be written; ``error`` says why."""

    error: ExoStreamError


Judgement = Accepted | Duplicate | Rejected | Need


def judge(producer: Producer, view: View, now: int) -> Judgement:
    """Decide on a write labelled by ``producer``: the table of docs/guarantees.md, number 6."""
    head_at = head_key(producer.id)
    slot_at = head_at + _SLOTS[producer.seq % WINDOW]
    head_row = view.row(_PRODUCER, head_at)
    slot_row = view.row(_PRODUCER, slot_at)
    if isinstance(head_row, Unknown) or isinstance(slot_row, Unknown):
        rows = ((head_at, head_row), (slot_at, slot_row))
        return Need(keys=[(_PRODUCER, key) for key, row in rows if row is UNKNOWN])
    head = decode_head(head_row.value) if head_row and head_row.value is not None else None
    if head is not None and producer.epoch < head.epoch:
        return Rejected(ProducerFencedError(head.epoch))
    written = cbor2.dumps([producer.epoch, producer.seq])
    if slot_row is not None and slot_row.value and slot_row.value.startswith(written):
        # CBOR tells where it ends: what follows the two numbers is a note.
        return Duplicate(slot_row.sequence, slot_row.value[len(written) :])
    refusal = _refusal(producer, head)
    if refusal is not None:
        return Rejected(refusal)
    newest = producer.seq
    if head is not None and head.epoch == producer.epoch:
        newest = max(newest, head.newest)
    seen = cbor2.dumps([producer.epoch, newest, now])
    return Accepted((Entry(_PRODUCER, head_at, seen), Entry(_PRODUCER, slot_at, written)))


def _refusal(producer: Producer, head: Head | None) -> ExoStreamError | None:
    if head is None or producer.epoch > head.epoch:
        if producer.contiguous and producer.seq != 0:
            return ProducerGapError(0, producer.seq)
        return None
    if producer.seq + WINDOW <= head.newest:
        return OutcomeUnknownError(
            f"seq {producer.seq} is older than the {WINDOW} remembered ones; newest {head.newest}"
        )
    if producer.contiguous and producer.seq > head.newest + 1:
        return ProducerGapError(head.newest + 1, producer.seq)
    return None


def head_key(producer_id: bytes) -> bytes:
    """The key of a producer's head. The length comes first: no id is a prefix of another's keys."""
    return bytes([len(producer_id)]) + producer_id


def slot_key(producer_id: bytes, seq: int) -> bytes:
    """The key of the slot that remembers ``seq``."""
    return head_key(producer_id) + _SLOTS[seq % WINDOW]


def is_head(key: bytes) -> bool:
    """Whether a key of the PRODUCER keyspace is a head, not a slot."""
    return len(key) == key[0] + 1


def decode_head(value: bytes) -> Head:
    """The head that ``value`` holds."""
    return Head(*cbor2.loads(value))


def expire(producer_id: bytes, *, before: int) -> Decision[bool]:
    """How to forget a producer that has not written since ``before`` (microseconds).

    It may have written again between the plan and the decision; then nothing happens. The answer
    is whether it was forgotten.
    """
    head = head_key(producer_id)
    record = KeyRange(Keyspace.PRODUCER, head, head + b"\xff\x00", limit=WINDOW + 1)

    def decide(view: View, _now: int) -> Verdict[bool]:
        rows = view.rows(record)
        if isinstance(rows, Unknown):
            return Need(ranges=[record])
        if not rows or rows[0].value is None or decode_head(rows[0].value).seen_at >= before:
            return Answer(answer=False)
        return Write([Entry(Keyspace.PRODUCER, row.key[1:], None) for row in rows], answer=True)

    return decide
