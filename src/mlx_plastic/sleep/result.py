"""How a night ended, for people and for scripts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from mlx_plastic.evals import Report, Verdict

Outcome = Literal["nothing", "dry-run", "stopped", "passed", "failed"]


@dataclass(frozen=True)
class Night:
    """How a night ended. counts: samples by kind and part. routes: turns by where they went, and shares.

    before, after: what was measured; may be empty.
    """

    outcome: Outcome
    tag: str = ""
    reason: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    verdict: Verdict | None = None
    before: Report | None = None
    after: Report | None = None
    seconds: float = 0.0
    routes: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "tag": self.tag,
            "reason": self.reason,
            "counts": self.counts,
            "routes": self.routes,
            "seconds": self.seconds,
            "verdict": self.verdict and self.verdict.as_dict(),
            "before": self.before and self.before.as_dict(),
            "after": self.after and self.after.as_dict(),
        }
