"""A text with the views of it that several detectors need, each made once."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from mlx_plastic.memory.privacy.code import code_in
from mlx_plastic.memory.privacy.once import once
from mlx_plastic.memory.privacy.words import WORD, Line, lines_of

DIGITS = re.compile(r"[0-9]+")
BEFORE, AFTER = 48, 24  # characters around a find in which words may speak for it

GAP = 5  # characters between the parts of a number
ROOM = 24  # characters around a number that may belong to it: a prefix, an extension


@dataclass(frozen=True)
class Page:
    """The text under scan. low has the same length, so that offsets hold in both."""

    text: str

    @once
    def low(self) -> str:
        low = self.text.lower()
        if len(low) == len(self.text):
            return low
        # "İ" and the like become two characters: leave those as they are
        return "".join(c if len(small := c.lower()) != 1 else small for c in self.text)

    @once
    def groups(self) -> list[tuple[int, int]]:
        """Every run of ASCII digits."""
        return [m.span() for m in DIGITS.finditer(self.text)]

    @once
    def lines(self) -> list[Line]:
        """The words; `place` says where they are."""
        return lines_of(self.text)

    def place(self, word: int) -> tuple[int, int]:
        """Where in the text the word of that number is. Only lines that are asked for are looked at."""
        line = bisect_right(self._firsts, word) - 1
        if line not in self._places:
            start, end = self._cuts[line], self._cuts[line + 1]
            self._places[line] = [match.span() for match in WORD.finditer(self.text, start, end)]
        return self._places[line][word - self._firsts[line]]

    def spoken(self, first: int, last: int) -> list[str]:
        """The words of these numbers."""
        found: list[str] = []
        line = bisect_right(self._firsts, first) - 1
        while first < last:
            at = self._firsts[line]
            found += self.lines[line].words[first - at : last - at]
            line += 1
            first = self._firsts[line]
        return found

    @once
    def _firsts(self) -> list[int]:
        """The number of each line's first word."""
        return [0, *accumulate(len(line.words) for line in self.lines)]

    @once
    def _cuts(self) -> list[int]:
        return [0, *accumulate(line.length for line in self.lines)]

    @once
    def _places(self) -> dict[int, list[tuple[int, int]]]:
        return {}

    @property
    def words(self) -> int:
        return self._firsts[-1]

    @once
    def code(self) -> list[tuple[int, int]]:
        return code_in(self.text)

    def says(self, words: Iterable[str]) -> bool:
        """Whether one of the lower-cased words stands in it, also inside another: the cheapest question."""
        low = self.low
        return any([word in low for word in words])  # twice as quick as a generator

    def numbers(self, least: int, before: int = ROOM, after: int = ROOM) -> Iterable[tuple[int, int]]:
        """The stretches around where at least so many digits stand close together, joined where they meet."""
        if self._most_digits < least:  # seven detectors ask, and most texts have no number
            return ()
        return self._stretches(((a, b) for a, b, digits in self._clusters if digits >= least), before, after)

    def near(self, sign: re.Pattern[str], before: int, after: int) -> Iterator[tuple[int, int]]:
        """The stretches that reach so far around each find of a cheap sign, joined where they meet.

        A costly expression that needs the sign is then tried there alone.
        """
        return self._stretches((match.span() for match in sign.finditer(self.low)), before, after)

    def _stretches(
        self, spans: Iterable[tuple[int, int]], before: int, after: int
    ) -> Iterator[tuple[int, int]]:
        low, high = 0, -1
        for start, end in spans:
            if start - before > high:
                if high >= 0:
                    yield low, high
                low = max(0, start - before)
            high = min(len(self.text), end + after)
        if high >= 0:
            yield low, high

    @once
    def _clusters(self) -> list[tuple[int, int, int]]:
        """(start, end, digits) of runs of digits that at most GAP characters part."""
        found: list[tuple[int, int, int]] = []
        for start, end in self.groups:
            if found and start - found[-1][1] <= GAP:
                low, _, digits = found.pop()
                found.append((low, end, digits + end - start))
            else:
                found.append((start, end, end - start))
        return found

    @once
    def _most_digits(self) -> int:
        return max((digits for *_, digits in self._clusters), default=0)

    def before(self, start: int, reach: int = BEFORE) -> str:
        """The lower-cased words ahead of a find."""
        return self.low[max(0, start - reach) : start]

    def after(self, end: int, reach: int = AFTER) -> str:
        return self.low[end : end + reach]
