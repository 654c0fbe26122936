"""What a program holds of a server: the verbs, values and errors of ``Platform``, from afar."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import Field, fields
from datetime import datetime
from typing import Any, Final, Literal, TypeVar

import trio

from exo_stream.client.address import parse_url
from exo_stream.client.call import Call, Retry
from exo_stream.client.canonical import RemoteCanonical
from exo_stream.client.dialing import Dial, dialing
from exo_stream.client.link import Link
from exo_stream.client.patience import Patience
from exo_stream.client.remote_feed import RemoteFeed
from exo_stream.client.remote_pauses import RemotePauses
from exo_stream.client.remote_scan import RemoteScan
from exo_stream.client.request_checks import (
    checked_count,
    checked_keys,
    checked_puts,
    checked_requirements,
)
from exo_stream.client.streams import RemoteStreams
from exo_stream.errors import (
    InvalidRequestError,
    RemoteProtocolError,
    SnapshotExpiredError,
    UnsupportedError,
)
from exo_stream.information import Information, Sizes
from exo_stream.keys import KeyCodec, MatchKey
from exo_stream.limits import Limits
from exo_stream.model import Batch, Cursor, VersionedValue
from exo_stream.namespaced import NamespacedStore
from exo_stream.namespaces import Namespace
from exo_stream.nursery import nursery_unseen
from exo_stream.policies.document import decode_retention, encode_policies, encode_retention
from exo_stream.policies.policy import Policy, checked_policies
from exo_stream.policies.result import PruneResult
from exo_stream.policies.retention import LogRetention, RetentionState, checked_retention
from exo_stream.producers import Producer
from exo_stream.protocol import messages as m
from exo_stream.protocol import policies as p
from exo_stream.protocol import reductions as r
from exo_stream.read_session import ReadSession
from exo_stream.read_stats import ReadStats
from exo_stream.reduce.checks import check_request
from exo_stream.reduce.document import encode_request
from exo_stream.reduce.request import ReduceRequest, ReduceResult
from exo_stream.regex.pattern import compile_regex
from exo_stream.selectors import ValueFilter
from exo_stream.starts import chosen_start
from exo_stream.storage.engine import EngineStatistics
from exo_stream.streams.checks import chosen_selector
from exo_stream.writes import Requirement, check_keys

R = TypeVar("R")

PAIR_BYTES: Final = 12
"""What a key and a value need on the wire besides themselves, at most."""


class Client:
    """A server, as if it were a platform of this program.

    Calls of many tasks travel together, many in a frame. A call whose connection is lost is made
    again on the next one, a write under the number it had, so that it takes effect once. When
    that was tried in vain, a write that may have arrived raises OutcomeUnknownError, everything
    else UnavailableError; later calls try again. Of a server that does not know producers a lost
    write is not tried again: it raises OutcomeUnknownError at once.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self.streams = RemoteStreams(link)
        self.canonical = RemoteCanonical(link)
        self._pauses = RemotePauses(link, all_faces=True)

    @property
    def log_id(self) -> str:
        """The identity of the server's log, part of every cursor; as of the last connection."""
        return self._link.log_id

    async def pause_ingestion(self) -> None:
        """Refuse the writes of every face; as ``canonical.pause_ingestion``, which tells more."""
        await self._pauses.begin()

    async def resume_ingestion(self) -> None:
        """Undo this client's last such pause; without any it does nothing."""
        await self._pauses.end()

    async def resume_all(self) -> int:
        """End every such pause that was asked for from afar; how many there were."""
        return await self._pauses.end_all()

    async def is_paused(self) -> bool:
        """Whether the writes of every face are refused."""
        return await self.canonical.are_all_faces_paused()

    async def put_batch(self, kvs: Iterable[tuple[bytes, bytes]]) -> int:
        """Write all pairs or none, as one batch; return its sequence number, once it is durable."""
        return await self.write(puts=kvs)

    async def delete_batch(self, keys: Iterable[bytes]) -> int:
        """Delete all keys as one batch, present or not; return its sequence number."""
        return await self.write(deletes=keys)

    async def write(
        self,
        *,
        puts: Iterable[tuple[bytes, bytes]] = (),
        deletes: Iterable[bytes] = (),
        require: Mapping[bytes, Requirement] | None = None,
        producer: Producer | None = None,
    ) -> int:
        """Write puts, then deletes, as one atomic batch; return its sequence number.

        ``require`` maps keys to what must hold of them: ``"absent"``, ``"present"`` or a version
        as ``get_entry`` tells it; otherwise ConflictError names the first that does not hold.
        Without a ``producer`` the client numbers the write itself.
        """
        pairs, keys = checked_puts(puts), checked_keys(deletes)
        if not pairs and not keys:
            raise InvalidRequestError("a batch needs at least one entry")
        required = checked_requirements(require)
        if producer is not None:
            producer.check()
        size = sum([len(key) + len(value) for key, value in pairs])
        size += sum(map(len, keys)) + sum(map(len, required))
        call = Call(
            lambda id_, numbered: m.Write(id_, pairs, keys, required, numbered),
            retry=Retry.NUMBERED,
            producer=producer,
            size=size + PAIR_BYTES * (len(pairs) + len(keys) + len(required)),
        )
        return (await self._ask(call, m.Written)).sequence

    async def get(self, key: bytes, *, min_sequence: int = 0, wait: bool = True) -> bytes | None:
        """The key's latest value, None if it is absent. ``min_sequence`` as in ``get_entry``."""
        return (await self._value(key, min_sequence, wait=wait)).value

    async def get_entry(
        self, key: bytes, *, min_sequence: int = 0, wait: bool = True
    ) -> VersionedValue:
        """The key's value, its version, and the sequence number this was read at.

        The read waits until ``min_sequence`` is visible; without ``wait`` it raises
        NotVisibleYetError at once, and with it when the server's patience is used up.
        """
        reply = await self._value(key, min_sequence, wait=wait)
        if reply.value is not None and not reply.version:
            raise UnsupportedError("the server's backend tells no versions")
        return VersionedValue(reply.value, reply.version, reply.sequence)

    async def get_many(
        self, keys: Sequence[bytes], *, min_sequence: int = 0, wait: bool = True
    ) -> list[tuple[bytes, bytes | None]]:
        """Each asked key with its value, in the order asked, duplicates kept, at one sequence."""
        _, values = await self.read_values(keys, min_sequence=min_sequence, wait=wait)
        return list(zip(keys, values, strict=True))

    async def read_values(
        self, keys: Sequence[bytes], *, min_sequence: int = 0, wait: bool = True
    ) -> tuple[int, list[bytes | None]]:
        """The value of each asked key, and the sequence number they were served at."""
        asked = checked_keys(keys)
        checked_count(min_sequence)
        call = Call(
            lambda id_, _: m.GetMany(id_, asked, min_sequence, bool(wait)),
            size=sum(map(len, asked)) + PAIR_BYTES * len(asked),
        )
        reply = await self._ask(call, m.Values)
        if len(reply.values) != len(asked):
            raise RemoteProtocolError(f"{len(reply.values)} values for {len(asked)} keys")
        return reply.sequence, list(reply.values)

    async def range_scan(
        self,
        start: bytes = b"",
        end: bytes = b"",
        limit: int = 1000,
        forward: bool = True,
        *,
        min_sequence: int = 0,
        wait: bool = True,
    ) -> list[tuple[bytes, bytes]]:
        """Up to ``limit`` pairs in key order, or against it, all at one sequence.

        Both ends are inclusive; an empty ``end`` is unbounded; a limit of 0 gives nothing. For
        more than fits in memory, ``scan``.
        """
        _, pairs = await self.read_range(
            start, end, limit, forward, min_sequence=min_sequence, wait=wait
        )
        return pairs

    async def read_range(
        self,
        start: bytes = b"",
        end: bytes = b"",
        limit: int = 1000,
        forward: bool = True,
        *,
        min_sequence: int = 0,
        wait: bool = True,
    ) -> tuple[int, list[tuple[bytes, bytes]]]:
        """``range_scan``, and the sequence number it was served at."""
        check_keys([start, end])
        checked_count(limit)
        attempt = 0
        while True:
            scan = self.scan(
                start, end, forward=forward, limit=limit, min_sequence=min_sequence, wait=wait
            )
            try:
                async with scan as rows:
                    return rows.sequence, [pair async for pair in rows]
            except SnapshotExpiredError:
                # The connection was lost between two pages, or the server is short of snapshots.
                attempt += 1
                if attempt >= self._link.patience.attempts_max:
                    raise
            await self._link.pause(attempt)

    def scan(
        self,
        start: bytes = b"",
        end: bytes = b"",
        *,
        forward: bool = True,
        limit: int | None = None,
        min_sequence: int = 0,
        wait: bool = True,
    ) -> RemoteScan:
        """All pairs of a range, or ``limit`` of them, lazily, page by page, on one snapshot.

        Use it as ``async with client.scan() as rows: async for key, value in rows: …``.
        """
        check_keys([start, end])
        checked_count(min_sequence)
        if limit is not None:
            checked_count(limit)
        return RemoteScan(
            self._link,
            start,
            end,
            limit=limit,
            forward=forward,
            min_sequence=min_sequence,
            wait=bool(wait),
        )

    def session(self, sequence: int | None = None, *, wait: bool = True) -> ReadSession:
        """Reads none of which shows an older state than the first; or than ``sequence``."""
        return ReadSession(self, sequence, wait=wait)

    def namespace(self, part: bytes | KeyCodec) -> NamespacedStore:
        """The keys that begin with ``part``, or that it packs, seen without it."""
        return NamespacedStore(self, Namespace().within(part))

    async def reduce(
        self,
        request: ReduceRequest,
        start: bytes = b"",
        end: bytes = b"",
        *,
        min_sequence: int = 0,
        wait: bool = True,
    ) -> ReduceResult:
        """What ``request`` makes of a range, all at one sequence, as ``Platform.reduce`` does."""
        check_request(request)
        check_keys([start, end])
        checked_count(min_sequence)
        document = encode_request(request)
        call = Call(
            lambda id_, _: r.Reduce(id_, document, start, end, min_sequence, bool(wait)),
            size=len(document) + len(start) + len(end),
        )
        reply = await self._ask(call, r.Reduced)
        stats = ReadStats(reply.read_bytes)
        return ReduceResult(reply.results, reply.groups, reply.sequence, stats)

    async def get_batch(self, sequence: int) -> Batch | None:
        """The batch with this number, deletions as the value None; None if it is not there yet.

        Raises BatchEvictedError if retention has let go of it.
        """
        checked_count(sequence)
        reply = await self._ask(Call(lambda id_, _: m.GetBatch(id_, sequence)), m.Found)
        if reply.batch is None:
            return None
        number, committed_at, entries = reply.batch
        return Batch(number, committed_at, entries, self._link.log_id)

    async def oldest_retained_batch(self) -> int | None:
        """The number of the oldest batch in the log, None if the log is empty."""
        return (await self._information()).oldest

    async def current_sequence(self) -> int:
        """The number of the newest visible batch, 0 before the first."""
        return (await self._information()).frontier

    async def prune_batch_log(self, cutoff_exclusive: int) -> int:
        """Evict every batch below the cutoff, at once for everybody; return how many there were.

        If the connection is lost it is asked again: what the lost one evicted is not counted.
        """
        checked_count(cutoff_exclusive)
        call = Call(lambda id_, _: m.Prune(id_, cutoff_exclusive))
        return (await self._ask(call, m.Pruned)).batches

    async def prune(self, policies: Sequence[Policy], *, dry_run: bool = False) -> PruneResult:
        """Delete the keys and evict the batches that ``policies`` do not keep, as
        ``Platform.prune`` does; with ``dry_run`` only count.

        A prune whose connection was lost is not sent again: it raises OutcomeUnknownError. The
        batches that it wrote until then stand.
        """
        checked_policies(policies, compile_regex)
        document = encode_policies(policies)
        call = Call(
            lambda id_, _: p.PrunePolicies(id_, document, bool(dry_run)),
            retry=Retry.READ if dry_run else Retry.ONCE,
            size=len(document),
        )
        reply = await self._ask(call, p.PoliciesPruned)
        return PruneResult(reply.counts, reply.sequences)

    async def set_retention(self, retention: LogRetention | None) -> RetentionState:
        """Store what the log keeps in the server's file, and apply it; None keeps everything."""
        rules = checked_retention(retention)
        call = Call(lambda id_, _: p.SetRetention(id_, encode_retention(rules)))
        return _retention_state(await self._ask(call, p.Retention))

    async def retention(self) -> RetentionState:
        """What the log keeps, and why."""
        return _retention_state(
            await self._ask(Call(lambda id_, _: p.GetRetention(id_)), p.Retention)
        )

    async def info(self) -> Information:
        """Identity, extent and sizes."""
        found = await self._information()
        problem = found.sizes.get("retention_problem")
        return Information(
            found.log_id,
            found.frontier,
            found.oldest,
            _known(found, "subscribers"),
            problem if isinstance(problem, str) else None,
            Sizes(*[_known(found, field.name) for field in fields(Sizes)]),
            EngineStatistics(**{f.name: _told(found, f) for f in fields(EngineStatistics)}),
        )

    def subscribe(
        self,
        *,
        prefix: bytes = b"",
        match: Sequence[MatchKey] | None = None,
        values: Sequence[ValueFilter] | None = None,
        stream: str | None = None,
        streams_prefix: str | None = None,
        events: bool = False,
        after: Cursor | str | None = None,
        from_sequence: int | None = None,
        from_event: int | None = None,
        start: Literal["oldest", "now"] | None = None,
        last: int | None = None,
        since_time: datetime | None = None,
        snapshot: bool = False,
        slow: Literal["catch_up", "disconnect"] = "catch_up",
        heartbeat_seconds: int | None = None,
    ) -> RemoteFeed:
        """Every batch with keys under ``prefix``, from one start on; the oldest if none is given.

        With ``match`` only entries of which the rest of the key matches one of these, with
        ``values`` only those whose value passes one of these filters, which no deletion does.
        ``stream`` and ``streams_prefix`` follow streams instead, ``events`` canonical events.
        The starts are those of ``Platform.subscribe``. Use it as ``async with
        client.subscribe() as feed: async for batch in feed: …``.
        """
        chosen = chosen_start(
            after=after,
            from_sequence=from_sequence,
            from_event=from_event,
            start=start,
            last=last,
            since_time=since_time,
            snapshot=snapshot,
        )
        follows = events or from_event is not None
        selector = chosen_selector(prefix, match, values, stream, streams_prefix, events=follows)
        if slow not in {"catch_up", "disconnect"}:
            raise InvalidRequestError("a slow reader may 'catch_up' or 'disconnect'")
        if heartbeat_seconds is not None:
            checked_count(heartbeat_seconds)
        return RemoteFeed(
            self._link,
            selector,
            chosen,
            slow=slow,
            heartbeat_seconds=heartbeat_seconds,
        )

    async def _value(self, key: bytes, min_sequence: int, *, wait: bool) -> m.Value:
        check_keys([key])
        checked_count(min_sequence)
        call = Call(lambda id_, _: m.Get(id_, key, min_sequence, bool(wait)), size=len(key))
        return await self._ask(call, m.Value)

    async def _information(self) -> m.Information:
        return await self._ask(Call(lambda id_, _: m.Info(id_)), m.Information)

    async def _ask(self, call: Call, kind: type[R]) -> R:
        reply = await self._link.ask(call)
        assert isinstance(reply, kind), reply  # the session has seen to it
        return reply


