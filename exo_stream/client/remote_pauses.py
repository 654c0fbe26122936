"""Pauses of a server's writes that this client has asked for, the last of them first to end."""

from __future__ import annotations

from secrets import token_bytes
from typing import Final

import trio

from exo_stream.client.call import Call
from exo_stream.client.link import Link
from exo_stream.protocol import canonical_messages as c

NAME_BYTES: Final = 16


class RemotePauses:
    """The pauses of one client; each has a name, so that one asked for twice counts once.

    They outlive the connection, and the client: nothing is written behind the back of somebody
    who believes that nothing is. Whoever is left with one ends it with ``end_all``.
    """

    def __init__(self, link: Link, *, all_faces: bool) -> None:
        self._link = link
        self._all_faces = all_faces
        self._names: list[bytes] = []

    async def begin(self) -> None:
        """Refuse writes from now on; return once those under way are over.

        Cancelled, or failed, before it returns, it has not happened.
        """
        name, all_faces = token_bytes(NAME_BYTES), self._all_faces
        try:
            await self._link.ask(Call(lambda id_, _: c.PauseWrites(id_, name, all_faces)))
        except BaseException:
            # It may have arrived, and may be about to begin.
            self._link.post(self._ending(name))
            raise
        self._names.append(name)

    async def end(self) -> None:
        """Undo the last one; without any it does nothing."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._names:
            return
        name = self._names.pop()
        try:
            await self._link.ask(self._ending(name))
        except BaseException:
            self._names.append(name)  # to end it once more does no harm
            raise

    async def end_all(self) -> int:
        """End every pause that was asked for from afar, by whomever; how many there were."""
        reply = await self._link.ask(self._ending(None))
        assert isinstance(reply, c.Resumed), reply
        self._names.clear()
        return reply.pauses

    def _ending(self, name: bytes | None) -> Call:
        all_faces = self._all_faces
        return Call(lambda id_, _: c.ResumeWrites(id_, name, all_faces))
