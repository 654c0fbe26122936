"""Lines from bytes, and entries from lines. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Final

from exo_stream.errors import InvalidRequestError, LimitExceededError

Key = Callable[[int, bytes], bytes]
"""The key of line number n, from 1 on, which has this content."""


class LineSplitter:
    """Cuts a stream of bytes into lines, whichever way the bytes arrive."""

    def __init__(self, line_bytes_max: int) -> None:
        self._max = line_bytes_max
        self._rest: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that ``chunk`` completes, without their ends.

        Raises LimitExceededError for a line that would be too long a value, also while it is
        still incomplete.
        """
        first, newline, others = chunk.partition(b"\n")
        self._rest.append(first)
        self._held += len(first)
        self._check(self._held)
        if not newline:
            return []
        *complete, rest = others.split(b"\n")
        lines = [b"".join(self._rest), *complete]
        self._rest, self._held = [rest], len(rest)
        self._check(max(map(len, (*complete, rest))))
        return [line.removesuffix(b"\r") for line in lines]

    def finish(self) -> list[bytes]:
        """The last line, if it has no end."""
        rest, self._rest, self._held = b"".join(self._rest), [], 0
        return [rest] if rest else []

    def _check(self, length: int) -> None:
        if length > self._max:
            raise LimitExceededError("value_bytes_max", self._max, length)


LINE_DIGITS: Final = 10


def numbered(prefix: bytes, run: str) -> Key:
    """Keys in the order of the lines: the prefix, what names this run, the line's number."""
    head = prefix + run.encode()

    def key(number: int, _line: bytes) -> bytes:
        return b"%b-%0*d" % (head, LINE_DIGITS, number)

    return key


def from_field(prefix: bytes, name: str) -> Key:
    """Keys from a field of the line, which is a JSON object."""

    def key(number: int, line: bytes) -> bytes:
        try:
            value = json.loads(line)[name]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InvalidRequestError(
                f"line {number} is no JSON object with a field {name!r}"
            ) from None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InvalidRequestError(f"line {number}: {name!r} is neither a text nor a number")
        try:
            return prefix + str(value).encode()
        except UnicodeEncodeError:  # half a surrogate pair: JSON can spell what UTF-8 cannot
            raise InvalidRequestError(f"line {number}: {name!r} is no text") from None

    return key


def keyed(
    lines: Iterable[bytes], key: Key, *, after: int
) -> tuple[list[tuple[bytes, bytes]], InvalidRequestError | None]:
    """Each line with its key, and what is wrong with the first that has none.

    What stands before a wrong line is still good: it is published, and then the error told.
    """
    pairs: list[tuple[bytes, bytes]] = []
    for number, line in enumerate(lines, start=after + 1):
        try:
            pairs.append((key(number, line), line))
        except InvalidRequestError as error:
            return pairs, error
    return pairs, None
