"""Labelled sentences: templates filled at random, and real text labelled where that is beyond doubt."""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from faker import Faker

from mlx_plastic.memory.privacy.words import WORD, Word, words_of
from names_recipe import lists
from names_recipe.templates import (
    ADDRESS,
    BRANDS,
    CLEAN,
    COUNTRIES,
    DAYS,
    GROUPS,
    HANDLES,
    NOUNS,
    PERSON,
    TOWNS,
    VERBS,
)  # fmt: skip

Labelled = tuple[list[Word], list[str]]
Found = tuple[int, int, str]  # where in a text, and the label
PRONOUN = re.compile(r"\b(?:[Hh]e|[Ss]he|him)\b(?!['\u2019])")
SMALL = re.compile(r"\b[a-z]{4,}\b")
SLOT = re.compile(r"\{([A-Z])\}")
LOCALES = """
    en_US en_US en_US en_GB en_GB en_GB en_AU en_CA en_IE en_IN en_NZ de_DE de_DE de_AT de_CH fr_FR fr_CH fr_CA it_IT es_ES
    es_MX nl_NL nl_BE pl_PL sv_SE da_DK fi_FI no_NO cs_CZ hu_HU pt_BR pt_PT ro_RO hr_HR sl_SI sk_SK id_ID tr_TR
    el_GR ru_RU uk_UA et_EE
""".split()
FIRST_PERSON = frozenset(("i", "i'm", "i've", "i'll", "i'd"))
STREETS = """
    Street Street St Road Rd Avenue Ave Ave. Lane Drive Dr. Boulevard Blvd Court Place Way Terrace Close Square Highway Parkway
    Crescent Gardens Hill Row Trail Circle Loop Plaza Alley Mews Grove
""".split()
PARTICLES = (
    "de",
    "van",
    "van der",
    "von",
    "da",
    "del",
    "di",
    "la",
    "le",
    "el",
    "bin",
    "al-",
    "ter",
    "dos",
    "O'",
    "Mc",
    "Mac",
)


