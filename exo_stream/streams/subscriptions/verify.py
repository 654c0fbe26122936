"""Whether the subscriptions of a file hold together: their records, their places, their wakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from exo_stream.streams.record import Record
from exo_stream.streams.subscriptions.globs import matches
from exo_stream.streams.subscriptions.record import (
    LINK,
    SECRET_KEY,
    SUBSCRIPTION,
    Link,
    Subscription,
    Wake,
    decode_link,
    decode_subscription,
    read_link_key,
)
from exo_stream.streams.subscriptions.tokens import SECRET_BYTES


@dataclass(slots=True)
class SubscriptionCheck:
    """Give it every live row of STREAM_SUBSCRIPTION; then ask, with the records of all streams."""

    _known: dict[str, Subscription] = field(default_factory=dict)
    _links: dict[tuple[str, str], Link] = field(default_factory=dict)
    _problems: list[str] = field(default_factory=list)

    def take(self, key: bytes, value: bytes) -> None:
        """One live row."""
        if key == SECRET_KEY:
            if len(value) != SECRET_BYTES:
                self._problems.append(f"subscriptions: a secret of {len(value)} bytes")
        elif key.startswith(SUBSCRIPTION):
            self._known[key[1:].decode()] = decode_subscription(value)
        elif key.startswith(LINK):
            self._links[read_link_key(key)] = decode_link(value)
        else:
            self._problems.append(f"subscriptions: a row of no kind, {key[:8].hex()}")

    def problems(self, records: Mapping[str, Record]) -> list[str]:
        """Every contradiction, in a sentence; none if all is well."""
        return [*self._problems, *self._problems_of_records(), *self._problems_of_links(records)]

    def _problems_of_records(self) -> Iterator[str]:
        named = Counter([id_ for (id_, _), link in self._links.items() if link.is_explicit])
        for id_, subscription in self._known.items():
            count = named[id_]
            if subscription.named != count:
                yield f"subscription {id_!r}: {count} streams by name, not {subscription.named}"
            complaint = _complaint(subscription, subscription.wake)
            if complaint is not None:
                yield f"subscription {id_!r}: {complaint}"
        for incarnation, count in Counter(s.incarnation for s in self._known.values()).items():
            if count > 1:
                yield f"subscriptions: {count} of them were made by batch {incarnation}"

    def _problems_of_links(self, records: Mapping[str, Record]) -> Iterator[str]:
        for (id_, name), link in self._links.items():
            where = f"subscription {id_!r}: its place in {name!r}"
            subscription, record = self._known.get(id_), records.get(name)
            if subscription is None:
                yield f"{where} is of no subscription"
                continue
            # Without a pattern it is being deleted: its places go after it, in slices.
            pattern = subscription.config.pattern
            if not link.is_explicit and pattern is not None and not matches(pattern, name):
                yield f"{where} is one that nothing means"
            if link.acked is not None and not link.incarnation:
                yield f"{where} is of no stream"
            if (
                record is not None
                and record.incarnation == link.incarnation
                and (link.acked or 0) > record.tail
            ):
                yield f"{where} is at {link.acked}, but that ends at {record.tail}"


def _complaint(subscription: Subscription, wake: Wake | None) -> str | None:
    """What is wrong with a wake: each is to be told, or has been and waits for its receiver."""
    if wake is None:
        return None
    if not subscription.generation:
        return "a wake without a generation"
    if wake.due_at and wake.lease_until:
        return "its wake is leased, and still to be told"
    if wake.holder is not None and not wake.lease_until:
        return f"{wake.holder!r} has its wake without a lease"
    is_waiting = bool(wake.due_at or wake.lease_until)
    if subscription.config.kind == "webhook" and (wake.holder is not None or not is_waiting):
        return "its wake will never be told"
    return None