def _told(found: m.Information, field: Field[Any]) -> Any:
    """What the server told of one statistic, of its field's type; an older one may not know it."""
    return found.sizes.get(field.name, "" if field.type == "str" else 0)


def _known(found: m.Information, name: str) -> int:
    number = found.sizes.get(name)
    return number if isinstance(number, int) else 0


def _retention_state(reply: p.Retention) -> RetentionState:
    try:
        stored, in_force = decode_retention(reply.stored), decode_retention(reply.in_force)
    except InvalidRequestError as error:
        raise RemoteProtocolError(f"no rules that this version knows: {error}") from None
    source: Literal["stored", "option"] = "option" if reply.source == "option" else "stored"
    return RetentionState(stored, in_force, source, reply.problem, reply.oldest)


@asynccontextmanager
async def connect(
    url: str,
    *,
    name: str = "exo-stream",
    limits: Limits | None = None,
    patience: Patience | None = None,
    ssl_context: ssl.SSLContext | None = None,
    dial: Dial | None = None,
) -> AsyncIterator[Client]:
    """Connect to a server like ``ws://127.0.0.1:4437/v1/ws`` for as long as the body runs.

    ``patience`` bounds the reconnecting and what feeds hold; ``dial`` is for tests: it opens the
    transport. Raises InvalidRequestError for what is no URL of a WebSocket, UnavailableError if
    there is no server, or another one; an error of the body leaves as itself.
    """
    link = Link(
        parse_url(url),
        dial or dialing(ssl_context),
        limits=limits or Limits(),
        patience=patience or Patience(),
        name=name,
    )
    with nursery_unseen() as own:
        async with trio.open_nursery() as nursery:
            await nursery.start(link.run)
            with own:
                yield Client(link)
            link.finish()
