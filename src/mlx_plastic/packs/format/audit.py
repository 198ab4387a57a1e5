"""Is a pack still what it was, who vouches for it, and which base is it for: everything read anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlx_plastic.errors import BadPack, PackNotFound
from mlx_plastic.packs.format.pack import Pack
from mlx_plastic.packs.format.sign import can_check, is_genuine
from mlx_plastic.packs.store.store import Store

Vouched = Literal["none", "genuine", "forged", "unchecked"]


@dataclass(frozen=True)
class Finding:
    """What is known of one pack after every byte of it was read. faults: why it is not to be worn."""

    name: str
    faults: tuple[str, ...]
    signature: Vouched = "none"  # "unchecked": the package that checks it is missing
    signer: str = ""  # public key in hex
    signed_name: str = ""  # the pack's name when it was signed
    base_fingerprint: str = ""

    @property
    def sound(self) -> bool:
        return not self.faults


@dataclass(frozen=True)
class Demand:
    """Whose signature a pack must have: by one of these public keys (hex), or (required) by anybody."""

    trusted: frozenset[str] | None = None
    required: bool = False

    @property
    def any(self) -> bool:
        return self.required or self.trusted is not None


def audit(store: Store, ref: str, *, fingerprint: str | None = None, demand: Demand | None = None) -> Finding:
    """Read a pack of the store, or in a folder, to its last byte, and judge it.

    Raises PlasticError if a signature is demanded and the package that checks it is missing.
    """
    try:
        pack = store.open(ref)
    except (BadPack, PackNotFound) as error:
        return Finding(ref, _told(error.message))
    return judge(pack, ref, fingerprint=fingerprint, demand=demand)


def judge(pack: Pack, ref: str, *, fingerprint: str | None = None, demand: Demand | None = None) -> Finding:
    """What is to be said of a pack whose files are sound. fingerprint: the base that it must be for."""
    demand = demand or Demand()
    manifest, signed = pack.manifest, pack.signature
    vouched = _vouched(pack, demand)
    faults = []
    if fingerprint is not None and manifest.base_fingerprint != fingerprint:
        found = manifest.base_fingerprint
        faults.append(f"it is for base {found[:12]} ({manifest.base_id}), not {fingerprint[:12]}")
    if vouched == "forged":
        faults.append("its signature is not of this pack: one of the two was changed")
    if vouched == "none" and demand.any:
        faults.append("it is not signed")
    if (
        vouched == "genuine"
        and signed
        and demand.trusted is not None
        and signed.public_key not in demand.trusted
    ):
        faults.append(f"it is signed by {signed.public_key}, which is not trusted")
    if signed is None:
        return Finding(ref, tuple(faults), base_fingerprint=manifest.base_fingerprint)
    return Finding(
        ref,
        tuple(faults),
        vouched,
        signed.public_key,
        signed.name,
        base_fingerprint=manifest.base_fingerprint,
    )


def check(pack: Pack, demand: Demand) -> None:
    """Raises BadPack for a forged signature, or if `demand` is not met."""
    found = judge(pack, pack.manifest.name, demand=demand)
    if found.faults:
        raise BadPack(
            f"pack {found.name!r} is not taken: {'; '.join(found.faults)}",
            hint="ask its author for a signed pack and for the public key, by another way",
        )


def _vouched(pack: Pack, demand: Demand) -> Vouched:
    if pack.signature is None:
        return "none"
    if not demand.any and not can_check():
        return "unchecked"
    return "genuine" if is_genuine(pack.manifest, pack.signature) else "forged"


def _told(message: str) -> tuple[str, ...]:
    """The faults that an error lists, or its own words."""
    _, *listed = message.split("\n  - ")
    return tuple(listed) or (message,)
