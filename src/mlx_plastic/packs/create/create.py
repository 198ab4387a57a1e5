"""Training files -> a pack in the store: trained, cut to its budget, proved to act, described, kept."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_plastic.backend import World, world
from mlx_plastic.errors import BadConfig, BadPack, PlasticError, Taken, TrainingFailed
from mlx_plastic.evals import measure_loss
from mlx_plastic.evals.ledger import finite
from mlx_plastic.home import Home, append_line, locked, write_json
from mlx_plastic.lowrank.plasticity import Event
from mlx_plastic.packs.create.recipe import Plan, Tick
from mlx_plastic.packs.format.manifest import check_name
from mlx_plastic.packs.format.pack import DataCard, Factors, Manifest, Pack, make_manifest
from mlx_plastic.packs.ranks.budget import fit
from mlx_plastic.packs.store.store import Store
from mlx_plastic.packs.train.keeper import CHECKPOINT
from mlx_plastic.packs.train.stubborn import trainable
from mlx_plastic.packs.train.train import Progress, TrainReport, data_card, lineage, train
from mlx_plastic.packs.wear.attach import Proof, attached
from mlx_plastic.packs.wear.probe import proved

if TYPE_CHECKING:
    from mlx_plastic.base import Base

log = logging.getLogger(__name__)

SETTINGS = "settings.json"  # beside a checkpoint: of what it is
PLASTICITY = "plasticity.jsonl"  # in the home's logs: every change of a rank


@dataclass(frozen=True)
class Created:
    """A new pack. losses: nats per held-out token, bare and with the pack; None if none is held out."""

    manifest: Manifest
    folder: Path
    proof: Proof
    report: TrainReport
    losses: tuple[float, float] | None

    def as_dict(self) -> dict[str, Any]:
        m = self.manifest
        return {
            "name": m.name,
            "folder": str(self.folder),
            "modules": len(m.rank_map),
            "storage": m.storage,
            "megabytes": m.sizes.tensor_bytes / 1e6,
            "steps": self.report.steps,
            "best_step": self.report.best_step,
            "stopped": self.report.stopped,
            "seconds": self.report.seconds,
            "tokens_per_s": self.report.tokens_per_s,
            "peak_memory_mb": self.report.peak_memory_mb,
            "evals": m.evals,
        }


def training_folder(home: Home, name: str) -> Path:
    """Where the checkpoint of a training lies until its pack is in the store."""
    return home.packs / ".training" / check_name(name)


def is_broken_off(home: Home, name: str) -> bool:
    """Whether there is a checkpoint of a training of that name to go on from."""
    return (training_folder(home, name) / CHECKPOINT).exists()


def check_free(store: Store, name: str, *, resume: bool | None) -> None:
    """Raises Taken if the name is, PlasticError if it is not said what becomes of a training broken off.

    resume: True goes on with it, False begins anew, None has not been said.
    """
    if store.folder(name).exists():
        raise Taken(f"there is a pack {name!r} already ({store.status(name)})", hint="choose another --name")
    if resume is None and is_broken_off(store.home, name):
        raise PlasticError(
            f"a training of {name!r} was broken off",
            hint="add --resume to go on with it, or --no-resume to begin anew",
        )


def create_pack(
    store: Store, base: Base, plan: Plan, *, resume: bool = False, tick: Tick | None = None
) -> Created:
    """Train what was planned on the bare base and put it into the store as a candidate.

    resume: go on from the checkpoint of a training that was broken off; the end is bit for bit the same.
    Killed at any point, the store is as it was, and the checkpoint is there to go on from. Under mlx.launch
    every process calls this, and the first one writes. Raises what `train` raises, BadConfig if the
    checkpoint is of other settings, Busy if a pack of that name is being trained, BadPack if the pack does
    nothing.
    """
    everyone = world()
    with _alone(store, plan.recipe.name) if everyone.first else nullcontext() as fault:
        folder = training_folder(store.home, plan.recipe.name)
        _open_for_all(everyone, folder, _identity(base, plan), resume=resume, fault=fault)
        return _create(store, base, plan, folder, tick or (lambda *_: None))


def _create(store: Store, base: Base, plan: Plan, folder: Path, tell: Tick) -> Created:
    everyone = world()
    with _not_to_resume(folder):
        events = store.home.logs / PLASTICITY if everyone.first else None
        pack, report = trained_pack(base, plan, checkpoint=folder, tell=tell, events=events)
        tell("proving", 0, 1, "what the pack changes")
        proof = proved(base, {plan.recipe.name: pack})
    losses = _losses(base, pack, plan)
    evals = pack.manifest.evals | _evals(proof, losses, report)
    manifest = dataclasses.replace(pack.manifest, evals=evals)
    where = store.folder(plan.recipe.name)
    if everyone.first:
        store.add(pack.factors, manifest)
        shutil.rmtree(folder, ignore_errors=True)
    tell("proving", 1, 1, "done")
    return Created(manifest, where, proof, report, losses)


def trained_pack(
    base: Base, plan: Plan, *, checkpoint: Path, tell: Tick, events: Path | None = None
) -> tuple[Pack, TrainReport]:
    """The pack that was planned, trained on the bare base and cut to its budget; not yet in any store.

    events: a JSONL file that is told every change of a rank.
    """
    recipe, start = plan.recipe, plan.start

    def stepped(p: Progress) -> None:
        detail = f"loss {p.loss:.3f}, {p.tokens_per_s:.0f} tokens/s, {p.eta_s:.0f} s left"
        tell("training", p.step, p.steps, f"step {p.step} of {p.steps}, {detail}")

    def changed(event: Event) -> None:
        if events:
            append_line(events, {"pack": recipe.name, **event.as_dict()})

    with (
        attached(base.model, {}, fingerprint=base.fingerprint),
        trainable(base.model, fallback=recipe.fp16_fallback) as widened,
    ):
        if widened:
            log.warning("%d quantized layers are dequantized while training", len(widened))
        trained = train(
            *(base, plan.pieces, plan.held_out, recipe.config),
            ranks=plan.ranks,
            start=start,
            checkpoint=checkpoint,
            on_progress=stepped,
            on_event=changed,
        )
    factors, fitted = _within_budget(base, plan, trained.factors, tell)
    manifest = make_manifest(
        factors,
        name=recipe.name,
        base_id=base.ref,
        base_fingerprint=base.fingerprint,
        training=recipe.settings(),
        data=_card(plan),
        run=trained.report.card(),
        parents=(start.manifest.name,) if start else (),
        lineage=lineage(plan.data.train, start),
        **fitted,
    )
    return Pack(manifest, factors), trained.report


@contextmanager
def _alone(store: Store, name: str) -> Iterator[PlasticError | None]:
    """Nobody else trains a pack of that name. Gives what is in the way, for all processes have to be told."""
    with ExitStack() as held:
        fault: PlasticError | None = None
        try:
            held.enter_context(locked(store.home, f"train-{check_name(name)}", hint="choose another --name"))
            check_free(store, name, resume=False)  # a moment ago somebody may have trained it
        except PlasticError as error:
            fault = error
        yield fault


@contextmanager
def _not_to_resume(folder: Path) -> Iterator[None]:
    """What fails inside would fail again: its checkpoint goes."""
    try:
        yield
    except (TrainingFailed, BadPack):
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _identity(base: Base, plan: Plan) -> dict[str, Any]:
    """What decides how the training goes, as far as a person can change it."""
    recipe = plan.recipe
    after = ("profile", "budget_mb")  # these only matter once it is trained
    return {
        **{key: value for key, value in recipe.settings().items() if key not in after},
        "base": base.fingerprint,
        "data": _card(plan).digest,
        "valid": data_card(plan.held_out).digest,
        "ranks": plan.ranks,
        "resume_pack": plan.start.manifest.sha256 if plan.start else "",
    }


def _open_for_all(
    everyone: World, folder: Path, identity: Mapping[str, Any], *, resume: bool, fault: PlasticError | None
) -> None:
    """`_open_folder` in the first process; its fault, or one from before, is raised in all."""
    if everyone.first and fault is None:
        try:
            _open_folder(folder, identity, resume=resume)
        except PlasticError as error:
            fault = error
    said = everyone.told(json.dumps([fault.message, fault.hint]).encode("ascii") if fault else None)
    if fault is not None:
        raise fault
    if said is not None:
        message, hint = json.loads(said)
        raise BadConfig(message, hint=hint)


def _open_folder(folder: Path, identity: Mapping[str, Any], *, resume: bool) -> None:
    """Make the folder of the checkpoint, or see that the one there is of this very training."""
    file = folder / SETTINGS
    if resume and file.exists():
        before = json.loads(file.read_text("utf-8"))
        differing = [
            key for key, value in json.loads(json.dumps(identity)).items() if before.get(key) != value
        ]
        if differing:
            told = "; ".join(_difference(key, before.get(key), identity[key]) for key in differing)
            raise BadConfig(
                f"the training that was broken off is another one: {told}",
                hint="give the same options and data as then, or begin anew: --no-resume",
            )
        return
    shutil.rmtree(folder, ignore_errors=True)
    write_json(file, dict(identity))


def _difference(key: str, before: Any, now: Any) -> str:
    plain = isinstance(now, int | float | str) and key not in ("base", "data", "valid", "resume_pack")
    return f"{key} was {before!r}, now {now!r}" if plain else f"{key} differs"


def _card(plan: Plan) -> DataCard:
    card = data_card(plan.data.train)
    return card if card.kinds else dataclasses.replace(card, kinds={plan.data.form: card.samples})


def _within_budget(
    base: Base, plan: Plan, factors: dict[str, Factors], tell: Tick
) -> tuple[dict[str, Factors], dict[str, Any]]:
    """The update as it is to be stored, and what the manifest says of how."""
    if not plan.recipe.budget_mb:
        return factors, {}
    found = fit(
        *(base, factors, plan.held_out),
        budget_bytes=int(plan.recipe.budget_mb * 1e6),
        weigh=plan.pieces,
        on_progress=lambda done, total: tell("cutting", done, total, f"{done} of {total} ways measured"),
    )
    best = found.best
    told = {"weighed_by": best.metric, "bytes": best.file_bytes, "nll": best.nll, "nll_uncut": found.full_nll}
    return found.factors, {"storage": best.storage, "group_size": best.group_size, "evals": {"budget": told}}


def _losses(base: Base, pack: Pack, plan: Plan) -> tuple[float, float] | None:
    """Nats per held-out token, bare and with the pack as it is stored."""
    if not plan.held_out:
        return None
    with attached(base.model, {}, fingerprint=base.fingerprint):
        before = measure_loss(base, plan.held_out).nll
    with attached(base.model, {pack.manifest.name: pack}, fingerprint=base.fingerprint):
        return before, measure_loss(base, plan.held_out).nll


def _evals(proof: Proof, losses: tuple[float, float] | None, report: TrainReport) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kl_nats": proof.mean_kl_nats,
        "max_logit_change": proof.max_logit_change,
        "best_step": report.best_step,
    }
    if losses:
        found |= {"valid_loss_base": finite(losses[0]), "valid_loss": finite(losses[1])}
    return found
