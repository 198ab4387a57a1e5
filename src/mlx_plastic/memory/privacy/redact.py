"""The text as it may go on: finds replaced by placeholders, and what was done, in counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlx_plastic.memory.privacy.placeholders import Placeholders
from mlx_plastic.memory.privacy.policies import Action, Policy, policy_for
from mlx_plastic.memory.privacy.scan import acted_upon, scan_all
from mlx_plastic.memory.privacy.second import SecondReader
from mlx_plastic.memory.privacy.spans import Kind, Span, beside, settle


@dataclass(frozen=True)
class Redacted:
    """text: with placeholders. dropped: the policy wants the whole of it left out.

    spans: what was found, in the places of the text as it was. placeholders: for each what stands there now,
    "" where the policy keeps it. actions: how often what was done to what; this is what an audit may keep.
    read: how much of that the second reader alone found.
    """

    text: str
    dropped: bool
    spans: tuple[Span, ...]
    placeholders: tuple[str, ...]
    actions: dict[tuple[Kind, Action], int]
    read: dict[tuple[Kind, Action], int] = field(default_factory=dict)

    @property
    def masked(self) -> bool:
        return any(action == "mask" for _, action in self.actions)


def redact(text: str, policy: Policy | None = None, placeholders: Placeholders | None = None) -> Redacted:
    """One text as the policy (None: training's) wants it.

    placeholders: a conversation's so far, so that the same thing keeps its number in the next text.
    """
    return redact_all([text], policy, placeholders)[0]


def redact_all(
    texts: Sequence[str],
    policy: Policy | None = None,
    placeholders: Placeholders | None = None,
    reader: SecondReader | None = None,
) -> list[Redacted]:
    """The texts of one conversation as the policy (None: training's) wants them: a thing has one number.

    placeholders: of its earlier texts. What was masked in those is masked in these, however it is said.
    reader: reads them too; what it names besides is masked as well.
    """
    policy = policy or policy_for("training")
    placeholders = placeholders or Placeholders()
    for text in texts:
        placeholders.reserve(text)
    found = [
        settle([*spans, *(s for s in placeholders.again(text) if s.kind in policy.rules)], text)
        for text, spans in zip(texts, scan_all(texts, policy), strict=True)
    ]
    if reader:
        found = _read_again(reader, texts, found, policy)
    return [_redacted(text, spans, policy, placeholders) for text, spans in zip(texts, found, strict=True)]


def _read_again(
    reader: SecondReader, texts: Sequence[str], found: Sequence[list[Span]], policy: Policy
) -> list[list[Span]]:
    """The finds, and what the reader names outside them."""
    both = [
        beside(spans, acted_upon(text, named, policy), text)
        for text, spans, named in zip(texts, found, reader.spans(texts), strict=True)
    ]
    reader.named += sum(len(after) - len(before) for before, after in zip(found, both, strict=True))
    return both


def _redacted(text: str, spans: Sequence[Span], policy: Policy, placeholders: Placeholders) -> Redacted:
    pieces, given, at = [], [], 0
    actions: Counter[tuple[Kind, Action]] = Counter()
    known: dict[tuple[Kind, str], str] = {}
    for span in spans:
        action, found = policy.action(span.kind), (span.kind, text[span.start : span.end])
        actions[span.kind, action] += 1
        if action != "mask":
            given.append("")
            continue
        given.append(known.get(found) or known.setdefault(found, placeholders.of(*found)))
        pieces += [text[at : span.start], given[-1]]
        at = span.end
    dropped = any(action == "drop" for _, action in actions)
    read = Counter((s.kind, policy.action(s.kind)) for s in spans if s.by == "second reader")
    whole = "".join([*pieces, text[at:]])
    return Redacted(whole, dropped, tuple(spans), tuple(given), dict(actions), dict(read))
