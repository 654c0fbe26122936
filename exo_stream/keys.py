"""Keys of the store: their sizes, and the namespaces packed into their leading bits.

KeyCodecError                   key_codec
├─ InvalidPrefixError           invalid_prefix               reserved_bits, prefix
├─ InvalidKeyLengthError        invalid_key_length           len, min, max
├─ PayloadTooLargeError         payload_too_large            payload_len, max
├─ PayloadRangeOutOfBoundsError payload_range_out_of_bounds  offset, len, max
└─ PrefixMismatchError          prefix_mismatch
KeyValidationError              key_too_long                 len, max

Both are InvalidRequestErrors, raised in the process that has the codec: no server answers them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from exo_stream.errors import InvalidRequestError
from exo_stream.limits import STORE_KEY_BYTES_MAX

MIN_KEY_LEN: Final = 0
"""The empty key is a key."""
MAX_KEY_LEN: Final = STORE_KEY_BYTES_MAX
KEY_SIZE: Final = MAX_KEY_LEN
"""Bytes to set aside for any one key."""
RESERVED_BITS_MAX: Final = 16
"""A packed prefix has at most so many bits."""

Octets = bytes | bytearray | memoryview
"""What keys and payloads are read from."""


class KeyCodecError(InvalidRequestError):
    """The codec cannot do this with such a key, payload or prefix."""

    code = "key_codec"


class InvalidPrefixError(KeyCodecError):
    """There are 0 to 16 reserved bits, and ``prefix`` must fit into them."""

    code = "invalid_prefix"
    fields: ClassVar[tuple[str, ...]] = ("reserved_bits", "prefix")

    def __init__(self, reserved_bits: int, prefix: int) -> None:
        super().__init__(
            f"prefix {prefix!r} in {reserved_bits!r} reserved bits: there are 0 to"
            f" {RESERVED_BITS_MAX} bits, and the prefix is a number that fits into them"
        )
        self.reserved_bits = reserved_bits
        self.prefix = prefix


class InvalidKeyLengthError(KeyCodecError):
    """A key under this codec has ``min`` to ``max`` bytes, not ``len``."""

    code = "invalid_key_length"
    fields: ClassVar[tuple[str, ...]] = ("len", "min", "max")

    def __init__(self, length: int, shortest: int) -> None:
        super().__init__(f"a key has {shortest} to {MAX_KEY_LEN} bytes here, but this has {length}")
        self.len = length
        self.min = shortest
        self.max = MAX_KEY_LEN


class PayloadTooLargeError(KeyCodecError):
    """The longest key has room for ``max`` bytes of payload, not for ``payload_len``."""

    code = "payload_too_large"
    fields: ClassVar[tuple[str, ...]] = ("payload_len", "max")

    def __init__(self, payload_len: int, capacity: int) -> None:
        super().__init__(f"a payload has at most {capacity} bytes here, but this has {payload_len}")
        self.payload_len = payload_len
        self.max = capacity


class PayloadRangeOutOfBoundsError(KeyCodecError):
    """The key holds ``max`` bytes of payload; ``len`` bytes at ``offset`` are not among them."""

    code = "payload_range_out_of_bounds"
    fields: ClassVar[tuple[str, ...]] = ("offset", "len", "max")

    def __init__(self, offset: int, length: int, capacity: int) -> None:
        super().__init__(f"{length} bytes at {offset} are not within a payload of {capacity} bytes")
        self.offset = offset
        self.len = length
        self.max = capacity


class PrefixMismatchError(KeyCodecError):
    """The key does not begin with the codec's prefix."""

    code = "prefix_mismatch"

    def __init__(self) -> None:
        super().__init__("the key does not begin with the prefix of this codec")


class KeyValidationError(InvalidRequestError):
    """A key has at most ``max`` bytes, not ``len``."""

    code = "key_too_long"
    fields: ClassVar[tuple[str, ...]] = ("len", "max")

    def __init__(self, length: int) -> None:
        super().__init__(f"a key has at most {MAX_KEY_LEN} bytes, but this has {length}")
        self.len = length
        self.max = MAX_KEY_LEN


def is_valid_key_size(size: int) -> bool:
    """Whether a key may have so many bytes."""
    return MIN_KEY_LEN <= size <= MAX_KEY_LEN


