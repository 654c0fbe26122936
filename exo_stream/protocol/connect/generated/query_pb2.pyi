from exo_stream.protocol.connect.generated import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TraversalMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRAVERSAL_MODE_FORWARD: _ClassVar[TraversalMode]
    TRAVERSAL_MODE_REVERSE: _ClassVar[TraversalMode]

class RangeReduceOp(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RANGE_REDUCE_OP_COUNT_ALL: _ClassVar[RangeReduceOp]
    RANGE_REDUCE_OP_COUNT_FIELD: _ClassVar[RangeReduceOp]
    RANGE_REDUCE_OP_SUM_FIELD: _ClassVar[RangeReduceOp]
    RANGE_REDUCE_OP_MIN_FIELD: _ClassVar[RangeReduceOp]
    RANGE_REDUCE_OP_MAX_FIELD: _ClassVar[RangeReduceOp]

class KvFieldKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KV_FIELD_KIND_INT64: _ClassVar[KvFieldKind]
    KV_FIELD_KIND_UINT64: _ClassVar[KvFieldKind]
    KV_FIELD_KIND_FLOAT64: _ClassVar[KvFieldKind]
    KV_FIELD_KIND_BOOLEAN: _ClassVar[KvFieldKind]
    KV_FIELD_KIND_UTF8: _ClassVar[KvFieldKind]
    KV_FIELD_KIND_DATE32: _ClassVar[KvFieldKind]
    KV_FIELD_KIND_DATE64: _ClassVar[KvFieldKind]
    KV_FIELD_KIND_TIMESTAMP: _ClassVar[KvFieldKind]
    KV_FIELD_KIND_DECIMAL128: _ClassVar[KvFieldKind]
    KV_FIELD_KIND_FIXED_SIZE_BINARY: _ClassVar[KvFieldKind]
    KV_FIELD_KIND_DECIMAL256: _ClassVar[KvFieldKind]
TRAVERSAL_MODE_FORWARD: TraversalMode
TRAVERSAL_MODE_REVERSE: TraversalMode
RANGE_REDUCE_OP_COUNT_ALL: RangeReduceOp
RANGE_REDUCE_OP_COUNT_FIELD: RangeReduceOp
RANGE_REDUCE_OP_SUM_FIELD: RangeReduceOp
RANGE_REDUCE_OP_MIN_FIELD: RangeReduceOp
RANGE_REDUCE_OP_MAX_FIELD: RangeReduceOp
KV_FIELD_KIND_INT64: KvFieldKind
KV_FIELD_KIND_UINT64: KvFieldKind
KV_FIELD_KIND_FLOAT64: KvFieldKind
KV_FIELD_KIND_BOOLEAN: KvFieldKind
KV_FIELD_KIND_UTF8: KvFieldKind
KV_FIELD_KIND_DATE32: KvFieldKind
KV_FIELD_KIND_DATE64: KvFieldKind
KV_FIELD_KIND_TIMESTAMP: KvFieldKind
KV_FIELD_KIND_DECIMAL128: KvFieldKind
KV_FIELD_KIND_FIXED_SIZE_BINARY: KvFieldKind
KV_FIELD_KIND_DECIMAL256: KvFieldKind

class Detail(_message.Message):
    __slots__ = ("sequence_number", "read_stats")
    class ReadStatsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    READ_STATS_FIELD_NUMBER: _ClassVar[int]
    sequence_number: int
    read_stats: _containers.ScalarMap[str, int]
    def __init__(self, sequence_number: _Optional[int] = ..., read_stats: _Optional[_Mapping[str, int]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("key", "min_sequence_number")
    KEY_FIELD_NUMBER: _ClassVar[int]
    MIN_SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    min_sequence_number: int
    def __init__(self, key: _Optional[bytes] = ..., min_sequence_number: _Optional[int] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    def __init__(self, value: _Optional[bytes] = ...) -> None: ...

class GetManyRequest(_message.Message):
    __slots__ = ("keys", "min_sequence_number", "batch_size")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    MIN_SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    min_sequence_number: int
    batch_size: int
    def __init__(self, keys: _Optional[_Iterable[bytes]] = ..., min_sequence_number: _Optional[int] = ..., batch_size: _Optional[int] = ...) -> None: ...

class GetManyEntry(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...

class GetManyFrame(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[GetManyEntry]
    def __init__(self, results: _Optional[_Iterable[_Union[GetManyEntry, _Mapping]]] = ...) -> None: ...

class RangeRequest(_message.Message):
    __slots__ = ("start", "end", "limit", "batch_size", "mode", "min_sequence_number")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    MIN_SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    start: bytes
    end: bytes
    limit: int
    batch_size: int
    mode: TraversalMode
    min_sequence_number: int
    def __init__(self, start: _Optional[bytes] = ..., end: _Optional[bytes] = ..., limit: _Optional[int] = ..., batch_size: _Optional[int] = ..., mode: _Optional[_Union[TraversalMode, str]] = ..., min_sequence_number: _Optional[int] = ...) -> None: ...

class RangeFrame(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_common_pb2.KvEntry]
    def __init__(self, results: _Optional[_Iterable[_Union[_common_pb2.KvEntry, _Mapping]]] = ...) -> None: ...

class ReduceRequest(_message.Message):
    __slots__ = ("start", "end", "params", "min_sequence_number")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    MIN_SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    start: bytes
    end: bytes
    params: ReduceParams
    min_sequence_number: int
    def __init__(self, start: _Optional[bytes] = ..., end: _Optional[bytes] = ..., params: _Optional[_Union[ReduceParams, _Mapping]] = ..., min_sequence_number: _Optional[int] = ...) -> None: ...

class ReduceResponse(_message.Message):
    __slots__ = ("results", "groups")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RangeReduceResult]
    groups: _containers.RepeatedCompositeFieldContainer[RangeReduceGroup]
    def __init__(self, results: _Optional[_Iterable[_Union[RangeReduceResult, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[RangeReduceGroup, _Mapping]]] = ...) -> None: ...

class ReduceParams(_message.Message):
    __slots__ = ("reducers", "group_by", "filter")
    REDUCERS_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    reducers: _containers.RepeatedCompositeFieldContainer[RangeReducerSpec]
    group_by: _containers.RepeatedCompositeFieldContainer[KvExpr]
    filter: KvPredicate
    def __init__(self, reducers: _Optional[_Iterable[_Union[RangeReducerSpec, _Mapping]]] = ..., group_by: _Optional[_Iterable[_Union[KvExpr, _Mapping]]] = ..., filter: _Optional[_Union[KvPredicate, _Mapping]] = ...) -> None: ...

class RangeReducerSpec(_message.Message):
    __slots__ = ("op", "expr")
    OP_FIELD_NUMBER: _ClassVar[int]
    EXPR_FIELD_NUMBER: _ClassVar[int]
    op: RangeReduceOp
    expr: KvExpr
    def __init__(self, op: _Optional[_Union[RangeReduceOp, str]] = ..., expr: _Optional[_Union[KvExpr, _Mapping]] = ...) -> None: ...

class RangeReduceResult(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: KvReducedValue
    def __init__(self, value: _Optional[_Union[KvReducedValue, _Mapping]] = ...) -> None: ...

class RangeReduceGroup(_message.Message):
    __slots__ = ("group_values", "group_values_present", "results")
    GROUP_VALUES_FIELD_NUMBER: _ClassVar[int]
    GROUP_VALUES_PRESENT_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    group_values: _containers.RepeatedCompositeFieldContainer[KvReducedValue]
    group_values_present: _containers.RepeatedScalarFieldContainer[bool]
    results: _containers.RepeatedCompositeFieldContainer[RangeReduceResult]
    def __init__(self, group_values: _Optional[_Iterable[_Union[KvReducedValue, _Mapping]]] = ..., group_values_present: _Optional[_Iterable[bool]] = ..., results: _Optional[_Iterable[_Union[RangeReduceResult, _Mapping]]] = ...) -> None: ...

class KvReducedValue(_message.Message):
    __slots__ = ("int64_value", "uint64_value", "float64_value", "boolean_value", "utf8_value", "date32_value", "date64_value", "timestamp_value", "decimal128_value", "fixed_size_binary_value", "decimal256_value")
    INT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    UINT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    FLOAT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOLEAN_VALUE_FIELD_NUMBER: _ClassVar[int]
    UTF8_VALUE_FIELD_NUMBER: _ClassVar[int]
    DATE32_VALUE_FIELD_NUMBER: _ClassVar[int]
    DATE64_VALUE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_VALUE_FIELD_NUMBER: _ClassVar[int]
    DECIMAL128_VALUE_FIELD_NUMBER: _ClassVar[int]
    FIXED_SIZE_BINARY_VALUE_FIELD_NUMBER: _ClassVar[int]
    DECIMAL256_VALUE_FIELD_NUMBER: _ClassVar[int]
    int64_value: int
    uint64_value: int
    float64_value: float
    boolean_value: bool
    utf8_value: str
    date32_value: int
    date64_value: int
    timestamp_value: int
    decimal128_value: bytes
    fixed_size_binary_value: bytes
    decimal256_value: bytes
    def __init__(self, int64_value: _Optional[int] = ..., uint64_value: _Optional[int] = ..., float64_value: _Optional[float] = ..., boolean_value: _Optional[bool] = ..., utf8_value: _Optional[str] = ..., date32_value: _Optional[int] = ..., date64_value: _Optional[int] = ..., timestamp_value: _Optional[int] = ..., decimal128_value: _Optional[bytes] = ..., fixed_size_binary_value: _Optional[bytes] = ..., decimal256_value: _Optional[bytes] = ...) -> None: ...

class KvFieldRef(_message.Message):
    __slots__ = ("key", "z_order_key", "value")
    class KeyField(_message.Message):
        __slots__ = ("bit_offset", "kind", "fixed_size_binary_len")
        BIT_OFFSET_FIELD_NUMBER: _ClassVar[int]
        KIND_FIELD_NUMBER: _ClassVar[int]
        FIXED_SIZE_BINARY_LEN_FIELD_NUMBER: _ClassVar[int]
        bit_offset: int
        kind: KvFieldKind
        fixed_size_binary_len: int
        def __init__(self, bit_offset: _Optional[int] = ..., kind: _Optional[_Union[KvFieldKind, str]] = ..., fixed_size_binary_len: _Optional[int] = ...) -> None: ...
    class ZOrderKeyField(_message.Message):
        __slots__ = ("bit_offset", "field_position", "field_widths", "kind", "fixed_size_binary_len")
        BIT_OFFSET_FIELD_NUMBER: _ClassVar[int]
        FIELD_POSITION_FIELD_NUMBER: _ClassVar[int]
        FIELD_WIDTHS_FIELD_NUMBER: _ClassVar[int]
        KIND_FIELD_NUMBER: _ClassVar[int]
        FIXED_SIZE_BINARY_LEN_FIELD_NUMBER: _ClassVar[int]
        bit_offset: int
        field_position: int
        field_widths: _containers.RepeatedScalarFieldContainer[int]
        kind: KvFieldKind
        fixed_size_binary_len: int
        def __init__(self, bit_offset: _Optional[int] = ..., field_position: _Optional[int] = ..., field_widths: _Optional[_Iterable[int]] = ..., kind: _Optional[_Union[KvFieldKind, str]] = ..., fixed_size_binary_len: _Optional[int] = ...) -> None: ...
    class ValueField(_message.Message):
        __slots__ = ("index", "kind", "nullable", "fixed_size_binary_len")
        INDEX_FIELD_NUMBER: _ClassVar[int]
        KIND_FIELD_NUMBER: _ClassVar[int]
        NULLABLE_FIELD_NUMBER: _ClassVar[int]
        FIXED_SIZE_BINARY_LEN_FIELD_NUMBER: _ClassVar[int]
        index: int
        kind: KvFieldKind
        nullable: bool
        fixed_size_binary_len: int
        def __init__(self, index: _Optional[int] = ..., kind: _Optional[_Union[KvFieldKind, str]] = ..., nullable: _Optional[bool] = ..., fixed_size_binary_len: _Optional[int] = ...) -> None: ...
    KEY_FIELD_NUMBER: _ClassVar[int]
    Z_ORDER_KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: KvFieldRef.KeyField
    z_order_key: KvFieldRef.ZOrderKeyField
    value: KvFieldRef.ValueField
    def __init__(self, key: _Optional[_Union[KvFieldRef.KeyField, _Mapping]] = ..., z_order_key: _Optional[_Union[KvFieldRef.ZOrderKeyField, _Mapping]] = ..., value: _Optional[_Union[KvFieldRef.ValueField, _Mapping]] = ...) -> None: ...

class KvExpr(_message.Message):
    __slots__ = ("field", "literal", "add", "sub", "mul", "div", "lower", "date_trunc_day")
    class BinaryExpr(_message.Message):
        __slots__ = ("left", "right")
        LEFT_FIELD_NUMBER: _ClassVar[int]
        RIGHT_FIELD_NUMBER: _ClassVar[int]
        left: KvExpr
        right: KvExpr
        def __init__(self, left: _Optional[_Union[KvExpr, _Mapping]] = ..., right: _Optional[_Union[KvExpr, _Mapping]] = ...) -> None: ...
    FIELD_FIELD_NUMBER: _ClassVar[int]
    LITERAL_FIELD_NUMBER: _ClassVar[int]
    ADD_FIELD_NUMBER: _ClassVar[int]
    SUB_FIELD_NUMBER: _ClassVar[int]
    MUL_FIELD_NUMBER: _ClassVar[int]
    DIV_FIELD_NUMBER: _ClassVar[int]
    LOWER_FIELD_NUMBER: _ClassVar[int]
    DATE_TRUNC_DAY_FIELD_NUMBER: _ClassVar[int]
    field: KvFieldRef
    literal: KvReducedValue
    add: KvExpr.BinaryExpr
    sub: KvExpr.BinaryExpr
    mul: KvExpr.BinaryExpr
    div: KvExpr.BinaryExpr
    lower: KvExpr
    date_trunc_day: KvExpr
    def __init__(self, field: _Optional[_Union[KvFieldRef, _Mapping]] = ..., literal: _Optional[_Union[KvReducedValue, _Mapping]] = ..., add: _Optional[_Union[KvExpr.BinaryExpr, _Mapping]] = ..., sub: _Optional[_Union[KvExpr.BinaryExpr, _Mapping]] = ..., mul: _Optional[_Union[KvExpr.BinaryExpr, _Mapping]] = ..., div: _Optional[_Union[KvExpr.BinaryExpr, _Mapping]] = ..., lower: _Optional[_Union[KvExpr, _Mapping]] = ..., date_trunc_day: _Optional[_Union[KvExpr, _Mapping]] = ...) -> None: ...

class KvPredicate(_message.Message):
    __slots__ = ("checks", "contradiction")
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    CONTRADICTION_FIELD_NUMBER: _ClassVar[int]
    checks: _containers.RepeatedCompositeFieldContainer[KvPredicateCheck]
    contradiction: bool
    def __init__(self, checks: _Optional[_Iterable[_Union[KvPredicateCheck, _Mapping]]] = ..., contradiction: _Optional[bool] = ...) -> None: ...

class KvPredicateCheck(_message.Message):
    __slots__ = ("field", "constraint")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINT_FIELD_NUMBER: _ClassVar[int]
    field: KvFieldRef
    constraint: KvPredicateConstraint
    def __init__(self, field: _Optional[_Union[KvFieldRef, _Mapping]] = ..., constraint: _Optional[_Union[KvPredicateConstraint, _Mapping]] = ...) -> None: ...

class KvPredicateConstraint(_message.Message):
    __slots__ = ("string_eq", "bool_eq", "fixed_size_binary_eq", "int_range", "uint64_range", "float_range", "decimal128_range", "is_null", "is_not_null", "string_in", "int_in", "uint64_in", "fixed_size_binary_in", "decimal256_range")
    class IntRange(_message.Message):
        __slots__ = ("min", "max")
        MIN_FIELD_NUMBER: _ClassVar[int]
        MAX_FIELD_NUMBER: _ClassVar[int]
        min: int
        max: int
        def __init__(self, min: _Optional[int] = ..., max: _Optional[int] = ...) -> None: ...
    class UInt64Range(_message.Message):
        __slots__ = ("min", "max")
        MIN_FIELD_NUMBER: _ClassVar[int]
        MAX_FIELD_NUMBER: _ClassVar[int]
        min: int
        max: int
        def __init__(self, min: _Optional[int] = ..., max: _Optional[int] = ...) -> None: ...
    class FloatBound(_message.Message):
        __slots__ = ("value", "inclusive")
        VALUE_FIELD_NUMBER: _ClassVar[int]
        INCLUSIVE_FIELD_NUMBER: _ClassVar[int]
        value: float
        inclusive: bool
        def __init__(self, value: _Optional[float] = ..., inclusive: _Optional[bool] = ...) -> None: ...
    class FloatRange(_message.Message):
        __slots__ = ("min", "max")
        MIN_FIELD_NUMBER: _ClassVar[int]
        MAX_FIELD_NUMBER: _ClassVar[int]
        min: KvPredicateConstraint.FloatBound
        max: KvPredicateConstraint.FloatBound
        def __init__(self, min: _Optional[_Union[KvPredicateConstraint.FloatBound, _Mapping]] = ..., max: _Optional[_Union[KvPredicateConstraint.FloatBound, _Mapping]] = ...) -> None: ...
    class Decimal128Range(_message.Message):
        __slots__ = ("min", "max")
        MIN_FIELD_NUMBER: _ClassVar[int]
        MAX_FIELD_NUMBER: _ClassVar[int]
        min: bytes
        max: bytes
        def __init__(self, min: _Optional[bytes] = ..., max: _Optional[bytes] = ...) -> None: ...
    class Decimal256Range(_message.Message):
        __slots__ = ("min", "max")
        MIN_FIELD_NUMBER: _ClassVar[int]
        MAX_FIELD_NUMBER: _ClassVar[int]
        min: bytes
        max: bytes
        def __init__(self, min: _Optional[bytes] = ..., max: _Optional[bytes] = ...) -> None: ...
    class StringIn(_message.Message):
        __slots__ = ("values",)
        VALUES_FIELD_NUMBER: _ClassVar[int]
        values: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...
    class IntIn(_message.Message):
        __slots__ = ("values",)
        VALUES_FIELD_NUMBER: _ClassVar[int]
        values: _containers.RepeatedScalarFieldContainer[int]
        def __init__(self, values: _Optional[_Iterable[int]] = ...) -> None: ...
    class UInt64In(_message.Message):
        __slots__ = ("values",)
        VALUES_FIELD_NUMBER: _ClassVar[int]
        values: _containers.RepeatedScalarFieldContainer[int]
        def __init__(self, values: _Optional[_Iterable[int]] = ...) -> None: ...
    class FixedSizeBinaryIn(_message.Message):
        __slots__ = ("values",)
        VALUES_FIELD_NUMBER: _ClassVar[int]
        values: _containers.RepeatedScalarFieldContainer[bytes]
        def __init__(self, values: _Optional[_Iterable[bytes]] = ...) -> None: ...
    STRING_EQ_FIELD_NUMBER: _ClassVar[int]
    BOOL_EQ_FIELD_NUMBER: _ClassVar[int]
    FIXED_SIZE_BINARY_EQ_FIELD_NUMBER: _ClassVar[int]
    INT_RANGE_FIELD_NUMBER: _ClassVar[int]
    UINT64_RANGE_FIELD_NUMBER: _ClassVar[int]
    FLOAT_RANGE_FIELD_NUMBER: _ClassVar[int]
    DECIMAL128_RANGE_FIELD_NUMBER: _ClassVar[int]
    IS_NULL_FIELD_NUMBER: _ClassVar[int]
    IS_NOT_NULL_FIELD_NUMBER: _ClassVar[int]
    STRING_IN_FIELD_NUMBER: _ClassVar[int]
    INT_IN_FIELD_NUMBER: _ClassVar[int]
    UINT64_IN_FIELD_NUMBER: _ClassVar[int]
    FIXED_SIZE_BINARY_IN_FIELD_NUMBER: _ClassVar[int]
    DECIMAL256_RANGE_FIELD_NUMBER: _ClassVar[int]
    string_eq: str
    bool_eq: bool
    fixed_size_binary_eq: bytes
    int_range: KvPredicateConstraint.IntRange
    uint64_range: KvPredicateConstraint.UInt64Range
    float_range: KvPredicateConstraint.FloatRange
    decimal128_range: KvPredicateConstraint.Decimal128Range
    is_null: bool
    is_not_null: bool
    string_in: KvPredicateConstraint.StringIn
    int_in: KvPredicateConstraint.IntIn
    uint64_in: KvPredicateConstraint.UInt64In
    fixed_size_binary_in: KvPredicateConstraint.FixedSizeBinaryIn
    decimal256_range: KvPredicateConstraint.Decimal256Range
    def __init__(self, string_eq: _Optional[str] = ..., bool_eq: _Optional[bool] = ..., fixed_size_binary_eq: _Optional[bytes] = ..., int_range: _Optional[_Union[KvPredicateConstraint.IntRange, _Mapping]] = ..., uint64_range: _Optional[_Union[KvPredicateConstraint.UInt64Range, _Mapping]] = ..., float_range: _Optional[_Union[KvPredicateConstraint.FloatRange, _Mapping]] = ..., decimal128_range: _Optional[_Union[KvPredicateConstraint.Decimal128Range, _Mapping]] = ..., is_null: _Optional[bool] = ..., is_not_null: _Optional[bool] = ..., string_in: _Optional[_Union[KvPredicateConstraint.StringIn, _Mapping]] = ..., int_in: _Optional[_Union[KvPredicateConstraint.IntIn, _Mapping]] = ..., uint64_in: _Optional[_Union[KvPredicateConstraint.UInt64In, _Mapping]] = ..., fixed_size_binary_in: _Optional[_Union[KvPredicateConstraint.FixedSizeBinaryIn, _Mapping]] = ..., decimal256_range: _Optional[_Union[KvPredicateConstraint.Decimal256Range, _Mapping]] = ...) -> None: ...
