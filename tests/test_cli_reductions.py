"""``exo-stream scan --reduce``, against a server process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from exo_stream.cli import reductions
from exo_stream.cli.exit_codes import ERROR, OK, USAGE
from exo_stream.client import connect
from exo_stream.reduce.expressions import (
    Arithmetic,
    DateTruncDay,
    KeyField,
    Lower,
    Operator,
    ZOrderKeyField,
)
from exo_stream.reduce.scalar import Kind, Scalar
from exo_stream.reduce.stored_row import Cell, CellTag, encode_row
from tests.served import Said, Served, serving, speak

pytestmark = pytest.mark.slow  # a server is started, and each command opens a connection

Say = Callable[..., Said]

SPEC = """{"reducers": [{"op": "count_all"},
                 {"op": "sum_field", "expr": {"value": {"index": 0, "kind": "int64"}}}]"""
GROUPED = SPEC + ', "group_by": [{"value": {"index": 1, "kind": "utf8", "nullable": true}}]}'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served") / "x.duckdb") as server:
        rows = {b"a1": (1, "x"), b"a2": (2, None), b"b1": (4, "x")}

        async def fill() -> None:
            async with connect(server.url) as client:
                await client.put_batch([(key, row(*cells)) for key, cells in rows.items()])

        trio.run(fill)
        yield server


def row(number: int, text: str | None) -> bytes:
    return encode_row(
        [Cell(CellTag.I64, number), None if text is None else Cell(CellTag.UTF8, text)]
    )


@pytest.fixture
def ask(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, served: Served
) -> Say:
    """The command line, in this process, talking to the server."""
    monkeypatch.setenv("EXO_STREAM_URL", served.url)
    return partial(speak, capfdbinary)


def test_results_are_an_object_or_a_line_each(ask: Say) -> None:
    said = ask("scan", "--prefix", "a", "--reduce", SPEC + "}", "--json")
    size = sum(2 + len(row(*cells)) for cells in ((1, "x"), (2, None)))
    assert said.objects == [{"results": [2, 3], "sequence": 1, "read_bytes": size}]

    said = ask("scan", "--reduce", SPEC + "}")
    assert said.out.decode() == "count_all\t3\nsum_field value[0]\t7\n"


def test_groups_are_an_object_or_a_line_each(ask: Say, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(GROUPED)

    said = ask("scan", "--reduce", str(spec), "--json")
    assert said.objects == [
        {"group": [None], "results": [1, 2]},
        {"group": ["x"], "results": [2, 5]},
    ]
    assert ask("scan", "--reduce", str(spec)).out.decode() == "\t1\t2\nx\t2\t5\n"


def test_a_range_in_which_nothing_can_be_reduces_to_nothing(ask: Say) -> None:
    said = ask("scan", "--start", "z", "--end", "a", "--reduce", SPEC + "}", "--json")

    assert said.code == OK
    assert said.objects == [{"results": [0, None], "sequence": 1, "read_bytes": 0}]


@pytest.mark.parametrize(
    ("spec", "options", "sentence"),
    [
        ("{", (), "not a document"),
        ("{}", (), "there is neither a reducer nor anything to group by"),
        (SPEC + "}", ("--reverse",), "--reduce reads all of a range"),
        (SPEC + "}", ("--limit", "3"), "--reduce reads all of a range"),
        ("/nowhere/at/all", (), "No such file"),
        ("", (), "--reduce takes a JSON object, or the name of a file of one"),
        ("[" * 100_000, (), "--reduce takes a JSON object, or the name of a file of one"),
        ('{"reducers": ' + "[" * 100_000, (), "not a document: too much within one another"),
    ],
)
def test_a_request_that_breaks_a_rule_is_said_to(
    ask: Say, spec: str, options: tuple[str, ...], sentence: str
) -> None:
    said = ask("scan", "--reduce", spec, *options)

    assert said.code == (ERROR if sentence == "No such file" else USAGE)
    assert sentence in said.err


def test_an_expression_has_a_short_name() -> None:
    expression = Arithmetic(
        Operator.DIV,
        DateTruncDay(KeyField(64, Kind.DATE64)),
        Lower(
            Arithmetic(
                Operator.ADD, ZOrderKeyField(0, 1, (8, 8), Kind.INT64), Scalar(Kind.INT64, 3)
            )
        ),
    )

    assert reductions._name(expression) == (
        "div(date_trunc_day(key[64]), lower(add(z_order_key[0][1], 3)))"
    )
