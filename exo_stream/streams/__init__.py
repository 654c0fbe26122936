"""The streams face: appendable, readable, closable streams of messages, and their values."""

from exo_stream.streams.changes import StreamChange, stream_change
from exo_stream.streams.offset import Offset
from exo_stream.streams.values import (
    AppendResult,
    CreateResult,
    HeadResult,
    ProducerAppendResult,
    ReadResult,
    StreamConfig,
    StreamMessage,
    StreamPage,
    StreamProducer,
)

__all__ = [
    "AppendResult",
    "CreateResult",
    "HeadResult",
    "Offset",
    "ProducerAppendResult",
    "ReadResult",
    "StreamChange",
    "StreamConfig",
    "StreamMessage",
    "StreamPage",
    "StreamProducer",
    "stream_change",
]
