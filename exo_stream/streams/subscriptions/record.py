"""What is kept of a subscription: one small record, and a row for each stream it knows a place in.

A stream that its pattern means and that has no row was born after the subscription: nothing of it
has been acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import cbor2

from exo_stream.model import Entry, Keyspace
from exo_stream.streams.offset import Offset
from exo_stream.streams.record import Record

ID_BYTES_MAX: Final = 64
"""So that an id and a stream's name fit into one key."""

MILLISECOND: Final = 1_000
"""Microseconds, the unit of every time here."""

SECRET_KEY: Final = b"\x00"
"""Under it stands the secret that signatures and tokens are made from."""
SUBSCRIPTION: Final = b"\x01"
LINK: Final = b"\x02"
"""What the keys of subscriptions and of their places in streams begin with."""

NOTHING_ACKED: Final = "-1"
"""The offset before the first, as this protocol writes it."""

Kind = Literal["webhook", "pull-wake"]


class SubscriptionConfig(NamedTuple):
    """What a subscription is created with, and never changes.

    ``target`` is where a webhook goes, or the stream that tells of wakes. ``streams`` are those
    it was created with, in order; others may have come and gone since.
    """

    kind: Kind
    pattern: str | None
    streams: tuple[str, ...]
    target: str
    lease_ttl_ms: int
    description: str | None


class Wake(NamedTuple):
    """A wake under way. It is to be told at ``due_at``, 0 once it has been; it is leased until
    ``lease_until``, 0 while it is not, by ``holder`` if somebody claimed it.
    """

    id: str
    due_at: int
    lease_until: int = 0
    holder: str | None = None


class Subscription(NamedTuple):
    """One subscription. Times are in microseconds since the Unix epoch.

    ``incarnation`` is the number of the batch that created it; ``generation`` counts its wakes,
    and ``failures`` the attempts to tell of one that failed since the last that did not.
    ``base_url`` is how its creator reached this server, ``named`` how many streams it was given
    by name.
    """

    incarnation: int
    config: SubscriptionConfig
    base_url: str
    created_at: int
    named: int = 0
    generation: int = 0
    failures: int = 0
    wake: Wake | None = None

    @property
    def status(self) -> Literal["active", "failed"]:
        """Whether the last attempt to tell of a wake failed."""
        return "failed" if self.failures else "active"

    def entry(self, subscription_id: str) -> Entry:
        """The entry that keeps it."""
        *rest, wake = self
        value = cbor2.dumps([*rest, None if wake is None else list(wake)])
        return Entry(Keyspace.STREAM_SUBSCRIPTION, subscription_key(subscription_id), value)


class Link(NamedTuple):
    """A subscription's place in a stream: what has been acknowledged of this incarnation of it.

    Of another stream of that name nothing has. ``is_explicit`` if the stream was named, and not
    only meant by the pattern.
    """

    is_explicit: bool
    incarnation: int
    acked: int | None

    def entry(self, subscription_id: str, name: str) -> Entry:
        """The entry that keeps it."""
        key = link_key(subscription_id, name)
        return Entry(Keyspace.STREAM_SUBSCRIPTION, key, cbor2.dumps(list(self)))


BORN_LATER: Final = Link(is_explicit=False, incarnation=0, acked=None)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a subscriber is told of one stream; ``incarnation`` is 0 if there is none now."""

    path: str
    is_explicit: bool
    incarnation: int
    acked: int | None
    tail: int

    @property
    def has_pending(self) -> bool:
        """Whether anything was appended that has not been acknowledged."""
        return self.tail > (self.acked or 0)

    @property
    def acked_offset(self) -> str:
        return NOTHING_ACKED if self.acked is None else str(Offset.at(self.acked))

    @property
    def tail_offset(self) -> str:
        return str(Offset.at(self.tail))


def info(name: str, link: Link, record: Record | None) -> StreamInfo:
    """What is told of a stream; ``record`` None if there is none now."""
    if record is None:
        return StreamInfo(name, link.is_explicit, 0, None, 0)
    known = link.incarnation == record.incarnation
    acked = link.acked if known else None
    return StreamInfo(name, link.is_explicit, record.incarnation, acked, record.tail)


def decode_subscription(value: bytes) -> Subscription:
    """The subscription that ``value`` holds."""
    incarnation, config, *rest, wake = cbor2.loads(value)
    kind, pattern, streams, target, lease_ttl_ms, description = config
    known = SubscriptionConfig(kind, pattern, tuple(streams), target, lease_ttl_ms, description)
    return Subscription._make((incarnation, known, *rest, None if wake is None else Wake(*wake)))


def decode_link(value: bytes) -> Link:
    """The link that ``value`` holds."""
    return Link(*cbor2.loads(value))


def subscription_key(subscription_id: str) -> bytes:
    """The key of a subscription's record."""
    return SUBSCRIPTION + subscription_id.encode()


def link_key(subscription_id: str, name: str) -> bytes:
    """The key of its place in a stream: those of one subscription stand together, by name."""
    encoded = subscription_id.encode()
    return LINK + bytes([len(encoded)]) + encoded + name.encode()


def read_link_key(key: bytes) -> tuple[str, str]:
    """The subscription's id and the stream's name."""
    end = 2 + key[1]
    return key[2:end].decode(), key[end:].decode()
