"""Every error a caller of exo_stream can meet, and what each one asks of them.

ExoStreamError
├─ InvalidRequestError        invalid_request      breaks the protocol, a type or a rule
│  ├─ LimitExceededError      limit_exceeded       limit, bound, actual
│  ├─ KeyTooLargeError        key_too_large        size, max, context: of a key of the state
│  ├─ ValueTooLargeError      value_too_large      size, max, context: of a value or an event
│  ├─ InvalidStateError       invalid_state        not now, or not with what is there
│  ├─ UndeclaredKeyAccessError undeclared_key_access key: a transaction did not declare it
│  ├─ ConfigError             config               a transaction or a face is set up wrongly
│  └─ SerializationError      serialization        no typed value, or not in its one encoding
├─ PausedError           (r)  paused               writes are paused
├─ SealedError                sealed               sealed_event_id: the canonical log is sealed
├─ LockTimeoutError      (r)  lock_timeout         timeout_ms, key, holder
├─ TimedOutError         (r)  timed_out            timeout_ms, holder: of the write slot
├─ PreflightFailedError       preflight_failed     a validator of a transaction objected
├─ TransactionConflictError (r) transaction_conflict key, expected, found
├─ ProjectionError            projection_failed    projection, event_id: its handler failed
├─ ConflictError              conflict             key, version: a precondition did not hold
├─ BatchEvictedError          batch_evicted        oldest_retained: resume there, knowingly
├─ CursorAheadError           cursor_ahead         frontier: the cursor is of a later log
├─ LogMismatchError           log_mismatch         log_id: the cursor is of another log
├─ ProducerFencedError        producer_fenced      current_epoch
├─ ProducerGapError           producer_gap         expected_seq, received_seq
├─ UnsupportedError           unsupported          this backend or face cannot do it
├─ NotVisibleYetError    (r)  not_visible_yet      frontier, required
├─ SnapshotExpiredError  (r)  snapshot_expired     held too long, or too many are held
├─ OverloadedError       (r)  overloaded           a budget is used up; try again later
├─ StoreError            (r)  store_failed         nothing of the write was kept
│  └─ StoreFullError     (r)  store_full           no space; refused before it was tried
├─ OutcomeUnknownError   (r)  outcome_unknown      a write may or may not have taken effect
├─ PlatformClosedError   (r)  platform_closed      it stopped before it answered
├─ UnavailableError      (r)  unavailable          the server could not be reached
├─ FileInUseError             file_in_use          pid: another process holds the file
├─ ForeignFileError           foreign_file         not our file, or of a newer format
├─ CorruptionError            corruption           what is on disk contradicts itself
│  └─ EventGapError           event_gap            event_id, missing: events that should be there
├─ LocalProtocolError         local_protocol_error a bug on our side
└─ RemoteProtocolError        remote_protocol_error they broke the protocol
                                                                    (r) = retryable
"""

from __future__ import annotations

from typing import ClassVar, Self


class ExoStreamError(Exception):
    """Base of every error raised on purpose by exo_stream.

    ``code`` is the name that crosses the wire and never changes once released;
    ``retryable`` says whether the very same request may succeed later. The other public
    attributes of a class are the ``fields`` that cross the wire with it.
    """

    code: ClassVar[str]
    retryable: ClassVar[bool] = False
    fields: ClassVar[tuple[str, ...]] = ()

    def again(self) -> Self:
        """An equal error for one more waiter: raising an error object changes it."""
        twin = type(self).__new__(type(self), *self.args)
        twin.__dict__.update(self.__dict__)
        return twin


class InvalidRequestError(ExoStreamError):
    """The request breaks the protocol, a type or a rule; sending it again cannot help."""

    code = "invalid_request"


class LimitExceededError(InvalidRequestError):
    """The request is larger than ``limit`` allows: ``actual`` against ``bound``."""

    code = "limit_exceeded"
    fields: ClassVar[tuple[str, ...]] = ("limit", "bound", "actual")

    def __init__(self, limit: str, bound: int, actual: int) -> None:
        super().__init__(f"{limit} is {bound}, but this is {actual}")
        self.limit = limit
        self.bound = bound
        self.actual = actual


class KeyTooLargeError(InvalidRequestError):
    """A key of the canonical state has ``size`` bytes, more than ``max``; nothing was changed."""

    code = "key_too_large"
    fields: ClassVar[tuple[str, ...]] = ("size", "max", "context")

    def __init__(self, size: int, max: int, context: str) -> None:  # noqa: A002  its public name
        super().__init__(f"{context}: a key has at most {max} bytes, but this one {size}")
        self.size = size
        self.max = max
        self.context = context


