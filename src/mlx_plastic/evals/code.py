"""Whether code in an answer is right: taken out of the talk around it, and run in the sandbox."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlx_plastic.evals.sandbox import run_python

FENCE = re.compile(r"```[ \t]*(?:python|py|python3)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
KEYS = ("tests", "stdout", "before")


def passes_code(wanted: Mapping[str, Any], answer: str) -> bool:
    """Whether the answer's code runs to its end, passes `tests` and prints `stdout`.

    before: code put before it; an answer that goes on with its last, indented block is joined to that.
    tests: code run behind it, where `_` is the value of its last expression. stdout: all that it prints, up
    to space at the ends of lines.
    """
    ran = run_python(joined(wanted.get("before", ""), code_of(answer)), tests=wanted.get("tests", ""))
    return ran.ok and ("stdout" not in wanted or _lines(ran.stdout) == _lines(wanted["stdout"]))


def code_of(answer: str) -> str:
    """The fenced blocks of Python or of nothing named, together; without any, the whole answer."""
    blocks = FENCE.findall(answer)
    return "\n".join(blocks) if blocks else answer


def joined(before: str, code: str) -> str:
    if not before:
        return code
    return before.rstrip("\n") + "\n" + (code if code[:1].isspace() else "\n" + code)


def is_code_check(wanted: Any) -> bool:
    if not isinstance(wanted, dict) or not {"tests", "stdout"} & wanted.keys() or wanted.keys() - set(KEYS):
        return False
    return all(isinstance(value, str) for value in wanted.values())


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]
