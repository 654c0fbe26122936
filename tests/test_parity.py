"""What the Exoware store does and must be here has a row in the documentation, and a test.

That the tests exist is what ``test_docs.py`` looks at.
"""

from __future__ import annotations

import re

import pytest

from tests.pages import ROOT

PAGE = (ROOT / "docs" / "exoware.md").read_text()
PARITY = PAGE.split("## Parity\n")[1].split("\n## ")[0]
ROWS = dict(re.findall(r"^\| ([^|]+?) \| .* \| ([^|]*?) ?\|$", PARITY, re.MULTILINE))
NAMED = re.compile(r"`tests/test_\w+\.py::test_\w+`")

MUST = (
    "Connect unary and server-stream, JSON and proto, HTTP/1.1",
    "gzip and zstd of requests and responses",
    "Put: an atomic batch, a dense sequence from 1",
    "keys of 0–254 B, values of at most 10 MiB",
    "error reasons, domains and metadata",
    "BadRequest and ErrorInfo on validation",
    "names of detail types",
    "`min_sequence_number` → ABORTED, RetryInfo of 1 s, Detail",
    "detail header, end-stream metadata, `read_bytes`",
    "Get and GetMany: order, duplicates, missing keys",
    "Range: inclusive, empty end, reverse, limit 0, `batch_size`",
    "Reduce: operations, expressions, predicates, groups, z-order, stored rows",
    "Subscribe: at most 16 match keys and value filters, regexes of Rust",
    "since inclusive, 0 is live, past the end is live",
    "replay to live without gap or duplicate, in order",
    "BATCH_EVICTED at set-up and later, with `oldest_retained`; BATCH_NOT_FOUND",
    "a slow subscriber pulls, ingest is unaffected",
    "Get of a whole batch",
    "Prune of keys: groups, order, rules, validation",
    "Prune of the log: four rules",
    "a prune takes a sequence with an empty batch",
    "KeyCodec, StoreKeyPrefix, and their vectors",
    "sessions with a fixed floor; one write across prefixes",
    "reads are tried again, with RetryInfo; Put never by itself",
    "`/health`, `/ready`",
    "durability of an acknowledgement",
    "crash safety: no partial batch, no sequence twice",
)


@pytest.mark.parametrize("feature", MUST)
def test_what_must_be_here_is_shown_by_a_test(feature: str) -> None:
    assert feature in ROWS, "no such row in docs/exoware.md"
    assert NAMED.search(ROWS[feature]), "no test is named"
