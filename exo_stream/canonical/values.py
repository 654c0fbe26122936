"""Typed values: bounded integers, texts, sets and lists, each with one encoding and no other.

The encoding is a tag byte and a body. The body of an integer is big-endian at full width, its
sign bit flipped if it is signed, so that bytes sort as numbers do. A set or a list names the tag
of its elements, then has each element's body behind its length; a set has them sorted, each once.
So equal values have equal bytes, on every machine, and ``decode`` refuses all others.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Final, Self, TypeVar

from exo_stream.errors import InvalidRequestError, InvalidStateError, SerializationError

V = TypeVar("V", bound="TypedValue")

_LENGTH_BYTES: Final = 4


class TypedValue(ABC):
    """A value of the state that knows its type.

    ``as_...`` gives what is in it, and raises InvalidStateError for a value of another type.
    """

    __slots__ = ()
    TAG: ClassVar[int]
    NAME: ClassVar[str]

    @abstractmethod
    def body(self) -> bytes:
        """The encoding without its tag."""

    @classmethod
    @abstractmethod
    def parse(cls, body: bytes) -> Self:
        """The value with this body. Raises SerializationError for any other body."""

    def as_integer(self) -> int:
        """The number in any integer."""
        return self._as(Integer).value

    def as_i64(self) -> int:
        """The number in an ``I64``."""
        return self._as(I64).value

    def as_u64(self) -> int:
        """The number in a ``U64``."""
        return self._as(U64).value

    def as_u128(self) -> int:
        """The number in a ``U128``."""
        return self._as(U128).value

    def as_u256(self) -> int:
        """The number in a ``U256``."""
        return self._as(U256).value

    def as_i256(self) -> int:
        """The number in an ``I256``."""
        return self._as(I256).value

    def as_bytes(self) -> bytes:
        """What is in ``Bytes``."""
        return self._as(Bytes).value

    def as_string(self) -> str:
        """What is in a ``String``."""
        return self._as(String).value

    def as_set(self) -> frozenset[TypedValue]:
        """The elements of a ``SetOf``."""
        return self._as(SetOf).items

    def as_list(self) -> tuple[TypedValue, ...]:
        """The elements of a ``ListOf``."""
        return self._as(ListOf).items

    def _as(self, kind: type[V]) -> V:
        if not isinstance(self, kind):
            raise InvalidStateError(f"this is a value of type {self.NAME}, not {kind.NAME}")
        return self


@dataclass(frozen=True, slots=True, order=True)
class Integer(TypedValue):
    """A number within the bounds of its type; what does not fit raises InvalidRequestError.

    ``checked_...`` answers None where the result does not fit, as where a balance would wrap.
    """

    NAME: ClassVar[str] = "integer"
    BITS: ClassVar[int]
    SIGNED: ClassVar[bool] = False

    value: int

    def __post_init__(self) -> None:
        if type(self.value) is not int:
            raise InvalidRequestError(f"{self.NAME} is made from an int")
        if not self._fits(self.value):
            raise InvalidRequestError(f"{self.value} does not fit into {self.NAME}")

    @classmethod
    def minimum(cls) -> Self:
        """The least number of this type."""
        return cls(-(1 << (cls.BITS - 1)) if cls.SIGNED else 0)

    @classmethod
    def maximum(cls) -> Self:
        """The greatest number of this type."""
        return cls((1 << (cls.BITS - cls.SIGNED)) - 1)

    def checked_add(self, other: Self) -> Self | None:
        """The sum, None if it does not fit."""
        return self._checked(self.value + self._same(other))

    def checked_sub(self, other: Self) -> Self | None:
        """The difference, None if it does not fit."""
        return self._checked(self.value - self._same(other))

    def checked_mul(self, other: Self) -> Self | None:
        """The product, None if it does not fit."""
        return self._checked(self.value * self._same(other))

    def _same(self, other: Self) -> int:
        if type(other) is not type(self):
            raise InvalidStateError(f"{self.NAME} is reckoned with its like only")
        return other.value

    def _checked(self, result: int) -> Self | None:
        return type(self)(result) if self._fits(result) else None

    @classmethod
    def _fits(cls, value: int) -> bool:
        return 0 <= value + cls._offset() < 1 << cls.BITS

    @classmethod
    def _offset(cls) -> int:
        return 1 << (cls.BITS - 1) if cls.SIGNED else 0

    def body(self) -> bytes:
        """Big-endian at full width, the sign bit flipped."""
        return (self.value + self._offset()).to_bytes(self.BITS // 8, "big")

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """The number with this body."""
        if len(body) != cls.BITS // 8:
            raise SerializationError(f"{cls.NAME} has {cls.BITS // 8} bytes, not {len(body)}")
        return cls(int.from_bytes(body, "big") - cls._offset())


class I64(Integer):
    """A signed 64-bit integer."""

    __slots__ = ()
    TAG, NAME, BITS, SIGNED = 0x01, "i64", 64, True


class U64(Integer):
    """An unsigned 64-bit integer."""

    __slots__ = ()
    TAG, NAME, BITS = 0x02, "u64", 64


class U128(Integer):
    """An unsigned 128-bit integer."""

    __slots__ = ()
    TAG, NAME, BITS = 0x03, "u128", 128


class U256(Integer):
    """An unsigned 256-bit integer."""

    __slots__ = ()
    TAG, NAME, BITS = 0x04, "u256", 256


class I256(Integer):
    """A signed 256-bit integer."""

    __slots__ = ()
    TAG, NAME, BITS, SIGNED = 0x05, "i256", 256, True


@dataclass(frozen=True, slots=True)
class Bytes(TypedValue):
    """Any bytes; also the way to keep JSON."""

    TAG: ClassVar[int] = 0x10
    NAME: ClassVar[str] = "bytes"

    value: bytes

    def __post_init__(self) -> None:
        if type(self.value) is not bytes:
            raise InvalidRequestError("bytes are made from bytes")

    @classmethod
    def from_json(cls, value: object) -> Self:
        """JSON in one form: keys sorted, no space, UTF-8. Raises SerializationError."""
        try:
            text = json.dumps(
                value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
            )
            return cls(text.encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise SerializationError(f"this cannot be written as JSON: {error}") from error

    def to_json(self) -> object:
        """What the JSON in it says. Raises SerializationError if it is none."""
        try:
            return json.loads(self.value)
        except (ValueError, RecursionError) as error:
            raise SerializationError(f"these bytes are no JSON: {error}") from error

    def body(self) -> bytes:
        """The bytes."""
        return self.value

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """The bytes."""
        return cls(body)


@dataclass(frozen=True, slots=True)
class String(TypedValue):
    """A text."""

    TAG: ClassVar[int] = 0x11
    NAME: ClassVar[str] = "string"

    value: str

    def __post_init__(self) -> None:
        if type(self.value) is not str:
            raise InvalidRequestError("a string is made from a str")
        try:
            self.value.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError("a string has no lone surrogates") from error

    def body(self) -> bytes:
        """UTF-8."""
        return self.value.encode()

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """The text."""
        try:
            return cls(body.decode())
        except UnicodeDecodeError as error:
            raise SerializationError("a string is UTF-8") from error


@dataclass(frozen=True, slots=True)
class SetOf(TypedValue):
    """A set of scalars of one type; it never changes, each operation answers another one."""

    TAG: ClassVar[int] = 0x20
    NAME: ClassVar[str] = "set"

    kind: type[TypedValue]
    items: frozenset[TypedValue] = frozenset()

    def __post_init__(self) -> None:
        _check_elements(self.kind, self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __contains__(self, item: object) -> bool:
        return item in self.items

    def insert(self, item: TypedValue) -> tuple[SetOf, bool]:
        """The set with ``item``, and whether that is new."""
        return SetOf(self.kind, self.items | {item}), item not in self.items

    def remove(self, item: TypedValue) -> tuple[SetOf, bool]:
        """The set without ``item``, and whether it was there."""
        return SetOf(self.kind, self.items - {item}), item in self.items

    def body(self) -> bytes:
        """The tag of the elements, then each behind its length, sorted."""
        return _encode_elements(self.kind, sorted(item.body() for item in self.items))

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """The set with this body."""
        kind, elements = _parse_elements(body)
        if any(first >= second for first, second in pairwise(elements)):
            raise SerializationError("the elements of a set are sorted, each there once")
        return cls(kind, frozenset(kind.parse(element) for element in elements))


@dataclass(frozen=True, slots=True)
class ListOf(TypedValue):
    """A list of scalars of one type; it never changes, each operation answers another one."""

    TAG: ClassVar[int] = 0x21
    NAME: ClassVar[str] = "list"

    kind: type[TypedValue]
    items: tuple[TypedValue, ...] = ()

    def __post_init__(self) -> None:
        _check_elements(self.kind, self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[TypedValue]:
        return iter(self.items)

    def push(self, item: TypedValue) -> ListOf:
        """The list with ``item`` at its end."""
        return ListOf(self.kind, (*self.items, item))

    def insert(self, at: int, item: TypedValue) -> ListOf:
        """The list with ``item`` before element ``at``; ``at`` is 0 to its length."""
        if type(at) is not int or not 0 <= at <= len(self.items):
            raise InvalidStateError(f"there is no place {at} in a list of {len(self.items)}")
        return ListOf(self.kind, (*self.items[:at], item, *self.items[at:]))

    def pop(self) -> tuple[ListOf, TypedValue | None]:
        """The list without its last element, and that element; None from an empty list."""
        last = self.items[-1] if self.items else None
        return ListOf(self.kind, self.items[:-1]), last

    def body(self) -> bytes:
        """The tag of the elements, then each behind its length."""
        return _encode_elements(self.kind, [item.body() for item in self.items])

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """The list with this body."""
        kind, elements = _parse_elements(body)
        return cls(kind, tuple(kind.parse(element) for element in elements))


SCALARS: Final[dict[int, type[TypedValue]]] = {
    kind.TAG: kind for kind in (I64, U64, U128, U256, I256, Bytes, String)
}
"""What may stand in a set or a list."""

_KINDS: Final[dict[int, type[TypedValue]]] = {**SCALARS, SetOf.TAG: SetOf, ListOf.TAG: ListOf}
_TYPES: Final = frozenset(_KINDS.values())


def encode(value: TypedValue) -> bytes:
    """The one encoding of ``value``."""
    if type(value) not in _TYPES:
        raise InvalidRequestError(f"{value!r} is no typed value")
    return bytes([value.TAG]) + value.body()


def decode(data: bytes) -> TypedValue:
    """The value that ``encode`` made these bytes from. Raises SerializationError for others."""
    kind = _KINDS.get(data[0]) if data else None
    if kind is None:
        raise SerializationError("these bytes are no typed value")
    return kind.parse(data[1:])


def _check_elements(kind: type[TypedValue], items: object) -> None:
    if kind not in SCALARS.values():
        raise InvalidRequestError("the elements of a set or a list are scalars of one type")
    if not isinstance(items, frozenset | tuple):
        raise InvalidRequestError("elements come as a frozenset or a tuple")
    if any(type(item) is not kind for item in items):
        raise InvalidStateError(f"every element here is of type {kind.NAME}")


def _encode_elements(kind: type[TypedValue], bodies: list[bytes]) -> bytes:
    pieces = [bytes([kind.TAG])]
    for body in bodies:
        pieces += (len(body).to_bytes(_LENGTH_BYTES, "big"), body)
    return b"".join(pieces)


def _parse_elements(body: bytes) -> tuple[type[TypedValue], list[bytes]]:
    kind = SCALARS.get(body[0]) if body else None
    if kind is None:
        raise SerializationError("a set or a list names the type of its elements")
    elements: list[bytes] = []
    at = 1
    while at < len(body):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(body[at:start], "big")
        if at > len(body) or start > len(body):
            raise SerializationError("an element ends behind the value it is in")
        elements.append(body[start:at])
    return kind, elements
