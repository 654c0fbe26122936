"""docs/protocol.md says what the code does."""

from __future__ import annotations

from tests.protocol_tables import DOCUMENT, printed


def test_the_tables_of_the_document_are_those_of_the_code() -> None:
    """If this fails, ``python -m tests.protocol_tables`` prints them anew."""
    document = DOCUMENT.read_text()

    assert printed(document) == document
