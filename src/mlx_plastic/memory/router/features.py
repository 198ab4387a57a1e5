"""A text as numbers: some fifty named ones that can be told as reasons, and its wording in hashed buckets.

The wording needs no model: words, pairs of words and character n-grams, each in one of BUCKETS by its CRC
(Weinberger et al. 2009, "Feature hashing for large scale multitask learning").
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mlx_plastic.memory.router.decision import Route
from mlx_plastic.memory.router.forms import FIRST_PERSON, URL, WORD
from mlx_plastic.memory.router.people import begins_with_a_name, names_somebody

BUCKETS = 2048
LOOKED_AT = 2_000  # characters; what a text is shows in its beginning

Embed = Callable[[Sequence[str]], NDArray[np.float32]]  # texts -> (n, d), rows of length 1


def _open(words: str) -> re.Pattern[str]:
    """At the beginning of the text, behind a "please" or a comma."""
    return re.compile(
        rf"\W*(?:please\W+|can you\W+|could you\W+|now\W+)?(?:{_alternatives(words)})\b", re.IGNORECASE
    )


def _within(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{_alternatives(words)})\b", re.IGNORECASE)


def _alternatives(words: str) -> str:
    return "|".join(re.escape(w).replace("_", r"\s+") for w in words.split())


MY = _within("my mine our ours mein meine meinen meiner unser unsere mon ma mes notre nos mi mis nuestra")
WISH = _within(
    """from_now_on call_me address_me greet_me whenever_i in_the_future speak_to_me talk_to_me talk_like
    answer_me i_want_you_to_be i'd_like_you_to don't_ever stop_saying every_time use_the_name with_me for_me
    nenn_mich antworte_mir appelle-moi llámame always_answer always_say always_use always_give always_end
    always_begin always_start always_keep always_speak always_write never_write never_recommend never_suggest
    never_use never_say never_call assume_that"""
)
ALWAYS = _within("always never ever when_i when_you whenever immer toujours siempre nie jamais nunca")
BACK = _within("how_about_you what_about_you and_you yours you_too und_du und_dir et_toi y_tú")
REQUEST = _within(
    """remind_me help_me tell_me let_me_know i_want_to_know i'd_like_to_know i_wonder i_was_wondering
    i'm_wondering do_you_know do_you_remember i_forgot can't_remember can_you could_you would_you show_me
    give_me i'm_looking_for i_need_help i_need_a"""
)
REACTION_OPENS = _open(
    """that's that_is this_is it_is it's sounds what_a i_guess me_too i_agree i_see i_hope i_mean i_might
    i_don't_mind i_don't_know i_don't_understand not_sure no_idea maybe you_are you're fine well"""
)
ASKED = _open(
    """what who whom whose which where when why how is are was were do does did will would should shall has
    have was_ist wie wer wo wann warum quel quelle qui où quand pourquoi comment qué quién dónde cuál cómo
    whats hows any am wdym"""
)
# "When it rains I stay in bed.", "What Nora likes best is tea.": a clause, and nothing is asked
CLAUSE = re.compile(
    r"\W*(?:when(?:ever)?|where(?:ver)?|what(?:ever)?|who(?:ever)?|how(?:ever)?|why)\s+(?!(?:a|an|to|about|is|are|was|"
    r"were|do|does|did|can|could|will|would|should|shall|has|have|had|if|not|many|much|often|long|far|old)\b)"
    r"[^?\n]{3,200}[.!]\s*\Z",
    re.IGNORECASE,
)
TASK = _open(
    """write make give tell translate summarize summarise explain correct count find list compare define
    solve convert rewrite repeat suggest recommend draft compose describe put say show round rhyme pick
    name calculate continue stop start go let's skip try remove use add guess pretend play ask schreib
    übersetze erkläre écris traduis cuéntame traduce forget_it wait shorter"""
)
OWN_STORY = re.compile(r"\W*(?:(?:and|so|well|yeah|oh|but)\W+)*(?:I|i|my|My|im|Im|We|Our|our)\b")
NOTE = _within(
    """note todo remember_for save_this keep_this write_this_down list minutes reminder read_later bookmark
    order invoice parcel tracking booking ticket appointment meeting dentist flight gate room platform
    error version deadline open_points next_steps results code key drawer shipped termin liste protokoll
    cita factura rendez-vous numéro nummer sendungsnummer"""
)
PEOPLE = _within(
    """sister brother mother father mum mom dad aunt uncle cousin daughter son wife husband grandmother
    grandfather grandma grandpa girlfriend boyfriend flatmate niece nephew partner friend friends boss
    colleague neighbour neighbor kids children parents family stepson stepdaughter mother-in-law
    father-in-law fiancé fiancée roommate schwester bruder mutter vater tochter sohn soeur frère mère père
    fille fils hermana hermano madre padre hija hijo gf bf hubby"""
)
TASTE = _within(
    """love loves like likes hate hates prefer prefers favourite favorite adore enjoy enjoys can't_stand fan
    allergic allergy dislike best rather crazy_about lieblingsessen mag adore favorito"""
)
GREETING = _open(
    """hello hi hey good_morning good_evening good_afternoon good_night morning yo greetings bye see_you
    thanks thank_you thx ty cheers ok okay yes no sure yep nope hallo guten danke bonjour merci hola
    gracias tschüss ciao hasta lol haha wow hm hmm ugh omg test testing ping nice great perfect"""
)
NOW = _within("today tonight now right_now just currently at_the_moment this_morning this_evening brb gerade")
DATE = re.compile(
    r"\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b|"
    r"\b(?:january|february|march|april|june|july|august|september|october|november|december)\b|"
    r"\b(?:19|20)\d\d\b|\b\d{1,2}[./]\d{1,2}[./]|\b\d{1,2}(?:st|nd|rd|th)\b|\b(?:mai|juni|mayo|junio|juin)\b",
    re.IGNORECASE,
)
CLOCK = re.compile(r"\b\d{1,2}:\d\d\b|\b\d{1,2}\s?(?:am|pm|uhr)\b", re.IGNORECASE)
ROUTINE = _within(
    "every each daily weekly twice usually since years months jeden jede seit depuis chaque desde todas todos"
)
UNIT = re.compile(
    r"\d\s?(?:%|percent|mg|g|kg|ml|l|cm|mm|m|km|gb|tb|mb|hz|v|w|mah|euros?|kr|kcal|degrees|minutes|hours|days|"
    r"weeks|months|years|pages|points)\b|[$£€]\s?\d",
    re.IGNORECASE,
)
IDENTIFIER = re.compile(
    r"#\d{2,}|\b(?=[A-Z0-9-]{5,})(?=[A-Z0-9-]*\d)(?=[A-Z0-9-]*[A-Z])[A-Z0-9-]{5,}\b|\b\d{6,}\b|\b\w+_\w+\b|"
    r"\b\d+\.\d+\.\d+\b|\b[A-Z]\d{1,3}\b"
)
CODE = re.compile(r"[{}<>;=|\\`]|\(\)|::|--\w|/\w+/|\w\.\w{2,4}\b(?!\s[A-Z])")
HAVE = _within(
    "am is are have has was own live lives work works called named i'm im bin habe heißt suis tengo soy"
)
CHANGE = _within(
    "no_longer actually not_anymore any_more these_days used_to changed moved moves started quit wrong"
)
STORY = _within("went had been took got came met saw said told made born married bought broke passed studied")
SENTENCE = re.compile(r"[^.!?\n]{3,}[.!?]?")
ITEMS = re.compile(r"^\s*(?:[-*•]|\d+[.)]|\[.\])\s", re.MULTILINE)