class ValueTooLargeError(InvalidRequestError):
    """A value or an event has ``size`` bytes, more than ``max``; nothing was changed."""

    code = "value_too_large"
    fields: ClassVar[tuple[str, ...]] = ("size", "max", "context")

    def __init__(self, size: int, max: int, context: str) -> None:  # noqa: A002  its public name
        super().__init__(f"{context}: at most {max} bytes, but these are {size}")
        self.size = size
        self.max = max
        self.context = context


class InvalidStateError(InvalidRequestError):
    """This cannot be done now, or not with what is there: a transaction that is over, say."""

    code = "invalid_state"


class UndeclaredKeyAccessError(InvalidRequestError):
    """A preflighted transaction touched ``key``, which it had not declared; nothing was done."""

    code = "undeclared_key_access"
    fields: ClassVar[tuple[str, ...]] = ("key",)

    def __init__(self, key: bytes) -> None:
        super().__init__(f"key {key!r} was not declared")
        self.key = key


class ConfigError(InvalidRequestError):
    """A transaction or a face was set up wrongly: too many declared keys, no stripe at all."""

    code = "config"


class SerializationError(InvalidRequestError):
    """These bytes are no typed value, or not in the one encoding that it has."""

    code = "serialization"


class PausedError(ExoStreamError):
    """Writes are paused, so nothing was tried; ask again once they have been resumed."""

    code = "paused"
    retryable = True


class SealedError(ExoStreamError):
    """The canonical store is sealed at ``sealed_event_id``: it takes no write until ``unseal``."""

    code = "sealed"
    fields: ClassVar[tuple[str, ...]] = ("sealed_event_id",)

    def __init__(self, sealed_event_id: int) -> None:
        super().__init__(f"sealed at event {sealed_event_id}")
        self.sealed_event_id = sealed_event_id


class LockTimeoutError(ExoStreamError):
    """The stripe of ``key`` was held by ``holder`` for all of ``timeout_ms``; nothing was done."""

    code = "lock_timeout"
    retryable = True
    fields: ClassVar[tuple[str, ...]] = ("timeout_ms", "key", "holder")

    def __init__(self, timeout_ms: int, key: bytes, holder: str) -> None:
        super().__init__(f"key {key!r} was locked by {holder} for {timeout_ms} ms")
        self.timeout_ms = timeout_ms
        self.key = key
        self.holder = holder


class TimedOutError(ExoStreamError):
    """``holder`` kept the canonical writers waiting for all of ``timeout_ms``; nothing was done."""

    code = "timed_out"
    retryable = True
    fields: ClassVar[tuple[str, ...]] = ("timeout_ms", "holder")

    def __init__(self, timeout_ms: int, holder: str) -> None:
        super().__init__(f"waited {timeout_ms} ms for the write transaction of {holder}")
        self.timeout_ms = timeout_ms
        self.holder = holder


class PreflightFailedError(ExoStreamError):
    """A validator of the transaction objected, so nothing was changed."""

    code = "preflight_failed"


class TransactionConflictError(ExoStreamError):
    """What the transaction had read is no longer so; nothing was changed, run it again.

    It had read ``key`` at version ``expected``, and found it at ``found``; 0 means absent. An
    empty ``key`` stands for all of the state and the next event id, at the sequence of the last
    commit.
    """

    code = "transaction_conflict"
    retryable = True
    fields: ClassVar[tuple[str, ...]] = ("key", "expected", "found")

    def __init__(self, key: bytes, expected: int, found: int) -> None:
        what = f"key {key!r}" if key else "the canonical store"
        super().__init__(f"{what} was read at version {expected}, and is at {found} now")
        self.key = key
        self.expected = expected
        self.found = found


class ProjectionError(ExoStreamError):
    """The handler of ``projection`` failed, from ``event_id`` on; nothing of the try was kept.

    ``__cause__`` is what it raised, if it raised.
    """

    code = "projection_failed"
    fields: ClassVar[tuple[str, ...]] = ("projection", "event_id")

    def __init__(self, projection: str, event_id: int, what: str) -> None:
        super().__init__(f"projection {projection} at event {event_id}: {what}")
        self.projection = projection
        self.event_id = event_id


class ConflictError(ExoStreamError):
    """A precondition did not hold, so nothing was written.

    ``version`` is the sequence of the last write of ``key``; 0 if the key is absent.
    """

    code = "conflict"
    fields: ClassVar[tuple[str, ...]] = ("key", "version")

    def __init__(self, key: bytes, version: int) -> None:
        state = f"is at version {version}" if version else "is absent"
        super().__init__(f"key {key!r} {state}")
        self.key = key
        self.version = version


class BatchEvictedError(ExoStreamError):
    """The cursor points below what retention kept; resume from ``oldest_retained``, knowingly."""

    code = "batch_evicted"
    fields: ClassVar[tuple[str, ...]] = ("oldest_retained",)

    def __init__(self, oldest_retained: int) -> None:
        super().__init__(f"evicted: the oldest retained batch is {oldest_retained}")
        self.oldest_retained = oldest_retained


