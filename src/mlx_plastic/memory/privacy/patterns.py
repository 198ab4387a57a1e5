"""What has a written form of its own: emails, handles, URLs, IP and MAC addresses.

Every expression either consumes what it looks at or looks at no more than a bounded stretch, so that no text
takes more than linear time.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from mlx_plastic.memory.privacy.page import Page
from mlx_plastic.memory.privacy.spans import CERTAIN, LIKELY, POSSIBLE, Span

# An address's local part is at most 64 characters, a domain at most 253 (RFC 5321).
_LOCAL = re.compile(r"[\w.!#$%&*+/=?^`{|}~-]{1,64}\Z")  # no quotes: they are the sentence's
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_][\w-]{0,22}[^\W_]")
_SPOKEN = re.compile(
    r"(?<![\w.])([a-z0-9][\w.+-]{0,40})\s?(?:\(at\)|\[at\]|\{at\}| at )\s?"
    r"([a-z0-9-]{1,40}(?:\s?(?:\(dot\)|\[dot\]|\{dot\}| dot |\.)\s?[a-z0-9-]{2,20}){1,3})(?!\w)"
)
_SPELLED = ("(at)", "[at]", "{at}", "dot")  # without one of these _SPOKEN has nothing to find

_SCHEME = re.compile(
    r"(?<![a-z0-9])(?:https?|ftps?|sftp|wss?|ssh|git|file|mailto|tel|magnet|postgres(?:ql)?|mysql|mongodb"
    r"(?:\+srv)?|redis|amqp|jdbc:[a-z]{2,12}|s3|gs|ldaps?|smb|rtsp):(?://)?[^\s<>\"'`{}|\\^\x00-\x20]{2,}",
    re.IGNORECASE,
)
_WWW = re.compile(r"(?<![\w.-])www\d?\.[^\s<>\"'`{}|\\^\x00-\x20]{3,}", re.IGNORECASE)
# Top-level domains that people write without a scheme and that end neither a file's name nor a sentence.
_TLD = (
    "com|org|net|edu|gov|mil|info|biz|io|dev|app|ai|co|eu|uk|de|fr|nl|ch|se|dk|fi|cz|hu|ru|jp|cn|kr|br|"
    "au|nz|ca|mx|es|pt|gr|tr|ua|tech|online|site|shop|store|blog|cloud|xyz|club|museum|mobi|jobs|travel|coop"
)
_LOOSE = re.compile(
    rf"(?<![\w@.\-/\\])(?:[a-z0-9](?:[a-z0-9-]{{0,61}}[a-z0-9])?\.){{1,5}}(?:{_TLD})(?:\.[a-z]{{2}})?"
    r"(?![\w-]|\.\w|\()(?::\d{2,5})?(?:[/?#][^\s<>\"'`{}|\\^\x00-\x20]{0,})?",
    re.IGNORECASE,
)
_PATH = re.compile(  # any two-letter country, where a path follows
    r"(?<![\w@.\-/\\])(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,5}[a-z]{2,3}/[^\s<>\"'`{}|\\^\x00-\x20]{1,}",
    re.IGNORECASE,
)
_DOT = re.compile(r"\.[a-z]")
_CLOSING = {")": "(", "]": "["}

_V4 = re.compile(
    r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:/\d{1,2}|:\d{1,5})?"
    r"(?![\w]|\.\d)"
)
_V6 = re.compile(
    r"(?<![\w:.])(?=[0-9a-f]{0,4}:)[0-9a-f:]{3,41}(?:\d{0,3}(?:\.\d{1,3}){3})?(?:%\w{1,16})?(?:/\d{1,3})?"
    r"(?![\w:])",
    re.IGNORECASE,
)
_MAC = re.compile(
    r"(?<![\w:.-])[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}(?![\w:-])", re.IGNORECASE
)
_COLONS = re.compile(r":[0-9a-f]{0,4}:")
_HANDLE = re.compile(r"(?<![\w@./=\"'-])@[A-Za-z_]\w{2,29}+(?!\w|[/.]\w|\()")
_VERSION = re.compile(r"(?:\bv|version|release|section|chapter|§)\s?\Z")


def emails(page: Page) -> Iterator[Span]:
    text, at, end = page.text, page.text.find("@"), 0
    while at >= 0:
        local = _LOCAL.search(text, max(end, at - 64), at)
        domain = _DOMAIN.match(text, at + 1, at + 255)
        if local and domain:
            start = local.start() + len(local[0]) - len(local[0].lstrip("./=?&*#|~`^{"))
            if start < at:
                end = domain.end()
                yield Span(start, end, "email", CERTAIN)
        at = text.find("@", max(at + 1, end))
    if page.says(_SPELLED):
        for match in _SPOKEN.finditer(page.low):
            if "dot" in match[2] or " at " not in match[0]:  # "me at home.net" is no address
                yield Span(*match.span(), "email", POSSIBLE)


def handles(page: Page) -> Iterator[Span]:
    """What people call themselves in public: @nora_l."""
    if "@" in page.text:
        yield from (Span(*m.span(), "person", POSSIBLE) for m in _HANDLE.finditer(page.text))


def urls(page: Page) -> Iterator[Span]:
    text = page.text
    if ":" in text:
        for match in _SCHEME.finditer(text):
            if "://" in match[0] or match[0].lower().startswith(("mailto:", "tel:", "magnet:")):
                yield _trimmed(text, *match.span(), CERTAIN)
    if "." not in text:
        return
    if "www" in page.low:
        yield from (_trimmed(text, *m.span(), CERTAIN) for m in _WWW.finditer(text))
    for low, high in page.near(_DOT, 260, 0):
        while high < len(text) and not text[high].isspace():
            high += 1
        yield from (
            _trimmed(text, *m.span(), LIKELY)
            for m in _LOOSE.finditer(text, low, high)
            if not _is_abbreviation(m)
        )
        if "/" in text[low:high]:
            yield from (_trimmed(text, *m.span(), POSSIBLE) for m in _PATH.finditer(text, low, high))


def ips(page: Page) -> Iterator[Span]:
    text = page.text
    if text.count(".") >= 3:
        for match in (m for window in page.numbers(4) for m in _V4.finditer(text, *window)):
            if not _VERSION.search(page.before(match.start(), 10)):
                yield Span(*match.span(), "ip", CERTAIN)
    colons = text.count(":")
    if colons >= 2 and _COLONS.search(page.low):
        for match in _V6.finditer(text):
            if match[0].count(":") >= 2 and _is_v6(match[0]):
                yield Span(*match.span(), "ip", CERTAIN)
    if colons >= 5 or text.count("-") >= 5:
        yield from (Span(*m.span(), "ip", LIKELY) for m in _MAC.finditer(text))


def _is_v6(found: str) -> bool:
    bare = found.split("%")[0].split("/")[0]
    if not any(c.isdigit() for c in bare) and bare.count(":") < 4:  # "a::b" is a name in C++ and in Ruby
        return False
    try:
        return ipaddress.ip_address(bare).version == 6
    except ValueError:
        return False


def _is_abbreviation(match: re.Match[str]) -> bool:
    """Whether it is two sentences that lack a space ("done.In fact") rather than a domain ("done.in")."""
    labels = match[0].split("/")[0].split(".")
    return len(labels) == 2 and labels[-1][:1].isupper() and not labels[-1].isupper()


def _trimmed(text: str, start: int, end: int, confidence: float) -> Span:
    """Without the sentence's own full stop or bracket at the end."""
    surplus = {c: text.count(c, start, end) - text.count(o, start, end) for c, o in _CLOSING.items()}
    while end > start and (last := text[end - 1]) in ".,;:!?*_)]…":
        if last in surplus:
            if surplus[last] <= 0:
                break
            surplus[last] -= 1
        end -= 1
    return Span(start, end, "url", confidence)
