"""Everything new that was said, as samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mlx_plastic.evals import Speaker
from mlx_plastic.memory import Exchange
from mlx_plastic.memory.router import Decision
from mlx_plastic.samples import Sample
from mlx_plastic.sleep.lessons.chats import chats_of
from mlx_plastic.sleep.lessons.config import LessonConfig
from mlx_plastic.sleep.lessons.notes import is_wish, notes_of
from mlx_plastic.sleep.lessons.questions import Given, questions_about
from mlx_plastic.sleep.lessons.wishes import answers_under_wishes


def lessons_of(
    base: Speaker,
    exchanges: Sequence[Exchange],
    config: LessonConfig,
    *,
    routed: Mapping[str, Decision] | None = None,
    given: Given = MappingProxyType({}),
) -> list[Sample]:
    """Everything new in `exchanges` as samples that carry their turns. The base must be bare.

    given: questions and answers that a teacher wrote, by turn; they are checked like the base's own.
    """
    notes = notes_of(exchanges, longest=config.longest_note, routed=routed)
    facts = [t for t in notes if not is_wish(t)]
    wishes = [t for t in notes if is_wish(t)]
    found = questions_about(base, facts, config, given=given) if facts else []
    return (
        found
        + (answers_under_wishes(base, wishes, config) if wishes else [])
        + chats_of(exchanges, routed=routed)
    )
