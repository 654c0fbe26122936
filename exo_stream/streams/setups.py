"""How a stream is set up, as its configuration and as a message between client and server."""

from __future__ import annotations

from exo_stream.protocol.stream_messages import StreamSetup
from exo_stream.streams.values import DEFAULT_CONTENT_TYPE, StreamConfig


def setup_of(config: StreamConfig) -> StreamSetup:
    """The configuration as it travels."""
    return StreamSetup(
        config.content_type,
        config.ttl_seconds,
        config.expires_at,
        config.closed,
        config.retention_seconds,
        config.retention_bytes,
    )


def config_of(setup: StreamSetup) -> StreamConfig:
    """The configuration that has travelled."""
    return StreamConfig(setup.content_type or DEFAULT_CONTENT_TYPE, *setup[1:])
