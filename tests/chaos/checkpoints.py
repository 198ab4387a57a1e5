"""A survey and a compression, disturbed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from chaos.lives import Tell, folder_bytes
from mlx_plastic.compress.apply import Applying, apply
from mlx_plastic.compress.make import Planning, make_plan
from mlx_plastic.compress.plan import read_plan, write_plan
from mlx_plastic.survey.collect import collect, plan_collect
from mlx_plastic.survey.folder import RunFolder, init_run
from test_survey_runs import FAST, SCHEME, rows

# -- a survey


def begun_survey(checkpoint: Path, room: Path) -> None:
    model, values = room / "model", np.random.default_rng(0)
    model.mkdir(parents=True)
    for i in range(3):
        w = values.standard_normal((64, 256)).astype(np.float32)
        save_file({f"model.layers.{i}.mlp.up_proj.weight": w}, model / f"model-{i}.safetensors")
    init_run(room / "runs", FAST | {"model_path": str(model), "quant_schemes": SCHEME}, model_id="m")


def the_run(room: Path) -> RunFolder:
    return RunFolder(next((room / "runs").glob("m/*")))


def survey(checkpoint: Path, room: Path, tell: Tell, which: str) -> None:
    run = the_run(room)
    collect(run, plan_collect(run), workers=1)


def surveyed(checkpoint: Path, room: Path, promised: Sequence[str], which: str) -> Any:
    survey(checkpoint, room, lambda line: None, which)
    return json.loads(json.dumps(rows(the_run(room))))


# -- a compression


def begun_compression(checkpoint: Path, room: Path) -> None:
    room.mkdir()
    write_plan(room / "plan.json", make_plan(str(checkpoint), Planning(budget="5.0bpw")))


def compress(checkpoint: Path, room: Path, tell: Tell, which: str) -> None:
    apply(read_plan(room / "plan.json"), str(checkpoint), room / "out", Applying(park="all"))


def compressed(checkpoint: Path, room: Path, promised: Sequence[str], which: str) -> Any:
    if not (room / "out").exists():
        compress(checkpoint, room, lambda line: None, which)
    weights = {n: b for n, b in folder_bytes(room / "out").items() if n.endswith("safetensors")}
    assert sorted(path.name for path in room.iterdir()) == ["out", "plan.json"], "the room is not tidy"
    return {name: hashlib.sha256(data).hexdigest() for name, data in weights.items()}
