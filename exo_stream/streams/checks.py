"""What callers of the Storage methods may bring: names, messages, numbers, within their bounds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from exo_stream.errors import InvalidRequestError
from exo_stream.keys import MatchKey
from exo_stream.limits import Limits
from exo_stream.model import Keyspace
from exo_stream.selectors import (
    AnySelector,
    Selector,
    StreamSelector,
    ValueFilter,
    check_selector,
    selector_for,
)
from exo_stream.stream_errors import (
    EmptyAppendError,
    InvalidOffsetError,
    InvalidStreamNameError,
    StreamTooLargeError,
)
from exo_stream.streams.offset import Offset, Where, offset_of
from exo_stream.streams.values import StreamConfig, StreamProducer
from exo_stream.writes import check_keys

NAME_BYTES_MAX: Final = 1_024
RESERVED: Final = "__ds"
"""The first segment of the protocol's own control routes."""
PRODUCER_NUMBER_MAX: Final = (1 << 53) - 1
"""What every client of the protocol can count to."""
SEQ_BYTES_MAX: Final = 1_024
CONTENT_TYPE_BYTES_MAX: Final = 512
SECONDS_MAX: Final = 10_000_000_000
"""More than three hundred years; what is asked beyond it is the same."""
TIME_MAX: Final = (1 << 63) - 1

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def check_name(name: str) -> None:
    """Raise InvalidStreamNameError unless a stream can have this name.

    It is a path of segments, none of them empty, ``.`` or ``..``, at most 1,024 bytes of UTF-8.
    """
    if not isinstance(name, str):
        raise InvalidStreamNameError("a stream's name is text")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidStreamNameError("a stream's name is Unicode, without surrogates") from None
    if not 0 < size <= NAME_BYTES_MAX:
        raise InvalidStreamNameError(f"a stream's name has 1 to {NAME_BYTES_MAX} bytes, not {size}")
    if _CONTROL.search(name):
        raise InvalidStreamNameError("a stream's name has no control characters")
    segments = name.split("/")
    if any(segment in {"", ".", ".."} for segment in segments):
        raise InvalidStreamNameError("no segment of a stream's name is empty, . or ..")
    if segments[0] == RESERVED:
        raise InvalidStreamNameError(f"names that begin with {RESERVED} are the protocol's own")


def checked_config(config: StreamConfig) -> StreamConfig:
    """The configuration, its times clamped to what can be counted."""
    if not isinstance(config, StreamConfig):
        raise InvalidRequestError("a stream's configuration is a StreamConfig")
    check_content_type(config.content_type)
    if config.ttl_seconds is not None and config.expires_at is not None:
        raise InvalidRequestError("a stream has a time to live or a time at which it expires")
    check_number("expires_at", config.expires_at)
    return StreamConfig(
        config.content_type,
        clamped("ttl_seconds", config.ttl_seconds),
        None if config.expires_at is None else min(config.expires_at, TIME_MAX),
        bool(config.closed),
        clamped("retention_seconds", config.retention_seconds),
        config.retention_bytes
        if config.retention_bytes is None
        else min(check_number("retention_bytes", config.retention_bytes) or 0, TIME_MAX),
    )


def check_content_type(content_type: str) -> None:
    """Raise InvalidRequestError unless this can be a content type."""
    check_text("a content type", content_type)
    if not content_type.strip():
        raise InvalidRequestError("a content type is not empty")
    if len(content_type) > CONTENT_TYPE_BYTES_MAX or not content_type.isascii():
        raise InvalidRequestError(f"a content type is at most {CONTENT_TYPE_BYTES_MAX} of ASCII")
    if _CONTROL.search(content_type):
        raise InvalidRequestError("a content type has no control characters")


def check_number(name: str, number: int | None) -> int | None:
    """The number; raise InvalidRequestError unless it is one from 0 on."""
    if number is not None and (type(number) is not int or number < 0):
        raise InvalidRequestError(f"{name} is a number from 0 on")
    return number


def check_count(name: str, count: int) -> None:
    """Raise InvalidRequestError unless it is a number from 1 on."""
    if type(count) is not int or count < 1:
        raise InvalidRequestError(f"{name} is a number from 1 on")


def check_listing(prefix: str, after: str, limit: int) -> None:
    """Raise InvalidRequestError unless streams can be listed so."""
    check_text("a prefix", prefix)
    check_text("a name", after)
    check_count("a limit", limit)


