"""Every error of the streams face, beside those that all faces share.

InvalidRequestError
├─ InvalidStreamNameError     invalid_stream_name      a name that no stream can have
├─ InvalidOffsetError         invalid_offset           no offset of this stream
│  └─ ForkOffsetBeyondTailError fork_offset_beyond_tail  the source ends before it
├─ EmptyAppendError           empty_append             no message, or an empty one
├─ InvalidProducerStateError  invalid_producer_state   a new epoch begins with seq 0
└─ StreamTooLargeError        stream_too_large         limit, bound, actual
ExoStreamError
├─ StreamNotFoundError        stream_not_found         absent, or expired
├─ StreamGoneError            stream_gone              deleted, and kept for its forks
├─ OffsetEvictedError         offset_evicted           oldest_offset: retention let go of it
├─ StreamConfigMismatchError  stream_config_mismatch   it exists with another configuration
├─ StreamPathBlockedError     stream_path_blocked      a deleted stream with forks is there
├─ ForkFromTombstoneError     fork_from_tombstone      the source is deleted
├─ ContentTypeMismatchError   content_type_mismatch    content_type: the stream's
├─ StreamClosedError          stream_closed            next_offset: the final one
├─ StreamSeqConflictError     stream_seq_conflict      next_offset, last_seq
└─ OffsetConflictError        offset_conflict          next_offset: the real one
"""

from __future__ import annotations

from typing import ClassVar

from exo_stream.errors import ExoStreamError, InvalidRequestError


class InvalidStreamNameError(InvalidRequestError):
    """No stream can have this name; the sentence says which rule it breaks."""

    code = "invalid_stream_name"


class InvalidOffsetError(InvalidRequestError):
    """Not an offset, or not one at which this can be done."""

    code = "invalid_offset"


class ForkOffsetBeyondTailError(InvalidOffsetError):
    """The fork would begin where its source has nothing yet."""

    code = "fork_offset_beyond_tail"


class EmptyAppendError(InvalidRequestError):
    """An append needs at least one message, and a message at least one byte."""

    code = "empty_append"


class InvalidProducerStateError(InvalidRequestError):
    """A producer's new epoch begins with seq 0."""

    code = "invalid_producer_state"


class StreamTooLargeError(InvalidRequestError):
    """One append, or the stream with it, would be larger than ``limit`` allows."""

    code = "stream_too_large"
    fields: ClassVar[tuple[str, ...]] = ("limit", "bound", "actual")

    def __init__(self, limit: str, bound: int, actual: int) -> None:
        super().__init__(f"{limit} is {bound}, but this is {actual}")
        self.limit = limit
        self.bound = bound
        self.actual = actual


class StreamNotFoundError(ExoStreamError):
    """There is no stream of this name, or it has expired."""

    code = "stream_not_found"
    fields: ClassVar[tuple[str, ...]] = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no stream {name!r}")
        self.name = name


class StreamGoneError(ExoStreamError):
    """The stream was deleted, or has expired; its forks still read what they share with it."""

    code = "stream_gone"
    fields: ClassVar[tuple[str, ...]] = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__(f"stream {name!r} was deleted, and is kept only for its forks")
        self.name = name


class OffsetEvictedError(ExoStreamError):
    """Retention let go of what stood there; resume from ``oldest_offset``, knowingly."""

    code = "offset_evicted"
    fields: ClassVar[tuple[str, ...]] = ("oldest_offset",)

    def __init__(self, oldest_offset: str) -> None:
        super().__init__(f"evicted: the oldest retained offset is {oldest_offset}")
        self.oldest_offset = oldest_offset


class StreamConfigMismatchError(ExoStreamError):
    """A stream of this name exists, with another configuration; it was left as it is."""

    code = "stream_config_mismatch"
    fields: ClassVar[tuple[str, ...]] = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__(f"stream {name!r} exists with another configuration")
        self.name = name


class StreamPathBlockedError(ExoStreamError):
    """A deleted stream of this name is kept for its forks; no other can be made meanwhile."""

    code = "stream_path_blocked"
    fields: ClassVar[tuple[str, ...]] = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__(f"a deleted stream {name!r} is kept for its forks")
        self.name = name


class ForkFromTombstoneError(ExoStreamError):
    """The source of the fork is deleted; only forks made before live on."""

    code = "fork_from_tombstone"
    fields: ClassVar[tuple[str, ...]] = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__(f"stream {name!r} is deleted; it cannot be forked any more")
        self.name = name


class ContentTypeMismatchError(ExoStreamError):
    """What is appended, or the fork, is of another type than the stream's ``content_type``."""

    code = "content_type_mismatch"
    fields: ClassVar[tuple[str, ...]] = ("content_type",)

    def __init__(self, content_type: str) -> None:
        super().__init__(f"the stream's content type is {content_type}")
        self.content_type = content_type


class StreamClosedError(ExoStreamError):
    """The stream is closed; ``next_offset`` is its final offset."""

    code = "stream_closed"
    fields: ClassVar[tuple[str, ...]] = ("next_offset",)

    def __init__(self, next_offset: str) -> None:
        super().__init__(f"the stream is closed at {next_offset}")
        self.next_offset = next_offset


class StreamSeqConflictError(ExoStreamError):
    """The seq is not greater than ``last_seq``, byte by byte; nothing was appended."""

    code = "stream_seq_conflict"
    fields: ClassVar[tuple[str, ...]] = ("next_offset", "last_seq")

    def __init__(self, next_offset: str, last_seq: str) -> None:
        super().__init__(f"the last seq is {last_seq!r}; a seq is greater than the one before")
        self.next_offset = next_offset
        self.last_seq = last_seq


class OffsetConflictError(ExoStreamError):
    """The stream's tail is not the expected offset, but ``next_offset``; nothing was appended."""

    code = "offset_conflict"
    fields: ClassVar[tuple[str, ...]] = ("next_offset",)

    def __init__(self, next_offset: str) -> None:
        super().__init__(f"the stream's tail is at {next_offset}")
        self.next_offset = next_offset
