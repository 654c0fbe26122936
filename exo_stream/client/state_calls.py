"""What a transaction from afar asks of the server: keys with their versions, and one decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from exo_stream.canonical.changes import Changes, CommitInfo
from exo_stream.client.call import Call, Retry
from exo_stream.client.link import Link
from exo_stream.client.state_ranges import RemoteSnapshot
from exo_stream.errors import RemoteProtocolError
from exo_stream.protocol import canonical_messages as c

PART_BYTES: Final = 24
"""What a key, a value or an event needs on the wire besides itself, at most."""


async def read_state(
    link: Link, keys: Sequence[bytes], *, values: bool, snapshot: RemoteSnapshot | None = None
) -> c.StateValues:
    """Keys of the state with their versions, as they are now or in a snapshot."""
    asked, held = tuple(keys), 0 if snapshot is None else snapshot.opened.id
    call = Call(
        lambda id_, _: c.ReadState(id_, held, asked, values),
        retry=Retry.NEVER if snapshot else Retry.READ,
        size=sum(map(len, asked)) + PART_BYTES * len(asked),
        connection=0 if snapshot is None else snapshot.connection,
    )
    reply = await link.ask(call)
    assert isinstance(reply, c.StateValues), reply
    if len(reply.values) != len(asked):
        raise RemoteProtocolError(f"{len(reply.values)} values for {len(asked)} keys")
    return reply


async def commit(link: Link, changes: Changes) -> CommitInfo:
    """Have a transaction decided, once however often it is sent; returns when it is durable.

    Raises OutcomeUnknownError if it was sent and its answer is not to be had.
    """
    reads = []
    for key, version in changes.reads.items():
        assert isinstance(version, int), version
        reads.append(c.StateVersion(key, version))
    operations, events = tuple(changes.operations), tuple(changes.events)
    store_version, first_event_id = changes.store_version, changes.first_event_id
    assert store_version is None or isinstance(store_version, int), store_version
    size = PART_BYTES * (len(reads) + len(operations) + len(events))
    size += sum([len(key) for key, _ in reads]) + sum(map(len, events))
    size += sum([len(key) + len(value or b"") for key, value in operations])
    call = Call(
        lambda id_, producer: c.Commit(
            *(id_, tuple(reads), operations, events, store_version, first_event_id, producer)
        ),
        retry=Retry.NUMBERED,
        size=size,
    )
    reply = await link.ask(call)
    assert isinstance(reply, c.Committed), reply
    return CommitInfo(
        *(reply.events_written, reply.first_event_id, reply.last_event_id),
        *(reply.state_keys_written, reply.state_keys_deleted, 0, reply.sequence),
    )
