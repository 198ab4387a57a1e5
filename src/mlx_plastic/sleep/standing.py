"""What was measured of a model once, kept: the standing sets and a pack's weights do not change.

What is worn tonight was judged as the candidate of an earlier night, on the same perplexity set and the same
tasks. So these are measured once a night, of the new model, and not again of the old one or the bare base.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from mlx_plastic import __version__
from mlx_plastic.errors import BadData
from mlx_plastic.evals import Report
from mlx_plastic.evals.harness import task_files
from mlx_plastic.home import Home, write_json
from mlx_plastic.sleep.judge import JudgeConfig

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
KEPT = 32  # measurements; the oldest ones go


def standing(
    home: Home, base: str, packs: Sequence[str], config: JudgeConfig, measure: Callable[[], Report]
) -> Report:
    """The report kept of this base wearing these packs, else what `measure` finds of it, kept now.

    base: its fingerprint. packs: the sha256 of their tensors. A file that is broken or foreign is
    measured anew and replaced.
    """
    path = home.cache / "judged" / f"{key(base, packs, config)}.json"
    try:
        report = Report.from_dict(json.loads(path.read_bytes()))
        os.utime(path)
        return report
    except FileNotFoundError:
        pass
    except (BadData, ValueError) as error:
        log.info("what was kept of an earlier measurement is of no use: %s", error)
    report = measure()
    write_json(path, report.as_dict(parts=True))
    _thin(path.parent)
    return report


def key(base: str, packs: Sequence[str], config: JudgeConfig) -> str:
    """Of everything that the measurement depends on: weights, texts, limits, and what computes it."""
    from mlx_plastic.backend import mx

    computed_by = [__version__, version("mlx"), version("mlx-lm"), str(mx.default_device())]
    files = [config.general_file, config.golden_file, *task_files(config.tasks_file)]
    parts = {
        "format": FORMAT_VERSION,
        "base": base,
        "packs": list(packs),
        "files": [hashlib.sha256(f.read_bytes()).hexdigest() if f and f.is_file() else "" for f in files],
        "limits": [config.answer_tokens, config.tokens],
        "computed by": computed_by,
    }
    return hashlib.sha256(json.dumps(parts).encode("utf-8")).hexdigest()[:32]


def _thin(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=lambda f: f.stat().st_mtime, reverse=True)
    for file in files[KEPT:]:
        file.unlink(missing_ok=True)
