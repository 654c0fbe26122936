"""The JSON of rules and requests: what is a document, and what is none."""

from __future__ import annotations

import pytest

from exo_stream.documents import parsed


def test_a_document_is_its_value() -> None:
    assert parsed('{"ä": [1, null, {"b": "x"}]}'.encode()) == {"ä": [1, None, {"b": "x"}]}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"\xff", "codec can't decode"),
        (b'{"a": {"b": 1, "b": 1}}', "a field stands in one object twice"),
        (b"[" * 100_000, "too much within one another"),
    ],
)
def test_what_is_none_is_a_value_error_that_says_why(document: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parsed(document)
