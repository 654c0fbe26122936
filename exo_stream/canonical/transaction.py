"""A preflighted transaction: declared keys, validators under locks, and then one decision.

Phase one locks the stripes of the declared keys; phase two runs the validators, all at once, and
then the body, on one snapshot; phase three is the decision, which checks every version that was
read and writes state and events as one batch. The locks are let go when that is durable.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final, Self

import trio

from exo_stream.canonical.changes import Changes, CommitInfo, Operation, PreflightResult
from exo_stream.canonical.ranges import StateIter, over
from exo_stream.canonical.state import check_event, check_key, check_value
from exo_stream.canonical.stripes import LockManager
from exo_stream.canonical.values import TypedValue, decode, encode
from exo_stream.canonical.writers import Writers
from exo_stream.errors import (
    ConfigError,
    ExoStreamError,
    InvalidRequestError,
    InvalidStateError,
    LimitExceededError,
    PreflightFailedError,
    SerializationError,
    UndeclaredKeyAccessError,
)
from exo_stream.pause import Pause
from exo_stream.snapshots import Snapshot
from exo_stream.storage.engine import Version

DECLARED_KEYS_MAX: Final = 10_000


class PreflightContext:
    """What a validator may look at: the declared keys, all as they were at one sequence."""

    __slots__ = ("_declared", "_snapshot", "_writers", "reads")

    def __init__(self, writers: Writers, declared: Collection[bytes], snapshot: Snapshot) -> None:
        self._writers = writers
        self._declared = declared
        self._snapshot: Snapshot | None = snapshot
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
        row = await self._writers.state.row(self._version(), key)
        self._version()
        self.reads[key] = 0 if row is None else row.sequence
        return None if row is None else row.value

    def _check_declared(self, key: bytes) -> None:
        if key not in self._declared:
            check_key(key, "transaction")
            raise UndeclaredKeyAccessError(key)

    def _version(self) -> Version:
        if self._snapshot is None:
            raise over("transaction")
        return self._snapshot.check()

    def close(self) -> None:
        """Nothing more may be read or written."""
        self._snapshot = None


class TransactionContext(PreflightContext):
    """What the body of a transaction works with: typed values under declared keys, and events."""

    __slots__ = ("_bytes", "_events", "_operations", "_own", "_store_version")

    def __init__(self, writers: Writers, declared: Collection[bytes], snapshot: Snapshot) -> None:
        super().__init__(writers, declared, snapshot)
        self._operations: list[Operation] = []
        self._own: dict[bytes, bytes | None] = {}
        self._events: list[bytes] = []
        self._store_version: int | None = None
        self._bytes = 0

    async def _read(self, key: bytes) -> bytes | None:
        if key in self._own:
            self._version()
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
        self._version()
        check_event(event, "log")
        self._grow(len(event))
        self._events.append(event)

    async def iter_state(self) -> StateIter:
        """Every pair of the state, of undeclared keys as well, with what was written so far.

        The transaction is then in conflict with every other that commits meanwhile.
        """
        _, self._store_version = await self._writers.state.record(self._version())
        reads = self._writers.state.reads
        return StateIter(reads, self._version, b"", None, own=dict(self._own))

    def changes(self) -> Changes:
        """What was read and is to be changed, as a value."""
        return Changes(
            self._operations, self._events, self.reads, store_version=self._store_version
        )

    def _write(self, key: bytes, data: bytes | None) -> None:
        self._version()
        self._check_declared(key)
        self._grow(len(key) + (0 if data is None else len(data)))
        self._operations.append((key, data))
        self._own[key] = data

    def _grow(self, size: int) -> None:
        limits = self._writers.ground.sources.limits
        self._bytes += size
        if self._bytes > limits.batch_bytes_max:
            raise LimitExceededError("batch_bytes_max", limits.batch_bytes_max, self._bytes)
        entries = len(self._operations) + len(self._events) + 2  # this one, and the record
        if entries > limits.batch_entries_max:
            raise LimitExceededError("batch_entries_max", limits.batch_entries_max, entries)


Validator = Callable[[PreflightContext], Awaitable[None]]
Body = Callable[[TransactionContext], Awaitable[None]]
Check = Callable[[TypedValue | None], bool | None]


class Transaction:
    """Built with the keys it touches and what must hold of them; then executed once."""

    def __init__(self, writers: Writers, locks: LockManager, pause: Pause) -> None:
        self._writers = writers
        self._locks = locks
        self._pause = pause
        self._declared: set[bytes] = set()
        self._validators: list[Validator] = []

    def keys(self, keys: Iterable[bytes]) -> Self:
        """Declare the keys it may read and write. Raises ConfigError beyond 10,000 of them."""
        if isinstance(keys, bytes | str):
            raise InvalidRequestError("keys are several keys, not one")
        declared = list(keys)
        for key in declared:
            check_key(key, "keys")
        self._declared.update(declared)
        if len(self._declared) > DECLARED_KEYS_MAX:
            raise ConfigError(f"a transaction declares at most {DECLARED_KEYS_MAX} keys")
        return self

    def validate(self, validator: Validator) -> Self:
        """Have ``validator`` look at the declared keys, and raise if it objects.

        Validators run at the same time, on one snapshot, while the keys are locked. What one
        raises ends the transaction: an error of exo_stream as it is, any other as the
        ``__cause__`` of a PreflightFailedError.
        """
        self._validators.append(validator)
        return self

    def require(self, key: bytes, check: Check) -> Self:
        """Declare ``key``, and have ``check`` look at its value; it raises, or answers False."""

        async def validator(context: PreflightContext) -> None:
            if check(await context.get_opt(key)) is False:
                raise PreflightFailedError(f"key {key!r} is not as required")

        return self.keys([key]).validate(validator)

    def require_exists(self, key: bytes) -> Self:
        """Declare ``key``, which must be there."""

        async def validator(context: PreflightContext) -> None:
            if not await context.exists(key):
                raise PreflightFailedError(f"key {key!r} does not exist")

        return self.keys([key]).validate(validator)

    def require_min(self, key: bytes, least: int) -> Self:
        """Declare ``key``, whose integer must be ``least`` or more; InvalidStateError if it is
        absent, or no integer.
        """

        async def validator(context: PreflightContext) -> None:
            number = (await context.get(key)).as_integer()
            if number < least:
                raise PreflightFailedError(f"key {key!r} is {number}, less than {least}")

        return self.keys([key]).validate(validator)

    def require_max(self, key: bytes, most: int) -> Self:
        """Declare ``key``, whose integer must be ``most`` or less; InvalidStateError if it is
        absent, or no integer.
        """

        async def validator(context: PreflightContext) -> None:
            number = (await context.get(key)).as_integer()
            if number > most:
                raise PreflightFailedError(f"key {key!r} is {number}, more than {most}")

        return self.keys([key]).validate(validator)

    async def preflight(self) -> PreflightResult:
        """Run the validators and nothing else: whether the transaction would go ahead now."""
        with await self._locks.acquire_keys(self._declared), self._snapshot() as snapshot:
            context = PreflightContext(self._writers, self._declared, snapshot)
            try:
                await self._run_validators(context)
            except ExoStreamError as error:
                return PreflightResult.failure(str(error)).with_keys(context.reads, ())
            finally:
                context.close()
        return PreflightResult.success().with_keys(context.reads, ())

    async def execute(self, body: Body) -> CommitInfo:
        """Lock, validate, run ``body`` and commit what it did, all of it or nothing.

        Raises LockTimeoutError, PreflightFailedError, UndeclaredKeyAccessError, what ``body``
        raises, SealedError, PausedError; TransactionConflictError if something that was read was
        written meanwhile past the locks: execute it again.
        """
        self._pause.enter()
        try:
            await self._writers.check_open()
            with await self._locks.acquire_keys(self._declared):
                changes = await self._prepare(body)
                return await self._writers.decide(changes)
        finally:
            self._pause.leave()

    async def _prepare(self, body: Body) -> Changes:
        """Phase two: what the transaction read and wants to change."""
        with self._snapshot() as snapshot:
            context = TransactionContext(self._writers, self._declared, snapshot)
            try:
                if self._validators:
                    await self._run_validators(context)
                await body(context)
            finally:
                context.close()
        return context.changes()

    def _snapshot(self) -> Snapshot:
        return self._writers.ground.sources.snapshots.lease(self._writers.version)

    async def _run_validators(self, context: PreflightContext) -> None:  # noqa: ASYNC910
        if len(self._validators) < 2:
            for validator in self._validators:
                await _validate(validator, context)
            return  # noqa: ASYNC910  # what follows is one
        failures: dict[int, ExoStreamError] = {}
        scopes = [trio.CancelScope() for _ in self._validators]

        async def run(number: int, validator: Validator) -> None:  # noqa: ASYNC910
            with scopes[number]:
                try:
                    await _validate(validator, context)
                except ExoStreamError as error:
                    failures[number] = error
                    # Those registered before go on: if one of them objects too, it is told.
                    for later in scopes[number + 1 :]:
                        later.cancel()

        async with trio.open_nursery() as nursery:
            for number, validator in enumerate(self._validators):
                nursery.start_soon(run, number, validator)
        if failures:
            raise failures[min(failures)]


async def _validate(validator: Validator, context: PreflightContext) -> None:  # noqa: ASYNC910
    try:
        await validator(context)
    except ExoStreamError:
        raise
    except Exception as error:
        raise PreflightFailedError(f"a validator raised {error!r}") from error


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
