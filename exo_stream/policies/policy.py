"""A policy: a scope, and the rule that says what of it is kept. Values, and their checks.

Anybody may build any value; ``checked_policies`` takes all of a request at once, says what is
wrong with which field, and gives back what can be carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from exo_stream.errors import InvalidRequestError
from exo_stream.keys import (
    MAX_KEY_LEN,
    InvalidPrefixError,
    KeyCodec,
    MatchKey,
    payload_to_match,
)
from exo_stream.model import SEQUENCE_MAX

POLICIES_MAX: Final = 256
"""Of one request: each has its own regex, and reads its whole family of keys."""


class InvalidPolicyError(InvalidRequestError):
    """A policy breaks a rule; ``field`` is the path of what breaks it.

    It crosses the wire as the ``invalid_request`` it is.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class OrderEncoding(IntEnum):
    """How the bytes of an order capture compare; the integers are of exactly 8 bytes."""

    BYTES_ASC = 0
    U64_BE = 1
    I64_BE = 2


@dataclass(frozen=True, slots=True)
class OrderBy:
    """Which capture orders the keys of a group, least first."""

    capture_group: str
    encoding: OrderEncoding = OrderEncoding.BYTES_ASC


@dataclass(frozen=True, slots=True)
class KeysScope:
    """The keys of the table that match, grouped by captures of their payload.

    Without ``group_by`` they are all one group. The match key is of what follows ``prefix``.
    """

    match_key: MatchKey
    group_by: tuple[str, ...] = ()
    order_by: OrderBy | None = None
    prefix: bytes = b""


@dataclass(frozen=True, slots=True)
class SequenceScope:
    """The batches of the log, ordered by their sequence."""


@dataclass(frozen=True, slots=True)
class KeepLatest:
    """Keep the ``count`` greatest of each group; of equals, those with the greater keys."""

    count: int


@dataclass(frozen=True, slots=True)
class GreaterThan:
    """Keep what is greater than ``threshold``."""

    threshold: int


@dataclass(frozen=True, slots=True)
class GreaterThanOrEqual:
    """Keep what is ``threshold`` or greater."""

    threshold: int


@dataclass(frozen=True, slots=True)
class DropAll:
    """Keep nothing."""


Retain = KeepLatest | GreaterThan | GreaterThanOrEqual | DropAll


@dataclass(frozen=True, slots=True)
class Policy:
    """What ``retain`` does not keep of ``scope`` is pruned."""

    scope: KeysScope | SequenceScope
    retain: Retain


class Pattern(Protocol):
    """A compiled regex over bytes, of whatever engine; it must take linear time."""

    @property
    def names(self) -> Collection[str]:
        """The names of its capture groups."""

    def search(self, payload: bytes) -> Mapping[str, bytes | None] | None:
        """The first match's named captures, None each that took no part; None without a match."""


CompileRegex = Callable[[str], Pattern]
"""Raises InvalidRequestError with the reason if the text is no regex of the dialect."""


@dataclass(frozen=True, slots=True)
class KeysPolicy:
    """A checked policy for keys, its regex compiled."""

    codec: KeyCodec
    pattern: Pattern
    group_by: tuple[str, ...]
    order_by: OrderBy | None
    retain: Retain
    prefix: bytes = b""

    @property
    def family(self) -> tuple[bytes, KeyCodec]:
        """What no two policies of one request may share."""
        return self.prefix, self.codec

    @property
    def bounds(self) -> tuple[bytes, bytes]:
        """The first and the last key that can match, both inclusive."""
        first, last = self.codec.prefix_bounds()
        return self.prefix + first, (self.prefix + last)[:MAX_KEY_LEN]

    def payload(self, key: bytes) -> bytes | None:
        """What the regex is matched against; None in a key of another family."""
        if not key.startswith(self.prefix):
            return None
        return payload_to_match(self.codec, key[len(self.prefix) :])


@dataclass(frozen=True, slots=True)
class SequencePolicy:
    """A checked policy for the log; see ``retention.cutoff``."""

    retain: Retain


CheckedPolicy = KeysPolicy | SequencePolicy


def checked_policies(
    policies: Sequence[Policy], compile_regex: CompileRegex
) -> tuple[CheckedPolicy, ...]:
    """The policies of one request, to be carried out in this order.

    Raises InvalidPolicyError for the first rule that is broken.
    """
    if not isinstance(policies, Sequence):
        raise InvalidPolicyError("policies", "a list of policies is needed")
    if not policies:
        raise InvalidPolicyError("policies", "at least one policy is needed")
    if len(policies) > POLICIES_MAX:
        raise InvalidPolicyError("policies", f"there are at most {POLICIES_MAX} in one request")
    checked: list[CheckedPolicy] = []
    scopes: set[tuple[bytes, KeyCodec] | None] = set()
    for index, policy in enumerate(policies):
        field = f"policies[{index}]"
        one = _checked(policy, field, compile_regex)
        scope = one.family if isinstance(one, KeysPolicy) else None
        if scope in scopes:
            raise InvalidPolicyError(f"{field}.scope", "an earlier policy has the same scope")
        scopes.add(scope)
        checked.append(one)
    return tuple(checked)


