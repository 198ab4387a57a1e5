"""Where a text is code: fenced, quoted with backticks, or by the looks of its lines."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^[ \t]{0,8}(```|~~~)", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`\n]{1,400})`(?!`)")
_LOOKS = re.compile(
    r"[ \t]*(?:(?:def|class|import|return|elif|while|public|private|static|function|func|fn|var|let|const|"
    r"SELECT|INSERT|UPDATE|"
    r"assert|raise|yield|async|await|void|int|print|package|using|namespace)\b.*[=(:;{)\w]|from \S+ import |"
    r"if .*:\s*$|"
    r"for .* in .*:\s*$|for ?\(.*|try:|else:|except.*:|finally:|with .*:\s*$|@\w+|#include|#!/|//|/\*|\*/|"
    r"[\]})]+[;,]?\s*$|.*[;{}]\s*$|"
    r"[\w.\[\]]+ ?(?:[-+*/|&]?=|:=) ?\S.*|>>> |\$ \w|\w[\w.]*\(.*\)\s*$|<\/?\w+[^>]*>.*$|[\"']{3})"
)
LEAST_LINES = 3
LONGEST_LINE = 200  # characters of a line that are looked at


def code_in(text: str) -> list[tuple[int, int]]:
    """Stretches of code, in order, without overlaps."""
    found = _fenced(text) if "```" in text or "~~~" in text else []
    if "`" in text:
        found += [m.span(1) for m in _INLINE.finditer(text)]
    if text.count("\n") >= LEAST_LINES - 1:
        found += _by_looks(text)
    joined: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _fenced(text: str) -> list[tuple[int, int]]:
    found, opened = [], None
    for match in _FENCE.finditer(text):
        if opened is None:
            opened = match
        elif opened[1] == match[1]:
            found.append((opened.end(), match.start()))
            opened = None
    if opened is not None:
        found.append((opened.end(), len(text)))
    return found


def _by_looks(text: str) -> list[tuple[int, int]]:
    """Runs of lines of which at least half look like code; a blank line belongs to what it parts."""
    found: list[tuple[int, int]] = []
    at, start = 0, -1
    for line in text.splitlines(keepends=True):
        looks = _LOOKS.match(line[:LONGEST_LINE].rstrip("\n")) is not None
        if looks:
            if start < 0:
                start, code, lines = at, 0, 0
            code, end = code + 1, at + len(line)
        if start >= 0:
            lines += bool(line.strip())
            if lines > 2 * code + 2:
                found += [(start, end)] if code >= LEAST_LINES else []
                start = -1
        at += len(line)
    if start >= 0 and code >= LEAST_LINES:
        found.append((start, end))
    return found
