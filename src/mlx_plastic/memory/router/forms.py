"""Patterns of text that is not what a person says in a chat: quotes, code, logs, pages, a model's answers.

Every pattern is matched on a line of at most 400 characters, on the beginning of a paragraph, or has bounded
parts only: none can run for long on hostile text.
"""

from __future__ import annotations

import re


def _any(*alternatives: str, flags: int = 0) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{a})" for a in alternatives), flags)


def _words(text: str) -> str:
    return "|".join(text.split())


WORD = re.compile(r"\w+(?:['\u2019]\w+)?")
URL = re.compile(r"\b(?:https?://|www\.)\S+", re.IGNORECASE)
FIRST_PERSON = _any(
    r"\b(?:I|i|[Mm]e|[Mm]y|[Mm]ine|[Mm]yself|[Ww]e|us|[Oo]urs?|im)\b",
    r"\b(?:[Ii]ch|[Mm]ir|[Mm]ich|[Mm]ein\w{0,2}|[Ww]ir|[Uu]nser\w{0,2})\b",
    r"\b(?:[Jj]e|[Mm]oi|[Mm]on|[Mm]es|[Nn]ous|[Nn]otre|[Yy]o|[Mm]is?|[Nn]osotros|[Ii]o|[Mm]i[oae])\b",
    r"\b[Jj]['\u2019]\w",
)

# -- a line

FENCE = re.compile(r"\s{0,3}(?:```|~~~)")
QUOTED = re.compile(r"\s{0,3}(?:\w{0,3}>|»)(?:\s|$|>)")
REPLY = re.compile(r"\s*(?:On|Am|Le|El)\b.{5,120}\b(?:wrote|schrieb|écrit|escribió)\s*:\s*$")
FORWARDED = re.compile(r"\s*-{2,}.{0,10}(?:original|forwarded) message", re.IGNORECASE)
HEADER = re.compile(r"[ \t]*(?:From|Subject|To|Date|Sent|Von|Betreff|De|Objet|Asunto) ?: \S.*$", re.MULTILINE)
RECALLED = re.compile(
    r"\s*(?:notes from earlier talks|recalled from earlier talks)\b.{0,80}:\s*$", re.IGNORECASE
)
MODEL = re.compile(
    r"\s*(?:\*\*)?(?:assistant|chat ?gpt|gpt[-\w.]{0,6}|claude|gemini|copilot|llama|mistral|bot|ai|model)"
    r"(?:\*\*)?(?: (?:said|says|answered|replied|wrote))?:",
    re.IGNORECASE,
)
SPEAKER = re.compile(
    r"\s*(?:\*\*)?(?:me|i|user|you|human|question|q)(?:\*\*)?(?: (?:said|asked))?:", re.IGNORECASE
)
MODEL_VOICE = _any(
    r"\s*as an ai\b",
    r"\s*as a (?:large )?language model",
    r"\s*i'm (?:just )?an ai\b",
    r"\s*(?:sure|certainly|of course|absolutely)[!,.] (?:here|i'd|i would|i can|let me)",
    flags=re.IGNORECASE,
)
CODE = _any(
    r"\s*(?:async\s+)?(?:def|fn|func|function|class|interface|struct|enum)\s+\w+\s*[({:<]",
    r"\s*import\s+[\w.]+\s*(?:;|,|$|as\b)",
    r"\s*from\s+[\w.]+\s+import\b",
    r"\s*#include\b|\s*#!/",
    r"\s*(?:using\s+[\w:]+|package\s+[\w.]+);",
    r"\s*(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE|ALTER TABLE)\s",
    r"\s*(?:const|let|var|int|float|double|char|bool|auto|val)\s+\w+\s*(?:=|;|\[)",
    r"\s*(?:return|raise|yield|await|throw)\b.*[;(\[{]",
    r"\s*(?:if|for|while|elif|with|except|switch)\b.*(?:\)\s*\{|[\])\w]:)\s*$",
    r"\s*(?:else|try|finally)\s*[:{]\s*$",
    r"\s*@\w+(?:\.\w+)*(?:\(.*\))?\s*$",
    r"\s*[\w.\[\]'\"]+\s*[-+*/|]?=\s*[\w\"'({\[-].*[()\[\];]",
    r"\s*[{}()\[\];]+\s*$",
    r"\s*(?:console\.\w+|print|printf|fmt\.\w+|System\.out\.\w+)\s*\(",
    r"\s*\$\s\S",
)
CODE_INSIDE = _any(
    r"[{}]\s*$|[=(){}\[\]].*;\s*$",
    r"=>\s*[{(\w]",
    r"\w\(\w*\)\s*[;{:]",
    r"&&\s",
    r"</\w+>",
    r"\w::\w",
    r"!==?\s",
)
SHELL = re.compile(
    r"\s*(?:"
    + _words(
        """sudo git docker pip npm npx ssh scp curl wget rsync ffmpeg kubectl apt brew cargo make find chmod
        grep sed awk tar python python3 uv conda"""
    )
    + r") \S.*?(?: --?\w|://|==|\S/\S|\|)"
)
DATA = _any(
    r"\s*\[?\d{4}-\d\d-\d\d[T ]\d{1,2}:\d\d",
    r"\s*Traceback \(most recent",
    r"\s*File \".{1,200}\", line \d",
    r"\s*npm ERR!",
    r"\s*error\[\w",
    r"\s*(?:ERROR|WARN|WARNING|INFO|DEBUG|FATAL|CRITICAL)\b[: ]",
    r"\s*at [\w.$]{3,}\(",
    r"\s*\|.*\|\s*$",
    r"\s*</?[A-Za-z!?][^<>]{0,200}>",
    r"\s*\w*(?:Error|Exception): ",
    r"\s*[A-Z][A-Z0-9_]{2,}=\S",
    r"\s*\[[\w.-]{2,40}\]\s*$",
    r"\s*HTTP(?:/\d\S*)? \d{3}\b",
)

