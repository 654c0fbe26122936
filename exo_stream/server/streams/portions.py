"""Portions: what of a stream goes out at once, as events, made once for all who need the same."""

from __future__ import annotations

import json
from urllib.parse import quote

from exo_stream.protocol.http import chunk_head
from exo_stream.protocol.streams import cursors
from exo_stream.protocol.streams.events import (
    control_event,
    data_event,
    encoding_of,
    incomplete,
)
from exo_stream.streams.offset import Offset
from exo_stream.streams.values import ReadResult, media_type


class Portion:
    """What a read brought, and its events. ``now`` is microseconds since the Unix epoch.

    In events a text that ends inside a character waits for the rest of it: ``next_offset`` is
    before it. ``body`` has all of it.
    """

    def __init__(self, result: ReadResult, now: int) -> None:
        self.result = result
        self.encoding = encoding_of(media_type(result.config.content_type))
        self.is_end = result.closed and result.up_to_date
        body = b"" if not result.stored else result.body
        held = incomplete(body) if self.encoding == "text" and not self.is_end else 0
        self.next_offset = Offset.at(result.next_offset.position - held)
        self.body = body
        self._shown = body[: len(body) - held] if held else body
        self._now = now
        self._events: dict[tuple[str, str], bytes] = {}
        self._chunks: dict[tuple[str, str], bytes] = {}

    @property
    def has_news(self) -> bool:
        """Whether something was appended since, or closed."""
        return bool(self.body) or self.is_end

    @property
    def has_event(self) -> bool:
        """Whether a reader of events learns anything from it."""
        return bool(self._shown) or self.is_end

    def event(self, ahead: str = "", stream: str = "") -> bytes:
        """Its events, as bytes: data if there is any, then control.

        ``ahead`` is a reader's cursor that is later than ours; ``stream`` names the stream where
        a connection carries several.
        """
        known = self._events.get((ahead, stream))
        if known is not None:
            return known
        control = control_event(
            str(self.next_offset),
            ahead or cursors.cursor(self._now, None, 0),
            is_up_to_date=self.result.up_to_date,
            is_closed=self.is_end,
            stream=json.dumps(stream) if stream else "",
        )
        made = control
        if self._shown:
            made = data_event(self.encoding, self._shown, id_=quote(stream)) + control
        self._events[ahead, stream] = made
        return made

    def chunk(self, ahead: str = "", stream: str = "") -> bytes:
        """Its events as one chunk of a chunked body."""
        known = self._chunks.get((ahead, stream))
        if known is None:
            event = self.event(ahead, stream)
            known = b"".join((chunk_head(len(event)), event, b"\r\n"))
            self._chunks[ahead, stream] = known
        return known
