"""Keys: the vectors of the Exoware store, its errors, and what holds of every family."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exo_stream import errors, keys
from exo_stream.errors import ExoStreamError, InvalidRequestError
from exo_stream.keys import (
    KEY_SIZE,
    MAX_KEY_LEN,
    MIN_KEY_LEN,
    InvalidKeyLengthError,
    InvalidPrefixError,
    KeyCodec,
    KeyCodecError,
    KeyValidationError,
    MatchKey,
    PayloadRangeOutOfBoundsError,
    PayloadTooLargeError,
    PrefixMismatchError,
    is_valid_key_size,
    next_key,
    payload_to_match,
    validate_key_size,
)


@st.composite
def codecs(draw: st.DrawFn) -> KeyCodec:
    bits = draw(st.integers(0, 16))
    return KeyCodec(bits, draw(st.integers(0, (1 << bits) - 1)))


CODECS = codecs()
SHORT = st.binary(max_size=4)
PAYLOADS = st.one_of(SHORT, st.binary(min_size=240, max_size=252))
KEYS = st.one_of(SHORT, st.binary(min_size=240, max_size=254))
NEARLY_LAST = st.builds(
    lambda head, last: head + last * (254 - len(head)),
    SHORT,
    st.sampled_from([b"\xff", b"\0", b"\xfe"]),
)


def bits_of(key: bytes | bytearray) -> str:
    return "".join(f"{byte:08b}" for byte in key)


VECTORS = [
    pytest.param(4, 5, "abcd", "5abcd0", "50 5fff", id="half a byte"),
    pytest.param(0, 0, "abcd", "abcd", " ffff", id="no prefix"),
    pytest.param(3, 0b101, "deadbe", "bbd5b7c0", "a0 bfff", id="three bits"),
    pytest.param(1, 1, "00", "8000", "80 ffff", id="one bit"),
    pytest.param(8, 0x2A, "0102", "2a0102", "2a 2aff", id="a byte"),
    pytest.param(12, 0xABC, "1234", "abc12340", "abc0 abcfff", id="a byte and a half"),
    pytest.param(12, 0xABC, "", "abc0", "abc0 abcfff", id="nothing after it"),
    pytest.param(16, 0xBEEF, "ff", "beefff", "beef beefff", id="two bytes"),
    pytest.param(4, 1, b"hello".hex(), "168656c6c6f0", "10 1fff", id="hello"),
    pytest.param(5, 0b10101, "ffff", "affff8", "a8 afff", id="five bits"),
    pytest.param(7, 0x7F, "0001", "fe0002", "fe ffff", id="seven bits"),
    pytest.param(4, 0xA, "", "a0", "a0 afff", id="half a byte alone"),
]


@pytest.mark.parametrize(("bits", "prefix", "payload", "key", "bounds"), VECTORS)
def test_keys_and_bounds_are_those_of_the_exoware_store(
    bits: int, prefix: int, payload: str, key: str, bounds: str
) -> None:
    codec = KeyCodec(bits, prefix)
    encoded = codec.encode(bytes.fromhex(payload))
    assert encoded.hex() == key
    assert codec.decode(encoded, len(payload) // 2).hex() == payload
    lowest, head = map(bytes.fromhex, bounds.partition(" ")[::2])
    assert codec.prefix_bounds() == (lowest, head.ljust(254, b"\xff"))


def test_a_key_has_0_to_254_bytes() -> None:
    assert (MIN_KEY_LEN, MAX_KEY_LEN, KEY_SIZE) == (0, 254, 254)
    assert [size for size in range(-2, 300) if is_valid_key_size(size)] == list(range(255))
    validate_key_size(0)
    validate_key_size(254)
    with pytest.raises(KeyValidationError, match="at most 254 bytes") as caught:
        validate_key_size(255)
    assert (caught.value.len, caught.value.max) == (255, 254)


@pytest.mark.parametrize(
    ("key", "following"),
    [
        pytest.param(b"", b"\0", id="the first key of all"),
        pytest.param(b"\x12\x34", b"\x12\x34\0", id="a short key"),
        pytest.param(b"\xff" * 253, b"\xff" * 253 + b"\0", id="room for one more byte"),
        pytest.param(
            bytes(252) + b"\x12\xff", bytes(252) + b"\x13", id="the last byte cannot grow"
        ),
        pytest.param(b"\x01" + b"\xff" * 253, b"\x02", id="only the first byte can grow"),
        pytest.param(b"\xff" * 254, None, id="the last key of all"),
    ],
)
def test_next_key_appends_a_zero_or_grows_the_last_byte_it_can(
    key: bytes, following: bytes | None
) -> None:
    assert next_key(key) == following


def test_what_is_no_key_has_no_next_one() -> None:
    with pytest.raises(KeyValidationError):
        next_key(bytes(255))


@given(st.one_of(KEYS, NEARLY_LAST), st.one_of(KEYS, NEARLY_LAST))
@example(b"\x01\xff", b"\x02")
def test_no_key_lies_between_a_key_and_the_next(key: bytes, other: bytes) -> None:
    following = next_key(key)
    if following is None:
        assert other <= key
    else:
        assert key < following
        assert len(following) <= 254
        assert other <= key or other >= following


@pytest.mark.parametrize(
    ("bits", "prefix"), [(-1, 0), (17, 0), (0, 1), (3, 0b1000), (16, 65_536), (4, -1)]
)
def test_a_prefix_must_fit_into_0_to_16_bits(bits: int, prefix: int) -> None:
    with pytest.raises(InvalidPrefixError, match="0 to 16 bits") as caught:
        KeyCodec(bits, prefix)
    assert (caught.value.reserved_bits, caught.value.prefix) == (bits, prefix)


@pytest.mark.parametrize("pair", [(True, 1), (1, True), (4.0, 1), (None, 0), (4, "5")])
def test_bits_and_prefix_are_integers(pair: tuple[int, int]) -> None:
    with pytest.raises(InvalidPrefixError):
        KeyCodec(*pair)


@pytest.mark.parametrize(
    ("bits", "capacity", "shortest"),
    [(0, 254, 0), (1, 253, 1), (8, 253, 1), (9, 252, 2), (16, 252, 2)],
)
def test_what_the_prefix_takes_is_missing_from_the_payload(
    bits: int, capacity: int, shortest: int
) -> None:
    codec = KeyCodec(bits, 0)
    assert codec.max_payload_capacity_bytes == codec.payload_capacity_bytes == capacity
    assert codec.min_key_len == shortest
    assert len(codec.encode(bytes(capacity))) <= 254
    with pytest.raises(PayloadTooLargeError) as caught:
        codec.encode(bytes(capacity + 1))
    assert (caught.value.payload_len, caught.value.max) == (capacity + 1, capacity)


@given(CODECS, st.integers(0, 300))
def test_lengths_and_offsets_are_counted_in_bits(codec: KeyCodec, number: int) -> None:
    bits = codec.reserved_bits
    assert codec.payload_bit_offset(number) == bits + 8 * number
    assert codec.min_key_len_for_payload(number) == -(-(bits + 8 * number) // 8)
    capacity = codec.payload_capacity_bytes_for_key_len(number)
    assert capacity == max(0, 8 * number - bits) // 8
    if capacity:
        assert codec.min_key_len_for_payload(capacity) <= number


@given(CODECS, PAYLOADS)
def test_an_encoded_payload_is_the_prefix_the_payload_and_zeros(
    codec: KeyCodec, payload: bytes
) -> None:
    key = codec.encode(payload)
    bits = codec.reserved_bits
    prefix = f"{codec.prefix:0{bits}b}" if bits else ""
    filled = (prefix + bits_of(payload)).ljust(8 * len(key), "0")
    assert bits_of(key) == filled
    assert len(key) == codec.min_key_len_for_payload(len(payload))
    assert codec.matches(key)
    assert codec.decode(key, len(payload)) == payload
    assert payload_to_match(codec, key) == payload


@given(CODECS, PAYLOADS, PAYLOADS)
def test_keys_of_a_family_are_ordered_as_their_payloads(
    codec: KeyCodec, one: bytes, other: bytes
) -> None:
    first, second = codec.encode(one), codec.encode(other)
    assert (one < other, one == other) == (first < second, first == second)


@given(CODECS, st.one_of(KEYS, NEARLY_LAST))
def test_the_bounds_cover_the_keys_of_the_prefix_and_no_others(codec: KeyCodec, key: bytes) -> None:
    start, end = codec.prefix_bounds()
    begins = f"{codec.prefix:0{codec.reserved_bits}b}" if codec.reserved_bits else ""
    of_the_family = bits_of(key).startswith(begins)
    assert codec.matches(key) is of_the_family
    assert of_the_family is (start <= key <= end)
    assert codec.matches(start)
    assert codec.matches(end)


@given(CODECS, st.integers(0, 254), st.binary(min_size=254, max_size=254))
def test_bounds_of_one_length_cover_its_keys(codec: KeyCodec, length: int, tail: bytes) -> None:
    if length < codec.min_key_len:
        with pytest.raises(InvalidKeyLengthError):
            codec.prefix_bounds_for_len(length)
        return
    start, end = codec.prefix_bounds_for_len(length)
    assert len(start) == len(end) == length
    assert codec.new_key_with_len(length) == start
    assert (
        int.from_bytes(end) - int.from_bytes(start) == (1 << 8 * length - codec.reserved_bits) - 1
    )
    assert codec.matches(tail[:length]) is (start <= tail[:length] <= end)


@given(CODECS, CODECS)
def test_the_bounds_of_different_prefixes_of_one_width_are_apart(
    one: KeyCodec, other: KeyCodec
) -> None:
    if one.reserved_bits == other.reserved_bits and one.prefix < other.prefix:
        assert one.prefix_bounds()[1] < other.prefix_bounds()[0]


def test_a_new_key_is_the_shortest_and_all_its_payload_is_zero() -> None:
    codec = KeyCodec(12, 0xABC)
    assert codec.new_key() == b"\xab\xc0"
    assert codec.new_key_with_len(4) == b"\xab\xc0\0\0"
    assert type(codec.new_key()) is bytearray
    for length in (1, 255):
        with pytest.raises(InvalidKeyLengthError) as caught:
            codec.new_key_with_len(length)
        assert (caught.value.len, caught.value.min, caught.value.max) == (length, 2, 254)


def test_a_payload_can_be_put_together_from_pieces() -> None:
    codec = KeyCodec(3, 0b101)
    key = codec.new_key_with_len(4)
    codec.write_payload(key, 0, b"\xde\xad")
    codec.write_payload(key, 2, b"\xbe")
    assert codec.read_payload(key, 0, 3) == b"\xde\xad\xbe"
    assert key.hex() == "bbd5b7c0"


@given(CODECS, st.binary(max_size=12), st.integers(0, 11), st.binary(max_size=11))
def test_a_write_changes_its_range_and_no_other_bit(
    codec: KeyCodec, before: bytes, offset: int, payload: bytes
) -> None:
    key = bytearray(before)
    capacity = codec.payload_capacity_bytes_for_key_len(len(before))
    if len(before) < codec.min_key_len:
        with pytest.raises(InvalidKeyLengthError):
            codec.write_payload(key, offset, payload)
        assert key == before
    elif offset + len(payload) > capacity:
        with pytest.raises(PayloadRangeOutOfBoundsError) as caught:
            codec.write_payload(key, offset, payload)
        error = caught.value
        assert (error.offset, error.len, error.max) == (offset, len(payload), capacity)
        assert key == before
    else:
        codec.write_payload(key, offset, payload)
        start = codec.payload_bit_offset(offset)
        bits = bits_of(before)
        expected = bits[:start] + bits_of(payload) + bits[start + 8 * len(payload) :]
        assert bits_of(key) == expected
        assert codec.read_payload(key, offset, len(payload)) == payload
        assert codec.read_payload_exact(memoryview(key), offset, len(payload)) == payload


@given(CODECS, st.integers(0, 5), st.integers(0, 5), st.integers(0, 255))
def test_a_fill_writes_one_byte_many_times(
    codec: KeyCodec, offset: int, length: int, byte: int
) -> None:
    filled, written = (codec.new_key_with_len(13) for _ in range(2))
    codec.fill_payload(filled, offset, length, byte)
    codec.write_payload(written, offset, bytes([byte]) * length)
    assert filled == written


def test_a_fill_beyond_the_payload_allocates_nothing() -> None:
    with pytest.raises(PayloadRangeOutOfBoundsError):
        KeyCodec(4, 5).fill_payload(bytearray(9), 0, 1 << 60, 0)


@given(CODECS, st.binary(min_size=8, max_size=8), st.integers(0, 8), st.integers(0, 8))
def test_a_copy_takes_what_was_there_even_onto_itself(
    codec: KeyCodec, payload: bytes, source: int, target: int
) -> None:
    key = bytearray(codec.encode(payload))
    length = 8 - max(source, target)
    codec.copy_payload(key, source, key, target, length)
    moved = bytearray(payload)
    moved[target : target + length] = payload[source : source + length]
    assert codec.decode(key, 8) == moved


RangeAct = Callable[[KeyCodec, bytearray, int, int], object]
RANGES: list[RangeAct] = [
    lambda codec, key, offset, length: codec.read_payload(key, offset, length),
    lambda codec, key, offset, length: codec.read_payload_exact(key, offset, length),
    lambda codec, key, offset, length: codec.fill_payload(key, offset, length, 7),
    lambda codec, key, offset, length: codec.copy_payload(key, offset, key, 0, length),
]
RANGE_IDS = ["read", "read_exact", "fill", "copy"]


@pytest.mark.parametrize("act", RANGES, ids=RANGE_IDS)
@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (0, 4), (3, 1), (4, 0)])
def test_a_range_lies_within_the_payload_of_the_key(
    act: RangeAct, offset: int, length: int
) -> None:
    key = bytearray(b"\x5a\xbc\xde\xf0")
    with pytest.raises(PayloadRangeOutOfBoundsError) as caught:
        act(KeyCodec(4, 5), key, offset, length)
    error = caught.value
    assert (error.offset, error.len, error.max) == (offset, length, 3)
    assert key == b"\x5a\xbc\xde\xf0"


@pytest.mark.parametrize("act", RANGES, ids=RANGE_IDS)
def test_a_range_is_of_a_key_that_can_be_one(act: RangeAct) -> None:
    for length in (1, 255):
        with pytest.raises(InvalidKeyLengthError):
            act(KeyCodec(12, 0xABC), bytearray(length), 0, 0)


def test_a_copy_beyond_its_target_changes_nothing() -> None:
    source, target = bytes(9), bytearray(b"\x5a\xbc\xde\xf0")
    with pytest.raises(PayloadRangeOutOfBoundsError):
        KeyCodec(4, 5).copy_payload(source, 0, target, 1, 3)
    assert target == b"\x5a\xbc\xde\xf0"


def test_the_end_of_a_payload_is_a_range_of_nothing() -> None:
    codec, key = KeyCodec(4, 5), bytearray(b"\x5a\xbc\xde\xf1")
    assert codec.read_payload(key, 3, 0) == b""
    codec.write_payload(key, 3, b"")
    assert key == b"\x5a\xbc\xde\xf1"


def test_a_key_of_another_family_is_not_decoded() -> None:
    key = KeyCodec(4, 5).encode(b"\xab\xcd")
    with pytest.raises(PrefixMismatchError):
        KeyCodec(4, 6).decode(key, 2)
    with pytest.raises(PrefixMismatchError):
        KeyCodec(12, 0).decode(b"\0", 0)
    with pytest.raises(PayloadRangeOutOfBoundsError):
        KeyCodec(4, 5).decode(key, 3)
    with pytest.raises(InvalidKeyLengthError):
        KeyCodec(0, 0).decode(bytes(255), 1)


def test_without_a_prefix_every_key_matches_and_its_payload_is_the_key() -> None:
    codec = MatchKey(0, 0, ".*").codec
    assert codec.matches(b"")
    assert payload_to_match(codec, b"whatever") == b"whatever"


def test_a_regex_sees_the_whole_bytes_after_the_prefix() -> None:
    codec = MatchKey(4, 5, ".*").codec
    assert payload_to_match(codec, bytes.fromhex("5abcd0")) == bytes.fromhex("abcd")
    assert payload_to_match(codec, bytes.fromhex("6abcd0")) is None
    assert payload_to_match(codec, b"") is None


def test_packing_a_prefix_around_another_would_lose_where_the_payload_ends() -> None:
    """Why nesting is refused: the combined codec reads one zero byte too many."""
    nested = KeyCodec(4, 5).encode(KeyCodec(4, 6).encode(b"\1\2\3"))
    assert nested.hex() == "5601020300"
    assert payload_to_match(KeyCodec(8, 0x56), nested) == b"\1\2\3\0"


ERRORS = [
    KeyCodecError("what happened"),
    InvalidPrefixError(3, 8),
    InvalidKeyLengthError(255, 2),
    PayloadTooLargeError(255, 254),
    PayloadRangeOutOfBoundsError(3, 4, 5),
    PrefixMismatchError(),
    KeyValidationError(255),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_of_a_key_is_an_invalid_request_with_its_code_and_fields(
    error: ExoStreamError,
) -> None:
    assert isinstance(error, InvalidRequestError)
    assert not error.retryable
    twin = error.again()
    assert (type(twin), str(twin)) == (type(error), str(error))
    assert all(getattr(twin, name) == getattr(error, name) for name in error.fields)
    assert str(error)
    assert all(str(getattr(error, name)) in str(error) for name in error.fields)
    assert f"{type(error).__name__} " in (keys.__doc__ or "")
    assert f" {error.code} " in (keys.__doc__ or "").replace("\n", " ")


def test_codes_of_key_errors_are_their_own() -> None:
    known = {kind.code for kind in vars(errors).values() if hasattr(kind, "code")}
    codes = [error.code for error in ERRORS]
    assert len({*codes, *known}) == len(codes) + len(known)