@dataclass
class Maker:
    """Draws everything from one seed. wide: names of all locales; else mostly English ones."""

    seed: int

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.fakers = {locale: Faker(locale, use_weighting=False) for locale in set(LOCALES)}
        for faker in self.fakers.values():
            faker.seed_instance(self.seed)
        self.first = _pool(lists.first_names(), lists.census("first")[:2500])
        self.last = _pool(lists.last_names(), lists.census("last")[:40_000])
        self.slots: dict[str, Callable[[], str]] = {
            "N": self.person,
            "F": self.called,
            "L": self.last_name,
            "A": self.address,
            "S": self.street,
            "C": self.town,
            "R": lambda: self.draw.choice(COUNTRIES if self.draw.random() < 0.4 else lists.regions()),
            "O": self.group,
            "B": lambda: self.draw.choice(BRANDS),
            "D": lambda: self.draw.choice(DAYS),
            "X": self.number,
            "W": lambda: self.draw.choice(NOUNS),
            "V": lambda: self.draw.choice(VERBS),
            "H": lambda: self.draw.choice(HANDLES),
        }

    # -- fillers

    def first_name(self) -> str:
        name = self.draw.choice(self.draw.choice(self.first))
        return _plain(name) if self.draw.random() < 0.3 else name

    def last_name(self) -> str:
        name = self.draw.choice(self.draw.choice(self.last))
        kind = self.draw.random()
        if kind < 0.05:
            name = self.draw.choice(PARTICLES) + " " + name
            name = name.replace("' ", "'").replace("- ", "-").replace("Mc ", "Mc").replace("Mac ", "Mac")
        elif kind < 0.10:
            name = f"{name}-{self.draw.choice(self.draw.choice(self.last))}"
        return _plain(name) if self.draw.random() < 0.3 else name

    def called(self) -> str:
        """A first name, or what somebody calls themself on line; now and then without its capital."""
        kind = self.draw.random()
        if kind < 0.05:
            return self.user()
        name = self.first_name()
        return name.lower() if kind > 0.93 else name

    def user(self) -> str:
        draw = self.draw
        first, last = draw.choice([self.first_name, self.last_name])(), self.last_name()
        noun, other = draw.choice(NOUNS).title(), draw.choice(NOUNS).title()
        name = draw.choice(
            [first + last, first + last, first + noun, noun + first, "The" + first, noun + other, first]
        )
        return name.replace(" ", "") + draw.choice(["", "", "", str(draw.randint(1, 99))])

    def person(self) -> str:
        first, last = self.called(), self.last_name()
        kind = self.draw.random()
        if kind < 0.30:
            return first
        if kind < 0.82:
            return f"{first} {last}"
        if kind < 0.88:
            return f"{first} {self.draw.choice('ABCDEFGHJKLMNPRSTVW')}{self.draw.choice(['.', ''])} {last}"
        if kind < 0.91:
            return f"{self.draw.choice('ABCDEFGHJKLMNPRSTVW')}. {last}"
        if kind < 0.95:
            return f"{first} {self.first_name()} {last}"
        return last

    def town(self) -> str:
        if self.draw.random() < 0.3:
            return self.draw.choice(TOWNS)
        if self.draw.random() < 0.5:
            return self.fakers[self.draw.choice(LOCALES)].city()
        return self.draw.choice(lists.towns())

    def group(self) -> str:
        kind = self.draw.random()
        if kind < 0.4:
            return self.draw.choice(GROUPS)
        if kind < 0.6:
            last, other = self.last_name(), self.last_name()
            end = self.draw.choice(
                [
                    "Ltd",
                    "Inc.",
                    "LLC",
                    "& Co.",
                    "GmbH",
                    "Group",
                    "Corporation",
                    "Bank",
                    "Industries",
                    "Foundation",
                ]
            )
            return self.draw.choice(
                [
                    f"{last} {end}",
                    f"{last} & {other}",
                    f"{last}-{other} {end}",
                    f"{last}, {other} and Partners",
                ]
            )
        if kind < 0.8:
            noun, other = self.draw.choice(NOUNS).title(), self.draw.choice(NOUNS).title()
            return self.draw.choice(
                [
                    f"{noun}{other}",
                    f"{noun} {other}",
                    f"{noun} {self.draw.choice(['Labs', 'Systems', 'Partners', 'Online'])}",
                    f"The {noun} {other}",
                ]
            )
        return f"{self.town()} {self.draw.choice(['University', 'Hospital', 'Airport', 'Council', 'FC', 'City', 'High School', 'Police'])}"

    def number(self) -> str:
        return str(
            self.draw.choice(
                [self.draw.randint(1, 20), self.draw.randint(10, 999), self.draw.randint(1000, 2030)]
            )
        )

    def street(self) -> str:
        """A street with its number, in one of several orders; now and then without the number."""
        draw = self.draw
        number = self.house()
        kind = draw.random()
        if kind < 0.45:
            name = draw.choice(
                [
                    self.last_name(),
                    self.first_name(),
                    draw.choice(NOUNS).title(),
                    _ordinal(draw.randint(1, 199)),
                ]
            )
            name = draw.choice(["", "", "", "", "Old ", "North ", "W. ", "East ", "St. "]) + name
            street = f"{name} {draw.choice(STREETS)}"
            if draw.random() < 0.06:
                street += " " + draw.choice(["N", "S", "NW", "SE", "West"])
        else:
            street = re.sub(r"[\d/]+\w?\b|[.,]$", "", self.fakers[draw.choice(LOCALES)].street_name()).strip(
                " ,"
            )
            if kind > 0.93:
                return self.fakers[draw.choice(LOCALES)].street_address().replace("\n", ", ")
            if kind > 0.78:
                return f"{street} {number}"
        if kind > 0.7:
            return f"{draw.randint(1, 9999)} {street} {number}"
        return street if draw.random() < 0.08 else f"{number} {street}"

    def house(self) -> str:
        draw = self.draw
        number = str(draw.choice([draw.randint(1, 99), draw.randint(1, 999), draw.randint(1000, 99999)]))
        kind = draw.random()
        if kind < 0.12:
            return number + draw.choice("abcABC")
        if kind < 0.16:
            return f"{number}/{draw.randint(1, 40)}"
        if kind < 0.20:
            return f"{number}-{draw.randint(1, 99)}"
        return f"{number} {draw.randint(1, 999)}" if kind < 0.23 else number

    def address(self) -> str:
        """As a locale's Faker writes it, or put together from the parts of several."""
        draw = self.draw
        if draw.random() < 0.45:
            text = self.fakers[draw.choice(LOCALES)].address()
            return text if draw.random() < 0.4 else re.sub(r"\s*\n\s*", draw.choice([", ", ", ", " "]), text)
        if draw.random() < 0.06:
            return draw.choice(
                [
                    f"P.O. Box {draw.randint(1, 9999)}",
                    f"PO Box {draw.randint(10, 99999)}",
                    f"PSC {draw.randint(100, 9999)}, Box {draw.randint(10, 9999)}, APO AP {draw.randint(10000, 99999)}",
                ]
            )
        parts = [self.street()]
        if draw.random() < 0.05:
            return draw.choice(
                ["the corner of {} and {}", "corner of {} and {}", "{} & {}", "{} and {}"]
            ).format(parts[0], self.street())
        if draw.random() < 0.3:
            unit = draw.choice(
                [
                    "Apt.",
                    "Apt",
                    "Suite",
                    "Unit",
                    "Flat",
                    "Floor",
                    "Ste",
                    "#",
                    "Apartment",
                    "Room",
                    "Building",
                    "Studio",
                ]
            )
            parts.insert(
                draw.choice([0, 1, 1, 1]),
                f"{unit} {draw.randint(1, 999)}{draw.choice(['', '', '', 'A', 'b'])}",
            )
        faker = self.fakers[draw.choice(LOCALES)]
        code = draw.choice([faker.postcode(), faker.postcode(), str(draw.randint(1000, 99999))])
        town = self.town().upper() if draw.random() < 0.12 else self.town()
        region, country = draw.choice(lists.regions()), draw.choice(lists.countries())
        ends = [
            [f"{code} {town}"], [town, code], [f"{town} {code}"], [town], [f"{code} {town}", country],
            [f"{town}, {self.fakers['en_US'].state_abbr()} {code}"], [town, region, code], [town, country],
            [town, f"{country} {code}"], [f"{town}, {region}"], [code], [f"{town} {country} {code}"],
            [town, region, f"{country} {code}"], [f"{town} {country}"], [region, country],
        ]  # fmt: skip
        parts += draw.choice(ends)
        gap = draw.choice([", ", ", ", ", ", "\n", "\n ", "\n", " ", " "])
        return gap.join(parts)

    # -- sentences

    def sentence(self, template: str) -> tuple[str, list[tuple[int, int, str]]]:
        """The filled template and where its people and addresses are."""
        text, spans = "", []
        at = 0
        template = template.replace("\\n", "\n")
        for slot in SLOT.finditer(template):
            text += template[at : slot.start()]
            filled = self.slots[slot[1]]()
            label = {"N": "P", "F": "P", "L": "P", "A": "A", "S": "A"}.get(slot[1])
            if label:
                spans.append((len(text), len(text) + len(filled), label))
            text += filled
            at = slot.end()
        return text + template[at:], spans

    def roughly(self, text: str) -> str:
        """The same text as it may be typed: without capitals, all in capitals, without its last mark."""
        kind = self.draw.random()
        if kind < 0.28:
            text = text.lower()
        elif kind < 0.34:
            text = text.upper()
        elif kind < 0.42:
            text = (
                "".join(c.lower() if self.draw.random() < 0.5 else c for c in text)
                if len(text) < 30
                else text.lower()
            )
        if self.draw.random() < 0.2 and text and text[-1] in ".!?":
            text = text[:-1]
        return text

    def renamed(self, text: str, people: Sequence[tuple[int, int]]) -> Labelled:
        """The text with other people in it, roughly as it was."""
        others: dict[str, str] = {}
        spots = [*people]
        if self.draw.random() < 0.4:
            spots += [m.span() for m in PRONOUN.finditer(text) if self.draw.random() < 0.5]
        pieces, spans, at, length = [], [], 0, 0
        for start, end in sorted(spots):
            name = others.setdefault(text[start:end].lower(), self.person())
            pieces += [text[at:start], name]
            length += start - at
            spans.append((length, length + len(name), "P"))
            length, at = length + len(name), end
        return self.rough("".join(pieces) + text[at:], spans)

    def mistyped(self, text: str, spans: Sequence[Found]) -> tuple[str, list[Found]]:
        """Some words, none of a find's, as people type them in haste."""
        pieces, moved, at, shift = [], list(spans), 0, 0
        for match in SMALL.finditer(text):
            if self.draw.random() < 0.12 and not any(
                low < match.end() and high > match.start() for low, high, _ in spans
            ):
                typo = self.typo(match[0])
                pieces += [text[at : match.start()], typo]
                shift = len(typo) - len(match[0])
                moved = [
                    (low + shift, high + shift, kind) if spans[i][0] > match.start() else (low, high, kind)
                    for i, (low, high, kind) in enumerate(moved)
                ]
                at = match.end()
        return "".join([*pieces, text[at:]]), moved

    def typo(self, word: str) -> str:
        i = self.draw.randrange(1, len(word))
        kind = self.draw.random()
        if word.endswith("ing") and kind < 0.5:
            return word[:-1]
        if kind < 0.3:
            return word[:i] + word[i + 1 :]
        if kind < 0.5:
            return word[:i] + word[i] * self.draw.randint(2, 4) + word[i + 1 :]
        if kind < 0.7:
            return word[0] + "".join(c for c in word[1:] if c not in "aeiou")
        if kind < 0.85:
            return word[: i - 1] + word[i] + word[i - 1] + word[i + 1 :]
        return word.replace("th", "d").replace("er", "a").replace("you", "u").replace("s", "z")

    def labelled(self, template: str) -> Labelled:
        return self.rough(*self.sentence(template))

    def rough(self, text: str, spans: list[Found]) -> Labelled:
        if self.draw.random() < 0.25:
            text, spans = self.mistyped(text, spans)
        rough = self.roughly(text)
        text = rough if len(rough) in (len(text), len(text) - 1) else text  # "ß".upper() is two letters
        return label(text, spans)

    def sentences(self, count: int) -> Iterator[Labelled]:
        """Four in ten with people, three with addresses, the rest with neither; some joined."""
        for _ in range(count):
            group = self.draw.choices([PERSON, ADDRESS, CLEAN], [38, 27, 35])[0]
            words, labels = self.labelled(self.draw.choice(group))
            if self.draw.random() < 0.15:
                more = self.labelled(self.draw.choice(self.draw.choice([PERSON, CLEAN])))
                words, labels = words + more[0], labels + more[1]
            yield words, labels


