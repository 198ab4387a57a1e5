"""Which bases suit a machine: the one that is built in, and a few on the hub by what they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mlx_plastic.base.checkpoint import NANO, is_hub_id, shards
from mlx_plastic.errors import BadCheckpoint

BITS_PER_WEIGHT = 4.5  # 4 bits, and a scale and a bias of 16 for each group of 64
FLOAT32_BYTES = 4.0  # on a CPU every base is computed in float32
SHARE = 2.0  # of the weights: a night holds activations, gradients and the cached prefix beside them
SPARE_GB = 1.0
LARGEST_PROPOSED_B = 9.0  # billions of parameters; larger ones answer slowly on most machines

Kind = Literal["metal", "cuda", "cpu"]


@dataclass(frozen=True)
class Offer:
    """A base that can be had. parameters_b: in billions. download_gb: at 4.5 bits for each of them."""

    ref: str
    parameters_b: float
    licence: str
    download_gb: float
    about: str = ""

    def needs_gb(self, kind: Kind) -> float:
        """Memory for chats and nights, in GB: a rule of thumb, nothing measured."""
        if self.ref == NANO:
            return SPARE_GB
        on_disk = self.parameters_b * BITS_PER_WEIGHT / 8
        weights = self.parameters_b * FLOAT32_BYTES if kind == "cpu" else on_disk
        return weights * SHARE + SPARE_GB


def _hub(ref: str, parameters_b: float, about: str = "") -> Offer:
    return Offer(ref, parameters_b, "Apache-2.0", round(parameters_b * BITS_PER_WEIGHT / 8, 1), about)


BUILT_IN = Offer(NANO, 0.004, "MIT", 0.0, "built in; knows nothing of the world: to try the tool")
HUB = (
    _hub("mlx-community/Qwen3-0.6B-4bit", 0.6),
    _hub("mlx-community/Qwen3-1.7B-4bit", 1.7),
    _hub("mlx-community/Qwen3-4B-Instruct-2507-4bit", 4.0),
    _hub("mlx-community/Qwen3-8B-4bit", 8.2),
    _hub("mlx-community/Qwen3-14B-4bit", 14.8),
    _hub("mlx-community/Qwen3-30B-A3B-Instruct-2507-4bit", 30.5, "3 billion of them at a time"),
)


@dataclass(frozen=True)
class Choice:
    """What fits into the memory, smallest first, and which of it to take."""

    fitting: tuple[Offer, ...]
    proposed: Offer
    reason: str
    too_large: tuple[Offer, ...] = field(default=())


def choose(kind: Kind, memory_bytes: int, hub: Sequence[Offer] = HUB) -> Choice:
    """What suits a machine of that kind with so much memory to spare. nano always does.

    On a CPU nothing larger is proposed: it could be held, but nights would take many hours.
    """
    room = memory_bytes / 1e9
    fitting = [BUILT_IN, *(offer for offer in hub if offer.needs_gb(kind) <= room)]
    large = tuple(offer for offer in hub if offer not in fitting)
    if kind == "cpu":
        return Choice(tuple(fitting), BUILT_IN, "without a GPU anything larger learns for many hours", large)
    usual = [offer for offer in fitting if offer.parameters_b <= LARGEST_PROPOSED_B]
    told = f"the largest of up to {LARGEST_PROPOSED_B:g} billion parameters that fits"
    return Choice(tuple(fitting), usual[-1], told if len(usual) > 1 else "nothing larger fits", large)


def is_here(ref: str) -> bool:
    """Whether the base needs no download: built in, a folder, or whole in the hub's cache."""
    if ref == NANO or Path(ref).expanduser().is_dir():
        return True
    if not is_hub_id(ref):
        return False
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(ref, "config.json")
    if not isinstance(found, str):
        return False
    try:
        return all(file.is_file() for file in shards(Path(found).parent))
    except (BadCheckpoint, OSError):
        return False
