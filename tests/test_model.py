"""Values: cursors that can be written down, and rows in the table's one order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo_stream.errors import InvalidRequestError
from exo_stream.model import SEQUENCE_MAX, Batch, Cursor, Entry, Keyspace, row_key

LOG_ID = "0123456789abcdef" * 2


@given(st.from_regex(r"[0-9a-f]{32}", fullmatch=True), st.integers(0, SEQUENCE_MAX))
def test_a_cursor_survives_being_written_down(log_id: str, sequence: int) -> None:
    cursor = Cursor(log_id, sequence)
    assert Cursor.parse(str(cursor)) == cursor


@given(st.text())
def test_any_text_is_a_cursor_that_writes_itself_the_same_or_is_refused(text: str) -> None:
    try:
        assert str(Cursor.parse(text)) == text
    except InvalidRequestError:
        pass


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(LOG_ID, id="no sequence"),
        pytest.param(LOG_ID + ".", id="an empty sequence"),
        pytest.param(LOG_ID + ".1", id="a short sequence"),
        pytest.param(LOG_ID + "." + "0" * 17, id="a long sequence"),
        pytest.param(LOG_ID[1:] + "." + "0" * 16, id="a short log id"),
        pytest.param(LOG_ID.upper() + "." + "0" * 16, id="upper case"),
        pytest.param(LOG_ID + "." + "+" + "0" * 15, id="a sign, which int() would take"),
        pytest.param(LOG_ID + "." + "0_" * 8, id="underscores, which int() would take"),
        pytest.param(LOG_ID + "." + "٣" * 16, id="digits of another script"),
        pytest.param(LOG_ID + ":" + "0" * 16, id="another separator"),
    ],
)
def test_what_is_no_cursor_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^not a cursor: "):
        Cursor.parse(text)


def test_a_long_text_is_not_repeated_whole() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        Cursor.parse("x" * 1_000_000)
    assert len(str(refused.value)) < 100


def test_a_cursor_sorts_as_its_text_does() -> None:
    cursors = [Cursor(LOG_ID, sequence) for sequence in (0, 9, 10, 255, 256, SEQUENCE_MAX)]
    assert sorted(map(str, cursors[::-1])) == list(map(str, cursors))
    assert cursors == sorted(cursors)


def test_a_batch_knows_where_to_resume_after_it() -> None:
    batch = Batch(7, 1, (Entry(Keyspace.STORE, b"k", b"v"),), LOG_ID)
    assert batch.cursor == Cursor(LOG_ID, 7)


@given(
    st.tuples(st.integers(0, 255), st.binary(max_size=4)),
    st.tuples(st.integers(0, 255), st.binary(max_size=4)),
)
def test_row_keys_sort_by_keyspace_and_then_by_key(
    one: tuple[int, bytes], other: tuple[int, bytes]
) -> None:
    assert (row_key(*one) < row_key(*other)) == (one < other)
    assert (row_key(*one) == row_key(*other)) == (one == other)
