"""What a pack is to be made of, checked and counted before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_plastic.backend import peak_memory_mb
from mlx_plastic.base.roles import natural, role_of, targets
from mlx_plastic.errors import BadConfig, BadPack, BaseMismatch
from mlx_plastic.lowrank.layers import dims, linear_layers
from mlx_plastic.packs.create.data import Data, Form, read_data, split_data
from mlx_plastic.packs.format.lite import LITE_ATTENTION_RANK, LITE_BYTES, is_attention
from mlx_plastic.packs.format.pack import Pack
from mlx_plastic.packs.measure.measure import by_role
from mlx_plastic.packs.ranks.ranks import (
    Profile,
    Strategy,
    for_profile,
    map_of_pack,
    numbers,
    rank_map,
    resolved,
    shapes_of,
)
from mlx_plastic.packs.ranks.sizes import file_bytes_bound
from mlx_plastic.packs.train.batches import windows
from mlx_plastic.packs.train.config import TrainConfig
from mlx_plastic.packs.train.steps import VALID_TOKENS
from mlx_plastic.packs.train.train import steps_of
from mlx_plastic.samples import Encoded, LossMode

if TYPE_CHECKING:
    from mlx_plastic.base import Base

SHOWN = 8  # modules in a message
TOKEN_BYTES = 10  # kept a token for each row and column of the weights; measured on the shipped base
OPTIMIZER_BYTES = 24  # a parameter in float32, its gradient, both moments, the best ones, and one in passing

Tick = Callable[[str, float, float, str], None]  # stage, done, of how many, detail


@dataclass(frozen=True)
class Recipe:
    """What a person asks for.

    loss_mode: None learns answers, but of plain texts every token. rank_strategy and those below it decide
    the ranks in place of one for all; rank_entries: of a rank map, by module path, role or group.
    """

    name: str
    data: Path
    config: TrainConfig = field(default_factory=TrainConfig)
    loss_mode: LossMode | None = None
    valid: Path | None = None
    valid_share: float = 0.1
    profile: Profile = "lite"
    rank_strategy: Strategy | None = None
    target_compression: float | None = None
    rank_entries: Mapping[str, int] | None = None
    budget_mb: float = 0.0  # cut the trained update to so many MB; 0: keep it as it is
    fp16_fallback: bool = False

    def settings(self) -> dict[str, Any]:
        """What the manifest says of it: the training's settings, and those around it."""
        return dataclasses.asdict(self.config) | {
            "profile": self.profile,
            "rank_strategy": self.rank_strategy or ("map" if self.rank_entries else "one"),
            "target_compression": self.target_compression,
            "budget_mb": self.budget_mb,
            "fp16_fallback": self.fp16_fallback,
        }


@dataclass(frozen=True)
class Plan:
    """All that is decided before the first step.

    pieces, held_out: the samples cut to the window. pack_bytes: of pack.safetensors, at most.
    memory_mb: about what the training needs, base and all.
    """

    recipe: Recipe
    data: Data
    ranks: dict[str, int]
    pieces: tuple[Encoded, ...]
    held_out: tuple[Encoded, ...]
    cut: int  # samples longer than the window
    steps: int
    pack_bytes: int
    memory_mb: float
    start: Pack | None = None

    @property
    def notes(self) -> list[str]:
        """What a person should know before it begins."""
        found = list(self.data.notes)
        if self.cut:
            found.append(
                f"{self.cut} samples have more than {self.recipe.config.max_tokens} tokens: cut into windows"
            )
        if self.data.form == "text" and self.recipe.loss_mode is None:
            found.append("these are plain texts: every token is learned, as with --loss-mode all")
        return found

    def as_dict(self) -> dict[str, Any]:
        """In counts and names; never text."""
        supervised = sum(sample.supervised for sample in self.pieces)
        return {
            "name": self.recipe.name,
            "modules": len(self.ranks),
            "ranks": by_role(self.ranks),
            "samples": len(self.data.train),
            "held_out": len(self.data.valid),
            "windows": len(self.pieces),
            "samples_cut": self.cut,
            "tokens": sum(len(sample.tokens) for sample in self.pieces),
            "learned_tokens": supervised,
            "steps": self.steps,
            "pack_bytes": self.pack_bytes,
            "memory_mb": round(self.memory_mb, 1),
            "settings": self.recipe.settings(),
            "notes": self.notes,
        }


