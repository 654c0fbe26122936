"""Typed values: checked arithmetic at every bound, and one encoding that ``decode`` insists on.

The first block is the value part of the acceptance cases AC-16.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.canonical.values import (
    I64,
    I256,
    SCALARS,
    U64,
    U128,
    U256,
    Bytes,
    Integer,
    ListOf,
    SetOf,
    String,
    TypedValue,
    decode,
    encode,
)
from exo_stream.errors import InvalidRequestError, InvalidStateError, SerializationError

KINDS: list[type[Integer]] = [I64, U64, U128, U256, I256]


class Stray(I64):
    """A type of somebody else's: nothing says how it would be read again."""


def test_ac16_a_u256_carries_from_limb_to_limb() -> None:
    limb = U256((1 << 64) - 1)
    assert limb.checked_add(U256(1)) == U256(1 << 64)
    assert U256(1 << 128).checked_sub(U256(1)) == U256((1 << 128) - 1)
    assert U256(1 << 127).checked_mul(U256(2)) == U256(1 << 128)


def test_ac16_a_u256_says_that_a_result_does_not_fit() -> None:
    assert U256.maximum().checked_add(U256(1)) is None
    assert U256(0).checked_sub(U256(1)) is None
    assert U256.maximum().checked_mul(U256(2)) is None
    assert U256(0).checked_add(U256(0)) == U256(0)
    assert U256.maximum().value == (1 << 256) - 1


def test_ac16_an_i256_has_negative_numbers() -> None:
    assert I256(0).checked_sub(I256(1)) == I256(-1)
    assert I256.minimum().value == -(1 << 255)
    assert I256.minimum().checked_sub(I256(1)) is None
    assert I256.maximum().checked_add(I256(1)) is None
    assert I256(-1) < I256(0) < I256(1)


def test_ac16_u256_are_ordered_by_their_most_significant_part() -> None:
    assert U256(1 << 255) > U256((1 << 255) - 1) > U256(1 << 64) > U256(2)


def test_ac16_a_set_takes_each_element_once() -> None:
    names = SetOf(String)
    names, new = names.insert(String("a"))
    assert (new, len(names)) == (True, 1)
    names, new = names.insert(String("a"))
    assert (new, len(names)) == (False, 1)
    assert String("a") in names
    assert String("b") not in names
    names, there = names.remove(String("a"))
    assert (there, len(names)) == (True, 0)
    assert names.remove(String("a")) == (names, False)


def test_ac16_a_list_is_pushed_to_inserted_into_and_popped_from() -> None:
    numbers = ListOf(I64).push(I64(1)).push(I64(3)).insert(1, I64(2))
    assert [number.as_i64() for number in numbers] == [1, 2, 3]
    numbers, last = numbers.pop()
    assert (last, len(numbers)) == (I64(3), 2)
    assert ListOf(I64).pop() == (ListOf(I64), None)
    with pytest.raises(InvalidStateError, match="no place 3 in a list of 2"):
        numbers.insert(3, I64(0))


@pytest.mark.parametrize("kind", SCALARS.values(), ids=lambda kind: kind.NAME)
def test_ac16_every_collection_of_every_type_comes_back(kind: type[TypedValue]) -> None:
    made: list[TypedValue] = [kind.parse(decode(encode(value)).body()) for value in some(kind)]
    for value in (SetOf(kind, frozenset(made)), ListOf(kind, tuple(made)), SetOf(kind), *made):
        assert decode(encode(value)) == value


def some(kind: type[TypedValue]) -> list[TypedValue]:
    if issubclass(kind, Integer):
        return [kind.minimum(), kind(1), kind.maximum()]
    return [Bytes(b""), Bytes(b"\x00\xff")] if kind is Bytes else [String(""), String("ä")]


ACCESSORS = {
    "as_i64": I64(-5),
    "as_u64": U64(5),
    "as_u128": U128(5),
    "as_u256": U256(5),
    "as_i256": I256(-5),
    "as_bytes": Bytes(b"b"),
    "as_string": String("s"),
    "as_set": SetOf(I64, frozenset({I64(1)})),
    "as_list": ListOf(I64, (I64(1),)),
}


@pytest.mark.parametrize("name", ACCESSORS)
def test_ac16_an_accessor_gives_its_own_type_and_refuses_every_other(name: str) -> None:
    for other, value in ACCESSORS.items():
        if other == name:
            assert getattr(value, name)() == getattr(value, "value", getattr(value, "items", None))
        else:
            with pytest.raises(InvalidStateError, match=f"type {value.NAME}, not "):
                getattr(value, name)()


def test_ac16_any_integer_is_an_integer() -> None:
    assert [kind(7).as_integer() for kind in KINDS] == [7] * 5
    with pytest.raises(InvalidStateError, match="not integer"):
        String("7").as_integer()


def test_ac16_json_comes_back() -> None:
    value = {"b": [1, 2.5, None, True], "a": {"ä": "x"}}
    kept = Bytes.from_json(value)
    assert kept.to_json() == value
    assert kept.value == '{"a":{"ä":"x"},"b":[1,2.5,null,true]}'.encode()
    assert decode(encode(kept)) == kept


