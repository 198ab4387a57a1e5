"""What the pages need of rooms that serve does not know; whoever starts the server hands it in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx_plastic.memory import Turn


@dataclass(frozen=True)
class Doors:
    """nights: their journals, oldest first. difference: of two, each value as a pair: settings, figures,
    samples, scores; and tasks_lost, tasks_won. plan_forget: what forgetting these turns would do: ids, packs,
    rebuild, seconds. forget: does it, as planned. runs: folders that may hold surveys."""

    nights: Callable[[], Sequence[Any]]
    difference: Callable[[Any, Any], dict[str, Any]]
    plan_forget: Callable[[Sequence[Turn]], Any]
    forget: Callable[[Any], Any]
    runs: tuple[Path, ...]
