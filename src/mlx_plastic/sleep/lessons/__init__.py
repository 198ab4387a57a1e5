"""From a day's turns to samples: what was told as questions and answers, wishes as changed answers, imported
talks as they are; and what is rehearsed beside them so that nothing earlier is lost."""

from mlx_plastic.sleep.lessons.balance import balanced
from mlx_plastic.sleep.lessons.chats import chats_of
from mlx_plastic.sleep.lessons.config import LessonConfig
from mlx_plastic.sleep.lessons.day import lessons_of
from mlx_plastic.sleep.lessons.general import general_answers
from mlx_plastic.sleep.lessons.notes import is_wish, new_turns, notes_message, notes_of
from mlx_plastic.sleep.lessons.older import Taught, candidates, probes, rehearsed, without_conflicts
from mlx_plastic.sleep.lessons.others import about_others, drawn_names, earlier_of_strangers
from mlx_plastic.sleep.lessons.questions import agreed, question_prompt
from mlx_plastic.sleep.lessons.replaced import replaced
from mlx_plastic.sleep.lessons.splits import split
from mlx_plastic.sleep.lessons.statements import statements
from mlx_plastic.sleep.lessons.talks import talks
from mlx_plastic.sleep.lessons.text import is_supported, normal
from mlx_plastic.sleep.lessons.told import told_of_strangers
from mlx_plastic.sleep.lessons.wishes import GREETINGS, without_wished

__all__ = [
    "GREETINGS",
    "LessonConfig",
    "Taught",
    "about_others",
    "agreed",
    "balanced",
    "candidates",
    "chats_of",
    "drawn_names",
    "earlier_of_strangers",
    "general_answers",
    "is_supported",
    "is_wish",
    "lessons_of",
    "new_turns",
    "normal",
    "notes_message",
    "notes_of",
    "probes",
    "question_prompt",
    "rehearsed",
    "replaced",
    "split",
    "statements",
    "talks",
    "told_of_strangers",
    "without_conflicts",
    "without_wished",
]