def _says_of_oneself(text: str, words: float) -> float:
    """How many sentences begin with I or my and ask nothing, at most 3."""
    said = [match[0] for match in SENTENCE.finditer(text)]
    return min(3.0, sum(OWN_STORY.match(s) is not None and not s.endswith("?") for s in said))


def _statements(text: str, words: float) -> float:
    return min(3.0, sum(not match[0].endswith("?") for match in SENTENCE.finditer(text)))


def _rate(pattern: re.Pattern[str]) -> Callable[[str, float], float]:
    """Matches per ten words, at most 3: a text with one of three words is not one with one of thirty."""
    return lambda text, words: min(3.0, 10 * len(pattern.findall(text)) / (words + 4))


def _has(pattern: re.Pattern[str]) -> Callable[[str, float], float]:
    return lambda text, words: float(pattern.search(text) is not None)


def _opens(pattern: re.Pattern[str]) -> Callable[[str, float], float]:
    return lambda text, words: float(pattern.match(text) is not None)


def _ratio(kind: Callable[[str], bool]) -> Callable[[str, float], float]:
    return lambda text, words: sum(map(kind, text)) / max(1, len(text))


# name, as it is told as a reason, and how it is computed from the text and its count of words
NAMED: tuple[tuple[str, Callable[[str, float], float]], ...] = (
    ("length", lambda text, words: math.log1p(words)),
    ("very short", lambda text, words: float(words <= 2)),
    ("long", lambda text, words: float(words > 25)),
    ("several lines", lambda text, words: min(3.0, text.count("\n"))),
    ("several sentences", lambda text, words: min(4.0, len(re.findall(r"[.!?](?:\s|$)", text)))),
    ("long words", lambda text, words: len(text) / (words + 1)),
    ("first person", _rate(FIRST_PERSON)),
    ("speaks of oneself", _has(FIRST_PERSON)),
    ("begins with I or my", _opens(OWN_STORY)),
    ("a statement about oneself", _says_of_oneself),
    ("statements", _statements),
    ("my, our", _has(MY)),
    ("a person", _has(PEOPLE)),
    ("somebody by name", lambda text, words: float(names_somebody(text))),
    ("begins with a name", lambda text, words: float(begins_with_a_name(text))),
    ("begins with a clause", _opens(CLAUSE)),
    ("you, your", _has(re.compile(r"\b(?:you|your|yours|u|ur)\b", re.IGNORECASE))),
    ("a wish", _has(WISH)),
    ("always, never", _has(ALWAYS)),
    ("asks back", _has(BACK)),
    ("a request", _has(REQUEST)),
    ("a reaction", _opens(REACTION_OPENS)),
    ("begins with a question word", _opens(ASKED)),
    ("ends with a question mark", lambda text, words: float(text.rstrip().endswith("?"))),
    ("a task", _opens(TASK)),
    ("a greeting or thanks", _opens(GREETING)),
    ("an exclamation", lambda text, words: float("!" in text)),
    ("a taste", _has(TASTE)),
    ("is or has", _has(HAVE)),
    ("a change", _has(CHANGE)),
    ("told in the past", _has(STORY)),
    ("of this moment", _has(NOW)),
    ("a routine", _has(ROUTINE)),
    ("a note to keep", _rate(NOTE)),
    ("a date", _rate(DATE)),
    ("a time of day", _has(CLOCK)),
    ("an amount", _rate(UNIT)),
    ("an identifier", _rate(IDENTIFIER)),
    ("numbers", lambda text, words: min(4.0, len(re.findall(r"\d+", text)))),
    ("digits", _ratio(str.isdigit)),
    ("capital letters", _ratio(str.isupper)),
    ("names", lambda text, words: 10 * len(re.findall(r"(?<=[\w,;] )[A-Z][a-zà-ÿ]+", text)) / (words + 4)),
    ("punctuation", _ratio(lambda c: not c.isalnum() and not c.isspace())),
    ("a colon", lambda text, words: float(": " in text or text.endswith(":"))),
    ("a link", _has(URL)),
    ("code", _rate(CODE)),
    ("JSON", lambda text, words: float(text[:1] in "{[" and text.rstrip()[-1:] in ("}", "]"))),
    ("a list", _rate(ITEMS)),
    ("not ASCII", _ratio(lambda c: c > "\x7f")),
)  # fmt: skip
# what a few rules make of the features above: they see combinations, which a sum of weights cannot
GUESSED: dict[Route, str] = {
    "weights": "looks like a fact or a wish",
    "retrieval": "looks like a note",
    "both": "looks like a fact with figures",
    "neither": "looks like a question or small talk",
}
NAMES = (*(name for name, _ in NAMED), *GUESSED.values())
WORDING = "its wording"


