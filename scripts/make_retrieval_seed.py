"""Make src/mlx_plastic/evals/retrieval_seed/: a year of talk with an assistant, and questions about it.

    python scripts/make_retrieval_seed.py

All of it is written here; dates and small talk in between are drawn with a fixed seed. The set is small and
easy: it shows that retrieval works and how fast, not how good it is (docs/retrieval.md has that).

Categories: fact (asked with words that were used), paraphrase (with others), when (the time of something),
dated (what was said at a time), update (the last of several statements), several (more turns than one),
advice (what the assistant said).
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "src" / "mlx_plastic" / "evals" / "retrieval_seed"
START = datetime(2024, 1, 8, 18, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Told:
    """Something said and what was answered. day: of the year of talk. asked: (category, question); a question
    about the answer has the category "advice". key: joins what is asked about together."""

    day: int
    said: str
    answer: str
    asked: tuple[tuple[str, str], ...] = ()
    key: str = ""


TOLD = (
    Told(
        0,
        "Hi! I'm Nora, I repair violins in a small workshop in Ghent.",
        "Nice to meet you, Nora!",
        (("fact", "What does Nora repair?"), ("paraphrase", "What is my profession?")),
    ),
    Told(
        0,
        "My workshop is on the second floor above a bakery, so it smells of bread all day.",
        "That sounds lovely, and a little distracting.",
        (("fact", "What is below the workshop?"), ("paraphrase", "Why does my office smell so good?")),
    ),
    Told(
        4,
        "I finally adopted a dog, a grey whippet called Pixel.",
        "Congratulations! Whippets love sofas.",
        (
            ("fact", "What is my dog called?"),
            ("paraphrase", "What kind of pet do I have?"),
            ("when", "When did I adopt the dog?"),
        ),
    ),
    Told(
        9,
        "The vet says Pixel is allergic to chicken, so no more chicken treats.",
        "Then try dried fish skin or sweet potato as treats.",
        (("fact", "What is Pixel allergic to?"), ("advice", "Which treats did you suggest for Pixel?")),
    ),
    Told(
        15,
        "I'm learning Portuguese for a trip to Porto in September.",
        "Boa sorte! Ten minutes a day helps most.",
        (("fact", "Which language am I learning?"), ("paraphrase", "Where will I travel to this autumn?")),
    ),
    Told(
        22,
        "My sister Ilse is a nurse in Rotterdam, she works nights.",
        "Night shifts are hard. I hope she rests.",
        (("fact", "Where does Ilse work?"), ("paraphrase", "Who in my family is in health care?")),
    ),
    Told(
        22,
        "Ilse is getting married on the 14th of June.",
        "How wonderful!",
        (("fact", "When is the wedding of my sister?"),),
    ),
    Told(
        30,
        "I keep my spare key in the blue flower pot by the back door.",
        "Noted, though a key safe is safer.",
        (("fact", "Where is the spare key?"), ("paraphrase", "How do I get in if I lock myself out?")),
    ),
    Told(
        37,
        "I weigh my coffee: 18 grams in, 36 grams out, 28 seconds.",
        "A classic one-to-two espresso.",
        (("fact", "How many grams of coffee do I use?"), ("paraphrase", "What is my espresso recipe?")),
    ),
    Told(
        41,
        "A cello came in today, a Vuillaume copy from 1890 with a cracked scroll.",
        "A delicate repair.",
        (("fact", "What was cracked on the cello?"), ("when", "When did the cello come in?")),
        "strings",
    ),
    Told(
        48,
        "I glued the scroll of the cello with hide glue and made a new peg box.",
        "Hide glue can be undone later.",
        (("fact", "Which glue did I use?"),),
        "strings",
    ),
    Told(
        55,
        "My landlord raised the rent of the workshop to 640 euros.",
        "You could ask for a three-year lease then.",
        (("fact", "How much is the rent?"), ("advice", "What did you say about the lease?")),
    ),
    Told(
        63,
        "I run every Tuesday and Friday with my neighbour Tomas along the canal.",
        "A good rhythm.",
        (("fact", "Who do I run with?"), ("paraphrase", "What do I do for exercise?")),
    ),
    Told(
        70,
        "Yesterday I ran ten kilometres in 54 minutes, my best so far.",
        "Well done!",
        (("when", "When did I run my best ten kilometres?"),),
        "running",
    ),
    Told(
        82,
        "I have signed up for the half marathon in Bruges on the 5th of October.",
        "Then build up slowly.",
        (("fact", "Which race have I signed up for?"),),
        "running",
    ),
    Told(
        90,
        "I'm allergic to penicillin, I had a rash as a child.",
        "Important to tell every doctor.",
        (
            ("fact", "Which medicine am I allergic to?"),
            ("paraphrase", "What should a doctor not prescribe me?"),
        ),
    ),
    Told(
        97,
        "We had dinner at a Georgian place called Tbilisi Corner; the khachapuri was superb.",
        "Cheese bread!",
        (("fact", "What was the Georgian restaurant called?"), ("paraphrase", "Where did I eat so well?")),
    ),
    Told(
        104,
        "I'm reading The Leopard by Lampedusa.",
        "A melancholy, wonderful book.",
        (("fact", "Which book was by Lampedusa?"),),
        "books",
    ),
    Told(
        131,
        "Finished The Leopard, now I have started on Stoner by John Williams.",
        "Quiet and devastating.",
        (("update", "What am I reading at the moment?"),),
        "books",
    ),
    Told(
        112,
        "My old bicycle was stolen from the station.",
        "I'm sorry. Did you report it?",
        (("fact", "What was stolen?"), ("when", "When was the bicycle stolen?")),
        "bicycle",
    ),
    Told(
        118,
        "I bought a second-hand Gazelle, dark green, for 220 euros.",
        "A solid choice.",
        (("fact", "Which colour is the Gazelle?"), ("paraphrase", "How do I get around town?")),
        "bicycle",
    ),
    Told(
        125,
        "My internet contract ends in November; I pay 49 euros a month.",
        "Compare offers in October.",
        (
            ("fact", "When does my internet contract end?"),
            ("advice", "When should I compare internet offers?"),
        ),
    ),
    Told(
        140,
        "My mother's birthday is on the 2nd of August, she will be 70.",
        "A big one! Any plans?",
        (("fact", "When is my mother's birthday?"), ("paraphrase", "Whose seventieth is coming up?")),
    ),
    Told(
        146,
        "For mother's 70th we rent a boat on the Leie for the afternoon.",
        "A beautiful idea.",
        (("fact", "What do we rent for the 70th?"),),
        "mother",
    ),
    Told(
        146,
        "I'll bake the lemon cake with poppy seeds for it, from grandmother's recipe.",
        "She will love it.",
        (("fact", "Which cake will I bake?"),),
        "mother",
    ),
    Told(
        159,
        "Ilse's wedding was so moving, I cried during the vows and danced until three.",
        "How lovely!",
        (("paraphrase", "How did the marriage of my sister go?"), ("when", "When did I dance until three?")),
    ),
    Told(
        170,
        "The insurance number of the workshop is in the red folder on the top shelf.",
        "Good to know.",
        (("fact", "Where is the insurance number?"),),
    ),
    Told(
        178,
        "I moved the workshop to the ground floor of a former chapel, much more light.",
        "Light is everything.",
        (("update", "Where is my workshop now?"), ("paraphrase", "What did the building use to be?")),
    ),
    Told(
        185,
        "The rent of the chapel is 710 euros, but heating is included.",
        "That is not bad at all.",
        (("update", "How much rent do I pay now?"),),
    ),
    Told(
        199,
        "I hired an apprentice, Samir, he plays the oud.",
        "An instrument maker who plays is a gift.",
        (("fact", "What does Samir play?"), ("paraphrase", "Who works for me?")),
    ),
    Told(
        206,
        "Samir built his first bow this week, from pernambuco.",
        "Impressive for a beginner.",
        (("fact", "What did Samir build?"), ("when", "When did Samir build his first bow?")),
    ),
    Told(
        213,
        "My knee hurts after running, on the outside, since the long run on Sunday.",
        "It may be the iliotibial band: rest for a week, and roll the thigh.",
        (("fact", "Where does my knee hurt?"), ("advice", "What did you say I could do about my knee?")),
    ),
    Told(
        240,
        "In Porto I stayed near the Bolhao market and ate grilled sardines every day.",
        "Perfect.",
        (("fact", "What did I eat in Porto?"), ("paraphrase", "How was my holiday in Portugal?")),
    ),
    Told(
        247,
        "I lost my grey scarf on the plane home from Porto.",
        "Ask the airline's lost and found.",
        (("fact", "What did I lose on the plane?"),),
    ),
    Told(
        271,
        "I finished the half marathon in two hours and four minutes!",
        "Congratulations, what a day!",
        (("fact", "How long did the half marathon take me?"),),
        "running",
    ),
    Told(
        285,
        "The heating of the chapel broke; the plumber, Mrs De Wit, comes on Thursday.",
        "Stay warm.",
        (("fact", "Who is the plumber?"), ("paraphrase", "Why was it cold at work?")),
    ),
    Told(
        301,
        "My new internet provider is Spot, 35 euros a month, the password is on the router.",
        "A saving!",
        (("update", "What do I pay for internet now?"),),
    ),
    Told(
        320,
        "Pixel had surgery on a tooth and has to eat soft food for ten days.",
        "Poor Pixel!",
        (("paraphrase", "Why must the whippet not chew?"), ("when", "When did Pixel have surgery?")),
    ),
    Told(
        333,
        "A quartet from Antwerp ordered two violas for next spring, my biggest order ever.",
        "Wonderful news!",
        (("fact", "What did the quartet order?"), ("paraphrase", "Which job brings me the most money?")),
    ),
)
SEVERAL = (
    ("strings", "What did I do about the cello?"),
    ("running", "How did my running go this year?"),
    ("books", "Which books have I been reading?"),
    ("bicycle", "What happened with my bicycles?"),
    ("mother", "How do we celebrate my mother?"),
)
DATED = (
    (41, "What came into the workshop on {date}?"),
    (97, "Where did I have dinner on {date}?"),
    (199, "Whom did I hire on {date}?"),
    (285, "What broke on {date}?"),
)
TALK = (
    ("Good morning!", "Good morning! How can I help?"),
    ("What's a good synonym for 'glad'?", "Pleased, happy or delighted."),
    ("It rains again.", "Then it is a day for tea."),
    (
        "Can you explain what a gerund is?",
        "A verb form in -ing that is used as a noun, as in 'running is fun'.",
    ),
    ("How do I boil an egg so that the yolk stays soft?", "Six minutes from boiling water, then cold water."),
    ("Thanks, that helped.", "You're welcome!"),
    ("Tell me something about octopuses.", "They have three hearts and blue blood."),
    ("What is the capital of Mongolia?", "Ulaanbaatar."),
    ("I slept badly.", "I'm sorry. A short walk in the morning light may help."),
    ("How many feet are in a mile?", "5,280."),
    (
        "Write me a two-line poem about winter.",
        "White roofs, slow smoke, a street without a sound;\nthe year lies down.",
    ),
    (
        "What's the difference between baroque and romantic violins?",
        "The neck's angle, the strings and the bar.",
    ),
    ("Long day today.", "I hope the evening is a quiet one."),
    ("Which wood is used for the top of a violin?", "Spruce, as a rule, and maple for back and ribs."),
    ("Can dogs eat apples?", "Yes, without the seeds."),
    ("Good night!", "Good night!"),
    ("What should I cook with leeks?", "A leek and potato soup, or leeks braised in butter."),
    ("How do trams get their power?", "From an overhead wire, through a pantograph."),
    ("What do you think of jazz?", "I have no ears, but I like how people talk about it."),
    ("Give me a word with seven letters.", "Evening."),
)


def main() -> None:
    dice = random.Random(2024)
    turns: list[dict[str, str]] = []
    queries: list[dict[str, object]] = []
    groups: dict[str, list[str]] = {}
    by_day: dict[int, str] = {}

    def say(at: datetime, session: str, speaker: str, text: str) -> str:
        name = f"t{len(turns)}"
        turns.append(
            {
                "conversation": "nora",
                "session": session,
                "time": at.isoformat(),
                "turn_id": name,
                "speaker": speaker,
                "text": text,
            }
        )
        return name

    def chat(at: datetime, session: str, count: int) -> None:
        for i, (said, answer) in enumerate(dice.sample(TALK, count)):
            say(at + timedelta(minutes=2 * i), session, "user", said)
            say(at + timedelta(minutes=2 * i, seconds=20), session, "assistant", answer)

    for day in sorted({told.day for told in TOLD}):
        at, session = START + timedelta(days=day, minutes=dice.randrange(200)), f"day-{day:03}"
        chat(at, session, dice.randrange(1, 4))
        for i, told in enumerate([told for told in TOLD if told.day == day]):
            said = say(at + timedelta(minutes=20 + 2 * i), session, "user", told.said)
            answer = say(at + timedelta(minutes=21 + 2 * i), session, "assistant", told.answer)
            by_day.setdefault(day, said)
            groups.setdefault(told.key, []).append(said)
            for category, question in told.asked:
                evidence = answer if category == "advice" else said
                queries.append(
                    {"conversation": "nora", "query": question, "evidence": [evidence], "category": category}
                )
        chat(at + timedelta(minutes=40), session, dice.randrange(0, 3))
    for key, question in SEVERAL:
        queries.append(
            {"conversation": "nora", "query": question, "evidence": groups[key], "category": "several"}
        )
    for day, question in DATED:
        date = START + timedelta(days=day)
        queries.append(
            {
                "conversation": "nora",
                "query": question.format(date=f"{date.day} {date:%B %Y}"),
                "evidence": [by_day[day]],
                "category": "dated",
            }
        )
    FOLDER.mkdir(exist_ok=True)
    for name, rows in (("turns", turns), ("queries", queries)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (FOLDER / f"{name}.jsonl").write_text(text, "utf-8")
    print(f"{len(turns)} turns, {len(queries)} questions")


if __name__ == "__main__":
    main()
