"""How subscriptions come and go, and how streams are named to them and taken from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from exo_stream.decision import Answer, Decision, KeyRange, Need, Unknown, Verdict, View, Write
from exo_stream.model import Entry, Keyspace
from exo_stream.streams.accesses import Accesses
from exo_stream.streams.subscriptions.globs import matches
from exo_stream.streams.subscriptions.looking import (
    NOT_FOUND,
    Denied,
    Looked,
    link_of,
    look_at,
    record_of,
    subscription_of,
)
from exo_stream.streams.subscriptions.record import (
    SECRET_KEY,
    SUBSCRIPTION,
    Link,
    Subscription,
    SubscriptionConfig,
    decode_link,
    link_key,
    subscription_key,
)

SUBSCRIPTIONS_MAX: Final = 1_000
"""As many as one file has: each has a task."""

NAMED_MAX: Final = 1_000
"""Streams that are named to one subscription; a pattern means as many as there are."""

_SUBSCRIPTIONS: Final = int(Keyspace.STREAM_SUBSCRIPTION)
_ALL: Final = KeyRange(
    _SUBSCRIPTIONS, SUBSCRIPTION, bytes([SUBSCRIPTION[0] + 1]), SUBSCRIPTIONS_MAX
)
_SLICE: Final = 4_096
"""Links that are deleted with their subscription in one step."""


@dataclass(frozen=True, slots=True)
class Made:
    """A subscription, and whether it is a new one."""

    subscription: Subscription
    is_new: bool


def keep_secret(candidate: bytes) -> Decision[bytes]:
    """How the one secret of a file is chosen: whoever asks first brings it."""

    def decide(view: View, _now: int) -> Verdict[bytes]:
        row = view.row(_SUBSCRIPTIONS, SECRET_KEY)
        if isinstance(row, Unknown):
            return Need(keys=[(_SUBSCRIPTIONS, SECRET_KEY)])
        if row is not None and row.value is not None:
            return Answer(row.value)
        return Write([Entry(_SUBSCRIPTIONS, SECRET_KEY, candidate)], candidate)

    return decide


def make(
    subscription_id: str,
    config: SubscriptionConfig,
    base_url: str,
    links: Sequence[tuple[str, Link]],
) -> Decision[Made | Denied]:
    """How a subscription is created; ``links`` is where the streams that are there end."""

    def decide(view: View, now: int) -> Verdict[Made | Denied]:
        known = subscription_of(view, subscription_id)
        if isinstance(known, Need):
            return known
        if known is not None:
            if known.config == config:
                return Answer(Made(known, is_new=False))
            return Answer(
                Denied("SUBSCRIPTION_ALREADY_EXISTS", "it exists with another configuration")
            )
        others = view.rows(_ALL)
        if isinstance(others, Unknown):
            return Need(ranges=[_ALL])
        if len(others) >= SUBSCRIPTIONS_MAX:
            sentence = f"there are {SUBSCRIPTIONS_MAX} subscriptions, which is as many as can be"
            return Answer(Denied("INVALID_REQUEST", sentence))
        named = sum(link.is_explicit for _, link in links)
        made = Subscription(view.sequence, config, base_url, now, named)
        entries = [made.entry(subscription_id)]
        entries += [link.entry(subscription_id, name) for name, link in links]
        return Write(entries, Made(made, is_new=True))

    return decide


def unmake(subscription_id: str) -> Decision[bool]:
    """How a subscription is deleted; the answer is whether it has links left.

    While it has, ask again: nobody can create it anew before the last are gone, for its record
    goes with them. Until then it has no pattern any more, so that no stream whose place is gone
    wakes it as if nothing of that had been acknowledged.
    """
    low = link_key(subscription_id, "")
    links = KeyRange(_SUBSCRIPTIONS, low, low + b"\xff", _SLICE)
    key = subscription_key(subscription_id)

    def decide(view: View, _now: int) -> Verdict[bool]:
        known = subscription_of(view, subscription_id)
        if isinstance(known, Need):
            return known
        if known is None:
            return Answer(answer=False)
        rows = view.rows(links)
        if isinstance(rows, Unknown):
            return Need(ranges=[links])
        entries = [Entry(_SUBSCRIPTIONS, row.key[1:], None) for row in rows]
        has_more = len(rows) == _SLICE
        if not has_more:
            entries.append(Entry(_SUBSCRIPTIONS, key, None))
            return Write(entries, has_more)
        named = sum(decode_link(row.value).is_explicit for row in rows if row.value is not None)
        left = known._replace(config=known.config._replace(pattern=None), named=known.named - named)
        return Write([*entries, left.entry(subscription_id)], has_more)

    return decide


def name_streams(
    subscription_id: str, names: Sequence[str], accesses: Accesses
) -> Decision[Denied | None]:
    """How streams are named to a subscription: from their ends on, unless it knew them."""

    def decide(view: View, now: int) -> Verdict[Denied | None]:
        known = subscription_of(view, subscription_id)
        if isinstance(known, Need):
            return known
        if known is None:
            return Answer(NOT_FOUND)
        looked = look_at(view, subscription_id, known, names, now=now, accesses=accesses)
        if isinstance(looked, Need):
            return looked
        entries = [
            _named(view, name, looked).entry(subscription_id, name)
            for name, link in looked.links.items()
            if link is None or not link.is_explicit
        ]
        count = known.named + len(entries)
        if count > NAMED_MAX:
            return Answer(Denied("INVALID_REQUEST", f"at most {NAMED_MAX} streams are named"))
        if not entries:
            return Answer(None)
        return Write([known._replace(named=count).entry(subscription_id), *entries], None)

    return decide


def _named(view: View, name: str, looked: Looked) -> Link:
    """The link to a stream that is named now: from where it stood, else from the stream's end."""
    record, told = record_of(view, name), looked.infos.get(name)
    assert not isinstance(record, Need), name  # it has just been looked at
    if told is not None:
        return Link(is_explicit=True, incarnation=told.incarnation, acked=told.acked)
    if record is None:
        return Link(is_explicit=True, incarnation=0, acked=None)
    return Link(is_explicit=True, incarnation=record.incarnation, acked=record.tail)


