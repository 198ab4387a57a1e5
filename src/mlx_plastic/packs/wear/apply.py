"""Put a pack on a base for good: checked, proved to act, then worn."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlx_plastic.errors import PlasticError
from mlx_plastic.packs.format.pack import Manifest, check_lite
from mlx_plastic.packs.store.store import Change, Store
from mlx_plastic.packs.wear.attach import Proof
from mlx_plastic.packs.wear.probe import PROBES, proved

if TYPE_CHECKING:
    from mlx_plastic.base import Base
    from mlx_plastic.packs.ranks.ranks import Profile


@dataclass(frozen=True)
class Applied:
    """A pack that fits its base and acts. change: what is worn now; None if it was only tried."""

    manifest: Manifest
    proof: Proof
    change: Change | None

    def as_dict(self) -> dict[str, Any]:
        m = self.manifest
        return {
            "name": m.name,
            "base": m.base_id,
            "base_fingerprint": m.base_fingerprint,
            "modules": len(m.rank_map),
            "ranks": sorted(set(m.rank_map.values())),
            "alphas": sorted(set(m.alpha_map.values())),
            "dropout": m.training.get("dropout"),
            "megabytes": m.sizes.tensor_bytes / 1e6,
            "max_logit_change": self.proof.max_logit_change,
            "kl_nats": self.proof.mean_kl_nats,
            "probes": len(PROBES),
            "worn": self.change is not None,
        }


def apply_pack(
    store: Store,
    base: Base,
    ref: str,
    *,
    profile: Profile = "lite",
    force: bool = False,
    dry_run: bool = False,
) -> Applied:
    """Check the pack `ref` against `base` and the profile, measure what it changes, then wear it.

    ref: a name in the store; with dry_run also a folder. force: wear it though it is quarantined.
    Raises BaseMismatch or BadPack with every fault, PackNotFound, and PlasticError for a folder that is
    to be worn; then nothing has changed.
    """
    pack = store.open(ref)
    name = pack.manifest.name
    if not dry_run:
        _in_store(store, ref, name, force=force)
    if profile == "lite":
        check_lite(pack.manifest)
    found = proved(base, {name: pack})
    return Applied(pack.manifest, found, None if dry_run else store.activate(name, force=force))


def _in_store(store: Store, ref: str, name: str, *, force: bool) -> None:
    if os.sep in ref:
        raise PlasticError(
            f"{ref} lies outside of this home, whose packs are in {store.home.packs}",
            hint=f"try it with --dry-run, or take it in first: plastic packs add {ref}",
        )
    store.plan_activate(name, force=force)
