"""The second stage of a night: its samples become a candidate in the store."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import asdict

from mlx_plastic.errors import TrainingFailed
from mlx_plastic.packs import Manifest, Pack, make_manifest, read_manifest
from mlx_plastic.packs.train.train import Trained, data_card, lineage
from mlx_plastic.samples import Encoded, Part, Sample, encode
from mlx_plastic.sleep.config import NightConfig
from mlx_plastic.sleep.doors import Doors, read_samples
from mlx_plastic.sleep.journal import Journal
from mlx_plastic.sleep.lessons import balanced
from mlx_plastic.sleep.stop import Stopped


def learn(doors: Doors, journal: Journal, parts: dict[Part, list[Sample]]) -> None:
    journal.begin()
    rehearsal = read_samples(journal, "rehearsal.jsonl")
    tonight = balanced(parts["train"], doors.chosen.lessons)
    again = _encoded(doors, tonight + [s for s in rehearsal if s.kind == "rehearsal"])
    once = _encoded(doors, [s for s in rehearsal if s.kind != "rehearsal"])
    data, config = again + once, doors.chosen.night.attempt(len(journal.record.tried))
    epochs = max(1, round(config.epochs))
    start = doors.start(journal)
    with doors.stop.held():  # a step is brought to its end; then the tick stops it, and its state is kept
        trained: Trained = doors.train(
            doors.base,
            again * epochs + once,  # of earlier lessons other wordings in every epoch
            _encoded(doors, parts["valid"]),
            dataclasses.replace(config, epochs=config.epochs / epochs),
            ranks=_found_ranks(start) if config.dynamic_rank else None,
            start=start,
            checkpoint=journal.path("checkpoint"),
            on_progress=lambda p: doors.tick(
                "training",
                p.step,
                p.steps,
                f"loss {p.loss:.3f}, {p.tokens_per_s:.0f} tokens/s, {p.eta_s:.0f} s left",
            ),
            enough=doors.enough,
        )
    report = trained.report
    if report.stopped and not report.has_learned:
        raise Stopped(f"{report.stopped}, before training had brought anything")
    manifest = _keep(doors, journal, trained, data, config, start)
    facts = {"best_step": report.best_step, "stopped": report.stopped, "sha256": manifest.sha256}
    facts |= {"try": 1 + len(journal.record.tried)}
    losses = {"losses": [asdict(point) for point in report.losses]}
    journal.finish("train", {}, asdict(report.card()) | facts | losses)


def _found_ranks(start: Pack | None) -> dict[str, int] | None:
    """The ranks that earlier nights found, for a night to go on from; None where there are none."""
    return {path: factors.rank for path, factors in start.factors.items()} if start else None


def _encoded(doors: Doors, samples: Sequence[Sample]) -> list[Encoded]:
    """Whole, however long: the trainer cuts what is longer than its window.

    What the bare base said is not learned as words but, at each of them, as the base's own distribution.
    """
    mode, tokenizer = doors.chosen.night.loss_mode, doors.base.tokenizer
    once = dict.fromkeys(samples)  # most are learned several times
    found = {s: encode(s, tokenizer, max_tokens=sys.maxsize, loss_mode=mode) for s in once}
    soft = {s: dataclasses.replace(e, soft=s.kind == "rehearsal") for s, e in found.items()}
    return [soft[s] for s in samples]


def _keep(
    doors: Doors,
    journal: Journal,
    trained: Trained,
    data: Sequence[Encoded],
    config: NightConfig,
    start: Pack | None,
) -> Manifest:
    """Put what was trained into the store, as a candidate named like the night.

    Raises TrainingFailed for factors that have grown beyond what a pack may be.
    """
    record = journal.record
    try:
        manifest = make_manifest(
            trained.factors,
            name=record.tag,
            base_id=record.base_id,
            base_fingerprint=record.base_fingerprint,
            training=record.settings["night"] | {"seed": config.seed, "anchor": config.anchor},
            data=data_card(data),
            run=trained.report.card(),
            parents=doors.worn if start else (),
            lineage=lineage(data, start),
        )
        return read_manifest(doors.store.add(trained.factors, manifest, replace=True))
    except ValueError as error:  # factors that no reader would take back
        raise TrainingFailed(
            f"night {record.tag} trained no pack that could be worn: {str(error)[:200]}",
            hint=f"try a smaller learning rate than {doors.chosen.night.learning_rate:g}",
        ) from error
