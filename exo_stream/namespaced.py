"""A handle seen from within a namespace: the verbs of the store, with the namespace's own keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal, Protocol, Self, TypeVar

import trio

from exo_stream.errors import ConflictError, InvalidRequestError
from exo_stream.feed import FeedMessage, SnapshotPage
from exo_stream.feed_reader import Messages, next_with_entries
from exo_stream.keys import KeyCodec, MatchKey
from exo_stream.model import Batch, Cursor, Entry, Keyspace, VersionedValue
from exo_stream.namespaces import Namespace
from exo_stream.policies.policy import KeysScope, Policy
from exo_stream.policies.result import PruneResult
from exo_stream.producers import Producer
from exo_stream.reduce.checks import check_request
from exo_stream.reduce.request import ReduceRequest, ReduceResult
from exo_stream.reduce.shift import shifted
from exo_stream.selectors import ValueFilter
from exo_stream.writes import Requirement

Pair = tuple[bytes, bytes]

M = TypeVar("M", bound=Batch | SnapshotPage)


class Rows(Protocol):
    """A scan of either handle."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def __anext__(self) -> Pair: ...

    @property
    def sequence(self) -> int: ...


class Feed(Protocol):
    """A feed of either handle."""

    async def __aenter__(self) -> object: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def next_message(self) -> FeedMessage: ...

    @property
    def cursor(self) -> Cursor | None: ...


class Handle(Protocol):
    """What a namespace asks of a platform or a client."""

    async def write(
        self,
        *,
        puts: Iterable[Pair] = (),
        deletes: Iterable[bytes] = (),
        require: Mapping[bytes, Requirement] | None = None,
        producer: Producer | None = None,
    ) -> int: ...

    async def get_entry(
        self, key: bytes, *, min_sequence: int = 0, wait: bool = True
    ) -> VersionedValue: ...

    async def get_many(
        self, keys: Sequence[bytes], *, min_sequence: int = 0, wait: bool = True
    ) -> list[tuple[bytes, bytes | None]]: ...

    async def range_scan(
        self,
        start: bytes = b"",
        end: bytes = b"",
        limit: int = 1000,
        forward: bool = True,
        *,
        min_sequence: int = 0,
        wait: bool = True,
    ) -> list[Pair]: ...

    def scan(self, start: bytes = b"", end: bytes = b"", *, forward: bool = True) -> Rows: ...

    async def get_batch(self, sequence: int) -> Batch | None: ...

    async def reduce(
        self, request: ReduceRequest, start: bytes, end: bytes, *, min_sequence: int, wait: bool
    ) -> ReduceResult: ...

    def subscribe(
        self,
        *,
        prefix: bytes = b"",
        match: Sequence[MatchKey] | None = None,
        values: Sequence[ValueFilter] | None = None,
        after: Cursor | str | None = None,
        from_sequence: int | None = None,
        start: Literal["oldest", "now"] | None = None,
        last: int | None = None,
        since_time: datetime | None = None,
        snapshot: bool = False,
    ) -> Feed: ...

    async def prune(self, policies: Sequence[Policy], *, dry_run: bool = False) -> PruneResult: ...


