"""A compiled regex: linear time in whatever it is searched, and bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from exo_stream.regex.parser import parse
from exo_stream.regex.source import InvalidRegexError
from exo_stream.regex.translation import names, translate
from exo_stream.regex.tree import takes_everything

MEMORY_BYTES_MAX: Final = 1024 * 1024
"""What RE2 may use for one program and its automata; a program that needs more is refused."""

COMPILED_MAX: Final = 256
"""Patterns kept for the next who asks for the same; whoever uses one keeps it anyway."""


class Pattern:
    """What ``compile_regex`` makes of a text; equal texts share one while it is in use."""

    def __init__(self, regex: str) -> None:
        tree = parse(regex)
        self.regex = regex
        self.names = names(tree)
        self.takes_everything = takes_everything(tree)
        self._engine = _engine(translate(tree, captures=False))
        self._capturing = _engine(translate(tree, captures=True)) if self.names else self._engine

    @property
    def size(self) -> int:
        """Instructions of its program: what a byte may cost at worst."""
        return int(self._engine.programsize)

    def matches(self, payload: bytes) -> bool:
        """Whether there is a match anywhere in ``payload``."""
        return self.takes_everything or self._engine.search(payload) is not None

    def search(self, payload: bytes) -> Mapping[str, bytes | None] | None:
        """The first match's named captures, None each that took no part; None without a match."""
        found = self._capturing.search(payload)
        return None if found is None else dict(zip(self.names, found.groups(), strict=True))


@lru_cache(maxsize=COMPILED_MAX)
def compile_regex(regex: str) -> Pattern:
    """The pattern of a regex in the dialect of Rust's ``regex::bytes``.

    Raises InvalidRegexError with what is wrong and where, or with what this engine cannot do.
    """
    return Pattern(regex)


def _engine(text: str) -> Any:
    # Here, for a client or a command that follows by prefix has no use for RE2, which has no types.
    import re2  # noqa: PLC0415  see above

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = MEMORY_BYTES_MAX
    options.log_errors = False
    try:
        return re2.compile(text.encode(), options)
    except re2.error as error:
        said = error.args[0]
        reason = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise InvalidRegexError(f"the regex is too large: {reason[:80]}") from None