class CursorAheadError(ExoStreamError):
    """The cursor points past the log's end, as after an older backup was restored."""

    code = "cursor_ahead"
    fields: ClassVar[tuple[str, ...]] = ("frontier",)

    def __init__(self, frontier: int) -> None:
        super().__init__(f"the cursor is ahead of the log, whose newest batch is {frontier}")
        self.frontier = frontier


class LogMismatchError(ExoStreamError):
    """The cursor belongs to another log; start again from a snapshot or the oldest batch."""

    code = "log_mismatch"
    fields: ClassVar[tuple[str, ...]] = ("log_id",)

    def __init__(self, log_id: str) -> None:
        super().__init__(f"the cursor is of another log; this one is {log_id}")
        self.log_id = log_id


class ProducerFencedError(ExoStreamError):
    """A later epoch of this producer has taken over; this one must stop."""

    code = "producer_fenced"
    fields: ClassVar[tuple[str, ...]] = ("current_epoch",)

    def __init__(self, current_epoch: int) -> None:
        super().__init__(f"the producer's current epoch is {current_epoch}")
        self.current_epoch = current_epoch


class ProducerGapError(ExoStreamError):
    """A contiguous producer skipped a number; send ``expected_seq`` first."""

    code = "producer_gap"
    fields: ClassVar[tuple[str, ...]] = ("expected_seq", "received_seq")

    def __init__(self, expected_seq: int, received_seq: int) -> None:
        super().__init__(f"expected seq {expected_seq}, received {received_seq}")
        self.expected_seq = expected_seq
        self.received_seq = received_seq


class UnsupportedError(ExoStreamError):
    """What was asked needs something this backend or face does not have; the text names it."""

    code = "unsupported"


class NotVisibleYetError(ExoStreamError):
    """The read asked for ``required``, which is above the ``frontier``; nothing was read."""

    code = "not_visible_yet"
    retryable = True
    fields: ClassVar[tuple[str, ...]] = ("frontier", "required")

    def __init__(self, frontier: int, required: int) -> None:
        super().__init__(f"sequence {required} is required, the frontier is at {frontier}")
        self.frontier = frontier
        self.required = required


class SnapshotExpiredError(ExoStreamError):
    """The snapshot was held longer than allowed, or too many are held; begin again."""

    code = "snapshot_expired"
    retryable = True


class OverloadedError(ExoStreamError):
    """A budget of memory, connections or time is used up; try again later."""

    code = "overloaded"
    retryable = True


class StoreError(ExoStreamError):
    """The database refused; nothing of the write was kept."""

    code = "store_failed"
    retryable = True


class StoreFullError(StoreError):
    """There is no space for writes; nothing was tried, and reads go on."""

    code = "store_full"


class OutcomeUnknownError(ExoStreamError):
    """The write may or may not have taken effect; a retry as the same producer tells which."""

    code = "outcome_unknown"
    retryable = True


class PlatformClosedError(ExoStreamError):
    """The platform stopped before it answered; a write in flight may or may not be durable."""

    code = "platform_closed"
    retryable = True


class UnavailableError(ExoStreamError):
    """The server could not be reached, or is not exo-stream."""

    code = "unavailable"
    retryable = True


class FileInUseError(ExoStreamError):
    """Another process, or this one, has the file open; ``pid`` names it, 0 if unknown."""

    code = "file_in_use"
    fields: ClassVar[tuple[str, ...]] = ("pid",)

    def __init__(self, path: str, pid: int) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"{path} is in use by {holder}")
        self.pid = pid


class ForeignFileError(ExoStreamError):
    """The file is not an exo-stream file, or of a newer format; it was left untouched."""

    code = "foreign_file"


class CorruptionError(ExoStreamError):
    """What is on disk contradicts itself; nothing was changed. Restore, or repair by hand."""

    code = "corruption"


class EventGapError(CorruptionError):
    """``missing`` events from ``event_id`` on should be there and are not; none was passed over.

    Whoever reads from behind them gets the rest. Restore, and rebuild what was made of them.
    """

    code = "event_gap"
    fields: ClassVar[tuple[str, ...]] = ("event_id", "missing")

    def __init__(self, event_id: int, missing: int) -> None:
        last = event_id + missing - 1
        what = f"event {event_id} is" if missing == 1 else f"events {event_id} to {last} are"
        super().__init__(f"{what} missing, though later ones were given an id")
        self.event_id = event_id
        self.missing = missing


class LocalProtocolError(ExoStreamError):
    """We tried to say something the protocol forbids here: a bug on our side."""

    code = "local_protocol_error"


class RemoteProtocolError(ExoStreamError):
    """The peer said something the protocol forbids here; its connection is closed."""

    code = "remote_protocol_error"
