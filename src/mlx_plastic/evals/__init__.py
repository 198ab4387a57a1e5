"""Measure, compare, keep; knows nothing of packs: the model under test is an argument."""

from mlx_plastic.evals.bounds import (
    CANARY_BITS,
    EARLIER_LOSS,
    GENERAL_PPL,
    GOLDEN_LOSS,
    NIGHT_LOSS,
    PLANTED,
    RECALL,
    SECRETS_SAID,
    Reason,
)
from mlx_plastic.evals.gate import Verdict, decide, near_miss, only_drifted
from mlx_plastic.evals.harness import HarnessResult, Task, load_tasks, run_harness
from mlx_plastic.evals.ledger import History, Report, Score, append_csv
from mlx_plastic.evals.loss import GENERAL, LossResult, measure_loss, thinned
from mlx_plastic.evals.policy import WHY, Policy
from mlx_plastic.evals.speaker import Speaker

__all__ = [
    "CANARY_BITS",
    "EARLIER_LOSS",
    "GENERAL",
    "GENERAL_PPL",
    "GOLDEN_LOSS",
    "NIGHT_LOSS",
    "PLANTED",
    "RECALL",
    "SECRETS_SAID",
    "WHY",
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
    "near_miss",
    "only_drifted",
    "run_harness",
    "thinned",
]