class NamespacedStore:
    """The store as far as it belongs to one namespace, under keys that do not show it.

    The verbs are those of the handle it is made of, and so are their errors. Keys that are too
    long for what the namespace leaves room for raise PayloadTooLargeError.
    """

    def __init__(self, handle: Handle, namespace: Namespace) -> None:
        self._handle = handle
        self._space = namespace

    def namespace(self, part: bytes | KeyCodec) -> NamespacedStore:
        """A namespace within this one. Raises NamespaceNestingError if bits would be lost."""
        return NamespacedStore(self._handle, self._space.within(part))

    def encode(self, key: bytes) -> bytes:
        """The handle's key of a key: for one write to several namespaces, through the handle."""
        return self._space.encode(key)

    def decode(self, key: bytes) -> bytes | None:
        """The key of one of the handle's; None if it is not of this namespace."""
        return self._space.decode(key)

    async def put_batch(self, kvs: Iterable[Pair]) -> int:
        """Write all pairs or none, as one batch; return its sequence number, once it is durable."""
        return await self.write(puts=kvs)

    async def delete_batch(self, keys: Iterable[bytes]) -> int:
        """Delete all keys as one batch, present or not; return its sequence number."""
        return await self.write(deletes=keys)

    async def write(
        self,
        *,
        puts: Iterable[Pair] = (),
        deletes: Iterable[bytes] = (),
        require: Mapping[bytes, Requirement] | None = None,
        producer: Producer | None = None,
    ) -> int:
        """Write puts, then deletes, as one atomic batch; return its sequence number."""
        encode = self._space.encode
        try:
            pairs = [(encode(key), value) for key, value in puts]
            keys = [encode(key) for key in deletes]
            required = None if require is None else {encode(k): v for k, v in require.items()}
        except (TypeError, ValueError, AttributeError):
            raise InvalidRequestError("puts are pairs, deletes keys, and require a map") from None
        try:
            return await self._handle.write(
                puts=pairs, deletes=keys, require=required, producer=producer
            )
        except ConflictError as error:
            raise ConflictError(self._space.decode(error.key) or b"", error.version) from None

    async def get(self, key: bytes, *, min_sequence: int = 0, wait: bool = True) -> bytes | None:
        """The key's latest value, None if it is absent."""
        [(_, value)] = await self.get_many([key], min_sequence=min_sequence, wait=wait)
        return value

    async def get_entry(
        self, key: bytes, *, min_sequence: int = 0, wait: bool = True
    ) -> VersionedValue:
        """The key's value, its version, and the sequence number this was read at."""
        return await self._handle.get_entry(
            self._space.encode(key), min_sequence=min_sequence, wait=wait
        )

    async def get_many(
        self, keys: Sequence[bytes], *, min_sequence: int = 0, wait: bool = True
    ) -> list[tuple[bytes, bytes | None]]:
        """Each asked key with its value, in the order asked, duplicates kept, at one sequence."""
        if not isinstance(keys, Sequence):
            raise InvalidRequestError("keys are a sequence of keys")
        found = await self._handle.get_many(
            [self._space.encode(key) for key in keys], min_sequence=min_sequence, wait=wait
        )
        return [(key, value) for key, (_, value) in zip(keys, found, strict=True)]

    async def range_scan(
        self,
        start: bytes = b"",
        end: bytes = b"",
        limit: int = 1000,
        forward: bool = True,
        *,
        min_sequence: int = 0,
        wait: bool = True,
    ) -> list[Pair]:
        """Up to ``limit`` pairs in key order, or against it. Both ends are inclusive."""
        within = self._space.key_range(*_checked_bounds(start, end))
        if within is None:
            await trio.lowlevel.checkpoint()
            return []
        low, high = within
        rows = await self._handle.range_scan(
            low, high, limit, forward, min_sequence=min_sequence, wait=wait
        )
        pairs = [pair for row in rows if (pair := self._own(row)) is not None]
        if len(pairs) < len(rows) == limit:
            # Keys that were not made here have taken the places of others.
            pairs = []
            async with self.scan(start, end, forward=forward) as own:
                async for pair in own:
                    pairs.append(pair)
                    if len(pairs) == limit:
                        break
        return pairs

    async def reduce(
        self,
        request: ReduceRequest,
        start: bytes = b"",
        end: bytes = b"",
        *,
        min_sequence: int = 0,
        wait: bool = True,
    ) -> ReduceResult:
        """What ``request`` makes of a range; its fields of keys begin in the namespace's keys."""
        check_request(request)
        within = self._space.key_range(*_checked_bounds(start, end))
        low, high = within or (b"\xff", b"\x00")
        return await self._handle.reduce(
            shifted(request, self._space.bits), low, high, min_sequence=min_sequence, wait=wait
        )

    def scan(self, start: bytes = b"", end: bytes = b"", *, forward: bool = True) -> NamespacedScan:
        """All pairs of a range, lazily, page by page, on one snapshot."""
        within = self._space.key_range(*_checked_bounds(start, end))
        # Nothing is between a key and itself; but the scan is there, and has its sequence.
        low, high = within or (b"\xff", b"\x00")
        return NamespacedScan(self._handle.scan(low, high, forward=forward), self._space)

    async def get_batch(self, sequence: int) -> Batch | None:
        """The batch with this number, of which the namespace's own keys; None if it is not there
        yet. Raises BatchEvictedError if retention has let go of it.
        """
        batch = await self._handle.get_batch(sequence)
        return None if batch is None else _own_part(batch, self._space)

    def subscribe(
        self,
        *,
        prefix: bytes = b"",
        match: Sequence[MatchKey] | None = None,
        values: Sequence[ValueFilter] | None = None,
        after: Cursor | str | None = None,
        from_sequence: int | None = None,
        start: Literal["oldest", "now"] | None = None,
        last: int | None = None,
        since_time: datetime | None = None,
        snapshot: bool = False,
    ) -> NamespacedFeed:
        """Every batch with keys of this namespace, from one start on; the oldest if none is given.

        What it takes is what the handle's ``subscribe`` takes, of the namespace's own keys. Raises
        NamespaceNestingError if bits of match keys would be lost.
        """
        self._space.encode(prefix)
        outer, keys = self._space.selection(prefix, match)
        feed = self._handle.subscribe(
            prefix=outer,
            match=keys,
            values=values,
            after=after,
            from_sequence=from_sequence,
            start=start,
            last=last,
            since_time=since_time,
            snapshot=snapshot,
        )
        return NamespacedFeed(feed, self._space)

    async def prune(self, policies: Sequence[Policy], *, dry_run: bool = False) -> PruneResult:
        """Delete the keys of this namespace that ``policies`` do not keep.

        Raises InvalidRequestError if a policy is for the log, which is everybody's,
        NamespaceNestingError if bits of its match key would be lost.
        """
        if not isinstance(policies, Sequence):
            raise InvalidRequestError("policies are a sequence of policies")
        return await self._handle.prune(list(map(self._policy, policies)), dry_run=dry_run)

    def _policy(self, policy: Policy) -> Policy:
        scope = getattr(policy, "scope", None)
        if not isinstance(scope, KeysScope):
            raise InvalidRequestError("within a namespace policies are for keys: the log is shared")
        prefix, match_key = self._space.family(scope.prefix, scope.match_key)
        return replace(policy, scope=replace(scope, prefix=prefix, match_key=match_key))

    def _own(self, row: Pair) -> Pair | None:
        key = self._space.decode(row[0])
        return None if key is None else (key, row[1])


