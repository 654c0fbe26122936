from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class KvEntry(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...

class MatchKey(_message.Message):
    __slots__ = ("reserved_bits", "prefix", "payload_regex")
    RESERVED_BITS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_REGEX_FIELD_NUMBER: _ClassVar[int]
    reserved_bits: int
    prefix: int
    payload_regex: str
    def __init__(self, reserved_bits: _Optional[int] = ..., prefix: _Optional[int] = ..., payload_regex: _Optional[str] = ...) -> None: ...

class BytesFilter(_message.Message):
    __slots__ = ("exact", "prefix", "regex")
    EXACT_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    REGEX_FIELD_NUMBER: _ClassVar[int]
    exact: bytes
    prefix: bytes
    regex: str
    def __init__(self, exact: _Optional[bytes] = ..., prefix: _Optional[bytes] = ..., regex: _Optional[str] = ...) -> None: ...