def _checked(policy: Policy, field: str, compile_regex: CompileRegex) -> CheckedPolicy:
    if not isinstance(policy, Policy):
        raise InvalidPolicyError(field, "not a policy")
    check_retain(policy.retain, f"{field}.retain")
    match policy.scope:
        case SequenceScope():
            return SequencePolicy(policy.retain)
        case KeysScope() as scope:
            return _checked_keys(scope, policy.retain, field, compile_regex)
        case _:
            raise InvalidPolicyError(f"{field}.scope", "a scope is needed: keys or sequence")


def check_retain(retain: Retain, field: str) -> None:
    """Raise InvalidPolicyError unless ``retain`` is a rule and its number makes sense."""
    match retain:
        case DropAll():
            return
        case KeepLatest(count):
            check_u64(count, f"{field}.keep_latest.count", least=1)
        case GreaterThan(threshold):
            check_u64(threshold, f"{field}.greater_than.threshold")
        case GreaterThanOrEqual(threshold):
            check_u64(threshold, f"{field}.greater_than_or_equal.threshold")
        case _:
            raise InvalidPolicyError(field, "a rule is needed: what to keep")


def check_u64(number: int, field: str, *, least: int = 0) -> None:
    """Raise InvalidPolicyError unless ``number`` is an integer of 64 bits, at least ``least``."""
    if type(number) is not int or not least <= number <= SEQUENCE_MAX:
        raise InvalidPolicyError(field, f"an integer from {least} to 2**64 - 1 is needed")


_SOME_TEXT: Final = "text that is not blank is needed"


def _checked_keys(
    scope: KeysScope, retain: Retain, field: str, compile_regex: CompileRegex
) -> KeysPolicy:
    keys = f"{field}.keys"
    match_key = scope.match_key
    if not isinstance(match_key, MatchKey):
        raise InvalidPolicyError(f"{keys}.match_key", "a match key is needed")
    try:
        codec = match_key.codec
    except InvalidPrefixError as error:
        raise InvalidPolicyError(f"{keys}.match_key", str(error)) from None
    if type(scope.prefix) is not bytes or len(scope.prefix) + codec.min_key_len > MAX_KEY_LEN:
        problem = f"bytes are needed, at most {MAX_KEY_LEN} with the reserved bits"
        raise InvalidPolicyError(f"{keys}.prefix", problem)
    pattern = _compiled(match_key.payload_regex, f"{keys}.match_key.payload_regex", compile_regex)
    _check_group_by(scope.group_by, pattern, f"{keys}.group_by")
    _check_order_by(scope.order_by, pattern, f"{keys}.order_by")
    _check_order_suffices(scope.order_by, retain, f"{keys}.order_by")
    return KeysPolicy(codec, pattern, scope.group_by, scope.order_by, retain, scope.prefix)


def _compiled(regex: str, field: str, compile_regex: CompileRegex) -> Pattern:
    if type(regex) is not str or not regex.strip():
        raise InvalidPolicyError(field, _SOME_TEXT)
    try:
        return compile_regex(regex)
    except InvalidRequestError as error:
        raise InvalidPolicyError(field, str(error)) from error


def _check_group_by(names: tuple[str, ...], pattern: Pattern, field: str) -> None:
    if type(names) is not tuple:
        raise InvalidPolicyError(field, "a tuple of names of captures is needed")
    for index, name in enumerate(names):
        _check_capture(name, pattern, f"{field}[{index}]")
        if name in names[:index]:
            raise InvalidPolicyError(f"{field}[{index}]", f"{name!r} stands here twice")


def _check_order_by(order_by: OrderBy | None, pattern: Pattern, field: str) -> None:
    if order_by is None:
        return
    if not isinstance(order_by, OrderBy):
        raise InvalidPolicyError(field, "a capture and its encoding are needed")
    _check_capture(order_by.capture_group, pattern, f"{field}.capture_group")
    if not isinstance(order_by.encoding, OrderEncoding):
        raise InvalidPolicyError(f"{field}.encoding", f"{order_by.encoding!r} is no order encoding")


def _check_capture(name: str, pattern: Pattern, field: str) -> None:
    if name not in pattern.names:
        raise InvalidPolicyError(field, f"the regex has no capture named {name!r}")


def _check_order_suffices(order_by: OrderBy | None, retain: Retain, field: str) -> None:
    if isinstance(retain, KeepLatest) and order_by is None:
        raise InvalidPolicyError(field, "keep_latest needs an order")
    if isinstance(retain, GreaterThan | GreaterThanOrEqual) and (
        order_by is None or order_by.encoding is not OrderEncoding.U64_BE
    ):
        raise InvalidPolicyError(field, "a threshold needs an order in u64_be")
