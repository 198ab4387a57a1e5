"""Whether a compressed checkpoint may be used in place of its base: predictions, perplexity and tasks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_plastic.evals import Reason, Verdict, load_tasks, run_harness
from mlx_plastic.home.config import check_bounds

if TYPE_CHECKING:
    from mlx_plastic.packs.extract.divergence import Distance

Tick = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Bounds:
    """What compression may cost."""

    max_kl_nats: float = 0.1  # per token, on texts held out
    max_ppl_rise_pct: float = 5.0  # percent of their perplexity
    max_tasks_lost_pct: float = 5.0  # percent of the tasks that the base passes, at least one

    def __post_init__(self) -> None:
        """Raises BadConfig for a bound that nothing could keep to."""
        names = ("max_kl_nats", "max_ppl_rise_pct", "max_tasks_lost_pct")
        check_bounds("compress", self, dict.fromkeys(names, (0, math.inf)))


@dataclass(frozen=True)
class Judged:
    """base, ours: on texts that the plan has not seen; their KL is that from the base."""

    base: Distance
    ours: Distance
    verdict: Verdict

    def as_dict(self) -> dict[str, Any]:
        return {
            "kl_nats": self.ours.kl_nats,
            "kl_spread": self.ours.spread,
            "ppl_base": self.base.perplexity,
            "ppl": self.ours.perplexity,
            "tokens": self.ours.tokens,
            **self.verdict.as_dict(),
        }


def judge(
    ref: str,
    folder: Path,
    data: Path,
    bounds: Bounds,
    *,
    harness: bool = True,
    cache: Path | None = None,
    tick: Tick | None = None,
) -> Judged:
    """Hold the checkpoint in `folder` against `ref`: on the share of `data` kept for judging, and on tasks.

    One of the two models is in memory at a time.
    """
    from mlx_plastic.base import load_base  # late: the bounds alone need no MLX
    from mlx_plastic.compress.texts import read_texts
    from mlx_plastic.packs.extract.divergence import reference

    tell = tick or (lambda *_: None)
    base = load_base(ref, cache=cache)
    asked = load_tasks() if harness else []
    texts = read_texts(base, data, tokens=1).judged
    steps, total = itertools.count(1), 2 * len(texts)

    def one_more() -> None:
        tell(next(steps), total, "measuring")

    with reference(base.model, texts, on_piece=one_more) as first:
        before = run_harness(base, asked).passed if asked else {}
        del base
        small = load_base(str(folder), cache=cache)
        ours = first.distance(small.model, on_piece=one_more)
        after = run_harness(small, asked).passed if asked else {}
        own = first.own
    return Judged(own, ours, decide(own, ours, before, after, bounds))


def decide(
    base: Distance, ours: Distance, before: Mapping[str, bool], after: Mapping[str, bool], bounds: Bounds
) -> Verdict:
    """Pure. A number that is none fails its bound."""
    rise = 100 * (ours.perplexity / base.perplexity - 1)
    passed = sum(before.values())
    lost = sum(ok and not after.get(name, False) for name, ok in before.items())
    most = max(1.0, bounds.max_tasks_lost_pct / 100 * passed)
    reasons = [
        _reason(
            *("kl_nats", 0.0, ours.kl_nats, ours.kl_nats, bounds.max_kl_nats, "nats/token"),
            "KL from the base on held-out text",
            n=ours.tokens,
        ),
        _reason(
            *("ppl_rise", base.perplexity, ours.perplexity, rise, bounds.max_ppl_rise_pct, "%"),
            "rise of perplexity on held-out text",
            n=ours.tokens,
        ),
    ]
    if before:
        reasons.append(
            _reason(
                *("tasks_lost", float(passed), float(passed - lost), float(lost), most, "tasks"),
                "tasks that the base passes and this does not",
                n=len(before),
            )
        )
    unjudged = () if before else (("tasks_lost", "the harness was not run"),)
    return Verdict(all(reason.ok for reason in reasons), tuple(reasons), unjudged)


def _reason(
    bound: str, before: float, after: float, change: float, limit: float, unit: str, what: str, *, n: int
) -> Reason:
    text = f"{what}: {change:.4g} {unit}, at most {limit:.4g} is allowed"
    return Reason(bound, before, after, change, limit, unit, change <= limit, text, n=n)
