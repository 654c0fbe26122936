"""Elements: the messages in the body of a JSON stream, each in the very bytes it came in.

Strategy: the body is checked, but what is kept are slices of it, so that numbers keep their digits
and nothing is encoded again. The checking is done by the json module's scanner, which is C and
recurses; so the depth is bounded before it is called, by a count that does not recurse.
"""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn

from exo_stream.protocol.streams.problems import refused

DEPTH_MAX: Final = 256
"""How deep arrays and objects may be nested."""

_WHITESPACE: Final = re.compile(r"[ \t\n\r]*")
_ESCAPED: Final = re.compile(rb"\\.", re.DOTALL)
_FLAT: Final = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_LEVELS: Final = 4


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")


_scan: Final = json.JSONDecoder(
    parse_int=len,
    parse_float=len,
    parse_constant=_no_constant,
    object_pairs_hook=len,
).raw_decode
"""Finds the end of a value. What it builds is thrown away; numbers are not even converted."""


def split(body: bytes) -> list[bytes]:
    """The elements of an array, one level of it, or the one value that ``body`` is.

    An empty array has none. Raises RefusedError with INVALID_JSON.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise _invalid("it is not UTF-8") from None
    if body.count(b"[") + body.count(b"{") > DEPTH_MAX:
        _check_depth(body)
    try:
        spans = _spans(text)
    except ValueError as error:
        raise _invalid(str(error)) from None
    if text.isascii():
        return [body[start:end] for start, end in spans]
    return [text[start:end].encode() for start, end in spans]


def _spans(text: str) -> list[tuple[int, int]]:
    """Where each element begins and ends. Raises ValueError."""
    at = _skip(text, 0)
    if not text.startswith("[", at):
        _, end = _scan(text, at)
        _check_end(text, end)
        return [(at, end)]
    spans: list[tuple[int, int]] = []
    at = _skip(text, at + 1)
    if text.startswith("]", at):
        _check_end(text, at + 1)
        return spans
    while True:
        _, end = _scan(text, at)
        spans.append((at, end))
        at = _skip(text, end)
        if text.startswith(",", at):
            at = _skip(text, at + 1)
        elif text.startswith("]", at):
            _check_end(text, at + 1)
            return spans
        else:
            raise ValueError(f"neither ',' nor ']' at character {at}")


def _skip(text: str, at: int) -> int:
    match = _WHITESPACE.match(text, at)
    assert match is not None
    return match.end()


def _check_end(text: str, at: int) -> None:
    if _skip(text, at) != len(text):
        raise ValueError(f"something follows at character {at}")


def _check_depth(body: bytes) -> None:
    # All of it passes of C over the bytes, which cost less than the scanner: first nothing but
    # brackets outside of strings is left, then pairs go from the inside out, a few levels of them.
    flat = _ESCAPED.sub(b"", body) if b"\\" in body else body
    brackets = b"".join(flat.translate(_ONE_KIND, _FLAT).split(b'"')[::2])
    for _ in range(_LEVELS):
        brackets = brackets.replace(b"[]", b"")
    depth = _LEVELS
    for bracket in brackets:
        depth += 1 if bracket == ord("[") else -1
        if depth > DEPTH_MAX:
            raise _invalid(f"it is nested more than {DEPTH_MAX} deep")


def _invalid(reason: str) -> Exception:
    return refused("INVALID_JSON", f"the body is no JSON: {reason}")
