"""What decisions about subscriptions see: its record, its links, and the streams they are of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from exo_stream.decision import Need, Unknown, View
from exo_stream.model import Keyspace
from exo_stream.streams.accesses import Accesses
from exo_stream.streams.record import Record, decode_record, stream_key
from exo_stream.streams.subscriptions.globs import matches
from exo_stream.streams.subscriptions.record import (
    BORN_LATER,
    Link,
    StreamInfo,
    Subscription,
    decode_link,
    decode_subscription,
    info,
    link_key,
    subscription_key,
)

Code = Literal[
    "INVALID_REQUEST",
    "WEBHOOK_URL_REJECTED",
    "TOKEN_INVALID",
    "TOKEN_EXPIRED",
    "SUBSCRIPTION_NOT_FOUND",
    "SUBSCRIPTION_ALREADY_EXISTS",
    "FENCED",
    "ALREADY_CLAIMED",
    "NO_PENDING_WORK",
    "INVALID_OFFSET",
]


@dataclass(frozen=True, slots=True)
class Denied:
    """Why something was not done: a code of the protocol, and a sentence."""

    code: Code
    message: str
    current_holder: str | None = None
    generation: int | None = None


NOT_FOUND = Denied("SUBSCRIPTION_NOT_FOUND", "there is no such subscription")


@dataclass(frozen=True, slots=True)
class Looked:
    """What is told of some streams, by name, and how each is linked; None if it is not."""

    infos: dict[str, StreamInfo]
    links: dict[str, Link | None]

    @property
    def pending(self) -> list[StreamInfo]:
        """Those with something that has not been acknowledged."""
        return [info for info in self.infos.values() if info.has_pending]


def subscription_of(view: View, subscription_id: str) -> Subscription | Need | None:
    """The subscription, or None; or what to fetch first."""
    key = subscription_key(subscription_id)
    row = view.row(Keyspace.STREAM_SUBSCRIPTION, key)
    if isinstance(row, Unknown):
        return Need(keys=[(int(Keyspace.STREAM_SUBSCRIPTION), key)])
    return None if row is None or row.value is None else decode_subscription(row.value)


def look_at(
    view: View,
    subscription_id: str,
    subscription: Subscription,
    names: Iterable[str],
    *,
    now: int,
    accesses: Accesses,
) -> Looked | Need:
    """What there is to tell of those of ``names`` that the subscription has to do with."""
    looked = Looked({}, {})
    missing: list[tuple[int, bytes]] = []
    for name in dict.fromkeys(names):
        link = link_of(view, subscription_id, name)
        record = record_of(view, name)
        if isinstance(link, Need):
            missing += link.keys
        if isinstance(record, Need):
            missing += record.keys
        if isinstance(link, Need) or isinstance(record, Need):
            continue
        if record is not None and accesses.expired(record, now):
            record = None
        looked.links[name] = link
        known = known_link(subscription, name, link, record)
        if known is not None:
            looked.infos[name] = info(name, known, record)
    return Need(keys=missing) if missing else looked


def known_link(
    subscription: Subscription, name: str, link: Link | None, record: Record | None
) -> Link | None:
    """How the subscription has to do with a stream; None if it has not."""
    if link is not None and link.is_explicit:
        return link
    pattern = subscription.config.pattern
    if record is None or pattern is None or not matches(pattern, name):
        return None
    return link or BORN_LATER


def link_of(view: View, subscription_id: str, name: str) -> Link | Need | None:
    """The link's row."""
    key = link_key(subscription_id, name)
    row = view.row(Keyspace.STREAM_SUBSCRIPTION, key)
    if isinstance(row, Unknown):
        return Need(keys=[(int(Keyspace.STREAM_SUBSCRIPTION), key)])
    return None if row is None or row.value is None else decode_link(row.value)


def record_of(view: View, name: str) -> Record | Need | None:
    """The stream of this name; None if there is none, or only what is kept for its forks."""
    key = stream_key(name)
    row = view.row(Keyspace.STREAM, key)
    if isinstance(row, Unknown):
        return Need(keys=[(int(Keyspace.STREAM), key)])
    if row is None or row.value is None:
        return None
    record = decode_record(row.value)
    return None if record.deleted else record
