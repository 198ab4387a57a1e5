"""The profile `lite`: what a pack may weigh by default."""

from __future__ import annotations

from mlx_plastic.errors import BadPack
from mlx_plastic.packs.format.manifest import Manifest

LITE_ATTENTION_RANK = 8
LITE_BYTES = 10_000_000


def check_lite(manifest: Manifest) -> None:
    """The guardrails of the profile `lite`: attention ranks <= 8 and at most 10 MB.

    Raises BadPack with every module that breaks them.
    """
    faults = [
        f"{path} has rank {rank}, more than {LITE_ATTENTION_RANK}"
        for path, rank in manifest.rank_map.items()
        if rank > LITE_ATTENTION_RANK and is_attention(path)
    ]
    if manifest.sizes.tensor_bytes > LITE_BYTES:
        faults.append(f"{manifest.sizes.tensor_bytes / 1e6:.1f} MB is more than {LITE_BYTES / 1e6:.0f} MB")
    if faults:
        raise BadPack(
            f"pack {manifest.name!r} is beyond the profile lite:"
            + "".join(f"\n  - {fault}" for fault in faults),
            hint="train with a smaller rank or fewer roles",
        )


def is_attention(path: str) -> bool:
    """Whether the module at `path` belongs to attention, by the names that model code uses."""
    return any("attn" in part or "attention" in part for part in path.split("."))
