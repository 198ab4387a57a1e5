"""Is a pack still what it was, who vouches for it, and which base is it for: everything read anew."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from mlx_plastic.errors import BadPack, PackNotFound
from mlx_plastic.packs.format import Pack
from mlx_plastic.packs.sign import can_check, is_genuine
from mlx_plastic.packs.store import Store

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


def audit(
    store: Store,
    ref: str,
    *,
    fingerprint: str | None = None,
    trusted: Collection[str] | None = None,
    require_signature: bool = False,
) -> Finding:
    """Read a pack of the store, or in a folder, to its last byte.

    fingerprint: the base that it must be for. trusted: public keys in hex, one of which must have signed
    it. require_signature: any genuine one will do. Raises PlasticError if signatures cannot be checked and
    one is demanded.
    """
    try:
        pack = store.open(ref)
    except (BadPack, PackNotFound) as error:
        return Finding(ref, _told(error.message))
    demanded = require_signature or trusted is not None
    vouched = _vouched(pack, demanded=demanded)
    faults = []
    if fingerprint is not None and pack.manifest.base_fingerprint != fingerprint:
        found = pack.manifest.base_fingerprint
        faults.append(f"it is for base {found[:12]} ({pack.manifest.base_id}), not {fingerprint[:12]}")
    if vouched == "forged":
        faults.append("its signature is not of this pack: it or the pack was changed")
    if vouched == "none" and demanded:
        faults.append("it is not signed")
    signer = pack.signature.public_key if pack.signature else ""
    if vouched == "genuine" and trusted is not None and signer not in trusted:
        faults.append(f"it is signed by {signer}, who is not trusted")
    signed_name = pack.signature.name if pack.signature else ""
    return Finding(
        ref, tuple(faults), vouched, signer, signed_name, base_fingerprint=pack.manifest.base_fingerprint
    )


def _vouched(pack: Pack, *, demanded: bool) -> Vouched:
    if pack.signature is None:
        return "none"
    if not demanded and not can_check():
        return "unchecked"
    return "genuine" if is_genuine(pack.manifest, pack.signature) else "forged"


def _told(message: str) -> tuple[str, ...]:
    """The faults that an error lists, or its own words."""
    _, *listed = message.split("\n  - ")
    return tuple(listed) or (message,)
