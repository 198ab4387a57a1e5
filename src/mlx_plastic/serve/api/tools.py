"""Calls of tools in what the model says: told apart from text as it comes."""

from __future__ import annotations

import json
import secrets
from typing import Any


class CallReader:
    """Text on its way out; what lies between the marks of the base's template becomes calls."""

    def __init__(self, tokenizer: Any, tools: list[dict[str, Any]]) -> None:
        self._tokenizer, self._tools = tokenizer, tools
        self._start = str(tokenizer.tool_call_start)
        self._end = str(tokenizer.tool_call_end or "")
        self._held = ""
        self._inside = False
        self.calls: list[dict[str, Any]] = []

    def read(self, text: str) -> str:
        """The part of it that is text for sure."""
        self._held += text
        said = ""
        while True:
            mark = self._end if self._inside else self._start
            at = self._held.find(mark) if mark else -1
            if at < 0:
                break
            if self._inside:
                self._call(self._held[:at])
            else:
                said += self._held[:at]
            self._held = self._held[at + len(mark) :]
            self._inside = not self._inside
        if self._inside:
            return said
        doubts = (n for n in range(1, len(self._start)) if self._held.endswith(self._start[:n]))
        sure = len(self._held) - max(doubts, default=0)
        said, self._held = said + self._held[:sure], self._held[sure:]
        return said

    def end(self) -> str:
        """What was held back; a call that was cut short is told as the text that it is."""
        held, self._held = self._held, ""
        if self._inside and not self._end and held.strip():
            self._call(held)
            return ""
        return self._start + held if self._inside else held

    def _call(self, text: str) -> None:
        try:
            parsed = self._tokenizer.tool_parser(text, self._tools)
        except Exception:  # whatever the model wrote: mlx-lm's parsers raise many kinds
            self._held = ""
            self.calls.append(_call("", text))
            return
        for one in parsed if isinstance(parsed, list) else [parsed]:
            if isinstance(one, dict):
                arguments = one.get("arguments", {})
                told = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
                self.calls.append(_call(str(one.get("name", "")), told))


def _call(name: str, arguments: str) -> dict[str, Any]:
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
