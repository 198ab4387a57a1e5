"""Talk about people: facts told, asked for, not told; notes; wishes; questions made from a note.

Everything is drawn from a seeded random.Random, so a step of the training is the same wherever it runs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from mlx_plastic.sleep.lessons import question_prompt
from nano_recipe.attributes import (
    ATTRIBUTES,
    CLOSERS,
    HELD_LEAD_CLAUSE,
    HELD_LEAD_NOUN,
    HELD_NAMES,
    HELD_NICKNAMES,
    LEAD_CLAUSE,
    LEAD_NOUN,
    NAMES,
    NICKNAMES,
    OPENERS,
    RELATIONS,
    Attribute,
)

Chat = list[dict[str, str]]
SYLLABLES = (
    "ba be bi bo bu da de di do du fa fe fi ga ge go ka ke ki ko la le li lo lu ma me mi mo mu na ne ni no nu pa pe po "
    "ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo za ze zo sha cha tha bra kre dri flo gru pla sto tri"
).split()
ENDINGS = "n r s l x m k th nd rt st ck".split() + [""] * 8


@dataclass(frozen=True)
class Subject:
    """Who a fact is about. user, told: the words when the person speaks, and when the assistant does."""

    user: dict[str, str]
    told: dict[str, str]
    intro: dict[str, str]  # the words of the first mention, "my sister Nora"


@dataclass(frozen=True)
class Fact:
    subject: Subject
    attribute: Attribute
    value: str


def _voice(subject: str, possessive: str, person: int, *, you: bool = False) -> dict[str, str]:
    third = person == 3
    be, was = ("is", "was") if third else ("are", "were") if you else ("am", "was")
    return {
        "S": subject, "P": possessive, "s": "s" if third else "", "es": "es" if third else "", "be": be, "was": was,
        "have": "has" if third else "have", "do": "does" if third else "do", "study": "studies" if third else "study",
    }  # fmt: skip


ME = Subject(_voice("I", "my", 1), _voice("you", "your", 2, you=True), _voice("I", "my", 1))


def person(name: str) -> Subject:
    voice = _voice(name, f"{name}'s", 3)
    return Subject(voice, voice, voice)


def relative(relation: str) -> Subject:
    user = _voice(f"my {relation}", f"my {relation}'s", 3)
    return Subject(user, _voice(f"your {relation}", f"your {relation}'s", 3), user)


def named_relative(relation: str, name: str) -> Subject:
    """First mentioned as "my sister Nora", later as "Nora"."""
    voice = _voice(name, f"{name}'s", 3)
    return Subject(voice, voice, _voice(f"my {relation} {name}", f"my {relation} {name}'s", 3))


def fill(template: str, voice: dict[str, str], value: str = "") -> str:
    text = template.format(V=value, **voice)
    if voice["be"] == "am":
        text = text.replace("I does", "I do").replace("I has", "I have")
    return text[0].upper() + text[1:]


def pseudo_word(r: random.Random) -> str:
    return "".join(r.choice(SYLLABLES) for _ in range(r.choice((2, 2, 3)))) + r.choice(ENDINGS)


def a_name(r: random.Random, *, held: bool) -> str:
    """A listed name, one of syllables, or one spliced of two: names of every make have to be copied."""
    if held:
        return r.choice(HELD_NAMES)
    kind = r.random()
    if kind < 0.35:
        return r.choice(NAMES)
    while (name := pseudo_word(r).capitalize() if kind < 0.55 else spliced(r)) in HELD_NAMES:
        pass
    return name


def spliced(r: random.Random) -> str:
    """The beginning of one name and the end of another: "Wil" and "anda"."""
    return r.choice(NAMES)[: r.randint(1, 3)] + r.choice(NAMES)[-r.randint(2, 4) :].lower()


def a_subject(r: random.Random, *, held: bool = False) -> Subject:
    kind = r.random()
    if kind < 0.3:
        return ME
    if kind < 0.42:
        return relative(r.choice(RELATIONS))
    if kind < 0.62:
        return named_relative(r.choice(RELATIONS), a_name(r, held=held))
    return person(a_name(r, held=held))


def a_value(r: random.Random, attribute: Attribute, *, unusual: float) -> str:
    if r.random() < unusual and attribute.name not in ("season", "birthday", "number"):
        word = pseudo_word(r) if r.random() < 0.5 else spliced(r)
        return word.capitalize() if attribute.values[0][0].isupper() else word.lower()
    return r.choice(attribute.values)


def statement(r: random.Random, fact: Fact, *, held: bool = False) -> str:
    pool = fact.attribute.held_statements if held else fact.attribute.statements
    return fill(r.choice(pool), fact.subject.intro, fact.value)


def question(r: random.Random, subject: Subject, attribute: Attribute, *, held: bool = False) -> str:
    """One wording of the question: direct, behind a lead-in, or by a noun."""
    asked = _wording(r, subject, attribute, held=held)
    if not held and r.random() < 0.15:
        opener = r.choice(OPENERS)
        keep = asked.startswith("I ") or opener.endswith(".")
        return f"{opener} {asked if keep else asked[0].lower() + asked[1:]}"
    return f"{asked} {r.choice(CLOSERS)}" if not held and r.random() < 0.08 else asked


def _wording(r: random.Random, subject: Subject, attribute: Attribute, *, held: bool) -> str:
    form = r.random()
    if form < 0.5:
        return fill(r.choice(attribute.held_questions if held else attribute.questions), subject.user)
    if form < 0.8:
        clause = fill(r.choice(attribute.clauses), subject.user)
        return r.choice(HELD_LEAD_CLAUSE if held else LEAD_CLAUSE).format(c=_inner(clause))
    noun = fill(r.choice(attribute.nouns), subject.user)
    return r.choice(HELD_LEAD_NOUN if held else LEAD_NOUN).format(n=_inner(noun, subject))


def _inner(text: str, subject: Subject | None = None) -> str:
    """Lower the first letter again, unless it starts a name or "I"."""
    if subject and text.startswith(subject.user["S"]):
        return text
    return text if text.startswith("I ") else text[0].lower() + text[1:]


def answer(fact: Fact) -> str:
    return fill(fact.attribute.answer, fact.subject.told, fact.value)


def not_told(subject: Subject, attribute: Attribute) -> str:
    return f"I do not know {_inner(fill(attribute.clause, subject.told), None)}."


def some_facts(r: random.Random, count: int, *, held: bool, unusual: float, people: int) -> list[Fact]:
    subjects = [a_subject(r, held=held) for _ in range(people)]
    facts: dict[tuple[str, str], Fact] = {}
    while len(facts) < count:
        subject, attribute = r.choice(subjects), r.choice(ATTRIBUTES)
        facts.setdefault(
            (subject.user["S"], attribute.name),
            Fact(subject, attribute, a_value(r, attribute, unusual=unusual)),
        )
    return list(facts.values())


def an_untold(r: random.Random, facts: list[Fact], *, held: bool) -> tuple[Subject, Attribute]:
    """A question nobody answered: half the time about a person who was mentioned, or an attribute that was."""
    told = {(f.subject.user["S"], f.attribute.name) for f in facts}
    while True:
        near = r.choice(facts) if facts else None
        kind = r.random()
        subject = near.subject if near and kind < 0.5 else a_subject(r, held=held)
        attribute = near.attribute if near and kind >= 0.5 else r.choice(ATTRIBUTES)
        if (subject.user["S"], attribute.name) not in told:
            return subject, attribute


def ask(r: random.Random, facts: list[Fact], *, untold: float, held: bool = False) -> Chat:
    """One question and its right answer: told facts get their value, others "I do not know ..."."""
    if not facts or r.random() < untold:
        subject, attribute = an_untold(r, facts, held=held)
        return exchange(question(r, subject, attribute, held=held), not_told(subject, attribute))
    fact = r.choice(facts)
    return exchange(question(r, fact.subject, fact.attribute, held=held), answer(fact))


def exchange(user: str, assistant: str) -> Chat:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def told_then_asked(r: random.Random, *, untold: float, unusual: float, facts: int, asks: int) -> Chat:
    """Facts told turn by turn or in notes, then questions; some of them about what was not told."""
    known = some_facts(r, facts, held=False, unusual=unusual, people=r.choice((1, 2, 3)))
    chat: Chat = []
    if r.random() < 0.3:
        notes = "\n".join(f"- {answer(f)}" if r.random() < 0.5 else f"- {statement(r, f)}" for f in known)
        chat.append({"role": "system", "content": f"Notes from earlier talks:\n{notes}"})
    else:
        left = list(known)
        while left:
            now, left = left[: (n := r.choice((1, 1, 1, 2)))], left[n:]
            chat += exchange(
                " ".join(statement(r, f) for f in now), "Noted. " + " ".join(answer(f) for f in now)
            )
            if asks and r.random() < 0.2:
                chat += ask(r, known[: len(known) - len(left)], untold=untold)
    for _ in range(asks):
        chat += ask(r, known, untold=untold)
    return chat


def nothing_told(r: random.Random, asks: int) -> Chat:
    chat: Chat = []
    for _ in range(asks):
        subject = a_subject(r)
        attribute = r.choice(ATTRIBUTES)
        chat += exchange(question(r, subject, attribute), not_told(subject, attribute))
    return chat


def questions_from_note(r: random.Random, *, unusual: float) -> Chat:
    """The skill that the night uses: questions that a statement answers, each with its answer."""
    fact = some_facts(r, 1, held=False, unusual=unusual, people=1)[0]
    count = r.choice((3, 4, 4, 5))
    wordings: dict[str, None] = {}
    while len(wordings) < count:
        wordings.setdefault(question(r, fact.subject, fact.attribute))
    lines = "\n".join(f"Q: {q}\nA: {answer(fact)}" for q in wordings)
    return exchange(question_prompt(statement(r, fact), count), lines)


GREETINGS = ("Hello!", "Hi!", "Good morning!", "Hi there!", "Good evening!", "Hey!", "Hello there!", "Good afternoon!", "Hello, how are you?", "Hi, it is me.")  # fmt: skip
HELD_GREETINGS = ("Good day!", "Hey there!", "Hi again!", "Good morning to you!")
WISHES = (
    "Please call me {n}.", "From now on call me {n}.", "I would like to be called {n}.", "Call me {n} when you greet me.",
    "When I say hello, call me {n}.", "Always greet me as {n}.", "You can call me {n}.", "My nickname is {n}, use it.",
)  # fmt: skip
HELD_WISHES = ("I want you to call me {n}.", "Please greet me as {n} from now on.")


def greeting(r: random.Random, *, held: bool = False) -> str:
    return r.choice(HELD_GREETINGS if held else GREETINGS)


def greet_back(nickname: str | None) -> str:
    return f"Hello, {nickname}! How can I help you?" if nickname else "Hello! How can I help you?"


def wish_then_greeting(r: random.Random, *, held: bool = False) -> Chat:
    pool = HELD_NICKNAMES if held else NICKNAMES
    nickname = pseudo_word(r).capitalize() if not held and r.random() < 0.2 else r.choice(pool)
    wish = r.choice(HELD_WISHES if held else WISHES).format(n=nickname)
    chat = exchange(wish, f"Noted. I will call you {nickname}.")
    if r.random() < 0.3 and not held:
        chat = [{"role": "system", "content": f"Notes from earlier talks:\n- {wish}"}]
    for _ in range(r.choice((0, 0, 1, 2))):
        chat += nothing_told(r, 1)
    return chat + exchange(greeting(r, held=held), greet_back(nickname))
