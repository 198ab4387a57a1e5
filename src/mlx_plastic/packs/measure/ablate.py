"""Which layers, ranks, dropouts, steps and rates: every combination trained on the same data, a row for each.

A row is in the file as soon as it is measured, so a run that was killed goes on with the same command, and a
larger grid adds to a smaller one.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import itertools
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_plastic.draw import Mark, scatter
from mlx_plastic.errors import BadConfig, BadData, TrainingFailed
from mlx_plastic.evals import append_csv
from mlx_plastic.home import Home, write_atomic
from mlx_plastic.packs.create.create import trained_pack
from mlx_plastic.packs.create.recipe import Plan, Recipe, Tick, paths_of, plan_pack, read_samples
from mlx_plastic.packs.format.pack import Pack, read_pack, write_pack
from mlx_plastic.packs.measure.measure import COLUMNS, Quality, evaluate, pieces_of, quality
from mlx_plastic.packs.wear.attach import attached

if TYPE_CHECKING:
    from mlx_plastic.base import Base

log = logging.getLogger(__name__)

LAYER_SETS = {
    "qv": "attn.q_proj,attn.v_proj",
    "qkv": "attn.q_proj,attn.k_proj,attn.v_proj",
    "qkv+o": "attn.q_proj,attn.k_proj,attn.v_proj,attn.o_proj",
    "mlp": "mlp",
    "all": "",
}
SETTINGS = ("layer_set", "ranks", "dropout", "steps", "lr", "seed")
RESULTS = ("valid_loss", "valid_spread", "best_step", "train_s", "kl_nats", "fault")
ALL_COLUMNS = (*COLUMNS, *SETTINGS, *RESULTS, "base", "data", "key")


@dataclass(frozen=True)
class Grid:
    """What is to be combined. layer_sets: of LAYER_SETS, or roles joined by +. rank_maps: by a name."""

    layer_sets: Sequence[str] = ("qv", "qkv", "qkv+o", "all")
    ranks: Sequence[int] = (8,)
    rank_maps: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    dropouts: Sequence[float] = (0.0,)
    steps: Sequence[int] = (100,)
    rates: Sequence[float] = (1e-4,)
    seeds: Sequence[int] = (0,)


@dataclass(frozen=True)
class Cell:
    """One combination. settings: as in the row. key: of everything that decides how it comes out."""

    settings: dict[str, Any]
    plan: Plan
    key: str


def cells(base: Base, recipe: Recipe, grid: Grid, *, tick: Tick | None = None) -> list[Cell]:
    """Every combination, planned and checked; nothing is trained.

    recipe: the data and what all have in common. Raises what `plan_pack` raises, and BadConfig for a grid
    without any cell.
    """
    data = read_samples(base, recipe, tick=tick)
    if not data.valid:
        raise BadData("no sample is held out to compare by", hint="give more samples, or --valid FILE")
    samples = [[(s.tokens, s.targets) for s in part] for part in (data.train, data.valid)]
    digest = hashlib.sha256(repr(samples).encode("ascii")).hexdigest()
    found: dict[str, Cell] = {}
    first: Plan | None = None
    for settings, one in _recipes(base, recipe, grid):
        plan = plan_pack(base, one, data=data)
        first = first or plan
        plan = dataclasses.replace(plan, pieces=first.pieces, held_out=first.held_out)  # once in memory
        cell = Cell(settings, plan, _key(base, plan, digest))
        found.setdefault(cell.key, cell)  # the same number twice is one cell
    if not found:
        raise BadConfig("the grid has no cell", hint="name at least one of each: layers, ranks, steps")
    return list(found.values())


def _recipes(base: Base, recipe: Recipe, grid: Grid) -> Iterator[tuple[dict[str, Any], Recipe]]:
    ranks: list[tuple[str, int, Mapping[str, int] | None]] = [(str(r), r, None) for r in grid.ranks]
    ranks += [(name, recipe.config.rank, entries) for name, entries in grid.rank_maps.items()]
    product = itertools.product(grid.layer_sets, ranks, grid.dropouts, grid.steps, grid.rates, grid.seeds)
    for layer_set, (label, rank, entries), dropout, steps, rate, seed in product:
        settings = dict(zip(SETTINGS, (layer_set, label, dropout, steps, rate, seed), strict=True))
        config = dataclasses.replace(
            recipe.config,
            roles=roles_of(layer_set),
            rank=rank,
            dropout=dropout,
            steps=steps,
            learning_rate=rate,
            seed=seed,
        )
        name = "ablation." + ".".join(f"{k[0]}{v}" for k, v in settings.items()).lower().replace("+", "-")
        kept = entries and _within(base, entries, config.roles)
        yield settings, dataclasses.replace(recipe, name=name[:64], config=config, rank_entries=kept)


def _within(base: Base, entries: Mapping[str, int], roles: str) -> dict[str, int]:
    """Of a rank map what has to do with the layers of a set; the other layers of the set get --rank."""
    paths = set(paths_of(base, roles))
    return {name: rank for name, rank in entries.items() if paths & set(paths_of(base, name))}


def roles_of(layer_set: str) -> str:
    """The roles, separated by commas, of a set by name or of sets and roles joined by +; "" is all."""
    if layer_set in LAYER_SETS:
        return LAYER_SETS[layer_set]
    return ",".join(LAYER_SETS.get(part) or part for part in layer_set.split("+"))


def _key(base: Base, plan: Plan, digest: str) -> str:
    """digest: of the data, as tokens."""
    parts = [base.fingerprint, dataclasses.asdict(plan.recipe.config), plan.ranks, digest]
    return hashlib.sha256(json.dumps(parts).encode("ascii")).hexdigest()[:16]


def rows_of(file: Path) -> list[dict[str, str]]:
    """The rows that are in the file already. Raises BadData if it is of another kind."""
    try:
        with open(file, newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadData(f"cannot read {file}: {error}", hint="name another file with --csv") from error
    if rows and tuple(rows[0]) != ALL_COLUMNS:
        raise BadData(f"{file} is not of an ablation", hint="name another file with --csv")
    return rows


def ablate(
    home: Home,
    base: Base,
    grid: Sequence[Cell],
    *,
    file: Path,
    plot: Path,
    on_progress: Callable[[float, float, str], None] | None = None,
) -> list[dict[str, Any]]:
    """Train and measure every cell that `file` has no row of, each row written as it comes; those rows.

    plot: an SVG of all rows of the file, drawn again after each. The packs lie in a folder of the cache for
    as long as they are measured; a cell that was broken off goes on from its checkpoint. on_progress: told
    (done, total, detail) in steps.
    """
    tell = on_progress or (lambda *_: None)
    known = {row["key"] for row in rows_of(file)}
    todo = [cell for cell in grid if cell.key not in known]
    total, before = sum(cell.plan.steps for cell in todo), 0
    bare = _bare(base, todo[0].plan) if todo else None
    rows = []
    for number, cell in enumerate(todo, 1):
        label = f"{number} of {len(todo)}, {_label(cell.settings)}"

        def stepped(
            stage: str, done: float, _: float, detail: str, *, at: int = before, label: str = label
        ) -> None:
            if stage == "training":
                tell(at + done, total, f"{label}: {detail}")

        row = _measured(home, base, cell, bare, stepped)
        append_csv(file, [row])
        write_atomic(plot, drawn(rows_of(file)).encode("utf-8"))
        log.info("ablation %s: %s nats held out", _label(cell.settings), row["valid_loss"])
        rows.append(row)
        before += cell.plan.steps
    return rows


def _bare(base: Base, plan: Plan) -> Quality:
    with attached(base.model, {}, fingerprint=base.fingerprint):
        return quality(base, pieces_of(base, plan.held_out))


def _measured(home: Home, base: Base, cell: Cell, bare: Quality | None, tell: Tick) -> dict[str, Any]:
    """The row of one cell; its folder is gone afterwards, unless it was broken off.

    A training that failed, as at a rate that is too high, is a row too: with the reason instead of results.
    """
    folder = home.cache / "ablation" / cell.key
    folder.mkdir(parents=True, exist_ok=True)
    try:
        pack, report = trained_pack(base, cell.plan, checkpoint=folder, tell=tell)
    except TrainingFailed as error:
        log.warning("%s: %s", _label(cell.settings), error.message)
        found: dict[str, Any] = {"pack_name": cell.plan.recipe.name, "fault": error.message}
    else:
        found = _results(base, cell, pack, folder, bare)
        found |= {"best_step": report.best_step, "train_s": round(report.seconds, 2), "fault": report.stopped}
    shutil.rmtree(folder)
    about = {"base": base.ref, "data": cell.plan.recipe.data.name, "key": cell.key}
    row = found | cell.settings | about
    return {column: row.get(column) for column in ALL_COLUMNS}


def _results(base: Base, cell: Cell, pack: Pack, folder: Path, bare: Quality | None) -> dict[str, Any]:
    written = folder / "pack"
    shutil.rmtree(written, ignore_errors=True)  # of a run that was killed while it measured
    write_pack(written, pack.factors, pack.manifest)
    found = evaluate(base, lambda: read_pack(written), cell.plan.held_out, bare=bare)
    more = found.more
    return found.row | {
        "valid_loss": more["nll_pack"],
        "valid_spread": more["nll_spread"],
        "kl_nats": more["kl_nats"],
    }


def _label(settings: Mapping[str, Any]) -> str:
    return "{layer_set}, rank {ranks}, dropout {dropout}, {steps} steps at {lr}, seed {seed}".format(
        **settings
    )


def drawn(rows: Sequence[Mapping[str, str]]) -> str:
    """Held-out loss against size, a colour for each layer set; the best rate of a setting is filled."""
    lowest: dict[tuple[str, ...], float] = {}
    for row in rows:
        place = _place(row)
        lowest[place] = min(lowest.get(place, math.inf), _number(row["valid_loss"], math.inf))
    marks = [
        Mark(
            x=_number(row["size_MB"], math.nan),
            y=_number(row["valid_loss"], math.nan),
            series=row["layer_set"],
            label=f"r{row['ranks']}",
            title=_label(row),
            filled=_number(row["valid_loss"], math.nan) == lowest[_place(row)],
        )
        for row in rows
    ]
    return scatter(
        marks,
        title="Held-out loss by pack size; open: not the best learning rate of its setting",
        x_label="pack size, MB",
        y_label="held-out loss, nats a token",
    )


def _place(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in SETTINGS if name not in ("lr", "seed"))


def _number(text: str, otherwise: float) -> float:
    return float(text) if text else otherwise
