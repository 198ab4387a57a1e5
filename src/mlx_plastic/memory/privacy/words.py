"""A text cut into words, and what the tagger sees of each."""

from __future__ import annotations

import re
from typing import NamedTuple

from mlx_plastic.memory.privacy.lexicon import lexicon

# Words with apostrophes inside ("O'Brien"), a possessive "'s" of its own, new lines, and single signs.
_OF_TITLE = "|".join(
    rf"(?<=\b{t}\.)" for t in ("[Mm][Rr]", "[Mm][Ss]", "[Dd][Rr]", "[Ss][Tt]", "[Mm][Rr][Ss]", "[Pp]rof")
)
WORD = re.compile(
    rf"[^\W_]{{1,40}}(?:['\u2019](?![sS]\b)[^\W_]{{1,40}}|\.(?=\s)(?:{_OF_TITLE}))?|['\u2019][sS]\b|\n|[^\s]"
)
_APOSTROPHE = re.compile(r"['\u2019]")
_CUT = re.compile(r"[^\n]*\n|[^\n]+")
_HUMP = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+")
_REPEATED = re.compile(r"(.)\1+")
CONTRACTED = frozenset(("t", "ll", "ve", "re", "m", "d"))
LONGEST = 24  # letters of a word that count; what is longer is no name
_CAPITAL_INSIDE = re.compile(r"[a-z,;:)] +[A-Z][a-zß-ÿ]")

ENDS = frozenset('.!?:"“”«*•>|#(\n')  # signs after which a sentence may begin

# How a line uses capitals: as written English does, hardly, or everywhere.
STYLES = PLAIN, LOWER, UPPER = "p", "l", "u"

STREET = frozenset(
    """
    street st str road rd avenue ave av lane ln drive dr boulevard blvd court ct place pl square sq
    terrace ter way highway hwy parkway pkwy circle cir trail trl crescent close alley plaza row mews
    grove gardens walk path pass loop route rte turnpike expressway freeway pike bypass crossing
    causeway quay wharf bend cove creek ridge run view heights hollow isle island junction knoll landing
    manor meadow meadows mill mount mountain orchard oval pine point port ranch rapids rest shoal shore
    spur station summit track trace tunnel underpass union valley viaduct village ville vista wall well
    wells fort ford forge fork gate glen green harbor haven hill hills bridge brook burg camp canyon
    cape center centre cliff corner course branch bluff bottom extension falls ferry field flat forest
    strasse straße gasse weg allee platz ring damm ufer chaussee steig rue allée chemin impasse quai
    cours passage calle avenida paseo plaza carrera camino ronda vial cuesta glorieta via viale piazza
    corso vicolo strada largo rua travessa praça alameda estrada rodovia straat laan plein gracht kade
    dreef singel hof väg vägen gatan gata vej gade plads stræde allé gate veien vei katu tie kuja polku
    ulica ul aleja al plac pl ulice náměstí námestie utca út tér körút sokak cadde caddesi mahallesi
    jalan jl gang marg nagar chowk salai oad
""".split()
)
STREET_ENDS = (
    "strasse", "straße", "gasse", "weg", "allee", "platz", "straat", "laan", "plein", "gracht", "gatan",
    "vägen", "vej", "gade", "gata", "veien", "katu", "kuja", "tie", "polku", "dreef", "singel", "ring",
    "damm", "ufer", "steig",
)  # fmt: skip
UNIT = frozenset(
    """
    apt apartment suite ste unit flat floor fl room rm studio box building bldg block lot door level
    house no nr wing po p.o psc fpo apo dpo uss usns usnv zip postcode postal appartamento piso depto
    edif apto ap bl sc hno plot sector c/o
""".split()
)
TITLES = frozenset(
    """
    mr mrs ms miss mx dr prof sir madam herr frau mme mlle monsieur señor señora sig sr sra rev
""".split()
)
PARTICLES = frozenset(
    """
    de da do dos das del della di du des la le les lo van von der den ten ter zu zum zur af av al el bin
    ibn y e san st
""".split()
)
RELATIONS = frozenset(
    """
    mother father mom mum dad sister brother son daughter wife husband aunt uncle cousin niece nephew
    grandma grandpa grandmother grandfather friend boyfriend girlfriend fiance fiancee partner boss
    manager colleague coworker neighbor neighbour teacher roommate landlord doctor dentist lawyer bro
    sis bestie hubby nan granny
""".split()
)
CALENDAR = frozenset(
    """
    january february march april may june july august september october november december monday tuesday
    wednesday thursday friday saturday sunday jan feb mar apr jun jul aug sep sept oct nov dec mon tue
    wed thu fri sat sun christmas easter english german french spanish italian god lord internet
""".split()
)


class Word(NamedTuple):
    """A word as the tagger sees it. first: it begins a sentence or a line; style: PLAIN, LOWER or UPPER."""

    text: str
    first: bool
    style: str


