"""Models by name: the base, what is worn, and every pack on it.

plastic             the base wearing what the home wears, looked up at every request
base, nano          the bare base, by that word or by its own name
nano:cooking        with a pack; also cooking alone
nano:cooking+work   with several
nano:cooking@1a2b   only if that pack's bytes have a digest that begins so

A name in [aliases] of config.toml stands for any of these, and in them for a base or a pack.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from mlx_plastic.errors import BadPack
from mlx_plastic.home.aliases import check_clashes
from mlx_plastic.packs import BARE
from mlx_plastic.serve.api.errors import ApiError, bad
from mlx_plastic.serve.api.fields import Fields, object_of

if TYPE_CHECKING:
    from mlx_plastic.base import Base
    from mlx_plastic.packs import Entry, Pack, Store

WORN = "plastic"
MOST_PACKS = 4  # in one request
MOST_SCALE = 4.0
MOST_KEPT = 8  # packs that need not be read again


@dataclass(frozen=True)
class Choice:
    """What a request wears. name: what it asked for. chosen: by the request rather than by the home."""

    name: str
    packs: tuple[str, ...] = ()
    scales: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    chosen: bool = True


class Names:
    """What can be asked for here.

    embedder: the name of the model of /v1/embeddings; "" if there is none. aliases: asked at every request.
    """

    def __init__(
        self,
        base: Base,
        store: Store,
        *,
        embedder: str = "",
        aliases: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.base, self.store, self.embedder, self._aliases = base, store, embedder, aliases
        self.short = PurePath(base.ref).name or base.ref
        self._verified: dict[str, tuple[object, Pack]] = {}  # by name, with how its folder looked
        self._reading = threading.Lock()

    @property
    def bare(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.short, self.base.ref, BARE)))

    def choose(self, model: str | None, packs: list[Any]) -> Choice:
        """What `model` and `packs` of a request mean. Raises ApiError naming the nearest known model."""
        choice = self._named(model if model is not None else WORN, self.aliases())
        return self._with(choice, packs) if packs else choice

    def aliases(self) -> Mapping[str, str]:
        """Raises BadConfig for one that has the name of a pack, or of another base than it stands for."""
        found = self._aliases()
        others = [name for name in self.bare if found.get(name) not in self.bare]
        check_clashes(found, [*self.store.names(), *others], where="[aliases] of config.toml")
        return found

    def _named(self, asked: str, aliases: Mapping[str, str]) -> Choice:
        name = aliases.get(asked, asked)
        if name == WORN:
            return Choice(asked, self.store.active(), chosen=False)
        if name in self.bare:
            return Choice(asked)
        packs, versions = [], {}
        for part in self._after_base(name, aliases).split("+"):
            pack, _, version = part.partition("@")
            if not version:
                pack, _, version = aliases.get(pack, pack).partition("@")
            if pack not in self.store.names():
                raise self._unknown(name, pack)
            packs.append(pack)
            if version:
                versions[pack] = version
        if len(packs) > MOST_PACKS or len(set(packs)) < len(packs):
            raise bad(f"at most {MOST_PACKS} packs can be worn at once, each once", "model")
        return Choice(asked, tuple(packs), {}, versions)

    def _after_base(self, name: str, aliases: Mapping[str, str]) -> str:
        """The packs in `base:packs`, or the name as it is."""
        bases = [*self.bare, *(alias for alias, target in aliases.items() if target in self.bare)]
        prefix = next((f"{b}:" for b in bases if name.startswith(f"{b}:")), "")
        return name.removeprefix(prefix)

    def _with(self, choice: Choice, packs: list[Any]) -> Choice:
        if choice.packs and choice.chosen:
            raise bad("packs are named by 'model' already; name them in one place", "packs")
        scales = {}
        for i, item in enumerate(packs):
            one = Fields(object_of(item, f"packs[{i}]"), f"packs[{i}]")
            name, scale = one.text("name", most=256), one.number("scale", 1.0, -MOST_SCALE, MOST_SCALE)
            one.end()
            if name not in self.store.names():
                raise self._unknown(name, name)
            scales[name] = scale
        if len(scales) < len(packs):
            raise bad("each pack can be worn once", "packs")
        return Choice(choice.name, tuple(scales), scales)

    def read(self, choice: Choice) -> dict[str, Pack]:
        """The packs themselves, verified. Raises PlasticError or ApiError."""
        return {name: self._read(name, choice) for name in choice.packs}

    def _read(self, name: str, choice: Choice) -> Pack:
        if choice.chosen and self.store.status(name) == "quarantined":
            raise BadPack(f"pack {name!r} is quarantined", hint=f"see why: plastic packs inspect {name}")
        pack = self._pack_of(name)
        version = choice.versions.get(name, "")
        if not pack.manifest.sha256.startswith(version):
            raise ApiError(
                404,
                f"pack {name!r} has the version {pack.manifest.sha256[:12]}, not {version[:64]!r}",
                param="model",
                code="model_not_found",
            )
        return pack

    def _pack_of(self, name: str) -> Pack:
        """As `Store.read`, which reads and hashes every byte; only once while the folder looks the same."""
        looks = _looks(self.store.folder(name))
        with self._reading:
            before, pack = self._verified.pop(name, (None, None))
            if pack is None or before != looks:
                pack = self.store.read(name)
            self._verified[name] = looks, pack  # the last one asked for is the last one to go
            if len(self._verified) > MOST_KEPT:
                del self._verified[next(iter(self._verified))]
        return pack

    def _unknown(self, name: str, part: str) -> ApiError:
        packs = self.store.names()
        known = [*self.bare, WORN, *self._aliases(), *packs, *(f"{self.short}:{p}" for p in packs)]
        near = difflib.get_close_matches(name[:256], known, n=1, cutoff=0.4) or difflib.get_close_matches(
            part[:256], known, n=1, cutoff=0.4
        )
        meant = f"; the nearest is {near[0]!r}" if near else ""
        message = f"there is no model {name[:128]!r}{meant}; see /v1/models"
        return ApiError(404, message, param="model", code="model_not_found")

    def list(self) -> list[dict[str, Any]]:
        """Everything that can be asked for, as /v1/models tells it."""
        worn = self.store.active()
        found = [
            self._model(WORN, parent=self.short, packs=worn),
            self._model(self.short, packs=()),
            *(self._pack(entry) for entry in self._wearable()),
            *self._short_names(),
        ]
        if self.embedder:
            found.append({"id": self.embedder, "object": "model", "created": 0, "owned_by": "mlx-plastic"})
        return found

    def _short_names(self) -> Iterator[dict[str, Any]]:
        """Aliases of what can be asked for here; those of other bases are left out."""
        aliases = self.aliases()
        for alias in aliases:
            with contextlib.suppress(ApiError):
                choice = self._named(alias, aliases)
                yield self._model(alias, parent=self.short if choice.packs else None, packs=choice.packs)

    def _wearable(self) -> Iterator[Entry]:
        for entry in self.store.entries():
            fits = entry.manifest and entry.manifest.base_fingerprint == self.base.fingerprint
            if fits and entry.status != "quarantined":
                yield entry

    def _pack(self, entry: Entry) -> dict[str, Any]:
        assert entry.manifest
        made = _seconds(entry.manifest.created)
        name, packs = f"{self.short}:{entry.name}", (entry.name,)
        model = self._model(name, parent=self.short, packs=packs, created=made)
        return model | {"version": entry.manifest.sha256[:12], "status": entry.status}

    def _model(
        self, name: str, *, packs: tuple[str, ...], parent: str | None = None, created: int = 0
    ) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "mlx-plastic",
            "parent": parent,
            "packs": list(packs),
            "context_length": self.base.window,
        }

    def find(self, name: str) -> dict[str, Any]:
        """One of them, or what a longer name means. Raises ApiError."""
        for model in self.list():
            if model["id"] == name:
                return model
        choice = self.choose(name, [])
        self.read(choice)
        return self._model(name, parent=self.short if choice.packs else None, packs=choice.packs)


def _looks(folder: Path) -> object:
    """What changes whenever a file in it does: inodes, sizes and times, the last of which nobody can set."""
    try:
        with os.scandir(folder) as found:
            stats = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in found)
    except OSError:  # reading it will tell
        return object()  # like nothing else
    return [(name, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in stats]


def _seconds(iso: str) -> int:
    try:
        return math.floor(datetime.fromisoformat(iso).timestamp())
    except ValueError:
        return 0