def plan_pack(
    base: Base,
    recipe: Recipe,
    *,
    start: Pack | None = None,
    data: Data | None = None,
    tick: Tick | None = None,
) -> Plan:
    """Read and check everything that `recipe` names; trains nothing.

    start: a pack of this base to go on from: its ranks are taken. data: of this very recipe, if it has been
    read already. tick: told how far it is. Raises BadData for the samples, BadConfig for ranks that do not
    fit, BadPack beyond the profile, BaseMismatch for a start from elsewhere, and PlasticError for unknown
    layers.
    """
    tell = tick or (lambda *_: None)
    if start is not None:
        _check_start(start, base)
        if recipe.config.dynamic_rank:
            raise BadConfig(
                "--dynamic-rank begins small, and a pack to begin with has its ranks already",
                hint="leave out --resume-pack, or --dynamic-rank",
            )
    paths_of(base, recipe.config.roles)  # a wrong name is told before the samples are read
    data = data or read_samples(base, recipe, tick=tell)
    recipe = _settled(recipe, base, data.form)
    config = recipe.config
    config.check()
    if recipe.budget_mb and not data.valid:
        raise BadConfig(
            "a budget is spent by what does best on held-out samples, and there are none",
            hint="give more samples, or --valid FILE",
        )
    pieces, held_out = (_pieces(samples, config.max_tokens) for samples in (data.train, data.valid))
    if recipe.rank_strategy:
        tell("ranks", 0, 1, f"what each layer has by {recipe.rank_strategy}")
    ranks = map_of_pack(start, base) if start else _ranks(base, recipe, pieces)
    shapes = shapes_of(base, ranks)
    size = int(recipe.budget_mb * 1e6) or file_bytes_bound(ranks, shapes)
    if recipe.profile == "lite":
        _check_lite(ranks, size)
    return Plan(
        *(recipe, data, ranks, pieces, held_out),
        cut=sum(len(sample.tokens) > config.max_tokens for sample in data.train),
        steps=len(steps_of(pieces, config)),
        pack_bytes=size,
        memory_mb=_memory_bytes(base, ranks, pieces, held_out, config) / 1e6,
        start=start,
    )


def read_samples(base: Base, recipe: Recipe, *, tick: Tick | None = None) -> Data:
    """The samples that the recipe names. Raises BadData."""
    tell = tick or (lambda *_: None)
    file = read_data(recipe.data)
    return split_data(
        *(file, base, _settled(recipe, base, file.form).config.loss_mode),
        valid=recipe.valid,
        valid_share=recipe.valid_share,
        on_progress=lambda done, total: tell("reading", done, total, f"{done} samples"),
    )


def paths_of(base: Base, layers: str) -> list[str]:
    """Module paths of what --layers names: roles as in "attn.q_proj", groups as in "mlp", or ends of paths.

    "" means every linear layer of the blocks, "experts" the stacks of experts too. Raises PlasticError for
    a name that is neither, with the nearest role.
    """
    names = [name.strip() for name in layers.split(",") if name.strip()]
    if not names:
        return list(targets(base.model))
    known = list(linear_layers(base.model))
    found: set[str] = set()
    roles = []
    for name in names:
        ends = [path for path in known if path == name or path.endswith(f".{name}")]
        found.update(path for path in ends if role_of(path) is not None)
        if not ends:
            roles.append(name)
    if roles:
        found.update(targets(base.model, roles))
    return sorted(found, key=natural)


