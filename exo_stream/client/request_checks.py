"""What a caller asks, checked before it travels: a wrong type would break the protocol instead.

The server checks again, and more: what is only too large, or not allowed there, it answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from exo_stream.errors import InvalidRequestError
from exo_stream.model import SEQUENCE_MAX
from exo_stream.writes import Requirement, check_keys


def checked_puts(puts: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """The pairs to put. Raises InvalidRequestError for anything else."""
    try:
        pairs = tuple([(key, value) for key, value in puts])
    except (TypeError, ValueError):
        raise InvalidRequestError("puts are pairs of a key and a value, both bytes") from None
    if not {type(part) for pair in pairs for part in pair} <= {bytes}:
        raise InvalidRequestError("keys and values are bytes")
    return pairs


def checked_keys(keys: Iterable[bytes]) -> tuple[bytes, ...]:
    """Several keys. Raises InvalidRequestError for anything else."""
    if isinstance(keys, bytes | str):
        raise InvalidRequestError("these are several keys, not one")
    try:
        checked = tuple(keys)
    except TypeError:
        raise InvalidRequestError("these are several keys") from None
    check_keys(checked)
    return checked


def checked_requirements(
    require: Mapping[bytes, Requirement] | None,
) -> Mapping[bytes, Requirement]:
    """Preconditions by key. Raises InvalidRequestError for anything else."""
    if require is None:
        return {}
    if not isinstance(require, Mapping):
        raise InvalidRequestError("require maps keys to 'absent', 'present' or a version")
    check_keys(list(require))
    for requirement in require.values():
        if requirement not in ("absent", "present"):
            checked_count(requirement)
    return dict(require)


def checked_count(number: object) -> None:
    """Raise InvalidRequestError unless it is an unsigned 64-bit integer."""
    if type(number) is not int or not 0 <= number <= SEQUENCE_MAX:
        raise InvalidRequestError(f"{number!r} is no unsigned 64-bit integer")
