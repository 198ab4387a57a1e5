"""Benchmarks of lm-evaluation-harness on the model that is loaded, with what it wears."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_plastic.errors import BadData, NotInstalled, PlasticError

SEED = 0
HINT = "pip install 'mlx-plastic[lm-eval]'"


@dataclass(frozen=True)
class Metric:
    """One figure of one task. spread: its standard error by the harness; None: it gives none. n: examples."""

    task: str
    metric: str
    value: float
    spread: float | None
    n: int
    version: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_benchmarks(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[str],
    *,
    window: int,
    limit: int | None = None,
    shots: int | None = None,
    chat: bool = False,
    folder: Path | None = None,
    batch_size: int = 8,
) -> list[Metric]:
    """What lm-evaluation-harness measures, through mlx-lm's own adapter to it.

    model: an mlx-lm model, bare or with packs attached; nothing is loaded. window: tokens of prompt and
    answer together. limit: so many examples a task. shots: examples in the prompt; None: as the task has it.
    chat: under the chat template. folder: of more task files. Data sets come from the network once.
    Raises NotInstalled if the harness is not installed, BadData for a task that it does not know.
    """
    evaluator, manager = _harness(tasks, folder)
    if missing := _missing(tasks, manager):
        raise BadData(
            f"lm-evaluation-harness knows no task {', '.join(missing)}",
            hint="--folder DIR adds task files; its own list: lm-eval ls tasks",
        )
    subject = _subject(model, tokenizer, window=window, chat=chat, batch_size=batch_size)
    with _quiet():
        try:
            found = evaluator.simple_evaluate(
                model=subject,
                tasks=list(tasks),
                num_fewshot=shots,
                limit=limit,
                apply_chat_template=chat,
                task_manager=manager,
                random_seed=SEED,
                numpy_random_seed=SEED,
                fewshot_random_seed=SEED,
                bootstrap_iters=1000,
                log_samples=False,
            )
        except (OSError, ValueError, ImportError) as error:  # a data set that cannot be had, or does not fit
            raise PlasticError(
                f"lm-evaluation-harness gave up: {type(error).__name__}",
                hint="its data sets come from the network the first time; run with -v for all it says",
            ) from error
    return list(_metrics(found or {}))


def require_lm_eval() -> None:
    """Raises NotInstalled if lm-evaluation-harness is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise NotInstalled("lm-evaluation-harness is not installed", hint=HINT)


def _harness(wanted: Sequence[str], folder: Path | None) -> tuple[Any, Any]:
    """The evaluator, and the tasks: the folder's alone if it has all, for the others take long to list."""
    require_lm_eval()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the harness forks
    evaluator = importlib.import_module("lm_eval.evaluator")
    tasks = importlib.import_module("lm_eval.tasks")
    if folder:
        alone = tasks.TaskManager(include_path=str(folder), include_defaults=False)
        if not _missing(wanted, alone):
            return evaluator, alone
    return evaluator, tasks.TaskManager(include_path=str(folder) if folder else None)


def _missing(wanted: Sequence[str], manager: Any) -> list[str]:
    known = set(manager.all_tasks)
    return [name for name in wanted if name not in known]


def _subject(model: Any, tokenizer: Any, *, window: int, chat: bool, batch_size: int) -> Any:
    """mlx-lm's adapter around what is in memory; its own loads a checkpoint by path."""
    try:
        from mlx_lm.evaluate import MLXLM
    except ImportError as error:
        raise PlasticError(f"mlx-lm's adapter cannot be imported: {error}", hint=HINT) from error

    class Loaded(MLXLM):
        def __init__(self) -> None:
            super(MLXLM, self).__init__()
            self._model, self.tokenizer = model, tokenizer
            self._max_tokens, self._batch_size = window, batch_size
            self.use_chat_template, self._sampler = chat, None

        def generate_until(self, requests: Any) -> list[str]:
            """As many tokens as the task allows, which the window would overrule; as a chat shows them."""
            self._max_tokens = None
            try:
                texts: list[str] = super().generate_until(requests)
            finally:
                self._max_tokens = window
            return [text.strip() for text in texts] if chat else texts

    return Loaded()


def _metrics(found: dict[str, Any]) -> Iterator[Metric]:
    for task, values in found.get("results", {}).items():
        counts = found.get("n-samples", {}).get(task, {})
        version = str(found.get("versions", {}).get(task, ""))
        for key, value in values.items():
            name, _, filtered = key.partition(",")
            if name.endswith("_stderr") or not isinstance(value, int | float) or isinstance(value, bool):
                continue
            if name in ("alias", "sample_len"):
                continue
            error = values.get(f"{name}_stderr,{filtered}")
            label = name if filtered in ("", "none") else f"{name} ({filtered})"
            spread = float(error) if isinstance(error, int | float) else None
            yield Metric(task, label, float(value), spread, int(counts.get("effective", 0)), version)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """It prints progress and examples; results of a command go to stdout, and these are none."""
    import sys

    with contextlib.redirect_stdout(sys.stderr):
        yield
