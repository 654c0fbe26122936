"""What requests about subscriptions ask, and how answers to them are written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, cast
from urllib.parse import quote, unquote_to_bytes

from exo_stream.protocol.streams.names import RESERVED, ROOT

CONTROL: Final = f"{ROOT}{RESERVED}/"
"""Every control route is below it."""
JWKS: Final = f"{CONTROL}jwks.json"
SUBSCRIPTIONS: Final = f"{CONTROL}subscriptions/"

LEASE_MS: Final = 30_000
LEASE_MS_MIN: Final = 1_000
LEASE_MS_MAX: Final = 600_000
STREAMS_MAX: Final = 1_000
"""Streams that one request names, and acks of one report."""
TEXT_BYTES_MAX: Final = 1_024
"""A description, a worker's name, a pattern."""
SEGMENTS_MAX: Final = 32
"""Of a pattern."""
ID_BYTES_MAX: Final = 64
BODY_BYTES_MAX: Final = 2 * 1024 * 1024

Action = Literal["", "streams", "stream", "callback", "claim", "ack", "release"]

_PLAIN: Final = ("streams", "callback", "claim", "ack", "release")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]")
_OFFSET: Final = re.compile(r"0{16}_([0-9]{16})")


class AskedWrongError(ValueError):
    """The request is none; the text says why."""


@dataclass(frozen=True, slots=True)
class Route:
    """Which subscription a request is about, and what it wants of it."""

    subscription_id: str
    action: Action
    stream: str = ""


@dataclass(frozen=True, slots=True)
class AskedSubscription:
    """The body of a PUT. ``target`` is the webhook's URL or the wake stream."""

    kind: Literal["webhook", "pull-wake"]
    pattern: str | None
    streams: tuple[str, ...]
    target: str
    lease_ttl_ms: int
    description: str | None


@dataclass(frozen=True, slots=True)
class AskedReport:
    """The body of a callback, an ack or a release; offsets as positions, None for no offset."""

    wake_id: str
    generation: int
    acks: tuple[tuple[str, int | None], ...]
    is_done: bool


def route_of(path: str) -> Route | None:
    """The route at ``path``; None if there is none."""
    if not path.startswith(SUBSCRIPTIONS):
        return None
    quoted_id, *rest = path.removeprefix(SUBSCRIPTIONS).split("/")
    subscription_id = _unquoted(quoted_id)
    if not 0 < len(subscription_id.encode()) <= ID_BYTES_MAX or _CONTROLS.search(subscription_id):
        raise AskedWrongError(f"a subscription's id has 1 to {ID_BYTES_MAX} bytes of text")
    match rest:
        case []:
            return Route(subscription_id, "")
        case [action] if action in _PLAIN:
            # One of them; mypy does not take membership for it.
            return Route(subscription_id, cast("Action", action))
        case ["streams", *segments]:
            return Route(subscription_id, "stream", trimmed(_unquoted("/".join(segments))))
        case _:
            return None


def path_of(subscription_id: str, action: str = "") -> str:
    """The path of a route."""
    path = SUBSCRIPTIONS + quote(subscription_id, safe="")
    return f"{path}/{action}" if action else path