def _settled(recipe: Recipe, base: Base, form: Form) -> Recipe:
    """With windows that the base can see, and a loss that suits the data where none was asked for."""
    config = recipe.config
    mode = recipe.loss_mode or ("all" if form == "text" else config.loss_mode)
    window = min(config.max_tokens, base.window)
    return dataclasses.replace(recipe, config=dataclasses.replace(config, loss_mode=mode, max_tokens=window))


def _check_start(start: Pack, base: Base) -> None:
    m = start.manifest
    if m.base_fingerprint != base.fingerprint:
        raise BaseMismatch(
            f"pack {m.name!r} learned on base {m.base_fingerprint[:12]} ({m.base_id}), "
            f"but this model is {base.fingerprint[:12]}",
            hint="go on with the base that it was made for: --base",
        )
    if lost := sorted(set(start.factors) - set(linear_layers(base.model))):
        raise BadPack(f"the base has no linear layers {_listed(lost)}", hint="plastic packs inspect NAME")


def _pieces(samples: Sequence[Encoded], max_tokens: int) -> tuple[Encoded, ...]:
    return tuple(piece for sample in samples for piece in windows(sample, max_tokens))


def _ranks(base: Base, recipe: Recipe, pieces: Sequence[Encoded]) -> dict[str, int]:
    """By the recipe's map, strategy or one number; what a strategy says is kept within the profile."""
    config = recipe.config
    paths = paths_of(base, config.roles)
    if recipe.rank_entries:
        rest = rank_map(base, paths, rank=config.rank) if config.roles else None
        every = [path for path in linear_layers(base.model) if role_of(path)]
        return resolved(recipe.rank_entries, base, paths if config.roles else every, rest=rest)
    ranks = rank_map(
        *(base, paths),
        rank=config.rank,
        strategy=recipe.rank_strategy,
        target_compression=recipe.target_compression,
        samples=pieces,
    )
    asked = recipe.rank_strategy is None and recipe.target_compression is None
    return ranks if asked else for_profile(ranks, shapes_of(base, ranks), recipe.profile)


def _check_lite(ranks: Mapping[str, int], size: int) -> None:
    """Raises BadPack, before anything is trained, for what `check_lite` would refuse afterwards."""
    faults, ways = [], []
    high = {path: rank for path, rank in ranks.items() if rank > LITE_ATTENTION_RANK and is_attention(path)}
    if high:
        faults.append(
            f"rank {max(high.values())} in {len(high)} attention modules, more than {LITE_ATTENTION_RANK}: "
            f"{_listed(list(high))}"
        )
        ways.append(f"a rank of at most {LITE_ATTENTION_RANK}, or --layers mlp")
    if size > LITE_BYTES:
        faults.append(f"{size / 1e6:.1f} MB, more than {LITE_BYTES / 1e6:.0f} MB")
        ways.append("a smaller rank, fewer --layers, or --budget-mb 10")
    if faults:
        raise BadPack(
            "this pack would be beyond the profile lite:" + "".join(f"\n  - {fault}" for fault in faults),
            hint=f"use {', and '.join(ways)}; or lift the limits with --profile heavy",
        )


def _memory_bytes(
    base: Base,
    ranks: Mapping[str, int],
    pieces: Sequence[Encoded],
    held_out: Sequence[Encoded],
    config: TrainConfig,
) -> float:
    """About what training takes: what is taken already, the optimizer, and what layers keep for gradients."""
    parameters = numbers(ranks, shapes_of(base, ranks))
    tokens = max(config.batch_tokens, max(len(piece.tokens) for piece in pieces))
    measured = min(VALID_TOKENS, sum(len(piece.tokens) for piece in held_out))  # forwards only: about 0.6
    width = sum(sum(dims(layer)) for layer in targets(base.model).values())
    kept = TOKEN_BYTES * width * max(tokens, 0.6 * measured)
    return 1e6 * peak_memory_mb() + OPTIMIZER_BYTES * parameters + kept


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
