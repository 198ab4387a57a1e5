"""Imported talks are learned as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlx_plastic.memory import Exchange
from mlx_plastic.memory.router import Decision
from mlx_plastic.samples import Sample


def chats_of(exchanges: Sequence[Exchange], *, routed: Mapping[str, Decision] | None = None) -> list[Sample]:
    """Imported talks with new turns, up to their last answer; what this model said is never a lesson.

    An import is meant to be learned from as it is. Only the person's word keeps a talk out: if they have
    routed one of its turns elsewhere.
    """
    kept_out = {d.turn for d in (routed or {}).values() if d.by == "person" and not d.learned}
    samples = []
    for exchange in exchanges:
        turns = list(exchange.turns)
        while turns and turns[-1].role != "assistant":
            turns.pop()
        if exchange.origin == "import" and turns and exchange.new and kept_out.isdisjoint(exchange.new):
            messages = tuple(t.message for t in turns)
            samples.append(Sample(messages, exchange.conversation, tuple(t.id for t in turns), "chat"))
    return samples
