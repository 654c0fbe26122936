"""What the headers of a PUT or POST ask, checked letter by letter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from exo_stream.protocol.http import Headers
from exo_stream.protocol.streams.instants import instant
from exo_stream.protocol.streams.problems import refused

DEFAULT_TYPE: Final = "application/octet-stream"

TTL_SECONDS_MAX: Final = 100_000_000_000
"""Three thousand years: a longer window is cut to it, so that its end is still a number."""

PRODUCER_NUMBER_MAX: Final = (1 << 53) - 1
TOKEN_BYTES_MAX: Final = 1_024
"""A producer's id, and a ``Stream-Seq``."""

# ``int`` takes blanks, underscores and the digits of every script; these take what is meant.
_DIGITS: Final = re.compile(r"[0-9]{1,16}")
_COUNT: Final = re.compile(r"0|[1-9][0-9]*")
_OFFSET: Final = re.compile(r"[0-9]{16}_[0-9]{16}")
_TYPE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+\s*(?:;.*)?")


@dataclass(frozen=True, slots=True)
class AskedProducer:
    """The three headers of an idempotent producer."""

    id: str
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class AskedFork:
    """The headers of a fork: the source's path, a position of it or None, and a part of the next
    append."""

    source: str
    offset: str | None
    sub_offset: int


@dataclass(frozen=True, slots=True)
class AskedStream:
    """What a PUT asks for. ``content_type`` is None if none was named; ``expires_at`` is in
    microseconds since the Unix epoch."""

    content_type: str | None
    ttl_seconds: int | None
    expires_at: int | None
    is_closed: bool
    fork: AskedFork | None
    retention_seconds: int | None
    retention_bytes: int | None


@dataclass(frozen=True, slots=True)
class AskedAppend:
    """What a POST asks for, beside its body."""

    content_type: str | None
    is_closing: bool
    producer: AskedProducer | None
    seq: str | None
    expected_offset: str | None


def fields_of(headers: Headers) -> dict[str, str]:
    """Headers by name; what came more than once is joined, as RFC 9110 has it in 5.3."""
    fields: dict[str, str] = {}
    for name, value in headers:
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def asked_stream(fields: Mapping[str, str]) -> AskedStream:
    """What the headers of a PUT ask for. Raises RefusedError with BAD_REQUEST and others."""
    ttl, expires_at = fields.get("stream-ttl"), fields.get("stream-expires-at")
    if ttl is not None and expires_at is not None:
        raise refused("BAD_REQUEST", "a stream has Stream-TTL or Stream-Expires-At, not both")
    return AskedStream(
        content_type=_content_type(fields),
        ttl_seconds=None if ttl is None else _seconds("Stream-TTL", ttl),
        expires_at=None if expires_at is None else _instant(expires_at),
        is_closed=_is_closed(fields),
        fork=_fork(fields),
        retention_seconds=_optional_count(fields, "Stream-Retention-Seconds"),
        retention_bytes=_optional_count(fields, "Stream-Retention-Bytes"),
    )


def asked_append(fields: Mapping[str, str]) -> AskedAppend:
    """What the headers of a POST ask for. Raises RefusedError with BAD_REQUEST and others."""
    expected = fields.get("stream-expected-offset")
    if expected is not None and not _OFFSET.fullmatch(expected):
        raise refused("INVALID_OFFSET", "Stream-Expected-Offset is an offset that we gave")
    return AskedAppend(
        content_type=_content_type(fields),
        is_closing=_is_closed(fields),
        producer=_producer(fields),
        seq=_token(fields, "Stream-Seq"),
        expected_offset=expected,
    )


def _content_type(fields: Mapping[str, str]) -> str | None:
    content_type = fields.get("content-type")
    if not content_type:
        return None
    if len(content_type) > TOKEN_BYTES_MAX or not _TYPE.fullmatch(content_type):
        raise refused("BAD_REQUEST", "the Content-Type is none")
    return content_type


def _is_closed(fields: Mapping[str, str]) -> bool:
    """Whether ``Stream-Closed`` is true; any other value counts as its absence."""
    return fields.get("stream-closed", "").lower() == "true"


def _producer(fields: Mapping[str, str]) -> AskedProducer | None:
    id_, epoch, seq = (fields.get(f"producer-{part}") for part in ("id", "epoch", "seq"))
    if id_ is None and epoch is None and seq is None:
        return None
    if id_ is None or epoch is None or seq is None:
        raise refused("BAD_REQUEST", "Producer-Id, Producer-Epoch and Producer-Seq come together")
    if not 1 <= len(id_) <= TOKEN_BYTES_MAX:
        raise refused("BAD_REQUEST", f"a Producer-Id has 1 to {TOKEN_BYTES_MAX} bytes")
    return AskedProducer(id_, _number("Producer-Epoch", epoch), _number("Producer-Seq", seq))


def _number(name: str, text: str) -> int:
    if not _DIGITS.fullmatch(text) or int(text) > PRODUCER_NUMBER_MAX:
        raise refused("BAD_REQUEST", f"{name} is a number from 0 to {PRODUCER_NUMBER_MAX}")
    return int(text)


def _token(fields: Mapping[str, str], name: str) -> str | None:
    text = fields.get(name.lower())
    if text is not None and len(text) > TOKEN_BYTES_MAX:
        raise refused("BAD_REQUEST", f"{name} has at most {TOKEN_BYTES_MAX} bytes")
    return text


def _seconds(name: str, text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise refused("BAD_REQUEST", f"{name} is a number of seconds, without a leading zero")
    # Python converts no more than 4,300 digits; far fewer are enough.
    return min(int(text), TTL_SECONDS_MAX) if len(text) <= 12 else TTL_SECONDS_MAX


def _optional_count(fields: Mapping[str, str], name: str) -> int | None:
    text = fields.get(name.lower())
    if text is None:
        return None
    count = _seconds(name, text)
    if not count:
        raise refused("BAD_REQUEST", f"{name} is more than nothing")
    return count


def _instant(text: str) -> int:
    micros = instant(text)
    if micros is None:
        raise refused("BAD_REQUEST", "Stream-Expires-At is a time as RFC 3339 writes it")
    return micros


def _fork(fields: Mapping[str, str]) -> AskedFork | None:
    source = fields.get("stream-forked-from")
    offset, sub_offset = fields.get("stream-fork-offset"), fields.get("stream-fork-sub-offset")
    if source is None:
        if offset is not None or sub_offset is not None:
            raise refused("BAD_REQUEST", "an offset of a fork without Stream-Forked-From")
        return None
    if offset is not None and not _OFFSET.fullmatch(offset):
        raise refused("INVALID_OFFSET", "Stream-Fork-Offset is an offset that we gave")
    if sub_offset is None:
        return AskedFork(source, offset, 0)
    if not _COUNT.fullmatch(sub_offset) or len(sub_offset) > 15:
        raise refused("BAD_REQUEST", "Stream-Fork-Sub-Offset is a number from 0 on")
    return AskedFork(source, offset, int(sub_offset))