def clamped(name: str, seconds: int | None) -> int | None:
    """Seconds, at most as many as can be counted."""
    check_number(name, seconds)
    return None if seconds is None else min(seconds, SECONDS_MAX)


def checked_messages(messages: Sequence[bytes], limits: Limits) -> tuple[bytes, ...]:
    """The messages of one append, maybe none.

    Raises EmptyAppendError for an empty message, StreamTooLargeError for too many bytes, or
    messages.
    """
    if not isinstance(messages, list | tuple):
        raise InvalidRequestError("messages are a list or a tuple of bytes")
    if len(messages) > limits.stream_append_messages_max:
        raise StreamTooLargeError(
            "stream_append_messages_max", limits.stream_append_messages_max, len(messages)
        )
    size = 0
    for message in messages:
        if type(message) is not bytes:
            raise InvalidRequestError("messages are bytes")
        if not message:
            raise EmptyAppendError("a message has at least one byte")
        size += len(message)
    if size > limits.stream_append_bytes_max:
        raise StreamTooLargeError("stream_append_bytes_max", limits.stream_append_bytes_max, size)
    return tuple(messages)


def check_seq(seq: str | None) -> None:
    """Raise InvalidRequestError unless this can be a ``seq``: text of any kind."""
    if seq is None:
        return
    try:
        size = len(seq.encode())
    except (AttributeError, UnicodeEncodeError):
        raise InvalidRequestError("a seq is text") from None
    if not 0 < size <= SEQ_BYTES_MAX:
        raise InvalidRequestError(f"a seq has 1 to {SEQ_BYTES_MAX} bytes")


def check_producer(producer: StreamProducer, limits: Limits) -> None:
    """Raise InvalidRequestError unless every field is of its type and in its range."""
    if not isinstance(producer, StreamProducer):
        raise InvalidRequestError("a stream's producer is a StreamProducer")
    bound = limits.stream_producer_id_bytes_max
    try:
        size = len(producer.id.encode())
    except (AttributeError, UnicodeEncodeError):
        raise InvalidRequestError("a producer id is text") from None
    if not 0 < size <= bound:
        raise InvalidRequestError(f"a producer id has 1 to {bound} bytes")
    for name, number in (("epoch", producer.epoch), ("seq", producer.seq)):
        if type(number) is not int or not 0 <= number <= PRODUCER_NUMBER_MAX:
            raise InvalidRequestError(f"a producer's {name} is a number from 0 to 2^53 - 1")


def check_text(what: str, text: str) -> None:
    """Raise InvalidRequestError unless it is text with an encoding, no longer than a name."""
    try:
        size = len(text.encode())
    except (AttributeError, UnicodeEncodeError):
        raise InvalidRequestError(f"{what} is Unicode text") from None
    if size > NAME_BYTES_MAX:
        raise InvalidRequestError(f"{what} has at most {NAME_BYTES_MAX} bytes")


def chosen_selector(
    prefix: bytes,
    match: Sequence[MatchKey] | None,
    values: Sequence[ValueFilter] | None,
    stream: str | None,
    streams_prefix: str | None,
    *,
    events: bool = False,
) -> AnySelector:
    """The selector of the keys, streams or events that a subscription asks for, checked.

    Raises InvalidRequestError for one that cannot be, or that asks for several of them.
    """
    if events:
        if prefix or match is not None or values is not None or stream or streams_prefix:
            raise InvalidRequestError("a subscription is to events, to streams, or to keys")
        return Selector(keyspace=Keyspace.EVENT)
    if stream is None and streams_prefix is None:
        check_keys([prefix])
        selector = selector_for(prefix=prefix, match=match, values=values)
        check_selector(selector)
        return selector
    if (stream is not None and streams_prefix is not None) or prefix or match or values:
        raise InvalidRequestError("a subscription is to a stream, to streams, or to keys")
    if stream is not None:
        check_name(stream)
        return StreamSelector(stream)
    check_text("a prefix", streams_prefix or "")
    return StreamSelector(streams_prefix or "", is_prefix=True)


def checked_expected(offset: Where | None) -> Offset | None:
    """Where the tail is expected; raise InvalidOffsetError for an offset that says nothing."""
    if offset is None:
        return None
    expected = offset_of(offset)
    if expected.is_now:
        raise InvalidOffsetError("an expected offset is one, not now")
    return expected
