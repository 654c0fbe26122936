"""Writes to the store: what may be asked, and how one is decided."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeGuard, assert_never

from exo_stream.decision import (
    UNKNOWN,
    Answer,
    Decision,
    Need,
    Refuse,
    Unknown,
    Verdict,
    View,
    Write,
)
from exo_stream.errors import (
    ConflictError,
    InvalidRequestError,
    LimitExceededError,
    UnsupportedError,
)
from exo_stream.limits import STORE_KEY_BYTES_MAX, Limits
from exo_stream.model import SEQUENCE_MAX, Entry, Keyspace
from exo_stream.payload import ENTRY_BYTES, encode_body, encode_entries, join_bodies, prepend
from exo_stream.producers import Accepted, Duplicate, Producer, Rejected, judge

Requirement = int | Literal["absent", "present"]
"""What must hold of a key: it is absent, it is present, or its version is this number."""

STEP_ENTRIES_MAX: Final = 8_192
"""Entries that are checked and encoded in one go: about five milliseconds."""

_new_entry: Final[Callable[[type[Entry], tuple[int, bytes, bytes]], Entry]] = tuple.__new__
"""``Entry`` itself is a Python function; this is half of a put's way in."""


@dataclass(frozen=True, slots=True)
class StoreWrite:
    """One atomic write of puts and deletes, checked, under preconditions, by a producer or not.

    Within a batch the entries stand in the order given; of the same key the last one wins.
    """

    entries: tuple[Entry, ...]
    payload: bytes
    require: Mapping[bytes, Requirement] = field(default_factory=dict)
    producer: Producer | None = None

    @property
    def size(self) -> int:
        """Bytes it holds while it waits to be written, so that many tiny entries count too."""
        return len(self.payload) + ENTRY_BYTES * len(self.entries)


class LargeWrite:
    """A write of many entries on its way to be checked and encoded, a few milliseconds a step.

    A million entries take a second, in which others may have their turn.
    """

    def __init__(
        self,
        limits: Limits,
        items: tuple[Sequence[tuple[bytes, bytes]], Sequence[bytes]],
        requirements: Mapping[bytes, Requirement],
        producer: Producer | None,
    ) -> None:
        self._limits = limits
        self._puts, self._deletes = items
        self._requirements = requirements
        self._producer = producer
        self._entries: list[Entry] = []
        self._bodies: list[bytes] = []
        self._payload_bytes = 0

    def step(self) -> StoreWrite | LargeWrite:
        """Go on; the write when it is whole. Raises as ``checked_write`` does."""
        start = len(self._entries)
        if start < len(self._puts):
            more = _put_entries(self._puts[start : start + STEP_ENTRIES_MAX])
        else:
            start -= len(self._puts)
            more = _delete_entries(self._deletes[start : start + STEP_ENTRIES_MAX])
        self._payload_bytes = _check_sizes(more, self._payload_bytes, self._limits)
        self._bodies.append(encode_body(more))
        self._entries += more
        if len(self._entries) < len(self._puts) + len(self._deletes):
            return self
        payload = join_bodies(len(self._entries), self._bodies)
        return StoreWrite(tuple(self._entries), payload, self._requirements, self._producer)


def begin_write(
    limits: Limits,
    *,
    puts: Iterable[tuple[bytes, bytes]] = (),
    deletes: Iterable[bytes] = (),
    require: Mapping[bytes, Requirement] | None = None,
    producer: Producer | None = None,
) -> StoreWrite | LargeWrite:
    """``checked_write``, or its beginning if it has many entries; what is asked is taken over."""
    try:
        pairs = list(puts)
    except TypeError:
        raise InvalidRequestError("puts are pairs of a key and a value, both bytes") from None
    keys = _listed(deletes) if deletes != () else []
    count = len(pairs) + len(keys)
    if not count:
        raise InvalidRequestError("a batch needs at least one entry")
    if count > limits.batch_entries_max:
        raise LimitExceededError("batch_entries_max", limits.batch_entries_max, count)
    requirements = {} if require is None else _checked_requirements(require)
    if producer is not None:
        if not isinstance(producer, Producer):
            raise InvalidRequestError("a producer is an exo_stream.Producer")
        producer.check()
    if count > STEP_ENTRIES_MAX:
        return LargeWrite(limits, (pairs, keys), requirements, producer)
    entries = _put_entries(pairs)
    if keys:
        entries += _delete_entries(keys)
    _check_sizes(entries, 0, limits)
    return StoreWrite(tuple(entries), encode_entries(entries), requirements, producer)


def checked_write(
    limits: Limits,
    *,
    puts: Iterable[tuple[bytes, bytes]] = (),
    deletes: Iterable[bytes] = (),
    require: Mapping[bytes, Requirement] | None = None,
    producer: Producer | None = None,
) -> StoreWrite:
    """The write that was asked, its batch encoded.

    Raises InvalidRequestError or LimitExceededError, which name what is wrong with which part.
    """
    write = begin_write(limits, puts=puts, deletes=deletes, require=require, producer=producer)
    while isinstance(write, LargeWrite):
        write = write.step()
    return write


