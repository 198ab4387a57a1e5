"""Who vouches for a pack: an optional Ed25519 signature in a third file, signature.json.

What is signed is the manifest, which holds the sha256 of the tensors, without `evals`: what is measured
later on another machine is not the author's word. A pack that is given another local name keeps its
signature, which says under which name it was given. Only making and checking need `cryptography`.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_plastic.errors import BadKey, NotInstalled, PlasticError
from mlx_plastic.home import sync
from mlx_plastic.packs.format.manifest import Manifest, is_name, manifest_value
from mlx_plastic.packs.format.untrusted import parse_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE = "signature.json"
MAX_SIGNATURE_BYTES = 4096
MAX_KEY_BYTES = 16_384

_PREFIX = b"mlx-plastic pack 1\n"  # a key that signs other things too signs nothing that could be mistaken
_HEX = {"public_key": re.compile("[0-9a-f]{64}"), "signature": re.compile("[0-9a-f]{128}")}


@dataclass(frozen=True)
class Signature:
    """What signature.json holds: its form is checked when a pack is read, its truth by `check`."""

    name: str  # of the pack when it was signed
    public_key: str  # 32 bytes in hex
    signature: str  # 64 bytes in hex
    algorithm: str = "ed25519"
    format_version: int = 1


def parse_signature(data: bytes, faults: list[str]) -> Signature | None:
    """The signature in these bytes, or None and the reasons why."""
    value = parse_json(data, SIGNATURE, faults)
    if value is None:
        return None
    known = {field.name for field in dataclasses.fields(Signature)}
    if set(value) != known:
        faults.append(f"{SIGNATURE} must have exactly the keys {', '.join(sorted(known))}")
        return None
    version = value["format_version"]
    if value["algorithm"] != "ed25519" or type(version) is not int or version != 1:
        faults.append(f"{SIGNATURE} is not of algorithm ed25519, format_version 1")
        return None
    before = len(faults)
    for key, form in _HEX.items():
        if not isinstance(value[key], str) or not form.fullmatch(value[key]):
            faults.append(f"{SIGNATURE} has a {key} that is not of the form {form.pattern}")
    if not isinstance(value["name"], str) or not is_name(value["name"]):
        faults.append(f"{SIGNATURE} has a name that is no name for a pack")
    return Signature(**value) if len(faults) == before else None


def signature_bytes(signature: Signature) -> bytes:
    return (json.dumps(dataclasses.asdict(signature), indent=2) + "\n").encode()


def signed_bytes(manifest: Manifest, name: str) -> bytes:
    """What the signature is of: every key of the manifest but `evals`, as sorted JSON without white space.

    name: the one that it was signed under.
    """
    value = manifest_value(manifest) | {"name": name}
    del value["evals"]
    return _PREFIX + json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def sign(manifest: Manifest, key_file: Path) -> Signature:
    """The signature of a pack by the private key in `key_file`. Raises BadKey for a key of no use."""
    key = _read_private(key_file)
    signature = key.sign(signed_bytes(manifest, manifest.name))
    return Signature(manifest.name, key.public_key().public_bytes_raw().hex(), signature.hex())


def is_genuine(manifest: Manifest, signature: Signature) -> bool:
    """Whether the owner of `signature.public_key` signed this very manifest, its evals apart.

    Who that owner is it does not say: compare the key with one that came another way.
    """
    _require_cryptography()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature.public_key))
    try:
        key.verify(bytes.fromhex(signature.signature), signed_bytes(manifest, signature.name))
    except InvalidSignature:
        return False
    return True


def make_key(file: Path) -> str:
    """A new private key in `file` (PEM, 0600) and its public key in `<file>.pub`; the public key in hex.

    Neither file may be there: a key is never overwritten. Raises PlasticError.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key()
    shown = public.public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    file.parent.mkdir(parents=True, exist_ok=True)
    _write_new(public_file(file), shown, 0o644)
    try:
        _write_new(file, secret, 0o600)
    except BaseException:
        public_file(file).unlink()
        raise
    return public.public_bytes_raw().hex()


def public_file(file: Path) -> Path:
    """Where the public key of the private key in `file` lies."""
    return file.with_name(f"{file.name}.pub")


def read_public(file: Path) -> str:
    """The public key in a PEM file, in hex. Raises BadKey for anything else."""
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = serialization.load_pem_public_key(_read_key(file))
    except (ValueError, TypeError) as error:
        raise _bad_key(file, "public") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _bad_key(file, "public")
    return key.public_bytes_raw().hex()


def _read_private(file: Path) -> Ed25519PrivateKey:
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    data = _read_key(file)
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadKey(
            f"others can read the private key {file}",
            hint=f"chmod 600 {file}; if it lay open on a shared machine, make a new one",
        )
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:  # TypeError: it has a password
        raise _bad_key(file, "private") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _bad_key(file, "private")
    return key


def _read_key(file: Path) -> bytes:
    try:
        with open(file, "rb") as found:
            return found.read(MAX_KEY_BYTES)
    except OSError as error:
        raise BadKey(
            f"cannot read the key {file}: {error.strerror}", hint="make one: plastic packs keygen FILE"
        ) from error


def _bad_key(file: Path, what: str) -> BadKey:
    return BadKey(
        f"{file} holds no {what} Ed25519 key without a password, in PEM",
        hint="make one: plastic packs keygen FILE; the public one is beside it, FILE.pub",
    )


def _write_new(file: Path, data: bytes, mode: int) -> None:
    """A new file that nobody could read meanwhile; one that is there, or a link, is an error."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except FileExistsError as error:
        raise PlasticError(
            f"{file} is there already, and a key is never overwritten", hint="choose another file"
        ) from error
    with open(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        sync(out.fileno())


def can_check() -> bool:
    """Whether the package that makes and checks signatures is installed."""
    return importlib.util.find_spec("cryptography") is not None


def _require_cryptography() -> None:
    if not can_check():
        raise NotInstalled("signatures need the package cryptography", hint="pip install 'mlx-plastic[sign]'")
