"""Exchange: packs as the adapters of PEFT, mlx-lm and llama.cpp, and those of the first two as packs.

What was written is read back before it gets its name, and compared with the pack; with a base at hand, what
it changes there is measured. docs/exchange.md tells what each format can hold.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import safetensors

from mlx_plastic.base import read_header, shards
from mlx_plastic.errors import BadPack, PlasticError
from mlx_plastic.packs.convert import gguf, mlx_lm, peft
from mlx_plastic.packs.convert.card import CARD, card
from mlx_plastic.packs.convert.files import Foreign, beside, check_free, refuse
from mlx_plastic.packs.convert.fold import Update, halved, relative_error
from mlx_plastic.packs.format.pack import (
    DataCard,
    Factors,
    Manifest,
    Pack,
    RunCard,
    check_name,
    make_manifest,
)
from mlx_plastic.packs.format.tensors import factor_faults
from mlx_plastic.packs.wear.probe import proved

if TYPE_CHECKING:
    from mlx_plastic.base import Base
    from mlx_plastic.packs.wear.attach import Proof

log = logging.getLogger(__name__)

Kind = Literal["peft", "mlx-lm", "gguf"]


@dataclass(frozen=True)
class Conversion:
    """What was carried over, and how it is known to be the same."""

    kind: Kind
    path: str  # what was written, or read
    modules: int
    ranks: tuple[int, int]  # lowest, highest
    dtype: str  # of the foreign tensors
    size_bytes: int  # of the foreign files
    error: float  # of the worst module: ||update there - update here|| / ||update||, Frobenius
    exact: bool  # whether every factor and alpha comes back to the bit
    proof: Proof | None  # what it changes on the base; None where no base was given
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Imported:
    """A pack made of a foreign adapter, not yet in any store."""

    factors: dict[str, Factors]
    manifest: Manifest
    conversion: Conversion


def export_pack(
    pack: Pack, kind: Kind, out: Path, *, base: Base | None = None, dry_run: bool = False
) -> Conversion:
    """Write the pack to `out`, which must not exist: a folder, or a file for "gguf".

    base: what the pack learned on; needed for "gguf". With it the names are checked against its files, and
    the effect of what was written is measured. dry_run: all of it, in a folder that is then removed.
    Raises BadPack for a pack that does nothing or that the format cannot hold, BaseMismatch for another
    base, PlasticError if `out` exists.
    """
    name = pack.manifest.name
    if not any(f.a.any() and f.b.any() for f in pack.factors.values()):
        raise BadPack(
            f"pack {name!r} does nothing: in every module A or B is zero", hint="train it before it is shared"
        )
    if kind == "gguf" and base is None:
        raise PlasticError("GGUF names its tensors by the base's architecture", hint="give it: --base REF")
    check_free(out)
    flat = [path for path, f in pack.factors.items() if f.a.ndim == 2]
    notes = _name_notes(base, flat) if base and kind == "peft" else []
    with _scratch(out) if dry_run else beside(out) as part:
        back = _written(pack, kind, part, base)
        proof = proved(base, {name: _as_pack(pack.manifest, back)}) if base else None
        size = sum(file.stat().st_size for file in [part, *part.rglob("*")] if file.is_file())
    error, exact = _fidelity(pack.factors, back)
    log.info("pack %s as %s: %d modules, %.2f MB, error %.2g", name, kind, len(back), size / 1e6, error)
    return _conversion(kind, out, back, size, error, exact, proof, notes)


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / out.name


def _written(pack: Pack, kind: Kind, part: Path, base: Base | None) -> dict[str, Update]:
    """Write the pack as `kind` and read it again."""
    base_id = pack.manifest.base_id
    if kind == "peft":
        peft.write(part, pack.factors, base_id)
        (part / CARD).write_text(card(pack.manifest, kind), "utf-8")
        return peft.read(part).updates
    if kind == "mlx-lm":
        mlx_lm.write(part, pack.factors, base_id)
        (part / CARD).write_text(card(pack.manifest, kind), "utf-8")
        return mlx_lm.read(part).updates
    assert base is not None
    gguf.write(part, pack.factors, name=pack.manifest.name, config=base.config)
    return gguf.read(part, list(pack.factors), base.config)


def _fidelity(factors: Mapping[str, Factors], back: Mapping[str, Update]) -> tuple[float, bool]:
    """The relative error of the worst module, and whether the very same factors are got back."""
    error = max(relative_error(back[path], f) for path, f in factors.items())
    again, _ = halved(back, {path: (f.rank, f.alpha) for path, f in factors.items()})
    exact = all(
        again[path].alpha == f.alpha
        and np.array_equal(again[path].a, f.a)
        and np.array_equal(again[path].b, f.b)
        for path, f in factors.items()
    )
    return error, exact


def _as_pack(manifest: Manifest, updates: Mapping[str, Update]) -> Pack:
    """The updates as they are, in float32 where they are that, worn as a pack would be."""
    return Pack(manifest, {path: Factors(u.a, u.b, u.scale * u.rank) for path, u in updates.items()})


def _name_notes(base: Base, paths: list[str]) -> list[str]:
    """What is to be known of module names. PEFT's are those of the original checkpoint, not mlx-lm's.

    Raises BadPack for modules whose weights the base's files do not hold under the same name: mlx-lm has
    renamed them at load, and to what PEFT calls them cannot be known.
    """
    files = shards(base.path)
    held = {name for file in files for name in read_header(file)}
    renamed = [path for path in paths if f"{path}.weight" not in held]
    if renamed:
        raise BadPack(
            f"the files of base {base.ref} hold no weights of these names: " + ", ".join(renamed[:40]),
            hint="mlx-lm renames them when it loads; what PEFT calls them is not known. Use mlx-lm's format",
        )
    with safetensors.safe_open(files[0], "np") as first:
        converted = (first.metadata() or {}).get("format") == "mlx"
    kind = base.config.get("model_type")
    if converted and kind not in gguf.FAMILIES:
        return [
            f"{base.ref} was converted by mlx-lm: that PEFT names a {kind!r} in the same way is not certain"
        ]
    return []


READERS = {"peft": peft.read, "mlx-lm": mlx_lm.read}


def import_adapter(folder: Path, kind: Literal["peft", "mlx-lm"], *, name: str, base: Base) -> Imported:
    """A pack called `name`, made of the foreign adapter in `folder`; `Store.add` takes it.

    base: what the adapter was trained on; the format does not tell for sure, so what it changes there is
    measured. Raises BadPack for what cannot be carried, does not fit the base, or does nothing.
    """
    check_name(name)
    foreign = READERS[kind](folder)
    notes = _origin_notes(foreign, base)
    if kind == "mlx-lm":
        notes += _completeness_notes(foreign, base)
    updates = {path: _narrowed(u) for path, u in foreign.updates.items()}
    factors, errors = halved(updates, foreign.hints)
    refuse(folder, factor_faults(factors))
    worst = max(errors.values())
    manifest = _manifest(folder, kind, foreign, factors, worst, name=name, base=base)
    proof = proved(base, {name: Pack(manifest, factors)})
    if kind == "peft":
        notes += _name_notes(base, list(foreign.updates))
    measured = {"probe_kl_nats": proof.mean_kl_nats, "probe_max_logit_change": proof.max_logit_change}
    manifest = dataclasses.replace(manifest, evals=measured)
    size = sum(file.stat().st_size for file in folder.iterdir() if file.suffix == ".safetensors")
    conversion = _conversion(kind, folder, foreign.updates, size, worst, worst == 0, proof, notes)
    return Imported(factors, manifest, conversion)


def _origin_notes(foreign: Foreign, base: Base) -> list[str]:
    told = foreign.config.get("base_model_name_or_path") or foreign.config.get("model")
    if isinstance(told, str) and told.rstrip("/").split("/")[-1] == base.ref.rstrip("/").split("/")[-1]:
        return []
    return [
        f"it names its base {str(told)[:80]!r}, without a fingerprint; that it is {base.ref} is your word"
    ]


def _completeness_notes(foreign: Foreign, base: Base) -> list[str]:
    lacking, named = mlx_lm.missing(foreign, base.model)
    if lacking and named:
        raise BadPack(
            f"the adapter lacks the tensors of {len(lacking)} modules that it names: "
            + ", ".join(lacking[:40]),
            hint="a part of its adapters.safetensors is missing: get it again",
        )
    return [f"{len(lacking)} linear layers of the blocks that it names have no tensors"] if lacking else []


def _narrowed(update: Update) -> Update:
    """The same update with a rank that its matrix can have: a rank above is one factor too wide."""
    out, width = update.b.shape[-2], update.a.shape[-1]
    if update.rank <= min(out, width):
        return update
    whole = update.b.astype(np.float32) @ update.a.astype(np.float32)
    eye = np.broadcast_to(
        np.eye(min(out, width), dtype=np.float32), (*whole.shape[:-2], *[min(out, width)] * 2)
    )
    a, b = (whole, eye) if out <= width else (eye, whole)
    return Update(a, b, update.scale)


def _manifest(
    folder: Path,
    kind: str,
    foreign: Foreign,
    factors: Mapping[str, Factors],
    error: float,
    *,
    name: str,
    base: Base,
) -> Manifest:
    parameters = foreign.config.get("lora_parameters")
    given = parameters.get("dropout") if isinstance(parameters, dict) else foreign.config.get("lora_dropout")
    training = {
        "imported_from": kind,
        "source": "".join(c for c in folder.resolve().name[:80] if c.isprintable()),
        "source_sha256": foreign.digest,
        "float16_error": error,
        "dropout": float(given) if isinstance(given, int | float) else 0.0,
    }
    nothing = hashlib.sha256(b"").hexdigest()  # the samples are not known
    return make_manifest(
        factors,
        name=name,
        base_id=base.ref,
        base_fingerprint=base.fingerprint,
        training=training,
        data=DataCard(nothing, samples=0, tokens=0, supervised_tokens=0),
        run=RunCard(steps=0, seconds=0.0, tokens_per_s=0.0, peak_memory_mb=0.0),
    )


def _conversion(
    kind: Kind,
    path: Path,
    foreign: Mapping[str, Update],
    size: int,
    error: float,
    exact: bool,
    proof: Proof | None,
    notes: list[str],
) -> Conversion:
    ranks = [u.rank for u in foreign.values()]
    dtypes = sorted({u.b.dtype.name for u in foreign.values()})
    return Conversion(
        kind,
        str(path),
        len(foreign),
        (min(ranks), max(ranks)),
        "+".join(dtypes),
        size,
        error,
        exact,
        proof,
        tuple(notes),
    )