def _listed(deletes: Iterable[bytes]) -> list[bytes]:
    if isinstance(deletes, bytes | str):
        raise InvalidRequestError("deletes are several keys, not one")
    try:
        return list(deletes)
    except TypeError:
        raise InvalidRequestError("deletes are keys") from None


def _check_sizes(entries: Iterable[Entry], payload_bytes: int, limits: Limits) -> int:
    """The bytes of a batch so far, these entries included."""
    for _, key, value in entries:
        key_bytes, value_bytes = len(key), 0 if value is None else len(value)
        if key_bytes > STORE_KEY_BYTES_MAX:
            raise LimitExceededError("key_bytes_max", STORE_KEY_BYTES_MAX, key_bytes)
        if value_bytes > limits.value_bytes_max:
            raise LimitExceededError("value_bytes_max", limits.value_bytes_max, value_bytes)
        payload_bytes += key_bytes + value_bytes
    if payload_bytes > limits.batch_bytes_max:
        raise LimitExceededError("batch_bytes_max", limits.batch_bytes_max, payload_bytes)
    return payload_bytes


def _put_entries(puts: Iterable[tuple[bytes, bytes]]) -> list[Entry]:
    store = int(Keyspace.STORE)
    entries: list[Entry] = []
    try:
        for key, value in puts:
            if type(key) is not bytes or type(value) is not bytes:
                raise InvalidRequestError("keys and values are bytes")
            entries.append(_new_entry(Entry, (store, key, value)))
    except (TypeError, ValueError):
        raise InvalidRequestError("puts are pairs of a key and a value, both bytes") from None
    return entries


def _delete_entries(keys: Sequence[bytes]) -> list[Entry]:
    check_keys(keys)
    return [Entry(Keyspace.STORE, key, None) for key in keys]


def check_keys(keys: Sequence[bytes]) -> None:
    """Raise InvalidRequestError unless all of ``keys`` can be keys of the store."""
    for key in keys:
        if type(key) is not bytes:
            raise InvalidRequestError("keys are bytes")
        if len(key) > STORE_KEY_BYTES_MAX:
            raise LimitExceededError("key_bytes_max", STORE_KEY_BYTES_MAX, len(key))


def _checked_requirements(
    require: Mapping[bytes, Requirement],
) -> Mapping[bytes, Requirement]:
    if not isinstance(require, Mapping):
        raise InvalidRequestError("require maps keys to 'absent', 'present' or a version")
    check_keys(list(require))
    for requirement in require.values():
        if requirement not in ("absent", "present") and not _is_version(requirement):
            raise InvalidRequestError("a requirement is 'absent', 'present' or a version")
    return dict(require)


def _is_version(requirement: Requirement) -> TypeGuard[int]:
    return type(requirement) is int and 0 <= requirement <= SEQUENCE_MAX


def decision(write: StoreWrite) -> Decision[int]:
    """How ingest decides on ``write``; its answer is the batch's sequence number.

    A duplicate of a producer's write is answered before the preconditions are looked at: they
    were met when it took effect, and it has changed what they ask about.
    """

    def decide(view: View, now: int) -> Verdict[int]:
        if write.producer is None and not write.require:
            return Write(write.entries, view.sequence, write.payload)
        hidden: tuple[Entry, ...] = ()
        if write.producer is not None:
            match judge(write.producer, view, now):
                case Need() as need:
                    return need
                case Duplicate(sequence):
                    return Answer(sequence)
                case Rejected(error):
                    return Refuse(error)
                case Accepted(entries):
                    hidden = entries
                case unreachable:
                    assert_never(unreachable)
        objection = _objection(write.require, view)
        if objection is not None:
            return objection
        payload = prepend(hidden, write.payload) if hidden else write.payload
        return Write((*hidden, *write.entries), view.sequence, payload)

    return decide


def _objection(require: Mapping[bytes, Requirement], view: View) -> Need | Refuse | None:
    versions = {key: view.version(Keyspace.STORE, key) for key in require}
    unknown = [(int(Keyspace.STORE), key) for key, found in versions.items() if found is UNKNOWN]
    if unknown:
        return Need(versions=unknown)
    for key, version in versions.items():
        assert not isinstance(version, Unknown)
        if not _holds(require[key], version):
            return Refuse(ConflictError(key, version))
    return None


def _holds(requirement: Requirement, version: int) -> bool:
    if requirement == "absent":
        return version == 0
    if requirement == "present":
        return version != 0
    return requirement == version


def unsupported_write(write: StoreWrite) -> UnsupportedError | None:
    """Why a backend with only the nine methods cannot do this write; None if it can."""
    has_only = "this backend has only the nine methods:"
    if write.producer is not None:
        return UnsupportedError(f"{has_only} it remembers no producers")
    if write.require:
        return UnsupportedError(f"{has_only} it tells no versions, so nothing can be required")
    if len({value is None for _, _, value in write.entries}) != 1:
        return UnsupportedError(f"{has_only} a batch is either puts or deletions")
    return None