def body_of(body: bytes) -> Mapping[str, object]:
    """The JSON object of a body; an empty body is an empty one. Raises AskedWrongError."""
    if not body:
        return {}
    try:
        value = json.loads(body.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise AskedWrongError("the body is not JSON") from None
    if not isinstance(value, dict):
        raise AskedWrongError("the body is a JSON object")
    return value


def asked_subscription(value: Mapping[str, object]) -> AskedSubscription:
    """What the body of a PUT asks for. Raises AskedWrongError."""
    kind = value.get("type")
    if kind not in ("webhook", "pull-wake"):  # a tuple: a stranger's value may have no hash
        raise AskedWrongError('type is "webhook" or "pull-wake"')
    pattern = _text(value, "pattern")
    pattern = trimmed(pattern) if pattern else None
    streams = () if value.get("streams") is None else asked_streams(value)
    if pattern is None and not streams:
        raise AskedWrongError("a subscription has a pattern, or streams, or both")
    if pattern is not None and ("" in pattern.split("/") or pattern.count("/") >= SEGMENTS_MAX):
        raise AskedWrongError(f"a pattern has 1 to {SEGMENTS_MAX} segments, none of them empty")
    return AskedSubscription(
        kind,
        pattern,
        tuple(sorted(set(streams))),
        _target(value, kind),
        _lease(value.get("lease_ttl_ms", LEASE_MS)),
        _text(value, "description"),
    )


def asked_streams(value: Mapping[str, object]) -> tuple[str, ...]:
    """The streams that a body names; an empty array is none. Raises AskedWrongError."""
    streams = value.get("streams")
    if not isinstance(streams, list) or not all(isinstance(name, str) for name in streams):
        raise AskedWrongError("streams is an array of names")
    if len(streams) > STREAMS_MAX:
        raise AskedWrongError(f"a request names at most {STREAMS_MAX} streams")
    return tuple([trimmed(name) for name in streams])


def asked_worker(value: Mapping[str, object]) -> str:
    """Who claims. Raises AskedWrongError."""
    worker = _text(value, "worker")
    if not worker:
        raise AskedWrongError("worker is a text that is not empty")
    return worker


def asked_report(value: Mapping[str, object]) -> AskedReport:
    """What a subscriber says of its wake. Raises AskedWrongError."""
    wake_id, generation = value.get("wake_id"), value.get("generation")
    if not isinstance(wake_id, str) or type(generation) is not int:
        raise AskedWrongError("a report has the wake_id and the generation of its wake")
    acks = value.get("acks") or []
    if not isinstance(acks, list) or len(acks) > STREAMS_MAX:
        raise AskedWrongError(f"acks is an array of at most {STREAMS_MAX}")
    done = value.get("done", False)
    if not isinstance(done, bool):
        raise AskedWrongError("done is true or false")
    return AskedReport(wake_id, generation, tuple([_ack(ack) for ack in acks]), done)


def trimmed(name: str) -> str:
    """A name without slashes at its ends."""
    return name.strip("/")


def _ack(value: object) -> tuple[str, int | None]:
    if not isinstance(value, dict):
        raise AskedWrongError("an ack is a stream and an offset")
    stream, offset = value.get("stream", value.get("path")), value.get("offset")
    if not isinstance(stream, str) or not isinstance(offset, str):
        raise AskedWrongError("an ack is a stream and an offset")
    match = _OFFSET.fullmatch(offset)
    return trimmed(stream), None if match is None else int(match[1])


def _target(value: Mapping[str, object], kind: object) -> str:
    if kind == "pull-wake":
        stream = _text(value, "wake_stream")
        if not stream:
            raise AskedWrongError("a pull-wake subscription has a wake_stream")
        return trimmed(stream)
    webhook = value.get("webhook")
    url = webhook.get("url") if isinstance(webhook, dict) else None
    if not isinstance(url, str) or not url:
        raise AskedWrongError("a webhook subscription has a webhook.url")
    return url


def _lease(value: object) -> int:
    if type(value) is not int or not LEASE_MS_MIN <= value <= LEASE_MS_MAX:
        raise AskedWrongError(f"lease_ttl_ms is a number from {LEASE_MS_MIN} to {LEASE_MS_MAX}")
    return value


def _text(value: Mapping[str, object], name: str) -> str | None:
    text = value.get(name)
    if text is None:
        return None
    if not isinstance(text, str) or not _is_text(text) or _CONTROLS.search(text):
        raise AskedWrongError(f"{name} is a text of at most {TEXT_BYTES_MAX} bytes")
    return text


def _is_text(text: str) -> bool:
    try:
        return len(text.encode()) <= TEXT_BYTES_MAX
    except UnicodeEncodeError:
        return False


def _unquoted(text: str) -> str:
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise AskedWrongError("the percent-encoding is not UTF-8") from None


def _no_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")