def validate_key_size(size: int) -> None:
    """Raise KeyValidationError unless a key may have so many bytes."""
    if not is_valid_key_size(size):
        raise KeyValidationError(size)


def next_key(key: Octets) -> bytes | None:
    """The key right after ``key`` in bytewise order, None after the last of all.

    Raises KeyValidationError if ``key`` is none.
    """
    validate_key_size(len(key))
    if len(key) < MAX_KEY_LEN:
        return bytes(key) + b"\0"
    kept = bytes(key).rstrip(b"\xff")
    if not kept:
        return None
    return kept[:-1] + bytes([kept[-1] + 1])


@dataclass(frozen=True, slots=True)
class KeyCodec:
    """A family of keys: ``prefix`` in the first ``reserved_bits``, then the payload.

    The payload follows bit by bit, most significant first, and zeros fill its last byte; so keys
    of one family are ordered as their payloads are. Keys under construction are bytearrays, of
    which a write changes no bit but those of its range. Raises InvalidPrefixError unless the
    prefix fits into at most 16 bits.
    """

    reserved_bits: int
    prefix: int

    def __post_init__(self) -> None:
        bits, prefix = self.reserved_bits, self.prefix
        if (
            type(bits) is not int
            or type(prefix) is not int
            or not 0 <= bits <= RESERVED_BITS_MAX
            or not 0 <= prefix < 1 << bits
        ):
            raise InvalidPrefixError(bits, prefix)

    @property
    def min_key_len(self) -> int:
        """Bytes that the prefix takes."""
        return (self.reserved_bits + 7) >> 3

    @property
    def max_payload_capacity_bytes(self) -> int:
        """Whole bytes of payload in the longest key."""
        return self.payload_capacity_bytes_for_key_len(MAX_KEY_LEN)

    @property
    def payload_capacity_bytes(self) -> int:
        """The longest payload that ``encode`` takes: the same number."""
        return self.max_payload_capacity_bytes

    def payload_capacity_bytes_for_key_len(self, key_len: int) -> int:
        """Whole bytes of payload in a key of ``key_len`` bytes."""
        return max(0, 8 * key_len - self.reserved_bits) >> 3

    def min_key_len_for_payload(self, payload_len: int) -> int:
        """Bytes of the shortest key with room for so much payload."""
        return (self.reserved_bits + 8 * payload_len + 7) >> 3

    def payload_bit_offset(self, index: int) -> int:
        """Where byte ``index`` of the payload begins, in bits from the start of the key."""
        return self.reserved_bits + 8 * index

    def new_key_with_len(self, key_len: int) -> bytearray:
        """A key of ``key_len`` bytes with the prefix and a payload of zeros.

        Raises InvalidKeyLengthError if no key of the family has this length.
        """
        self._check_length(key_len)
        number = self.prefix << (8 * key_len - self.reserved_bits)
        return bytearray(number.to_bytes(key_len, "big"))

    def new_key(self) -> bytearray:
        """The family's shortest and lowest key."""
        return self.new_key_with_len(self.min_key_len)

    def encode(self, payload: Octets) -> bytes:
        """The shortest key that holds ``payload``.

        Raises PayloadTooLargeError if there is none.
        """
        length = len(payload)
        bits = self.reserved_bits + 8 * length
        key_len = (bits + 7) >> 3
        if key_len > MAX_KEY_LEN:
            raise PayloadTooLargeError(length, self.max_payload_capacity_bytes)
        number = self.prefix << 8 * length | int.from_bytes(payload, "big")
        return (number << (8 * key_len - bits)).to_bytes(key_len, "big")

    def decode(self, key: Octets, payload_len: int) -> bytes:
        """The first ``payload_len`` bytes of the payload of ``key``.

        Raises PrefixMismatchError if the key is of another family, and what ``read_payload`` does.
        """
        if not self.matches(key):
            raise PrefixMismatchError
        return self.read_payload(key, 0, payload_len)

    def write_payload(self, key: bytearray, offset: int, payload: Octets) -> None:
        """Put ``payload`` at byte ``offset`` of the key's payload; no other bit changes.

        Raises InvalidKeyLengthError or PayloadRangeOutOfBoundsError, and then nothing changed.
        """
        length = len(payload)
        self._check_range(key, offset, length)
        bits = self.reserved_bits
        odd = bits & 7
        start = (bits >> 3) + offset
        end = start + length
        if odd:
            # One window over all bytes touched: a neighbour's bits, the payload, a neighbour's.
            above = key[start] >> (8 - odd)
            below = key[end] & (0xFF >> odd)
            middle = above << 8 * length | int.from_bytes(payload, "big")
            key[start : end + 1] = (middle << (8 - odd) | below).to_bytes(length + 1, "big")
        else:
            key[start:end] = payload

    def fill_payload(self, key: bytearray, offset: int, length: int, byte: int) -> None:
        """Put ``byte`` at ``length`` places from ``offset`` on; raises as ``write_payload``."""
        assert 0 <= byte <= 0xFF, byte
        self._check_range(key, offset, length)
        self.write_payload(key, offset, bytes([byte]) * length)

    def read_payload(self, key: Octets, offset: int, length: int) -> bytes:
        """The ``length`` bytes at byte ``offset`` of the key's payload, whatever its prefix.

        Raises InvalidKeyLengthError or PayloadRangeOutOfBoundsError.
        """
        self._check_range(key, offset, length)
        bits = self.reserved_bits
        odd = bits & 7
        start = (bits >> 3) + offset
        end = start + length
        if not odd:
            return bytes(key[start:end])
        window = int.from_bytes(key[start : end + 1], "big") >> (8 - odd)
        return window.to_bytes(length + 1, "big")[1:]

    def read_payload_exact(self, key: Octets, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes, as for a field of fixed size; raises as ``read_payload``."""
        return self.read_payload(key, offset, size)

    def copy_payload(
        self, source: Octets, source_offset: int, target: bytearray, target_offset: int, length: int
    ) -> None:
        """Copy a range of one key's payload into another's, or elsewhere into its own.

        Raises as ``read_payload`` and ``write_payload``, and then nothing changed.
        """
        self.write_payload(target, target_offset, self.read_payload(source, source_offset, length))

    def matches(self, key: Octets) -> bool:
        """Whether ``key`` begins with the prefix."""
        bits = self.reserved_bits
        shortest = (bits + 7) >> 3
        if len(key) < shortest:
            return False
        return int.from_bytes(key[:shortest], "big") >> (-bits & 7) == self.prefix

    def prefix_bounds_for_len(self, key_len: int) -> tuple[bytes, bytes]:
        """The lowest and the highest key of ``key_len`` bytes in the family, both inclusive.

        Raises InvalidKeyLengthError if no key of the family has this length.
        """
        start = bytes(self.new_key_with_len(key_len))
        free = 8 * key_len - self.reserved_bits
        return start, ((self.prefix + 1 << free) - 1).to_bytes(key_len, "big")

    def prefix_bounds(self) -> tuple[bytes, bytes]:
        """The lowest and the highest key of the family, both inclusive."""
        return bytes(self.new_key()), self.prefix_bounds_for_len(MAX_KEY_LEN)[1]

    def _check_length(self, key_len: int) -> None:
        if not self.min_key_len <= key_len <= MAX_KEY_LEN:
            raise InvalidKeyLengthError(key_len, self.min_key_len)

    def _check_range(self, key: Octets, offset: int, length: int) -> None:
        key_len = len(key)
        capacity = (8 * key_len - self.reserved_bits) >> 3
        if capacity < 0 or key_len > MAX_KEY_LEN:
            raise InvalidKeyLengthError(key_len, self.min_key_len)
        if offset < 0 or length < 0 or offset + length > capacity:
            raise PayloadRangeOutOfBoundsError(offset, length, capacity)


@dataclass(frozen=True, slots=True)
class MatchKey:
    """Keys of a family whose payload has a match of ``payload_regex``, anywhere in it.

    Nothing is checked here: whoever compiles the regex does that, and takes ``codec``.
    """

    reserved_bits: int
    prefix: int
    payload_regex: str

    @property
    def codec(self) -> KeyCodec:
        """The family. Raises InvalidPrefixError if there is no such one."""
        return KeyCodec(self.reserved_bits, self.prefix)


def payload_to_match(codec: KeyCodec, key: bytes) -> bytes | None:
    """What a regex is matched against: all whole bytes after the prefix; None in other families."""
    if not codec.matches(key):
        return None
    if not codec.reserved_bits:
        return key
    return codec.read_payload(key, 0, codec.payload_capacity_bytes_for_key_len(len(key)))