def named(text: str) -> NDArray[np.float32]:
    """(len(NAMES),) float32 of a text, of which the first LOOKED_AT characters count."""
    text = text[:LOOKED_AT].strip()
    words = float(len(WORD.findall(text)))
    values = [measure(text, words) for _, measure in NAMED]
    guessed = _guess({name for (name, _), value in zip(NAMED, values, strict=True) if value > 0})
    return np.array([*values, *(float(route == guessed) for route in GUESSED)], np.float32)


def guess(text: str) -> Route:
    """A route by rules alone: what a new line of the seed set starts from, and what a fit has to beat."""
    return next(route for route, says in zip(GUESSED, named(text)[len(NAMED) :], strict=True) if says)


def _guess(has: set[str]) -> Route:
    if "a wish" in has:
        return "weights"
    if has & {"ends with a question mark", "a task", "a request"}:
        return "neither"
    if "begins with a question word" in has and "begins with a clause" not in has:
        return "neither"
    if has & {"a greeting or thanks", "a reaction", "very short"}:
        return "neither"
    exact = has & {"a date", "a time of day", "an amount", "an identifier", "numbers"}
    if has & {"speaks of oneself", "a person", "somebody by name", "a taste"}:
        return "both" if exact else "weights"
    return "retrieval" if exact or has & {"a note to keep", "code", "a link"} else "neither"


def wording(text: str) -> NDArray[np.float32]:
    """(BUCKETS,) float32 of length 1: the words, pairs of words and letters it is made of; 0 for none."""
    found = np.zeros(BUCKETS, np.float32)
    for gram in _grams(text[:LOOKED_AT]):
        found[zlib.crc32(gram) % BUCKETS] += 1
    np.sqrt(found, out=found)  # a word that is said ten times does not weigh ten times
    length = float(np.linalg.norm(found))
    return found / np.float32(length) if length else found


def _grams(text: str) -> Iterator[bytes]:
    said = [_shape(word) for word in WORD.findall(text)]
    for word in said:
        yield word
    for left, right in zip([b"^", *said], [*said, b"$"], strict=True):
        yield left + b" " + right
    for word in said:
        around = b"<" + word + b">"
        for i in range(len(around) - 3):
            yield around[i : i + 4]


def _shape(word: str) -> bytes:
    """The word in lower case; a number as how many digits it has."""
    return b"0" * len(word) if word.isdigit() else word.lower().encode("utf-8")
