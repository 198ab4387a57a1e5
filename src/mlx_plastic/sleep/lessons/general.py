"""What the bare base says of things in general, so that a pack stays near it."""

from __future__ import annotations

import json
import random
from importlib import resources

from mlx_plastic.evals import Speaker
from mlx_plastic.samples import Message, Sample, parse_messages
from mlx_plastic.sleep.lessons.config import LessonConfig

GENERAL_TOKENS = 96  # of an answer that is rehearsed


def general_answers(base: Speaker, config: LessonConfig, *, night: int = 0) -> list[Sample]:
    """The bare base's own answers to general prompts: rehearsed, they keep what it knew.

    They are sampled at temperature 1: to learn what the base itself would say is to stay near it, while its
    likeliest answers alone would make it surer than it was. night: its number; each draws others.
    """
    text = resources.files("mlx_plastic.sleep").joinpath("general_prompts.jsonl").read_text("utf-8")
    lines, draw = text.splitlines(), random.Random(config.seed + night)
    drawn = draw.sample(lines, min(config.general, len(lines)))
    prompts = [parse_messages(json.loads(line)) for line in drawn]
    answers = base.answers(prompts, max_tokens=GENERAL_TOKENS, temperature=1.0, seed=config.seed + night)
    return [
        Sample((*prompt, Message("assistant", answer)), f"general {i}", (), "rehearsal")
        for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
        if answer
    ]