def label(text: str, spans: list[tuple[int, int, str]]) -> Labelled:
    starts = (match.start() for match in WORD.finditer(text))
    labels = [next((kind for low, high, kind in spans if low <= start < high), "O") for start in starts]
    return words_of(text), labels


def _pool(by_locale: dict[str, tuple[str, ...]], census: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Groups that are drawn equally often: the census as often as eight locales."""
    return [
        *by_locale.values(),
        *[census] * 8,
        *[by_locale[k] for k in ("en_US", "en_GB", "en_IN", "es_MX") if k in by_locale] * 3,
    ]


def _plain(name: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))


def _ordinal(n: int) -> str:
    return f"{n}{'th' if n % 100 in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


# -- real text


def silver(data: Path, known: dict[str, str], most: int, maker: Maker) -> Iterator[Labelled]:
    """Real text in which every capital is accounted for: a first name that is no word, or a word, a place, a day.

    A text with any other capital inside a sentence is left out: nobody knows what that is. Its people are
    given other names, and some of its pronouns are made people, so that names stand in many surroundings.
    """
    texts = [" ".join(text.split())[:400] for text in lists.texts(data)]
    maker.draw.shuffle(texts)
    kept = 0
    for text in texts:
        if kept >= most:
            return
        if len(text) > 20 and (people := _people_of(text, known)) is not None:
            kept += 1
            yield maker.renamed(text, people)


def _people_of(text: str, known: dict[str, str]) -> list[tuple[int, int]] | None:
    words, places = words_of(text), [match.span() for match in WORD.finditer(text)]
    small = {w.text for w in words if w.text.islower()}
    capitals = Counter(w.text for w in words if not w.first and w.text.istitle())
    people = set()
    for word in words:
        flags = known.get(word.text.lower(), "")
        if not word.text[0].isupper() or word.text.lower() in FIRST_PERSON or len(word.text) == 1:
            continue
        alone = "f" in flags and not set(flags) & set("wtr")
        often = (
            "f" in flags and capitals[word.text] > 1 and word.text.lower() not in small and "r" not in flags
        )
        if word.text.istitle() and (alone or often):
            people.add(word.text)
        elif not (word.first or set(flags) & set("wr") or (word.text.isupper() and len(word.text) < 6)):
            return None
    return [place for word, place in zip(words, places, strict=True) if word.text in people]
