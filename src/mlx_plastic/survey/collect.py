"""Collect: from a checkpoint to the data of a run, in one pass; a crash costs the units in work then."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mlx_plastic.errors import Busy
from mlx_plastic.home import write_json
from mlx_plastic.survey import columns
from mlx_plastic.survey.config import SurveyConfig
from mlx_plastic.survey.engines import Engine, run_units
from mlx_plastic.survey.folder import RunFolder
from mlx_plastic.survey.frames import Columns, write_table
from mlx_plastic.survey.inventory import Inventory, take_inventory
from mlx_plastic.survey.kernel import load_kernel
from mlx_plastic.survey.plain import PlainKernel
from mlx_plastic.survey.quantsim import prepare
from mlx_plastic.survey.rules import make_placer
from mlx_plastic.survey.slabs import Found, find_slabs
from mlx_plastic.survey.source import Source, open_source
from mlx_plastic.survey.units import Unit, is_done, make_units, read_part, write_part

log = logging.getLogger(__name__)

Progress = Callable[..., None]


@dataclass(frozen=True)
class Plan:
    """What is to be done, known from the headers alone. todo: units without a part of their own yet."""

    config: SurveyConfig
    inventory: Inventory
    found: Found
    units: tuple[Unit, ...]
    todo: tuple[Unit, ...]
    warnings: tuple[str, ...]

    @property
    def matrices(self) -> int:
        return sum(len(slab.cuts) for unit in self.units for slab in unit.slabs)

    @property
    def nbytes(self) -> int:
        return sum(unit.nbytes for unit in self.units)

    def as_dict(self) -> dict[str, Any]:
        kinds: dict[str, int] = {}
        for unit in self.units:
            for slab in unit.slabs:
                kinds[slab.place.kind] = kinds.get(slab.place.kind, 0) + len(slab.cuts)
        return {
            "model_path": self.config.model_path,
            "model_type": self.inventory.model_type,
            "files": len(self.inventory.files),
            "tensors": len(self.inventory.tensors),
            "matrices": self.matrices,
            "kinds": kinds,
            "gigabytes": round(self.nbytes / 1e9, 3),
            "unmatched": len(self.found.unmatched),
            "units": len(self.units),
            "units_done_before": len(self.units) - len(self.todo),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Collected:
    """What a collect did. seconds, gigabytes: of this call, without what was done before."""

    plan: Plan
    rows: Mapping[str, int]
    warnings: tuple[str, ...]
    seconds: float
    gigabytes: float

    def as_dict(self) -> dict[str, Any]:
        return self.plan.as_dict() | {
            "rows": dict(self.rows),
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 3),
            "gigabytes_read": round(self.gigabytes, 3),
            "gb_per_s": round(self.gigabytes / self.seconds, 4) if self.seconds else 0.0,
        }


def plan_collect(run: RunFolder, *, model_path: str | None = None, fresh: bool = False) -> Plan:
    """Reads the config and the headers, and tries each scheme once. fresh: parts of before do not count.

    Raises PlasticError for whatever is wrong with them: nothing was written then.
    """
    config = run.config()
    config = replace(config, model_path=model_path) if model_path else config
    source = open_source(config.model_path)
    try:
        return _plan(run, config, source, fresh)
    finally:
        source.close()


def _plan(run: RunFolder, config: SurveyConfig, source: Source, fresh: bool) -> Plan:
    inventory = take_inventory(source, config.scan)
    placer = make_placer(config.extract_rules, config.parsing, inventory.model_config)
    found = find_slabs(
        *(inventory, placer),
        experts_only=config.scan.experts_only,
        shared=config.scan.include_shared_expert,
        strict=config.parsing.strict_packed_split,
    )
    warnings = inventory.warnings + placer.warnings + found.warnings
    warnings += placer.unused(list(inventory.by_name))
    kernel = load_kernel()
    if isinstance(kernel, PlainKernel):
        warnings.append("the compiled kernel is not used: the same figures, 10 to 30 times slower")
    prepared, told = prepare(config.quant_schemes if config.mlx.enabled else [], kernel)
    stamps = {file: source.stamp(file) for file in inventory.files}
    units = make_units(config.model_path, found.slabs, stamps, config.stats, prepared)
    if not units:
        warnings.append(_nothing_found(found))
    todo = [unit for unit in units if fresh or not is_done(run.parts, unit)]
    return Plan(config, inventory, found, tuple(units), tuple(todo), tuple(warnings + told))


def _nothing_found(found: Found) -> str:
    reasons = sorted({row["reason"] for row in found.unmatched})
    return f"no matrix was found; {len(found.unmatched)} tensors are unmatched: {'; '.join(reasons[:3])}"


def collect(
    run: RunFolder, plan: Plan, *, engine: Engine = "local", workers: int = 0, address: str = "",
    on_progress: Progress | None = None,
) -> Collected:  # fmt: skip
    """Does what is left of the plan, and writes data/ and logs/.

    Raises Busy if another process collects into this run.
    """
    run.make()
    lock = FileLock(run.logs / "collect.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise Busy(f"another process collects into {run.path}", hint="wait for it, or end it") from error
    try:
        began = time.perf_counter()
        read = _work(run, plan, engine, workers, address, on_progress)
        rows, warnings = _write(run, plan)
        done = Collected(plan, rows, warnings, time.perf_counter() - began, read / 1e9)
        write_json(run.logs / "collect.json", done.as_dict() | {"engine": engine})
        run.note(
            model_path=plan.config.model_path, headers_sha256=_digest(plan.inventory), matrices=plan.matrices
        )
    finally:
        lock.release()
    log.info(
        "survey: %d matrices, %.2f GB, %.2f GB/s, %d warnings",
        *(plan.matrices, plan.nbytes / 1e9, done.as_dict()["gb_per_s"], len(warnings)),
    )
    return done


def _work(
    run: RunFolder, plan: Plan, engine: Engine, workers: int, address: str, on_progress: Progress | None
) -> int:
    run.parts.mkdir(parents=True, exist_ok=True)
    before = sum(unit.nbytes for unit in plan.units) - sum(unit.nbytes for unit in plan.todo)
    done, began = 0, time.perf_counter()
    for unit, result in run_units(plan.todo, engine, workers=workers, address=address):
        write_part(run.parts, unit, result)
        done += unit.nbytes
        if on_progress:
            speed = done / 1e9 / (time.perf_counter() - began)
            on_progress(before + done, plan.nbytes, _told(before + done, plan.nbytes, speed))
    return done


def _told(done: int, total: int, speed: float) -> str:
    left = (total - done) / 1e9 / speed if speed else 0.0
    size, unit = (1e9, "GB") if total >= 1e9 else (1e6, "MB")
    return f"{done / size:.2f} of {total / size:.2f} {unit}, {speed:.2f} GB/s, {left:.0f} s left"


def _write(run: RunFolder, plan: Plan) -> tuple[dict[str, int], tuple[str, ...]]:
    config, inventory = plan.config, plan.inventory
    matched = {slab.weight.tensor.name for unit in plan.units for slab in unit.slabs}
    everything = config.scan.inventory_all_tensors
    listed = [t.row() for t in inventory.tensors if everything or t.name in matched]
    bad: list[str] = []
    faults: Counter[str] = Counter()
    unmatched = plan.found.unmatched if config.debug.dump_unmatched_tensors else []
    tables: dict[str, tuple[Columns, Any]] = {
        "tensor_inventory": (columns.INVENTORY, listed),
        "unmatched_tensors": (columns.UNMATCHED, unmatched),
        "matrix_stats": (columns.matrix_columns(config.stats), _matrices(run.parts, plan.units, bad)),
        "quant_sim": (columns.QUANT, _quant(run.parts, plan.units, faults)),
        "spectra": (columns.SPECTRA, _spectra(run.parts, plan.units)),
    }
    counts, told = {}, list(plan.warnings)
    for name, (names, rows) in tables.items():
        _, counts[name], warning = write_table(run.data / name, names, rows, config.output)
        told += [warning] if warning and warning not in told else []
    if bad:
        told.append(f"{len(bad)} matrices hold values that are not finite: {', '.join(bad[:5])}")
    if faults:
        reasons = "; ".join(f"{error} ({count})" for error, count in faults.most_common(5))
        told.append(f"{faults.total()} of {counts['quant_sim']} rows of quant_sim have no figures: {reasons}")
    warnings = [{"stage": "collect", "warning": text} for text in told]
    _, counts["warnings"], _ = write_table(run.logs / "warnings", columns.WARNINGS, warnings, config.output)
    _remove_stale(run.parts, plan.units)
    return counts, tuple(told)


def _rows(folder: Path, units: Sequence[Unit], table: str) -> Iterator[dict[str, Any]]:
    """In the order of the checkpoint, whoever did them and when."""
    for unit in units:
        yield from read_part(folder, unit, table)


def _matrices(folder: Path, units: Sequence[Unit], bad: list[str]) -> Iterator[dict[str, Any]]:
    """bad: gets the names of those with values that are not finite."""
    for row in _rows(folder, units, "matrix_stats"):
        bad += [row["derived_tensor"]] if row["nonfinite"] else []
        yield row


def _quant(folder: Path, units: Sequence[Unit], faults: Counter[str]) -> Iterator[dict[str, Any]]:
    """faults: gets how many rows have which error, of those that no other warning tells."""
    known = {one.error for unit in units[:1] for one in unit.prepared}
    for row in _rows(folder, units, "quant_sim"):
        if row["error"] and row["error"] not in known and not row["error"].endswith("not finite"):
            faults[row["error"]] += 1
        yield row


def _spectra(folder: Path, units: Sequence[Unit]) -> Iterator[dict[str, Any]]:
    for row in _rows(folder, units, "spectra"):
        yield row | {"values": " ".join(f"{value:.6g}" for value in row["values"])}


def _remove_stale(folder: Path, units: Sequence[Unit]) -> None:
    known = {unit.name for unit in units}
    for path in folder.glob("*.json"):
        if path.name not in known:
            path.unlink()


def _digest(inventory: Inventory) -> str:
    """Names, shapes, places and sizes of all tensors: cheap, and another checkpoint's differ."""
    rows = [[inventory.files[t.file], *t.row().values(), t.start] for t in inventory.tensors]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
