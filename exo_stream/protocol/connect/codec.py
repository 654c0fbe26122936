"""The two codecs of messages: binary protobuf and proto3 JSON, each within bounds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Final, TypeVar, cast

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from exo_stream.protocol.connect.failure import CallError, Code

M = TypeVar("M", bound=Message)

_HEAVY_BYTES: Final = {"proto": 1 << 20, "json": 1 << 13}
"""Encoding or decoding more takes milliseconds: too long to keep everybody waiting."""

_BASE64: Final = re.compile("[A-Za-z0-9+/_-]*={0,2}")
"""Of either alphabet, padded or not, as JSON of protobuf has it."""


class Codec(Enum):
    """How messages are written; the value is its name in content types."""

    PROTO = "proto"
    JSON = "json"

    @property
    def unary_type(self) -> str:
        """The content type of a call of one message, and of its answer."""
        return f"application/{self.value}"

    @property
    def streaming_type(self) -> str:
        """The content type of a call that is answered with a stream, and of that."""
        return f"application/connect+{self.value}"

    def is_heavy(self, size: int) -> bool:
        """Whether a message of so many bytes takes long."""
        return size > _HEAVY_BYTES[self.value]

    def encode(self, message: Message) -> bytes:
        """The bytes of ``message``."""
        if self is Codec.PROTO:
            return message.SerializeToString()
        value = json_format.MessageToDict(message)
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()

    def decode(self, data: bytes, kind: type[M], items_max: int) -> M:
        """The message of this kind that ``data`` is.

        Raises CallError if it is none, or if it may hold more than ``items_max`` parts: a part of
        two bytes takes fifty in memory.
        """
        if self is Codec.PROTO:
            if len(data) > 2 * items_max and count_fields(data, items_max) > items_max:
                raise _too_many(items_max)
            return _from_binary(data, kind)
        if sum(map(data.count, (b"{", b"[", b",", b":"))) > items_max:
            raise _too_many(items_max)
        return _from_json(data, kind)


def count_fields(data: bytes, fields_max: int) -> int:
    """How many fields a binary message has, its own and not those of its parts.

    It stops counting above ``fields_max``, and where the bytes are no message.
    """
    count = at = 0
    try:
        while at < len(data) and count <= fields_max:
            tag, at = _varint(data, at)
            count += 1
            match tag & 7:
                case 0:
                    _, at = _varint(data, at)
                case 1:
                    at += 8
                case 2:
                    size, at = _varint(data, at)
                    at += size
                case 5:
                    at += 4
                case _:
                    break
    except IndexError:
        pass
    return count


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    value, shift = byte & 0x7F, 7
    while byte & 0x80:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        shift += 7
    return value, at + 1


def _from_binary(data: bytes, kind: type[M]) -> M:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise CallError(
            Code.INVALID_ARGUMENT, f"the message is no {kind.DESCRIPTOR.full_name} in protobuf"
        ) from None


def _from_json(data: bytes, kind: type[M]) -> M:
    try:
        if not data.lstrip().startswith(b"{"):
            raise json_format.ParseError("a message is an object")  # noqa: TRY301 - like the rest
        value = json.loads(data, object_pairs_hook=_object)
        # The stubs allow for the class of another implementation, whose descriptors are alike.
        _check(value, cast("Descriptor", kind.DESCRIPTOR))
        return json_format.ParseDict(value, kind(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise CallError(
            Code.INVALID_ARGUMENT,
            f"the message is no {kind.DESCRIPTOR.full_name} in JSON: {reason}",
        ) from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise json_format.ParseError("a name stands there twice in one object")
    return found


def _check(value: Mapping[str, object], kind: Descriptor) -> None:
    """See that bytes are base64, and that names of values are known.

    The runtime takes out what is no base64 and decodes the rest, a key that nobody meant; and a
    name that it does not know is the first of all to it, another order or operation than was asked.
    """
    fields = _fields_to_check(kind)
    for name, inner in value.items():
        if name not in fields:
            continue
        field = fields[name]
        for item in inner if isinstance(inner, list) else (inner,):
            if field.message_type is not None and isinstance(item, dict):
                _check(item, field.message_type)
            elif isinstance(item, str):
                _check_text(item, field)


def _check_text(text: str, field: FieldDescriptor) -> None:
    if field.type == FieldDescriptor.TYPE_BYTES and not _BASE64.fullmatch(text):
        raise json_format.ParseError(f"{field.json_name} is not base64")
    names = field.enum_type.values_by_name if field.enum_type is not None else None
    if names is not None and text not in names and not text.isdecimal():
        raise json_format.ParseError(f"{field.json_name} is none of {', '.join(names)}")


@cache
def _fields_to_check(kind: Descriptor) -> Mapping[str, FieldDescriptor]:
    """Bytes, enumerations and messages, by either of their names in JSON."""
    checked = (
        FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_ENUM, FieldDescriptor.TYPE_MESSAGE,
    )  # fmt: skip
    fields = [field for field in kind.fields if field.type in checked]
    return {name: field for field in fields for name in (field.name, field.json_name)}


def _too_many(items_max: int) -> CallError:
    return CallError(Code.RESOURCE_EXHAUSTED, f"a message has at most {items_max} parts")
