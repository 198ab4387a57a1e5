"""Prompts that chat front ends send for themselves: titles, tags, follow-ups. Nobody said them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

LOOKED_AT = 4000  # characters at either end of a prompt

_TASKS = r"(?:titles?|tags?|categor(?:y|ies)|follow[- ]?ups?|emojis?|quer(?:y|ies)|autocomplet\w*)"
_FORMS = (
    # "### Task:" with the talk quoted between marks, as Open WebUI and its relatives send
    re.compile(r"^\s*#{1,4}\s*task:?\s", re.IGNORECASE),
    re.compile(r"<chat_history>|</chat_history>", re.IGNORECASE),
    # "Generate a concise title for this conversation", in the words of several other front ends
    re.compile(
        rf"\b(?:generate|create|provide|suggest|write|give|respond with|make)\b[^.\n]{{0,60}}\b{_TASKS}\b"
        r"[^.\n]{0,80}\b(?:conversation|chat|dialogue|discussion|exchange|thread|chat history)\b",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?:conversation|chat|messages?)\b[^\n]{0,80}\b(?:generate|create|provide|suggest)\b[^.\n]{0,60}"
        r"\b(?:title|tags|follow[- ]?up)",
        re.IGNORECASE,
    ),
    re.compile(r"\b\d\s*-\s*\d+[- ]words?\b[^\n]{0,40}\btitle\b", re.IGNORECASE),
    re.compile(r"\btitle\b[^\n]{0,60}\b\d\s*-\s*\d+[- ]words?\b", re.IGNORECASE),
)


def is_housekeeping(messages: Sequence[dict[str, Any]]) -> bool:
    """Whether the last message, or a system message of a single question, gives such a task.

    It errs towards the person: what is taken for one is neither logged nor learned.
    """
    asked = [m["content"] for m in messages if m["role"] == "user"]
    if not asked:
        return False
    alone = [m["content"] for m in messages if m["role"] == "system"] if len(asked) == 1 else []
    return any(_is_task(text) for text in (asked[-1], *alone))


def _is_task(text: str) -> bool:
    shown = text if len(text) <= 2 * LOOKED_AT else f"{text[:LOOKED_AT]}\n{text[-LOOKED_AT:]}"
    return any(form.search(shown) for form in _FORMS)
