"""The written form of policies and of the log's retention: JSON, with the fields' own names.

    {"version": 1, "policies": [{"keys": {"match_key": {"reserved_bits": 4, "prefix": 5,
      "payload_regex": "(?s-u)^(?P<id>.{4})"}, "group_by": ["id"],
      "order_by": {"capture_group": "id", "encoding": "u64_be"}}, "retain": {"keep_latest":
      {"count": 3}}}, {"sequence": {}, "retain": {"drop_all": {}}}]}
    {"version": 1, "retention": {"retain": {"keep_latest": {"count": 3}}, "bytes_max": 4096}}

An empty document is one without policies or rules. Reading checks the form and the numbers that
stand alone; what needs the regex is left to ``checked_policies``. A field nobody knows is refused,
since a rule that is half understood may delete too much.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Final, assert_never

from exo_stream.documents import parsed
from exo_stream.keys import MatchKey
from exo_stream.limits import MIB
from exo_stream.policies import policy as p
from exo_stream.policies.retention import LogRetention

VERSION: Final = 1
"""Of the form; a document of another one is refused."""

DOCUMENT_BYTES_MAX: Final = MIB
"""As many policies as there may be have room in it, each with a regex of ordinary length."""

_RULES: Final = ("keep_latest", "greater_than", "greater_than_or_equal", "drop_all")
_BASE64: Final = "base64:"
"""Begins a text that stands for bytes which are not UTF-8, as on the command line."""
_ENCODINGS: Final = {encoding.name.lower(): encoding for encoding in p.OrderEncoding}


def encode_policies(policies: Sequence[p.Policy]) -> bytes:
    """The policies as a document; of none, the empty one."""
    if not policies:
        return b""
    return _dump({"policies": [_policy_fields(policy) for policy in policies]})


def decode_policies(document: bytes) -> tuple[p.Policy, ...]:
    """The policies that ``document`` holds.

    Raises InvalidPolicyError for any bytes that are no such document, and never another exception.
    """
    if not document:
        return ()
    fields = _load(document, "policies")
    policies = _list(fields["policies"], "policies")
    return tuple(_policy(one, f"policies[{index}]") for index, one in enumerate(policies))


def encode_retention(retention: LogRetention) -> bytes:
    """The rules as a document; of none, the empty one."""
    if retention == LogRetention():
        return b""
    fields: dict[str, object] = {}
    if retention.retain is not None:
        fields["retain"] = _retain_fields(retention.retain)
    if retention.seconds_max is not None:
        fields["seconds_max"] = retention.seconds_max
    if retention.bytes_max is not None:
        fields["bytes_max"] = retention.bytes_max
    return _dump({"retention": fields})


def decode_retention(document: bytes) -> LogRetention:
    """The rules that ``document`` holds, checked.

    Raises InvalidPolicyError for any bytes that are no such document, and never another exception.
    """
    if not document:
        return LogRetention()
    field = "retention"
    optional = ("retain", "seconds_max", "bytes_max")
    fields = _object(_load(document, field)[field], field, optional=optional)
    bounds = {
        name: _number(fields[name], f"{field}.{name}")
        for name in ("seconds_max", "bytes_max")
        if name in fields
    }
    retain = _retain(fields["retain"], f"{field}.retain") if "retain" in fields else None
    retention = LogRetention(retain, **bounds)
    retention.check()
    return retention


def _dump(fields: dict[str, object]) -> bytes:
    return json.dumps({"version": VERSION, **fields}, separators=(",", ":")).encode()


def _load(document: bytes, name: str) -> Mapping[str, object]:
    if len(document) > DOCUMENT_BYTES_MAX:
        raise p.InvalidPolicyError(name, f"a document has at most {DOCUMENT_BYTES_MAX} bytes")
    try:
        read = parsed(document)
    except ValueError as error:
        raise p.InvalidPolicyError(name, f"not a document: {error}") from None
    fields = _object(read, name, required=("version", name))
    if _number(fields["version"], "version") != VERSION:
        raise p.InvalidPolicyError("version", f"version {fields['version']} is unknown")
    return fields


def _policy_fields(policy: p.Policy) -> dict[str, object]:
    retain = _retain_fields(policy.retain)
    match policy.scope:
        case p.SequenceScope():
            return {"sequence": {}, "retain": retain}
        case p.KeysScope() as scope:
            return {"keys": _keys_fields(scope), "retain": retain}
        case unreachable:
            assert_never(unreachable)


def _policy(value: object, field: str) -> p.Policy:
    fields = _object(value, field, required=("retain",), optional=("keys", "sequence"))
    retain = _retain(fields["retain"], f"{field}.retain")
    if ("keys" in fields) == ("sequence" in fields):
        raise p.InvalidPolicyError(field, "one scope is needed: keys or sequence")
    if "keys" in fields:
        return p.Policy(_keys_scope(fields["keys"], f"{field}.keys"), retain)
    _object(fields["sequence"], f"{field}.sequence")
    return p.Policy(p.SequenceScope(), retain)


def _keys_fields(scope: p.KeysScope) -> dict[str, object]:
    match_key = scope.match_key
    fields: dict[str, object] = {
        "match_key": {
            "reserved_bits": match_key.reserved_bits,
            "prefix": match_key.prefix,
            "payload_regex": match_key.payload_regex,
        }
    }
    if scope.prefix:
        fields["prefix"] = _bytes_text(scope.prefix)
    if scope.group_by:
        fields["group_by"] = list(scope.group_by)
    if scope.order_by is not None:
        fields["order_by"] = {
            "capture_group": scope.order_by.capture_group,
            "encoding": scope.order_by.encoding.name.lower(),
        }
    return fields


def _keys_scope(value: object, field: str) -> p.KeysScope:
    optional = ("prefix", "group_by", "order_by")
    fields = _object(value, field, required=("match_key",), optional=optional)
    group_by = _list(fields.get("group_by", []), f"{field}.group_by")
    return p.KeysScope(
        _match_key(fields["match_key"], f"{field}.match_key"),
        tuple(_text(name, f"{field}.group_by[{index}]") for index, name in enumerate(group_by)),
        _order_by(fields["order_by"], f"{field}.order_by") if "order_by" in fields else None,
        _bytes(fields.get("prefix", ""), f"{field}.prefix"),
    )


def _match_key(value: object, field: str) -> MatchKey:
    fields = _object(value, field, required=("reserved_bits", "prefix", "payload_regex"))
    return MatchKey(
        _number(fields["reserved_bits"], f"{field}.reserved_bits"),
        _number(fields["prefix"], f"{field}.prefix"),
        _text(fields["payload_regex"], f"{field}.payload_regex"),
    )


def _order_by(value: object, field: str) -> p.OrderBy:
    fields = _object(value, field, required=("capture_group",), optional=("encoding",))
    name = _text(fields.get("encoding", "bytes_asc"), f"{field}.encoding")
    if name not in _ENCODINGS:
        raise p.InvalidPolicyError(f"{field}.encoding", f"one of {', '.join(_ENCODINGS)} is needed")
    return p.OrderBy(_text(fields["capture_group"], f"{field}.capture_group"), _ENCODINGS[name])


def _retain_fields(retain: p.Retain) -> dict[str, object]:
    match retain:
        case p.KeepLatest(count):
            return {"keep_latest": {"count": count}}
        case p.GreaterThan(threshold):
            return {"greater_than": {"threshold": threshold}}
        case p.GreaterThanOrEqual(threshold):
            return {"greater_than_or_equal": {"threshold": threshold}}
        case p.DropAll():
            return {"drop_all": {}}
        case unreachable:
            assert_never(unreachable)


def _retain(value: object, field: str) -> p.Retain:
    fields = _object(value, field, optional=_RULES)
    if len(fields) != 1:
        raise p.InvalidPolicyError(field, f"one rule is needed: {', '.join(_RULES)}")
    ((name, rule),) = fields.items()
    where = f"{field}.{name}"
    retain = _rule(name, rule, where)
    p.check_retain(retain, field)
    return retain


def _rule(name: str, value: object, field: str) -> p.Retain:
    if name == "drop_all":
        _object(value, field)
        return p.DropAll()
    if name == "keep_latest":
        count = _object(value, field, required=("count",))["count"]
        return p.KeepLatest(_number(count, f"{field}.count"))
    threshold = _object(value, field, required=("threshold",))["threshold"]
    number = _number(threshold, f"{field}.threshold")
    return p.GreaterThan(number) if name == "greater_than" else p.GreaterThanOrEqual(number)


def _object(
    value: object, field: str, *, required: Sequence[str] = (), optional: Sequence[str] = ()
) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise p.InvalidPolicyError(field, "an object is needed")
    for name in required:
        if name not in value:
            raise p.InvalidPolicyError(field, f"{name} is missing")
    for name in value:
        if name not in required and name not in optional:
            raise p.InvalidPolicyError(field, f"{name!r} is no field of it")
    return value


def _list(value: object, field: str) -> list[object]:
    if not isinstance(value, list):
        raise p.InvalidPolicyError(field, "a list is needed")
    return value


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise p.InvalidPolicyError(field, "text is needed")
    return value


def _bytes(value: object, field: str) -> bytes:
    """What a text stands for: its UTF-8, or what follows ``base64:``."""
    text = _text(value, field)
    try:
        if text.startswith(_BASE64):
            return b64decode(text.removeprefix(_BASE64), validate=True)
        return text.encode()
    except ValueError:
        raise p.InvalidPolicyError(field, "neither text nor base64") from None


def _bytes_text(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = _BASE64
    return _BASE64 + b64encode(data).decode() if text.startswith(_BASE64) else text


def _number(value: object, field: str) -> int:
    if type(value) is not int:
        raise p.InvalidPolicyError(field, "an integer is needed")
    return value
