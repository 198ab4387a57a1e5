"""What is read when: the curriculum, as a function of the tokens read so far.

Recall from context comes first, with told facts only; untold questions, unusual words, skills and natural
text are mixed in once it stands. A plain mixture from the start ends at "I do not know" to everything.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from nano_recipe import people, skills
from nano_recipe.people import Chat

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


@dataclass(frozen=True)
class Stage:
    """untold: share of questions about what was not told. unusual: share of made-up values."""

    untold: float
    unusual: float
    most_facts: int
    weights: dict[str, float]


POLISH = Stage(  # at the end more of the skills, so that they sit firmly
    untold=0.36,
    unusual=0.25,
    most_facts=6,
    weights={
        "told": 0.33,
        "woven": 0.10,
        "nothing": 0.04,
        "questions": 0.12,
        "wish": 0.06,
        "skills": 0.29,
        "corpora": 0.06,
    },
)


def ramp(x: float, start: float, stop: float) -> float:
    return min(1.0, max(0.0, (x - start) / (stop - start)))


def stage(progress: float) -> Stage:
    """The stage at `progress`, the share of the main run that is done; the polish begins at 1."""
    if progress < 0.06:
        return Stage(0.0, 0.0, 2, {"told": 0.85, "skills": 0.15})
    if progress >= 1.0:
        return POLISH
    mixed = ramp(progress, 0.06, 0.2)
    return Stage(
        untold=0.36 * mixed,
        unusual=0.25 * mixed,
        most_facts=2 + round(4 * ramp(progress, 0.06, 0.3)),
        weights={
            "told": 0.42,
            "woven": 0.10,
            "nothing": 0.03 * mixed,
            "questions": 0.12,
            "wish": 0.04,
            "skills": 0.22,
            "corpora": 0.10 * mixed,
        },
    )


def draw(r: random.Random, now: Stage, corpora: dict[str, list[Chat]]) -> Chat:
    """One conversation of the stage."""
    weights = {k: w for k, w in now.weights.items() if w and (k != "corpora" or corpora)}
    kind = r.choices(list(weights), list(weights.values()))[0]
    if kind == "corpora":
        source = r.choices(
            list(corpora), [{"taskmaster4": 4.0, "chatterbot": 2.0}.get(s, 1.0) for s in corpora]
        )[0]
        return r.choice(corpora[source][8:])  # the first eight of each are held out
    facts = r.randint(1, now.most_facts)
    if kind in ("told", "woven"):
        chat = people.told_then_asked(
            r, untold=now.untold, unusual=now.unusual, facts=facts, asks=r.randint(2, 6)
        )
        return weave(r, chat) if kind == "woven" else chat
    if kind == "nothing":
        return people.nothing_told(r, r.randint(1, 4))
    if kind == "questions":
        return people.questions_from_note(r, unusual=now.unusual)
    if kind == "wish":
        return people.wish_then_greeting(r)
    return some_skills(r, r.randint(2, 5), held=False)


def some_skills(r: random.Random, count: int, *, held: bool) -> Chat:
    names = r.choices(list(skills.SKILLS), [w for _, w in skills.SKILLS.values()], k=count)
    chat = [message for name in names for message in skills.SKILLS[name][0](r, held)]
    if r.random() < 0.15:
        chat = people.exchange(people.greeting(r), people.greet_back(None)) + chat
    return chat


def weave(r: random.Random, chat: Chat) -> Chat:
    """Skills asked in the middle of a talk about people, so that what was told must be kept in mind."""
    at = 2 * r.randint(0, len(chat) // 2) + (1 if chat[0]["role"] == "system" else 0)
    return chat[:at] + some_skills(r, r.randint(1, 2), held=False) + chat[at:]


def render(chat: Chat) -> str:
    """The conversation under nano's chat template (jinja's result, without jinja's cost)."""
    return "".join(f"<|{m['role']}|> {m['content']}<|end|>" for m in chat)