def unname_stream(subscription_id: str, name: str) -> Decision[Denied | None]:
    """How a stream is taken from a subscription; its pattern may go on to mean it."""

    def decide(view: View, _now: int) -> Verdict[Denied | None]:
        known = subscription_of(view, subscription_id)
        if isinstance(known, Need):
            return known
        if known is None:
            return Answer(NOT_FOUND)
        link = link_of(view, subscription_id, name)
        if isinstance(link, Need):
            return link
        if link is None or not link.is_explicit:
            return Answer(None)
        pattern = known.config.pattern
        if pattern is not None and matches(pattern, name):
            entry = link._replace(is_explicit=False).entry(subscription_id, name)
        else:
            entry = Entry(_SUBSCRIPTIONS, link_key(subscription_id, name), None)
        left = known._replace(named=known.named - 1)
        return Write([left.entry(subscription_id), entry], None)

    return decide


def forget_streams(subscription_id: str, names: Sequence[str]) -> Decision[None]:
    """How places in streams that are no more are let go of; a stream that was named stays so."""

    def decide(view: View, _now: int) -> Verdict[None]:
        missing: list[tuple[int, bytes]] = []
        entries: list[Entry] = []
        for name in names:
            link, record = link_of(view, subscription_id, name), record_of(view, name)
            if isinstance(link, Need):
                missing += link.keys
            elif isinstance(record, Need):
                missing += record.keys
            elif link is not None and record is None and not link.is_explicit:
                entries.append(Entry(_SUBSCRIPTIONS, link_key(subscription_id, name), None))
        if missing:
            return Need(keys=missing)
        return Write(entries, None) if entries else Answer(None)

    return decide
