"""Keys that let a client in: kept as hashes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass

from mlx_plastic.errors import PlasticError
from mlx_plastic.home import Home, write_json

PREFIX = "plastic-"


@dataclass(frozen=True)
class Keys:
    """The hashes of what is let in; none lets everybody in. Keys are random: a plain hash will do."""

    hashes: tuple[str, ...] = ()

    def lets_in(self, key: str) -> bool:
        found = hash_of(key)
        matches = [hmac.compare_digest(found, known) for known in self.hashes]  # all of them, always
        return any(matches) or not self.hashes


def hash_of(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def read_keys(home: Home) -> Keys:
    """The keys of a home. Raises PlasticError if the file is damaged: nobody is let in by that."""
    path = home.root / "keys.json"
    try:
        hashes = json.loads(path.read_text("utf-8"))["sha256"]
        if not isinstance(hashes, list) or not all(isinstance(h, str) and len(h) == 64 for h in hashes):
            raise ValueError
    except FileNotFoundError:
        return Keys()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlasticError(
            f"{path} cannot be read", hint="move it away and make a new key: plastic serve --new-key"
        ) from error
    return Keys(tuple(hashes))


def new_key(home: Home) -> str:
    """A key more for this home. It is told once; only its hash is kept."""
    key = PREFIX + secrets.token_urlsafe(32)
    hashes = [*read_keys(home).hashes, hash_of(key)]
    write_json(home.root / "keys.json", {"format_version": 1, "sha256": hashes}, mode=0o600)
    return key
