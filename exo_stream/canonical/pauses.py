"""Pauses that were asked for from afar: each has a name, so that it counts once and can be found.

Such a pause outlives the connection it was asked for on. To lift it with the connection would let
writes in behind the back of somebody who believes that there are none; so whoever finds writes
paused may end it, by its name or without knowing any.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from exo_stream.errors import InvalidRequestError, InvalidStateError, OverloadedError
from exo_stream.pause import Pause

NAME_BYTES_MAX: Final = 64
PAUSES_MAX: Final = 256
"""As many at a time."""
ENDED_MAX: Final = 1_024
"""So many of the last that ended are remembered: their beginning may still be on its way."""


class NamedPauses:
    """The named ones among the pauses of ``pause``."""

    def __init__(self, pause: Pause, settle: Callable[[], Awaitable[None]]) -> None:
        self._pause = pause
        self._settle = settle
        self._begun: dict[bytes, None] = {}
        self._beginning: dict[bytes, list[trio.CancelScope]] = {}
        self._ended: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._begun)

    async def begin(self, name: bytes) -> None:
        """Refuse writes until the pause of this name ends; return once none is under way.

        If it has begun already nothing is changed. Raises InvalidStateError if it ended before
        it had begun, OverloadedError if there are too many.
        """
        if type(name) is not bytes or not 0 < len(name) <= NAME_BYTES_MAX:
            raise InvalidRequestError(f"the name of a pause is 1 to {NAME_BYTES_MAX} bytes")
        await trio.lowlevel.checkpoint()
        if name in self._begun:
            return
        if len(self._begun) + len(self._beginning) >= PAUSES_MAX:
            raise OverloadedError(f"there are {PAUSES_MAX} pauses already")
        if name not in self._ended:
            with trio.CancelScope() as scope:
                await self._begin(name, scope)
        if name not in self._begun:
            raise InvalidStateError("this pause has ended")

    async def _begin(self, name: bytes, scope: trio.CancelScope) -> None:
        scopes = self._beginning.setdefault(name, [])
        scopes.append(scope)
        try:
            await self._pause.pause(self._settle)
            if name in self._begun or name in self._ended:
                # Asked for twice, it was waited for twice, and is one pause; or none any more.
                self._pause.resume()
            else:
                self._begun[name] = None
        finally:
            scopes.remove(scope)
            if not scopes:
                del self._beginning[name]

    def end(self, name: bytes) -> int:
        """End the pause of this name, begun or not; answer how many that were, 0 or 1."""
        self._ended[name] = None
        while len(self._ended) > ENDED_MAX:
            self._ended.popitem(last=False)
        for scope in self._beginning.get(name, ()):
            scope.cancel()
        if name not in self._begun:
            return 0
        del self._begun[name]
        self._pause.resume()
        return 1

    def end_all(self) -> int:
        """End every pause that has begun; answer how many that were."""
        return sum([self.end(name) for name in tuple(self._begun)])
