"""What ``scan --reduce`` prints: results, or a line for each group. Its request is a document."""

from __future__ import annotations

from argparse import Namespace
from typing import Final, assert_never

import trio

from exo_stream.cli.connection import connected
from exo_stream.cli.exit_codes import OK
from exo_stream.cli.output import Output
from exo_stream.cli.tables import print_table
from exo_stream.cli.wording import Json, readable
from exo_stream.errors import InvalidRequestError
from exo_stream.reduce.document import decode_request, scalar_value
from exo_stream.reduce.expressions import (
    Arithmetic,
    DateTruncDay,
    Expression,
    KeyField,
    Lower,
    ValueField,
    ZOrderKeyField,
)
from exo_stream.reduce.request import Reducer, ReduceRequest, ReduceResult
from exo_stream.reduce.scalar import Kind, Scalar

_NAME_MAX: Final = 4096
"""No file has a longer name."""


async def reduce(args: Namespace, bounds: tuple[bytes, bytes] | None, out: Output) -> int:
    """Print what the document makes of a range; None is the range in which nothing can be."""
    if args.limit is not None or args.reverse:
        raise InvalidRequestError("--reduce reads all of a range; the document has its own limit")
    request = decode_request(await _document(args.reduce))
    if bounds is None:
        bounds = (b"\x01", b"\x00")  # an end before its start: the request is still judged
    async with connected(args) as client:
        result = await client.reduce(request, *bounds)
    _print(request, result, out)
    return OK


async def _document(argument: str) -> bytes:
    """The argument itself if it is a JSON object, else the file that it names."""
    if argument.lstrip().startswith("{"):
        await trio.lowlevel.checkpoint()
        return argument.encode(errors="surrogateescape")
    if not argument or len(argument) > _NAME_MAX:
        await trio.lowlevel.checkpoint()
        raise InvalidRequestError("--reduce takes a JSON object, or the name of a file of one")
    return await trio.Path(argument).read_bytes()


def _print(request: ReduceRequest, result: ReduceResult, out: Output) -> None:
    if not request.group_by:
        if out.is_json:
            out.object({**_values("results", result.results), **_facts(result)})
            return
        names = map(_reducer_name, request.reducers)
        print_table(out, ["reducer", "result"], zip(names, map(_cell, result.results), strict=True))
        return
    if out.is_json:
        for group in result.groups:
            out.object(
                {**_values("group", group.group_values), **_values("results", group.results)}
            )
        return
    columns = [*map(_name, request.group_by), *map(_reducer_name, request.reducers)]
    rows = [[_cell(s) for s in (*group.group_values, *group.results)] for group in result.groups]
    print_table(out, columns, rows)


def _values(name: str, scalars: tuple[Scalar | None, ...]) -> dict[str, Json]:
    return {name: [_json(scalar) for scalar in scalars]}


def _facts(result: ReduceResult) -> dict[str, Json]:
    return {"sequence": result.sequence, "read_bytes": result.read_stats.read_bytes}


def _json(scalar: Scalar | None) -> Json:
    value = scalar_value(scalar)
    assert value is None or isinstance(value, str | int | float), value
    return value


def _cell(scalar: Scalar | None) -> str:
    """A value for people; a null is nothing, which no value is."""
    if scalar is None:
        return ""
    if scalar.kind is Kind.UTF8:
        return readable(str(scalar.value).encode())
    return str(scalar_value(scalar))


def _reducer_name(reducer: Reducer) -> str:
    name = reducer.op.name.lower()
    return name if reducer.expr is None else f"{name} {_name(reducer.expr)}"


def _name(expression: Expression) -> str:
    """An expression, short enough for the head of a column."""
    match expression:
        case KeyField(bit_offset=offset):
            name = f"key[{offset}]"
        case ZOrderKeyField(bit_offset=offset, field_position=position):
            name = f"z_order_key[{offset}][{position}]"
        case ValueField(index=index):
            name = f"value[{index}]"
        case Scalar():
            name = _cell(expression)
        case Arithmetic(operator=operator, left=left, right=right):
            name = f"{operator.value}({_name(left)}, {_name(right)})"
        case Lower(operand=operand):
            name = f"lower({_name(operand)})"
        case DateTruncDay(operand=operand):
            name = f"date_trunc_day({_name(operand)})"
        case _:
            assert_never(expression)
    return name
