"""Measure, compare, keep; knows nothing of packs: the model under test is an argument."""

from mlx_plastic.evals.gate import (
    EARLIER_LOSS,
    GENERAL_PPL,
    NIGHT_LOSS,
    RECALL,
    Policy,
    Reason,
    Verdict,
    decide,
)
from mlx_plastic.evals.harness import HarnessResult, Task, load_tasks, run_harness
from mlx_plastic.evals.ledger import History, Report, Score, append_csv
from mlx_plastic.evals.loss import GENERAL, LossResult, measure_loss, thinned, windows
from mlx_plastic.evals.speaker import Speaker

__all__ = [
    "EARLIER_LOSS",
    "GENERAL",
    "GENERAL_PPL",
    "NIGHT_LOSS",
    "RECALL",
    "HarnessResult",
    "History",
    "LossResult",
    "Policy",
    "Reason",
    "Report",
    "Score",
    "Speaker",
    "Task",
    "Verdict",
    "append_csv",
    "decide",
    "load_tasks",
    "measure_loss",
    "run_harness",
    "thinned",
    "windows",
]
