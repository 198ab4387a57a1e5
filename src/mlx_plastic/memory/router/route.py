"""Text -> route: provenance first, then the weights, then what the person said of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mlx_plastic.memory.records import Turn
from mlx_plastic.memory.router.decision import (
    ROUTES,
    WITH_LOOKUP,
    WITHOUT_WEIGHTS,
    Decision,
    Route,
    RouterConfig,
    under_tags,
)
from mlx_plastic.memory.router.features import Embed
from mlx_plastic.memory.router.model import Model, shipped
from mlx_plastic.memory.router.provenance import Heard, Span, own_words, spans_of

NEVER_OURS = ("model", "recalled")  # not even when the person says that a turn is to be learned


@dataclass(frozen=True)
class Router:
    """Weights and settings; `decide` only computes."""

    model: Model
    config: RouterConfig
    embed: Embed | None = None

    def decide(self, turn: Turn, *, label: Route | None = None, heard: Heard | None = None) -> Decision:
        """Where the turn goes. label: what the person said of it. heard: who said what first."""
        spans = spans_of(turn.content, heard)
        decision = self._of_person(turn, spans) if turn.role == "user" else self._of_others(turn)
        if label is not None and turn.role == "user":
            decision = _corrected(decision, turn, spans, label)
        return under_tags(decision, turn.tags)

    def _of_person(self, turn: Turn, spans: tuple[Span, ...]) -> Decision:
        own = own_words(turn.content, spans)
        foreign = [s for s in spans if s.source != "person"]
        sources = tuple(f"pasted: {source}" for source in dict.fromkeys(s.source for s in foreign))
        if not own:
            return Decision(turn.id, "retrieval" if foreign else "neither", 1.0, "rule", sources)
        decision = self._judged(turn.id, own) if self.config.enabled else _unrouted(turn.id, own)
        if sum(s.end - s.start for s in foreign) >= self.config.pasted_chars:
            route, reasons = decision.route, (*sources, *decision.reasons)
            decision = replace(decision, route=WITH_LOOKUP.get(route, route), reasons=reasons)
        return decision

    def _of_others(self, turn: Turn) -> Decision:
        """What was not said by the person is never learned; worth looking up if the person's would be."""
        if turn.role == "system":
            return Decision(turn.id, "neither", 1.0, "rule", ("a system message",))
        decision = self._judged(turn.id, turn.content)
        route = WITHOUT_WEIGHTS.get(decision.route, decision.route)
        return replace(decision, route=route, by="rule", reasons=("said by the model",), own="")

    def _judged(self, turn: str, own: str) -> Decision:
        meaning = self.embed([own])[0] if self.embed else None
        chances, reasons = self.model.judge(own, meaning)
        top = int(chances.argmax())
        score = round(float(chances[top]), 4)
        if score >= self.config.abstain:
            return Decision(turn, ROUTES[top], score, "router", reasons, own=own)
        likeliest = (f"{ROUTES[i]} {chances[i]:.2f}" for i in np.argsort(-chances)[:2])
        return Decision(turn, "both", score, "router", ("unsure: " + ", ".join(likeliest),), True, own)


def _unrouted(turn: str, own: str) -> Decision:
    return Decision(turn, "both", 1.0, "rule", ("the router is off",), own=own)


def _corrected(decision: Decision, turn: Turn, spans: tuple[Span, ...], label: Route) -> Decision:
    """The person's word: what the router took for pasted is theirs then, but never a model's words."""
    kept = (s if s.source in NEVER_OURS else replace(s, source="person") for s in spans)
    own = own_words(turn.content, kept)
    return replace(decision, route=label, by="person", reasons=("you said so",), abstained=False, own=own)


def plain_router() -> Router:
    """With the weights that come with the package: knows no corrections."""
    return Router(shipped(), RouterConfig())