# -- a paragraph

_TEXTS = _words(
    """article text page post paragraph passage abstract excerpt news newspaper report e-?mail message review
    story wikipedia website site blog thread comment transcript letter press.release book paper log output
    documentation docs manual"""
)
_TASKS = _words(
    """summari[sz]e translate proofread rewrite rephrase explain correct shorten paraphrase check edit
    simplify classify analy[sz]e review comment improve fix continue complete replace extract answer reply
    respond identify detect describe convert format fill compare count tl;?dr generate create make say fasse
    übersetze korrigiere résume traduis corrige resume traduce"""
)
_MATERIAL = _words(
    """this these following below above sentences? texts? paragraphs? words? lists? passages? questions?
    articles? code e?-?mails? items? statements? paper lyrics review"""
)
INTRODUCED = _any(
    r"\b(?:here(?:'s| is| are)|found|read|saw|copied|pasted?|pasting|quoting|quote|excerpt|from|this is)\b"
    rf"[^:\n.]{{0,60}}\b(?:{_TEXTS})\b[^:\n.]{{0,60}}:",
    r"\baccording to (?:wikipedia|(?:the|this|an?) (?:article|report|website|paper|news|study|newspaper"
    r"|manual|documentation|docs|book))",
    flags=re.IGNORECASE,
)
# "Translate this: ...", or a line that asks for something to be done to the text below it; but not a note
TASK = re.compile(
    r"(?![^:\n]{0,200}\b(?:notes?|remember|memory|mind|down)\b)"
    rf"(?:\s*(?:please |can you |could you )?(?:{_TASKS})\b"
    rf"(?:[^:\n]{{0,200}}:[ \n]|(?=[^\n]*\b(?:{_MATERIAL})\b)[^:\n]{{0,200}}\n)"
    r"|(?![^\n:]{0,200}\b(?:I|my|we|our)\b)"
    r"[^\n:]{0,200}\b(?:the following|given below|below)\b[^\n:]{0,120}(?::|[.?]?\n))",
    re.IGNORECASE,
)
WEB = _any(
    r"\((?:Reuters|AP|AFP|dpa)\)",
    r"©|\ball rights reserved|\bpress release|\badvertisement\b",
    r"\bread more\b|\bsubscribe\b|\bcookies\b|\bmin(?:ute)?s? read\b|\bshare this\b|\bsign up\b|\bclick here",
    r"\b(?:posted|published|updated) (?:by|on|in|at)\b",
    r"\bwikipedia\b|\[\d{1,3}\]|&(?:nbsp|amp|quot);|\]\(https?:",
    r"\bet al\.|\bdoi:|\barxiv\b|\bresearchers\b|\banalysts\b|\bofficials\b",
    r"\bspokes(?:man|woman|person)\b|\baccording to\b|\breported\b",
    flags=re.IGNORECASE,
)
ASSIGNED = re.compile(r"\s*[\w.-]{1,40}\s*[=:]\s*\S+\s*$")  # beside other data: a line of its settings
ONLY_URLS = re.compile(r"(?:\s*<?(?:https?://|www\.)\S+)+\s*$", re.IGNORECASE)
INLINE = _any(
    r'"[^"\n]{50,4000}"',
    r"\u201c[^\u201c\u201d]{50,4000}\u201d",
    r"\u201e[^\u201e\u201c\u201d]{50,4000}[\u201c\u201d]",
    r"«[^«»]{50,4000}»",
)
ASKS = re.compile(
    r"\s*(?:please|write|make|give|tell|create|draft|imagine|pretend|suggest|plan|help)\b", re.IGNORECASE
)
