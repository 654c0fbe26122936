from exo_stream.protocol.connect.generated import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SubscribeRequest(_message.Message):
    __slots__ = ("match_keys", "value_filters", "since_sequence_number")
    MATCH_KEYS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FILTERS_FIELD_NUMBER: _ClassVar[int]
    SINCE_SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    match_keys: _containers.RepeatedCompositeFieldContainer[_common_pb2.MatchKey]
    value_filters: _containers.RepeatedCompositeFieldContainer[_common_pb2.BytesFilter]
    since_sequence_number: int
    def __init__(self, match_keys: _Optional[_Iterable[_Union[_common_pb2.MatchKey, _Mapping]]] = ..., value_filters: _Optional[_Iterable[_Union[_common_pb2.BytesFilter, _Mapping]]] = ..., since_sequence_number: _Optional[int] = ...) -> None: ...

class SubscribeResponse(_message.Message):
    __slots__ = ("sequence_number", "entries")
    SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    sequence_number: int
    entries: _containers.RepeatedCompositeFieldContainer[_common_pb2.KvEntry]
    def __init__(self, sequence_number: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[_common_pb2.KvEntry, _Mapping]]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("sequence_number",)
    SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    sequence_number: int
    def __init__(self, sequence_number: _Optional[int] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("sequence_number", "entries")
    SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    sequence_number: int
    entries: _containers.RepeatedCompositeFieldContainer[_common_pb2.KvEntry]
    def __init__(self, sequence_number: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[_common_pb2.KvEntry, _Mapping]]] = ...) -> None: ...
