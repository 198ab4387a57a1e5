"""Where a turn goes, why, and who decided it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mlx_plastic.errors import BadData
from mlx_plastic.home.config import check_bounds
from mlx_plastic.memory.tags import NO_RAG, NO_TRAIN, PRIVATE

Route = Literal["weights", "retrieval", "both", "neither"]
ROUTES: tuple[Route, ...] = ("weights", "retrieval", "both", "neither")
By = Literal["router", "rule", "tag", "person"]


@dataclass(frozen=True)
class RouterConfig:
    """[router] of config.toml: where what was said goes."""

    enabled: bool = True  # false: all a person says goes to both, as far as its tags let it
    abstain: float = 0.55  # a likeliest route less probable than this means both
    pasted_chars: int = 80  # so much quoted or pasted text beside one's own is looked up as well
    correction_weight: float = 5.0  # of a turn that the person has routed, in lines of the seed set
    meaning: bool = False  # true: also by the sentence embedding, 6 ms a turn; needs the embedder

    def __post_init__(self) -> None:
        """Raises BadConfig for a number that makes no sense. abstain above 1: always both."""
        check_bounds(
            "router", self, dict.fromkeys(("abstain", "pasted_chars", "correction_weight"), (0, math.inf))
        )


@dataclass(frozen=True)
class Decision:
    """The route of a turn.

    score: the probability of the likeliest route, 1.0 where the router was not asked. abstained: it was too
    unsure, hence both. reasons: names of features and sources, the strongest first; never text. own: the
    words that may be learned as the person's; in memory only.
    """

    turn: str
    route: Route
    score: float
    by: By
    reasons: tuple[str, ...] = ()
    abstained: bool = False
    own: str = field(default="", repr=False)

    @property
    def learned(self) -> bool:
        """Whether it may become a lesson."""
        return self.route in ("weights", "both") and bool(self.own.strip())

    def as_dict(self) -> dict[str, Any]:
        return {
            "turn": self.turn,
            "route": self.route,
            "score": self.score,
            "by": self.by,
            "reasons": list(self.reasons),
            "abstained": self.abstained,
        }


def parse_route(text: str) -> Route:
    """The route of that name or first letter. Raises BadData for another."""
    for route in ROUTES:
        if text.lower() in (route, route[0]):
            return route
    raise BadData(f"unknown route {text!r}", hint=f"use one of {', '.join(ROUTES)}, or its first letter")


WITH_LOOKUP: dict[Route, Route] = {"weights": "both", "neither": "retrieval"}
WITHOUT_LOOKUP: dict[Route, Route] = {"both": "weights", "retrieval": "neither"}
WITHOUT_WEIGHTS: dict[Route, Route] = {"both": "retrieval", "weights": "retrieval"}


def under_tags(decision: Decision, tags: frozenset[str]) -> Decision:
    """The decision as far as the turn's tags let it: a tag is never overruled."""
    route = decision.route
    if NO_TRAIN in tags:
        route = WITHOUT_WEIGHTS.get(route, route)
    if NO_RAG in tags:
        route = WITHOUT_LOOKUP.get(route, route)
    if PRIVATE in tags:
        route = "neither"
    if route == decision.route:
        return decision
    reasons = tuple(f"#{tag}" for tag in sorted(tags))
    return replace(decision, route=route, by="tag", reasons=reasons, abstained=False)


def counts(decisions: Iterable[Decision]) -> dict[str, Any]:
    """How many turns went where and their shares, for a night's journal; never text.

    abstained: both because the router was unsure. corrected: by the person.
    """
    made = list(decisions)
    by_route = Counter(d.route for d in made)
    return {
        "turns": len(made),
        **{route: by_route[route] for route in ROUTES},
        "shares": {route: round(by_route[route] / len(made), 4) if made else 0.0 for route in ROUTES},
        "abstained": sum(d.abstained for d in made),
        "corrected": sum(d.by == "person" for d in made),
    }
