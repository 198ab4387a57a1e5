"""Simulated days: people and facts drawn by a seed, told and asked for.

No name and no value stands in nano's recipe (a test compares them), and the wordings asked for are those that
the recipe holds out: neither the base nor a night has read them. Left out are names and values that nano does
not copy even right after they were told; what it can do so is measured by the bench beside everything else.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from nano_recipe import people as recipe
from nano_recipe.attributes import ATTRIBUTES, HELD_LEAD_CLAUSE, HELD_LEAD_NOUN, Attribute

NAMES = """
    Adela Alvar Amadou Benita Brenda Camila Cedric Cyril Dalia Dorothea Eamon Edda Elio Fabienne Farah Fergus
    Gaston Gideon Giulia Halima Hector Henrike Ilona Imran Jasper Jelena Joachim Kasimir Keira Klara Laszlo
    Leopold Lorena Magnus Maren Mirela Nadine Nikolai Odette Oksana Olaf Paloma Percy Prudence Quentin Ramona
    Roderick Rosalind Salome Silas Stellan Tamsin Tatiana Ugo Ulla Umar Valeria Verena Vito Waldemar Wendel
    Winona Ylva Yorick Yvette Zelma
""".split()
NICKNAMES = "Baron Ranger Pilgrim Consul Warden".split()
RELATIONS = "cousin friend neighbour colleague aunt uncle coach flatmate".split()
WISHES = ("Please call me {n}.", "From now on call me {n}.", "You can call me {n}.")
GREETINGS = recipe.HELD_GREETINGS
CITIES = (
    "Graz Turin Ghent Bergen Aarhus Utrecht Cork Bilbao Gdansk Basel Cologne Antwerp Bordeaux Valencia Osaka "
    "Quito Omaha Memphis Oakland York Reno Tulsa Fresno Halifax"
)
VALUES = {
    name: tuple(values.split())
    for name, values in {
        "city": CITIES,
        "origin": CITIES,
        "job": "optician roofer typist locksmith milkman brewer botanist midwife referee glazier shepherd",
        "colour": "ochre mauve mint cream copper sapphire jade sepia emerald",
        "food": "quiche borscht schnitzel fondue nachos pierogi chowder gazpacho fajitas tempura bratwurst",
        "drink": "sherry cognac mead horchata vodka gin port lassi sangria brandy ouzo grappa kombucha",
        "sport": "triathlon kendo aikido sumo snooker croquet parkour canoeing lacrosse",
        "instrument": "zither bassoon piccolo marimba sitar dulcimer fiddle lyre cornet vibraphone",
        "pet": "budgie raven alpaca chameleon tortoise quail otter",
        "hobby": "crochet macrame bonsai beekeeping quilting metalwork brewing beadwork",
        "language": "Estonian Latvian Romanian Croatian Slovak Basque Catalan Persian Bengali Tamil Maltese",
        "fruit": "lychees guavas nectarines tangerines persimmons satsumas",
        "allergy": "pepper cinnamon vanilla clover rubber ivy horses hay yeast barley salmon",
        "subject": "calculus genetics ethics rhetoric anatomy optics",
    }.items()
}
TOPICS = tuple(attribute for attribute in ATTRIBUTES if attribute.name in VALUES)
ASKED = 3  # wordings of each fact


@dataclass(frozen=True)
class Fact:
    """Something told. who: a name, or "" for who speaks. ask: wordings that no night reads."""

    who: str
    topic: str
    say: str
    ask: tuple[str, ...]
    expect: str


@dataclass(frozen=True)
class Day:
    """What is said on one day. corrected: earlier facts told anew, with another value."""

    facts: tuple[Fact, ...]
    corrected: tuple[Fact, ...] = ()
    wish: str = ""  # how the person wants to be called from now on; "" for no wish
    nickname: str = ""
    strangers: tuple[str, ...] = ()  # questions about people of whom nothing is ever told

    @property
    def told(self) -> tuple[Fact, ...]:
        return self.facts + self.corrected


def a_fact(r: random.Random, who: str, topic: Attribute, *, relation: str = "", unlike: str = "") -> Fact:
    """A fact about `who` in one of nano's wordings to tell it, of another value than `unlike`."""
    subject = recipe.ME if not who else recipe.person(who)
    if relation:
        subject = recipe.named_relative(relation, who)
    value = r.choice([v for v in VALUES[topic.name] if v != unlike])
    say = recipe.fill(r.choice(topic.statements), subject.intro, value)
    return Fact(who, topic.name, say, questions(r, subject, topic, ASKED), value)


def questions(r: random.Random, subject: recipe.Subject, topic: Attribute, count: int) -> tuple[str, ...]:
    """`count` of the wordings that nano's recipe holds out."""
    held = [recipe.fill(text, subject.user) for text in topic.held_questions]
    for lead in HELD_LEAD_CLAUSE:
        held += [lead.format(c=recipe._inner(recipe.fill(c, subject.user))) for c in topic.clauses]
    for lead in HELD_LEAD_NOUN:
        held += [lead.format(n=recipe._inner(recipe.fill(n, subject.user), subject)) for n in topic.nouns]
    return tuple(r.sample(held, count))


def days(
    count: int, *, seed: int, facts: int, correct_every: int = 3, wish_every: int = 7, wishes: bool = True
) -> list[Day]:
    """`count` days of `facts` new facts each, about two people, and who speaks too on the first.

    Every `correct_every`-th day an earlier fact is also told anew, with another value; every
    `wish_every`-th, the first included, the person wishes to be called by another name.
    """
    r = random.Random(seed)
    *names, _, _, _, _, _, _ = r.sample(NAMES, len(NAMES))
    strangers = sorted(set(NAMES) - set(names))
    relations = {name: r.choice(RELATIONS) for name in names}
    everybody = iter(names * (1 + 2 * count // len(names)))  # after a month people are told of again
    told: dict[tuple[str, str], Fact] = {}
    found = []
    for number in range(count):
        cast = [next(everybody), next(everybody)] + ([""] if number == 0 else [])
        today = _new_facts(r, cast, relations, told, facts)
        corrected = _corrected(r, told) if told and number % correct_every == 0 else ()
        told |= {(f.who, f.topic): f for f in (*today, *corrected)}
        nickname = NICKNAMES[number // wish_every % len(NICKNAMES)]
        wish = r.choice(WISHES).format(n=nickname) if wishes and number % wish_every == 0 else ""
        asked = tuple(
            questions(r, recipe.person(r.choice(strangers)), r.choice(TOPICS), 1)[0] for _ in range(4)
        )
        found.append(Day(today, corrected, wish, nickname if wish else "", asked))
    return found


def _new_facts(
    r: random.Random,
    cast: Sequence[str],
    relations: dict[str, str],
    told: dict[tuple[str, str], Fact],
    count: int,
) -> tuple[Fact, ...]:
    today: dict[tuple[str, str], Fact] = {}
    while len(today) < count:
        who, topic = cast[len(today) % len(cast)], r.choice(TOPICS)
        if (who, topic.name) not in {*told, *today}:
            today[who, topic.name] = a_fact(r, who, topic, relation=relations.get(who, ""))
    return tuple(today.values())


def _corrected(r: random.Random, told: dict[tuple[str, str], Fact]) -> tuple[Fact, ...]:
    who, name = r.choice(sorted(told))
    topic = next(t for t in TOPICS if t.name == name)
    return (a_fact(r, who, topic, unlike=told[who, name].expect),)


def current(lived: Sequence[Day]) -> list[Fact]:
    """Every fact ever told, as it was told last."""
    return list({(fact.who, fact.topic): fact for day in lived for fact in day.told}.values())
