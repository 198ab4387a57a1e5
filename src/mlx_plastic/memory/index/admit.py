"""What may be found again: no tagged turns, and no secrets."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_plastic.home import Home
from mlx_plastic.memory.index.sync import Admit
from mlx_plastic.memory.privacy import read_policy, redact_all


def admission(home: Home | None) -> tuple[Admit, str]:
    """How turns are taken in, and the rules by which; what was taken in by other rules is not to be kept."""
    policy = read_policy(home, "index")

    def admit(texts: Sequence[str]) -> list[str | None]:
        """The texts of one conversation, redacted; None for one that is to be left out."""
        return [None if found.dropped else found.text for found in redact_all(texts, policy)]

    rules = [sorted(map(str, part.items())) for part in (policy.rules, policy.code)]
    return admit, repr((rules, policy.people))