class Line(NamedTuple):
    """The words of a line, its new line as the last one, its style, and its length in characters."""

    words: list[str]
    style: str
    length: int


_BLANK = Line(["\n"], LOWER, 1)


def lines_of(text: str) -> list[Line]:
    """The lines' words, one after the other, are WORD's finds in the text."""
    return [
        _BLANK if line == "\n" else Line(WORD.findall(line), style_of(line), len(line))
        for line in _CUT.findall(text)
    ]


def words_of(text: str) -> list[Word]:
    """Every word and sign of a text, in order."""
    found = []
    for line in lines_of(text):
        first = True
        for word in line.words:
            found.append(Word(word, first, line.style))
            first = is_first(word, first)
    return found


def is_first(before: str, first: bool) -> bool:
    """Whether a word begins a sentence, by the word before it and whether that one does."""
    return before in ENDS or (first and not before[0].isalnum())


def style_of(line: str) -> str:
    """Whether a line uses capitals for names, hardly uses them, or uses nothing else."""
    if line.isspace():
        return LOWER
    if line.isupper() and sum(c.isalpha() for c in line[:60]) > 6:
        return UPPER
    return PLAIN if _CAPITAL_INSIDE.search(line) else LOWER


def shape_of(word: str) -> str:
    """The word by its classes: "Nora" Xx, "NASA" XX, "iPhone" xX, "12345" d5, "5b" m, a sign "."."""
    if word.isalpha():
        if word.islower():
            return "x"
        if word.isupper():
            return "X" if len(word) == 1 else "XX"
        return "Xx" if word[0].isupper() and word[1:].islower() else "xX"
    if word.isdigit():
        return f"d{min(len(word), 7)}"
    if word[0] == "\n":
        return "n"
    if word[0].isalnum():
        return "Xx" if "'" in word or "\u2019" in word else "m"
    return "."


def features(word: Word, *, unknown: bool = False) -> list[str]:
    """What can be said of a word by itself; the tagger adds where it stands, beside which others.

    unknown: as if the lexicon did not have it.
    """
    text = word.text if len(word.text) == 1 else word.text.rstrip(".")  # of a title
    low = text.lower()[:LONGEST]
    shape = shape_of(text)
    if shape in (".", "n"):
        return ["b", "w=newline" if shape == "n" else f"w={low}"]
    if shape[0] in "dm":
        return [
            "b",
            f"s={shape}",
            f"w={low}" if len(low) < 3 else "b",
            f"f={word.first:d}{shape}",
            f"p={_pattern(low)}",
        ]
    flags = "" if unknown else known_of(low)
    more = _classes(low)
    if shape == "xX" and not flags:
        flags = _of_parts(text)
    case = f"{word.style}{word.first:d}{shape}"
    found = [
        "b",
        f"w={low}",
        f"s={shape}",
        f"c={case}",
        f"k={flags}",
        f"ck={case}{flags}",
        f"m={more}",
        f"cm={case}{more}",
    ]
    if len(low) > 3 and "w" not in flags:
        found += [f"e={low[-3:]}", f"e2={low[-2:]}", f"ce={case[0]}{shape}{low[-2:]}"]
    return found


def known_of(low: str) -> str:
    """The lexicon's letters for a lower-cased word; "~" for what is an ordinary word but for its spelling."""
    known = lexicon()
    if (flags := known.get(low)) is not None:
        return flags
    *_, last = parts = _APOSTROPHE.split(low)
    if len(parts) > 1:
        return "w" if last in CONTRACTED else known.get(last, "")
    short = _REPEATED.sub(r"\1", low)
    spelled = (
        low + "g",
        short,
        _REPEATED.sub(r"\1\1", low),
        low[:-1],
        short + "g",
        low[:-2] + "er",
        low.replace("z", "s"),
    )
    return "~" if len(low) > 3 and any("w" in known.get(form, "") for form in spelled) else ""


def _of_parts(text: str) -> str:
    """What is known of the words that a capital inside parts: "noraSmith" holds a first and a last name."""
    known = lexicon()
    parts = [known.get(part.lower(), "") for part in _HUMP.findall(text)]
    return "+" + "".join(
        sorted({"n" if set(flags) & set("fl") and "w" not in flags else flags[-1:] for flags in parts})
    )


def _classes(low: str) -> str:
    found = ""
    for letter, group in (("S", STREET), ("U", UNIT), ("T", TITLES), ("R", RELATIONS), ("C", CALENDAR)):
        if low in group:
            found += letter
    if not found and len(low) > 6 and low.endswith(STREET_ENDS):
        found = "E"
    return found


def _pattern(low: str) -> str:
    """ "12a" as 99a: how house numbers, units and post codes look."""
    return "".join("9" if c.isdigit() else "a" for c in low[:8])
