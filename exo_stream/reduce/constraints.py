"""The fourteen constraints a field can be held against, and the filter they make together.

A row passes a constraint if the field has a value of the constraint's type that satisfies it; a
null, or a value of another type, does not pass, and is no error.
"""

from __future__ import annotations

from dataclasses import dataclass

from exo_stream.reduce.expressions import Field


@dataclass(frozen=True, slots=True)
class StringEq:
    """A UTF8 equal to ``value``."""

    value: str


@dataclass(frozen=True, slots=True)
class BoolEq:
    """A BOOLEAN equal to ``value``."""

    value: bool


@dataclass(frozen=True, slots=True)
class FixedSizeBinaryEq:
    """A FIXED_SIZE_BINARY equal to ``value``."""

    value: bytes


@dataclass(frozen=True, slots=True)
class IntRange:
    """An INT64, DATE32, DATE64 or TIMESTAMP between two bounds, both inclusive if given."""

    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class Uint64Range:
    """A UINT64 between two bounds, both inclusive if given."""

    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class FloatBound:
    """One end of a range of floats."""

    value: float
    inclusive: bool = True


@dataclass(frozen=True, slots=True)
class FloatRange:
    """A FLOAT64 between two bounds; a NaN is within no bound."""

    minimum: FloatBound | None = None
    maximum: FloatBound | None = None


@dataclass(frozen=True, slots=True)
class Decimal128Range:
    """A DECIMAL128 between two unscaled bounds, both inclusive if given."""

    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class Decimal256Range:
    """A DECIMAL256 between two unscaled bounds, both inclusive if given."""

    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class IsNull:
    """A null."""


@dataclass(frozen=True, slots=True)
class IsNotNull:
    """Any value but a null."""


@dataclass(frozen=True, slots=True)
class StringIn:
    """A UTF8 equal to one of ``values``."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IntIn:
    """An INT64, DATE32, DATE64 or TIMESTAMP equal to one of ``values``."""

    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Uint64In:
    """A UINT64 equal to one of ``values``."""

    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FixedSizeBinaryIn:
    """A FIXED_SIZE_BINARY equal to one of ``values``."""

    values: tuple[bytes, ...]


Constraint = (
    StringEq
    | BoolEq
    | FixedSizeBinaryEq
    | IntRange
    | Uint64Range
    | FloatRange
    | Decimal128Range
    | IsNull
    | IsNotNull
    | StringIn
    | IntIn
    | Uint64In
    | FixedSizeBinaryIn
    | Decimal256Range
)


@dataclass(frozen=True, slots=True)
class Check:
    """One field held against one constraint."""

    field: Field
    constraint: Constraint


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows count: those that pass all checks; with ``contradiction``, none."""

    checks: tuple[Check, ...] = ()
    contradiction: bool = False
