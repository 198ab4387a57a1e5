"""From tokens to text that is sure: no half characters, no half stop text, no space around the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlx_plastic.base.generate import settled, until


class Speech:
    """The text of one answer as it grows.

    detokenizer: mlx-lm's, fresh. stops: what ends the answer; itself it is not said.
    """

    def __init__(self, detokenizer: Any, stops: Sequence[str], *, strip: bool) -> None:
        self._detokenizer = detokenizer
        self._stops = tuple(stops)
        self._strip = strip
        self._text = ""  # decoded and not said yet, save what `_said` counts
        self._begun = False
        self.matched = ""

    def hear(self, token: int) -> str:
        """What can be said now. `matched` is set once a stop text came: then it is the last."""
        self._detokenizer.add_token(token)
        return self._grow(self._detokenizer.last_segment, last=False)

    def end(self) -> str:
        """What was held back."""
        self._detokenizer.finalize()
        return self._grow(self._detokenizer.last_segment, last=True)

    def _grow(self, more: str, *, last: bool) -> str:
        if self.matched:
            return ""
        self._text += more
        cut = until(self._text, self._stops)
        if len(cut) < len(self._text):
            rest = self._text[len(cut) :]
            self.matched = next(stop for stop in self._stops if rest.startswith(stop))
            last = True
        sure = cut if last else settled(cut, self._stops)
        if self._strip:
            sure = self._stripped(sure, last=last)
        self._text = "" if last else self._text[len(sure) :]
        said = sure.lstrip() if self._strip and not self._begun else sure
        self._begun = self._begun or bool(said)
        return said.rstrip() if self._strip and last else said

    def _stripped(self, sure: str, *, last: bool) -> str:
        """Space at the end waits: it may turn out to be the end of the whole."""
        return sure if last else sure[: len(sure.rstrip())] if sure.strip() else ""
