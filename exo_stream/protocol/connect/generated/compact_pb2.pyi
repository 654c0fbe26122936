from exo_stream.protocol.connect.generated import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PolicyOrderEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POLICY_ORDER_ENCODING_BYTES_ASC: _ClassVar[PolicyOrderEncoding]
    POLICY_ORDER_ENCODING_U64_BE: _ClassVar[PolicyOrderEncoding]
    POLICY_ORDER_ENCODING_I64_BE: _ClassVar[PolicyOrderEncoding]
POLICY_ORDER_ENCODING_BYTES_ASC: PolicyOrderEncoding
POLICY_ORDER_ENCODING_U64_BE: PolicyOrderEncoding
POLICY_ORDER_ENCODING_I64_BE: PolicyOrderEncoding

class PruneRequest(_message.Message):
    __slots__ = ("policies",)
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    def __init__(self, policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ...) -> None: ...

class PruneResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Policy(_message.Message):
    __slots__ = ("keys", "sequence", "retain")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RETAIN_FIELD_NUMBER: _ClassVar[int]
    keys: KeysScope
    sequence: SequenceScope
    retain: PolicyRetain
    def __init__(self, keys: _Optional[_Union[KeysScope, _Mapping]] = ..., sequence: _Optional[_Union[SequenceScope, _Mapping]] = ..., retain: _Optional[_Union[PolicyRetain, _Mapping]] = ...) -> None: ...

class KeysScope(_message.Message):
    __slots__ = ("match_key", "group_by", "order_by")
    MATCH_KEY_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    match_key: _common_pb2.MatchKey
    group_by: PolicyGroupBy
    order_by: PolicyOrderBy
    def __init__(self, match_key: _Optional[_Union[_common_pb2.MatchKey, _Mapping]] = ..., group_by: _Optional[_Union[PolicyGroupBy, _Mapping]] = ..., order_by: _Optional[_Union[PolicyOrderBy, _Mapping]] = ...) -> None: ...

class SequenceScope(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PolicyGroupBy(_message.Message):
    __slots__ = ("capture_groups",)
    CAPTURE_GROUPS_FIELD_NUMBER: _ClassVar[int]
    capture_groups: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, capture_groups: _Optional[_Iterable[str]] = ...) -> None: ...

class PolicyOrderBy(_message.Message):
    __slots__ = ("capture_group", "encoding")
    CAPTURE_GROUP_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    capture_group: str
    encoding: PolicyOrderEncoding
    def __init__(self, capture_group: _Optional[str] = ..., encoding: _Optional[_Union[PolicyOrderEncoding, str]] = ...) -> None: ...

class PolicyRetain(_message.Message):
    __slots__ = ("keep_latest", "greater_than", "greater_than_or_equal", "drop_all")
    KEEP_LATEST_FIELD_NUMBER: _ClassVar[int]
    GREATER_THAN_FIELD_NUMBER: _ClassVar[int]
    GREATER_THAN_OR_EQUAL_FIELD_NUMBER: _ClassVar[int]
    DROP_ALL_FIELD_NUMBER: _ClassVar[int]
    keep_latest: RetainKeepLatest
    greater_than: RetainGreaterThan
    greater_than_or_equal: RetainGreaterThanOrEqual
    drop_all: RetainDropAll
    def __init__(self, keep_latest: _Optional[_Union[RetainKeepLatest, _Mapping]] = ..., greater_than: _Optional[_Union[RetainGreaterThan, _Mapping]] = ..., greater_than_or_equal: _Optional[_Union[RetainGreaterThanOrEqual, _Mapping]] = ..., drop_all: _Optional[_Union[RetainDropAll, _Mapping]] = ...) -> None: ...

class RetainKeepLatest(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class RetainGreaterThan(_message.Message):
    __slots__ = ("threshold",)
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    threshold: int
    def __init__(self, threshold: _Optional[int] = ...) -> None: ...

class RetainGreaterThanOrEqual(_message.Message):
    __slots__ = ("threshold",)
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    threshold: int
    def __init__(self, threshold: _Optional[int] = ...) -> None: ...

class RetainDropAll(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
