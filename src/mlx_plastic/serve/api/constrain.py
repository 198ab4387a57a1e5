"""Answers that follow a JSON schema or call a tool, token by token: by llguidance, if it is installed."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlx_plastic.serve.api.errors import bad

if TYPE_CHECKING:
    from mlx_plastic.serve.batch.jobs import Constraint

INSTALL = "pip install 'mlx-plastic[schema]'"


class Constrainer:
    """Grammars for one tokenizer; what is costly is made when first asked for."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._ll: Any = None

    def schema(self, schema: dict[str, Any]) -> Callable[[], Constraint]:
        """A constraint for each answer. Raises ApiError for a schema that cannot be followed."""
        self._require("response_format")
        from llguidance import LLMatcher

        try:
            text = json.dumps(schema)
            grammar = LLMatcher.grammar_from_json_schema(text, defaults={"whitespace_flexible": False})
        except ValueError as error:
            raise bad(f"response_format: {str(error)[:200]}", "response_format") from None
        return self._checked(grammar, "response_format")

    def call(self, tools: Sequence[dict[str, Any]], names: Sequence[str]) -> Callable[[], Constraint]:
        """An answer that is one call of one of the named tools, in the form that the template teaches."""
        self._require("tool_choice")
        start, end = self._tokenizer.tool_call_start, self._tokenizer.tool_call_end
        if (start, end) != ("<tool_call>", "</tool_call>"):
            raise bad("this base writes calls in a form that cannot be required", "tool_choice")
        options = [
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool["function"]["name"]},
                    "arguments": tool["function"].get("parameters") or {"type": "object"},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for tool in tools
            if tool["function"]["name"] in names
        ]
        schema = json.dumps({"anyOf": options, "x-guidance": {"whitespace_flexible": False}})
        lark = f'start: "{start}\\n" call "\\n{end}"\ncall: %json {schema}\n'
        return self._checked(self._lark(lark), "tools")

    def _lark(self, text: str) -> Any:
        from llguidance import LLMatcher

        return LLMatcher.grammar_from_lark(text)

    def _require(self, param: str) -> None:
        if importlib.util.find_spec("llguidance") is None:
            raise bad(f"{param} needs the package llguidance: {INSTALL}", param, "unsupported_parameter")

    def _checked(self, grammar: Any, param: str) -> Callable[[], Constraint]:
        tokenizer = self._tokens()
        if fault := _fault(grammar, tokenizer):
            raise bad(f"{param} cannot be followed: {fault[:200]}", param)
        return lambda: Grammar(tokenizer, grammar)

    def _tokens(self) -> Any:
        import llguidance.hf

        with self._lock:
            if self._ll is None:
                inner = getattr(self._tokenizer, "_tokenizer", self._tokenizer)
                self._ll = llguidance.hf.from_tokenizer(
                    inner, eos_token=sorted(self._tokenizer.eos_token_ids)
                )
            return self._ll


def _fault(grammar: Any, tokenizer: Any) -> str:
    from llguidance import LLMatcher

    matcher = LLMatcher(tokenizer, grammar)
    return str(matcher.get_error()).splitlines()[0] if matcher.is_error() else ""


class Grammar:
    """See Constraint."""

    def __init__(self, tokenizer: Any, grammar: Any) -> None:
        import llguidance.numpy as bits
        from llguidance import LLMatcher

        self._bits = bits
        self._matcher = LLMatcher(tokenizer, grammar)
        self._mask = bits.allocate_token_bitmask(1, tokenizer.vocab_size)

    def allow(self, logits: np.ndarray) -> np.ndarray:
        self._bits.fill_next_token_bitmask(self._matcher, self._mask, 0)
        allowed = np.unpackbits(self._mask.view(np.uint8), bitorder="little").astype(bool)[: len(logits)]
        masked = np.full_like(logits, -np.inf)
        masked[: len(allowed)] = np.where(allowed, logits[: len(allowed)], -np.inf)
        return masked

    def take(self, token: int) -> bool:
        self._matcher.consume_token(token)
        return not self._matcher.is_stopped()