def _checked_bounds(start: bytes, end: bytes) -> Pair:
    if type(start) is not bytes or type(end) is not bytes:
        raise InvalidRequestError("keys are bytes")
    return start, end


class NamespacedScan:
    """Every pair of a range of a namespace in key order, or against it, on one snapshot."""

    def __init__(self, rows: Rows, namespace: Namespace) -> None:
        self._rows = rows
        self._space = namespace

    async def __aenter__(self) -> Self:
        await self._rows.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._rows.__aexit__(*raised)  # noqa: ASYNC102  # shields itself

    @property
    def sequence(self) -> int:
        """The sequence number whose state it shows."""
        return self._rows.sequence

    def __aiter__(self) -> AsyncIterator[Pair]:
        return self

    async def __anext__(self) -> Pair:
        while True:
            key, value = await anext(self._rows)
            own = self._space.decode(key)
            if own is not None:
                return own, value


class NamespacedFeed:
    """The feed of a namespace: batches and rows under its own keys, and every other message."""

    def __init__(self, feed: Feed, namespace: Namespace) -> None:
        self._feed = feed
        self._space = namespace

    async def __aenter__(self) -> Self:
        await self._feed.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._feed.__aexit__(*raised)  # noqa: ASYNC102  # shields itself

    @property
    def cursor(self) -> Cursor | None:
        """The resolved start, then the last message that is finished: resume after it."""
        return self._feed.cursor

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch | SnapshotPage:
        return await next_with_entries(self)

    def messages(self) -> Messages:
        """All messages: besides batches and pages ``CaughtUp``, ``Progress`` and others."""
        return Messages(self)

    async def next_message(self) -> FeedMessage:
        """The next message. Asking for it says that the one before is finished."""
        while True:
            message = await self._feed.next_message()
            if not isinstance(message, Batch | SnapshotPage):
                return message
            own = _own_part(message, self._space)
            if own.entries:
                return own


def _own_part(message: M, space: Namespace) -> M:
    """The same with the namespace's own keys only, under the names that they have there."""
    entries = [
        Entry(Keyspace.STORE, key, value)
        for _, packed, value in message.entries
        if (key := space.decode(packed)) is not None
    ]
    return replace(message, entries=tuple(entries))