@pytest.mark.parametrize("what", [object(), float("nan"), {1: object()}, b"bytes"])
def test_ac16_what_is_no_json_is_refused(what: object) -> None:
    with pytest.raises(SerializationError) as caught:
        Bytes.from_json(what)
    assert isinstance(caught.value.__cause__, TypeError | ValueError)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000], ids=repr)
def test_ac16_bytes_that_are_no_json_say_so(data: bytes) -> None:
    with pytest.raises(SerializationError):
        Bytes(data).to_json()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.NAME)
@given(data=st.data())
def test_arithmetic_is_that_of_the_integers_or_none(
    kind: type[Integer], data: st.DataObject
) -> None:
    low, high = kind.minimum().value, kind.maximum().value
    numbers = st.integers(low, high) | st.sampled_from([low, low + 1, 0, 1, high - 1, high])
    a, b = data.draw(numbers), data.draw(numbers)
    for result, exact in (
        (kind(a).checked_add(kind(b)), a + b),
        (kind(a).checked_sub(kind(b)), a - b),
        (kind(a).checked_mul(kind(b)), a * b),
    ):
        assert (None if result is None else result.value) == (
            exact if low <= exact <= high else None
        )
    assert (encode(kind(a)) < encode(kind(b))) == (a < b), "bytes sort as numbers do"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.NAME)
def test_a_number_that_does_not_fit_is_refused(kind: type[Integer]) -> None:
    for number in (kind.minimum().value - 1, kind.maximum().value + 1):
        with pytest.raises(InvalidRequestError, match="does not fit"):
            kind(number)
    for other in (True, 1.0, "1", None):
        with pytest.raises(InvalidRequestError, match="made from an int"):
            kind(other)  # type: ignore[arg-type]  # what is refused


def test_integers_of_two_types_are_neither_equal_nor_reckoned_together() -> None:
    assert len({I64(5), U64(5)}) == 2
    with pytest.raises(InvalidStateError, match="its like only"):
        I64(5).checked_add(U64(5))  # type: ignore[arg-type]  # what is refused


def test_elements_are_scalars_of_one_type() -> None:
    with pytest.raises(InvalidStateError, match="of type i64"):
        SetOf(I64, frozenset({U64(1)}))
    with pytest.raises(InvalidStateError, match="of type i64"):
        ListOf(I64).push(String("1"))
    with pytest.raises(InvalidRequestError, match="scalars of one type"):
        ListOf(SetOf)
    with pytest.raises(InvalidRequestError, match="frozenset or a tuple"):
        SetOf(I64, {I64(1)})  # type: ignore[arg-type]  # what is refused


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Bytes("s"), "made from bytes"),  # type: ignore[arg-type]  # what is refused
        (lambda: String(b"s"), "made from a str"),  # type: ignore[arg-type]  # what is refused
        (lambda: String("\ud800"), "surrogates"),
        (lambda: encode("text"), "no typed value"),  # type: ignore[arg-type]  # what is refused
        (lambda: encode(Stray(7)), "is no typed value"),
    ],
)
def test_what_is_no_value_is_refused(make: object, sentence: str) -> None:
    with pytest.raises(InvalidRequestError, match=sentence):
        make()  # type: ignore[operator]  # a table of them has no better type


ONE = b"\x00\x00\x00\x01"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x7f", id="an unknown tag"),
        pytest.param(b"\x01" + bytes(7), id="a short integer"),
        pytest.param(b"\x01" + bytes(9), id="a long integer"),
        pytest.param(b"\x11\xff", id="a string that is no UTF-8"),
        pytest.param(b"\x11\xed\xa0\x80", id="a surrogate"),
        pytest.param(b"\x20", id="a set without the type of its elements"),
        pytest.param(b"\x20\x20", id="a set of sets"),
        pytest.param(b"\x20\x10" + ONE, id="an element that is not there"),
        pytest.param(b"\x20\x10\x00\x00", id="half a length"),
        pytest.param(b"\x20\x10" + ONE + b"b" + ONE + b"a", id="a set that is not sorted"),
        pytest.param(b"\x20\x10" + ONE + b"a" + ONE + b"a", id="an element twice"),
        pytest.param(b"\x21\x01" + ONE + b"a", id="a list of a short integer"),
    ],
)
def test_bytes_in_any_other_form_are_refused(data: bytes) -> None:
    with pytest.raises(SerializationError):
        decode(data)


@given(st.binary(max_size=40))
def test_decoding_is_total_and_what_it_takes_has_no_other_encoding(data: bytes) -> None:
    try:
        value = decode(data)
    except SerializationError:
        return
    assert encode(value) == data


@given(st.frozensets(st.text(max_size=5), max_size=6))
def test_a_set_has_the_same_bytes_however_it_was_made(texts: frozenset[str]) -> None:
    """Hash order is another in every process: the original's sets have other bytes each time."""
    forward, backward = SetOf(String), SetOf(String)
    for text in sorted(texts):
        forward, _ = forward.insert(String(text))
    for text in sorted(texts, reverse=True):
        backward, _ = backward.insert(String(text))
    assert encode(forward) == encode(backward)


def test_a_value_is_of_one_of_the_types() -> None:
    with pytest.raises(TypeError, match="abstract"):
        TypedValue()  # type: ignore[abstract]  # that it is, is the point
