"""All that a night depends on: the sections of config.toml that it reads, and what suits a base."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mlx_plastic.errors import BadConfig
from mlx_plastic.evals import Policy
from mlx_plastic.home import Home, from_mapping, settings
from mlx_plastic.memory.router import RouterConfig
from mlx_plastic.packs.format.pack import LITE_ATTENTION_RANK, LITE_BYTES
from mlx_plastic.packs.train.config import TrainConfig
from mlx_plastic.sleep.judge import JudgeConfig
from mlx_plastic.sleep.lessons import LessonConfig
from mlx_plastic.sleep.teacher.config import TeacherConfig

if TYPE_CHECKING:
    from mlx_plastic.base import Base

ANCHOR_AGAIN = 1.5  # times the weight of what the base says, when a night is trained again
RATE_TIMES_WIDTH = 1.0  # the peak rate that learns in one night is about this over the hidden size


@dataclass(frozen=True)
class NightConfig(TrainConfig):
    """[night] of config.toml: how a night trains, where that differs from a pack's own training."""

    rank: int = 0  # rows of a; 0: the largest up to 8 whose pack stays within 10 MB
    learning_rate: float = 0.0  # peak; 0: 1 over the base's hidden size
    epochs: float = 6.0
    anchor: float = 4.0
    batch_tokens: int = 768
    valid_every: int = 40
    tries: int = 2  # trainings of one night at most: what the gate refuses by little is trained once more
    chances: int = 3  # nights that a turn is tried in, while only drift refuses them; then it is set aside
    keep: Literal["best", "last"] = "last"  # ten valid samples choose badly, and early steps drift most

    def __post_init__(self) -> None:
        """Raises BadConfig for a number that makes no sense of what a pack's own training does not have."""
        for name in ("tries", "chances"):
            if (value := getattr(self, name)) < 1:
                raise BadConfig(
                    f"[night] {name} is {value}", hint="write a number from 1 up; 1 is no second one"
                )

    def attempt(self, number: int) -> NightConfig:
        """How the night is trained after `number` refusals: other batches, and nearer to the base."""
        return dataclasses.replace(self, seed=self.seed + number, anchor=self.anchor * ANCHOR_AGAIN**number)


@dataclass(frozen=True)
class BudgetConfig:
    """[budget] of config.toml: what a night may cost. It changes how much is learned, never how."""

    minutes: float = 0.0  # judging included; 0: as long as it takes
    memory_mb: int = 0  # of this process at its peak; 0: as much as it needs
    turns: int = 1000  # new user turns in one night; what is over waits for the next
    keep: int = 10  # packs of nights that are kept besides what is worn, pinned or a rollback away

    def check(self) -> None:
        """Raises BadConfig for a number that is none of these."""
        low = {"minutes": 0, "memory_mb": 0, "turns": 1, "keep": 1}
        faults = [
            f"{k} is {getattr(self, k)}, less than {v}" for k, v in low.items() if not getattr(self, k) >= v
        ]
        if faults:
            raise BadConfig(f"[budget]: {'; '.join(faults)}", hint="mend config.toml, or the option")


@dataclass(frozen=True)
class Settings:
    """All that a night depends on, section by section of config.toml."""

    router: RouterConfig = field(default_factory=RouterConfig)
    lessons: LessonConfig = field(default_factory=LessonConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    night: NightConfig = field(default_factory=NightConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    gate: Policy = field(default_factory=Policy)
    budget: BudgetConfig = field(default_factory=BudgetConfig)

    def deciding(self) -> dict[str, Any]:
        """What decides which pack a night makes, as JSON has it: everything but the budget."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in found.items() if name != "budget"}


def parse_settings(value: dict[str, Any], budget: BudgetConfig) -> Settings:
    """The settings that a night's record holds. Raises BadConfig for those of another version."""
    kinds = {f.name: type(getattr(Settings(), f.name)) for f in dataclasses.fields(Settings)}
    where = "the settings of the night that was broken off"
    found = {
        name: from_mapping(kinds[name], part, where=where) for name, part in value.items() if name in kinds
    }
    return Settings(**(found | {"budget": budget}))


def read_settings(home: Home) -> Settings:
    return Settings(
        router=settings(home, "router", RouterConfig),
        lessons=settings(home, "lessons", LessonConfig),
        teacher=settings(home, "teacher", TeacherConfig),
        night=settings(home, "night", NightConfig),
        judge=settings(home, "judge", JudgeConfig),
        gate=settings(home, "gate", Policy),
        budget=settings(home, "budget", BudgetConfig),
    )


def fitted(config: NightConfig, base: Base) -> NightConfig:
    """The settings with a rank and a learning rate that suit the base, where none was given.

    A wide layer adds up more small steps than a narrow one, so the rate goes with 1 / width (Yang et al.
    2022, "Tensor Programs V").
    """
    from mlx_plastic.base import targets  # late: the settings alone need no MLX
    from mlx_plastic.lowrank.layers import dims, stack_size

    modules = targets(base.model, config.role_list).values()
    bytes_per_rank = sum(2 * sum(dims(m)) * math.prod(stack_size(m)) for m in modules)  # float16
    largest = min(LITE_ATTENTION_RANK, LITE_BYTES // max(1, bytes_per_rank))
    width = (
        base.config.get("hidden_size") or (base.config.get("text_config") or {}).get("hidden_size") or 2048
    )
    return dataclasses.replace(
        config,
        rank=config.rank or max(1, largest),
        learning_rate=config.learning_rate or RATE_TIMES_WIDTH / width,
    )
