"""What validators and bodies of preflighted transactions work with: declared keys, typed values."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol, Self

import trio

from exo_stream.canonical.changes import Changes, Operation
from exo_stream.canonical.ranges import Pair, over
from exo_stream.canonical.state import check_event, check_key, check_value
from exo_stream.canonical.values import TypedValue, decode, encode
from exo_stream.errors import (
    InvalidRequestError,
    InvalidStateError,
    LimitExceededError,
    SerializationError,
    UndeclaredKeyAccessError,
)
from exo_stream.limits import Limits


class Keys(Protocol):
    """The keys of a range, in order."""

    def __aiter__(self) -> Self:
        """Itself."""

    async def __anext__(self) -> bytes:
        """The next key."""

    async def next(self) -> bytes | None:
        """The next key, None at the end."""

    def close(self) -> None:
        """Let go of what it holds."""


class Pairs(Protocol):
    """The pairs of a range in key order, all of one moment."""

    def __aiter__(self) -> Self:
        """Itself."""

    async def __anext__(self) -> Pair:
        """The next pair."""

    async def next(self) -> Pair | None:
        """The next pair, None at the end."""

    def keys_only(self) -> Keys:
        """The keys alone."""

    def close(self) -> None:
        """Let go of what it holds."""

    async def __aenter__(self) -> Self:
        """Nothing."""

    async def __aexit__(self, *_: object) -> None:
        """``close``."""


class Reading(Protocol):
    """The state as it was at one sequence, wherever that is held."""

    @property
    def limits(self) -> Limits:
        """What bounds a transaction."""

    async def read(self, key: bytes) -> tuple[int, bytes | None]:
        """A declared key's version and its value; 0 and None if it is absent."""

    async def iter_state(
        self, own: Mapping[bytes, bytes | None], check: Callable[[], None]
    ) -> tuple[int, Pairs]:
        """Every pair, with ``own`` over them, and the sequence of the last commit before it.

        ``check`` raises once the transaction is over.
        """


class PreflightContext:
    """What a validator may look at: the declared keys, all as they were at one sequence."""

    __slots__ = ("_declared", "_reading", "reads")

    def __init__(self, reading: Reading, declared: Collection[bytes]) -> None:
        self._declared = declared
        self._reading: Reading | None = reading
        self.reads: dict[bytes, int] = {}

    async def get(self, key: bytes) -> TypedValue:
        """The key's value. Raises InvalidStateError if it is absent."""
        value = await self.get_opt(key)
        if value is None:
            raise InvalidStateError(f"key {key!r} does not exist")
        return value

    async def get_opt(self, key: bytes) -> TypedValue | None:
        """The key's value, None if it is absent."""
        data = await self._read(key)
        return None if data is None else decode(data)

    async def exists(self, key: bytes) -> bool:
        """Whether the key is there."""
        return await self._read(key) is not None

    async def _read(self, key: bytes) -> bytes | None:
        self._check_declared(key)
        self.reads[key], value = await self._open().read(key)
        self._check_open()
        return value

    def _check_declared(self, key: bytes) -> None:
        if key not in self._declared:
            check_key(key, "transaction")
            raise UndeclaredKeyAccessError(key)

    def _open(self) -> Reading:
        if self._reading is None:
            raise over("transaction")
        return self._reading

    def _check_open(self) -> None:
        self._open()

    def close(self) -> None:
        """Nothing more may be read or written."""
        self._reading = None


class TransactionContext(PreflightContext):
    """What the body of a transaction works with: typed values under declared keys, and events."""

    __slots__ = ("_bytes", "_events", "_operations", "_own", "_store_version")

    def __init__(self, reading: Reading, declared: Collection[bytes]) -> None:
        super().__init__(reading, declared)
        self._operations: list[Operation] = []
        self._own: dict[bytes, bytes | None] = {}
        self._events: list[bytes] = []
        self._store_version: int | None = None
        self._bytes = 0

    async def _read(self, key: bytes) -> bytes | None:
        if key in self._own:
            self._check_open()
            await trio.lowlevel.checkpoint_if_cancelled()
            return self._own[key]
        return await super()._read(key)

    def set(self, key: bytes, value: TypedValue) -> None:
        """Write a value."""
        data = encode(value)
        check_value(data, "set")
        self._write(key, data)

    def delete(self, key: bytes) -> None:
        """Delete a key, present or not."""
        self._write(key, None)

    async def update(
        self, key: bytes, change: Callable[[TypedValue | None], TypedValue | None]
    ) -> None:
        """Write what ``change`` makes of the key's value; None, in either direction, is absent."""
        value = change(await self.get_opt(key))
        if value is None:
            self.delete(key)
        else:
            self.set(key, value)

    def log(self, event_type: str, payload: object) -> None:
        """Append the event ``type:json``. Its id is known when the transaction has committed."""
        self.log_bytes(encode_event(event_type, payload))

    def log_many(self, events: Iterable[tuple[str, object]]) -> None:
        """Append several events."""
        for event in [encode_event(event_type, payload) for event_type, payload in events]:
            self.log_bytes(event)

    def log_bytes(self, event: bytes) -> None:
        """Append an event of any bytes."""
        check_event(event, "log")
        self._grow(len(event))
        self._events.append(event)

    async def iter_state(self) -> Pairs:
        """Every pair of the state, of undeclared keys as well, with what was written so far.

        The transaction is then in conflict with every other that commits meanwhile.
        """
        reading = self._open()
        self._store_version, pairs = await reading.iter_state(dict(self._own), self._check_open)
        return pairs

    def changes(self) -> Changes:
        """What was read and is to be changed, as a value."""
        return Changes(
            self._operations, self._events, self.reads, store_version=self._store_version
        )

    def _write(self, key: bytes, data: bytes | None) -> None:
        self._check_open()
        self._check_declared(key)
        self._grow(len(key) + (0 if data is None else len(data)))
        self._operations.append((key, data))
        self._own[key] = data

    def _grow(self, size: int) -> None:
        limits = self._open().limits
        self._bytes += size
        if self._bytes > limits.batch_bytes_max:
            raise LimitExceededError("batch_bytes_max", limits.batch_bytes_max, self._bytes)
        entries = len(self._operations) + len(self._events) + 2  # this one, and the record
        if entries > limits.batch_entries_max:
            raise LimitExceededError("batch_entries_max", limits.batch_entries_max, entries)


def encode_event(event_type: str, payload: object) -> bytes:
    """The event ``type:json``, its JSON in one form. A type has no colon, and is not empty."""
    if type(event_type) is not str or not event_type or ":" in event_type:
        raise InvalidRequestError("the type of an event is a word without a colon")
    try:
        text = json.dumps(
            payload, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
        )
        return f"{event_type}:{text}".encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SerializationError(f"this cannot be written as JSON: {error}") from error
