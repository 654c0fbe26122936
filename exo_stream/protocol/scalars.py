"""Scalars in messages: ``[kind, value]``, null for a null; a group is its values and its results.

Decimals are signed big-endian bytes, since CBOR writes larger integers than 64 bits with a tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from exo_stream.errors import InvalidRequestError
from exo_stream.protocol.fields import ENTRIES_MAX, Sort
from exo_stream.reduce.request import ReduceGroup
from exo_stream.reduce.scalar import INTEGER_BITS, Kind, Scalar, check_scalar

_DECIMALS: Final = {kind: INTEGER_BITS[kind][0] // 8 for kind in (Kind.DECIMAL128, Kind.DECIMAL256)}


def _read_scalar(value: Any) -> Scalar | None:
    if value is None:
        return None
    if type(value) is not tuple or len(value) != 2 or type(value[0]) is not int:
        raise ValueError("not a scalar")
    kind, found = Kind(value[0]), value[1]
    if kind in _DECIMALS:
        if type(found) is not bytes or len(found) != _DECIMALS[kind]:
            raise ValueError("not a decimal")
        found = int.from_bytes(found, "big", signed=True)
    scalar = Scalar(kind, found)
    try:
        check_scalar(scalar, "scalar")
    except InvalidRequestError as error:
        raise ValueError(str(error)) from None
    return scalar


def _write_scalar(scalar: Scalar | None) -> object:
    if scalar is None:
        return None
    if scalar.kind in _DECIMALS:
        number = cast("int", scalar.value)  # its kind says so
        return [scalar.kind.value, number.to_bytes(_DECIMALS[scalar.kind], "big", signed=True)]
    return [scalar.kind.value, scalar.value]


def _read_scalars(value: Any) -> tuple[Scalar | None, ...]:
    return tuple(map(_read_scalar, _array(value)))


def _write_scalars(scalars: Sequence[Scalar | None]) -> list[object]:
    return [_write_scalar(scalar) for scalar in scalars]


def _read_groups(value: Any) -> tuple[ReduceGroup, ...]:
    return tuple(map(_read_group, _array(value)))


def _read_group(value: Any) -> ReduceGroup:
    if len(_array(value)) != 2:
        raise ValueError("not a group")
    return ReduceGroup(_read_scalars(value[0]), _read_scalars(value[1]))


def _write_groups(groups: Sequence[ReduceGroup]) -> list[list[list[object]]]:
    return [[_write_scalars(group.group_values), _write_scalars(group.results)] for group in groups]


def _array(value: Any) -> tuple[Any, ...]:
    if type(value) is not tuple or len(value) > ENTRIES_MAX:
        raise ValueError("not an array")
    return value


SCALARS: Final = Sort(_read_scalars, _write_scalars)
GROUPS: Final = Sort(_read_groups, _write_groups)
