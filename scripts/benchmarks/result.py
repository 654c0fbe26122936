"""A result: one line of the table, with the budget it is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final, Literal, Self

Direction = Literal["at least", "at most"]
Of = Literal["value", "ratio"]

MET: Final = "met"
MISSED: Final = "missed"
UNKNOWN: Final = "not measured"
UNJUDGED: Final = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """What is asked: the value, or its ratio to the peers, at least or at most so much."""

    direction: Direction
    limit: float
    of: Of = "value"
    goal: float | None = None

    def admits(self, figure: float) -> bool:
        """Whether ``figure`` is within the budget."""
        return figure >= self.limit if self.direction == "at least" else figure <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.direction == "at least" else "≤"
        times = " ×" if self.of == "ratio" else ""
        goal = f" (goal {self.goal:,.10g}{times})" if self.goal is not None else ""
        return f"{sign} {round(self.limit, 2):,.10g}{times}{goal}"


@dataclass(frozen=True, slots=True)
class Result:
    """One figure: what every round gave, here and at the peers.

    No rounds means that it could not be measured, and ``note`` says why. A peer without rounds is
    not installed.
    """

    row: str
    what: str
    unit: str = ""
    rounds: Sequence[float] = ()
    peers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    budget: Budget | None = None
    note: str = ""

    @property
    def value(self) -> float | None:
        """The median of the rounds."""
        return median(self.rounds) if self.rounds else None

    @property
    def best(self) -> float | None:
        """The best round; without a budget that says otherwise, more is better."""
        if not self.rounds:
            return None
        less_is_better = self.budget is not None and self.budget.direction == "at most"
        return min(self.rounds) if less_is_better else max(self.rounds)

    @property
    def ratio(self) -> float | None:
        """The median here to that of the best peer."""
        medians = [median(rounds) for rounds in self.peers.values() if rounds]
        if self.value is None or not medians:
            return None
        return self.value / max(medians)

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, ``not measured``, or nothing where there is no budget."""
        if self.budget is None:
            return UNJUDGED if self.rounds else UNKNOWN
        figure = self.ratio if self.budget.of == "ratio" else self.value
        if figure is None:
            return UNKNOWN
        return MET if self.budget.admits(figure) else MISSED

    def to_json(self) -> dict[str, Any]:
        """All of it as a JSON object, what follows from the rounds included."""
        return {
            **asdict(self),
            "value": self.value,
            "best": self.best,
            "ratio": self.ratio,
            "verdict": self.verdict,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """The result that ``to_json`` wrote."""
        budget = found["budget"]
        return cls(
            row=found["row"],
            what=found["what"],
            unit=found["unit"],
            rounds=found["rounds"],
            peers=found["peers"],
            budget=Budget(**budget) if budget else None,
            note=found["note"],
        )
