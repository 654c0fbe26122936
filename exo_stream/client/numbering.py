"""The numbers of a client's writes, so that one sent twice takes effect once."""

from __future__ import annotations

from exo_stream.producers import WINDOW, Producer


class Numbering:
    """One producer identity and the numbers it has given out.

    The server remembers the last ``WINDOW`` numbers. So no number is given out that is further
    than that from the oldest whose answer is still owed: it could not be told apart any more.
    """

    def __init__(self, producer_id: bytes) -> None:
        self._id = producer_id
        self._next = 0
        self._owed: dict[int, None] = {}

    @property
    def is_exhausted(self) -> bool:
        """Whether the next number must wait for an answer."""
        return bool(self._owed) and self._next - next(iter(self._owed)) >= WINDOW

    def take(self) -> Producer:
        """The next number; ``settle`` it once its answer is there, or will never be asked for."""
        assert not self.is_exhausted
        seq = self._next
        self._next += 1
        self._owed[seq] = None
        return Producer(self._id, 0, seq)

    def settle(self, producer: Producer) -> None:
        """The write with this number will not be sent again."""
        self._owed.pop(producer.seq, None)
