"""The scanner: where WebSocket frames begin and end in what a client sends (RFC 6455, 5.2).

It takes no frame apart; a WebSocket library behind it does. It cuts what arrived into pieces that
library can be given one at a time, and refuses by their heads alone the frames that would make
it fall over, hold too much, or hang up without a word.
"""

from __future__ import annotations

from typing import Final, NamedTuple

CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

FRAGMENT_BYTES: Final = 64
"""What a fragment counts beside its bytes: an empty one is six bytes here and more in memory."""

_OPCODES: Final = frozenset({0x0, 0x1, 0x2, CLOSE, PING, PONG})
_CONTROL_BYTES_MAX: Final = 125


class ViolationError(Exception):
    """The client broke the protocol of frames: close with ``code``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Piece(NamedTuple):
    """Some bytes to hand on: one whole control frame, or one data frame as far as it is there.

    ``payload`` is how many bytes of a message are among them, 0 for a control frame.
    """

    data: bytes
    opcode: int
    payload: int


class FrameScanner:
    """Pieces from bytes: ``feed`` what arrived, then take pieces until there are none."""

    def __init__(self, *, message_bytes_max: int) -> None:
        self._message_bytes_max = message_bytes_max
        self._data = b""
        self._at = 0
        self._left = 0
        self._opcode = 0
        self._is_final = True
        self._in_message = False
        self._message_cost = 0
        self._closed = False
        self.ended = 0
        """How many messages, and control frames between them, have ended."""

    @property
    def is_between_messages(self) -> bool:
        """Whether nothing has arrived that waits for more to come."""
        return not (self._in_message or self._left or self._at < len(self._data))

    def feed(self, data: bytes) -> None:
        """Scan ``data`` too."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def next_piece(self) -> Piece | None:
        """The next piece, None when more bytes are needed. After a Close frame there is none.

        Raises ViolationError behind the pieces that were in order, again and again.
        """
        if self._closed:
            return None
        head = 0
        if not self._left:
            head = self._begin_frame()
            if not head:
                return None
        begin = self._at
        end = min(begin + head + self._left, len(self._data))
        if end == begin:
            return None
        payload = end - begin - head
        self._at = end
        self._left -= payload
        is_data = self._opcode < CLOSE
        if not self._left:
            self._end_frame(is_data)
        return Piece(self._data[begin:end], self._opcode, payload if is_data else 0)

    def _end_frame(self, is_data: bool) -> None:
        if is_data and self._is_final:
            self._in_message = False
            self._message_cost = 0
        if not self._in_message:
            self.ended += 1
        self._closed = self._opcode == CLOSE

    def _begin_frame(self) -> int:
        """The length of the head that begins here, 0 if not enough of the frame is there."""
        data, at = self._data, self._at
        there = len(data) - at
        if there < 2:
            return 0
        first, second = data[at], data[at + 1]
        opcode, is_final = first & 0x0F, bool(first & 0x80)
        _check_bits(first, opcode, second)
        if opcode >= CLOSE:
            size = second & 0x7F
            if not is_final or size > _CONTROL_BYTES_MAX:
                raise ViolationError(1002, "a control frame in pieces, or a long one")
            head, whole = 6, 6 + size
        else:
            head, size = self._data_size(second & 0x7F, there)
            whole = head
        if there < whole or not head:
            return 0
        if opcode < CLOSE:
            self._begin_data(opcode, is_final, size)
        self._opcode = opcode
        self._left = size
        return head

    def _data_size(self, short: int, there: int) -> tuple[int, int]:
        """The length of a data frame's head, 0 if more of it is needed, and of its payload."""
        if short < 126:
            return 6, short
        width = 2 if short == 126 else 8
        if there < 2 + width:
            return 0, 0
        begin = self._at + 2
        size = int.from_bytes(self._data[begin : begin + width], "big")
        if size < (126 if width == 2 else 1 << 16) or size >> 63:
            raise ViolationError(1002, "a length that is not written as it should be")
        return 6 + width, size

    def _begin_data(self, opcode: int, is_final: bool, size: int) -> None:
        if (opcode == 0) != self._in_message:
            raise ViolationError(1002, "a fragment without a message, or a message inside one")
        cost = self._message_cost + size + (FRAGMENT_BYTES if self._in_message else 0)
        if cost > self._message_bytes_max:
            raise ViolationError(1009, f"a message of more than {self._message_bytes_max} bytes")
        self._message_cost = cost
        self._in_message = True
        self._is_final = is_final


def _check_bits(first: int, opcode: int, second: int) -> None:
    if first & 0x70:
        raise ViolationError(1002, "a reserved bit is set")
    if opcode not in _OPCODES:
        raise ViolationError(1002, f"there is no opcode {opcode}")
    if not second & 0x80:
        raise ViolationError(1002, "a client masks its frames")


def close_frame(code: int, reason: str = "") -> bytes:
    """An unmasked Close frame, its reason cut to what fits."""
    text = reason.encode()[: _CONTROL_BYTES_MAX - 2].decode(errors="ignore").encode()
    return bytes((0x88, 2 + len(text))) + code.to_bytes(2, "big") + text
