"""What a regex means, once it is read: a tree of nodes whose flags have done their work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from exo_stream.regex.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Octets:
    """These bytes, one after the other; none is the empty regex."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class OneOctet:
    """One byte of a set."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class OneCharacter:
    """One character of a set, in UTF-8."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Assertion:
    """A place, not a byte; ``text`` is what RE2 calls it."""

    text: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """``node`` at least ``least`` and at most ``most`` times (None: no bound)."""

    node: Node
    least: int
    most: int | None
    is_greedy: bool


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """The first of these that leads to a match."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Capture:
    """What a named group captures."""

    name: str
    node: Node


Node = Octets | OneOctet | OneCharacter | Assertion | Repeat | Sequence | Choice | Capture


def takes_everything(node: Node) -> bool:
    """Whether a search for ``node`` succeeds in any bytes, because nothing is a match of it."""
    match node:
        case Octets(octets):
            return not octets
        case OneOctet() | OneCharacter() | Assertion():
            return False
        case Repeat(inner, least, _, _):
            return least == 0 or takes_everything(inner)
        case Sequence(nodes):
            return all(map(takes_everything, nodes))
        case Choice(nodes):
            return any(map(takes_everything, nodes))
        case Capture(_, inner):
            return takes_everything(inner)
        case _:
            assert_never(node)
