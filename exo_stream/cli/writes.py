"""The commands that change something: put, delete."""

from __future__ import annotations

from argparse import Namespace

from exo_stream.cli.connection import connected
from exo_stream.cli.exit_codes import OK
from exo_stream.cli.output import Output


async def put(args: Namespace, out: Output) -> int:
    """Write one value; print the sequence number of its batch."""
    require = {args.key: args.require} if args.require is not None else None
    async with connected(args) as client:
        sequence = await client.write(puts=[(args.key, args.value)], require=require)
    out.answer({"sequence": sequence}, str(sequence))
    return OK


async def delete(args: Namespace, out: Output) -> int:
    """Delete keys in one batch; print its sequence number."""
    require = dict.fromkeys(args.keys, args.require) if args.require is not None else None
    async with connected(args) as client:
        sequence = await client.write(deletes=args.keys, require=require)
    out.answer({"sequence": sequence}, str(sequence))
    return OK
