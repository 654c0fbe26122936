"""Why a WebSocket is closed, by one table: the code, its meaning, and what the client should do.

The private codes mean something by their number: 4000 to 4099 are transient, 44xx and 45xx
mirror HTTP's statuses.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from exo_stream.errors import (
    ExoStreamError,
    LimitExceededError,
    LocalProtocolError,
    OverloadedError,
    PlatformClosedError,
    RemoteProtocolError,
    StoreError,
)


class Advice(Enum):
    """What a client should do after a close."""

    STOP = "stop"
    RECONNECT = "reconnect with the cursor"
    BACK_OFF = "back off, then reconnect with the cursor"


class Close(NamedTuple):
    """One row of the table."""

    code: int
    name: str
    meaning: str
    advice: Advice


NORMAL: Final = Close(1000, "normal", "the client has what it wanted", Advice.STOP)
GOING_AWAY: Final = Close(1001, "going_away", "the server stops", Advice.RECONNECT)
PROTOCOL_ERROR: Final = Close(1002, "protocol_error", "a broken WebSocket frame", Advice.STOP)
WRONG_TYPE: Final = Close(1003, "wrong_type", "a text message; only binary ones", Advice.STOP)
LOST: Final = Close(1006, "lost", "no Close was received: never sent", Advice.RECONNECT)
MESSAGE_TOO_BIG: Final = Close(1009, "too_big", "a WebSocket message too large", Advice.STOP)
DRAINED: Final = Close(4001, "drained", "goaway's time is up", Advice.RECONNECT)
SLOW_CONSUMER: Final = Close(4008, "slow_consumer", "a frame was not taken", Advice.RECONNECT)
PING_TIMEOUT: Final = Close(4009, "ping_timeout", "a ping was not answered", Advice.RECONNECT)
BAD_MESSAGE: Final = Close(4400, "bad_message", "against the protocol", Advice.STOP)
TOO_LARGE: Final = Close(4413, "too_large", "a bound of the welcome was passed", Advice.STOP)
WRONG_VERSION: Final = Close(4426, "wrong_version", "no version in common", Advice.STOP)
OVERLOADED: Final = Close(4429, "overloaded", "a budget is used up", Advice.BACK_OFF)
INTERNAL: Final = Close(4500, "internal", "a bug of the server", Advice.BACK_OFF)
UNAVAILABLE: Final = Close(4503, "unavailable", "the storage stopped", Advice.BACK_OFF)

CLOSES: Final = (
    *(NORMAL, GOING_AWAY, PROTOCOL_ERROR, WRONG_TYPE, LOST, MESSAGE_TOO_BIG),
    *(DRAINED, SLOW_CONSUMER, PING_TIMEOUT, BAD_MESSAGE, TOO_LARGE, WRONG_VERSION),
    *(OVERLOADED, INTERNAL, UNAVAILABLE),
)

_BY_CODE: Final = {close.code: close for close in CLOSES}
_BY_ERROR: Final[tuple[tuple[type[ExoStreamError], Close], ...]] = (
    (RemoteProtocolError, BAD_MESSAGE),
    (LocalProtocolError, INTERNAL),
    (LimitExceededError, TOO_LARGE),
    (OverloadedError, OVERLOADED),
    (PlatformClosedError, UNAVAILABLE),
    (StoreError, UNAVAILABLE),
)


def close_of(error: ExoStreamError) -> Close:
    """How to close a connection that ends with this error."""
    for kind, close in _BY_ERROR:
        if isinstance(error, kind):
            return close
    return INTERNAL


def advice_on(code: int | None) -> Advice:
    """What a client should do after this code; None is a connection that just broke."""
    if code is None:
        return Advice.RECONNECT
    if code in _BY_CODE:
        return _BY_CODE[code].advice
    if 4400 <= code < 4500:
        return Advice.STOP
    return Advice.BACK_OFF
