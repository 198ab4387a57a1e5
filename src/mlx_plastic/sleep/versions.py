"""Which versions stay: the packs that nights made, the last so many of them and all that is pinned."""

from __future__ import annotations

import logging

from mlx_plastic.sleep.doors import Doors
from mlx_plastic.sleep.journal import nights

log = logging.getLogger(__name__)


def tidy(doors: Doors) -> list[str]:
    """Remove packs of nights beyond the last `[budget] keep`; returns their names.

    What a person made or took in by hand is theirs to remove: `plastic packs gc`. Samples and verdicts of
    the nights stay, so that later nights rehearse them.
    """
    made = {j.record.tag for j in nights(doors.home)}
    plan = doors.store.plan_gc(keep=doors.chosen.budget.keep)
    gone = [fate.name for fate in plan if not fate.keep and fate.name in made]
    if gone:
        doors.store.remove(*gone)
    return gone
