"""Every bound of the platform in one place, each with its unit; none of them is infinite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

STORE_KEY_BYTES_MAX: Final = 254
"""A key of the store face, as the Exoware store has it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one platform allows itself and its callers.

    A field ends in its unit and ``_max`` (or ``_min``); the docstring below each says what the
    number buys.
    """

    value_bytes_max: int = 10 * MIB
    """A value of the store face."""
    batch_entries_max: int = 1_000_000
    batch_bytes_max: int = 64 * MIB
    """Keys and values of one batch; it may be raised to 256 MiB."""

    stream_append_bytes_max: int = 10 * MIB
    """The messages of one append to a stream."""
    stream_append_messages_max: int = 1_000_000
    stream_bytes_max: int = 1 << 40
    """What one stream retains."""
    stream_producer_id_bytes_max: int = 512

    group_batches_max: int = 4_096
    group_bytes_max: int = 8 * MIB
    """One COMMIT, each entry counted with its cost in memory: a larger group would keep its
    first writer waiting for its last. A single batch may be larger; it is a group of its own."""
    waiting_writes_max: int = 8_192
    waiting_bytes_max: int = 128 * MIB
    """What may wait in ingest's mailbox; beyond it callers wait for room."""
    decision_rounds_max: int = 8
    """How often a decision may ask for more before it counts as a bug."""

    memtable_entries_max: int = 65_536
    memtable_bytes_max: int = 32 * MIB
    """One memtable; there are at most two, one filling and one being folded."""
    slice_rows_max: int = 16_384
    slice_bytes_max: int = 8 * MIB
    """One piece of folding, merging or deleting on the writer thread: about 30 ms."""
    runs_max: int = 4
    """More runs than this overlap, and compaction merges."""
    cache_bytes_max: int = 64 * MIB
    """Decoded sub-blocks kept in memory."""
    tail_bytes_max: int = 32 * MIB
    tail_batches_max: int = 65_536
    """The newest batches, kept in memory for those who follow; encoded and decoded, both count."""

    page_rows_max: int = 4_096
    page_bytes_max: int = 4 * MIB
    """One page of a scan, a snapshot or the log; a single larger row travels alone."""
    get_many_keys_max: int = 10_000
    get_many_bytes_max: int = 64 * MIB
    """Values of one look-up; a single one is never too large to be read."""
    snapshots_max: int = 32
    snapshots_per_connection_max: int = 8
    snapshot_memory_bytes_max: int = 256 * MIB
    """Memtables that are kept for held snapshots only; beyond it the oldest expires."""
    snapshot_seconds_max: int = 300
    """A snapshot holds blocks and the log's floor, so it may not be held for ever."""
    query_seconds_max: int = 30
    reductions_max: int = 4
    """Reduces under way at once, each of which holds groups; others wait their turn."""
    reduce_groups_max: int = 65_536
    reduce_bytes_max: int = 64 * MIB
    """What one reduce holds: its groups, and the extremes that are texts or bytes."""

    checkpoint_wal_bytes: int = 64 * MIB
    checkpoint_idle_wal_bytes: int = 16 * MIB
    idle_seconds: int = 5
    """How long without a write counts as idle."""
    free_bytes_min: int = 256 * MIB
    """The low-disk watermark: writes are refused below it (or below twice the WAL, if more)."""
    memory_bytes_max: int = 1024 * MIB
    """What a platform without a file holds, log included: beyond it only what frees some is taken,
    as prunes and the deletion of streams."""
    engine_memory_bytes: int = 256 * MIB
    """DuckDB's own memory_limit."""

    producer_idle_seconds: int = 7 * 24 * 3600
    """A producer's record is removed when it has not written for so long."""

    special_selectors_max: int = 1_024
    """Different selectors with match keys or value filters that are followed at once."""
    regexes_max: int = 256
    """Different regexes in those: a compiled one has up to 1 MiB, most have a hundredth of it."""
    match_steps_max: int = 8_000_000
    """What may be matched at once before others get their turn, in bytes times instructions of a
    regex, its worst case: 40 ms. Above it a thread does it."""

    stripes: int = 256
    """Locks of the canonical face; keys whose hashes share one wait for each other."""
    lock_timeout_ms: int = 5_000
    """How long a transaction waits for all of its stripes together."""
    write_slot_timeout_ms: int = 30_000
    """How long a write transaction waits for its turn."""

    progress_seconds: int = 5
    """How often a subscriber to whom nothing matches is told how far the log has come."""
    heartbeat_seconds: int = 15

    connections_max: int = 10_000
    connections_per_address_max: int = 4_096
    """Behind a proxy everybody has one address; raise it there."""
    head_bytes_max: int = 16 * KIB
    headers_max: int = 100
    head_seconds_max: int = 5
    """From accept to the end of the request head; also the idle time between two requests is
    bounded, by ``keep_alive_seconds_max``."""
    keep_alive_seconds_max: int = 60
    body_bytes_max: int = 64 * MIB
    connect_put_bytes_max: int = 96 * MIB
    """A Put on the store's own API, as sent and as decompressed, both counted: room for a batch
    of ``batch_bytes_max`` in either codec. With that it may be raised to 256 MiB; while one is
    read it takes twice its size of ``in_flight_bytes_max``."""
    connect_request_bytes_max: int = 4 * MIB
    """Any other request there."""
    connect_parts_max: int = 1_000_000
    """Parts of one request there: pairs, or in JSON also the names and values in them."""
    body_seconds_max: int = 30
    send_seconds_max: int = 10
    """A peer that does not take a frame for so long is disconnected by force."""
    handshake_seconds_max: int = 5
    close_seconds_max: int = 3
    message_bytes_max: int = 16 * MIB
    """One WebSocket message from a client."""
    message_seconds_max: int = 30
    """From the first byte of a WebSocket message to its last."""
    ping_seconds: int = 20
    requests_max: int = 1_024
    """Requests in flight on one connection."""
    subscriptions_max: int = 256
    """Subscriptions of one connection."""
    frame_bytes_max: int = 1 * MIB
    """A frame that we send; a larger batch travels in parts."""
    in_flight_bytes_max: int = 256 * MIB
    """Bodies received and pages being sent, process-wide; beyond it ``overloaded``."""
    writer_seconds_max: int = 60
    """A writer thread that is longer in one call counts as stuck: the process is not alive."""
    drain_seconds_max: int = 5
    """From the wish to stop to the last connection closed."""
