"""How one append is kept: its messages in one value, with their time and their count.

The key is (incarnation, where the append ends), so that the rows after an offset are exactly the
messages after it, and the row that ends where another begins is found by its key alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from struct import Struct
from typing import Final

_HEAD: Final = Struct(">BQQ")
_COUNT: Final = Struct(">I")
_KEY: Final = Struct(">QQ")
SPAN_BYTES: Final = _HEAD.size + _COUNT.size
"""So much of a value tells what it holds without holding it."""

_ONE: Final = 0
_SEVERAL: Final = 1
_UTF8_TAIL_MAX: Final = 3


def data_key(incarnation: int, end: int) -> bytes:
    """The STREAM_DATA key of the append of ``incarnation`` that ends at ``end``."""
    return _KEY.pack(incarnation, end)


def read_key(key: bytes) -> tuple[int, int]:
    """The incarnation and the end that a STREAM_DATA key holds."""
    incarnation, end = _KEY.unpack(key)
    return incarnation, end


def encode(messages: Sequence[bytes], *, committed_at: int, through: int) -> bytes:
    """The value that keeps ``messages``, of which the last is the stream's ``through``-th."""
    if len(messages) == 1:
        return _HEAD.pack(_ONE, committed_at, through) + messages[0]
    lengths = Struct(f">{len(messages)}I").pack(*map(len, messages))
    head = _HEAD.pack(_SEVERAL, committed_at, through) + _COUNT.pack(len(messages))
    return b"".join((head, lengths, b",".join(messages)))


class Stored:
    """The messages of one append, or those of them that a read asks for.

    They stand between ``start`` and ``end`` in the stream; ``through`` is how many messages the
    stream had with them, ``committed_at`` when that was, in microseconds.
    """

    __slots__ = ("_data", "_lengths", "committed_at", "end", "start", "through")

    def __init__(
        self, end: int, data: bytes, lengths: Sequence[int], through: int, committed_at: int
    ) -> None:
        self._data = data
        self._lengths = lengths
        self.end = end
        self.start = end - sum(lengths)
        self.through = through
        self.committed_at = committed_at

    @property
    def count(self) -> int:
        """How many messages these are."""
        return len(self._lengths)

    @property
    def joined(self) -> bytes:
        """The messages with a comma between each two."""
        return self._data

    def packed_lengths(self) -> bytes:
        """The lengths of the messages, four bytes each, the highest first."""
        return Struct(f">{len(self._lengths)}I").pack(*self._lengths)

    def messages(self) -> Iterator[tuple[int, bytes]]:
        """Each message after the offset at which it ends."""
        at, end = 0, self.start
        for length in self._lengths:
            end += length
            yield end, self._data[at : at + length]
            at += length + 1

    def after(self, position: int, *, divisible: bool) -> Stored:
        """What of it stands after ``position``, which is inside: the rest of a message only if
        messages are ``divisible``, else the whole message.
        """
        ends = list(accumulate(self._lengths, initial=self.start))
        dropped = bisect_right(ends, position) - 1
        at = ends[dropped]
        cut = position - at if divisible and position > at else 0
        lengths = list(self._lengths[dropped:])
        lengths[0] -= cut
        data = self._data[at - self.start + dropped + cut :]
        return Stored(self.end, data, lengths, self.through, self.committed_at)

    def until(self, position: int, *, divisible: bool) -> Stored | None:
        """What of it stands before ``position``, which is inside; None if that is nothing."""
        ends = list(accumulate(self._lengths, initial=self.start))
        kept = bisect_right(ends, position) - 1
        lengths = list(self._lengths[:kept])
        if divisible and position > ends[kept]:
            lengths.append(position - ends[kept])
        if not lengths:
            return None
        data = self._data[: sum(lengths) + len(lengths) - 1]
        through = self.through - self.count + len(lengths)
        return Stored(self.start + sum(lengths), data, lengths, through, self.committed_at)

    def page(self, bytes_max: int, *, divisible: bool, text: bool) -> Stored:
        """As much of its beginning as fits into ``bytes_max``, at least a message, or a piece of
        one if it is ``divisible``; of ``text`` no character is cut.
        """
        part = self.until(self.start + max(1, bytes_max), divisible=divisible)
        if part is None:
            part = self.until(self.start + self._lengths[0], divisible=False)
            assert part is not None
        if text and part.end != self.end:
            part = self._at_character(part)
        return part

    def _at_character(self, part: Stored) -> Stored:
        """``part``, shorter by the beginning of a character that it would cut."""
        following = self._data[len(part.joined) :]
        for back in range(1, _UTF8_TAIL_MAX + 1):
            if not following or following[0] & 0xC0 != 0x80:
                break
            following = part.joined[len(part.joined) - back :]
            if following and following[0] & 0xC0 != 0x80:
                return self.until(part.end - back, divisible=True) or part
        return part


def unpacked(end: int, committed_at: int, through: int, lengths: bytes, joined: bytes) -> Stored:
    """The messages that another process has taken apart so."""
    numbers = Struct(f">{len(lengths) // 4}I").unpack(lengths)
    return Stored(end, joined, numbers, through, committed_at)


def span(end: int, head: bytes, size: int) -> tuple[int, int, int]:
    """Where an append begins, how many messages it is and how many the stream had with it, as the
    first ``SPAN_BYTES`` of its value and the value's size tell.
    """
    kind, _, through = _HEAD.unpack_from(head)
    if kind == _ONE:
        return end - (size - _HEAD.size), 1, through
    (count,) = _COUNT.unpack_from(head, _HEAD.size)
    lengths_and_commas = 4 * count + count - 1
    return end - (size - SPAN_BYTES - lengths_and_commas), count, through


def decode(end: int, value: bytes) -> Stored:
    """The messages that a value of ours keeps, of the append that ends at ``end``."""
    kind, committed_at, through = _HEAD.unpack_from(value)
    if kind == _ONE:
        data = value[_HEAD.size :]
        return Stored(end, data, (len(data),), through, committed_at)
    (count,) = _COUNT.unpack_from(value, _HEAD.size)
    lengths = Struct(f">{count}I")
    at = _HEAD.size + _COUNT.size
    data = value[at + lengths.size :]
    return Stored(end, data, lengths.unpack_from(value, at), through, committed_at)
