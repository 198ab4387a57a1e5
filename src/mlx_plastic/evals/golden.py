"""How near a model's answers come to those of golden transcripts, by BLEU and chrF."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlx_plastic.errors import BadData, NotInstalled
from mlx_plastic.evals.speaker import Speaker
from mlx_plastic.samples import Message

RESAMPLES = 200  # of the answers, for the intervals
ANSWERS_PER_STEP = 64  # asked together; between two reports of progress

Chat = Sequence[Message]


@dataclass(frozen=True)
class StyleMatch:
    """bleu, chrf: over all answers, in [0, 100].

    *_margin: half of the 95 % interval, by bootstrap; None for a single answer. exact: the share of answers
    that are the golden ones, word for word. signature: how sacrebleu counted.
    """

    answers: int
    bleu: float
    bleu_margin: float | None
    chrf: float
    chrf_margin: float | None
    exact: float
    signature: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def golden_turns(chats: Sequence[Chat]) -> list[tuple[Chat, str]]:
    """Every golden answer with what was said before it. Raises BadData if there is none."""
    found: list[tuple[Chat, str]] = [
        (tuple(chat[:i]), message.content)
        for chat in chats
        for i, message in enumerate(chat)
        if message.role == "assistant" and any(m.role == "user" for m in chat[:i])
    ]
    if not found:
        raise BadData(
            "no transcript holds an answer", hint="give chats in which the assistant says something"
        )
    return found


def measure_style(
    speaker: Speaker,
    turns: Sequence[tuple[Chat, str]],
    *,
    max_tokens: int = 128,
    on_progress: Callable[[int, int], None] | None = None,
) -> StyleMatch:
    """Ask at temperature 0 behind the golden history, and compare. Raises NotInstalled without sacrebleu."""
    require_sacrebleu()
    answers: list[str] = []
    for start in range(0, len(turns), ANSWERS_PER_STEP):
        asked = [history for history, _ in turns[start : start + ANSWERS_PER_STEP]]
        answers += speaker.answers(asked, max_tokens=max_tokens)
        if on_progress:
            on_progress(len(answers), len(turns))
    return style_match(answers, [said for _, said in turns])


def style_match(answers: Sequence[str], golden: Sequence[str]) -> StyleMatch:
    """BLEU and chrF of the answers against the golden ones, one each.

    Source: Papineni et al. 2002; Popović 2015; as counted by sacrebleu (Post 2018).
    """
    require_sacrebleu()
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    bleu, chrf = BLEU(effective_order=True), CHRF()  # short answers may have no 4-gram at all
    b, c = (metric.corpus_score(list(answers), [list(golden)]).score for metric in (bleu, chrf))
    exact = sum(a.strip() == g.strip() for a, g in zip(answers, golden, strict=True)) / len(golden)
    margins = [_margin(metric, answers, golden) for metric in (bleu, chrf)]
    signature = f"{bleu.get_signature()} {chrf.get_signature()}"
    return StyleMatch(len(golden), float(b), margins[0], float(c), margins[1], exact, signature)


def _margin(metric: Any, answers: Sequence[str], golden: Sequence[str]) -> float | None:
    """Half of the 95 % interval over resampled answers.

    Ours, because sacrebleu's own fails where some resamples score exactly 0 (2.6.0).
    """
    n = len(golden)
    if n < 2:
        return None
    draw, scores = random.Random(0), []
    for _ in range(RESAMPLES):
        rows = draw.choices(range(n), k=n)
        picked = metric.corpus_score([answers[i] for i in rows], [[golden[i] for i in rows]])
        scores.append(float(picked.score))
    scores.sort()
    return (scores[-1 - RESAMPLES // 40] - scores[RESAMPLES // 40]) / 2


def require_sacrebleu() -> None:
    try:
        import sacrebleu  # noqa: F401
    except ImportError as error:
        raise NotInstalled(
            "sacrebleu is not installed, which counts BLEU and chrF",
            hint="pip install 'mlx-plastic[golden]'; plastic eval loss measures perplexity without it",
        ) from error
