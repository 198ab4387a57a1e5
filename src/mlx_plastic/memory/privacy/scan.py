"""All detectors behind one function."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module

from mlx_plastic.memory.privacy.page import Page
from mlx_plastic.memory.privacy.placeholders import PLACEHOLDER
from mlx_plastic.memory.privacy.policies import Policy, policy_for
from mlx_plastic.memory.privacy.spans import POSSIBLE, READ, Kind, Span, settle

Detector = Callable[[Page], Iterable[Span]]

# what is found, by which function of which module; each is imported when it is first needed
DETECTORS: tuple[tuple[tuple[Kind, ...], str, str], ...] = (
    (("secret",), "secret_forms", "forms"),
    (("secret",), "secret_words", "told"),
    (("secret",), "secret_near", "near"),
    (("secret",), "secret_codes", "codes"),
    (("secret",), "randomness", "random_strings"),
    (("card",), "numbers", "cards"),
    (("iban",), "numbers", "ibans"),
    (("national_id",), "numbers", "national_ids"),
    (("account",), "numbers", "accounts"),
    (("email",), "patterns", "emails"),
    (("phone",), "phones", "phones"),
    (("ip",), "patterns", "ips"),
    (("url",), "patterns", "urls"),
    (("person", "address"), "names", "people_and_addresses"),
    (("person",), "patterns", "handles"),
    (("profanity",), "profanity", "profanity"),
)


def scan(text: str, policy: Policy | None = None) -> list[Span]:
    """Everything in a text that the policy (None: training's) looks for and is sure enough of.

    In order and without overlaps, what the policy keeps included: ask `policy.action(span.kind)`.
    """
    return scan_all([text], policy)[0]


def scan_all(texts: Sequence[str], policy: Policy | None = None) -> list[list[Span]]:
    """`scan` for the turns of one conversation: what was found in one turn is found in all of them."""
    from mlx_plastic.memory.privacy.propagate import spread

    policy = policy or policy_for("training")
    detectors = _detectors(frozenset((*policy.rules, *policy.code)))
    pages = [Page(text) for text in texts]
    found = [[span for detector in detectors for span in detector(page)] for page in pages]
    found = [_allowed(page, spans, policy) for page, spans in zip(pages, found, strict=True)]
    more = spread(pages, found, policy.people if "person" in policy.rules else ())
    return [
        settle([*spans, *_allowed(page, extra, policy)], page.text)
        for page, spans, extra in zip(pages, found, more, strict=True)
    ]


@cache
def _detectors(kinds: frozenset[Kind]) -> tuple[Detector, ...]:
    wanted = ((module, name) for finds, module, name in DETECTORS if kinds.intersection(finds))
    return tuple(getattr(import_module(f"{__package__}.{module}"), name) for module, name in wanted)


def _allowed(page: Page, spans: Iterable[Span], policy: Policy) -> list[Span]:
    """The finds that the policy speaks of, in code or outside; none that an older placeholder is part of."""
    given = list(spans)
    if not given:
        return []
    code = page.code
    starts = [start for start, _ in code]
    masked = [m.span() for m in PLACEHOLDER.finditer(page.text)] if "[" in page.text else []
    found: list[Span] = []
    for span in given:
        at = bisect_right(starts, span.start) - 1
        rules = policy.code if at >= 0 and span.start < code[at][1] else policy.rules
        rule = rules.get(span.kind)
        if rule and span.confidence >= rule.least:
            found += _around(span, masked) if masked else [span]
    return found


def acted_upon(text: str, spans: Iterable[Span], policy: Policy) -> list[Span]:
    """The second reader's spans that the policy would act upon if a detector had found them, just."""
    guesses = [replace(span, confidence=POSSIBLE) for span in spans]
    return [replace(span, confidence=READ) for span in _allowed(Page(text), guesses, policy)]


def _around(span: Span, masked: Sequence[tuple[int, int]]) -> Iterator[Span]:
    """The span, unless an older placeholder is all or part of it."""
    i = bisect_right(masked, (span.start, len(masked))) - 1
    for start, end in masked[max(0, i) : i + 3]:
        if start < span.end and end > span.start:
            return
    yield span
